//! A server's settings that matter for a migration, and what our account may do on it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::connect::{Session, Version};
use super::super::error::Result;

/// Settings of a server, as `SHOW GLOBAL VARIABLES` gives them. A setting that the server does not
/// have is `None`: 5.1 and 5.5 know no `binlog_row_image` (always full) and no `binlog_checksum`.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Family and version.
    pub version: Version,
    /// `server_id`.
    pub server_id: u32,
    /// `server_uuid`, from 5.6 on; MariaDB has none.
    pub server_uuid: Option<String>,
    /// `hostname`.
    pub hostname: String,
    /// `port`.
    pub port: u16,
    /// `datadir`.
    pub datadir: String,
    /// `log_bin`: whether it writes a binary log.
    pub log_bin: bool,
    /// `binlog_format`.
    pub binlog_format: Option<String>,
    /// `binlog_row_image`.
    pub binlog_row_image: Option<String>,
    /// `binlog_checksum`.
    pub binlog_checksum: Option<String>,
    /// `log_slave_updates` (`log_replica_updates`): whether what it replicates is in its own log.
    pub log_slave_updates: bool,
    /// `read_only`.
    pub read_only: bool,
    /// `local_infile`: whether `LOAD DATA LOCAL` is allowed.
    pub local_infile: bool,
    /// `max_allowed_packet`, in bytes.
    pub max_allowed_packet: u64,
    /// `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// How long binary logs are kept, in seconds; 0 for as long as there is room.
    pub binlog_expire_seconds: u64,
    /// `sql_mode`.
    pub sql_mode: String,
    /// `time_zone`, and what `SYSTEM` stands for.
    pub time_zone: String,
    /// `system_time_zone`.
    pub system_time_zone: String,
    /// `event_scheduler`: whether scheduled events run.
    pub event_scheduler: bool,
    /// What our account may do.
    pub privileges: Privileges,
    /// Every global variable, by its name in lower case.
    pub variables: BTreeMap<String, String>,
}

impl ServerFacts {
    /// Reads them.
    ///
    /// # Errors
    /// If the server refuses a query or the connection breaks.
    pub async fn read(session: &mut Session) -> Result<ServerFacts> {
        let rows = session.rows("SHOW GLOBAL VARIABLES", "reading the server's settings").await?;
        let variables: BTreeMap<String, String> = rows
            .into_iter()
            .filter_map(|row| match <[Option<String>; 2]>::try_from(row) {
                Ok([Some(name), value]) => Some((name.to_ascii_lowercase(), value.unwrap_or_default())),
                _ => None,
            })
            .collect();
        let privileges = Privileges::read(session).await?;
        Ok(ServerFacts::of(session.version.clone(), variables, privileges))
    }

    /// From what a server printed.
    pub(in crate::mysql) fn of(version: Version, variables: BTreeMap<String, String>, privileges: Privileges) -> ServerFacts {
        let text = |name: &str| variables.get(name).cloned();
        let number = |name: &str| variables.get(name).and_then(|value| value.parse::<u64>().ok());
        let on = |name: &str| variables.get(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "ON" | "1"));
        // `expire_logs_days` may hold a fraction in MariaDB; 8.0 keeps both, and the seconds win.
        let days = variables.get("expire_logs_days").and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        let binlog_expire_seconds = match number("binlog_expire_logs_seconds") {
            Some(0) | None => (days * 86_400.0) as u64,
            Some(seconds) => seconds,
        };
        ServerFacts {
            version,
            server_id: number("server_id").and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
            server_uuid: text("server_uuid"),
            hostname: text("hostname").unwrap_or_default(),
            port: number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            datadir: text("datadir").unwrap_or_default(),
            log_bin: on("log_bin"),
            binlog_format: text("binlog_format"),
            binlog_row_image: text("binlog_row_image"),
            binlog_checksum: text("binlog_checksum"),
            log_slave_updates: on("log_slave_updates") || on("log_replica_updates"),
            // MariaDB 11.8 and later print levels; any of them refuses an ordinary account.
            read_only: variables.get("read_only").is_some_and(|value| !matches!(value.as_str(), "OFF" | "0")),
            local_infile: on("local_infile"),
            max_allowed_packet: number("max_allowed_packet").unwrap_or(1 << 20),
            lower_case_table_names: number("lower_case_table_names").and_then(|value| u8::try_from(value).ok()).unwrap_or(0),
            binlog_expire_seconds,
            sql_mode: text("sql_mode").unwrap_or_default(),
            time_zone: text("time_zone").unwrap_or_default(),
            system_time_zone: text("system_time_zone").unwrap_or_default(),
            event_scheduler: on("event_scheduler"),
            privileges,
            variables,
        }
    }
}

/// What an account may do, from `SHOW GRANTS`. Active roles count. Privileges on single tables and
/// columns are not kept, and partial revokes (8.0.16 and later) are not subtracted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// On everything (`*.*`), in upper case. `ALL PRIVILEGES` stands for all.
    pub global: BTreeSet<String>,
    /// On databases: the name or pattern as granted (`_` and `%` are wildcards), and the privileges.
    pub databases: Vec<(String, BTreeSet<String>)>,
}

impl Privileges {
    /// Our own, on the session's server.
    ///
    /// # Errors
    /// If they can't be read.
    pub async fn read(session: &mut Session) -> Result<Privileges> {
        let mut query = "SHOW GRANTS".to_owned();
        if session.version.mysql_from((8, 0, 0)) {
            // Without USING the grants of roles are not listed. The server quotes the names itself.
            let role = session.first("SELECT CURRENT_ROLE()", "reading our roles").await?;
            if let Some(roles) = role.and_then(|row| row.into_iter().next().flatten()).filter(|roles| roles != "NONE") {
                query = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
            }
        }
        let rows = session.rows(&query, "reading our privileges").await?;
        let mut privileges = Privileges::default();
        for line in rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
            privileges.grant(&line);
        }
        Ok(privileges)
    }

    /// Takes one line of `SHOW GRANTS`.
    fn grant(&mut self, line: &str) {
        let Some((list, rest)) = line.strip_prefix("GRANT ").and_then(|line| line.split_once(" ON ")) else {
            return;
        };
        let Some((object, tail)) = rest.split_once(" TO ") else {
            return;
        };
        let mut granted: BTreeSet<String> = list.split(',').map(|privilege| privilege.trim().to_ascii_uppercase()).collect();
        if tail.contains("WITH GRANT OPTION") {
            granted.insert("GRANT OPTION".to_owned());
        }
        if object == "*.*" {
            self.global.append(&mut granted);
        } else if let Some(database) = object.strip_suffix(".*") {
            let name = database.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(database);
            self.databases.push((name.replace("``", "`"), granted));
        }
    }

    /// Whether the privilege holds on everything.
    #[must_use]
    pub fn has(&self, privilege: &str) -> bool {
        self.global.contains(privilege) || (privilege != "GRANT OPTION" && self.global.contains("ALL PRIVILEGES"))
    }

    /// SUPER.
    #[must_use]
    pub fn has_super(&self) -> bool {
        self.has("SUPER")
    }

    /// REPLICATION SLAVE: may read the binary log (MariaDB 10.5 and later print it as REPLICATION SLAVE too).
    #[must_use]
    pub fn has_replication_slave(&self) -> bool {
        self.has("REPLICATION SLAVE") || self.has("REPLICATION REPLICA")
    }

    /// REPLICATION CLIENT: may ask for the binary log's position (BINLOG MONITOR in MariaDB 10.5 and later). SUPER does as well.
    #[must_use]
    pub fn has_replication_client(&self) -> bool {
        self.has("REPLICATION CLIENT") || self.has("BINLOG MONITOR") || self.has_super()
    }

    /// PROCESS: may see other accounts' sessions.
    #[must_use]
    pub fn has_process(&self) -> bool {
        self.has("PROCESS")
    }

    /// RELOAD: may run `FLUSH TABLES WITH READ LOCK`.
    #[must_use]
    pub fn has_reload(&self) -> bool {
        self.has("RELOAD")
    }

    /// Whether the account may write while the server is `read_only`.
    #[must_use]
    pub fn ignores_read_only(&self) -> bool {
        self.has_super() || self.has("READ_ONLY ADMIN") || self.has("READ ONLY ADMIN") || self.has("CONNECTION_ADMIN")
    }

    /// Whether the privilege holds on the whole database.
    #[must_use]
    pub fn has_on(&self, privilege: &str, database: &str) -> bool {
        self.has(privilege)
            || self
                .databases
                .iter()
                .any(|(pattern, granted)| (granted.contains(privilege) || granted.contains("ALL PRIVILEGES")) && like(pattern, database))
    }
}

/// `LIKE` with `\` as escape, as grants on databases are matched. Greedy with one point to fall back
/// to, so that no pattern takes long.
pub(in crate::mysql) fn like(pattern: &str, name: &str) -> bool {
    #[derive(PartialEq)]
    enum Part {
        Any,
        One,
        Literal(char),
    }
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Literal(characters.next().unwrap_or('\\')),
            other => Part::Literal(other),
        });
    }
    let name: Vec<char> = name.chars().collect();
    let (mut part, mut place) = (0, 0);
    let mut fall_back: Option<(usize, usize)> = None;
    while place < name.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                fall_back = Some((part, place));
                part += 1;
            }
            Some(known) if *known == Part::One || *known == Part::Literal(name[place]) => {
                part += 1;
                place += 1;
            }
            _ => match fall_back {
                Some((any, from)) => {
                    fall_back = Some((any, from + 1));
                    part = any + 1;
                    place = from + 1;
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(lines: &[&str]) -> Privileges {
        let mut privileges = Privileges::default();
        lines.iter().for_each(|line| privileges.grant(line));
        privileges
    }

    #[test]
    fn all_privileges_are_all_but_the_grant_option() {
        let all = privileges(&["GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1'"]);
        assert!(all.has_super() && all.has_replication_slave() && all.has_on("SELECT", "school") && !all.has("GRANT OPTION"));
        assert!(privileges(&["GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION"]).has("GRANT OPTION"));
    }

    #[test]
    fn an_ordinary_account() {
        let account = privileges(&[
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'dbmove'@'%' IDENTIFIED BY PASSWORD '*94'",
            r"GRANT SELECT, LOCK TABLES ON `school\_1`.* TO 'dbmove'@'%'",
            "GRANT ALL PRIVILEGES ON `s%l`.* TO 'dbmove'@'%'",
            "GRANT SELECT (a) ON `other`.`t` TO 'dbmove'@'%'",
            "GRANT `role`@`%` TO `dbmove`@`%`",
        ]);
        assert!(account.has_replication_slave() && account.has_replication_client() && !account.has_super());
        assert!(account.has_on("SELECT", "school_1") && !account.has_on("SELECT", "schoolx1"));
        assert!(account.has_on("INSERT", "school") && !account.has_on("SELECT", "other"));
    }

    #[test]
    fn mariadb_calls_it_binlog_monitor() {
        assert!(privileges(&["GRANT BINLOG MONITOR ON *.* TO `dbmove`@`%`"]).has_replication_client());
    }
}
