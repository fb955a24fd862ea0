//! Both sides of a case, row by row, by SELECTs written here: text, blobs, enums, sets and shapes by their bytes,
//! floats by all their digits, the rest by how the server prints it. Shares no code with dbmove.

use std::collections::BTreeMap;

use dbmove::local::{Account, LocalServer};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::case::Case;

type Rows = Vec<Vec<Option<String>>>;

/// How many rows of a case's databases are equal; or each table that is not, with the first rows that one side lacks.
pub async fn compare(source: &LocalServer, target: &LocalServer, case: &Case) -> Result<usize, Vec<String>> {
    let mut on_source = connect(source).await;
    let mut on_target = connect(target).await;
    let here = databases(&mut on_source, case).await;
    let there = databases(&mut on_target, case).await;
    if here != there {
        return Err(vec![format!("databases on the source: {here:?}; on the target: {there:?}")]);
    }
    let mut equal = 0;
    let mut wrong = Vec::new();
    for database in &here {
        match compare_database(&mut on_source, &mut on_target, database).await {
            Ok(rows) => equal += rows,
            Err(differences) => wrong.extend(differences),
        }
    }
    if wrong.is_empty() { Ok(equal) } else { Err(wrong) }
}

/// The databases of a case that are on a server, in order.
pub async fn databases(conn: &mut Conn, case: &Case) -> Vec<String> {
    let all: Vec<Vec<u8>> = conn.query("SHOW DATABASES").await.unwrap();
    let mut found: Vec<String> = all.into_iter().map(|name| String::from_utf8(name).unwrap()).filter(|name| case.owns(name)).collect();
    found.sort();
    found
}

async fn compare_database(on_source: &mut Conn, on_target: &mut Conn, database: &str) -> Result<usize, Vec<String>> {
    let columns = columns(on_source, database).await;
    let there = self::columns(on_target, database).await;
    let mut wrong = Vec::new();
    if columns.is_empty() {
        wrong.push(format!("`{database}` has no table on the source"));
    }
    for extra in there.keys().filter(|table| !columns.contains_key(*table)) {
        wrong.push(format!("table `{}` is on the target only", String::from_utf8_lossy(extra)));
    }
    let mut equal = 0;
    for (table, columns) in &columns {
        let name = String::from_utf8_lossy(table).into_owned();
        let Some(other) = there.get(table) else {
            wrong.push(format!("table `{name}` is not on the target"));
            continue;
        };
        let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        if names(columns) != names(other) {
            wrong.push(format!("table `{name}` has other columns on the target"));
            continue;
        }
        let ours = rows(on_source, database, table, columns).await;
        let theirs = rows(on_target, database, table, columns).await;
        if ours == theirs {
            equal += ours.len();
            continue;
        }
        let lacking =
            |of: &Rows, among: &Rows| of.iter().filter(|row| among.binary_search(row).is_err()).take(3).cloned().collect::<Vec<_>>();
        wrong.push(format!(
            "table `{name}`: {} rows on the source, {} on the target\n  source only: {}\n  target only: {}",
            ours.len(),
            theirs.len(),
            shown(&lacking(&ours, &theirs)),
            shown(&lacking(&theirs, &ours))
        ));
    }
    if wrong.is_empty() { Ok(equal) } else { Err(wrong) }
}

/// A column.
pub struct Column {
    pub name: Vec<u8>,
    /// Its type in small letters.
    pub kind: String,
}

/// A session as root that sees zero dates and UTC.
pub async fn connect(server: &LocalServer) -> Conn {
    let mut conn = Conn::new(server.connect_options(Account::Root, None)).await.unwrap();
    conn.query_drop("SET time_zone = '+00:00', sql_mode = ''").await.unwrap();
    conn
}

/// The columns of each table of a database.
pub async fn columns(conn: &mut Conn, database: &str) -> BTreeMap<Vec<u8>, Vec<Column>> {
    let query = format!(
        "SELECT table_schema, table_name, column_name, CAST(IF(column_type = 'year(2)', column_type, data_type) AS CHAR) \
         FROM information_schema.columns WHERE table_schema = '{}' ORDER BY table_name, ordinal_position",
        database.replace('\\', "\\\\").replace('\'', "''")
    );
    let mut tables: BTreeMap<Vec<u8>, Vec<Column>> = BTreeMap::new();
    for (schema, table, name, kind) in conn.query::<(Vec<u8>, Vec<u8>, Vec<u8>, String), _>(query).await.unwrap() {
        // Some servers look names up without regard to case.
        if schema == database.as_bytes() {
            tables.entry(table).or_default().push(Column { name, kind: kind.to_lowercase() });
        }
    }
    tables
}

/// A name in backticks.
pub fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = vec![b'`'];
    for byte in name {
        out.extend(std::iter::repeat_n(*byte, if *byte == b'`' { 2 } else { 1 }));
    }
    out.push(b'`');
    out
}

async fn rows(conn: &mut Conn, database: &str, table: &[u8], columns: &[Column]) -> Rows {
    let mut query = b"SELECT ".to_vec();
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            query.extend_from_slice(b", ");
        }
        let (open, close) = match column.kind.as_str() {
            "float" | "double" | "bit" => ("CAST(", " + 0 AS CHAR)"),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "date" | "time" | "datetime" | "timestamp" => {
                ("CAST(", " AS CHAR)")
            }
            "enum" => ("CONCAT(CAST(", ""),
            // Prints no century; which one arrives is the case's own question.
            "year(2)" => ("RIGHT(CONCAT('0', CAST(", " AS CHAR)), 2)"),
            _ => ("HEX(", ")"),
        };
        query.extend_from_slice(open.as_bytes());
        query.extend_from_slice(&quoted(&column.name));
        query.extend_from_slice(close.as_bytes());
        if column.kind == "enum" {
            query.extend_from_slice(b" + 0 AS CHAR), ':', HEX(");
            query.extend_from_slice(&quoted(&column.name));
            query.extend_from_slice(b"))");
        }
    }
    query.extend_from_slice(b" FROM ");
    query.extend_from_slice(&quoted(database.as_bytes()));
    query.push(b'.');
    query.extend_from_slice(&quoted(table));
    let mut rows: Rows = conn
        .query::<Row, _>(query)
        .await
        .unwrap_or_else(|error| panic!("{database}.{}: {error}", String::from_utf8_lossy(table)))
        .into_iter()
        .map(|row| row.unwrap().into_iter().map(text).collect())
        .collect();
    rows.sort();
    rows
}

/// A value as the server printed it; `None` is NULL.
pub fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}

fn shown(rows: &Rows) -> String {
    let cell = |cell: &Option<String>| cell.as_ref().map_or_else(|| "NULL".to_owned(), |text| text.chars().take(60).collect());
    rows.iter().map(|row| format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", "))).collect::<Vec<_>>().join(" ")
}
