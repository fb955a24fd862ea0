//! PHP's own client, one connection per request, through a cutover from 5.5 to 9.7: its handshake is held, and done again with the other server.
//!
//! The two servers greet differently: 5.5 with `mysql_native_password` and `latin1`, 9.7 with `caching_sha2_password`, which needs the
//! server's RSA key where there is no TLS, and a character set that old clients don't know. The proxy changes nothing of it, so a
//! client that can't speak with the new server can't through HAProxy either; this one can.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dbmove::engine::context::RunKind;
use dbmove::engine::step::Step as _;
use dbmove::local::php;
use dbmove::traffic::haproxy::SharedHold;
use dbmove::traffic::haproxy::release::TrafficRelease;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinHandle;

use crate::memory::context;
use crate::real::{proxy_skipped, skip};
use crate::steps::{KINDS, Scene, TABLE, after, server};

/// Connects for each request, writes one row, says what became of it; until its standard input ends.
const SCRIPT: &str = r#"
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
stream_set_blocking(STDIN, false);
for ($number = (int)$argv[2]; fread(STDIN, 1) === '' && !feof(STDIN); $number += 10) {
    try {
        $db = new mysqli('127.0.0.1', 'app', 'dbmove', '', (int)$argv[1]);
        $db->query("SELECT 1");
        $db->query("INSERT INTO $argv[3] VALUES ($number)");
        echo "accepted $number ", $db->server_info, "\n";
        $db->close();
    } catch (mysqli_sql_exception $error) {
        echo "failed $number ", $error->getMessage(), "\n";
    }
    usleep(2000);
}
"#;

struct Php {
    child: tokio::process::Child,
    said: JoinHandle<Vec<String>>,
}

impl Php {
    fn start(port: u16, first: u32) -> Php {
        let mut command = tokio::process::Command::from(php().unwrap());
        command.args(["-r", SCRIPT, "--", &port.to_string(), &first.to_string(), TABLE]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = tokio::spawn(async move {
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                said.push(line);
            }
            said
        });
        Php { child, said }
    }

    /// Ends it; what it said.
    async fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        self.said.await.unwrap()
    }
}

async fn rows_on(scene: &Scene, target: bool, at_least: usize) {
    let began = Instant::now();
    loop {
        let rows = scene.rows(if target { &scene.target } else { &scene.source }).await.len();
        if rows >= at_least {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "PHP wrote {rows} rows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phps_own_client_waits_and_does_not_fail() {
    let name = "phps_own_client_waits_and_does_not_fail";
    if proxy_skipped(name, &KINDS) {
        return;
    }
    if let Err(reason) = php() {
        return skip(name, &reason.to_string());
    }
    let _alone = crate::ALONE.lock().await;
    let scene = Scene::start().await;
    let clients: Vec<Php> = (0..4).map(|first| Php::start(scene.port, first)).collect();
    rows_on(&scene, false, 100).await;

    let shared = SharedHold::default();
    let holding = context("hold", RunKind::Production);
    let held = scene.hold(&shared, json!({})).run(&holding).await.unwrap();
    scene.fence(1).await;
    let switched = scene.switch(&shared).run(&after("switch", &[("hold", &held)])).await.unwrap();
    let releasing = after("release", &[("hold", &held), ("switch", &switched)]);
    TrafficRelease::new(server(&scene.target, "target"), shared.clone()).run(&releasing).await.unwrap();
    rows_on(&scene, true, 100).await;

    let (mut accepted, mut versions) = (Vec::new(), Vec::new());
    for client in clients {
        for line in client.stop().await {
            let mut words = line.splitn(3, ' ');
            assert_eq!(words.next(), Some("accepted"), "{line}");
            accepted.push(words.next().unwrap().parse::<u64>().unwrap());
            versions.push(words.next().unwrap().to_owned());
        }
    }
    accepted.sort_unstable();
    versions.sort_unstable();
    versions.dedup();
    assert!(versions.len() == 2 && versions[0].starts_with("5.5") && versions[1].starts_with("9."), "{versions:?}");
    let (on_source, on_target) = (scene.rows(&scene.source).await, scene.rows(&scene.target).await);
    eprintln!(
        "PHP: {} requests accepted by {} ({}) and {} ({}), 0 failed",
        accepted.len(),
        versions[0],
        on_source.len(),
        versions[1],
        on_target.len()
    );
    let mut both: Vec<u64> = on_source.into_iter().chain(on_target).collect();
    both.sort_unstable();
    assert_eq!(accepted, both, "accepted requests and rows differ");
}
