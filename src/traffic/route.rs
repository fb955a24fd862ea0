//! A file that says where clients go: read and replaced as a whole, never through a link.
//!
//! # What must hold
//!
//! * A reader sees the old content or the new one, never part of either, also across a power cut: the new content
//!   goes into a file beside it, which is written to the disk, renamed over the old one, and the directory is
//!   written to the disk too.
//! * Nothing is written through a symbolic link. The directory is opened once and everything happens relative to
//!   it; the temporary file is created exclusively; `rename` replaces a link that somebody slipped in instead of
//!   following it. A link found at the path is an error: its owner meant another file.
//! * Mode, owner and group stay as they were; a new file is 0644.
//!
//! The temporary file has one name per route file, so that a crash leaves at most one behind, which the next write
//! removes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::engine::step::{Failure, StepError};

/// The mode of a route file that dbmove creates.
const NEW_MODE: u32 = 0o644;
/// A route file is a line or a small configuration. A bigger one is a mistake in the path.
const LARGEST: u64 = 1 << 20;
/// Mode bits without the file's type.
const MODE_BITS: u32 = 0o7777;

/// What can go wrong with a route file.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The path names no file.
    #[error("`{}` does not name a file", path.display())]
    NoName {
        /// As given.
        path: PathBuf,
    },
    /// The directory is not there.
    #[error("the directory `{}` of the route file `{}` can't be opened: {source}", directory.display(), path.display())]
    Directory {
        /// The route file.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is no plain file is in its place.
    #[error("the route file `{}` is {what}, not a plain file; it was left as it is", path.display())]
    NotPlain {
        /// The route file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Far bigger than any route file.
    #[error("the route file `{}` holds {size} bytes; a route file has at most {LARGEST}", path.display())]
    TooBig {
        /// The route file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// A file operation failed before anything changed.
    #[error("cannot {action} the route file `{}`: {source}; it was left as it is", path.display())]
    Unchanged {
        /// The route file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The new content is in place, but maybe not on the disk.
    #[error("the route file `{}` was replaced, but its directory could not be written to the disk: {source}", path.display())]
    NotDurable {
        /// The route file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RouteError {
    fn hint(&self) -> Option<String> {
        let source = match self {
            RouteError::NoName { .. } => return Some("give the full path of a file: `/etc/app/database.route`".to_owned()),
            RouteError::NotPlain { what: "a symbolic link", path } => {
                return Some(format!("name the file itself: `readlink -f {}` shows it", path.display()));
            }
            RouteError::NotPlain { .. } | RouteError::TooBig { .. } => return Some("check `path`".to_owned()),
            RouteError::Directory { source, .. } | RouteError::Unchanged { source, .. } | RouteError::NotDurable { source, .. } => source,
        };
        Some(match source.kind() {
            io::ErrorKind::NotFound => "create the directory first; dbmove makes none".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "the user dbmove runs as needs write permission on the directory (the file is replaced, not rewritten)".to_owned()
            }
            io::ErrorKind::StorageFull => "free some space and run it again".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only".to_owned(),
            _ => return None,
        })
    }
}

impl From<RouteError> for StepError {
    fn from(error: RouteError) -> Self {
        let failure = match &error {
            RouteError::Unchanged { source, .. } if matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::StorageFull) => {
                Failure::Transient
            }
            RouteError::NotDurable { .. } => Failure::Transient,
            _ => Failure::Definite,
        };
        StepError { failure, message: error.to_string(), hint: error.hint() }
    }
}

/// What a route file holds, and how it is to be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteContent {
    /// The bytes, in hexadecimal: a route file need not be text.
    #[serde(serialize_with = "to_hexadecimal", deserialize_with = "from_hexadecimal")]
    pub bytes: Vec<u8>,
    /// Mode bits.
    pub mode: u32,
    /// Owner.
    pub owner: u32,
    /// Group.
    pub group: u32,
}

fn to_hexadecimal<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn from_hexadecimal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A route file by its path. Every method blocks on the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFile {
    path: PathBuf,
}

impl RouteFile {
    /// The route file at `path`, whether it is there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RouteFile { path: path.into() }
    }

    /// Its path, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the two are the same directory entry, by whatever path it is reached.
    #[must_use]
    pub fn same_as(&self, other: &RouteFile) -> bool {
        let real = |file: &RouteFile| file.directory_path().canonicalize().ok().zip(file.path.file_name().map(OsString::from));
        self.path == other.path || real(self).is_some_and(|entry| real(other) == Some(entry))
    }

    /// What it holds; `None` if it is not there.
    ///
    /// # Errors
    /// If it is no plain file, too big, or can't be read.
    pub fn read(&self) -> Result<Option<RouteContent>, RouteError> {
        let (directory, name) = self.open_directory()?;
        self.read_in(&directory, name)
    }

    /// Whether it could be replaced: its directory is there and writable, and nothing but a plain file is in its
    /// place. Changes nothing.
    ///
    /// # Errors
    /// What a write would fail with.
    pub fn check_writable(&self) -> Result<(), RouteError> {
        let (directory, name) = self.open_directory()?;
        self.stat(&directory, name)?;
        rustix::fs::accessat(&directory, ".", rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| self.unchanged("replace", error))
    }

    /// Replaces the content, keeping mode and owner; creates the file with mode 0644 if it is not there.
    ///
    /// # Errors
    /// See [`RouteError`]; only [`RouteError::NotDurable`] leaves the new content in place.
    pub fn write(&self, bytes: &[u8]) -> Result<(), RouteError> {
        let (directory, name) = self.open_directory()?;
        let kept = self.stat(&directory, name)?;
        let (mode, owner) = match &kept {
            Some(stat) => (stat.st_mode & MODE_BITS, Some((stat.st_uid, stat.st_gid))),
            None => (NEW_MODE, None),
        };
        self.replace(&directory, name, bytes, mode, owner)
    }

    /// Puts back what [`RouteFile::read`] gave, the file's absence included.
    ///
    /// # Errors
    /// As [`RouteFile::write`].
    pub fn restore(&self, previous: Option<&RouteContent>) -> Result<(), RouteError> {
        let (directory, name) = self.open_directory()?;
        let there = self.stat(&directory, name)?;
        let Some(previous) = previous else {
            if there.is_none() {
                return Ok(());
            }
            unlinkat(&directory, name, AtFlags::empty()).map_err(|error| self.unchanged("remove", error))?;
            return self.settle(&directory);
        };
        self.replace(&directory, name, &previous.bytes, previous.mode, Some((previous.owner, previous.group)))
    }

    fn replace(&self, directory: &OwnedFd, name: &OsStr, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<(), RouteError> {
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(".dbmove-new");
        let written = self.write_beside(directory, &beside, bytes, mode, owner);
        let renamed =
            written.and_then(|()| renameat(directory, &beside, directory, name).map_err(|error| self.unchanged("replace", error)));
        if let Err(error) = renamed {
            // It may never have been created; what counts is the error above.
            let _ = unlinkat(directory, &beside, AtFlags::empty());
            return Err(error);
        }
        self.settle(directory)
    }

    /// Writes the new content into a fresh file beside the route file, through to the disk.
    fn write_beside(
        &self,
        directory: &OwnedFd,
        beside: &OsStr,
        bytes: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(), RouteError> {
        match unlinkat(directory, beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.unchanged("remove the leftover beside", error)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fresh =
            openat(directory, beside, flags, Mode::from_raw_mode(0o600)).map_err(|error| self.unchanged("create a file beside", error))?;
        if let Some((owner, group)) = owner {
            let made = fstat(&fresh).map_err(|error| self.unchanged("look at the file beside", error))?;
            if (made.st_uid, made.st_gid) != (owner, group) {
                fchown(&fresh, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))
                    .map_err(|error| self.unchanged("keep the owner of", error))?;
            }
        }
        fchmod(&fresh, Mode::from_raw_mode(mode)).map_err(|error| self.unchanged("keep the mode of", error))?;
        let mut fresh = File::from(fresh);
        fresh.write_all(bytes).and_then(|()| fresh.sync_all()).map_err(|source| RouteError::Unchanged {
            path: self.path.clone(),
            action: "write the new content of",
            source,
        })
    }

    fn settle(&self, directory: &OwnedFd) -> Result<(), RouteError> {
        fsync(directory).map_err(|error| RouteError::NotDurable { path: self.path.clone(), source: error.into() })
    }

    fn directory_path(&self) -> PathBuf {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    fn open_directory(&self) -> Result<(OwnedFd, &OsStr), RouteError> {
        // `file_name` sees through a trailing slash, which asks for a directory.
        let slash = self.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = self.path.file_name().filter(|_| !slash).ok_or_else(|| RouteError::NoName { path: self.path.clone() })?;
        let directory = self.directory_path();
        let opened = open(&directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match opened {
            Ok(opened) => Ok((opened, name)),
            Err(error) => Err(RouteError::Directory { path: self.path.clone(), directory, source: error.into() }),
        }
    }

    /// The entry's facts if it is a plain file, `None` if it is not there.
    fn stat(&self, directory: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, RouteError> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.unchanged("look at", error)),
        };
        self.plain(&stat)?;
        Ok(Some(stat))
    }

    fn plain(&self, stat: &Stat) -> Result<(), RouteError> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a directory",
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            _ => "a device",
        };
        Err(RouteError::NotPlain { path: self.path.clone(), what })
    }

    fn read_in(&self, directory: &OwnedFd, name: &OsStr) -> Result<Option<RouteContent>, RouteError> {
        // Before opening: a pipe would block, a device may act.
        if self.stat(directory, name)?.is_none() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(directory, name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(RouteError::NotPlain { path: self.path.clone(), what: "a symbolic link" }),
            Err(error) => return Err(self.unchanged("open", error)),
        };
        let stat = fstat(&opened).map_err(|error| self.unchanged("look at", error))?;
        self.plain(&stat)?;
        let mut bytes = Vec::new();
        File::from(opened).take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| RouteError::Unchanged {
            path: self.path.clone(),
            action: "read",
            source,
        })?;
        if bytes.len() as u64 > LARGEST {
            let size = u64::try_from(stat.st_size).unwrap_or(0).max(bytes.len() as u64);
            return Err(RouteError::TooBig { path: self.path.clone(), size });
        }
        Ok(Some(RouteContent { bytes, mode: stat.st_mode & MODE_BITS, owner: stat.st_uid, group: stat.st_gid }))
    }

    fn unchanged(&self, action: &'static str, error: Errno) -> RouteError {
        RouteError::Unchanged { path: self.path.clone(), action, source: error.into() }
    }
}
