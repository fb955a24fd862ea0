//! The physical limit: files that are ready, loaded over parallel connections, and nothing else running.
//!
//! The source writes each table as TSV (`SELECT … INTO OUTFILE`), cut into pieces; none of that is measured. Loading
//! takes the order that is fastest: tables with their primary key only, pieces over several connections, and the
//! other indexes in one `ALTER TABLE` as soon as a table's last piece is in, foreign keys at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;

use crate::measure::{Failure, Used, Watch, load_average};
use crate::{DATABASE, Pair, Took};

/// Connections that load, as many as dbmove has by default.
const CONNECTIONS: usize = 3;
/// Bytes of a piece, about.
const PIECE: usize = 16 << 20;

/// Files and statements, ready to be used.
#[derive(Clone)]
pub struct Ready {
    pieces: Vec<(String, PathBuf)>,
    /// The end of each table's `LOAD DATA`: its columns.
    columns: BTreeMap<String, String>,
    create: Vec<String>,
    indexes: BTreeMap<String, String>,
    foreign_keys: Vec<String>,
}

/// Has the source write its tables into files, and works out the statements.
///
/// # Errors
/// If the source can't write them.
pub async fn prepare(pair: &Pair) -> Result<Ready, Failure> {
    let directory = pair.directory.path().join("files");
    std::fs::create_dir_all(&directory)?;
    let mut conn = pair.connect(&pair.source).await?;
    conn.query_drop("SET NAMES binary").await?;
    let mut ready =
        Ready { pieces: Vec::new(), columns: BTreeMap::new(), create: Vec::new(), indexes: BTreeMap::new(), foreign_keys: Vec::new() };
    for (table, _) in &pair.rows {
        let whole = directory.join(format!("{table}.tsv"));
        // BIT goes as a number: its bytes would be written without escapes.
        let query = format!(
            "SELECT COLUMN_NAME, DATA_TYPE = 'bit' FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = '{DATABASE}' AND TABLE_NAME = '{table}' ORDER BY ORDINAL_POSITION"
        );
        let columns: Vec<(String, bool)> = conn.query(query).await?;
        let list = |bit: &dyn Fn(&str) -> String| {
            columns.iter().map(|(name, is_bit)| if *is_bit { bit(name) } else { format!("`{name}`") }).collect::<Vec<_>>().join(", ")
        };
        let select = list(&|name| format!("`{name}` + 0"));
        let sets: Vec<String> =
            columns.iter().filter(|(_, bit)| *bit).map(|(name, _)| format!("`{name}` = CAST(@{name} AS UNSIGNED)")).collect();
        let set = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
        ready.columns.insert(table.clone(), format!("({}){set}", list(&|name| format!("@{name}"))));
        conn.query_drop(format!("SELECT {select} INTO OUTFILE '{}' FROM `{DATABASE}`.`{table}`", whole.display())).await?;
        let text = std::fs::read(&whole)?;
        std::fs::remove_file(&whole)?;
        let mut start = 0;
        while start < text.len() {
            let end = line_end(&text, (start + PIECE).min(text.len()));
            let path = directory.join(format!("{table}.{}.tsv", ready.pieces.len()));
            std::fs::write(&path, &text[start..end])?;
            ready.pieces.push((table.clone(), path));
            start = end;
        }
        let (_, definition): (String, String) =
            conn.query_first(format!("SHOW CREATE TABLE `{DATABASE}`.`{table}`")).await?.ok_or("no definition of a table")?;
        ready.take_apart(table, &definition);
    }
    conn.disconnect().await?;
    Ok(ready)
}

/// The first end of a line at or behind `from`: a newline with an even number of backslashes before it.
fn line_end(text: &[u8], from: usize) -> usize {
    (from.saturating_sub(1)..text.len())
        .find(|&at| text[at] == b'\n' && text[..at].iter().rev().take_while(|&&byte| byte == b'\\').count().is_multiple_of(2))
        .map_or(text.len(), |at| at + 1)
}

impl Ready {
    /// Parts a definition into the table with its primary key, its other indexes and its foreign keys.
    fn take_apart(&mut self, table: &str, definition: &str) {
        let name = format!("`{DATABASE}`.`{table}`");
        let mut kept: Vec<&str> = Vec::new();
        let mut indexes = Vec::new();
        for line in definition.lines() {
            let bare = line.trim().trim_end_matches(',');
            if bare.starts_with("KEY ") || bare.starts_with("UNIQUE KEY ") {
                indexes.push(format!("ADD {bare}"));
            } else if bare.starts_with("CONSTRAINT ") {
                self.foreign_keys.push(format!("ALTER TABLE {name} ADD {bare}"));
            } else {
                kept.push(line);
            }
        }
        if let Some(at) = kept.iter().rposition(|line| line.starts_with(')')) {
            kept[at - 1] = kept[at - 1].trim_end_matches(',');
        }
        // As dbmove makes it: a managed target has InnoDB only.
        self.create.push(kept.join("\n").replacen(&format!("`{table}`"), &name, 1).replacen("ENGINE=MyISAM", "ENGINE=InnoDB", 1));
        if !indexes.is_empty() {
            self.indexes.insert(table.to_owned(), format!("ALTER TABLE {name} {}", indexes.join(", ")));
        }
    }
}

/// Loads the files, as fast as this target takes them.
///
/// # Errors
/// If a statement fails or changes a value.
pub async fn load(pair: &Pair, ready: &Ready) -> Result<Took, Failure> {
    let pids = [pair.source.pid(), pair.target.pid(), std::process::id()];
    let watch = Watch::start(&pids);
    let started = Instant::now();
    let mut conn = pair.connect(&pair.target).await?;
    conn.query_drop("SET SESSION sql_mode = ''").await?;
    conn.query_drop(format!("CREATE DATABASE `{DATABASE}` DEFAULT CHARACTER SET utf8mb3")).await?;
    conn.query_drop("SET SESSION foreign_key_checks = 0").await?;
    for create in &ready.create {
        conn.query_drop(create).await?;
    }
    // Taken from the end: the largest pieces' tables are not known here, and the order hardly matters.
    let queue = Arc::new(Mutex::new(ready.pieces.clone()));
    let left = ready.pieces.iter().fold(BTreeMap::<String, usize>::new(), |mut left, (table, _)| {
        *left.entry(table.clone()).or_default() += 1;
        left
    });
    let left = Arc::new(Mutex::new(left));
    let (complete, mut indexing) = tokio::sync::mpsc::channel::<String>(ready.create.len());
    let mut loading: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut conn = pair.connect(&pair.target).await?;
        let (queue, left, complete, columns) = (queue.clone(), left.clone(), complete.clone(), ready.columns.clone());
        loading.spawn(async move {
            conn.query_drop("SET NAMES binary").await?;
            conn.query_drop(
                "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0, time_zone = 'SYSTEM'",
            )
            .await?;
            loop {
                let Some((table, path)) = queue.lock().ok().and_then(|mut queue| queue.pop()) else { return Ok(()) };
                let text = Bytes::from(tokio::fs::read(&path).await?);
                let pieces = (0..text.len()).step_by(64 << 10).map(move |at| Ok(text.slice(at..text.len().min(at + (64 << 10)))));
                conn.set_infile_handler(async move { Ok(futures_util::stream::iter(pieces).boxed()) });
                let columns = columns.get(&table).map_or("", String::as_str);
                conn.query_drop(format!("LOAD DATA LOCAL INFILE 'x' INTO TABLE `{DATABASE}`.`{table}` CHARACTER SET binary {columns}"))
                    .await?;
                if conn.get_warnings() > 0 {
                    let first: Option<(String, u16, String)> = conn.query_first("SHOW WARNINGS").await?;
                    return Err(format!("loading `{table}` changed values: {first:?}").into());
                }
                let last = left.lock().is_ok_and(|mut left| {
                    let entry = left.entry(table.clone()).or_default();
                    *entry -= 1;
                    *entry == 0
                });
                if last {
                    complete.send(table).await?;
                }
            }
        });
    }
    drop(complete);
    let build = async {
        conn.query_drop("SET SESSION innodb_ddl_buffer_size = 67108864, innodb_ddl_threads = 2").await?;
        while let Some(table) = indexing.recv().await {
            if let Some(statement) = ready.indexes.get(&table) {
                conn.query_drop(statement).await?;
            }
        }
        for statement in &ready.foreign_keys {
            conn.query_drop(statement).await?;
        }
        Ok::<(), Failure>(())
    };
    let wait = async {
        while let Some(ended) = loading.join_next().await {
            ended??;
        }
        Ok::<(), Failure>(())
    };
    tokio::try_join!(build, wait)?;
    let seconds = started.elapsed().as_secs_f64();
    let tool = Used { peak_memory: 0, ..watch.of(pids[2]) };
    Ok(Took { seconds, load: load_average(), source: watch.of(pids[0]), target: watch.of(pids[1]), tool })
}
