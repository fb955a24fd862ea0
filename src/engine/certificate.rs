//! What a passed rehearsal leaves behind, and whether it still holds.
//!
//! A certificate says: *this* playbook, on *this* schema, between *these* server versions, was run from its
//! first step through the switch and back. A cutover asks for one, because the night of the move is no time for firsts. It
//! is void as soon as what it speaks of is no longer so: it expires, and it does not survive a changed playbook, schema or
//! server version; then it is said what changed, field by field and table by table. It carries a hash over all of it and stands in the
//! journal as an event of the hash chain; an edited one is told apart from an issued one, and one that no rehearsal of this
//! journal issued counts for nothing ([`trace`]).
//!
//! The facts come from the steps' outputs, under agreed names ([`fact`]): a store's step that knows the
//! schema says so in its output, and the same step says it again on production, where the two are compared: as it is when a cutover begins
//! ([`Step::facts_today`](super::step::Step::facts_today)), since the run may have begun days before, and the schema have been changed since.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::drift::{Change, PlaybookFingerprint, hash_json};
use super::journal::chain::Break;
use super::journal::{Issued, JournalError, JournalReader};
use super::load::CertifiedLoad;
use super::step::{Output, Work};
use crate::playbook::quantity::HumanDuration;

/// Names under which steps put facts into their output for the certificate.
pub mod fact {
    /// A hash of the schema that moves. Must be the same today.
    pub const SCHEMA: &str = "schema_fingerprint";
    /// Of what that schema consists: a short hash of each part, by its name. Tells what changed when it did.
    pub const SCHEMA_PARTS: &str = "schema_parts";
    /// The source server's version. Must be the same today.
    pub const SOURCE_VERSION: &str = "source_version";
    /// The target server's version. Must be the same today.
    pub const TARGET_VERSION: &str = "target_version";
    /// How many bytes moved.
    pub const BYTES: &str = "bytes";
    /// How many rows moved.
    pub const ROWS: &str = "rows";
    /// The Merkle root of everything verified.
    pub const VERIFICATION_ROOT: &str = "run_root";
    /// Which server the rehearsal's data was copied from, where dbmove copied it.
    pub const COPIED_FROM: &str = "copied_from";
    /// Why a step left out in the rehearsal what it does in production, if it did.
    pub const SKIPPED: &str = "skipped";
    /// All of them.
    pub const ALL: [&str; 9] = [SCHEMA, SCHEMA_PARTS, SOURCE_VERSION, TARGET_VERSION, BYTES, ROWS, VERIFICATION_ROOT, COPIED_FROM, SKIPPED];
    /// Those that make a certificate void when they differ.
    pub const BINDING: [&str; 3] = [SCHEMA, SOURCE_VERSION, TARGET_VERSION];
}

/// How long a certificate holds unless the playbook says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Facts by step, then by name.
pub type Facts = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

/// What one step took in the rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds from its start to done (a service: to ready).
    pub seconds: f64,
    /// The rate, where the step measured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// A passed rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The rehearsal's run.
    pub run: String,
    /// The playbook's name.
    pub playbook: String,
    /// The hash of everything the playbook said.
    pub playbook_hash: String,
    /// The same in parts, to name what changed. Those of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<PlaybookFingerprint>,
    /// What the steps said about the world.
    pub facts: Facts,
    /// What every step took.
    pub measured: BTreeMap<String, Measured>,
    /// How long the drill held writes, in seconds.
    pub write_gap_seconds: Option<f64>,
    /// How long its rollback took, from its beginning until clients were pointed back, in seconds; of a playbook without a way back none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_seconds: Option<f64>,
    /// How long its rollback held writes, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_write_gap_seconds: Option<f64>,
    /// How long it took to undo the cutover stage, in seconds.
    pub undo_seconds: f64,
    /// The load that it was rehearsed under, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<CertifiedLoad>,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// The journal's head when it was issued.
    pub journal_head: String,
    /// The hash of everything above.
    pub hash: String,
}

/// What is true today, for the comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Today {
    /// The playbook as it is now.
    pub fingerprint: PlaybookFingerprint,
    /// The facts known so far; steps not yet run are missing.
    pub facts: Facts,
    /// How long writes may be held, if that is known.
    pub max_write_gap: Option<Duration>,
}

/// Why a certificate does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "void")]
pub enum Void {
    /// Its time is over.
    #[error("the certificate of rehearsal `{run}` expired at {expires}")]
    Expired {
        /// The rehearsal.
        run: String,
        /// When.
        expires: Timestamp,
    },
    /// It is dated in the future.
    #[error("the certificate of rehearsal `{run}` is dated {issued}, which is in the future: check this machine's clock")]
    FromTheFuture {
        /// The rehearsal.
        run: String,
        /// Its date.
        issued: Timestamp,
    },
    /// The playbook is another one.
    #[error("the playbook changed since rehearsal `{run}`{}", listed(.changes.iter().map(ToString::to_string)))]
    PlaybookChanged {
        /// The rehearsal.
        run: String,
        /// What of it; nothing if only its description did, or the certificate does not know.
        #[serde(default)]
        changes: Vec<Change>,
    },
    /// A binding fact differs.
    #[error(
        "`{name}` of step `{step}` changed since the rehearsal: it was {rehearsed}, today it is {today}{}",
        listed(.changes.iter().cloned())
    )]
    FactChanged {
        /// The step that told it.
        step: String,
        /// The fact.
        name: String,
        /// In the rehearsal.
        rehearsed: String,
        /// Today.
        today: String,
        /// What of it, where that is known.
        #[serde(default)]
        changes: Vec<String>,
    },
    /// Its drill held writes for longer than they may be held.
    #[error(
        "rehearsal `{run}` held writes for {} {when}, and `max_write_gap` is {} today: give a longer one, or rehearse what takes less",
        milliseconds(*.held), milliseconds(*.limit)
    )]
    HeldLonger {
        /// The rehearsal.
        run: String,
        /// Where: at its switch, or in its rollback.
        when: String,
        /// For how long, in milliseconds.
        held: u64,
        /// How long they may be today, in milliseconds.
        limit: u64,
    },
    /// It stands at another place of the journal than the one it names.
    #[error(
        "the certificate of rehearsal `{run}` is event {stands} of the journal, and not event {named} as the file says, or that event's hash is another one"
    )]
    Elsewhere {
        /// The rehearsal.
        run: String,
        /// The event that the file names.
        named: u64,
        /// The event that it is.
        stands: u64,
    },
    /// No rehearsal of this journal issued it.
    #[error("no rehearsal in this journal issued the certificate that calls itself one of `{run}`")]
    NotIssuedHere {
        /// The rehearsal it claims.
        run: String,
    },
    /// The journal it stands in was edited.
    #[error("the journal was edited, so no certificate in it can be trusted: {broken}")]
    JournalEdited {
        /// Where.
        broken: Break,
    },
    /// Its hash does not fit what it says.
    #[error("the certificate of rehearsal `{run}` was edited: its hash does not fit what it says")]
    Edited {
        /// The rehearsal it claims.
        run: String,
    },
}

/// Picks the facts a certificate speaks of from all outputs.
#[must_use]
pub fn facts_of(outputs: &BTreeMap<String, Output>) -> Facts {
    outputs
        .iter()
        .filter_map(|(step, output)| {
            let facts: BTreeMap<_, _> =
                output.facts.iter().filter(|(name, _)| fact::ALL.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
            (!facts.is_empty()).then(|| (step.clone(), facts))
        })
        .collect()
}

impl Certificate {
    fn hash_of(&self) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Some(map) = value.as_object_mut() {
            map.remove("hash");
        }
        Ok(hash_json(&value))
    }

    /// Puts the hash under a certificate that is otherwise complete.
    ///
    /// # Errors
    /// If it can't be written as JSON (a rate that is not a number).
    pub fn seal(mut self) -> Result<Certificate, serde_json::Error> {
        self.hash = self.hash_of()?;
        Ok(self)
    }

    /// The end of a certificate issued at `issued` that lives for `lifetime`.
    #[must_use]
    pub fn expiry(issued: Timestamp, lifetime: Duration) -> Timestamp {
        SignedDuration::try_from(lifetime).ok().and_then(|span| issued.checked_add(span).ok()).unwrap_or(Timestamp::MAX)
    }

    /// The steps whose facts it is held against.
    pub fn bound_steps(&self) -> impl Iterator<Item = &str> {
        let binds = |facts: &BTreeMap<String, serde_json::Value>| fact::BINDING.iter().any(|name| facts.contains_key(*name));
        self.facts.iter().filter(move |(_, facts)| binds(facts)).map(|(step, _)| step.as_str())
    }

    /// The rates of its steps, for estimates.
    #[must_use]
    pub fn rates(&self) -> BTreeMap<String, Work> {
        self.measured.iter().filter_map(|(step, measured)| Some((step.clone(), measured.work.clone()?))).collect()
    }
}

/// That there is none.
pub(super) fn none_of(playbook: &str) -> String {
    format!("there is no certificate: playbook `{playbook}` was never rehearsed")
}

/// What to do where a cutover is refused for want of one; `left` says what was left as it was.
pub(super) fn what_to_do(left: &str) -> String {
    format!("{left}. `dbmove rehearse PLAYBOOK` leaves a certificate; or give `--without-rehearsal \"reason\"`, which is recorded")
}

/// Whether a certificate holds today: an empty list, or every reason why it does not. A fact that is not known yet is not held
/// against it; the engine checks again when the cutover begins, with every fact of the stages before.
#[must_use]
pub fn check(certificate: &Certificate, today: &Today, now: Timestamp) -> Vec<Void> {
    let run = || certificate.run.clone();
    let mut reasons = Vec::new();
    if certificate.hash_of().ok().as_ref() != Some(&certificate.hash) {
        reasons.push(Void::Edited { run: run() });
    }
    if now >= certificate.expires {
        reasons.push(Void::Expired { run: run(), expires: certificate.expires });
    }
    // A minute of difference between clocks is no reason to distrust a rehearsal.
    if certificate.issued.duration_since(now) > SignedDuration::from_secs(60) {
        reasons.push(Void::FromTheFuture { run: run(), issued: certificate.issued });
    }
    if certificate.playbook_hash != today.fingerprint.whole {
        let changes = certificate.fingerprint.as_ref().map(|rehearsed| rehearsed.changes(&today.fingerprint)).unwrap_or_default();
        reasons.push(Void::PlaybookChanged { run: run(), changes });
    }
    let held = [(certificate.write_gap_seconds, "at its switch"), (certificate.rollback_write_gap_seconds, "in its rollback")];
    for (held, when) in held {
        let held = held.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if let (Some(held), Some(limit)) = (held, today.max_write_gap)
            && held > limit
        {
            let whole = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            reasons.push(Void::HeldLonger { run: run(), when: when.to_owned(), held: whole(held), limit: whole(limit) });
        }
    }
    for (step, facts) in &certificate.facts {
        for name in fact::BINDING {
            let (Some(rehearsed), Some(found)) = (facts.get(name), today.facts.get(step).and_then(|facts| facts.get(name))) else {
                continue;
            };
            if rehearsed != found {
                let parts = |facts: &Facts| facts.get(step).and_then(|facts| facts.get(fact::SCHEMA_PARTS)).cloned();
                let changes = match (parts(&certificate.facts), parts(&today.facts)) {
                    (Some(rehearsed), Some(found)) if name == fact::SCHEMA => parts_that_differ(&rehearsed, &found),
                    _ => Vec::new(),
                };
                reasons.push(Void::FactChanged {
                    step: step.clone(),
                    name: name.to_owned(),
                    rehearsed: shortened(rehearsed),
                    today: shortened(found),
                    changes,
                });
            }
        }
    }
    reasons
}

/// Whether a rehearsal of this journal issued the certificate as it is and where it says, and nobody edited the journal since.
///
/// # Errors
/// [`JournalError`] if the journal can't be read.
pub fn trace(issued: &Issued, journal: &JournalReader) -> Result<Vec<Void>, JournalError> {
    let certificate = &issued.certificate;
    let mut reasons = Vec::new();
    if let Some(broken) = journal.audit()?.broken {
        reasons.push(Void::JournalEdited { broken });
    }
    match journal.certificates(&certificate.playbook)?.into_iter().find(|found| found.certificate == *certificate) {
        None => reasons.push(Void::NotIssuedHere { run: certificate.run.clone() }),
        Some(found) if found != *issued => {
            reasons.push(Void::Elsewhere { run: certificate.run.clone(), named: issued.event, stands: found.event });
        }
        Some(_) => {}
    }
    Ok(reasons)
}

/// A duration for a message.
fn milliseconds(milliseconds: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(milliseconds))
}

/// Things that are named in a message at most.
const NAMED: usize = 12;

/// `: one, two, three`, and how many more; nothing of none.
fn listed(things: impl ExactSizeIterator<Item = String>) -> String {
    let more = things.len().saturating_sub(NAMED);
    let mut text = String::new();
    for (index, thing) in things.take(NAMED).enumerate() {
        text.push_str(if index == 0 { ": " } else { ", " });
        text.push_str(&thing);
    }
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Of two maps from a part's name to its hash: what is new, what is gone, what is another.
fn parts_that_differ(rehearsed: &serde_json::Value, today: &serde_json::Value) -> Vec<String> {
    let (Some(rehearsed), Some(today)) = (rehearsed.as_object(), today.as_object()) else { return Vec::new() };
    let mut changes = Vec::new();
    for name in rehearsed.keys().chain(today.keys().filter(|name| !rehearsed.contains_key(*name))) {
        match (rehearsed.get(name), today.get(name)) {
            (Some(_), None) => changes.push(format!("`{name}` is gone")),
            (None, Some(_)) => changes.push(format!("`{name}` is new")),
            (rehearsed, today) if rehearsed != today => changes.push(format!("`{name}` is another")),
            _ => {}
        }
    }
    changes
}

/// A fact for a message: of a hash its beginning, which is enough to tell two apart.
fn shortened(fact: &serde_json::Value) -> String {
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match fact.as_str() {
        Some(text) if is_hash(text) => format!("{}…", &text[..12]),
        _ => fact.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The journal keeps it as JSON, and its hash is made from JSON: every number has to come back as it went.
    #[test]
    fn holds_after_it_was_written_and_read() {
        for number in 0..2_000_u32 {
            let seconds = f64::from(number).mul_add(0.000_123_457, 0.1) / 7.3;
            let work = Some(Work { unit: "rows".to_owned(), amount: 303_200, seconds });
            let certificate = Certificate {
                run: "20261123T154731Z-30cea2".to_owned(),
                playbook: "school".to_owned(),
                playbook_hash: "hash".to_owned(),
                fingerprint: None,
                facts: Facts::new(),
                measured: BTreeMap::from([("snapshot".to_owned(), Measured { seconds: seconds * 1.1, work })]),
                write_gap_seconds: Some(seconds / 3.0),
                rollback_seconds: Some(seconds / 5.0),
                rollback_write_gap_seconds: None,
                undo_seconds: seconds / 9.0,
                load: None,
                issued: Timestamp::UNIX_EPOCH,
                expires: Timestamp::MAX,
                journal_head: String::new(),
                hash: String::new(),
            };
            let text = serde_json::to_string(&certificate.seal().unwrap()).unwrap();
            let read: Certificate = serde_json::from_str(&text).unwrap();
            let fingerprint = PlaybookFingerprint { whole: "hash".to_owned(), ..PlaybookFingerprint::default() };
            let today = Today { fingerprint, ..Today::default() };
            assert_eq!(check(&read, &today, Timestamp::UNIX_EPOCH), [], "{text}");
        }
    }

    #[test]
    fn says_which_parts_of_a_schema_changed() {
        let parts = |entries: &[(&str, &str)]| serde_json::json!(entries.iter().copied().collect::<BTreeMap<_, _>>());
        let changes =
            parts_that_differ(&parts(&[("s.a", "1"), ("s.b", "1"), ("s.c", "1")]), &parts(&[("s.a", "1"), ("s.b", "2"), ("s.d", "1")]));
        assert_eq!(changes, ["`s.b` is another", "`s.c` is gone", "`s.d` is new"]);
        let many = (0..15).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(listed(many.into_iter()), ": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more");
        assert_eq!(listed(Vec::<String>::new().into_iter()), "");
    }
}
