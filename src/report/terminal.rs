//! [`Report`] → text for a terminal: the verdict first, then what it rests on. Fits 80 columns as far as names allow.
//!
//! Every text that came from a playbook, a database or a command is made printable here.

mod standing;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::{Moment, MomentKind, Outcome, Report, Serving, Step, StepState, Timeline, Verification};
use crate::engine::load::{LoadFigures, LoadReport};
use crate::engine::production::Sent;
use crate::telemetry::human;
use crate::telemetry::printable::{printable, printable_lines, shortened};
use crate::verify::report::foremost;

pub use standing::status;

/// How many differences the terminal lists; the report holds more.
const LISTED: usize = 20;

/// A verdict as people read it, never by colour alone.
#[must_use]
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "DONE",
        Outcome::Failed => "FAILED",
        Outcome::Differences => "DIFFERENCES",
        Outcome::Refused => "REFUSED",
        Outcome::DeadlineMissed => "DEADLINE: ROLLED BACK",
        Outcome::WriteGapExceeded => "WRITE GAP: ROLLED BACK",
        Outcome::WaitingForApproval => "WAITING FOR APPROVAL",
        Outcome::HandedOver => "HANDED OVER",
        Outcome::Undone => "UNDONE",
        Outcome::RolledBack => "ROLLED BACK",
        Outcome::Interrupted => "INTERRUPTED",
        Outcome::StoppedByGuard => "STOPPED BY A GUARD",
        Outcome::UndoneByGuard => "GUARD: UNDONE",
        Outcome::LeaseLost => "TAKEN OVER",
        Outcome::Running => "RUNNING",
        Outcome::Crashed => "LEFT BEHIND",
    }
}

fn serving_words(serving: Serving) -> &'static str {
    match serving {
        Serving::Source => "the source serves",
        Serving::Target => "the target serves",
        Serving::Unclear => "who serves is UNCLEAR",
    }
}

fn state_word(state: StepState) -> &'static str {
    match state {
        StepState::NotBegun => "-",
        StepState::Running => "running",
        StepState::Ready => "ready",
        StepState::Done => "done",
        StepState::Stopped => "stopped",
        StepState::Waiting => "waiting",
        StepState::Failed => "FAILED",
        StepState::Undoing => "undoing",
        StepState::Undone => "undone",
        StepState::UndoFailed => "UNDO FAILED",
    }
}

/// The first line of a message: the rest stands elsewhere in the report.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Text being put together; writing into a `String` does not fail.
struct Text(String);

impl Text {
    fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.0, "{}", text.as_ref().trim_end());
    }
    /// A message that may have several lines; all but the first are indented, so that none can pass for a line of ours.
    fn block(&mut self, indent: &str, message: &str) {
        for (index, line) in printable_lines(message).iter().enumerate() {
            // A list in a message has an indentation of its own; here it gets ours.
            self.line(if index == 0 { format!("{indent}{line}") } else { format!("{indent}    {}", line.trim_start()) });
        }
    }
    fn heading(&mut self, text: &str) {
        self.line("");
        self.line(text);
    }
}

/// The summary of a run.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut text = Text(String::new());
    head(&mut text, report);
    steps(&mut text, report);
    for timeline in &report.timelines {
        text.heading(&format!("{}, second by second, from {:.0}", timeline.of, timeline.started));
        second_by_second(timeline).iter().for_each(|line| text.line(line));
    }
    for verification in &report.verifications {
        verified(&mut text, verification);
    }
    if let Some(load) = &report.load {
        loaded(&mut text, load);
    }
    if !report.sent_to_production.is_empty() {
        looked_at(&mut text, &report.sent_to_production);
    }
    evidence(&mut text, report);
    next(&mut text, &report.next);
    text.0
}

fn head(text: &mut Text, report: &Report) {
    let verdict = &report.verdict;
    // The word for it stands before it already.
    let said = ["refused: ", "rolled back: "].into_iter().find_map(|word| verdict.sentence.strip_prefix(word));
    let sentence = said.unwrap_or(&verdict.sentence);
    text.block("", &format!("{}: {sentence}", outcome_word(verdict.outcome)));
    if let Some(hint) = &verdict.hint {
        text.line(format!("hint: {}", printable(hint)));
    }
    text.line("");
    let run = &report.run;
    text.line(format!("run        {} ({} of `{}`)", printable(&run.id), printable(&run.kind), printable(&run.playbook)));
    text.line(format!("traffic    {}", serving_words(verdict.serving)));
    let took = run.last.duration_since(run.started).as_secs_f64();
    text.line(format!("time       {:.0} to {:.0}, {}", run.started, run.last, human::seconds(took)));
    if run.drivers > 1 {
        text.line(format!("drivers    {}, one after the other", run.drivers));
    }
    if let Some(deadline) = &report.run.deadline {
        text.line(format!("deadline   {} ({:.0})", printable(&deadline.text), deadline.until));
    }
    if let Some(gap) = &report.write_gap {
        let most = human::seconds(gap.limit_seconds);
        text.line(match gap.seconds {
            Some(held) => {
                let then = if gap.switched { "then switched" } else { "then let through again" };
                format!("write gap  {} of at most {most}, {then}", human::seconds(held))
            }
            None if verdict.outcome == Outcome::Running => format!("write gap  still held, of at most {most}"),
            None => format!("write gap  held when its driver ended, of at most {most}; see `dbmove status`"),
        });
    }
    if let Some(rollback) = &report.rollback {
        let took = rollback.seconds.map_or_else(|| "not carried through".to_owned(), human::seconds);
        let held = rollback.held_seconds.map(|held| format!(", writes held {}", human::seconds(held))).unwrap_or_default();
        text.line(format!("rollback   {took}{held}"));
    }
}

fn steps(text: &mut Text, report: &Report) {
    let width = report.stages.iter().flat_map(|stage| &stage.steps).map(|step| step.id.chars().count()).max().unwrap_or(0).clamp(4, 20);
    text.heading(&format!("  {:width$}  {:16}  {:11}  {:>8}  {:>8}", "step", "does", "state", "forecast", "took"));
    for stage in &report.stages {
        text.line(&stage.name);
        for step in &stage.steps {
            step_line(text, step, width);
        }
    }
}

fn step_line(text: &mut Text, step: &Step, width: usize) {
    let forecast = step.forecast_seconds.map_or_else(|| "-".to_owned(), human::seconds);
    let took = step.seconds.map_or_else(|| "-".to_owned(), human::seconds);
    let id = printable(&step.id);
    let mark = if step.point_of_no_return { "  <- no return" } else { "" };
    let work = step.work.as_ref().map(|work| format!("  {}", human::amount(work.amount, &printable(&work.unit)))).unwrap_or_default();
    text.line(format!(
        "  {:width$}  {:16}  {:11}  {forecast:>8}  {took:>8}{work}{mark}",
        shortened(&id, width),
        shortened(&printable(&step.name), 16),
        state_word(step.state),
    ));
    if let Some(error) = &step.error {
        text.block("    ", &error.message);
        if let Some(hint) = &error.hint {
            text.line(format!("    hint: {}", printable(hint)));
        }
    }
}

/// How wide a timeline's bars are.
const BAR: usize = 24;

/// One timeline: a line a step, with a bar for when it ran.
#[must_use]
pub fn second_by_second(timeline: &Timeline) -> Vec<String> {
    let whole = timeline.seconds.max(f64::MIN_POSITIVE);
    let width = timeline.moments.iter().filter(|moment| moment.does.is_some()).map(|moment| moment.what.chars().count());
    let width = width.max().unwrap_or(0).clamp(4, 22);
    let line = |moment: &Moment| {
        let (at, what) = (format!("{:>+9.3}s", moment.at_seconds), printable(&moment.what));
        if moment.kind == MomentKind::Said {
            return format!("{at}  -- {what}");
        }
        let took = moment.seconds.map_or_else(|| "-".to_owned(), human::seconds);
        let state = match moment.kind {
            MomentKind::Failed => "FAILED",
            MomentKind::Stopped => "stopped",
            MomentKind::Running => "running",
            MomentKind::Ready => "ready",
            MomentKind::Done | MomentKind::Said => "",
        };
        let bar = bar(moment.at_seconds / whole, (moment.at_seconds + moment.seconds.unwrap_or(whole)) / whole);
        format!("{at}  {:width$}  {took:>8}  {bar}  {state}", shortened(&what, width))
    };
    timeline.moments.iter().map(line).collect()
}

/// A bar from one share of the whole to another, at least one sign long.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "shares of 24 signs")]
fn bar(from: f64, to: f64) -> String {
    let place = |share: f64| ((share.clamp(0.0, 1.0) * BAR as f64) as usize).min(BAR - 1);
    let (from, to) = (place(from), place(to));
    (0..BAR).map(|sign| if (from..=to).contains(&sign) { '#' } else { '.' }).collect()
}

/// `client` or `server`: where the rows were hashed.
fn engine_word(method: &str) -> &str {
    method.split([',', ' ']).next().unwrap_or_default()
}

/// One step's verification.
fn verified(text: &mut Text, verification: &Verification) {
    text.heading(&format!(
        "verification `{}`: {}, {} rows in {} tables",
        printable(&verification.step),
        verification.verdict,
        human::count(verification.rows),
        verification.tables.len()
    ));
    if !verification.tables.is_empty() {
        let width = verification.tables.iter().map(|table| table.table.chars().count()).max().unwrap_or(0).clamp(5, 28);
        text.line(format!("  {:width$}  {:>12}  {:>9}  {:>6}  {:14}  {:6}  differ", "table", "rows", "bytes", "took", "compared", "by"));
        for table in &verification.tables {
            text.line(format!(
                "  {:width$}  {:>12}  {:>9}  {:>6}  {:14}  {:6}  {}",
                shortened(&printable(&table.table), width),
                human::count(table.rows),
                human::bytes(table.bytes),
                human::seconds(table.seconds),
                shortened(&table.coverage, 14),
                shortened(&printable(engine_word(&table.method)), 6),
                table.differences,
            ));
        }
        let mut methods: BTreeMap<&str, usize> = BTreeMap::new();
        verification.tables.iter().for_each(|table| *methods.entry(&table.method).or_default() += 1);
        for (method, tables) in methods {
            text.line(format!("  {} {}", human::amount(tables as u64, "tables"), printable(&format!("by {method}"))));
        }
    }
    if verification.structure_tables > 0 {
        let tables = human::amount(verification.structure_tables, "tables");
        text.line(format!(
            "  structure of {tables} compared: columns, keys, foreign keys, options, counters; {} differ",
            verification.structure.len()
        ));
    }
    for difference in foremost(&verification.differences, |difference| &difference.table, LISTED) {
        text.line(format!("  {}", printable(&difference.line)));
    }
    let more = verification.difference_count.saturating_sub(verification.differences.len().min(LISTED) as u64);
    if more > 0 {
        text.line(format!("  and {} more differences", human::count(more)));
    }
    for found in verification.structure.iter().take(LISTED) {
        text.line(format!("  {}", printable(&found.line)));
        if !found.difference.diff.is_empty() {
            text.block("    ", &found.difference.diff);
        }
    }
    if verification.structure.len() > LISTED {
        text.line(format!("  and {} more differences in the structure", verification.structure.len() - LISTED));
    }
    if verification.repaired_count > 0 {
        text.line(format!("  repaired: {} differences are gone, rows were copied once more", human::count(verification.repaired_count)));
        for difference in foremost(&verification.repaired, |difference| &difference.table, LISTED) {
            text.line(format!("    was: {}", printable(&difference.line)));
        }
        let more = verification.repaired_count.saturating_sub(verification.repaired.len().min(LISTED) as u64);
        if more > 0 {
            text.line(format!("    and {} more", human::count(more)));
        }
    }
    if let Some(foreign) = &verification.foreign {
        for writer in foreign.writers.iter().take(LISTED) {
            text.line(format!("  foreign writer: {}", printable(&writer.line())));
        }
        let more = foreign.writers.len().saturating_sub(LISTED);
        if more > 0 {
            text.line(format!("  and {more} more foreign writers"));
        }
        let found = if foreign.writers.is_empty() { "no other writer on the target was found" } else { "other writers were looked for" };
        text.line(format!("  {found} since {} UTC, by {}", printable(&foreign.since), printable(&foreign.how)));
    }
    for left_out in &verification.not_compared {
        text.line(format!("  not compared: `{}`: {}", printable(&left_out.object), printable(&left_out.why)));
    }
    for left_out in verification.outside.iter().take(LISTED) {
        text.line(format!("  does not move: `{}`: {}", printable(&left_out.object), printable(&left_out.why)));
    }
    if verification.outside.len() > LISTED {
        text.line(format!("  and {} more that do not move", verification.outside.len() - LISTED));
    }
    if let Some(root) = &verification.run_root {
        text.line(format!("  run root {root}"));
    }
}

/// What a rehearsal was under.
fn loaded(text: &mut Text, load: &LoadReport) {
    text.heading(&format!("load: {} of production's own writes", load.asked));
    for sentence in &load.sentences {
        text.block("  ", sentence);
    }
    for lag in &load.lag {
        let [p50, p95, p99, max] = [lag.p50_seconds, lag.p95_seconds, lag.p99_seconds, lag.max_seconds].map(human::seconds);
        text.line(format!("  lag of `{}`  p50 {p50}, p95 {p95}, p99 {p99}, max {max}", printable(&lag.step)));
    }
    for (store, figures) in &load.stores {
        store_load(text, store, figures);
    }
}

/// Log files listed at most.
const FILES: usize = 20;

fn store_load(text: &mut Text, store: &str, figures: &LoadFigures) {
    text.line(format!(
        "  `{}`: asked {:.0}, reached {:.0} writes/s for {}",
        printable(store),
        figures.asked_per_second,
        figures.reached_per_second,
        human::seconds(figures.seconds)
    ));
    if let (Some(begins), Some(ends)) = (figures.window_begins, figures.window_ends) {
        text.line(format!("    from {begins:.0} to {ends:.0}, pass {}, log of the {}", figures.passes, printable(&figures.from)));
    }
    for file in figures.files.iter().take(FILES) {
        text.line(format!("    `{}`, {}, sha256 {}", printable(&file.name), human::bytes(file.bytes), printable(&file.sha256)));
    }
    if figures.files.len() > FILES {
        text.line(format!("    and {} more files", figures.files.len() - FILES));
    }
    text.line(format!(
        "    {} in {}, {} connections at most, {} made anew",
        human::amount(figures.changes, "changes"),
        human::amount(figures.transactions, "transactions"),
        figures.connections,
        figures.reconnected
    ));
    text.line(format!(
        "    {} as logged, {} of rows that were not there, {} of rows that were there already; {} had no effect",
        human::count(figures.as_logged),
        human::count(figures.was_not_there),
        human::count(figures.was_there),
        human::count(figures.without_effect)
    ));
    for (why, count) in &figures.refused {
        text.line(format!("    refused: {} for {}", human::amount(*count, "changes"), printable(why)));
    }
    for (why, count) in &figures.left_out {
        text.line(format!("    left out: {} {}", human::count(*count), printable(why)));
    }
}

/// Statements named at most; a copy of many tables has one for each.
const STATEMENTS: usize = 20;

fn looked_at(text: &mut Text, sent: &[Sent]) {
    let all: u64 = sent.iter().map(|sent| sent.count).sum();
    text.heading(&format!("sent to production, which was only looked at: {}", human::amount(all, "statements")));
    let mut server = None;
    for sent in sent.iter().take(STATEMENTS) {
        if server.replace(&sent.server) != Some(&sent.server) {
            text.line(format!("  to the {}", printable(&sent.server)));
        }
        text.line(format!("  {:>6}x {}", sent.count, shortened(&printable(&sent.statement), 70)));
    }
    if sent.len() > STATEMENTS {
        text.line(format!("  and {} others; `dbmove report --json` lists them all", sent.len() - STATEMENTS));
    }
}

fn evidence(text: &mut Text, report: &Report) {
    for undo in &report.undos {
        let took = undo.seconds.map_or_else(|| "not finished".to_owned(), human::seconds);
        text.heading(&format!("undo of {} ({took}): {}", undo.scope, printable(first_line(&undo.why))));
        for (step, why) in &undo.failed {
            text.line(format!("  `{}` FAILED: {}", printable(step), printable(why)));
        }
    }
    if !report.findings.is_empty() {
        text.heading(&format!("findings: {}", report.findings.len()));
        for finding in &report.findings {
            let field = |name: &str| finding.finding.get(name).and_then(serde_json::Value::as_str).map(printable);
            match (field("object"), field("found")) {
                (Some(object), Some(found)) => {
                    text.line(format!("  {} `{object}`: {found}", field("level").unwrap_or("note".into())));
                    if let Some(fix) = field("fix") {
                        text.line(format!("    fix: {fix}"));
                    }
                }
                // A store that models its findings in another way.
                _ => text.line(format!("  {}: {}", printable(&finding.id), printable(&finding.finding.to_string()))),
            }
        }
    }
    if !report.retries.is_empty() {
        text.heading(&format!("tried again: {}", report.retries.len()));
        for retry in report.retries.iter().rev().take(5).rev() {
            text.line(format!("  `{}` attempt {}: {}", printable(&retry.step), retry.attempt, printable(&retry.error)));
        }
    }
    for note in &report.notes {
        let step = note.step.as_ref().map(|step| format!("`{}`: ", printable(step))).unwrap_or_default();
        text.line(format!("note: {step}{}", printable(&note.text)));
    }
    text.line("");
    if let Some(reason) = &report.approvals.without_rehearsal {
        text.line(format!("rehearsal    NONE: {}", printable(reason)));
    }
    for approval in &report.approvals.given {
        let reason = approval.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        let void = if approval.stands { "" } else { " (void: the playbook has changed since)" };
        text.line(format!(
            "approved     `{}` by {} at {:.0}{reason}{void}",
            printable(&approval.step),
            printable(&approval.by),
            approval.at
        ));
    }
    for told in &report.approvals.told {
        let reason = told.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        text.line(format!("told         {} by {} at {:.0}{reason}", told.act, printable(&told.by), told.at));
    }
    for told in &report.guards {
        let effect = told.effect.as_ref().map(|effect| format!(" ({})", effect.replace('_', " "))).unwrap_or_default();
        let words = match told.change.as_str() {
            "quiet" => "is quiet again",
            "unseen" => "can't be asked",
            "seen" => "can be asked again",
            change => change,
        };
        text.line(format!("guard        `{}` {words} at {:.0}{effect}", printable(&told.guard), told.at));
        text.block("             ", &told.found);
    }
    for told in &report.hooks {
        match &told.error {
            None => {
                text.line(format!("hook         `{}` at {}: done in {}", printable(&told.hook), told.moment, human::seconds(told.seconds)))
            }
            Some(error) => {
                text.line(format!("hook         `{}` at {}: FAILED", printable(&told.hook), told.moment));
                text.block("             ", error);
            }
        }
    }
    for change in &report.approvals.accepted_changes {
        text.line(format!("accepted     {}", printable(change)));
    }
    if let Some(certificate) = &report.certificate {
        let hash: String = printable(&certificate.hash).chars().take(12).collect();
        let word = if certificate.issued_here { "issued" } else { "accepted" };
        let until = certificate.expires.map(|expires| format!(", good until {expires:.0}")).unwrap_or_default();
        text.line(format!("certificate  {hash} {word}{until}"));
    }
    text.line(format!("audit        {} events, the last one's hash is", report.audit.events));
    text.line(format!("             {}", printable(&report.audit.head)));
}

/// The commands at the end.
fn next(text: &mut Text, commands: &[String]) {
    if !commands.is_empty() {
        text.heading("next:");
        for command in commands {
            text.line(format!("  {}", printable(command)));
        }
    }
}

/// A message of several lines, all but the first indented deeper.
#[must_use]
pub fn block(indent: &str, message: &str) -> String {
    let mut text = Text(String::new());
    text.block(indent, message);
    text.0
}

/// The commands at the end of a status.
#[must_use]
pub fn next_lines(commands: &[String]) -> String {
    let mut text = Text(String::new());
    next(&mut text, commands);
    text.0
}
