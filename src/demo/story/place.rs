//! Where the demo happens: one private directory (mode 0700), four servers and a HAProxy in it, the route file and the password.
//!
//! Dropping a [`Place`] kills all of them and removes the directory, in that order. What no destructor sees, a
//! `kill -9` of the demo, the kernel sees: servers are tied to this process. Only `--keep` changes that.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::error::DemoError;
use super::narrator::Narrator;
use crate::demo::Endpoint;
use crate::demo::school::DATABASE;
use crate::local::{Account, LocalProxy, LocalServer, ServerKind, ServerOptions, available, proxy_available};

/// What the demo moves from.
pub const SOURCE: ServerKind = ServerKind::Mysql55;
/// What it moves to, in the RDS-like profile.
pub const TARGET: ServerKind = ServerKind::Mysql97;

/// A directory that is removed when dropped, unless kept.
#[derive(Debug)]
struct PrivateDirectory {
    path: PathBuf,
    keep: bool,
}

impl PrivateDirectory {
    fn create(parent: &Path) -> Result<PrivateDirectory, DemoError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DemoError::File { action: "make the private directory", path, source }
        };
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        let parent = parent.canonicalize().map_err(failed(parent))?;
        let path = parent.join(format!("dbmove-demo-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
        Ok(PrivateDirectory { path, keep: false })
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A process that was just killed may still have been creating a file while the directory was being emptied.
        for _ in 0..50 {
            match std::fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(std::time::Duration::from_millis(20)),
                _ => return,
            }
        }
        tracing::warn!(directory = %self.path.display(), "The demo's private directory could not be removed; it can be deleted by hand.");
    }
}

/// A source and a target.
#[derive(Debug)]
pub struct Pair {
    /// The old server.
    pub source: LocalServer,
    /// The new one.
    pub target: LocalServer,
}

/// Where HAProxy listens.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// For production's users.
    pub production: u16,
    /// For the rehearsal's.
    pub rehearsal: u16,
}

/// HAProxy's name for the backend of production, and of the rehearsal.
pub const BACKENDS: [&str; 2] = ["school", "rehearsal"];
/// The server in each.
pub const BACKEND_SERVER: &str = "main";

impl Doors {
    fn sections(self, source: u16, rehearsal_source: u16) -> String {
        let [school, rehearsal] = BACKENDS;
        let mut sections = "defaults\n    mode tcp\n    maxconn 2000\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    timeout queue 60s\n".to_owned();
        for (name, door, server) in [(school, self.production, source), (rehearsal, self.rehearsal, rehearsal_source)] {
            sections.push_str(&format!("listen {name}\n    bind 127.0.0.1:{door}\n    server {BACKEND_SERVER} 127.0.0.1:{server}\n"));
        }
        sections
    }
}

/// Everything the demo leaves on this machine, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// Users write here.
    pub production: Pair,
    /// Stands in for production.
    pub rehearsal: Pair,
    /// Stands before both.
    pub proxy: LocalProxy,
    /// Where it listens for users, and for those of the rehearsal.
    pub doors: Doors,
    // Dropped after the servers.
    directory: PrivateDirectory,
}

impl Place {
    /// Says whether the servers can be had here.
    ///
    /// # Errors
    /// [`DemoError::NotFetched`] with the command that brings them.
    pub fn possible() -> Result<(), DemoError> {
        match [SOURCE, TARGET].into_iter().find_map(|kind| available(kind).err()).or_else(|| proxy_available().err()) {
            None => Ok(()),
            Some(why) => Err(DemoError::NotFetched { why }),
        }
    }

    /// Starts the servers, in a directory of their own below `parent`. With `keep` they may outlive this process.
    ///
    /// # Errors
    /// If the directory can't be made or a server does not start; nothing is left then.
    pub async fn prepare(parent: &Path, keep: bool) -> Result<Place, DemoError> {
        Place::possible()?;
        let directory = PrivateDirectory::create(parent)?;
        let password = SecretString::from(format!("{:032x}", rand::random::<u128>()));
        write_private(&directory.path.join("password"), password.expose_secret())?;
        let options = ServerOptions::default().password(password).outlives_this_process(keep);
        let start = |kind, name: &str, options: ServerOptions| {
            let path = directory.path.join(name);
            async move { LocalServer::start(kind, &path, &options).await }
        };
        let (source, target, rehearsal_source, rehearsal_target) = tokio::try_join!(
            // A production server waits for the disk at every commit.
            start(SOURCE, "source", options.clone().durable(true)),
            start(TARGET, "target", options.clone().rds_like(true)),
            start(SOURCE, "rehearsal-source", options.clone()),
            start(TARGET, "rehearsal-target", options.clone().rds_like(true)),
        )?;
        for target in [&target, &rehearsal_target] {
            keeps_its_log(target).await?;
        }
        let doors = Doors { production: LocalProxy::free_port()?, rehearsal: LocalProxy::free_port()? };
        let proxy = LocalProxy::start(&directory.path, &doors.sections(source.port(), rehearsal_source.port())).await?;
        let place = Place {
            production: Pair { source, target },
            rehearsal: Pair { source: rehearsal_source, target: rehearsal_target },
            proxy,
            doors,
            directory,
        };
        write_private(&place.route(), &format!("{}\n", place.door().address()))?;
        Ok(place)
    }

    /// Where users connect, and as whom.
    #[must_use]
    pub fn door(&self) -> Endpoint {
        let source = &self.production.source;
        Endpoint {
            host: source.host().to_owned(),
            port: self.doors.production,
            user: Account::App.user().to_owned(),
            password: source.password(),
        }
    }

    /// The private directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory.path
    }
    /// The file that says where the application connects to.
    #[must_use]
    pub fn route(&self) -> PathBuf {
        self.path().join("route")
    }
    /// The playbook.
    #[must_use]
    pub fn playbook(&self) -> PathBuf {
        self.path().join("school.yaml")
    }
    /// dbmove's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }
    /// The file with the password of every account.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.path().join("password")
    }
    /// What users were promised.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path().join("ledger")
    }

    /// Leaves servers and directory behind.
    #[must_use]
    pub fn leave(self) -> Left {
        // The users are gone, and the servers have addresses of their own.
        let Place { production, rehearsal, mut directory, .. } = self;
        directory.keep = true;
        let path = directory.path.clone();
        let password = path.join("password");
        let servers = [
            ("production, old", production.source),
            ("production, new", production.target),
            ("rehearsal, old", rehearsal.source),
            ("rehearsal, new", rehearsal.target),
        ];
        let mut left = Left { servers: Vec::new(), connect: String::new(), stop: String::new() };
        let mut pids = Vec::new();
        for (name, server) in servers {
            let port = server.port();
            left.servers.push((name, format!("{}, port {port}, process {}", server.kind(), server.pid())));
            if name == "production, new" {
                left.connect = format!("mysql -h127.0.0.1 -P{port} -uapp -p\"$(cat {})\" {DATABASE}", password.display());
            }
            pids.push(server.leave_running().to_string());
        }
        left.stop = format!("kill {} && sleep 5 && rm -r {}", pids.join(" "), path.display());
        left
    }
}

/// What stays with `--keep`.
#[derive(Clone, Debug)]
pub struct Left {
    /// Each server: its part in the story, and where it is.
    pub servers: Vec<(&'static str, String)>,
    /// The command that connects to the new production server.
    pub connect: String,
    /// The command that ends all of it.
    pub stop: String,
}

impl Left {
    /// Tells of it.
    pub fn tell(&self, narrator: &Narrator) {
        self.servers.iter().for_each(|(name, server)| narrator.show(name, server));
        narrator.to_copy("connect (any MySQL client will do)", &self.connect);
        narrator.to_copy("stop and remove", &self.stop);
    }
}

/// `host:port`.
#[must_use]
pub fn address(server: &LocalServer) -> String {
    format!("{}:{}", server.host(), server.port())
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// If it can't be written, or is there already.
pub fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| DemoError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Has an RDS-like target keep its log for a week, as its owner should before a move: else it is dropped as soon as the server needs it no more itself.
async fn keeps_its_log(target: &LocalServer) -> Result<(), DemoError> {
    let failed = |source| DemoError::Server { server: target.kind().to_string(), source };
    let mut conn = Conn::new(target.connect_options(Account::Admin, None)).await.map_err(failed)?;
    conn.query_drop("CALL mysql.rds_set_configuration('binlog retention hours', 168)").await.map_err(failed)?;
    conn.disconnect().await.map_err(failed)
}
