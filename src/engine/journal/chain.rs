//! The hash chain: how an event is hashed, and where a chain breaks.
//!
//! The bytes hashed for event *n* are the hex hash of event *n − 1* (nothing for the first one) followed by
//!
//! ```text
//! {"at":"…","body":{…},"kind":"…","run":"…","seq":n}
//! ```
//!
//! with `body` exactly as stored. So the chain can be checked with any SQLite shell and a sha256, and a later build
//! that would write the same event with other spaces can't break it. What a chain can't show is a history rewritten
//! from some point on *with* new hashes; for that, keep the head (`count` and `hash`) elsewhere: certificates carry it,
//! and `report.json` does.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The chain's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many events there are.
    pub count: u64,
    /// The hash of the last one.
    pub hash: String,
}

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// How many events were checked and found in order.
    pub intact: u64,
    /// The chain's end as recorded beside it.
    pub head: Head,
    /// Where it breaks first, if it does.
    pub broken: Option<Break>,
}

/// Where a chain breaks, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "break")]
pub enum Break {
    /// An event's hash does not fit it and its predecessor.
    #[error("event {sequence} (`{kind}` of run `{run}`) was changed, or the one before it")]
    Changed {
        /// Its number.
        sequence: u64,
        /// Its kind as stored.
        kind: String,
        /// Its run as stored.
        run: String,
    },
    /// Numbers are missing.
    #[error("events {expected} to {} are missing", .found.saturating_sub(1))]
    Missing {
        /// The number that should come.
        expected: u64,
        /// The number that comes.
        found: u64,
    },
    /// The end is missing, or the record of the end was changed.
    #[error(
        "the journal should end with event {recorded}, but ends with event {found}: its tail was cut off, or the record of its end was changed"
    )]
    Tail {
        /// How many events there should be.
        recorded: u64,
        /// How many there are.
        found: u64,
    },
    /// An event's kind column is not its body's.
    #[error("event {sequence} calls itself `{column}` but says `{body}`")]
    Mislabelled {
        /// Its number.
        sequence: u64,
        /// The `kind` column.
        column: String,
        /// The body's own word.
        body: String,
    },
}

/// The hash of one event.
pub(super) fn hash(previous: &str, sequence: u64, run: &str, at: &str, kind: &str, body: &str) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let canonical = format!(r#"{{"at":{},"body":{body},"kind":{},"run":{},"seq":{sequence}}}"#, text(at), text(kind), text(run));
    let mut digest = Sha256::new();
    digest.update(previous.as_bytes());
    digest.update(canonical.as_bytes());
    hex::encode(digest.finalize())
}

/// The recorded end of the chain.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    connection.query_row("SELECT count, hash FROM chain WHERE id = 1", [], |row| {
        Ok(Head { count: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? })
    })
}

/// Goes through all events and says where the chain breaks first.
pub(super) fn audit(connection: &Connection) -> rusqlite::Result<Audit> {
    // One read transaction: a driver may go on writing meanwhile.
    let transaction = connection.unchecked_transaction()?;
    let head = head(&transaction)?;
    let mut statement = transaction.prepare("SELECT seq, run, at, kind, body, hash FROM events ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut previous = String::new();
    let mut intact = 0;
    let mut broken = None;
    while let Some(row) = rows.next()? {
        let sequence: u64 = row.get::<_, i64>(0)?.unsigned_abs();
        let (run, at, kind, body, stored): (String, String, String, String, String) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        if sequence != intact + 1 {
            broken = Some(Break::Missing { expected: intact + 1, found: sequence });
            break;
        }
        if hash(&previous, sequence, &run, &at, &kind, &body) != stored {
            broken = Some(Break::Changed { sequence, kind, run });
            break;
        }
        let said = serde_json::from_str::<serde_json::Value>(&body)
            .ok()
            .and_then(|body| Some(body.get("event")?.as_str()?.to_owned()))
            .unwrap_or_default();
        if said != kind {
            broken = Some(Break::Mislabelled { sequence, column: kind, body: said });
            break;
        }
        previous = stored;
        intact = sequence;
    }
    if broken.is_none() && (head.count != intact || head.hash != previous) {
        broken = Some(Break::Tail { recorded: head.count, found: intact });
    }
    Ok(Audit { intact, head, broken })
}
