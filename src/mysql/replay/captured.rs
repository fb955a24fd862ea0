//! Several log files as one log: the stretch that was captured from a server, which may be long gone from there.
//!
//! # What must hold
//!
//! * All of it is read once before anything is touched ([`Captured::surveyed`]): files that are cut off, damaged, encrypted, compressed or not there are
//!   refused then, and not in the middle of a rehearsal. What was read is what is replayed: how long each file was is kept, and what a server
//!   goes on to write to the last one is not part of the window.
//! * The files are one stretch, without a gap and in order: of several each carries the number that the server gave it, which is one more
//!   than that of the one before, all were written by one server, and where a file names the next one at its end, it is that.
//! * A file that ends without a word of the next one is what a server leaves that died. A copy that is cut short between two events looks the same; so
//!   that is said, not refused.
//! * The digest of each file is kept: a certificate that was earned under a captured load says of which.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::binlog::events::{Event, RotateEvent};
use tokio::sync::OnceCell;

use super::file::{FileError, LogFileReader, shown};
use crate::engine::load::CapturedFile;
use crate::mysql::position::Position;
use crate::mysql::rows::RowsEvent;
use crate::mysql::tail::event_type;
use crate::telemetry::printable::printable;

/// Files named in a sentence at most.
const NAMED: usize = 3;

/// Log files that a load is to be made from.
#[derive(Debug)]
pub struct Captured {
    paths: Vec<PathBuf>,
    last: Option<Duration>,
    surveyed: OnceCell<Arc<Surveyed>>,
}

/// Log files that were read once, and are as they have to be.
#[derive(Debug)]
pub struct Surveyed {
    files: Vec<(PathBuf, CapturedFile)>,
    /// Transactions that were begun before are passed over: seconds since 1970 by the server's clock.
    pub from: u32,
    /// What is to be said of them besides, and how often.
    pub remarks: BTreeMap<String, u64>,
}

/// What the survey has to know of a file to judge the next one.
struct Before<'a> {
    path: &'a Path,
    server_id: u32,
    /// The next file's number, as the last event names it.
    names: Option<u64>,
}

impl Captured {
    /// Of files in their order; of their events those of the `last` stretch, or all.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, last: Option<Duration>) -> Captured {
        Captured { paths, last, surveyed: OnceCell::new() }
    }

    /// Reads all of them, once, and says what they are.
    ///
    /// # Errors
    /// If they are not one stretch of a server's log that can be replayed.
    pub async fn surveyed(&self) -> Result<&Arc<Surveyed>, FileError> {
        self.surveyed.get_or_try_init(async || self.survey().await.map(Arc::new)).await
    }

    async fn survey(&self) -> Result<Surveyed, FileError> {
        // What is seen at a glance first: reading all of them may take minutes.
        self.in_order()?;
        for path in &self.paths {
            LogFileReader::open(path, None).await?.next().await?;
        }
        let mut remarks = BTreeMap::new();
        let (mut files, mut before) = (Vec::new(), None::<Before<'_>>);
        let (mut rows, mut latest) = (0_u64, 0);
        for (index, path) in self.paths.iter().enumerate() {
            let mut reader = LogFileReader::open(path, None).await?.digested();
            let (mut server_id, mut names, mut ended) = (None, None, false);
            loop {
                let at = reader.offset();
                let Some(event) = reader.next().await? else { break };
                let kind = event.header().event_type_raw();
                if is_compressed(kind) {
                    return Err(FileError::Compressed { file: shown(path), at });
                }
                if server_id.is_none() {
                    server_id = Some(event.header().server_id());
                    follows(before.as_ref(), path, event.header().server_id())?;
                }
                names = next_number(&event);
                ended = matches!(kind, event_type::ROTATE | event_type::STOP);
                rows += u64::from(RowsEvent::is_rows(kind));
                // An idle file may end long after the last of what is replayed.
                if RowsEvent::is_rows(kind) || matches!(kind, event_type::QUERY | event_type::XID | event_type::XA_PREPARE) {
                    latest = latest.max(event.header().timestamp());
                }
            }
            if !ended && index + 1 < self.paths.len() {
                let why = "ends of files that say nothing of the next one: their server died then, or the copy is cut short";
                *remarks.entry(why.to_owned()).or_default() += 1;
            }
            before = Some(Before { path, server_id: server_id.unwrap_or_default(), names });
            let bytes = reader.offset();
            files.push((path.clone(), CapturedFile { name: name(path), bytes, sha256: reader.into_digest() }));
        }
        let surveyed = Surveyed { files, from: self.last.map_or(0, |last| latest.saturating_sub(seconds(last))), remarks };
        if rows == 0 {
            return Err(FileError::NoRows { files: surveyed.to_string() });
        }
        Ok(surveyed)
    }

    /// Whether each has the number behind that of the one before.
    fn in_order(&self) -> Result<(), FileError> {
        if self.paths.len() < 2 {
            return Ok(());
        }
        let mut before: Option<(&Path, u64)> = None;
        for path in &self.paths {
            let number = number(&name(path)).ok_or_else(|| FileError::NoNumber { file: shown(path), files: self.paths.len() })?;
            if let Some((last, of_last)) = before.filter(|(_, of_last)| of_last.checked_add(1) != Some(number)) {
                let why = format!("behind number {of_last} comes {}, and not {number}", of_last.saturating_add(1));
                return Err(FileError::OutOfOrder { file: shown(path), before: shown(last), why });
            }
            before = Some((path, number));
        }
        Ok(())
    }
}

impl Surveyed {
    /// What they are, in their order.
    #[must_use]
    pub fn files(&self) -> Vec<CapturedFile> {
        self.files.iter().map(|(_, file)| file.clone()).collect()
    }

    /// Where reading begins.
    #[must_use]
    pub fn start(&self) -> Position {
        Position::new(self.files.first().map(|(_, file)| file.name.clone()).unwrap_or_default(), 0)
    }
}

impl fmt::Display for Surveyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.files.len() == 1 { "captured file " } else { "captured files " })?;
        for (index, (_, file)) in self.files.iter().take(NAMED).enumerate() {
            write!(f, "{}`{}`", if index == 0 { "" } else { ", " }, printable(&file.name))?;
        }
        match self.files.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The events of files that were surveyed, one file after the other.
#[derive(Debug)]
pub struct CapturedEvents {
    captured: Arc<Surveyed>,
    /// The file that is read, by its place.
    reading: Option<(usize, LogFileReader)>,
}

/// What comes next in captured files.
#[derive(Debug)]
pub enum InFiles {
    /// An event of the file that is read.
    Event(Event),
    /// A file begins here.
    File(Position),
    /// That was the last one.
    End,
}

impl CapturedEvents {
    /// From the first file's beginning.
    #[must_use]
    pub fn of(captured: Arc<Surveyed>) -> CapturedEvents {
        CapturedEvents { captured, reading: None }
    }

    /// What comes next.
    ///
    /// # Errors
    /// If a file is not what it was.
    pub async fn next(&mut self) -> Result<InFiles, FileError> {
        if let Some((_, reader)) = &mut self.reading
            && let Some(event) = reader.next().await?
        {
            return Ok(InFiles::Event(event));
        }
        let place = self.reading.as_ref().map_or(0, |(place, _)| place + 1);
        let Some((path, file)) = self.captured.files.get(place) else { return Ok(InFiles::End) };
        let reader = LogFileReader::open(path, Some(file.bytes)).await?;
        let begins = Position::new(file.name.clone(), reader.offset());
        self.reading = Some((place, reader));
        Ok(InFiles::File(begins))
    }
}

/// Whether a file goes on where the one before ended, as far as its first event and the last one before say.
fn follows(before: Option<&Before<'_>>, path: &Path, server_id: u32) -> Result<(), FileError> {
    let Some(before) = before else { return Ok(()) };
    let out_of_order = |why| Err(FileError::OutOfOrder { file: shown(path), before: shown(before.path), why });
    if before.server_id != server_id {
        return out_of_order(format!("that one was written by the server with `server_id` {}, this one by {server_id}", before.server_id));
    }
    match before.names {
        Some(names) if number(&name(path)) != Some(names) => out_of_order(format!("that one ends by naming number {names} as the next")),
        _ => Ok(()),
    }
}

/// The number of the file that an event names as the next one.
fn next_number(event: &Event) -> Option<u64> {
    if event.header().event_type_raw() != event_type::ROTATE || event.header().log_pos() == 0 {
        return None;
    }
    let rotate = event.read_event::<RotateEvent<'_>>().ok()?;
    number(&rotate.name())
}

/// The file's name without its directory, as it may be shown.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| shown(path), |name| printable(&name.to_string_lossy()).into_owned())
}

/// The number behind a name's last dot.
fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('.')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Transactions or statements that are packed: 40 is MySQL's, the rest are MariaDB's.
fn is_compressed(kind: u8) -> bool {
    matches!(kind, event_type::TRANSACTION_PAYLOAD | event_type::MARIADB_QUERY_COMPRESSED | 166..=171)
}

fn seconds(length: Duration) -> u32 {
    u32::try_from(length.as_secs()).unwrap_or(u32::MAX)
}
