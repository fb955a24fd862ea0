//! The way back: the same store with its sides swapped, from the moment before clients are switched.
//!
//! # What must hold
//!
//! * *No write is missed, none comes back that went there.* The way back begins at one exact position of the target's log: read while
//!   the source is fenced and following has ended (so all that dbmove wrote there lies before it), and before a client may write (so all
//!   of theirs lies behind it). It is kept in the journal and never read twice for one switch.
//! * *Nothing is written to the source before the switch.* Its global read lock is held until then, and a cutover that is undone must
//!   leave no trace there. Bookkeeping (`_dbmove`: lease and positions, as on any target) is made on the source once `mysql.disconnect` has let
//!   the lock go. `read_only` stays on: clients are kept out, and our account passes.
//! * *What the target logs is all there is.* Refused before the switch: no log, a moved database that is left out of it, statements instead of rows, rows without all their
//!   columns, JSON in parts, compressed transactions, a log our account may not read. MySQL from 9.6 on logs what foreign keys cascade
//!   (`innodb_native_foreign_keys = OFF`): there the events on the children tell it, and nothing is cascaded a second time.
//! * *No effect twice.* Rows in the log hold what triggers did; a trigger on the source would do it once more, so they are put aside there
//!   ([`super::triggers_aside`]). Events are off there since the fence.
//! * *Tables are those that were compared.* Both sides have the same columns in the same order and the same key, by which the source finds its
//!   rows (MySQL 5.5 and 5.6 don't in a table by LIST COLUMNS), or the way back is refused by name.
//!   A table without key on an engine without transactions is refused too: a row and the position through which it is in could not be
//!   written together, and what had been written twice could not be told. With a key, writing again changes nothing.
//! * *A rollback can hold the target's writes.* What it needs there is asked for before the switch ([`TargetHold`]): behind it is too late.
//! * *Bytes stay bytes*, back as there: where `latin1` columns of the source hold UTF-8 ([`super::conversion`]) that is what they are given
//!   and what they are compared by.
//! * *What the source can't hold is said at once.* A value that it would change or refuse ends the way back: from there on a rollback
//!   would lose writes. The same for a definition that changes on the target.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::bookkeeping::{number, text};
use super::catalog::facts::Privileges;
use super::catalog::{Catalog, ServerFacts};
use super::connect::{Purpose, Session};
use super::conversion::{Converted, ConvertedTables};
use super::ddl::TargetSchema;
use super::error::{MysqlError, Result};
use super::fence;
use super::lock_out;
use super::shared::Shared;
use super::sql;
use super::status::{self, LogFilters};
use super::store::{Described, MysqlStore};
use super::table::Table;
use super::tables::Tables;
use crate::playbook::model::CharsetConversion;
use crate::playbook::quantity::HumanDuration;

/// The store with its sides swapped, and what stands in the way of the way back, a line each.
pub struct WayBack {
    /// What follows the target and writes to the source.
    pub store: Arc<MysqlStore>,
    /// Why it must not be relied on.
    pub refusals: Vec<String>,
    /// What is only slower or weaker than one may think.
    pub warnings: Vec<String>,
    /// By what a rollback would hold the target's writes, in a person's words.
    pub hold: String,
    /// How long the target keeps its log, if that is short.
    pub kept: Option<String>,
}

/// Reads both sides and swaps them. Touches nothing.
///
/// # Errors
/// If a server can't be read.
pub async fn way_back(forward: &MysqlStore) -> Result<WayBack> {
    let described = forward.described().await?;
    let mut target = Session::open(&forward.target, Purpose::Catalog).await?;
    let facts = ServerFacts::read(&mut target).await?;
    let mut catalog = Catalog::read(&mut target, &forward.selection).await?;
    let hold = TargetHold::read(&mut target, &facts.privileges).await?;
    let kept = Kept::read(&mut target, &facts).await?;
    let filters = match facts.privileges.has_replication_client() {
        true => status::log_filters(&mut target).await?,
        // Refused below.
        false => LogFilters::default(),
    };
    target.close().await;
    // What moved is what goes back.
    catalog.tables.retain(|name, _| described.catalog.tables.contains_key(name));

    let mut refusals = log_refusals(&facts);
    refusals.extend(filter_refusals(&filters, described.schema.databases.iter().map(|database| database.name.as_str())));
    refusals.extend(hold.refusals());
    refusals.extend(account_refusals(&described.source, &described.catalog));
    let mut warnings: Vec<String> = kept.warning().into_iter().chain(packet_warning(&facts, &described.source)).collect();
    for (name, old) in &described.catalog.tables {
        match catalog.table(name) {
            None => refusals.push(format!("`{name}` is not on the target any more")),
            Some(new) => refusals.extend(column_refusal(new, old).or_else(|| key_refusal(new, old))),
        }
        if let Some(converted) = described.converted.get(name) {
            warnings.extend(bytes_warning(converted));
        }
        if !is_transactional(&old.engine) && !old.lookups_fail {
            match old.key() {
                None => refusals.push(format!(
                    "`{name}` has no key and is {} on the source: what came back could not be told from what came back twice",
                    old.engine
                )),
                Some(_) => warnings.push(format!(
                    "`{name}` is {} on the source: after a crash its rows are written there once more, which changes nothing",
                    old.engine
                )),
            }
        }
    }

    let all: Vec<Arc<Table>> = catalog.tables.values().cloned().collect();
    let mut tables = Tables::new(&all, &described.source.version)?.onto(&described.catalog.tables, &described.converted);
    if logs_cascades(&facts) {
        tables = tables.with_logged_cascades();
    }
    let shared = Arc::new(Shared::new(&forward.name_back(), forward.selection.clone(), Arc::new(tables), forward.settings.remembered_keys));
    let schema = TargetSchema { databases: described.schema.databases.clone(), tables: Vec::new(), not_carried: Vec::new() };
    let store = forward.swapped(Described {
        source: facts,
        target: described.source.clone(),
        catalog,
        converted: ConvertedTables::new(),
        schema,
        shared,
    });
    Ok(WayBack { store, refusals, warnings, hold: hold.words(), kept: kept.words() })
}

impl WayBack {
    /// The way back, if nothing stands in its way.
    ///
    /// # Errors
    /// Every refusal, named.
    pub fn open(self, forward: &MysqlStore) -> Result<Arc<MysqlStore>> {
        if self.refusals.is_empty() {
            return Ok(self.store);
        }
        let lines: Vec<String> = self.refusals.iter().map(|line| format!("  {line}")).collect();
        Err(MysqlError::Object {
            message: format!(
                "there would be no way back from the {} to the {}; nothing was switched:\n{}",
                forward.target,
                forward.source,
                lines.join("\n")
            ),
            hint: "put that right and start the cutover again; or take `mysql.reverse` out of the playbook, and there is no rollback after the switch".to_owned(),
        })
    }
}

/// What the target's log can't tell.
fn log_refusals(facts: &ServerFacts) -> Vec<String> {
    let mut refusals = Vec::new();
    if !facts.log_bin {
        refusals.push("the target writes no binary log (`log_bin`; on RDS: turn automated backups on)".to_owned());
    }
    let is = |name: &str, wanted: &str| facts.variables.get(name).is_none_or(|value| value.eq_ignore_ascii_case(wanted));
    for (name, wanted, why) in [
        ("binlog_format", "ROW", "it would log statements and not rows"),
        ("binlog_row_image", "FULL", "its rows would lack columns"),
        ("binlog_row_value_options", "", "it would log parts of JSON documents"),
        ("binlog_transaction_compression", "OFF", "its transactions would be compressed"),
        ("log_bin_compress", "OFF", "its events would be compressed"),
    ] {
        if !is(name, wanted) {
            let actual = facts.variables.get(name).map(String::as_str).unwrap_or_default();
            refusals.push(format!("`{name}` of the target is `{actual}`, and has to be `{wanted}`: {why}"));
        }
    }
    if !facts.privileges.has_replication_slave() || !facts.privileges.has_replication_client() {
        refusals.push("our account on the target may not read its log (REPLICATION SLAVE, REPLICATION CLIENT)".to_owned());
    }
    refusals
}

/// The databases of which the target's log has nothing.
fn filter_refusals<'a>(filters: &LogFilters, databases: impl Iterator<Item = &'a str>) -> Vec<String> {
    databases
        .filter_map(|database| {
            Some(format!("what is written to `{database}` is not in the target's log: {} there", filters.leaves_out(database)?))
        })
        .collect()
}

/// What a rollback needs to hold the target's writes: to keep clients out, and to see and close who is connected. The global read lock is not
/// needed: where the server refuses it (RDS, Aurora) nobody is left who could write. Whether it does is not tried here: the lock would flush
/// every table, and a long statement on the target would hold up the switch.
#[expect(clippy::struct_excessive_bools, reason = "each is a privilege of its own")]
struct TargetHold {
    sets_read_only: bool,
    locks_accounts: bool,
    sees_clients: bool,
    closes_clients: bool,
    locks: bool,
}

impl TargetHold {
    async fn read(target: &mut Session, privileges: &Privileges) -> Result<TargetHold> {
        let mariadb = target.version.mariadb;
        // As SHOW GRANTS prints them.
        let sets_read_only = privileges.has_super() && !(mariadb && target.version.number >= (10, 11, 0))
            || privileges.has(if mariadb { "READ_ONLY ADMIN" } else { "SYSTEM_VARIABLES_ADMIN" })
            || privileges.has("READ ONLY ADMIN");
        let reads_accounts = match lock_out::unlocked(target).await {
            Ok(_) => true,
            // Not allowed, or a server without locked accounts.
            Err(error) if error.code().is_some() && !error.transient() => false,
            Err(error) => return Err(error),
        };
        let managed = fence::ends_by_procedure(target).await?;
        Ok(TargetHold {
            sets_read_only,
            locks_accounts: reads_accounts && privileges.has("CREATE USER"),
            sees_clients: privileges.has_process(),
            closes_clients: managed || privileges.has_super() || privileges.has("CONNECTION_ADMIN") || privileges.has("CONNECTION ADMIN"),
            locks: !managed && (privileges.has_reload() || privileges.has("FLUSH_TABLES")),
        })
    }

    /// What our account lacks.
    fn refusals(&self) -> Vec<String> {
        let lacks = |what: &str, lacking: &str| {
            format!("a rollback could not hold the target's writes: our account there may not {what} (it lacks {lacking})")
        };
        let mut refusals = Vec::new();
        if !self.sets_read_only && !self.locks_accounts {
            refusals.push(lacks(
                "keep clients out",
                "CREATE USER and SELECT on `mysql`, to lock their accounts; or SYSTEM_VARIABLES_ADMIN, on MariaDB READ_ONLY ADMIN, to set `read_only`",
            ));
        }
        if !self.sees_clients {
            refusals.push(lacks("see who is connected", "PROCESS"));
        }
        if !self.closes_clients {
            refusals.push(lacks(
                "close clients' connections",
                "CONNECTION_ADMIN, on MariaDB CONNECTION ADMIN; on RDS EXECUTE on `mysql.rds_kill`",
            ));
        }
        refusals
    }

    fn words(&self) -> String {
        let out = if self.sets_read_only { "`read_only`" } else { "clients' accounts locked" };
        if self.locks {
            format!("{out}, and the global read lock")
        } else {
            format!("{out}, and every client's connection closed: this server gives our account no global read lock")
        }
    }
}

/// How long the target keeps its log. As long as a driver follows it nothing is lost; while none does, what is dropped can't come back any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Nobody drops it.
    ForGood,
    /// RDS drops it as soon as it needs it no more itself.
    AsRdsNeeds,
    /// So long.
    For(Duration),
}

impl Kept {
    /// Shorter than what RDS can be told at most.
    const SHORT: Duration = Duration::from_secs(168 * 3600);

    async fn read(target: &mut Session, facts: &ServerFacts) -> Result<Kept> {
        let settings = match target.rows("CALL mysql.rds_show_configuration()", "reading how long RDS keeps the log").await {
            Ok(settings) => settings,
            // It is no RDS, or our account may not ask.
            Err(error) if error.code().is_some() && !error.transient() => Vec::new(),
            Err(error) => return Err(error),
        };
        let hours = settings.iter().find(|row| text(row, 0) == "binlog retention hours");
        Ok(match (hours.map(|row| number(row, 1)), facts.binlog_expire_seconds) {
            (Some(0), _) => Kept::AsRdsNeeds,
            (Some(hours), _) => Kept::For(Duration::from_secs(hours * 3600)),
            (None, 0) => Kept::ForGood,
            (None, seconds) => Kept::For(Duration::from_secs(seconds)),
        })
    }

    fn words(self) -> Option<String> {
        match self {
            Kept::ForGood => None,
            Kept::For(time) if time >= Self::SHORT => None,
            Kept::AsRdsNeeds => {
                Some("RDS drops the target's log as soon as it needs it no more itself (`binlog retention hours` is not set)".to_owned())
            }
            Kept::For(time) => Some(format!("the target drops its log after {}", HumanDuration(time))),
        }
    }

    fn warning(self) -> Option<String> {
        let words = self.words()?;
        let longer =
            "`CALL mysql.rds_set_configuration('binlog retention hours', 168)` there, or elsewhere a longer `binlog_expire_logs_seconds`";
        Some(format!("{words}: while no driver runs behind the switch, the way back can be lost by that; {longer}"))
    }
}

/// What our account on the source lacks to write there while it is `read_only`, and to put its triggers aside. A server lists no trigger to an
/// account without TRIGGER, so there may be one, and it would do once more what the target's rows hold already.
#[must_use]
pub fn account_refusals(source: &ServerFacts, catalog: &Catalog) -> Vec<String> {
    let privileges = &source.privileges;
    // From 10.11 on SUPER is not enough on MariaDB.
    let passes = if source.version.mariadb && source.version.number >= (10, 11, 0) {
        privileges.has("READ_ONLY ADMIN") || privileges.has("READ ONLY ADMIN")
    } else {
        privileges.ignores_read_only()
    };
    let mut refusals = Vec::new();
    if !passes {
        let wanted = if source.version.mariadb { "READ_ONLY ADMIN" } else { "SUPER" };
        refusals.push(format!("our account on the source may not write while it is `read_only` (it lacks {wanted})"));
    }
    let moved: BTreeSet<&str> = catalog.tables.keys().map(|table| table.database.as_str()).collect();
    for database in moved.into_iter().chain([super::names::DBMOVE_SCHEMA]) {
        let own = database == super::names::DBMOVE_SCHEMA;
        let wanted: &[&str] = if own {
            &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP"]
        } else {
            &["INSERT", "UPDATE", "DELETE", "ALTER", "TRIGGER"]
        };
        let lacking: Vec<&str> = wanted.iter().copied().filter(|privilege| !privileges.has_on(privilege, database)).collect();
        if !lacking.is_empty() {
            refusals.push(format!("our account on the source lacks {} on `{database}`", lacking.join(", ")));
        }
    }
    refusals
}

/// Why rows of the target's table can't be written to the source's as they are.
fn column_refusal(new: &Table, old: &Table) -> Option<String> {
    let names = |table: &Table| table.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    (names(new) != names(old)).then(|| {
        format!("`{}` has other columns on the target ({}) than on the source ({})", old.name, names(new).join(", "), names(old).join(", "))
    })
}

/// That clients may write rows on the target that are longer than a statement may be on the source.
fn packet_warning(target: &ServerFacts, source: &ServerFacts) -> Option<String> {
    let (least, most) = (source.max_allowed_packet, target.max_allowed_packet);
    let streamed = if source.local_infile {
        "longer rows are written there as a stream; a table without a key can't lose or change one, and that would end the way back"
    } else {
        "a longer row would end the way back, since `local_infile` is off there; turn that on"
    };
    (least < most).then(|| {
        format!(
            "`max_allowed_packet` of the source is {least}, of the target {most}: {streamed}. `SET GLOBAL max_allowed_packet = {most}` on the source spares that"
        )
    })
}

/// Why a row of the target's table would not be found in the source's.
fn key_refusal(new: &Table, old: &Table) -> Option<String> {
    if old.lookups_fail {
        return Some(format!(
            "`{}` is partitioned by LIST COLUMNS on the source, whose server looks for keys in the wrong partition: what is deleted on the target \
             would stay there, unseen (`ALTER TABLE {} REMOVE PARTITIONING` there, or cut it in another way)",
            old.name,
            sql::table(&old.name)
        ));
    }
    let names = |table: &Table| {
        table.key().map(|key| key.iter().map(|&column| table.columns[column].name.to_lowercase()).collect::<Vec<_>>().join(", "))
    };
    let (now, before) = (names(new), names(old));
    (now != before).then(|| {
        let told = |key: Option<String>| key.map_or_else(|| "no key".to_owned(), |key| format!("({key})"));
        format!(
            "`{}` is told apart by {} on the target and by {} on the source: give both the same primary key",
            old.name,
            told(now),
            told(before)
        )
    })
}

/// That text which is kept in UTF-8 has less room in a column which counts bytes.
fn bytes_warning(converted: &Converted) -> Option<String> {
    let holds = converted.conversion == CharsetConversion::Latin1HoldsUtf8;
    holds.then(|| {
        format!(
            "`{}` holds UTF-8 in `latin1` columns on the source: there a VARCHAR(50) has 50 bytes, on the target 50 characters. A longer text ends the way back",
            converted.source.name
        )
    })
}

/// Engines whose rows and positions can be committed together.
pub(in crate::mysql) fn is_transactional(engine: &str) -> bool {
    ["InnoDB", "TokuDB", "RocksDB", "NDBCLUSTER"].iter().any(|name| name.eq_ignore_ascii_case(engine))
}

/// Whether the server's log has the rows that its foreign keys cascade to.
fn logs_cascades(facts: &ServerFacts) -> bool {
    facts.variables.get("innodb_native_foreign_keys").is_some_and(|value| value.eq_ignore_ascii_case("off"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::mysql::connect::Version;

    fn facts(pairs: &[(&str, &str)]) -> ServerFacts {
        let mut all = vec![("log_bin", "ON"), ("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("binlog_row_value_options", "")];
        all.extend(pairs);
        let variables = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let privileges = Privileges { global: BTreeSet::from(["ALL PRIVILEGES".to_owned()]), databases: Vec::new() };
        ServerFacts::of(Version::parse("9.7.1"), variables, privileges)
    }

    #[test]
    fn a_log_that_does_not_tell_all_is_refused() {
        assert_eq!(log_refusals(&facts(&[])), Vec::<String>::new());
        for (name, value) in [
            ("log_bin", "OFF"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "MINIMAL"),
            ("binlog_row_value_options", "PARTIAL_JSON"),
            ("binlog_transaction_compression", "ON"),
            ("log_bin_compress", "ON"),
        ] {
            let refusals = log_refusals(&facts(&[(name, value)]));
            assert!(refusals.len() == 1 && refusals[0].contains(name), "{name}: {refusals:?}");
        }
        let nobody = ServerFacts { privileges: Privileges::default(), ..facts(&[]) };
        assert_eq!(log_refusals(&nobody).len(), 1);
    }

    #[test]
    fn a_database_that_the_log_leaves_out_is_refused() {
        let filters = LogFilters { only: Vec::new(), ignored: vec!["sessions".to_owned()] };
        let refusals = filter_refusals(&filters, ["school", "sessions"].into_iter());
        assert!(refusals.len() == 1 && refusals[0].contains("`sessions`") && refusals[0].contains("binlog-ignore-db"), "{refusals:?}");
        assert_eq!(filter_refusals(&LogFilters::default(), ["school"].into_iter()), Vec::<String>::new());
    }

    #[test]
    fn cascades_are_logged_where_the_server_does_them_itself() {
        assert!(logs_cascades(&facts(&[("innodb_native_foreign_keys", "OFF")])));
        assert!(!logs_cascades(&facts(&[("innodb_native_foreign_keys", "ON")])) && !logs_cascades(&facts(&[])));
    }

    #[test]
    fn what_a_rollback_would_lack_is_named() {
        let rds = TargetHold { sets_read_only: false, locks_accounts: true, sees_clients: true, closes_clients: true, locks: false };
        assert_eq!(rds.refusals(), Vec::<String>::new());
        assert!(rds.words().contains("accounts locked") && rds.words().contains("no global read lock"), "{}", rds.words());
        let own = TargetHold { sets_read_only: true, locks_accounts: false, locks: true, ..rds };
        assert_eq!(own.refusals(), Vec::<String>::new());
        assert_eq!(own.words(), "`read_only`, and the global read lock");
        let nothing = TargetHold { sets_read_only: false, locks_accounts: false, sees_clients: false, closes_clients: false, locks: true };
        let refusals = nothing.refusals().join("; ");
        for privilege in ["CREATE USER", "SELECT on `mysql`", "SYSTEM_VARIABLES_ADMIN", "PROCESS", "CONNECTION_ADMIN"] {
            assert!(refusals.contains(privilege), "{privilege}: {refusals}");
        }
    }

    #[test]
    fn a_log_that_is_dropped_soon_is_warned_of() {
        assert_eq!((Kept::ForGood.words(), Kept::ForGood.warning()), (None, None));
        assert!(Kept::AsRdsNeeds.warning().is_some_and(|warning| warning.contains("binlog retention hours")));
        let kept = |hours: u64| Kept::For(Duration::from_secs(hours * 3600));
        assert!(kept(2).warning().is_some_and(|warning| warning.contains("after 2h")));
        assert_eq!(kept(720).warning(), None);
    }

    #[test]
    fn tables_that_are_told_apart_otherwise_are_refused() {
        use crate::mysql::table::{Column, ColumnType, Index, IndexPart};
        let table = |key: &[usize], lookups_fail| Table {
            name: crate::mysql::names::TableName::new("s", "t"),
            engine: "InnoDB".to_owned(),
            collation: "latin1_swedish_ci".to_owned(),
            row_estimate: 0,
            data_bytes: 0,
            auto_increment: None,
            columns: vec![Column::plain("a", ColumnType::Int), Column::plain("b", ColumnType::Int)],
            indexes: (!key.is_empty())
                .then(|| Index {
                    name: "PRIMARY".to_owned(),
                    unique: true,
                    method: "BTREE".to_owned(),
                    parts: key.iter().map(|&column| IndexPart { column, prefix: None }).collect(),
                })
                .into_iter()
                .collect(),
            foreign_keys: Vec::new(),
            lookups_fail,
        };
        assert_eq!(key_refusal(&table(&[0], false), &table(&[0], false)), None);
        assert_eq!(key_refusal(&table(&[], false), &table(&[], false)), None);
        let refused = key_refusal(&table(&[0, 1], false), &table(&[0], false)).unwrap();
        assert!(refused.contains("by (a, b) on the target and by (a) on the source"), "{refused}");
        let refused = key_refusal(&table(&[0], false), &table(&[], false)).unwrap();
        assert!(refused.contains("by (a) on the target and by no key on the source"), "{refused}");
        let refused = key_refusal(&table(&[0], false), &table(&[0], true)).unwrap();
        assert!(refused.contains("LIST COLUMNS") && refused.contains("ALTER TABLE `s`.`t` REMOVE PARTITIONING"), "{refused}");
    }

    #[test]
    fn smaller_packets_on_the_source_are_warned_of() {
        let server = |packet: &str, infile: &str| facts(&[("max_allowed_packet", packet), ("local_infile", infile)]);
        let (small, large) = (server("1048576", "ON"), server("67108864", "ON"));
        assert_eq!(packet_warning(&large, &large), None);
        assert_eq!(packet_warning(&small, &large), None);
        let warned = packet_warning(&large, &small).unwrap();
        assert!(warned.contains("1048576") && warned.contains("67108864") && warned.contains("as a stream"), "{warned}");
        let warned = packet_warning(&large, &server("1048576", "OFF")).unwrap();
        assert!(warned.contains("would end the way back, since `local_infile` is off"), "{warned}");
    }

    #[test]
    fn engines_that_commit_with_the_position() {
        assert!(is_transactional("InnoDB") && is_transactional("innodb"));
        assert!(!is_transactional("MyISAM") && !is_transactional("MEMORY"));
    }
}
