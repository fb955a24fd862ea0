//! The file: where it lies, who may read it, what is in it.
//!
//! The state directory is made with mode 0700 and the journal with 0600; a link in place of either is refused, as is a
//! directory that others may write to, because whoever can swap the journal can make the engine act. SQLite gives
//! its `-wal` and `-shm` files the journal's own mode.
//!
//! A full file system has many voices. SQLite reports one as `SQLITE_FULL` only where it was writing to the journal itself; where it
//! could not make its shared-memory file (which even a reader needs) it says no more than "disk I/O error". So what
//! SQLite calls an I/O error is looked into: if not even [`PROBE_BYTES`] can be written beside the journal, there is no room.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::JournalError;

/// The journal's name inside the state directory.
pub const FILE: &str = "journal.sqlite";
/// What is given up when the disk is full; see the module's comment.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 1 << 20;
/// What can be written where there is room: more than SQLite's shared-memory file takes to begin with (32 KiB).
const PROBE_BYTES: usize = 64 << 10;
/// The newest format this build writes.
pub const FORMAT: u32 = 1;
/// Marks the file as ours: `dbmv`.
const APPLICATION: u32 = 0x6462_6d76;
/// How long a write waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// What brings a file from format `n` to `n + 1`.
const UPGRADES: [&str; FORMAT as usize] = ["
CREATE TABLE events(
    seq  INTEGER PRIMARY KEY,
    run  TEXT NOT NULL,
    at   TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events(run, seq);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TABLE chain(
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL,
    hash  TEXT NOT NULL
) STRICT;
INSERT INTO chain VALUES (1, 0, '');
CREATE TABLE runs(
    run       TEXT PRIMARY KEY,
    playbook  TEXT NOT NULL,
    kind      TEXT NOT NULL,
    started   INTEGER NOT NULL,
    concluded INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints(
    run TEXT NOT NULL, step TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (run, step, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE findings(
    run TEXT NOT NULL, step TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (run, step, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE results(
    run TEXT NOT NULL, step TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (run, step, kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE rates(
    run TEXT NOT NULL, step TEXT NOT NULL, unit TEXT NOT NULL, amount INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;
CREATE TABLE series(
    run TEXT NOT NULL, step TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (run, step, name, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE leases(
    run       TEXT PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    owner     TEXT NOT NULL,
    heartbeat INTEGER NOT NULL,
    held      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE requests(
    id       INTEGER PRIMARY KEY,
    run      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    at       INTEGER NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0
) STRICT;
"];

/// Turns SQLite's words into ours.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full { directory: path.parent().unwrap_or(path).to_owned() },
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if path.parent().is_some_and(is_full) => {
            JournalError::Full { directory: path.parent().unwrap_or(path).to_owned() }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            JournalError::Damaged { path: path.to_owned(), sequence: None, reason: error.to_string() }
        }
        _ => JournalError::Io { path: path.to_owned(), error: error.to_string() },
    }
}

fn is_no_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// True if a small file can't be written in the directory for lack of room. It is gone again when this returns.
fn is_full(directory: &Path) -> bool {
    let path = directory.join(format!(".room-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; PROBE_BYTES])?;
        // A file system may say yes to the bytes and no only when it has to find a place for them.
        file.sync_all()
    });
    // Not there if it could not be made.
    let _ = std::fs::remove_file(&path);
    written.is_err_and(|error| is_no_room(&error))
}

/// A full disk before anything began has words of its own: there is nothing to be resumed.
fn while_opening(error: JournalError) -> JournalError {
    match error {
        JournalError::Full { directory } => JournalError::NoRoom { directory },
        error => error,
    }
}

fn system(path: &Path, error: &std::io::Error) -> JournalError {
    if is_no_room(error) {
        return JournalError::Full { directory: path.parent().unwrap_or(path).to_owned() };
    }
    JournalError::Io { path: path.to_owned(), error: error.to_string() }
}

fn check_directory(directory: &Path) -> Result<(), JournalError> {
    let unsafe_directory = |reason: String| JournalError::Unsafe { path: directory.to_owned(), what: "a state directory", reason };
    let metadata = std::fs::symlink_metadata(directory).map_err(|error| system(directory, &error))?;
    if metadata.file_type().is_symlink() {
        return Err(unsafe_directory("it is a symbolic link; name the directory itself".to_owned()));
    }
    if !metadata.is_dir() {
        return Err(unsafe_directory("it is not a directory".to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unsafe_directory(format!(
            "other users may enter it (mode {:o}); `chmod 700` it if it is yours alone",
            metadata.permissions().mode() & 0o777
        )));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && me != 0 {
        return Err(unsafe_directory("it belongs to another user".to_owned()));
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<bool, JournalError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system(path, &error)),
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(JournalError::Unsafe {
            path: path.to_owned(),
            what: "a journal",
            reason: "it is a symbolic link or no regular file".to_owned(),
        }),
    }
}

/// Opens the journal for writing; makes directory and file where they are missing.
pub(super) fn open(directory: &Path) -> Result<(Connection, PathBuf), JournalError> {
    make_and_open(directory).map_err(while_opening)
}

fn make_and_open(directory: &Path) -> Result<(Connection, PathBuf), JournalError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        // It is the state directory that has no place, wherever its parent lies.
        Err(error) if is_no_room(&error) => return Err(JournalError::NoRoom { directory: directory.to_owned() }),
        Err(error) => return Err(system(directory, &error)),
    }
    check_directory(directory)?;
    let path = directory.join(FILE);
    if !check_file(&path)? {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(system(&path, &error)),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(&path, flags).map_err(|error| failed(&path, &error))?;
    prepare(&mut connection, &path)?;
    keep_reserve(directory)?;
    Ok((connection, path))
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let version = check_format(connection, path)?;
    let sql = |error: rusqlite::Error| failed(path, &error);
    connection.busy_timeout(BUSY).map_err(sql)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(sql)?;
    connection.pragma_update(None, "synchronous", "full").map_err(sql)?;
    if version < FORMAT {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
        // Another process may have upgraded it while this one waited.
        let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
        for upgrade in UPGRADES.iter().skip(version as usize) {
            transaction.execute_batch(upgrade).map_err(sql)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(sql)?;
        transaction.pragma_update(None, "user_version", FORMAT).map_err(sql)?;
        transaction.commit().map_err(sql)?;
    }
    Ok(())
}

fn check_format(connection: &Connection, path: &Path) -> Result<u32, JournalError> {
    let sql = |error: rusqlite::Error| failed(path, &error);
    connection.busy_timeout(BUSY).map_err(sql)?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let application: u32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sql)?;
    if version > 0 && application != APPLICATION {
        return Err(JournalError::Unsafe {
            path: path.to_owned(),
            what: "a journal",
            reason: "it is an SQLite file of another program".to_owned(),
        });
    }
    if version > FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), found: version, known: FORMAT });
    }
    Ok(version)
}

/// Opens the journal for reading only.
pub(super) fn open_read_only(directory: &Path) -> Result<(Connection, PathBuf), JournalError> {
    let missing = || JournalError::Missing { directory: directory.to_owned() };
    if !directory.exists() {
        return Err(missing());
    }
    let path = directory.join(FILE);
    if !check_file(&path)? {
        return Err(missing());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(&path, flags).map_err(|error| while_opening(failed(&path, &error)))?;
    if check_format(&connection, &path).map_err(while_opening)? == 0 {
        return Err(missing());
    }
    Ok((connection, path))
}

/// Puts the reserve in place, in real bytes: a sparse file would reserve nothing.
fn keep_reserve(directory: &Path) -> Result<(), JournalError> {
    let path = directory.join(RESERVE);
    if check_file(&path)? && std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES as u64) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&vec![0x5a; RESERVE_BYTES])?;
        file.sync_all()
    };
    write().map_err(|error| {
        // Half a reserve helps nobody.
        let _ = std::fs::remove_file(&path);
        system(&path, &error)
    })
}

/// Gives the reserve up, to make room for the events of an undo.
pub(super) fn release_reserve(journal: &Path) -> bool {
    journal.parent().is_some_and(|directory| std::fs::remove_file(directory.join(RESERVE)).is_ok())
}
