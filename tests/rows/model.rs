//! Tables in memory that follow a log: DDL by the schema at hand, rows by their full images.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dbmove::mysql::cell::{Cell, Row};
use dbmove::mysql::rows::{Decoder, RowsEvent, TableMap};
use dbmove::mysql::table::Table;

use crate::binlog::{Event, QUERY, TABLE_MAP, statement};
use crate::types;

#[derive(Default)]
pub struct Model {
    tables: BTreeMap<String, (Arc<Table>, Vec<Row>)>,
    decoders: HashMap<u64, Decoder>,
}

impl Model {
    pub fn apply(&mut self, event: &Event) {
        match event.kind {
            QUERY => self.follow(&statement(&event.body)),
            TABLE_MAP => {
                let map = TableMap::parse(&event.body).unwrap();
                assert_eq!(map.name.database, "school");
                let decoder = Decoder::new(&map, self.definition(&map.name.table)).unwrap();
                self.decoders.insert(map.table_id, decoder);
            }
            kind if RowsEvent::is_rows(kind) => {
                let event = RowsEvent::parse(kind, &event.body).unwrap();
                let decoder = self.decoders[&event.table_id].clone();
                for change in decoder.changes(&event).unwrap() {
                    let change = change.unwrap();
                    self.change(&decoder.table().name.table.clone(), change.before, change.after);
                }
            }
            _ => {}
        }
    }

    /// Row images are whole, so a row is found by all its cells, exactly once.
    fn change(&mut self, table: &str, before: Option<Row>, after: Option<Row>) {
        let rows = &mut self.tables.get_mut(table).unwrap().1;
        if let Some(before) = before {
            let at = rows.iter().position(|row| *row == before).unwrap_or_else(|| panic!("{table}: no row {before:?}"));
            rows.remove(at);
            if table == "parent" {
                // ON DELETE CASCADE is done below the log.
                self.tables.get_mut("child").unwrap().1.retain(|child| child[1] != before[0]);
            }
        }
        if let Some(after) = after {
            self.tables.get_mut(table).unwrap().1.push(after);
        }
    }

    fn follow(&mut self, statement: &str) {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words[..] {
            ["CREATE", "TABLE", name, ..] => {
                self.tables.insert(name.to_owned(), (Arc::new(types::table(name)), Vec::new()));
            }
            ["TRUNCATE", "TABLE", name] => self.tables.get_mut(name).unwrap().1.clear(),
            ["ALTER", "TABLE", "wide", "ADD", "COLUMN", "extra", ..] => {
                let (table, rows) = self.tables.get_mut("wide").unwrap();
                *table = Arc::new(types::wide_with_extra());
                rows.iter_mut().for_each(|row| row.insert(1, Cell::Bytes(b"q".to_vec())));
            }
            ["RENAME", "TABLE", from, "TO", to] => {
                let table = self.tables.remove(from).unwrap();
                self.tables.insert(to.to_owned(), table);
            }
            ["DROP", "TABLE", name, ..] => {
                self.tables.remove(name.trim_matches('`')).unwrap();
            }
            ["BEGIN" | "COMMIT"] | ["DROP" | "CREATE", "DATABASE", ..] => {}
            _ => panic!("the log holds a statement the model does not follow: {statement}"),
        }
    }

    pub fn definition(&self, table: &str) -> Arc<Table> {
        self.tables[table].0.clone()
    }

    /// The table and its rows, in the order of their first column, a number.
    pub fn table(&self, name: &str) -> (Arc<Table>, Vec<Row>) {
        let (table, rows) = &self.tables[name];
        let mut rows = rows.clone();
        rows.sort_by_key(|row| row[0].as_bytes().map(|bytes| std::str::from_utf8(bytes).unwrap().parse::<i64>().unwrap()));
        (table.clone(), rows)
    }

    pub fn names(&self) -> Vec<&str> {
        self.tables.keys().map(String::as_str).collect()
    }
}
