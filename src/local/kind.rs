//! Which servers there are: one name each in code, in the cache, and for people.

use std::fmt;

/// A server that can be started privately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerKind {
    /// MySQL 5.5.9, an early 5.5 with its early habits. Comes with the client `mysql` only.
    Mysql559,
    /// MySQL 5.5.34 as Oracle built it: the old source. No GTIDs, no checksums, v1 row events, TLS 1.0.
    Mysql55,
    /// MySQL 5.6.14 as Oracle built it: an early 5.6: v2 row events and binlog checksums.
    Mysql5614,
    /// MySQL 5.6.24: v2 row events and binlog checksums. `--log-bin-use-v1-row-events=1` and
    /// `--binlog-checksum=NONE` make it log as 5.5 does.
    Mysql56,
    /// MySQL 9.7, from Debian's sid: stands for RDS for MySQL and Aurora.
    Mysql97,
    /// MariaDB 10.11, from Debian 12: source, target, RDS for MariaDB.
    MariaDb,
}

impl ServerKind {
    /// Every kind, oldest first.
    pub const ALL: [Self; 6] = [Self::Mysql559, Self::Mysql55, Self::Mysql5614, Self::Mysql56, Self::MariaDb, Self::Mysql97];

    /// The server's name in the cache, which is also what `fixtures/servers/fetch` calls it.
    pub fn cache_name(self) -> &'static str {
        match self {
            Self::Mysql559 => "mysql-5.5.9",
            Self::Mysql55 => "mysql-5.5.34",
            Self::Mysql5614 => "mysql-5.6.14",
            Self::Mysql56 => "mysql-5.6.24",
            Self::Mysql97 => "mysql-9.7",
            Self::MariaDb => "mariadb-10.11",
        }
    }

    /// How `SELECT VERSION()` begins on this server.
    pub fn version_prefix(self) -> &'static str {
        match self {
            Self::Mysql559 => "5.5.9",
            Self::Mysql55 => "5.5.34",
            Self::Mysql5614 => "5.6.14",
            Self::Mysql56 => "5.6.24",
            Self::Mysql97 => "9.7.",
            Self::MariaDb => "10.11.",
        }
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mysql559 => "MySQL 5.5.9",
            Self::Mysql55 => "MySQL 5.5.34",
            Self::Mysql5614 => "MySQL 5.6.14",
            Self::Mysql56 => "MySQL 5.6.24",
            Self::Mysql97 => "MySQL 9.7",
            Self::MariaDb => "MariaDB 10.11",
        })
    }
}
