//! Which stretch of production's log is replayed: from so long ago up to now.
//!
//! A log is read from the beginning of a file; where in it an event begins can't be known. So the file in which the window begins is found by when each
//! file was begun (its first event says so; few have to be looked at), and its older transactions are read and passed over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use crate::mysql::connect::{Server, Version};
use crate::mysql::error::{MysqlError, Result};
use crate::mysql::position::Position;
use crate::mysql::production::{Look, Looker, Sendings};
use crate::mysql::tail::event_type;

/// The first event of a log file.
const BEGIN: u64 = 4;

/// How long a file's first event may take.
const FIRST_EVENT: Duration = Duration::from_secs(10);

/// A stretch of a server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where reading begins.
    pub start: Position,
    /// Transactions that were begun before are passed over: seconds since 1970 by the server's clock.
    pub from: u32,
    /// Where it ends.
    pub end: Position,
    /// What the server is.
    pub version: Version,
}

/// Whether the server's log can be replayed, and where it ends. Reads no log.
///
/// # Errors
/// If the server can't be asked, writes no log, or not by rows.
pub async fn check(server: &Arc<Server>, sendings: &Sendings) -> Result<()> {
    let mut looker = Looker::open(server, sendings).await?;
    checked(&mut looker, server).await?;
    looker.close().await;
    Ok(())
}

async fn checked(looker: &mut Looker, server: &Arc<Server>) -> Result<(Version, Position)> {
    let setting = |setting: &str, expected: &str, actual: &str, hint: &str| MysqlError::Setting {
        server: server.to_string(),
        setting: setting.to_owned(),
        expected: expected.to_owned(),
        actual: actual.to_owned(),
        hint: hint.to_owned(),
    };
    let version = looker.version().await?;
    let Some(end) = looker.log_end(&version).await? else {
        let hint = "a load is made from the server's binary log; name a server that writes one in `rehearsal: { load_from: … }`, or rehearse without `--load`";
        return Err(setting("log_bin", "ON", "OFF", hint));
    };
    let format = looker.ask(&Look::LogFormat).await?.unwrap_or_default();
    if !format.eq_ignore_ascii_case("ROW") {
        let hint = "only rows can be replayed by key; with `binlog_format = ROW` (which a move needs too) wait until there is enough of the log, or rehearse without `--load`";
        return Err(setting("binlog_format", "ROW", &format, hint));
    }
    if let Some(image) = looker.ask(&Look::RowImage).await?
        && !image.eq_ignore_ascii_case("FULL")
    {
        return Err(setting(
            "binlog_row_image",
            "FULL",
            &image,
            "set it, and wait until there is enough of the log, or rehearse without `--load`",
        ));
    }
    Ok((version, end))
}

/// The window of this length that ends now.
///
/// # Errors
/// As [`check`]; if a log file can't be read.
pub async fn find(server: &Arc<Server>, sendings: &Sendings, server_id: u32, length: Duration) -> Result<Window> {
    let mut looker = Looker::open(server, sendings).await?;
    let (version, end) = checked(&mut looker, server).await?;
    let now = looker.ask(&Look::Clock).await?.and_then(|now| now.split('.').next()?.parse::<u32>().ok()).unwrap_or(u32::MAX);
    let mut files = looker.log_files().await?;
    looker.close().await;
    // What is begun meanwhile is not part of it.
    files.retain(|file| Position::new(file.clone(), BEGIN) <= end);
    let from = now.saturating_sub(u32::try_from(length.as_secs()).unwrap_or(u32::MAX));
    // The last file that was begun before the window does; the first of all if none was.
    let (mut low, mut high) = (0, files.len());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if begun(server, sendings, &version, server_id, &files[middle]).await? <= from {
            low = middle;
        } else {
            high = middle;
        }
    }
    let first = files.get(low).cloned().unwrap_or_else(|| end.file.clone());
    Ok(Window { start: Position::new(first, BEGIN), from, end, version })
}

/// When a log file was begun.
async fn begun(server: &Arc<Server>, sendings: &Sendings, version: &Version, server_id: u32, file: &str) -> Result<u32> {
    let start = Position::new(file, BEGIN);
    let looker = Looker::open(server, sendings).await?;
    let mut stream = looker.read_log(version, server_id, &start).await?;
    let failed =
        |source| MysqlError::Statement { server: server.to_string(), what: format!("reading the binary log from {start}"), source };
    let first = async {
        while let Some(event) = stream.next().await {
            let event = event.map_err(|source| failed(Box::new(source)))?;
            if event.header().event_type_raw() == event_type::FORMAT_DESCRIPTION {
                return Ok(event.header().timestamp());
            }
        }
        let ended = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the server ended the stream");
        Err(failed(Box::new(mysql_async::Error::Io(mysql_async::IoError::Io(ended)))))
    };
    match tokio::time::timeout(FIRST_EVENT, first).await {
        Ok(begun) => begun,
        Err(_) => {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server sent no event");
            Err(failed(Box::new(mysql_async::Error::Io(mysql_async::IoError::Io(late)))))
        }
    }
}
