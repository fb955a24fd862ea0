//! Where a server's programs are, and how each is run.
//!
//! Two shapes come out of `fixtures/servers/fetch`. Oracle's old builds are a plain tree (`bin`, `share`, `lib`)
//! whose `lib` holds what new systems lack. Debian's servers come with *all* their libraries, the C library and its
//! loader included, so that a server from sid runs on Debian 12: the program is handed to its own loader, which
//! `exec`s nothing, so the process id is the server's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LocalError, ServerKind};

/// A fetched server.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    kind: ServerKind,
    root: PathBuf,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    /// `bin/`, `share/`, `lib/`, on the system's own C library.
    Plain,
    /// A Debian tree with its own loader at this path.
    Debian { loader: PathBuf },
}

/// The directory that holds fetched servers and templates: `DBMOVE_CACHE`, or `~/.cache/dbmove`.
pub(super) fn cache_directory() -> Result<PathBuf, LocalError> {
    let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    named("DBMOVE_CACHE")
        .map(PathBuf::from)
        .or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache/dbmove")))
        .ok_or(LocalError::NoCache)
}

impl Installation {
    /// Finds a fetched server.
    pub(super) fn find(kind: ServerKind) -> Result<Self, LocalError> {
        let root = cache_directory()?.join("servers").join(kind.cache_name());
        let shape = match debian_loader(&root) {
            Some(loader) => Shape::Debian { loader },
            None => Shape::Plain,
        };
        let installation = Self { kind, root, shape };
        if !installation.server_program().exists() {
            return Err(LocalError::NotFetched { kind, path: installation.root });
        }
        Ok(installation)
    }

    /// Which server this is.
    pub(super) fn kind(&self) -> ServerKind {
        self.kind
    }

    /// What tells one fetched build from another: the recipe it was unpacked by and the packages it is made of.
    pub(super) fn fingerprint(&self) -> String {
        ["STAMP", "PACKAGES"].map(|name| std::fs::read_to_string(self.root.join(name)).unwrap_or_default()).concat()
    }

    fn server_program(&self) -> PathBuf {
        self.root.join(match (&self.shape, self.kind) {
            (Shape::Plain, _) => "bin/mysqld",
            (Shape::Debian { .. }, ServerKind::MariaDb) => "usr/sbin/mariadbd",
            (Shape::Debian { .. }, _) => "usr/sbin/mysqld",
        })
    }

    /// The directory of error messages, character sets and system-table scripts.
    pub(super) fn share(&self) -> PathBuf {
        self.root.join(match self.shape {
            Shape::Plain => "share",
            Shape::Debian { .. } => "usr/share/mysql",
        })
    }

    /// The server, with the arguments that say where its own files are and that no configuration file is read.
    pub(super) fn server_command(&self) -> Command {
        let mut command = self.command(&self.server_program());
        let base = match self.shape {
            Shape::Plain => self.root.clone(),
            Shape::Debian { .. } => self.root.join("usr"),
        };
        command
            .arg("--no-defaults")
            .arg(path_argument("--basedir", &base))
            .arg(path_argument("--lc-messages-dir", &self.share()))
            .arg(path_argument("--character-sets-dir", &self.share().join("charsets")));
        if let Shape::Debian { .. } = self.shape {
            command.arg(path_argument("--plugin-dir", &base.join("lib/mysql/plugin")));
        }
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command
    }

    /// A client that came with the server (`mysql`, `mysqldump`, `mysqlbinlog`; `mariadb` for MariaDB).
    pub(super) fn client_command(&self, program: &str) -> Result<Command, LocalError> {
        let path = match self.shape {
            Shape::Plain => self.root.join("bin").join(program),
            Shape::Debian { .. } => self.root.join("usr/bin").join(program),
        };
        if !path.exists() {
            return Err(LocalError::NoProgram { kind: self.kind, program: program.to_owned() });
        }
        let mut command = self.command(&path);
        command.arg("--no-defaults");
        Ok(command)
    }

    fn command(&self, program: &Path) -> Command {
        match &self.shape {
            Shape::Plain => {
                let mut command = Command::new(program);
                command.env("LD_LIBRARY_PATH", self.root.join("lib"));
                command
            }
            Shape::Debian { loader } => debian_command(&self.root, loader, program),
        }
    }
}

/// The loader of a Debian tree, if it is one. Debian 12 and sid keep it in different places; both are what `ldd` would show.
pub(super) fn debian_loader(root: &Path) -> Option<PathBuf> {
    ["usr/lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.exists())
}

/// A program of a Debian tree, on the tree's own libraries.
pub(super) fn debian_command(root: &Path, loader: &Path, program: &Path) -> Command {
    let mut libraries = root.join("usr/lib/x86_64-linux-gnu").into_os_string();
    libraries.push(":");
    libraries.push(root.join("lib/x86_64-linux-gnu"));
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(libraries).arg(program);
    command
}

/// `--name=path`, for paths that need not be UTF-8.
pub(super) fn path_argument(name: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(name);
    argument.push("=");
    argument.push(path);
    argument
}
