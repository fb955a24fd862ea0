//! Hashing rows in SQL.
//!
//! # Canonical bytes
//!
//! `CONCAT_WS(',', …)` over all compared columns, then one digit per column that may be NULL on
//! either side (1 for NULL). A number or a date stands as text, without prefix: a comma can't occur in it.
//! A string stands as its length and its bytes, so that no content can move a border. A
//! TEXT, BLOB, JSON or spatial value stands as its own hash: the row's bytes stay below 70 KB, far from
//! `max_allowed_packet`, above which CONCAT gives NULL. Should a hash be NULL all the same, that is an
//! error, never a match. Nothing here aggregates strings, so `group_concat_max_len` has no say.
//!
//! Strings are taken `AS BINARY`, so no two charsets meet in one CONCAT and nothing is
//! converted on the way. TIMESTAMP prints in UTC, since the session runs in UTC.
//!
//! # One hash, two lanes
//!
//! The hash is computed once per row, kept in a user variable, and its first 32 hexadecimal digits are
//! cut into two lanes, each turned into a number and summed. SUM of a BIGINT is an exact DECIMAL;
//! reduced modulo 2⁶⁴ here. Computing the hash twice costs 27 s where this costs 21 s.

use super::super::cell::Key;
use super::super::connect::{Session, TextRow};
use super::super::error::Result;
use super::super::range;
use super::super::read::{Answers, KEYS_PER_QUERY, Order, Scope, from};
use super::super::sql;
use super::super::table::ColumnType;
use super::comparison::{Comparison, Form, Pair, Side};
use super::method::Function;
use crate::verify::{RowHash, Tally};

/// The tally of the rows in a scope, computed by the server.
///
/// # Errors
/// If the table has floats, the server refuses the query, or a row's hash is NULL.
pub async fn tally(session: &mut Session, comparison: &Comparison, side: Side, function: Function, scope: &Scope<'_>) -> Result<Tally> {
    refuse_floats(session, comparison)?;
    let table = comparison.table(side);
    let columns = tally_columns(&row_hash(comparison, side, function));
    let mut queries = Vec::new();
    match scope {
        Scope::Table => queries.push(format!("SELECT {columns} FROM {}", sql::table(&table.name))),
        Scope::Range(range) => {
            let key = comparison.key_columns(side)?;
            queries.push(format!("SELECT {columns} FROM {} WHERE {}", from(table), range::condition_text(table, &key, range)));
        }
        Scope::Matching { columns: matched, values } => {
            for batch in range::batches(values, KEYS_PER_QUERY) {
                queries.push(format!("SELECT {columns} FROM {} WHERE {}", sql::table(&table.name), range::one_of(table, matched, batch)));
            }
        }
        Scope::Keys(keys) => {
            let key = comparison.key_columns(side)?;
            for batch in range::batches(keys, KEYS_PER_QUERY) {
                queries.push(format!("SELECT {columns} FROM {} WHERE {}", from(table), range::one_of(table, &key, batch)));
            }
        }
    }
    let mut total = Tally::default();
    for query in queries {
        let row = session.first(&query, &format!("hashing the rows of `{}`", table.name)).await?;
        let Some(tally) = row.as_ref().and_then(parse_tally) else {
            return Err(comparison.failed(session, &format!("the server could not hash every row (it answered {row:?})")));
        };
        total = total.merge(tally);
    }
    Ok(total)
}

/// Each row's key and hash, as the server computes them, handed to `each`.
///
/// # Errors
/// As [`tally`].
pub async fn list(
    session: &mut Session,
    comparison: &Comparison,
    side: Side,
    function: Function,
    scope: &Scope<'_>,
    mut each: impl FnMut(Key, RowHash),
) -> Result<()> {
    refuse_floats(session, comparison)?;
    let (mut select, keys, _) = comparison.select(side, true)?;
    select.truncate(keys);
    select.push(row_hash(comparison, side, function));
    let mut answers = Answers::open(session, comparison.table(side), &select, false, scope, Order::Any, None).await?;
    while let Some(row) = answers.next().await? {
        let mut key = Vec::with_capacity(keys * 16);
        for index in 0..keys {
            answers.encode(&row, index, &mut key)?;
        }
        let hash = match row.as_ref(keys) {
            Some(mysql_async::Value::Bytes(text)) => RowHash::from_hex(text),
            _ => None,
        };
        let Some(hash) = hash else {
            drop(answers);
            return Err(comparison.failed(session, "the server could not hash every row"));
        };
        each(Key(key.into_boxed_slice()), hash);
    }
    Ok(())
}

/// The columns of a tally query, for an expression that is one row's hash in hexadecimal.
pub(super) fn tally_columns(hash: &str) -> String {
    let lane = |of: &str, at: u32| format!("SUM(CAST(CONV(SUBSTRING({of}, {at}, 16), 16, 10) AS UNSIGNED))");
    format!("COUNT(*), {}, {}, SUM(ISNULL(@dbmove_hash))", lane(&format!("@dbmove_hash := {hash}"), 1), lane("@dbmove_hash", 17))
}

/// What [`tally_columns`] answered; `None` if a hash was NULL or the answer is no tally.
pub(super) fn parse_tally(row: &TextRow) -> Option<Tally> {
    let [rows, first, second, nulls] = row.as_slice() else { return None };
    let rows: u64 = rows.as_ref()?.parse().ok()?;
    if rows == 0 {
        return Some(Tally::default());
    }
    if nulls.as_deref() != Some("0") {
        return None;
    }
    // At most 2⁶⁴ rows of at most 2⁶⁴ each: fits.
    let lane = |text: &Option<String>| text.as_ref()?.parse::<u128>().ok().map(|sum| (sum & u128::from(u64::MAX)) as u64);
    Some(Tally { rows, first: lane(first)?, second: lane(second)? })
}

/// The hash of one row. See the module's comment for its canonical bytes.
fn row_hash(comparison: &Comparison, side: Side, function: Function) -> String {
    let mut parts: Vec<String> = comparison.pairs().iter().map(|pair| part(comparison, side, pair, function)).collect();
    let nulls: Vec<String> = comparison
        .pairs()
        .iter()
        .filter(|pair| pair.nullable)
        .map(|pair| format!("ISNULL({})", sql::identifier(&comparison.column(side, pair).name)))
        .collect();
    if !nulls.is_empty() {
        parts.push(format!("CONCAT({})", nulls.join(", ")));
    }
    function.call(&format!("CONCAT_WS(',', {})", parts.join(", ")))
}

fn part(comparison: &Comparison, side: Side, pair: &Pair, function: Function) -> String {
    use ColumnType::{Binary, Blob, Char, Geometry, Json, Text, VarBinary, VarChar};
    let column = comparison.column(side, pair);
    let other = comparison.column(if side == Side::Source { Side::Target } else { Side::Source }, pair);
    let value = comparison.expression(side, pair, false);
    // Both sides have to take the same branch, whatever their own types.
    let large = |kind: ColumnType| matches!(kind, Text | Blob | Json | Geometry);
    let string = |kind: ColumnType| matches!(kind, Char | VarChar | Binary(_) | VarBinary) || large(kind);
    let bytes = match column.kind {
        Json => format!("CAST(CAST({value} AS CHAR CHARACTER SET utf8mb4) AS BINARY)"),
        Geometry => value,
        _ => format!("CAST({value} AS BINARY)"),
    };
    if large(column.kind) || large(other.kind) {
        format!("IFNULL({}, '')", function.call(&bytes))
    } else if string(column.kind) || string(other.kind) || pair.form == Form::Unicode {
        format!("IFNULL(LENGTH({bytes}), 0), IFNULL({bytes}, '')")
    } else {
        format!("IFNULL({bytes}, '')")
    }
}

fn refuse_floats(session: &Session, comparison: &Comparison) -> Result<()> {
    if comparison.has_floats() {
        return Err(comparison.failed(session, "it has FLOAT or DOUBLE columns, which the server can't hash by value"));
    }
    Ok(())
}
