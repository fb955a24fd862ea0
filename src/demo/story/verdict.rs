//! How the demo ended: one object for programs, a page for people, and what is wrong if something is.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::playbook::{CANARY_STEP, VERIFY_STEPS};
use crate::demo::ledger::LedgerVerdict;
use crate::demo::visitors::VisitorCounts;
use crate::engine::outcome::ExitCode;
use crate::report::model::{Outcome, Report, Serving};
use crate::telemetry::human;

/// The verdict, as `dbmove demo --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DemoVerdict {
    /// The old server.
    pub source: String,
    /// The new one.
    pub target: String,
    /// Tables that were moved.
    pub tables: u64,
    /// Rows whose equality dbmove's last check proved, as of the fence.
    pub rows_verified: u64,
    /// Rows that differ.
    pub differences: u64,
    /// The Merkle root over everything verified.
    pub run_root: String,
    /// From the last write the old server accepted to the first on the new one, through the real route, in milliseconds.
    pub write_gap_ms: Option<u64>,
    /// Transfers whose COMMIT was answered OK, on either server.
    pub transfers_acknowledged: u64,
    /// Of those: not there.
    pub transfers_lost: u64,
    /// Transfers that are there more than once.
    pub transfers_doubled: u64,
    /// The sum of all accounts before anything began.
    pub sum_before: i64,
    /// And at the end.
    pub sum_after: i64,
    /// Requests of clients that connect for each, through the whole story.
    pub requests: u64,
    /// Of those: failed.
    pub requests_failed: u64,
    /// The longest that one of them took, in milliseconds.
    pub longest_wait_ms: u64,
    /// From the command until clients were back on the old server, in milliseconds.
    pub rollback_ms: Option<u64>,
    /// Whether `kill -9` hit the copy in its middle and the next process went on from there.
    pub killed_and_resumed: bool,
    /// The run's report, kept.
    pub report: PathBuf,
}

/// What the verdict is made from, beside the report.
#[derive(Debug)]
pub struct Witnessed {
    /// The old server's name and version.
    pub source: String,
    /// The new one's.
    pub target: String,
    /// The bank's book held against the new server.
    pub ledger: LedgerVerdict,
    /// Transfers acknowledged by the new server.
    pub acknowledged_after: u64,
    /// Whether the plug was pulled and the run went on.
    pub killed_and_resumed: bool,
    /// What became of clients that connect for each request.
    pub visitors: VisitorCounts,
    /// How long the rollback took, in seconds.
    pub rollback_seconds: Option<f64>,
    /// Where the report is kept.
    pub kept: PathBuf,
}

/// The verdict, and everything that is wrong.
#[derive(Debug)]
pub struct Judged {
    /// For programs.
    pub verdict: DemoVerdict,
    /// The bank's part of it, for people.
    pub ledger: LedgerVerdict,
    /// Sentences; none if all is well.
    pub wrong: Vec<String>,
}

/// Judges the run by its report and by what was witnessed.
#[must_use]
pub fn judge(report: &Report, witnessed: Witnessed) -> Judged {
    let Witnessed { source, target, ledger, acknowledged_after, killed_and_resumed, visitors, rollback_seconds, kept } = witnessed;
    let mut wrong = Vec::new();
    let found = |step: &str| report.verifications.iter().find(|verification| verification.step == step);
    for step in VERIFY_STEPS {
        match found(step) {
            None => wrong.push(format!("the step `{step}` left no verification")),
            Some(verification) => {
                if verification.verdict != "equal" {
                    wrong.push(format!("`{step}` found source and target {}", verification.verdict));
                }
                for left_out in &verification.not_compared {
                    wrong.push(format!("`{}` was not compared: {}", left_out.object, left_out.why));
                }
            }
        }
    }
    let [_, last_check] = VERIFY_STEPS;
    let last = found(last_check);
    let write_gap_ms = report
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .find(|step| step.id == CANARY_STEP)
        .and_then(|step| step.facts.get("write_gap_ms"))
        .and_then(serde_json::Value::as_u64);
    if write_gap_ms.is_none() {
        wrong.push("the canary measured no write gap".to_owned());
    }
    if (report.verdict.outcome, report.verdict.serving) != (Outcome::Done, Serving::Target) {
        wrong.push(format!("the run ended otherwise than it should: {}", report.verdict.sentence));
    }
    if !killed_and_resumed {
        wrong.push("the run did not go on from where it was killed".to_owned());
    }
    if acknowledged_after == 0 {
        wrong.push("no transfer was acknowledged by the new server after the switch".to_owned());
    }
    if visitors.failures() > 0 {
        let why: Vec<String> = visitors.failed.iter().map(|(why, times)| format!("{times} times: {why}")).collect();
        wrong.push(format!("requests failed: {}", why.join("; ")));
    }
    if visitors.served == 0 {
        wrong.push("no request of a client with a connection for each was served".to_owned());
    }
    if rollback_seconds.is_none() {
        wrong.push("the rollback did not say how long it took".to_owned());
    }
    if ledger.acknowledged == 0 {
        wrong.push("no transfer was acknowledged at all".to_owned());
    }
    if !ledger.is_clean() {
        wrong.push(format!("the bank's book does not balance: {}", ledger.notes.join("; ")));
    }
    // Money is counted in cents; no school has more than fits.
    let cents = |sum: i128| i64::try_from(sum).unwrap_or(i64::MAX);
    let verdict = DemoVerdict {
        source,
        target,
        tables: last.map_or(0, |last| last.tables.len() as u64),
        rows_verified: last.map_or(0, |last| last.rows),
        differences: VERIFY_STEPS.iter().filter_map(|step| found(step)).map(|verification| verification.difference_count).sum(),
        run_root: last.and_then(|last| last.run_root.clone()).unwrap_or_default(),
        write_gap_ms,
        transfers_acknowledged: ledger.acknowledged,
        transfers_lost: ledger.lost,
        transfers_doubled: ledger.doubled,
        sum_before: cents(ledger.sum_before),
        sum_after: cents(ledger.sum_after),
        requests: visitors.served + visitors.failures(),
        requests_failed: visitors.failures(),
        longest_wait_ms: visitors.longest_ms,
        rollback_ms: rollback_seconds.and_then(|seconds| u64::try_from(Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()),
        killed_and_resumed,
        report: kept,
    };
    Judged { verdict, ledger, wrong }
}

impl Judged {
    /// 0 only if all is well.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match (self.verdict.differences, self.wrong.is_empty()) {
            (1.., _) => ExitCode::Differences,
            (0, false) => ExitCode::Error,
            (0, true) => ExitCode::Done,
        }
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let DemoVerdict { source, target, tables, rows_verified, differences, run_root, sum_before, sum_after, report, .. } = &self.verdict;
        let ledger = &self.ledger;
        let money = |cents: &i64| format!("{}.{:02}", human::count(cents.unsigned_abs() / 100), cents.unsigned_abs() % 100);
        let gap = self.verdict.write_gap_ms.map_or_else(|| "not measured".to_owned(), |gap| format!("{gap} ms without an accepted write"));
        vec![
            ("moved", format!("{source} to {target}")),
            ("verified", format!("{} rows in {tables} tables, {differences} differences", human::count(*rows_verified))),
            ("run root", run_root.clone()),
            ("write gap", gap),
            (
                "transfers",
                format!(
                    "{} acknowledged: {} lost, {} doubled, {} altered",
                    human::count(ledger.acknowledged),
                    ledger.lost,
                    ledger.doubled,
                    ledger.altered
                ),
            ),
            (
                "in doubt",
                format!(
                    "{} (answer lost: {} are there, {} are not)",
                    ledger.in_doubt_present + ledger.in_doubt_absent,
                    ledger.in_doubt_present,
                    ledger.in_doubt_absent
                ),
            ),
            ("sum of all accounts", format!("{} before, {} after", money(sum_before), money(sum_after))),
            (
                "requests",
                format!(
                    "{} with a connection each: {} failed, the longest took {} ms",
                    human::count(self.verdict.requests),
                    self.verdict.requests_failed,
                    self.verdict.longest_wait_ms
                ),
            ),
            (
                "there and back",
                self.verdict
                    .rollback_ms
                    .map_or_else(|| "NO".to_owned(), |took| format!("rolled back in {took} ms with every write, then moved again")),
            ),
            ("killed and resumed", if self.verdict.killed_and_resumed { "yes" } else { "NO" }.to_owned()),
            ("report", report.display().to_string()),
        ]
    }
}
