//! What a seed makes: tables, rows, and the statements of each writing connection.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Column types with values of each, the limits among them.
const TYPES: [(&str, &[&str]); 12] = [
    ("INT", &["0", "-2147483648", "2147483647", "17"]),
    ("BIGINT UNSIGNED", &["0", "18446744073709551615", "9223372036854775808"]),
    ("DECIMAL(30,10)", &["0", "-12345678901234567890.0123456789", "0.0000000001"]),
    ("DOUBLE", &["0.1", "-1e-300", "1.7976931348623157e308"]),
    ("FLOAT", &["0.1", "16777216", "-3.4e38"]),
    ("VARCHAR(40) CHARACTER SET utf8", &["''", "'a '", "_utf8 0xC3A4C39F", "'it''s \\\\ \\n'"]),
    ("VARCHAR(40) CHARACTER SET latin1", &["'A'", "_latin1 0xE4DF", "'\\t'"]),
    ("BLOB", &["0x00FF", "''", "0x5C27220A00"]),
    ("DATETIME", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'2012-02-29 12:00:00'"]),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'"]),
    ("ENUM('a','b','c')", &["'a'", "'c'"]),
    ("BIT(9)", &["b'0'", "b'111111111'", "b'101'"]),
];

/// One case.
pub struct Generated {
    pub schema: Vec<String>,
    pub before: Vec<String>,
    /// One list per connection.
    pub during: Vec<Vec<String>>,
}

struct Table {
    name: String,
    columns: Vec<usize>,
    keyless: bool,
    parent: Option<String>,
}

impl Generated {
    pub fn new(seed: u64) -> Generated {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut tables: Vec<Table> = Vec::new();
        let mut schema = Vec::new();
        for number in 0..dice.random_range(3..6) {
            let columns: Vec<usize> = (0..dice.random_range(1..5)).map(|_| dice.random_range(0..TYPES.len())).collect();
            let parents: Vec<&Table> = tables.iter().filter(|table| !table.keyless).collect();
            let parent = (!parents.is_empty() && dice.random_bool(0.6)).then(|| parents[dice.random_range(0..parents.len())].name.clone());
            let keyless = parent.is_none() && number > 0 && dice.random_bool(0.2);
            let table = Table { name: format!("t{number}"), columns, keyless, parent };
            schema.push(create(&table, &mut dice));
            tables.push(table);
        }
        let mut before = Vec::new();
        for table in &tables {
            for from in (1..800).step_by(100) {
                let rows: Vec<String> = (from..from + 100).map(|id| values(table, id, id, &mut dice)).collect();
                before.push(format!("INSERT INTO {} VALUES {}", table.name, rows.join(", ")));
            }
        }
        let during = (0..dice.random_range(2..5)).map(|_| connection(&tables, &mut dice)).collect();
        Generated { schema, before, during }
    }

    /// Writes the case as files.
    pub fn keep(&self, directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        let text = |statements: &[String]| statements.iter().map(|statement| format!("{statement};\n")).collect::<String>();
        std::fs::write(directory.join("schema.sql"), text(&self.schema)).unwrap();
        std::fs::write(directory.join("before.sql"), text(&self.before)).unwrap();
        let during: Vec<String> =
            self.during.iter().enumerate().map(|(number, list)| format!("-- connection {number}\n{}", text(list))).collect();
        std::fs::write(directory.join("during.sql"), during.concat()).unwrap();
    }
}

fn create(table: &Table, dice: &mut StdRng) -> String {
    let columns: String = table.columns.iter().enumerate().map(|(number, &kind)| format!(", c{number} {} NULL", TYPES[kind].0)).collect();
    let key = if table.keyless { "" } else { ", PRIMARY KEY (id), UNIQUE KEY u (u)" };
    let reference = table.parent.as_ref().map_or(String::new(), |parent| {
        let actions = ["CASCADE", "SET NULL"];
        let (delete, update) = (actions[dice.random_range(0..2)], actions[dice.random_range(0..2)]);
        format!(", KEY p (p), FOREIGN KEY (p) REFERENCES {parent} (id) ON DELETE {delete} ON UPDATE {update}")
    });
    // Only tables that nobody refers to, and that refer to nobody, may be without foreign keys.
    let engine = if table.keyless && dice.random_bool(0.4) { "MyISAM" } else { "InnoDB" };
    format!("CREATE TABLE {} (id INT NOT NULL, u INT NULL, p INT NULL{columns}{key}{reference}) ENGINE={engine}", table.name)
}

/// A row; what it refers to is there while nothing was deleted.
fn values(table: &Table, id: u32, unique: u32, dice: &mut StdRng) -> String {
    let parent = if table.parent.is_some() && dice.random_bool(0.7) { dice.random_range(1..800).to_string() } else { "NULL".to_owned() };
    let rest: String = table.columns.iter().map(|&kind| format!(", {}", value(kind, dice))).collect();
    format!("({id}, {unique}, {parent}{rest})")
}

fn value(kind: usize, dice: &mut StdRng) -> String {
    let some = TYPES[kind].1;
    if dice.random_bool(0.1) { "NULL".to_owned() } else { some[dice.random_range(0..some.len())].to_owned() }
}

/// Transactions of one connection: half by themselves, half in BEGIN and COMMIT, ROLLBACK, or a savepoint taken back.
fn connection(tables: &[Table], dice: &mut StdRng) -> Vec<String> {
    let mut statements = Vec::new();
    while statements.len() < 900 {
        if dice.random_bool(0.5) {
            statements.extend(change(&tables[dice.random_range(0..tables.len())], tables, dice));
            continue;
        }
        statements.push("BEGIN".to_owned());
        for _ in 0..dice.random_range(1..5) {
            statements.extend(change(&tables[dice.random_range(0..tables.len())], tables, dice));
        }
        if dice.random_bool(0.3) {
            statements.push("SAVEPOINT s".to_owned());
            statements.extend(change(&tables[dice.random_range(0..tables.len())], tables, dice));
            statements.push("ROLLBACK TO s".to_owned());
        }
        statements.push(if dice.random_bool(0.85) { "COMMIT" } else { "ROLLBACK" }.to_owned());
    }
    statements
}

fn change(table: &Table, tables: &[Table], dice: &mut StdRng) -> Vec<String> {
    let name = &table.name;
    // Few keys, so that they meet.
    let (id, other) = (dice.random_range(1..1000), dice.random_range(1..1000));
    let kind = dice.random_range(0..table.columns.len());
    let set = format!("c{kind} = {}", value(table.columns[kind], dice));
    match dice.random_range(0..12) {
        0..=2 => vec![format!("UPDATE {name} SET {set} WHERE id = {id}")],
        3 => vec![format!("UPDATE {name} SET {set} WHERE id BETWEEN {id} AND {}", id + 20)],
        4 => {
            vec![format!("INSERT INTO {name} VALUES {}, {}", values(table, id, other, dice), values(table, id + 1000, other + 1000, dice))]
        }
        5 => vec![format!("INSERT INTO {name} VALUES {} ON DUPLICATE KEY UPDATE {set}", values(table, id, id, dice))],
        6 if !tables.iter().any(|child| child.parent.as_ref() == Some(name)) => {
            vec![format!("REPLACE INTO {name} VALUES {}", values(table, id, other, dice))]
        }
        6 | 7 => vec![format!("DELETE FROM {name} WHERE id = {id}")],
        8 => vec![format!("UPDATE {name} SET id = {other} WHERE id = {id}")],
        9 => vec![
            format!("UPDATE {name} SET u = NULL WHERE id = {id}"),
            format!("UPDATE {name} SET u = {id} WHERE id = {other}"),
            format!("UPDATE {name} SET u = {other} WHERE id = {id}"),
        ],
        10 => vec![format!("DELETE FROM {name} WHERE id = {id}"), format!("INSERT INTO {name} VALUES {}", values(table, id, id, dice))],
        _ => vec![format!("UPDATE {name} a JOIN {} b ON b.id = a.id SET a.{set} WHERE a.id = {id}", tables[0].name)],
    }
}
