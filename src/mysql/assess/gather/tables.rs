//! What the catalog has no place for: file formats, sizes of indexes, partitions, defaults of columns.

use super::{Gathered, Part};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;
use crate::mysql::names::{Selection, TableName};

/// The default of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefault {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
    /// Its type, as printed.
    pub column_type: String,
    /// Its default.
    pub default: Option<String>,
}

/// What `information_schema.TABLES` and `PARTITIONS` say of a table beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDetails {
    /// The format of its definition file: 10 since MySQL 5.0; 7 and 9 are of before. MySQL 8 always prints 10.
    pub file_version: Option<u64>,
    /// Bytes of its indexes, the primary key of InnoDB not counted.
    pub index_bytes: u64,
    /// How it is partitioned and by what; nothing if it is not.
    pub partitions: Option<(String, String)>,
}

impl Gathered {
    pub(super) async fn defaults(&mut self, source: &mut Session, databases: &str) -> Result<()> {
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLUMN_DEFAULT FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA IN ({databases})"
        );
        for row in self.rows(source, Part::Defaults, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            let table = TableName::new(text(0), text(1));
            if self.catalog.table(&table).is_some() {
                let default = row.get(4).and_then(Clone::clone);
                self.defaults.push(ColumnDefault { table, column: text(2), column_type: text(3), default });
            }
        }
        Ok(())
    }

    /// One query for all tables, and one more for the partitions if a table says it has some.
    pub(super) async fn details(&mut self, source: &mut Session, databases: &str) -> Result<()> {
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, VERSION, INDEX_LENGTH, CREATE_OPTIONS FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA IN ({databases}) AND TABLE_TYPE = 'BASE TABLE'"
        );
        let mut partitioned = false;
        for row in self.rows(source, Part::Details, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            let table = TableName::new(text(0), text(1));
            if self.catalog.table(&table).is_none() {
                continue;
            }
            partitioned |= text(4).to_ascii_lowercase().contains("partitioned");
            let details = TableDetails { file_version: text(2).parse().ok(), index_bytes: text(3).parse().unwrap_or(0), partitions: None };
            self.details.insert(table, details);
        }
        if partitioned {
            // A 5.1 server opens every table for this: it is asked for only where there is something to learn.
            let query = format!(
                "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME, PARTITION_METHOD, PARTITION_EXPRESSION FROM information_schema.PARTITIONS \
                 WHERE TABLE_SCHEMA IN ({databases}) AND PARTITION_METHOD IS NOT NULL"
            );
            for row in self.rows(source, Part::Details, &query).await? {
                let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
                if let Some(details) = self.details.get_mut(&TableName::new(text(0), text(1))) {
                    details.partitions = Some((text(2), text(3)));
                }
            }
        }
        self.old_temporals(source, databases).await
    }

    /// MySQL 5.6.24 to 5.7 prints the old format of a temporal column as a comment, if it is asked to; MariaDB always does.
    async fn old_temporals(&mut self, source: &mut Session, databases: &str) -> Result<()> {
        let can_be_asked = self.source.variables.contains_key("show_old_temporals");
        if can_be_asked {
            source.run("SET SESSION show_old_temporals = 1", "asking for the formats of temporal columns").await?;
        } else if !self.source.version.mariadb {
            return Ok(());
        }
        let query = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({databases}) \
             AND (COLUMN_TYPE LIKE '%5.5 binary format%' OR COLUMN_TYPE LIKE '%mariadb-5.3%')"
        );
        for row in self.rows(source, Part::Details, &query).await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            let table = TableName::new(text(0), text(1));
            if self.catalog.table(&table).is_some() {
                self.old_temporals.push((table, text(2)));
            }
        }
        if can_be_asked {
            source.run("SET SESSION show_old_temporals = 0", "printing temporal columns as before").await?;
        }
        Ok(())
    }

    /// Routines left behind by a database that was removed as a directory. MySQL 8 has no `mysql.proc`, and no such routines.
    pub(super) async fn orphans(&mut self, source: &mut Session, selection: &Selection) -> Result<()> {
        if self.source.version.mysql_from((8, 0, 0)) {
            return Ok(());
        }
        if !self.source.privileges.has("SHOW DATABASES") && !self.source.privileges.has("SELECT") {
            self.unread.insert(Part::Routines, "our account lacks SHOW DATABASES, so a database may only be hidden from it".to_owned());
            return Ok(());
        }
        for row in self.rows(source, Part::Routines, "SELECT db, name FROM mysql.proc").await? {
            let text = |at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
            if self.all_databases.contains(&text(0)) {
                continue;
            }
            if selection.touches_database(&text(0)) {
                self.orphans.push((text(0), text(1)));
            }
        }
        Ok(())
    }
}
