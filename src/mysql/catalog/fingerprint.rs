//! One digest over the structure of a catalog: the same structure gives the same digest at every
//! reading, any change of it another. Sizes, row estimates and AUTO_INCREMENT counters are left out.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::super::names::TableName;
use super::super::table::{Index, Table};
use super::Catalog;

/// Feeds texts to the digest so that their borders count.
struct Structure(Sha256);

impl Structure {
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_be_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.number(usize::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }
}

impl Catalog {
    /// SHA-256 over databases, tables, columns (defaults included), indexes, foreign keys and the
    /// names of views, routines, triggers and events; in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut structure = Structure(Sha256::new());
        structure.number(self.databases.len());
        for database in &self.databases {
            for text in [&database.name, &database.charset, &database.collation] {
                structure.text(text);
            }
        }
        structure.number(self.tables.len());
        for table in self.tables.values() {
            self.table_into(&mut structure, table);
        }
        for other in &self.others {
            structure.text(&other.kind.to_string());
            structure.text(&other.database);
            structure.text(&other.name);
        }
        hex::encode(structure.0.finalize())
    }

    /// The same over one table; nothing if it is not in the catalog.
    #[must_use]
    pub fn table_fingerprint(&self, name: &TableName) -> Option<String> {
        let table = self.tables.get(name)?;
        let mut structure = Structure(Sha256::new());
        self.table_into(&mut structure, table);
        Some(hex::encode(structure.0.finalize()))
    }

    /// A short digest of each table and each other object, by its name: what [`Catalog::fingerprint`] consists of, to tell two apart.
    #[must_use]
    pub fn parts(&self) -> BTreeMap<String, String> {
        /// Hexadecimal digits: enough to see a change, which the whole digest has proven.
        const DIGITS: usize = 12;
        let tables = self.tables.keys().filter_map(|name| {
            let mut digest = self.table_fingerprint(name)?;
            digest.truncate(DIGITS);
            Some((name.to_string(), digest))
        });
        let databases = self
            .databases
            .iter()
            .map(|database| (format!("database {}", database.name), format!("{} {}", database.charset, database.collation)));
        let others = self.others.iter().map(|other| (format!("{} {}.{}", other.kind, other.database, other.name), String::new()));
        tables.chain(databases).chain(others).collect()
    }

    fn table_into(&self, structure: &mut Structure, table: &Table) {
        for text in [&table.name.database, &table.name.table, &table.engine, &table.collation] {
            structure.text(text);
        }
        structure.number(table.columns.len());
        for column in &table.columns {
            structure.text(&column.name);
            structure.text(&column.type_text);
            structure.optional(column.charset.as_deref());
            structure.optional(column.collation.as_deref());
            for flag in [column.nullable, column.auto_increment, column.generated] {
                structure.number(usize::from(flag));
            }
        }
        structure.number(table.indexes.len());
        for index in &table.indexes {
            index_into(structure, index);
        }
        structure.number(table.foreign_keys.len());
        for key in &table.foreign_keys {
            structure.text(&key.name);
            structure.text(&key.parent.database);
            structure.text(&key.parent.table);
            structure.number(key.columns.len());
            for (&column, parent_column) in key.columns.iter().zip(&key.parent_columns) {
                structure.number(column);
                structure.text(parent_column);
            }
            structure.text(&format!("{:?} {:?}", key.on_delete, key.on_update));
        }
        let details = self.details.get(&table.name).map_or(&[][..], Vec::as_slice);
        structure.number(details.len());
        for detail in details {
            structure.text(detail);
        }
    }
}

fn index_into(structure: &mut Structure, index: &Index) {
    structure.text(&index.name);
    structure.text(&index.method);
    structure.number(usize::from(index.unique));
    structure.number(index.parts.len());
    for part in &index.parts {
        structure.number(part.column);
        structure.number(part.prefix.map_or(0, |prefix| prefix as usize + 1));
    }
}
