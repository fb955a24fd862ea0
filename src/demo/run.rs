//! The demo's story: a school's MySQL 5.5 moves to MySQL 9.7 while its users keep writing, and everything that is
//! claimed about it is looked up.
//!
//! 1. Four private servers: production (old, new) and a rehearsal pair of the same kinds, both old ones seeded alike; and a HAProxy before
//!    each pair.
//! 2. The users begin to write to production, some over connections they keep, some with one for each request, and do not stop before the
//!    end.
//! 3. `dbmove rehearse`, on the rehearsal pair, the rollback included: leaves the certificate without which there is no switch.
//! 4. `dbmove run`, killed with `kill -9` in the middle of the copy; the same command goes on from there, and follows.
//! 5. `dbmove cutover` takes over from it and switches, while clients wait at HAProxy.
//! 6. `dbmove rollback`: back to the old server with all that was written on the new one, which is looked up there.
//! 7. All of it once more, for good: the way back is closed by a person's yes.
//! 8. The verdict.
//!
//! # What makes it honest
//!
//! `dbmove` is run as an operator would run it: child processes of this very program, a playbook, a state directory.
//! The story believes none of them: that the plug was pulled in the middle of the copy is asked of the journal and
//! counted on the target, and if the copy was over before that, the demo fails instead of telling it all the same. The
//! promise to the users is kept in a ledger outside of both servers. After the switch writers go on, so nothing can
//! be compared as a whole any more; what is said of all rows is dbmove's own last check at the fence, and what is
//! said independently of it is the ledger and the old server's transfers, which never change once made.
//!
//! # What it leaves
//!
//! Nothing but the report and the journal. Whatever ends the story (its end, an error, a cancelled token) drops
//! [`Place`], and with it servers and directory. It must run on the runtime's main thread: see
//! [`child`](super::story::child).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ledger::{Ledger, LedgerReading, Outcome, check};
use super::school::DATABASE;
use super::seed::{SchoolSize, seed};
use super::story::child::{Child, Ended};
use super::story::narrator::Narrator;
use super::story::place::{Left, Pair, Place, address, write_private};
use super::story::verdict::{Judged, Witnessed, judge};
use super::story::{evidence, playbook, plug};
use super::visitors::{VisitorCounts, Visitors};
use super::writers::{WriterOptions, Writers};
use crate::local::{Account, LocalServer};
use crate::playbook::model::StageName;
use crate::report::model::Report;
use crate::telemetry::human;

pub use super::story::error::DemoError;

/// Transfers a second that users ask for.
const TRANSFERS_PER_SECOND: f64 = 250.0;
/// Other changes a second.
const CHANGES_PER_SECOND: f64 = 100.0;
/// Requests a second with a connection each.
const VISITORS_PER_SECOND: u32 = 40;
/// How long `run` follows before the switch.
const FOLLOWING: Duration = Duration::from_secs(3);
/// How long users write to the new server.
const AFTERWARDS: Duration = Duration::from_secs(4);
/// How long one command may take, for the usual school.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

/// What the demo can be told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// How large the school is; 1 is about 300,000 rows.
    pub scale: f64,
    /// What the rows and the users' choices are drawn from.
    pub seed: u64,
    /// Where the private directory is made.
    pub directory: PathBuf,
    /// Leave the servers up.
    pub keep: bool,
}

/// How the story ended.
#[derive(Debug)]
pub struct Told {
    /// The verdict.
    pub judged: Judged,
    /// With `keep`: what is still there.
    pub left: Option<Left>,
    /// How long it took.
    pub took: Duration,
}

/// Tells the story. Dropping the future ends it and removes everything.
///
/// # Errors
/// [`DemoError`]; rows that differ and promises that were broken are in the verdict.
pub async fn tell(options: &DemoOptions, narrator: &Narrator) -> Result<Told, DemoError> {
    let size = SchoolSize::scaled(options.scale);
    narrator.scene(1, "Four private servers, and a HAProxy");
    let place = Place::prepare(&options.directory, options.keep).await?;
    introduce(&place, narrator);
    narrator.say(&format!("Filling both old ones with a school's database: {} rows in 14 tables.", human::count(size.total())));
    tokio::try_join!(fill(&place.production.source, &size, options.seed), fill(&place.rehearsal.source, &size, options.seed))?;

    let told = act(options, size, &place, narrator).await;
    let left = options.keep.then(|| place.leave());
    match told {
        Ok(judged) => Ok(Told { judged, left, took: narrator.elapsed() }),
        Err(error) => {
            // With `keep` what went wrong can be looked at.
            left.iter().for_each(|left| left.tell(narrator));
            Err(error)
        }
    }
}

/// Everything between the servers' start and their end.
async fn act(options: &DemoOptions, size: SchoolSize, place: &Place, narrator: &Narrator) -> Result<Judged, DemoError> {
    narrator.scene(2, "The users come, and stay");
    let ledger = Arc::new(Ledger::open(&place.ledger(), &mut evidence::connect(&place.production.source).await?, DATABASE).await?);
    let writers = start_writers(options, &size, place, ledger.clone()).await?;
    let visitors = Visitors::start(place.door(), DATABASE, &size, VISITORS_PER_SECOND);
    let mut asked = VisitorCounts::default();
    let began = Instant::now();
    narrator.say(&format!(
        "Seven of them write to production from now on: {TRANSFERS_PER_SECOND:.0} bank transfers a second, each booked in a ledger \
         once the server said yes, and {CHANGES_PER_SECOND:.0} other changes: inserts, deletes, keys that change, cascades. And \
         {VISITORS_PER_SECOND} times a second somebody comes with a connection for one request, as PHP does. They all know HAProxy's address; \
         nobody tells them of the move."
    ));

    narrator.scene(3, "The rehearsal");
    write_private(&place.playbook(), &playbook::text(place, if options.scale < 0.5 { 64 } else { 256 }))?;
    narrator.show("playbook", &place.playbook().display().to_string());
    let rehearsed = within(options, "dbmove rehearse", command(place, "rehearse", narrator)?.to_end(narrator)).await?.well()?;
    let rehearsal = evidence::report(rehearsed.report())?;
    certificate(&rehearsal, &rehearsed, narrator);
    tell_of(&writers, began, narrator);

    narrator.scene(4, "The move, and a pulled plug");
    let running = command(place, "run", narrator)?;
    let killed = within(options, "dbmove run", plug::pull(running, &size, place, narrator)).await?;
    narrator.scene(5, "The same command goes on");
    let mut following = command(place, "run", narrator)?;
    within(options, "dbmove run", until_done(&mut following, StageName::Verify, place, narrator)).await?;
    let resumed = plug::went_on(place, &killed, &rehearsal, narrator)?;
    narrator.say("The copy is verified and is being followed. The users have noticed nothing:");
    follow(&mut following, narrator, FOLLOWING).await?;
    tell_of(&writers, began, narrator);

    narrator.scene(6, "The switch, while clients wait");
    visitors.since_last(&mut asked);
    let run_pid = following.pid();
    let cutover = cut_over(options, place, Some(following), narrator).await?;
    narrator.say(&format!("`dbmove run` (process {run_pid}) handed over; HAProxy now leads to {}.", address(&place.production.target)));
    narrator.say(&format!("The users go on for {}, on the new server.", human::duration(AFTERWARDS)));
    sleep(AFTERWARDS).await;
    tell_of(&writers, began, narrator);
    tell_of_visitors(&visitors.since_last(&mut asked), narrator);

    narrator.scene(7, "And back, with everything");
    narrator.say("Suppose that something is wrong with the new server after all.");
    let rollback = Child::start(place, &["rollback", "school.yaml", "--deadline", "5m"], narrator)?;
    let (handed_over, back) =
        within(options, "dbmove rollback", async { tokio::try_join!(cutover.to_end(narrator), rollback.to_end(narrator)) }).await?;
    let (_, back) = (handed_over.well()?, back.well()?);
    let rollback = evidence::report(back.report())?.rollback.and_then(|rollback| rollback.seconds);
    sleep(AFTERWARDS / 2).await;
    tell_of_visitors(&visitors.since_last(&mut asked), narrator);
    writers.stop().await?;
    let mut conn = evidence::connect(&place.production.source).await?;
    let there = check(&place.ledger(), &mut conn, DATABASE).await?;
    if !there.is_clean() {
        return Err(DemoError::RolledBackShort { notes: there.notes.join("; ") });
    }
    narrator.say(&format!(
        "The old server serves again, {} after the command was given. All {} transfers are on it, also the {} that the new one acknowledged.",
        human::seconds(rollback.unwrap_or(0.0)),
        human::count(there.acknowledged),
        human::count(acknowledged_by(place, &place.production.target)?),
    ));

    narrator.scene(8, "Once more, for good");
    let writers = start_writers(options, &size, place, ledger).await?;
    for words in [&["undo", "school.yaml"][..], &["run", "school.yaml", "--new-run", "--no-follow"]] {
        within(options, "dbmove run", Child::start(place, words, narrator)?.to_end(narrator)).await?.well()?;
    }
    visitors.since_last(&mut asked);
    let acknowledged_before = acknowledged_by(place, &place.production.target)?;
    let cutover = cut_over(options, place, None, narrator).await?;
    sleep(AFTERWARDS).await;
    tell_of_visitors(&visitors.since_last(&mut asked), narrator);
    narrator.say("All is well this time, and a person says so.");
    let approve = Child::start(place, &["approve", "school.yaml", playbook::GATE_STEP, "--by", "the demo"], narrator)?;
    let (approved, switched) =
        within(options, "dbmove cutover", async { tokio::try_join!(approve.to_end(narrator), cutover.to_end(narrator)) }).await?;
    let (_, switched) = (approved.well()?, switched.well()?);

    narrator.scene(9, "Was every promise kept?");
    let counts = writers.stop().await?;
    visitors.stop(&mut asked).await;
    let report = evidence::report(switched.report())?;
    let kept = evidence::keep(place, &report, switched.report().ok_or(DemoError::NoReport)?)?;
    let same = evidence::transfers_as_they_were(place).await?;
    narrator.say(&format!("The old server is read-only; all its {} transfers are on the new one, value by value.", human::count(same)));
    let mut conn = evidence::connect(&place.production.target).await?;
    let ledger = check(&place.ledger(), &mut conn, DATABASE).await?;
    let acknowledged_after = acknowledged_by(place, &place.production.target)? - acknowledged_before;
    narrator.say(&format!(
        "The new server acknowledged {} transfers since the last switch. The longest any user with a connection went without success: {} ms.",
        human::count(acknowledged_after),
        counts.longest_stall_ms
    ));
    let witnessed = Witnessed {
        source: format!("MySQL {}", place.production.source.version()),
        target: format!("MySQL {}", place.production.target.version()),
        ledger,
        acknowledged_after,
        killed_and_resumed: resumed,
        visitors: asked,
        rollback_seconds: rollback,
        kept: kept.join("report.json"),
    };
    Ok(judge(&report, witnessed))
}

/// The cutover, up to the moment when clients are on the new server; it goes on as long as the way back is open. The one that follows hands over.
async fn cut_over(options: &DemoOptions, place: &Place, following: Option<Child>, narrator: &Narrator) -> Result<Child, DemoError> {
    let mut cutover = Child::start(place, &["cutover", "school.yaml", "--deadline", "16h"], narrator)?;
    let handed_over = async {
        match following {
            Some(following) => following.to_end(narrator).await?.well().map(drop),
            None => Ok(()),
        }
    };
    let switched = until_done(&mut cutover, StageName::Cutover, place, narrator);
    within(options, "dbmove cutover", async { tokio::try_join!(handed_over, switched) }).await?;
    narrator.say("What it had forecast before it began:");
    evidence::forecast(place)?.iter().for_each(|line| narrator.line(line));
    narrator.say("And how the switch went, second by second:");
    evidence::second_by_second(place)?.iter().for_each(|line| narrator.line(line));
    Ok(cutover)
}

fn introduce(place: &Place, narrator: &Narrator) {
    narrator.show("private directory", &place.path().display().to_string());
    let pair = |name: &str, pair: &Pair| {
        for (side, server, profile) in [("old", &pair.source, ""), ("new", &pair.target, ", RDS-like")] {
            narrator.show(&format!("{name}, {side}"), &format!("MySQL {} on {}{profile}", server.version(), address(server)));
        }
    };
    pair("production", &place.production);
    pair("rehearsal", &place.rehearsal);
    narrator.show("HAProxy", &format!("127.0.0.1:{} for production, :{} for the rehearsal", place.doors.production, place.doors.rehearsal));
}

async fn fill(server: &LocalServer, size: &SchoolSize, number: u64) -> Result<(), DemoError> {
    let mut conn = evidence::connect(server).await?;
    seed(&mut conn, DATABASE, size, number).await?;
    Ok(())
}

async fn start_writers(options: &DemoOptions, size: &SchoolSize, place: &Place, ledger: Arc<Ledger>) -> Result<Writers, DemoError> {
    let source = &place.production.source;
    let mut writers = WriterOptions::new(place.route(), Account::App.user(), source.password(), DATABASE, size.clone());
    writers.transfers_per_second = TRANSFERS_PER_SECOND;
    writers.changes_per_second = CHANGES_PER_SECOND;
    writers.seed = options.seed;
    Ok(Writers::start(writers, ledger).await?)
}

fn command(place: &Place, name: &str, narrator: &Narrator) -> Result<Child, DemoError> {
    Child::start(place, &[name, "school.yaml"], narrator)
}

/// Nothing may take forever.
async fn within<T>(options: &DemoOptions, command: &'static str, work: impl Future<Output = Result<T, DemoError>>) -> Result<T, DemoError> {
    let after = COMMAND_LIMIT.mul_f64(options.scale.max(1.0));
    tokio::time::timeout(after, work).await.unwrap_or(Err(DemoError::TooLong { command, after }))
}

fn tell_of(writers: &Writers, since: Instant, narrator: &Narrator) {
    let counts = writers.counts();
    let changes: u64 = counts.changes.values().sum();
    let seconds = since.elapsed().as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss, reason = "shown without decimals")]
    let rate = counts.transfers_acknowledged as f64 / seconds;
    narrator.show(
        "the users so far",
        &format!(
            "{} transfers acknowledged ({rate:.0} a second), {} other changes",
            human::count(counts.transfers_acknowledged),
            human::count(changes)
        ),
    );
}

/// What the rehearsal left.
fn certificate(rehearsal: &Report, rehearsed: &Ended, narrator: &Narrator) {
    let hash = rehearsed.answer.get("certificate").and_then(serde_json::Value::as_str).unwrap_or("none");
    narrator.show("certificate", &hash.chars().take(12).collect::<String>());
    if let Some(expires) = rehearsal.certificate.as_ref().and_then(|certificate| certificate.expires) {
        narrator.show("good until", &format!("{expires:.0}, for this playbook, schema and versions alone"));
    }
    let rows: u64 = rehearsal.verifications.iter().map(|verification| verification.rows).max().unwrap_or(0);
    let differences: u64 = rehearsal.verifications.iter().map(|verification| verification.difference_count).sum();
    narrator.show("verified", &format!("{} rows, {differences} differences", human::count(rows)));
    if let Some(seconds) = rehearsal.write_gap.as_ref().and_then(|gap| gap.seconds) {
        narrator.show("writes held", &human::seconds(seconds));
    }
    let undone: f64 = rehearsal.undos.iter().filter_map(|undo| undo.seconds).sum();
    narrator.show("and all undone in", &human::seconds(undone));
    if let Some(seconds) = rehearsal.rollback.as_ref().and_then(|rollback| rollback.seconds) {
        narrator.show("rollback", &format!("rehearsed, in {}", human::seconds(seconds)));
    }
}

fn tell_of_visitors(counts: &VisitorCounts, narrator: &Narrator) {
    narrator.show(
        "one-request clients",
        &format!("{} served meanwhile, {} failed, longest wait {} ms", human::count(counts.served), counts.failures(), counts.longest_ms),
    );
}

/// Listens to a child until the journal says that a stage is done.
async fn until_done(child: &mut Child, stage: StageName, place: &Place, narrator: &Narrator) -> Result<(), DemoError> {
    loop {
        follow(child, narrator, Duration::from_millis(200)).await?;
        if evidence::production_run(place)?.is_some_and(|run| run.stage_done(stage)) {
            return Ok(());
        }
    }
}

/// Listens to a child for a while, in which it must not end.
async fn follow(child: &mut Child, narrator: &Narrator, duration: Duration) -> Result<(), DemoError> {
    let heard_all = async {
        while child.listen(narrator).await? {}
        Ok(())
    };
    match tokio::time::timeout(duration, heard_all).await {
        Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Err(child.ended_early().await),
    }
}

/// Transfers that a server acknowledged.
fn acknowledged_by(place: &Place, server: &LocalServer) -> Result<u64, DemoError> {
    let endpoint = address(server);
    let kept = LedgerReading::read(&place.ledger())?.entries;
    Ok(kept.values().filter(|entry| entry.outcome == Outcome::Kept && entry.endpoint == endpoint).count() as u64)
}
