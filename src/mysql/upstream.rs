//! Whom a server replicates from, where it is a replica itself.
//!
//! A source often is: of the old primary, or of another machine's. Three ask here: the assessment (is what it replicates in its own log?),
//! the guard `mysql.replication` (does it still replicate?) and the fence (does anybody still send it rows, which would be missing on the
//! target behind the switch?).
//!
//! One row a channel. The places of the columns have been the same since 5.1 and stayed when 8.0.22 renamed them. MariaDB shows its default
//! connection only unless asked for all, and then puts two columns before the others.

use super::connect::{Session, TextRow};
use super::error::Result;

/// One source that a server replicates from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// That source's host.
    pub from: String,
    /// Whether its log is being read.
    pub reads: bool,
    /// Whether what was read is being applied.
    pub applies: bool,
    /// How far it is behind; `None` when the server does not know.
    pub seconds_behind: Option<u64>,
    /// Why it does not read, empty if it does.
    pub read_error: String,
    /// Why it does not apply, empty if it does.
    pub apply_error: String,
}

impl Channel {
    fn of(row: &TextRow, shift: usize) -> Channel {
        let text = |at: usize| row.get(at + shift).and_then(Clone::clone).unwrap_or_default();
        Channel {
            from: text(1),
            reads: text(10) == "Yes",
            applies: text(11) == "Yes",
            seconds_behind: text(32).parse().ok(),
            read_error: text(35),
            apply_error: text(37),
        }
    }
}

/// Every channel of a server; none if it is nobody's replica.
///
/// # Errors
/// If the account may not ask (REPLICATION CLIENT), or the connection breaks.
pub async fn channels(session: &mut Session) -> Result<Vec<Channel>> {
    let (query, shift) = if session.version.mariadb {
        ("SHOW ALL SLAVES STATUS", 2)
    } else if session.version.mysql_from((8, 0, 22)) {
        ("SHOW REPLICA STATUS", 0)
    } else {
        ("SHOW SLAVE STATUS", 0)
    };
    let rows = session.rows(query, "asking whether it replicates").await?;
    Ok(rows.iter().map(|row| Channel::of(row, shift)).collect())
}
