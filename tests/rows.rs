//! Row events of real 5.1 and 5.5 servers: the binary log, read from its start into an empty model,
//! gives exactly the rows the servers print at the end. And whatever is done to the bytes, decoding
//! ends with rows or an error, never with a panic.
#![allow(clippy::unwrap_used)]

#[path = "rows/binlog.rs"]
mod binlog;
#[path = "rows/documents.rs"]
mod documents;
#[path = "rows/live.rs"]
mod live;
#[path = "rows/md5.rs"]
mod md5;
#[path = "rows/model.rs"]
mod model;
mod real;
mod schema;
#[path = "rows/types.rs"]
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use dbmove::mysql::cell::Cell;
use dbmove::mysql::rows::{Decoder, RowsError, RowsEvent, TableMap};
use dbmove::mysql::table::{ColumnType, Table};
use model::Model;

const LOGS: [(&str, &str); 2] = [("types-51.binlog", "rows-51.txt"), ("types-55.binlog", "rows-55.txt")];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/fixtures/mysql/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn real_logs_give_the_rows_the_servers_print() {
    for (log, expected) in LOGS {
        let mut model = Model::default();
        for event in binlog::events(&fixture(log)) {
            model.apply(&event);
        }
        let expected = String::from_utf8(fixture(expected)).unwrap();
        let mut compared = 0;
        for (table, lines) in tables(&expected) {
            let (definition, rows) = model.table(table);
            assert_eq!(rows.len(), lines.len(), "{log}: number of rows of {table}");
            for (row, line) in rows.iter().zip(lines) {
                let printed: Vec<&str> = line.split('\t').collect();
                assert_eq!(row.len(), printed.len(), "{log}: columns of {table}");
                for ((cell, column), printed) in row.iter().zip(&definition.columns).zip(printed) {
                    assert!(
                        same(cell, column.kind, column.zerofill, printed),
                        "{log}: {table}.{}: {cell:?} is not {printed}, in {line}",
                        column.name
                    );
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 319, "{log}: values compared");
        assert_eq!(model.names(), tables(&expected).into_keys().collect::<Vec<_>>(), "{log}: tables left at the end");
    }
}

/// The printed floats lose digits, so what was inserted is compared by value too.
#[test]
fn floats_are_the_inserted_values() {
    for (log, _) in LOGS {
        let mut model = Model::default();
        for event in binlog::events(&fixture(log)) {
            model.apply(&event);
        }
        let (_, rows) = model.table("reals");
        let floats = |column: usize| rows.iter().map(|row| row[column].clone()).collect::<Vec<_>>();
        #[allow(clippy::approx_constant, reason = "the value in the fixture")]
        let single = [3.141_592_7, -0.0, 1e38, 1.17549e-38, 16_777_217.0, 0.3].map(Cell::Float);
        let double = [0.1, -0.0, f64::MAX, f64::MIN_POSITIVE, 9_007_199_254_740_993.0, 0.300_000_000_000_000_04].map(Cell::Double);
        assert_eq!(floats(1), single, "{log}");
        assert_eq!(floats(2), double, "{log}");
        assert_eq!(floats(3), [12345.67, 0.0, -99999.99, 0.01, 1.0, 0.3].map(|v: f32| Cell::Float(v)), "{log}");
        assert_eq!(floats(4), [123_456.789_012, 0.0, 1e13, 0.000_001, 2.675, 0.3].map(Cell::Double), "{log}");
    }
}

/// Both logs hold the same statements, so they decode to the same cells.
#[test]
fn both_servers_log_the_same_rows() {
    let [old, new] = LOGS.map(|(log, _)| {
        let mut model = Model::default();
        for event in binlog::events(&fixture(log)) {
            model.apply(&event);
        }
        model
    });
    for table in old.names() {
        assert_eq!(old.table(table).1, new.table(table).1, "{table}");
    }
}

/// One table map and the rows events that follow it.
struct Sample {
    map: Vec<u8>,
    table: Arc<Table>,
    event_type: u8,
    rows: Vec<u8>,
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (log, _) in LOGS {
        let mut model = Model::default();
        let mut map = Vec::new();
        for event in binlog::events(&fixture(log)) {
            if event.kind == binlog::TABLE_MAP {
                map = event.body.clone();
            } else if RowsEvent::is_rows(event.kind) && event.body.len() < 20_000 {
                let table = model.definition(&TableMap::parse(&map).unwrap().name.table);
                samples.push(Sample { map: map.clone(), table, event_type: event.kind, rows: event.body.clone() });
            }
            model.apply(&event);
        }
    }
    samples
}

/// Decodes all of it; the number of rows, or the error.
fn decode(map: &[u8], table: &Arc<Table>, event_type: u8, rows: &[u8]) -> Result<usize, RowsError> {
    let decoder = Decoder::new(&TableMap::parse(map)?, table.clone())?;
    let event = RowsEvent::parse(event_type, rows)?;
    let mut count = 0;
    for change in decoder.changes(&event)? {
        let change = change?;
        for row in [&change.before, &change.after].into_iter().flatten() {
            assert_eq!(row.len(), table.columns.len());
        }
        count += 1;
    }
    Ok(count)
}

#[test]
fn every_truncation_is_an_error_or_whole_rows() {
    let mut errors = 0;
    for sample in samples() {
        let whole = decode(&sample.map, &sample.table, sample.event_type, &sample.rows).unwrap();
        assert!(whole > 0);
        for length in 0..sample.rows.len() {
            match decode(&sample.map, &sample.table, sample.event_type, &sample.rows[..length]) {
                Ok(rows) => assert!(rows < whole, "a truncated event can't hold all its rows"),
                Err(RowsError::Malformed { .. }) => errors += 1,
                Err(other) => panic!("{other}"),
            }
        }
        for length in 0..sample.map.len() {
            assert!(decode(&sample.map[..length], &sample.table, sample.event_type, &sample.rows).is_err());
        }
    }
    assert!(errors > 1000);
}

/// Random changes of one to eight bytes, from a fixed seed so that a failure can be repeated.
#[test]
fn mutated_bytes_never_panic() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(51);
    let samples = samples();
    let (mut rows, mut errors) = (0, 0);
    for round in 0..40_000 {
        let sample = &samples[round % samples.len()];
        let (mut map, mut bytes) = (sample.map.clone(), sample.rows.clone());
        for _ in 0..random.random_range(1..=8) {
            let target = if random.random_bool(0.2) { &mut map } else { &mut bytes };
            let at = random.random_range(0..target.len());
            target[at] = match random.random_range(0..3) {
                0 => random.random(),
                1 => [0, 0xff, 0x7f, 0x80, 250, 251, 252, 253, 254][random.random_range(0..9)],
                _ => target[at] ^ 1 << random.random_range(0..8),
            };
        }
        match decode(&map, &sample.table, sample.event_type, &bytes) {
            Ok(count) => rows += count,
            Err(error) => {
                errors += 1;
                assert!(!error.hint().is_empty());
            }
        }
    }
    assert!(rows > 1000 && errors > 1000, "both ends are reached: {rows} rows, {errors} errors");
}

#[test]
fn a_changed_column_is_named() {
    let sample = samples().into_iter().find(|sample| sample.table.name.table == "ints").unwrap();
    let mut table = (*sample.table).clone();
    table.columns[3].kind = ColumnType::BigInt;
    table.columns[3].type_text = "bigint(20)".to_owned();
    let error = decode(&sample.map, &Arc::new(table), sample.event_type, &sample.rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`school.ints`: column `s` is not what the catalog says: the log has wire type 2 (metadata 0x0000), the catalog has `bigint(20)`"
    );
    let mut table = (*sample.table).clone();
    table.columns.pop();
    let error = decode(&sample.map, &Arc::new(table), sample.event_type, &sample.rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`school.ints`: column number 12 is not what the catalog says: the log has 12 columns, the catalog has 11"
    );
}

#[test]
fn a_partial_image_names_the_setting() {
    let sample = samples().into_iter().find(|sample| sample.table.name.table == "parent").unwrap();
    let mut rows = sample.rows.clone();
    // Table id, flags, column count, then the bitmap of present columns.
    rows[9] = 0xfe;
    let error = decode(&sample.map, &sample.table, sample.event_type, &rows).unwrap_err();
    assert!(matches!(error, RowsError::PartialImage { ref column, .. } if column == "id"), "{error}");
    assert!(error.hint().contains("binlog_row_image = FULL"));
}

/// The same rows as a version 2 event, with and without extra data.
#[test]
fn version_2_events_decode_to_the_same_rows() {
    for sample in samples() {
        let event_type = sample.event_type + 7;
        for extra in [&[][..], &[0, 3, 1][..]] {
            let mut rows = sample.rows[..8].to_vec();
            rows.extend_from_slice(&(extra.len() as u16 + 2).to_le_bytes());
            rows.extend_from_slice(extra);
            rows.extend_from_slice(&sample.rows[8..]);
            let table = &sample.table;
            assert_eq!(decode(&sample.map, table, event_type, &rows), decode(&sample.map, table, sample.event_type, &sample.rows));
        }
    }
}

/// `# name`, then one line per row.
fn tables(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(name) => {
                current = name;
                tables.entry(current).or_default();
            }
            None => tables.entry(current).or_default().push(line),
        }
    }
    tables
}

/// Whether a cell is what the server prints, in the notation of the fixture's README.
fn same(cell: &Cell, kind: ColumnType, zerofill: bool, printed: &str) -> bool {
    let bytes = match cell {
        Cell::Null => return printed == "NULL",
        Cell::Float(value) => return close(f64::from(*value), printed, 1e-5),
        Cell::Double(value) => return close(*value, printed, 1e-14),
        Cell::Bytes(bytes) => bytes,
    };
    use ColumnType as C;
    match kind {
        C::Char | C::VarChar | C::Binary(_) | C::VarBinary | C::Text | C::Blob | C::Geometry => {
            printed
                == if bytes.len() > 64 {
                    format!("len={} md5={}", bytes.len(), md5::hex(bytes))
                } else {
                    format!("x{}", hex::encode_upper(bytes))
                }
        }
        C::Enum | C::Set => {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let number = printed.split('=').next().unwrap();
            // A mask of 64 members was printed as a signed float.
            number == text || (number.contains("e") && close(text.parse::<u64>().unwrap() as i64 as f64, number, 1e-14))
        }
        C::Year2 => bytes.len() == 4 && printed.as_bytes() == &bytes[2..],
        _ if zerofill => printed.parse::<u64>().unwrap().to_string().as_bytes() == bytes,
        _ => printed.as_bytes() == bytes,
    }
}

fn close(value: f64, printed: &str, tolerance: f64) -> bool {
    // The largest double printed with 15 digits is above the largest double.
    let printed: f64 = printed.parse::<f64>().unwrap().clamp(f64::MIN, f64::MAX);
    (value - printed).abs() <= tolerance * printed.abs() || (value / printed - 1.0).abs() < tolerance
}
