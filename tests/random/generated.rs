//! What a seed makes: tables, rows, and the statements of each writing connection.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Column types with values of each, the limits among them.
const TYPES: [(&str, &[&str]); 20] = [
    ("INT", &["0", "-2147483648", "2147483647", "17"]),
    ("BIGINT UNSIGNED", &["0", "18446744073709551615", "9223372036854775808"]),
    ("DECIMAL(30,10)", &["0", "-12345678901234567890.0123456789", "0.0000000001"]),
    ("DECIMAL(65,30)", &["-99999999999999999999999999999999999.999999999999999999999999999999", "1"]),
    ("DOUBLE", &["0.1", "-1e-300", "1.7976931348623157e308", "-0e0", "4.9e-324"]),
    ("FLOAT", &["0.1", "16777216", "-3.4e38"]),
    ("FLOAT(10,3)", &["1e9", "0.001", "-9999999.999"]),
    ("VARCHAR(40) CHARACTER SET utf8", &["''", "'a '", "_utf8 0xC3A4C39F", "'it''s \\\\ \\n'"]),
    ("VARCHAR(40) CHARACTER SET latin1", &["'A'", "_latin1 0xE4DF", "'\\t'"]),
    ("TEXT CHARACTER SET utf8mb4", &["_utf8mb4 0xF09F9880", "REPEAT('x', 3000)", "''"]),
    ("CHAR(10) CHARACTER SET sjis", &["_sjis 0x835C", "_sjis 0x955C5C", "'a'"]),
    ("BLOB", &["0x00FF", "''", "0x5C27220A00"]),
    ("BINARY(4)", &["0x00", "0x41000000", "0x20202020"]),
    ("DATETIME", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'2012-02-29 12:00:00'"]),
    ("TIMESTAMP", &["'1970-01-02 00:00:01'", "'2038-01-18 03:14:07'", "'2011-11-06 06:30:00'"]),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'"]),
    ("YEAR", &["1901", "2155", "0"]),
    ("ENUM('a','b','c')", &["'a'", "'c'"]),
    ("SET('a','b','c')", &["''", "'a,c'", "7"]),
    ("BIT(9)", &["b'0'", "b'111111111'", "b'101'"]),
];

/// Keys are numbers up to here, or their names.
const KEYS: u32 = 1000;

/// One case.
pub struct Generated {
    pub schema: Vec<String>,
    pub before: Vec<String>,
    /// One list per connection.
    pub during: Vec<Vec<String>>,
}

/// What tells a table's rows apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Number,
    /// A name by a collation: rows are found by other spellings than their own.
    Name(&'static str),
    /// A number and one of three letters behind it.
    NumberAndLetter,
    None,
}

impl KeyKind {
    fn column(self) -> String {
        match self {
            KeyKind::Name(charset) => format!("VARCHAR(30) {charset}"),
            _ => "INT".to_owned(),
        }
    }

    /// The value for a number: a name may be spelled in one of several ways that are one to the collation.
    fn literal(self, number: u32, dice: &mut StdRng) -> String {
        match self {
            KeyKind::Name(_) => {
                let spellings = if number.is_multiple_of(2) { ["anna", "ANNA", "Anna"] } else { ["zo\u{eb}", "ZOE", "Zoe"] };
                let space = if dice.random_bool(0.2) { " " } else { "" };
                format!("'{}{number}{space}'", spellings[dice.random_range(0..3)])
            }
            _ => number.to_string(),
        }
    }
}

struct Table {
    name: String,
    columns: Vec<usize>,
    key: KeyKind,
    /// Of the unique column `u`.
    unique: KeyKind,
    /// The table that `p` refers to, and its key. May be the table itself.
    parent: Option<(String, KeyKind)>,
    /// MyISAM: no transactions, no foreign keys.
    plain: bool,
}

const NAMES: [KeyKind; 2] = [KeyKind::Name("CHARACTER SET utf8 COLLATE utf8_general_ci"), KeyKind::Name("CHARACTER SET latin1")];

impl Generated {
    /// `aside`: with tables that come and go beside the others.
    pub fn new(seed: u64, aside: bool) -> Generated {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut tables: Vec<Table> = Vec::new();
        let mut schema = Vec::new();
        for number in 0..dice.random_range(3..6) {
            let table = table(number, &tables, &mut dice);
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
        let mut during: Vec<Vec<String>> = (0..dice.random_range(2..5)).map(|_| connection(&tables, &mut dice)).collect();
        if aside {
            during.extend((0..2).map(|_| side_connection(&tables[0], &mut dice)));
        }
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

fn table(number: u32, before: &[Table], dice: &mut StdRng) -> Table {
    let name = format!("t{number}");
    let columns = (0..dice.random_range(1..6)).map(|_| dice.random_range(0..TYPES.len())).collect();
    let name_or_number = |dice: &mut StdRng| if dice.random_bool(0.3) { NAMES[dice.random_range(0..2)] } else { KeyKind::Number };
    let unique = name_or_number(dice);
    let mut table = Table { name, columns, key: name_or_number(dice), unique, parent: None, plain: false };
    let parents: Vec<&Table> = before.iter().filter(|other| !other.plain && other.can_be_parent()).collect();
    match dice.random_range(0..20) {
        0..=9 if !parents.is_empty() => {
            let parent = parents[dice.random_range(0..parents.len())];
            table.parent = Some((parent.name.clone(), parent.key));
        }
        10 | 11 => table.parent = Some((table.name.clone(), table.key)),
        12 | 13 => table.key = KeyKind::NumberAndLetter,
        14 | 15 if number > 0 => table.key = KeyKind::None,
        _ => {}
    }
    table.plain = number > 0 && table.parent.is_none() && dice.random_bool(0.3);
    table
}

impl Table {
    fn can_be_parent(&self) -> bool {
        matches!(self.key, KeyKind::Number | KeyKind::Name(_))
    }

    fn is_parent(&self, tables: &[Table]) -> bool {
        tables.iter().any(|child| child.parent.as_ref().is_some_and(|(parent, _)| *parent == self.name))
    }
}

fn create(table: &Table, dice: &mut StdRng) -> String {
    let columns: String = table.columns.iter().enumerate().map(|(number, &kind)| format!(", c{number} {} NULL", TYPES[kind].0)).collect();
    let key = match table.key {
        KeyKind::None => "",
        KeyKind::NumberAndLetter => ", PRIMARY KEY (id, letter), KEY u (u)",
        KeyKind::Number | KeyKind::Name(_) => ", PRIMARY KEY (id), UNIQUE KEY u (u)",
    };
    let referring = table.parent.as_ref().map_or(KeyKind::Number, |(_, key)| *key);
    let reference = table.parent.as_ref().map_or(String::new(), |(parent, _)| {
        let actions = ["CASCADE", "SET NULL"];
        let (delete, update) = (actions[dice.random_range(0..2)], actions[dice.random_range(0..2)]);
        format!(", KEY p (p), FOREIGN KEY (p) REFERENCES {parent} (id) ON DELETE {delete} ON UPDATE {update}")
    });
    let engine = if table.plain { "MyISAM" } else { "InnoDB" };
    format!(
        "CREATE TABLE {} (id {} NOT NULL, u {} NULL, p {} NULL, letter CHAR(1) NOT NULL{columns}{key}{reference}) ENGINE={engine}",
        table.name,
        table.key.column(),
        table.unique.column(),
        referring.column()
    )
}

/// A row; what it refers to is there while nothing was deleted.
fn values(table: &Table, id: u32, unique: u32, dice: &mut StdRng) -> String {
    let parent = match &table.parent {
        Some((name, key)) if dice.random_bool(0.7) => {
            // A row of the table itself may refer to those before it.
            let below = if *name == table.name { id.clamp(2, 800) } else { 800 };
            let number = dice.random_range(1..below);
            key.literal(number, dice)
        }
        _ => "NULL".to_owned(),
    };
    let rest: String = table.columns.iter().map(|&kind| format!(", {}", value(kind, dice))).collect();
    let letter = if table.key == KeyKind::NumberAndLetter { ["a", "B", "c"][dice.random_range(0..3)] } else { "x" };
    format!("({}, {}, {parent}, '{letter}'{rest})", table.key.literal(id, dice), table.unique.literal(unique, dice))
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
    let (one, two) = (dice.random_range(1..KEYS), dice.random_range(1..KEYS));
    let key = |number: u32, dice: &mut StdRng| table.key.literal(number, dice);
    let kind = dice.random_range(0..table.columns.len());
    let set = format!("c{kind} = {}", value(table.columns[kind], dice));
    match dice.random_range(0..16) {
        0..=2 => vec![format!("UPDATE {name} SET {set} WHERE id = {}", key(one, dice))],
        3 => {
            let some: Vec<String> = (one..one + 20).map(|number| key(number, dice)).collect();
            vec![format!("UPDATE {name} SET {set} WHERE id IN ({})", some.join(", "))]
        }
        4 => {
            vec![format!("INSERT INTO {name} VALUES {}, {}", values(table, one, two, dice), values(table, one + KEYS, two + KEYS, dice))]
        }
        5 => vec![format!("INSERT INTO {name} VALUES {} ON DUPLICATE KEY UPDATE {set}", values(table, one, one, dice))],
        6 if !table.is_parent(tables) => {
            vec![format!("REPLACE INTO {name} VALUES {}", values(table, one, two, dice))]
        }
        6 | 7 => vec![format!("DELETE FROM {name} WHERE id = {}", key(one, dice))],
        8 => vec![format!("UPDATE {name} SET id = {} WHERE id = {}", key(two, dice), key(one, dice))],
        9 => {
            // Two rows change their unique values with each other.
            let unique = |number: u32, dice: &mut StdRng| table.unique.literal(number, dice);
            vec![
                format!("UPDATE {name} SET u = NULL WHERE id = {}", key(one, dice)),
                format!("UPDATE {name} SET u = {} WHERE id = {}", unique(one, dice), key(two, dice)),
                format!("UPDATE {name} SET u = {} WHERE id = {}", unique(two, dice), key(one, dice)),
            ]
        }
        10 => vec![
            format!("DELETE FROM {name} WHERE id = {}", key(one, dice)),
            format!("INSERT INTO {name} VALUES {}", values(table, one, one, dice)),
        ],
        11 => {
            let first = &tables[0];
            let (theirs, ours) = (first.key.literal(one, dice), key(one, dice));
            vec![format!("UPDATE {name} a JOIN {} b ON b.id = {theirs} SET a.{set}, b.c0 = NULL WHERE a.id = {ours}", first.name)]
        }
        12 => {
            let other = &tables[dice.random_range(0..tables.len())];
            let (theirs, ours) = (other.key.literal(two, dice), key(one, dice));
            vec![format!("DELETE a, b FROM {name} a JOIN {} b ON b.id = {theirs} WHERE a.id = {ours}", other.name)]
        }
        // The same key in another spelling; of a number, the same.
        13 => vec![format!("UPDATE {name} SET id = {}, {set} WHERE id = {}", key(one, dice), key(one, dice))],
        14 if table.key == KeyKind::Number => {
            vec![format!("UPDATE {name} SET id = id + 1 WHERE id BETWEEN {one} AND {} ORDER BY id DESC", one + 5)]
        }
        14 => vec![format!("UPDATE IGNORE {name} SET letter = 'B', u = {} WHERE id = {}", table.unique.literal(two, dice), key(one, dice))],
        // Of a MyISAM table, what came before the duplicate stays.
        _ => vec![format!(
            "INSERT INTO {name} VALUES {}, {}, {}",
            values(table, one + 2 * KEYS, two + 2 * KEYS, dice),
            values(table, one, one, dice),
            values(table, one + 3 * KEYS, two + 3 * KEYS, dice)
        )],
    }
}

/// Tables that come and go beside the others, under three names; both connections that do this meet on them.
fn side_connection(first: &Table, dice: &mut StdRng) -> Vec<String> {
    let mut statements = Vec::new();
    while statements.len() < 400 {
        let (name, other) = (format!("s{}", dice.random_range(0..3)), format!("s{}", dice.random_range(0..3)));
        let id = dice.random_range(1..40);
        let statement = match dice.random_range(0..100) {
            0..=4 => {
                let parent = if first.key == KeyKind::Number && dice.random_bool(0.5) {
                    ", KEY p (p), FOREIGN KEY (p) REFERENCES t0 (id) ON DELETE CASCADE"
                } else {
                    ""
                };
                format!("CREATE TABLE {name} (id INT NOT NULL PRIMARY KEY, v VARCHAR(20), p INT NULL{parent}) ENGINE=InnoDB")
            }
            5 => format!("CREATE TABLE {name} (id INT, v VARCHAR(20), p INT) ENGINE=MyISAM"),
            6 => format!("CREATE TABLE {name} (p INT) ENGINE=InnoDB SELECT {id} AS id, 'made' AS v UNION ALL SELECT {id} + 1, 'too'"),
            7 => format!("CREATE TABLE {name} LIKE {other}"),
            8 | 9 => format!("DROP TABLE IF EXISTS {name}"),
            10 => format!("RENAME TABLE {name} TO {other}"),
            11 => format!("RENAME TABLE {name} TO s_between, {other} TO {name}, s_between TO {other}"),
            12 => format!("TRUNCATE TABLE {name}"),
            13 => format!("ALTER TABLE {name} ADD COLUMN extra{} INT DEFAULT 5", dice.random_range(0..2)),
            14 => format!("ALTER TABLE {name} DROP COLUMN extra{}", dice.random_range(0..2)),
            15 => format!("ALTER TABLE {name} ADD INDEX (v), MODIFY v VARCHAR({})", dice.random_range(20..60)),
            16..=30 => format!("DELETE FROM {name} WHERE id = {id}"),
            31..=50 => format!("UPDATE {name} SET v = 'changed {id}', id = id + {} WHERE id = {id}", dice.random_range(0..2)),
            _ => {
                let parent = if dice.random_bool(0.6) { dice.random_range(1..800).to_string() } else { "NULL".to_owned() };
                format!("INSERT INTO {name} (id, v, p) VALUES ({id}, 'new', {parent}), ({}, 'newer', NULL)", id + 40)
            }
        };
        statements.push(statement);
    }
    statements
}
