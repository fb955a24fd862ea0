//! The bank through a whole night and back: cutover, minutes of new writes, rollback, and a second cutover, with `kill -9` at moments that
//! nobody chose, all the way. The same writers go on from the first second to the last; every transfer that was acknowledged to them is looked for.
//!
//! Twelve seconds of new writes and 3 kills in each part here; ten minutes and 15 kills with `DBMOVE_SOAK=1`.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Child;

use super::world::{self, code, said, says};
use super::{PAIR, World, carried_back, prepared, real};

/// One driver after the other, killed at random moments.
struct Killer {
    dice: StdRng,
    survived: u32,
    drivers: u32,
}

impl Killer {
    /// Starts a driver, and kills it within `most` unless it has ended before: then that is returned.
    async fn kills(&mut self, world: &World, arguments: &[&str], most: Duration) -> Option<i32> {
        let (mut child, log) = self.started(world, arguments);
        let moment = Duration::from_millis(self.dice.random_range(100..most.as_millis() as u64));
        match tokio::time::timeout(moment, child.wait()).await {
            Ok(ended) => {
                let ended = ended.unwrap();
                assert!(ended.success(), "{ended}\n{}", std::fs::read_to_string(world.path(&log)).unwrap());
                ended.code()
            }
            Err(_) => {
                child.kill().await.unwrap();
                self.survived += 1;
                None
            }
        }
    }

    fn started(&mut self, world: &World, arguments: &[&str]) -> (Child, String) {
        self.drivers += 1;
        let log = format!("driver-{}.log", self.drivers);
        (world.started(arguments, &log), log)
    }

    /// Through the switch, killed so many times before; returns the driver that follows back.
    async fn over(&mut self, world: &World, arguments: &[&str], kills: u32) -> Child {
        for _ in 0..kills {
            assert_eq!(self.kills(world, arguments, Duration::from_secs(3)).await, None, "it ended in the middle of its way back");
        }
        let (mut child, log) = self.started(world, arguments);
        let began = Instant::now();
        // One that was killed may have been over already.
        while !says(&world.path(&log), "stage cutover done") && !says(&world.path(&log), "a rollback is possible") {
            let ended = child.try_wait().unwrap();
            let text = || std::fs::read_to_string(world.path(&log)).unwrap();
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(120), "{ended:?}\n{}", text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        child
    }
}

/// The long way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_there_and_back_and_there_again_under_kills() {
    if real::skipped("a_night_there_and_back_and_there_again_under_kills", &PAIR) {
        return;
    }
    let (kills, time_there) = if std::env::var_os("DBMOVE_SOAK").is_some() { (15, 600) } else { (3, 12) };
    let seed = std::env::var("DBMOVE_TEST_SEED").map_or_else(|_| rand::random_range(0..1 << 40), |seed| seed.parse().unwrap());
    eprintln!("seed: DBMOVE_TEST_SEED={seed}");
    let mut killer = Killer { dice: StdRng::seed_from_u64(seed), survived: 0, drivers: 0 };
    let (world, writers) = prepared(PAIR[0], PAIR[1], 0.02).await;
    let playbook = world.playbook_argument();
    let cutover = ["--yes", "cutover", &playbook, "--deadline", "2h", "--without-rehearsal", "a long night"];

    // There, and new writes on the target for a while: what is killed then is what carries them back.
    let mut follower = killer.over(&world, &cutover, kills).await;
    let until = Instant::now() + Duration::from_secs(time_there);
    let pause = Duration::from_secs(time_there) / (kills + 1);
    while Instant::now() < until {
        tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        follower.kill().await.unwrap();
        killer.survived += 1;
        (follower, _) = killer.started(&world, &cutover);
    }
    carried_back(&world).await;

    // Back, with everything: the follower hands over to the first of these, or is left behind dead.
    let rollback = ["--yes", "rollback", &playbook];
    let mut back = None;
    for _ in 0..kills {
        back = killer.kills(&world, &rollback, Duration::from_secs(3)).await;
        if back.is_some() {
            break;
        }
    }
    if back.is_none() {
        let done = world.finished(&rollback).await;
        assert_eq!(code(&done), 0, "{}", said(&done));
    }
    follower.kill().await.ok();
    assert_eq!(std::fs::read_to_string(world.route()).unwrap(), format!("127.0.0.1:{}\n", world.source.port()));

    // And there again, by a new run.
    let given_up = world.finished(&["--yes", "undo", &playbook]).await;
    assert_eq!(code(&given_up), 0, "{}", said(&given_up));
    let ran = world.finished(&["--yes", "run", &playbook, "--no-follow", "--new-run"]).await;
    assert_eq!(code(&ran), 0, "{}", said(&ran));
    let mut second = killer.over(&world, &cutover, kills).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = world::stopped(writers).await;
    carried_back(&world).await;
    let comparison = world.compare().await;
    assert!(comparison.is_equal(), "{comparison:#?}");
    let verdict = world.ledger_on(&world.target).await;
    assert!(verdict.is_clean(), "{verdict:#?}\n{counts:?}");
    assert_eq!(verdict.sum_before, verdict.sum_after);
    second.kill().await.unwrap();
    println!(
        "{time_there} s of writes on the new server, {} kills survived by {} drivers; nothing lost, doubled or altered: {counts:?}",
        killer.survived, killer.drivers
    );
}
