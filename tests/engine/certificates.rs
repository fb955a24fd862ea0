//! Rehearsals to their end, and the certificates that cutovers ask for.

use std::time::Duration;

use dbmove::engine::certificate::{Void, check};
use dbmove::engine::outcome::{ExitCode, Serving, Verdict};
use dbmove::playbook::model::StageName;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::world::{World, ledger, net, refused, rehearsed, story_with_way_back, was_killed, whole_story};

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_goes_through_the_switch_and_all_the_way_back() {
    let (world, certificate) = rehearsed(whole_story()).await;
    assert!(!world.path().join("target_copy").exists(), "the claim on the rehearsal copy was left behind");
    let undone: Vec<String> = ledger(world.path()).into_iter().filter(|line| line.starts_with("undo ")).collect();
    assert_eq!(undone, ["undo watch", "undo release", "undo switch", "undo drain", "undo rows", "undo follow", "undo snapshot"]);
    assert!(certificate.write_gap_seconds.is_some());
    assert_eq!(certificate.facts["assess"]["schema_fingerprint"], "abc");
    assert_eq!(certificate.measured["snapshot"].work.as_ref().unwrap().amount, 100);
    let reader = world.reader();
    assert_eq!(reader.certificate("ledger").unwrap().unwrap(), certificate);
    assert_eq!(reader.rates("ledger").unwrap()["snapshot"].amount, 100);
    // The next rehearsal is a run of its own.
    let mut world = world;
    world.scenario.rehearsal = true;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    assert_eq!(world.reader().runs().unwrap().len(), 2);
}

/// The way back is tried behind everything else, the step that ends it is left out, and its time is in the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_tries_the_rollback() {
    let (world, certificate) = rehearsed(story_with_way_back()).await;
    let ledger = ledger(world.path());
    let place = |line: &str| ledger.iter().position(|found| found == line).unwrap_or_else(|| panic!("no `{line}` in {ledger:?}"));
    let order = [
        "apply switch",
        "apply watch",
        "near back",
        "hold_again wait",
        "take back",
        "keep back",
        "undo switch",
        "undo back",
        "undo wait",
        "undo watch",
    ];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{ledger:?}");
    assert!(!ledger.iter().any(|line| line.ends_with(" retire") || line.ends_with(" tidy")), "{ledger:?}");
    assert!(net(world.path()).is_empty(), "{ledger:?}");
    let (rollback, held) = (certificate.rollback_seconds.unwrap(), certificate.rollback_write_gap_seconds.unwrap());
    assert!(held >= 0.02 && rollback >= held, "{held} {rollback}");
    assert!(certificate.write_gap_seconds.is_some_and(|gap| gap > 0.0));
    let state = world.state();
    assert_eq!(state.write_gap.unwrap().step, "fence");
    let (plain, without) = rehearsed(whole_story()).await;
    assert_eq!((without.rollback_seconds, plain.state().rollback), (None, None));
}

/// What would refuse a rollback in the night refuses the certificate; what would take too long does too. Both are undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_whose_rollback_fails_certifies_nothing() {
    for slow in [false, true] {
        let mut world = World::new(story_with_way_back());
        world.scenario.rehearsal = true;
        if slow {
            world.scenario.max_write_gap_ms = 1_000;
            world.scenario.playbook.stages.cutover[3].with.insert("take_ms".to_owned(), json!(60_000));
        } else {
            world.put("broken");
        }
        let outcome = world.drive().await.unwrap();
        assert_eq!(outcome.certificate, None, "{}", outcome.verdict);
        if slow {
            assert!(matches!(outcome.verdict, Verdict::WriteGapExceeded { .. }), "{}", outcome.verdict);
        } else {
            assert_eq!(outcome.exit_code(), ExitCode::Refused, "{}", outcome.verdict);
            assert!(outcome.verdict.to_string().contains("would lose a row"), "{}", outcome.verdict);
        }
        for given_back in ["give back", "let_through wait"] {
            assert!(ledger(world.path()).contains(&given_back.to_owned()), "{:?}", ledger(world.path()));
        }
        assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
        assert_eq!(outcome.serving, Serving::Source);
    }
}

/// A target that took writes again by itself before the route was put back: the route stays, clients write on the target, and the next driver
/// begins with holding them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_let_go_by_itself_keeps_its_clients() {
    let mut world = World::new(story_with_way_back());
    world.scenario.rehearsal = true;
    world.put("bitten");
    let outcome = world.drive().await.unwrap();
    assert!(matches!(outcome.verdict, Verdict::Failed { .. }), "{}", outcome.verdict);
    assert!(outcome.verdict.to_string().contains("let writes through by itself"), "{}", outcome.verdict);
    let seen = ledger(world.path());
    assert!(!seen.contains(&"undo switch".to_owned()) && !seen.contains(&"undo back".to_owned()), "{seen:?}");
    let last: Vec<&str> = seen.iter().map(String::as_str).filter(|line| !line.starts_with("stopped")).collect();
    assert_eq!(last[last.len() - 2..], ["give back", "let_through wait"], "{seen:?}");
    world.take("bitten");
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Done, "{}", outcome.verdict);
    assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
}

/// A rehearsal of which something is left is not over: the same command goes on with it, `dbmove undo --rehearsal` takes it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_that_is_not_undone_is_not_over() {
    for give_up in [false, true] {
        // Nobody knows where clients are, so nothing may be undone.
        let mut world = World::new(whole_story());
        world.scenario.rehearsal = true;
        world.scenario.playbook.stages.cutover[2].with.extend([("fails".to_owned(), json!("definite")), ("times".to_owned(), json!(1))]);
        world.put("foreign");
        let outcome = world.drive().await.unwrap();
        assert!(outcome.serving == Serving::Unclear && outcome.undone.is_empty(), "{}", outcome.verdict);
        assert!(world.path().join("target_copy").exists(), "the claim on the copy was let go of");
        world.take("foreign");
        world.scenario.give_up = give_up;
        let outcome = world.drive().await.unwrap();
        assert_eq!((outcome.exit_code(), outcome.certificate.is_some()), (ExitCode::Done, !give_up), "{}", outcome.verdict);
        assert_eq!((world.reader().runs().unwrap().len(), net(world.path()).len()), (1, 0), "{:?}", ledger(world.path()));
        assert!(!world.path().join("target_copy").exists());
    }
    for give_up in [false, true] {
        // Its rollback died in its undo, and can't hold clients again.
        let mut world = World::new(story_with_way_back());
        world.scenario.rehearsal = true;
        assert!(was_killed(world.drive_elsewhere(Some("undo.started"))));
        world.put("broken");
        world.scenario.give_up = give_up;
        assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Refused);
        world.take("broken");
        assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
        assert_eq!((world.reader().runs().unwrap().len(), net(world.path()).len()), (1, 0), "{:?}", ledger(world.path()));
    }
}

/// On a rehearsal pair nobody's writes are lost behind the switch.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_is_given_up_behind_its_switch_too() {
    let mut world = World::new(whole_story());
    world.scenario.rehearsal = true;
    assert!(was_killed(world.drive_elsewhere(Some("point_of_no_return.passed"))));
    world.scenario.give_up = true;
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.verdict, Verdict::Undone);
    assert!(net(world.path()).is_empty(), "{:?}", ledger(world.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_that_fails_is_undone_and_certifies_nothing() {
    let mut world = World::new(whole_story());
    world.scenario.rehearsal = true;
    world.put("drain_fails");
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.certificate), (ExitCode::Error, None));
    assert!(net(world.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_asks_for_a_certificate_that_holds() {
    let mut world = World::new(whole_story());
    world.scenario.unrehearsed = false;
    let outcome = world.drive().await.unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Refused);
    assert!(outcome.verdict.to_string().contains("never rehearsed") && outcome.verdict.hint().unwrap().contains("--without-rehearsal"));
    assert!(ledger(world.path()).is_empty());
    // `run` up to verify needs none.
    world.scenario.until = StageName::Verify;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);

    let (mut world, certificate) = rehearsed(whole_story()).await;
    world.scenario.certificate = Some(certificate);
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
    assert!(world.kinds().contains(&"certificate_accepted".to_owned()));
}

/// The source serves again before anything is refused, and whoever reads the refusal has to know that something was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_was_undone_on_the_way_to_it() {
    let mut world = World::new(whole_story());
    assert!(was_killed(world.drive_elsewhere(Some("step.outcome_written#5"))));
    assert!(net(world.path()).contains_key("drain"));
    world.scenario.unrehearsed = false;
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Refused, Serving::Source), "{}", outcome.verdict);
    let hint = outcome.verdict.hint().unwrap();
    assert!(!hint.contains("nothing was touched"), "{hint}");
    assert!(hint.starts_with("what an earlier driver had begun was undone first (`drain`, `fence`); nothing else"), "{hint}");
    assert!(!net(world.path()).contains_key("drain"));
    // The next one finds nothing to undo.
    let hint = world.drive().await.unwrap().verdict.hint().unwrap().to_owned();
    assert!(hint.starts_with("nothing was touched. "), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_changed_since_the_rehearsal_stops_the_cutover_at_its_door() {
    let (mut world, mut certificate) = rehearsed(whole_story()).await;
    certificate.facts.get_mut("assess").unwrap().insert("schema_fingerprint".to_owned(), json!("another"));
    world.scenario.certificate = Some(certificate.seal().unwrap());
    let outcome = world.drive().await.unwrap();
    assert_eq!((outcome.exit_code(), outcome.serving), (ExitCode::Refused, Serving::Source));
    assert!(outcome.verdict.to_string().contains("`schema_fingerprint` of step `assess` changed"), "{}", outcome.verdict);
    assert_eq!(net(world.path()).keys().collect::<Vec<_>>(), ["follow", "rows", "snapshot"]);
}

/// What the run saw when it began is days old when its cutover begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_held_against_what_is_so_when_the_cutover_begins() {
    let says = |world: &World, schema: &str| {
        std::fs::write(world.path().join("today_assess"), json!({ "schema_fingerprint": schema }).to_string()).unwrap();
    };
    // Rehearsed and begun on one schema, which was changed and followed since.
    let (mut world, certificate) = rehearsed(whole_story()).await;
    world.scenario.certificate = Some(certificate.clone());
    world.scenario.until = StageName::Verify;
    assert_eq!(world.drive().await.unwrap().exit_code(), ExitCode::Done);
    world.scenario.until = StageName::Settle;
    says(&world, "changed");
    let (words, _) = refused(&world).await;
    assert!(words.contains("it was \"abc\", today it is \"changed\""), "{words}");
    // Rehearsed again on that one.
    let mut certificate = certificate;
    certificate.facts.get_mut("assess").unwrap().insert("schema_fingerprint".to_owned(), json!("changed"));
    world.scenario.certificate = Some(certificate.seal().unwrap());
    assert_eq!(world.drive().await.unwrap().serving, Serving::Target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_held_writes_longer_than_they_may_be_held_today_is_no_proof() {
    let (world, mut certificate) = rehearsed(story_with_way_back()).await;
    (certificate.write_gap_seconds, certificate.rollback_write_gap_seconds) = (Some(2.0), Some(5.0));
    let certificate = certificate.seal().unwrap();
    let mut now_known = today(&certificate.playbook_hash);
    for (limit, words) in [(5, &[][..]), (3, &["5s in its rollback"]), (1, &["2s at its switch", "5s in its rollback"])] {
        now_known.max_write_gap = Some(Duration::from_secs(limit));
        let found = check(&certificate, &now_known, Timestamp::now());
        assert_eq!(found.len(), words.len(), "{found:?}");
        assert!(found.iter().zip(words).all(|(found, words)| found.to_string().contains(words)), "{found:?}");
    }
    let mut world = world;
    world.scenario.certificate = Some(certificate);
    world.scenario.max_write_gap_ms = 1_000;
    let (words, _) = refused(&world).await;
    assert!(words.contains("held writes for 2s at its switch"), "{words}");
}

fn today(playbook_hash: &str) -> dbmove::engine::certificate::Today {
    let fingerprint = dbmove::engine::drift::PlaybookFingerprint { whole: playbook_hash.to_owned(), ..Default::default() };
    dbmove::engine::certificate::Today { fingerprint, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_void_when_expired_edited_or_of_another_playbook() {
    let (_world, certificate) = rehearsed(whole_story()).await;
    let now_known = today(&certificate.playbook_hash);
    let now = Timestamp::now();
    assert!(check(&certificate, &now_known, now).is_empty());
    let later = now.checked_add(SignedDuration::from_hours(24 * 7)).unwrap();
    assert!(matches!(check(&certificate, &now_known, later)[..], [Void::Expired { .. }]));
    let mut edited = certificate.clone();
    edited.expires = later.checked_add(SignedDuration::from_hours(1)).unwrap();
    assert!(matches!(check(&edited, &now_known, later)[..], [Void::Edited { .. }]));
    let other = today("other");
    assert!(matches!(check(&certificate, &other, now)[..], [Void::PlaybookChanged { .. }]));
    let earlier = now.checked_sub(SignedDuration::from_hours(1)).unwrap();
    assert!(matches!(check(&certificate, &now_known, earlier)[..], [Void::FromTheFuture { .. }]));
}
