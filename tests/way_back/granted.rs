//! A whole move with accounts that hold what the README lists and nothing else: what it lists is read from its table, so that neither is ahead of the
//! other. And a rehearsal that leaves the route alone.

use std::collections::BTreeMap;
use std::path::Path;

use dbmove::local::{Account, LocalServer};
use mysql_async::prelude::Queryable;

use super::world::{World, code, connect, said};
use super::{PAIR, app_writes, carried_back, real, waits_for, with_way_back};

/// The privileges that the README lists for an account, by where they are granted. `uses` are the beginnings of what they are for.
fn listed(account: &str, uses: &[&str]) -> BTreeMap<String, Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut granted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in readme.lines().filter_map(|line| line.strip_prefix(&format!("| {account} | "))) {
        let [usage, privileges, places] = row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>()[..] else { panic!("{row}") };
        if !uses.iter().any(|wanted| usage.starts_with(wanted)) {
            continue;
        }
        for place in places.split(", ") {
            let place = match place {
                "everything" => "*.*".to_owned(),
                "what moves" => "school.*".to_owned(),
                named if named.contains('.') => named.trim_matches('`').to_owned(),
                // Not with `\_`: a server with `partial_revokes`, as RDS is one, takes that as it stands.
                named => format!("{named}.*"),
            };
            granted.entry(place).or_default().extend(privileges.split(", ").map(str::to_owned));
        }
    }
    assert!(!granted.is_empty(), "{account}");
    granted
}

async fn grant(server: &LocalServer, granted: &BTreeMap<String, Vec<String>>) {
    let mut root = connect(server, Account::Root).await;
    root.query_drop("CREATE USER 'granted'@'%' IDENTIFIED BY 'dbmove'").await.unwrap();
    for (place, privileges) in granted {
        let grant = format!("GRANT {} ON {place} TO 'granted'@'%'", privileges.join(", "));
        root.query_drop(grant.as_str()).await.unwrap_or_else(|error| panic!("{grant}: {error}"));
    }
}

/// The world's playbook with the accounts `granted`, and a command of the operator's before the switch that succeeds once `go` is there.
fn with_granted_accounts(world: &World) {
    with_way_back(world);
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let text = text.replace("mysql://dbmove@", "mysql://granted@").replace("mysql://admin@", "mysql://granted@");
    let ready =
        format!("    - {{ id: ready, run: hook.exec, with: {{ command: [test, -e, {}], undo: none }} }}\n", world.path("go").display());
    std::fs::write(world.playbook(), text.replace("    - { id: back, run", &format!("{ready}    - {{ id: back, run"))).unwrap();
}

async fn dbmoves_schemas(server: &LocalServer) -> Vec<String> {
    connect(server, Account::Root).await.query("SHOW DATABASES LIKE '\\_dbmove%'").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_lists_is_enough_to_move_to_undo_and_to_come_back() {
    if real::skipped("what_the_readme_lists_is_enough_to_move_to_undo_and_to_come_back", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await;
    with_granted_accounts(&world);
    grant(&world.source, &listed("source", &["every move", "the canary", "views", "`mysql.reverse`"])).await;
    grant(&world.target, &listed("target", &["every move", "the canary", "`mysql.reverse`", "a rollback on RDS"])).await;
    let mut source = connect(&world.source, Account::Root).await;
    for statement in [
        "CREATE TABLE school.shouts (id INT PRIMARY KEY, word VARCHAR(50)) ENGINE = InnoDB",
        "CREATE TRIGGER school.shout BEFORE INSERT ON school.shouts FOR EACH ROW SET NEW.word = CONCAT(NEW.word, '!')",
    ] {
        source.query_drop(statement).await.unwrap();
    }
    let playbook = world.playbook_argument();
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));

    // Undone before the switch: all is as before, and nothing of the canary's is left.
    let go = ["--yes", "cutover", &playbook, "--deadline", "1h", "--without-rehearsal", "a test of grants"];
    let undone = world.finished(&go).await;
    assert!(said(&undone).contains("`ready`") && !said(&undone).contains("UNCLEAR"), "{}", said(&undone));
    assert!(!dbmoves_schemas(&world.source).await.contains(&"_dbmove_canary".to_owned()), "{}", said(&undone));
    assert!(!dbmoves_schemas(&world.target).await.contains(&"_dbmove_canary".to_owned()), "{}", said(&undone));
    app_writes(&world.source, "INSERT INTO school.shouts VALUES (1, 'one')").await.unwrap();

    // There, and back with what was written there.
    std::fs::write(world.path("go"), "").unwrap();
    let mut cutover = world.started(&go, "cutover.log");
    waits_for(&world, &mut cutover, "cutover.log", "stage cutover done").await;
    app_writes(&world.target, "INSERT INTO school.shouts VALUES (2, 'two')").await.unwrap();
    carried_back(&world).await;
    let back = world.finished(&["--yes", "rollback", &playbook]).await;
    assert_eq!(code(&back), 0, "{}", said(&back));
    let _ = cutover.wait().await;
    // Clients there were closed.
    let mut source = connect(&world.source, Account::Root).await;
    let words: Vec<String> = source.query("SELECT word FROM school.shouts ORDER BY id").await.unwrap();
    assert_eq!(words, ["one!", "two!"]);
    app_writes(&world.source, "INSERT INTO school.shouts VALUES (3, 'three')").await.unwrap();
    let undone = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&undone), 0, "{}", said(&undone));
    for server in [&world.source, &world.target] {
        let left = dbmoves_schemas(server).await;
        assert!(left.is_empty(), "{left:?} on {:?}: {}", server.kind(), said(&undone));
    }
}

/// A playbook whose switch can't be rehearsed can be rehearsed but for that, with a check behind it; the certificate names what was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_a_rehearsal_leaves_alone_is_named_and_its_check_too() {
    if real::skipped("a_route_that_a_rehearsal_leaves_alone_is_named_and_its_check_too", &PAIR) {
        return;
    }
    let world = World::start(PAIR[0], PAIR[1], 0.01).await.with_rehearsal().await;
    let text = std::fs::read_to_string(world.playbook()).unwrap();
    let switch = text.lines().find(|line| line.contains("id: switch")).unwrap();
    let exec = "    - { id: switch, run: traffic.exec, point_of_no_return: true, with: { command: [\"false\"], probe: [\"false\"], \
                undo: [\"false\"], rehearsal: { skip: \"the balancer has no test instance\" } } }";
    std::fs::write(world.playbook(), text.replace(switch, exec)).unwrap();
    let playbook = world.playbook_argument();
    let rehearsed = world.finished(&["--yes", "rehearse", &playbook]).await;
    assert_eq!(code(&rehearsed), 0, "{}", said(&rehearsed));
    let shown = said(&world.finished(&["certificate", "show", &playbook]).await);
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("NOT TRIED `smoke`: `switch` left the route alone"), "{shown}");
    assert!(shown.contains("NOT TRIED `switch`: the balancer has no test instance"), "{shown}");
}
