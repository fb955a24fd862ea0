//! A rehearsal touches copies and nothing else: what production is sent, by its own general log, and each way in which a server of the
//! rehearsal turns out to be production's or somebody's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod real;
#[allow(dead_code, reason = "each test binary uses its own part of this")]
#[path = "moving/world.rs"]
mod world;

use std::collections::BTreeMap;

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::prelude::Queryable;
use real::proxy::Proxy;
use world::{World, code, connect, number, said};

const KINDS: [ServerKind; 2] = [ServerKind::Mysql55, ServerKind::Mysql97];

/// Statements that the server was sent while its log was on, by dbmove's account.
async fn logged(server: &LocalServer, user: &str) -> BTreeMap<String, u64> {
    let mut conn = connect(server, Account::Root).await;
    conn.query_drop("SET GLOBAL general_log = 0").await.unwrap();
    let query = format!(
        "SELECT CONVERT(argument USING utf8) FROM mysql.general_log WHERE user_host LIKE '{user}%' AND command_type NOT IN ('Connect', 'Quit')"
    );
    let mut counted = BTreeMap::new();
    for statement in conn.query::<String, _>(query).await.unwrap() {
        // The name of a lock is not listed.
        let listed =
            statement.split("('dbmove_").next().map(|begin| if begin == statement { statement.clone() } else { format!("{begin}('…')") });
        *counted.entry(listed.unwrap()).or_default() += 1;
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_is_sent_what_the_report_lists_and_nothing_else() {
    if real::skipped("production_is_sent_what_the_report_lists_and_nothing_else", &KINDS) {
        return;
    }
    let world = World::start(KINDS[0], KINDS[1], 0.01).await.with_rehearsal().await;
    for server in [&world.source, &world.target] {
        let mut conn = connect(server, Account::Root).await;
        for statement in ["SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"] {
            conn.query_drop(statement).await.unwrap();
        }
    }
    let back = "    - { id: back, run: mysql.reverse, store: school }\n    - { id: switch";
    std::fs::write(world.playbook(), world.playbook_text("30s").replace("    - { id: switch", back)).unwrap();
    let playbook = world.playbook_argument();
    // Also what drivers sent that were killed is in the list.
    for point in ["lease.claimed", "prepare.table.noted", "reverse.triggers_noted"] {
        let killed = world.dbmove(&["rehearse", &playbook]).env("DBMOVE_CRASH_AT", point).output().await.unwrap();
        assert_eq!(code(&killed), -9, "{point}: {}", said(&killed));
    }
    let rehearsed = world.finished(&["rehearse", &playbook]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    let report = world.finished(&["report", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let steps = report["stages"][0]["steps"].as_array().unwrap();
    let not_asked = &steps.iter().find(|step| step["id"] == "schema").unwrap()["facts"]["production_not_asked"];
    assert_eq!(*not_asked, serde_json::json!([]));
    let mut listed: BTreeMap<u16, BTreeMap<String, u64>> = BTreeMap::new();
    for sent in report["sent_to_production"].as_array().unwrap() {
        let server =
            if sent["server"].as_str().unwrap().contains(&format!(":{}`", world.source.port())) { &world.source } else { &world.target };
        let counts = listed.entry(server.port()).or_default();
        counts.insert(sent["statement"].as_str().unwrap().to_owned(), sent["count"].as_u64().unwrap());
    }
    for (server, user) in [(&world.source, "dbmove"), (&world.target, "admin")] {
        let logged = logged(server, user).await;
        // Two copies are proven to be none of production's servers by four drivers, one after the other.
        assert_eq!(logged.get("SELECT IS_USED_LOCK('…')"), Some(&8), "{logged:#?}");
        assert_eq!(listed.get(&server.port()), Some(&logged), "the {:?} was sent something else than the report lists", server.kind());
        for statement in logged.keys() {
            assert!(statement.starts_with("SELECT ") || statement == "SET SESSION TRANSACTION READ ONLY", "{statement}");
        }
    }
    let shown = said(&world.finished(&["report"]).await);
    assert!(shown.contains("sent to production, which was only looked at: ") && shown.contains("8x SELECT IS_USED_LOCK('…')"), "{shown}");
}

/// The rehearsal is refused with these words, and the servers of production hold nothing of dbmove's.
async fn refused(world: &World, text: &str, words: &str) {
    std::fs::write(world.playbook(), text).unwrap();
    let refused = world.finished(&["rehearse", &world.playbook_argument(), "--new-run"]).await;
    assert_eq!(code(&refused), 4, "{}", said(&refused));
    assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    assert!(said(&refused).contains("Nothing was written to it"), "{}", said(&refused));
    let (rehearsal_source, rehearsal_target) = world.rehearsal.as_ref().unwrap();
    for server in [&world.source, &world.target, rehearsal_source, rehearsal_target] {
        let ours = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_dbmove%'";
        assert_eq!(number(server, ours).await, 0, "something was written to a {:?}", server.kind());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_under_another_name_is_refused() {
    if real::skipped("production_under_another_name_is_refused", &KINDS) {
        return;
    }
    let mut world = World::start(KINDS[0], KINDS[1], 0.01).await.with_rehearsal().await;
    let text = world.playbook_text("30s");
    let port = |server: &LocalServer| format!("127.0.0.1:{}/", server.port());
    let (copy_source, copy_target) = {
        let (source, target) = world.rehearsal.as_ref().unwrap();
        (port(source), port(target))
    };
    let (to_source, to_target) = (Proxy::to(world.source.port()).await, Proxy::to(world.target.port()).await);
    let at = |proxy: &Proxy| format!("127.0.0.1:{}/", proxy.port);

    refused(&world, &text.replace(&copy_target, &at(&to_target)), "is the target of `school`").await;
    refused(&world, &text.replace(&copy_source, &at(&to_source)), "is the source of `school`").await;

    // Somebody uses the copy.
    let app = connect(&world.rehearsal.as_ref().unwrap().0, Account::App).await;
    refused(&world, &text, "others are connected to the rehearsal source of `school`").await;
    drop(app);

    // Or may use it: our account would not see them.
    let target = &world.rehearsal.as_ref().unwrap().1;
    let mut root = connect(target, Account::Root).await;
    root.query_drop("REVOKE PROCESS ON *.* FROM rds_superuser_role@`%`").await.unwrap();
    refused(&world, &text, "does not see who is connected to the rehearsal target of `school`").await;
    root.query_drop("GRANT PROCESS ON *.* TO rds_superuser_role@`%`").await.unwrap();
    root.disconnect().await.unwrap();

    // A clone of the data directory.
    let mut name = std::fs::read_to_string(world.target.data_directory().join("auto.cnf")).unwrap();
    name.push('\n');
    let copy = &mut world.rehearsal.as_mut().unwrap().1;
    copy.stop().await.unwrap();
    std::fs::write(copy.data_directory().join("auto.cnf"), name).unwrap();
    copy.restart().await.unwrap();
    refused(&world, &world.playbook_text("30s"), "both have the server_uuid").await;

    // Production that can't be reached is said to be so, and is no reason to stop.
    let copy = &mut world.rehearsal.as_mut().unwrap().1;
    copy.stop().await.unwrap();
    std::fs::remove_file(copy.data_directory().join("auto.cnf")).unwrap();
    copy.restart().await.unwrap();
    world.source.stop().await.unwrap();
    std::fs::write(world.playbook(), world.playbook_text("30s")).unwrap();
    let rehearsed = world.finished(&["rehearse", &world.playbook_argument(), "--new-run"]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    assert!(said(&rehearsed).contains("it could not be asked whether the rehearsal source"), "{}", said(&rehearsed));
}
