//! One binary log file on this machine's disk, event by event.
//!
//! # What must hold
//!
//! * Every byte is accounted for: each event begins where the one before ended, and the file ends where one ends. A file that a server is still
//!   writing ends so too, unless it was copied in the middle of a write, which can't be told from one that is cut off.
//! * What an event says of itself is checked before it is used: its length against what is left of the file, before anything is allocated; its
//!   checksum, where the server wrote one (MySQL from 5.6, MariaDB); the offset at which it says to end, against the event before. A server before 5.6
//!   writes no checksums: a value that was changed there can't be seen, a length or an event that is missing can.
//! * A file never surprises: bytes of any kind are an error with the file's name and the offset, and never a panic. The driver's
//!   own reader of files is not up to that (`mysql_common` 0.37 panics at the end of a file that is cut), so an event is read whole here, and
//!   only then handed to the driver.

use std::path::{Path, PathBuf};

use mysql_async::binlog::events::{Event, FormatDescriptionEvent};
use mysql_async::binlog::{BinlogChecksumAlg, BinlogVersion};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, BufReader};

use crate::mysql::error::MysqlError;
use crate::mysql::tail::event_type;
use crate::telemetry::printable::printable;

/// What a log file begins with, and one that MySQL encrypted.
const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const ENCRYPTED: [u8; 4] = [0xfd, b'b', b'i', b'n'];
/// An event's header, in bytes.
const HEADER: usize = 19;
/// A checksum behind an event, in bytes.
const CHECKSUM: usize = 4;
/// The least that describes a format: version, server, time, header length; and which checksums there are, with its own.
const FORMAT: usize = 2 + 50 + 4 + 1 + 1 + CHECKSUM;
/// No server writes a larger event: a gibibyte is the most that a packet may have, and some more goes with it.
const LARGEST_EVENT: usize = (1 << 30) + (1 << 20);
/// What is read from the disk at once.
const BUFFER: usize = 1 << 20;

/// Why a load can't be made from files. Nothing was changed; trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system can't read it.
    #[error("the log file `{file}` can't be read: {source}")]
    Unreadable {
        /// Its path.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory, a pipe.
    #[error("`{file}` is no file")]
    NotAFile {
        /// Its path.
        file: String,
    },
    /// Another kind of file.
    #[error("`{file}` is no binary log: {why}")]
    NotALog {
        /// Its path.
        file: String,
        /// How that is seen.
        why: &'static str,
    },
    /// It is encrypted.
    #[error("the log file `{file}` is encrypted")]
    Encrypted {
        /// Its path.
        file: String,
    },
    /// It ends inside of an event.
    #[error("the log file `{file}` is cut off: the event at byte {at} has {needs} bytes, and only {left} are left")]
    CutOff {
        /// Its path.
        file: String,
        /// Where the event begins.
        at: u64,
        /// The event's bytes.
        needs: u64,
        /// Those that there are.
        left: u64,
    },
    /// Bytes are not what a server wrote.
    #[error("the log file `{file}` is damaged at byte {at}: {why}")]
    Damaged {
        /// Its path.
        file: String,
        /// Where the event begins.
        at: u64,
        /// How that is seen.
        why: String,
    },
    /// It is not what it was when the load began.
    #[error("the log file `{file}` changed while it was replayed: it had {had} bytes when the load began, and has {has}")]
    Changed {
        /// Its path.
        file: String,
        /// Bytes then.
        had: u64,
        /// Bytes now.
        has: u64,
    },
    /// Events that are packed.
    #[error("the log file `{file}` is compressed from byte {at} on, and a load can't be made from it")]
    Compressed {
        /// Its path.
        file: String,
        /// Where the event begins.
        at: u64,
    },
    /// Which file is which can't be told.
    #[error("the name of the log file `{file}` does not end in a number, so where it belongs among {files} files is not known")]
    NoNumber {
        /// Its path.
        file: String,
        /// How many there are.
        files: usize,
    },
    /// A file is missing, or stands in the wrong place.
    #[error("the log file `{file}` does not follow `{before}`: {why}")]
    OutOfOrder {
        /// Its path.
        file: String,
        /// The one before.
        before: String,
        /// How that is seen.
        why: String,
    },
    /// Nothing to replay.
    #[error("there is no row of any table in {files}: what was written was logged by statement, or nothing was")]
    NoRows {
        /// Their names.
        files: String,
    },
}

impl FileError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            FileError::Unreadable { .. } => "check the path, and that the user dbmove runs as may read it",
            FileError::NotAFile { .. } | FileError::NotALog { .. } => {
                "give `--load-log` binary log files as the server wrote them: copied from its disk, or by `mysqlbinlog --raw`; no text, no archive"
            }
            FileError::Encrypted { .. } => {
                "have the server send it in the clear: `mysqlbinlog --read-from-remote-server --raw` writes a file that can be read"
            }
            FileError::CutOff { .. } | FileError::Damaged { .. } | FileError::Changed { .. } => {
                "copy it from the server once more; of a file that is still written to, `FLUSH LOGS` there first, or copy it by `mysqlbinlog --read-from-remote-server --raw`"
            }
            FileError::Compressed { .. } => {
                "capture a stretch that was logged with `binlog_transaction_compression = OFF` (MySQL) or `log_bin_compress = OFF` (MariaDB)"
            }
            FileError::NoNumber { .. } => "give the files the names that the server gave them (`mysql-bin.000042`)",
            FileError::OutOfOrder { .. } => "name every file from the first to the last, in the order of their numbers, all of one server",
            FileError::NoRows { .. } => "only rows can be replayed; capture a stretch that was logged with `binlog_format = ROW`",
        }
    }
}

impl From<FileError> for MysqlError {
    fn from(error: FileError) -> MysqlError {
        MysqlError::Object { message: error.to_string(), hint: error.hint().to_owned() }
    }
}

/// A path for messages.
#[must_use]
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// A log file that is being read.
#[derive(Debug)]
pub struct LogFileReader {
    path: PathBuf,
    input: BufReader<File>,
    /// Where the next event begins.
    offset: u64,
    /// Where reading ends.
    end: u64,
    /// How its events are written, once that was read.
    format: Option<FormatDescriptionEvent<'static>>,
    /// The offset at which the event before said that it ends: of a copy that begins in the middle of a file that is another one than here.
    log_pos: Option<u32>,
    /// Of all that was read, if it was asked for.
    digest: Option<Sha256>,
}

impl LogFileReader {
    /// Opens it and reads how it begins. `until` is where reading ends; without it where the file ends now.
    ///
    /// # Errors
    /// If it is no log file, or shorter than that.
    pub async fn open(path: &Path, until: Option<u64>) -> Result<LogFileReader, FileError> {
        let unreadable = |source| FileError::Unreadable { file: shown(path), source };
        // Opening a pipe would wait for whoever writes to it.
        if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_file() {
            return Err(FileError::NotAFile { file: shown(path) });
        }
        let file = File::open(path).await.map_err(unreadable)?;
        let has = file.metadata().await.map_err(unreadable)?.len();
        let end = until.unwrap_or(has);
        if has < end {
            return Err(FileError::Changed { file: shown(path), had: end, has });
        }
        let mut reader = LogFileReader {
            path: path.to_owned(),
            input: BufReader::with_capacity(BUFFER, file),
            offset: 0,
            end,
            format: None,
            log_pos: None,
            digest: None,
        };
        let mut begin = [0; MAGIC.len()];
        if end >= MAGIC.len() as u64 {
            reader.fill(&mut begin).await?;
            reader.offset = MAGIC.len() as u64;
        }
        match begin {
            MAGIC => Ok(reader),
            ENCRYPTED => Err(FileError::Encrypted { file: shown(path) }),
            _ => Err(FileError::NotALog { file: shown(path), why: "it does not begin with the four bytes that every binary log does" }),
        }
    }

    /// The same, with a digest of all that is read.
    #[must_use]
    pub fn digested(mut self) -> LogFileReader {
        self.digest = Some(Sha256::new_with_prefix(MAGIC));
        self
    }

    /// Where the next event begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest of what was read, in hexadecimal digits; empty if none was asked for.
    #[must_use]
    pub fn into_digest(self) -> String {
        self.digest.map(|digest| hex::encode(digest.finalize())).unwrap_or_default()
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// If there is none that a server could have written.
    pub async fn next(&mut self) -> Result<Option<Event>, FileError> {
        let (at, left) = (self.offset, self.end - self.offset);
        if left == 0 {
            return if self.format.is_some() { Ok(None) } else { Err(self.without_format()) };
        }
        let cut_off = |needs: usize| FileError::CutOff { file: shown(&self.path), at, needs: needs as u64, left };
        if left < HEADER as u64 {
            return Err(cut_off(HEADER));
        }
        let mut bytes = vec![0; HEADER];
        self.fill(&mut bytes).await?;
        // Of the header only this is read here: the rest is the driver's, once all of the event is in memory.
        let size = u32::from_le_bytes([bytes[9], bytes[10], bytes[11], bytes[12]]) as usize;
        let describes_format = bytes[4] == event_type::FORMAT_DESCRIPTION;
        let checksum = self
            .format
            .as_ref()
            .is_some_and(|format| matches!(format.footer().get_checksum_alg(), Ok(Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32))));
        let least = match (describes_format, checksum) {
            (true, _) => HEADER + FORMAT,
            (false, true) => HEADER + CHECKSUM,
            (false, false) => HEADER,
        };
        if !describes_format && self.format.is_none() {
            return Err(self.without_format());
        }
        if size < least || size > LARGEST_EVENT {
            return Err(self.damaged(at, format!("an event of {size} bytes, which no server writes")));
        }
        if size as u64 > left {
            return Err(FileError::CutOff { file: shown(&self.path), at, needs: size as u64, left });
        }
        bytes.resize(size, 0);
        self.fill(&mut bytes[HEADER..]).await?;
        let event = self.checked(at, &bytes)?;
        self.offset += size as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(&bytes);
        }
        Ok(Some(event))
    }

    /// The event, if it is as a server wrote it.
    fn checked(&mut self, at: u64, bytes: &[u8]) -> Result<Event, FileError> {
        let before = FormatDescriptionEvent::new(BinlogVersion::Version4);
        let event = Event::read(self.format.as_ref().unwrap_or(&before), bytes);
        let event = event.map_err(|error| self.damaged(at, format!("an event that can't be read ({error})")))?;
        let kind = event.header().event_type_raw();
        match event.footer().get_checksum_alg() {
            Err(unknown) => return Err(self.damaged(at, format!("checksums of a kind that dbmove does not know ({})", unknown.0))),
            Ok(Some(algorithm)) if !has_its_checksum(&event, algorithm) => {
                return Err(self.damaged(at, "the event's checksum is not that of its bytes".to_owned()));
            }
            _ => {}
        }
        if kind == event_type::MARIADB_START_ENCRYPTION {
            return Err(FileError::Encrypted { file: shown(&self.path) });
        }
        // 0 is that of an event that a server made up when it sent the log.
        let (size, log_pos) = (event.header().event_size(), event.header().log_pos());
        if log_pos != 0 {
            let expected = self.log_pos.map(|before| before.wrapping_add(size));
            if let Some(expected) = expected.filter(|expected| *expected != log_pos) {
                let why =
                    format!("the event says that it ends at {log_pos}; behind the one before it ends at {expected}: events are missing");
                return Err(self.damaged(at, why));
            }
            self.log_pos = Some(log_pos);
        }
        if kind == event_type::FORMAT_DESCRIPTION {
            let format = event.read_event::<FormatDescriptionEvent<'_>>();
            let format = format.map_err(|error| self.damaged(at, format!("a format that can't be read ({error})")))?;
            if event.footer().get_checksum_alg() == Ok(None) && !is_without_checksums(&format, event.data()) {
                let server = shown_version(&format);
                return Err(
                    self.damaged(at, format!("it describes a format that the server `{server}`, by whose name it goes, does not write"))
                );
            }
            self.format = Some(format.into_owned().with_footer(event.footer()));
        }
        Ok(event)
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        match self.input.read_exact(bytes).await {
            Ok(_) => Ok(()),
            // It had more when it was opened.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let has = tokio::fs::metadata(&self.path).await.map_or(0, |found| found.len());
                Err(FileError::Changed { file: shown(&self.path), had: self.end, has })
            }
            Err(source) => Err(FileError::Unreadable { file: shown(&self.path), source }),
        }
    }

    fn without_format(&self) -> FileError {
        FileError::NotALog { file: shown(&self.path), why: "its first event does not describe the format, as it does from MySQL 5.0 on" }
    }

    fn damaged(&self, at: u64, why: String) -> FileError {
        FileError::Damaged { file: shown(&self.path), at, why }
    }
}

/// Whether the bytes are those that were written, as far as there is a checksum of them. That of a format is there even where there are no others; a
/// server that leaves it out writes zeros.
fn has_its_checksum(event: &Event, algorithm: BinlogChecksumAlg) -> bool {
    let describes_format = event.header().event_type_raw() == event_type::FORMAT_DESCRIPTION;
    let found = event.checksum().map(u32::from_le_bytes);
    match algorithm {
        BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_OFF if !describes_format || found == Some(0) => true,
        algorithm => found == Some(event.calc_checksum(algorithm)),
    }
}

/// Whether a format that goes by the name of a server from before checksums can be one: such servers know few kinds of events. MariaDB 5.3 and 5.5 know
/// more, and can write checksums too, which the driver does not see: the byte before the format's own checksum says so.
fn is_without_checksums(format: &FormatDescriptionEvent<'_>, body: &[u8]) -> bool {
    /// Of MySQL 5.5, the last without.
    const KINDS: usize = 27;
    let says_none = || body.len().checked_sub(CHECKSUM + 1).is_some_and(|at| body[at] == 0);
    format.event_type_header_lengths().len() <= KINDS || (format.server_version().contains("MariaDB") && says_none())
}

/// A server's version, as it may be shown.
fn shown_version(format: &FormatDescriptionEvent<'_>) -> String {
    printable(format.server_version().trim_end_matches('\0')).into_owned()
}
