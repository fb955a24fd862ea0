//! How the session that wrote a statement meant its bytes: in which charset, and what its quotes were.
//!
//! A statement stands in the log as the client sent it. `"students"` is a text or, under `ANSI_QUOTES`, a name; the second
//! byte of a Shift-JIS or GBK letter may look like a backslash or a backtick; a name in latin1 is no UTF-8. All of that is
//! in the event beside the statement, and is respected here: a statement that is read wrongly could change an included
//! table unseen.
//!
//! The source itself converts what is not UTF-8, so no other table of charsets can disagree with its own. That is rare: it
//! is asked only for statements with bytes beyond ASCII.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::binlog::StatusVarKey;
use mysql_async::binlog::events::{QueryEvent, StatusVarVal};

use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::error::Result;
use crate::mysql::sql;

/// What a reader of a statement has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// `"` quotes names.
    pub ansi_quotes: bool,
    /// A backslash in a text is a backslash.
    pub no_backslash_escapes: bool,
    /// The server stores names in lower case, whatever was typed (`lower_case_table_names = 1`).
    pub lower_case_names: bool,
}

/// Bits of `sql_mode` in the log.
const ANSI_QUOTES: u64 = 4;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

impl Dialect {
    /// Of the session that wrote this statement.
    #[must_use]
    pub fn of(query: &QueryEvent<'_>, lower_case_names: bool) -> Dialect {
        let sql_mode = query.status_vars().get_status_var(StatusVarKey::SqlMode);
        let bits = match sql_mode.as_ref().map(|value| value.get_value()) {
            Some(Ok(StatusVarVal::SqlMode(mode))) => mode.0,
            _ => 0,
        };
        Dialect { ansi_quotes: bits & ANSI_QUOTES != 0, no_backslash_escapes: bits & NO_BACKSLASH_ESCAPES != 0, lower_case_names }
    }
}

/// The number of the collation in which the client sent the statement.
fn collation(query: &QueryEvent<'_>) -> Option<u16> {
    match query.status_vars().get_status_var(StatusVarKey::Charset).as_ref().map(|value| value.get_value()) {
        Some(Ok(StatusVarVal::Charset { charset_client, .. })) => Some(charset_client),
        _ => None,
    }
}

/// Reads statements as text, asking the source about charsets.
pub struct Texts {
    server: Arc<Server>,
    /// Charsets by the number of one of their collations; `None` for UTF-8 and for bytes without a charset.
    charsets: HashMap<u16, Option<String>>,
}

impl Texts {
    /// For the statements of this source.
    #[must_use]
    pub fn of(server: &Arc<Server>) -> Texts {
        Texts { server: server.clone(), charsets: HashMap::new() }
    }

    /// The statement's text.
    ///
    /// # Errors
    /// If the source has to be asked and can't be.
    pub async fn text(&mut self, query: &QueryEvent<'_>) -> Result<String> {
        let bytes = query.query_raw();
        let plain = || String::from_utf8_lossy(bytes).into_owned();
        let Some(collation) = collation(query).filter(|_| !bytes.is_ascii()) else { return Ok(plain()) };
        if matches!(self.charsets.get(&collation), Some(None)) {
            return Ok(plain());
        }
        let mut session = Session::open(&self.server, Purpose::Catalog).await?;
        let charset = match self.charsets.get(&collation) {
            Some(known) => known.clone(),
            None => {
                let question = format!("SELECT CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID = {collation}");
                let named = session.first(&question, "asking for a charset's name").await?.and_then(|row| row.into_iter().next().flatten());
                // The name goes into a statement where no quotes can be.
                let usable = |name: &String| {
                    name.chars().all(|c| c.is_ascii_alphanumeric()) && !name.starts_with("utf8") && name != "binary" && name != "ascii"
                };
                self.charsets.entry(collation).or_insert(named.filter(usable)).clone()
            }
        };
        let text = match charset {
            None => plain(),
            Some(charset) => {
                let question = format!("SELECT CONVERT({} USING utf8)", sql::in_charset(&charset, bytes));
                let row = session.first(&question, "reading a statement of another charset").await?;
                row.and_then(|row| row.into_iter().next().flatten()).unwrap_or_else(plain)
            }
        };
        session.close().await;
        Ok(text)
    }
}
