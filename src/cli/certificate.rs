//! `dbmove certificate`: what the newest rehearsal proved, on paper, and whether it still holds.
//!
//! `check` asks the production servers for their schema and versions, by looks alone, as `dbmove cutover` does once more; what no server can
//! be asked is taken from the newest production run. `show` and `export` contact nobody.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::CertificateCommand;
use super::reading::Reading;
use super::report::write_whole;
use super::settings::{Everywhere, max_write_gap};
use crate::engine::certificate::{self, Certificate, Facts, Today, Void, fact};
use crate::engine::context::RunKind;
use crate::engine::drift::PlaybookFingerprint;
use crate::engine::journal::{Issued, JournalReader};
use crate::engine::outcome::ExitCode;
use crate::engine::run::facts_today;
use crate::playbook::model::Playbook;
use crate::playbook::reference::Resolver;
use crate::report::next::playbook_word;
use crate::report::terminal::next_lines;
use crate::steps;
use crate::telemetry::human;
use crate::telemetry::printable::printable;

/// An exported certificate has at most this many bytes; a bigger file is another one.
const LARGEST: u64 = 16 << 20;

/// What the commands say as JSON.
#[derive(Serialize)]
struct Data<'a> {
    holds: bool,
    void: Vec<String>,
    not_compared: Option<&'a str>,
    newer: Option<&'a str>,
    certificate: &'a Issued,
}

/// Runs the command.
///
/// # Errors
/// If there is no certificate, or a file can't be read or written.
pub async fn certificate(everywhere: &Everywhere, command: &CertificateCommand) -> Result<Answer, Refusal> {
    match command {
        CertificateCommand::Show { playbook } => {
            let loaded = super::drive::load(everywhere, playbook)?;
            let reader = JournalReader::open(&everywhere.state_directory)?;
            let issued = newest(&reader, &loaded)?;
            answer(
                everywhere,
                "certificate show",
                &Judged::of(&reader, &loaded, &issued, Seen::nothing())?,
                &issued,
                playbook,
                ExitCode::Done,
            )
        }
        CertificateCommand::Export { playbook, output } => {
            let loaded = super::drive::load(everywhere, playbook)?;
            let issued = newest(&JournalReader::open(&everywhere.state_directory)?, &loaded)?;
            let json = serde_json::to_string_pretty(&issued)
                .map_err(|error| Refusal::new(ExitCode::Error, format!("the certificate can't be written as JSON: {error}")))?;
            let Some(file) = output else {
                return Ok(Answer { text: format!("{json}\n"), json, words: String::new(), exit_code: ExitCode::Done });
            };
            write_whole(&json, file, "certificate")?;
            let words = format!("the certificate is in `{}`\n", file.display());
            Ok(Answer { json, text: String::new(), words, exit_code: ExitCode::Done })
        }
        CertificateCommand::Check { playbook, file } => {
            let loaded = super::drive::load(everywhere, playbook)?;
            let reader = JournalReader::open(&everywhere.state_directory)?;
            let issued = match file {
                Some(file) => read(file)?,
                None => newest(&reader, &loaded)?,
            };
            let seen = Seen::today(everywhere, &reader, &loaded, &issued.certificate).await?;
            let judged = Judged::of(&reader, &loaded, &issued, seen)?;
            let exit_code = if judged.void.is_empty() { ExitCode::Done } else { ExitCode::Refused };
            answer(everywhere, "certificate check", &judged, &issued, playbook, exit_code)
        }
    }
}

/// Says no, with every reason, if there is one.
///
/// # Errors
/// Exit code 4 with the reasons.
pub fn refuse(reasons: &[Void]) -> Result<(), Refusal> {
    if reasons.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    Err(Refusal::new(ExitCode::Refused, format!("{}; nothing was touched", words.join("; and ")))
        .hint("`dbmove audit` says where the journal breaks; rehearse again, in a state directory of its own")
        .next(["dbmove audit".to_owned()]))
}

fn newest(reader: &JournalReader, playbook: &Playbook) -> Result<Issued, Refusal> {
    reader.certificates(&playbook.playbook)?.pop().ok_or_else(|| {
        Refusal::new(ExitCode::Refused, format!("there is no certificate: playbook `{}` was never rehearsed", playbook.playbook))
            .hint("`dbmove rehearse PLAYBOOK` leaves one")
    })
}

/// An exported certificate.
fn read(file: &Path) -> Result<Issued, Refusal> {
    let failed = |what: String| Refusal::new(ExitCode::Error, format!("`{}` {what}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| failed(format!("can't be read: {error}")))?.len();
    if size > LARGEST {
        return Err(failed(format!("holds {}; a certificate has at most {}", human::bytes(size), human::bytes(LARGEST))));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(format!("can't be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        failed(format!("is no exported certificate: {error}")).hint("`dbmove certificate export PLAYBOOK --output FILE` writes one")
    })
}

/// What is to be said of a certificate today.
struct Judged {
    void: Vec<Void>,
    not_compared: Option<String>,
    /// Which rehearsal has issued another one since, and when.
    newer: Option<String>,
}

/// What is known of the servers.
struct Seen {
    facts: Facts,
    not_compared: Option<String>,
}

impl Seen {
    /// Nobody was asked.
    fn nothing() -> Seen {
        let not_compared = "schema and server versions: `dbmove certificate check PLAYBOOK` asks the servers".to_owned();
        Seen { facts: Facts::new(), not_compared: Some(not_compared) }
    }

    /// What the servers say now; of what can't be asked, what the newest production run has seen.
    async fn today(
        everywhere: &Everywhere,
        reader: &JournalReader,
        playbook: &Playbook,
        certificate: &Certificate,
    ) -> Result<Seen, Refusal> {
        let mut facts = match reader.latest_run(&playbook.playbook, RunKind::Production)? {
            Some(latest) if !latest.concluded => certificate::facts_of(&reader.state(&latest.run)?.outputs()),
            _ => Facts::new(),
        };
        let outputs = Reading::open(&everywhere.state_directory, &playbook.playbook, RunKind::Production)?.outputs;
        let mut unseen = None;
        match steps::build_all(playbook, RunKind::Production, &Resolver::new(outputs.clone())).await {
            Ok(built) => {
                for id in certificate.bound_steps() {
                    let Some(built) = built.steps.iter().find(|built| built.spec.id == id) else { continue };
                    match facts_today(built, outputs.clone()).await {
                        Ok(today) => {
                            if let Some(today) = today {
                                facts.entry(id.to_owned()).or_default().extend(today);
                            }
                        }
                        Err(error) => {
                            // What was seen days ago is not today's.
                            facts.remove(id);
                            unseen = Some(format!("`{id}` can't see them: {}", error.message));
                        }
                    }
                }
            }
            Err(error) => {
                facts.clear();
                unseen = Some(Refusal::from(error).message);
            }
        }
        if facts.is_empty() && unseen.is_none() {
            unseen = Some("no step can ask the servers, and no production run is under way that has seen them".to_owned());
        }
        Ok(Seen { facts, not_compared: unseen.map(|why| format!("schema and server versions: {why}")) })
    }
}

impl Judged {
    fn of(reader: &JournalReader, playbook: &Playbook, issued: &Issued, seen: Seen) -> Result<Judged, Refusal> {
        let Seen { facts, not_compared } = seen;
        let fingerprint = PlaybookFingerprint::of(playbook)
            .map_err(|error| Refusal::new(ExitCode::Error, format!("the playbook can't be written as JSON: {error}")))?;
        let today = Today { fingerprint, facts, max_write_gap: Some(max_write_gap(None, playbook)?) };
        let mut void = certificate::check(&issued.certificate, &today, Timestamp::now());
        void.extend(certificate::trace(issued, reader)?);
        let newest = reader.certificates(&playbook.playbook)?.pop().map(|newest| newest.certificate);
        let newer = newest
            .filter(|newest| newest.hash != issued.certificate.hash)
            .map(|newest| format!("rehearsal `{}` issued another one at {:.0}, and a cutover goes by that", newest.run, newest.issued));
        Ok(Judged { void, not_compared, newer })
    }
}

fn answer(
    everywhere: &Everywhere,
    command: &str,
    judged: &Judged,
    issued: &Issued,
    playbook: &Path,
    exit_code: ExitCode,
) -> Result<Answer, Refusal> {
    let word = playbook_word("", Some(playbook));
    let holds = judged.void.is_empty();
    let next = [everywhere.typed.command(&format!("dbmove {} {word}", if holds { "cutover" } else { "rehearse" }))];
    let void: Vec<String> = judged.void.iter().map(ToString::to_string).collect();
    let mut text = shown(issued);
    if holds {
        text.push_str("HOLDS");
    } else {
        text.push_str("VOID");
    }
    for reason in &void {
        text.push_str(&format!("\n  {}", printable(reason)));
    }
    if let Some(what) = &judged.not_compared {
        text.push_str(&format!("\n  not compared: {}", printable(&everywhere.typed.words(what))));
    }
    if let Some(newer) = &judged.newer {
        text.push_str(&format!("\n  NOT THE NEWEST: {}", printable(newer)));
    }
    text.push('\n');
    text.push_str(&next_lines(&next));
    let (not_compared, newer) = (judged.not_compared.as_deref(), judged.newer.as_deref());
    let data = Data { holds, void, not_compared, newer, certificate: issued };
    Ok(Answer::new(command, exit_code, &data, &next, text))
}

/// What a certificate says, for people.
fn shown(issued: &Issued) -> String {
    let certificate = &issued.certificate;
    let mut lines = vec![
        ("certificate", beginning(&certificate.hash)),
        ("rehearsal", printable(&certificate.run).into_owned()),
        ("issued", format!("{:.0}", certificate.issued)),
        ("expires", expiry(certificate)),
        ("playbook", format!("{}, {}", printable(&certificate.playbook), beginning(&certificate.playbook_hash))),
    ];
    let told = |name: &str| certificate.facts.values().find_map(|facts| facts.get(name));
    let word = |name: &str| -> Option<String> { Some(printable(told(name)?.as_str()?).into_owned()) };
    for (label, name) in [("source", fact::SOURCE_VERSION), ("target", fact::TARGET_VERSION)] {
        lines.extend(word(name).map(|version| (label, version)));
    }
    lines.extend(word(fact::COPIED_FROM).map(|from| ("data", format!("copied from the {from}"))));
    lines.extend(word(fact::SCHEMA).map(|schema| {
        let parts = told(fact::SCHEMA_PARTS).and_then(|parts| parts.as_object()).map(serde_json::Map::len);
        let parts = parts.map(|parts| format!(", {} parts", human::count(parts as u64))).unwrap_or_default();
        ("schema", format!("{}{parts}", beginning(&schema)))
    }));
    lines.extend(told(fact::ROWS).and_then(serde_json::Value::as_u64).map(|rows| ("rows", human::count(rows))));
    lines.extend(told(fact::BYTES).and_then(serde_json::Value::as_u64).map(|bytes| ("bytes", human::bytes(bytes))));
    lines.extend(word(fact::VERIFICATION_ROOT).map(|root| ("verified", beginning(&root))));
    lines.extend(certificate.write_gap_seconds.map(|gap| ("write gap", human::seconds(gap))));
    lines.push(("undo", human::seconds(certificate.undo_seconds)));
    lines.push((
        "rollback",
        match certificate.rollback_seconds {
            Some(took) => {
                let held = certificate.rollback_write_gap_seconds.map(|held| format!(", writes held {}", human::seconds(held)));
                format!("{}{}", human::seconds(took), held.unwrap_or_default())
            }
            None => "not rehearsed: the playbook has no `mysql.reverse`".to_owned(),
        },
    ));
    for (step, facts) in &certificate.facts {
        let skipped = facts.get(fact::SKIPPED).and_then(serde_json::Value::as_str);
        lines.extend(skipped.map(|why| ("NOT TRIED", format!("`{}`: {}", printable(step), printable(why)))));
    }
    if let Some(load) = &certificate.load {
        let files: Vec<String> =
            load.captured.values().flat_map(|load| &load.files).map(|file| format!("`{}`", printable(&file.name))).collect();
        let from = if files.is_empty() { String::new() } else { format!(", from {}", files.join(", ")) };
        let lag = if load.lag_p99_seconds.is_none() { "; whether following kept up is NOT KNOWN" } else { "" };
        lines.push((
            "load",
            format!("{}: asked {:.0}, reached {:.0} writes/s{from}{lag}", load.asked, load.asked_per_second, load.reached_per_second),
        ));
    }
    lines.push(("journal", format!("event {}, {}", human::count(issued.event), beginning(&issued.event_hash))));
    let mut text: String = lines.iter().map(|(label, value)| format!("{label:<12} {value}\n")).collect();
    let width = certificate.measured.keys().map(String::len).max().unwrap_or(0).max(4);
    text.push_str(&format!("\n  {:<width$}  {:>10}  work\n", "step", "took"));
    for (step, measured) in &certificate.measured {
        // Of one thing a rate says no more than its time.
        let work = measured.work.as_ref().filter(|work| work.seconds > 0.0 && work.amount > 1);
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let work = work.map(|work| {
            let rate = human::rate(work.amount as f64 / work.seconds, &work.unit);
            format!("{} at {rate}", human::amount(work.amount, &work.unit))
        });
        let work = work.unwrap_or_default();
        let line = format!("  {:<width$}  {:>10}  {work}", printable(step), human::seconds(measured.seconds));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

fn expiry(certificate: &Certificate) -> String {
    let left = certificate.expires.duration_since(Timestamp::now());
    let left = std::time::Duration::try_from(left).map_or_else(|_| "over".to_owned(), |left| format!("in {}", human::duration(left)));
    format!("{:.0}, {left}", certificate.expires)
}

/// The beginning of a hash: enough to compare two by eye.
fn beginning(hash: &str) -> String {
    printable(hash).chars().take(12).collect()
}
