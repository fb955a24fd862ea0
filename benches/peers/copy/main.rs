//! How fast a database is copied: dbmove beside `mysqldump | mysql` and beside the physical limit, in one run.
//!
//! MySQL 5.5.34 → 9.7, both on this machine, committing durably (`sync_binlog=1`, `innodb_flush_log_at_trx_commit=1`).
//! The same source, the same target with the same settings for all; between two copies the target's databases are
//! dropped and its logs reset. A copy counts as done when all rows, indexes and foreign keys are there; afterwards
//! rows are counted.
//!
//! | way | what it is |
//! | --- | --- |
//! | `dump` | `mysqldump --single-transaction --quick --hex-blob \| mysql`, the clients that come with the servers |
//! | `files` | ready TSV files, `LOAD DATA LOCAL` over parallel connections, primary keys first, other indexes as soon as a table is in: nothing is read from the source, so this is the limit |
//! | `dbmove` | `dbmove run` of a playbook with `assess`, `prepare`, `replicate` and `snapshot`, as a user runs it |
//!
//! Settings, from the environment: `DBMOVE_BENCH_MIB` (size of the data, 1024), `DBMOVE_BENCH_ROUNDS` (3),
//! `DBMOVE_BENCH_WAYS` (`dump,files,dbmove`), `DBMOVE_BENCH_BINLOG` (`off`: the target's binary log),
//! `DBMOVE_BENCH_BUFFER_MIB` (the target's buffer pool, 1024; databases in use are larger than theirs),
//! `DBMOVE_BENCH_SNAPSHOT` (arguments of `mysql.snapshot`, for trying others than the defaults), `DBMOVE_BENCH_SHOW`
//! (set: what dbmove printed is shown after each copy).

mod files;
#[path = "../../measure/mod.rs"]
mod measure;
mod ways;

use dbmove::demo::seed::{SchoolSize, seed};
use dbmove::local::{Account, LocalServer, ServerKind, ServerOptions};
use measure::{Failure, Used, machine, median, setting};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The school's database.
const DATABASE: &str = "school";
/// What a school of factor 1 takes on a 5.5 server, data and indexes, in MiB.
const MIB_PER_FACTOR: f64 = 50.0;

/// Both servers and the data.
pub struct Pair {
    source: LocalServer,
    target: LocalServer,
    directory: tempfile::TempDir,
    rows: Vec<(String, u64)>,
    binlog: bool,
}

/// What one copy took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    seconds: f64,
    /// Load average of the machine at the end: others at work make it more than this bench needs.
    load: f64,
    source: Used,
    target: Used,
    tool: Used,
}

/// A way of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Dump,
    Files,
    Dbmove,
}

impl Way {
    fn parse(name: &str) -> Result<Way, Failure> {
        match name {
            "dump" => Ok(Way::Dump),
            "files" => Ok(Way::Files),
            "dbmove" => Ok(Way::Dbmove),
            other => Err(format!("`DBMOVE_BENCH_WAYS`: `{other}` is none of `dump`, `files`, `dbmove`").into()),
        }
    }
    fn title(self) -> &'static str {
        match self {
            Way::Dump => "`mysqldump \\| mysql`",
            Way::Files => "parallel `LOAD DATA` of ready files",
            Way::Dbmove => "`dbmove run` (follows the source meanwhile)",
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mib: f64 = setting("DBMOVE_BENCH_MIB", 1024.0)?;
    let rounds: usize = setting("DBMOVE_BENCH_ROUNDS", 3)?;
    let binlog = setting("DBMOVE_BENCH_BINLOG", "off".to_owned())? == "on";
    let names: String = setting("DBMOVE_BENCH_WAYS", "dump,files,dbmove".to_owned())?;
    let ways = names.split(',').map(Way::parse).collect::<Result<Vec<_>, _>>()?;
    let pair = Pair::start(mib, binlog).await?;
    let (bytes, rows) = pair.size().await?;
    eprintln!("{rows} rows, {} MiB with indexes; {}", bytes >> 20, machine());
    let ready = if ways.contains(&Way::Files) { Some(files::prepare(&pair).await?) } else { None };
    let mut took: Vec<(Way, Vec<Took>)> = ways.iter().map(|&way| (way, Vec::new())).collect();
    for round in 1..=rounds {
        for (way, took) in &mut took {
            pair.clear_target().await?;
            let this = match (*way, &ready) {
                (Way::Dump, _) => ways::dump(&pair).await?,
                (Way::Files, Some(ready)) => files::load(&pair, ready).await?,
                (Way::Files, None) => continue,
                (Way::Dbmove, _) => ways::dbmove(&pair).await?,
            };
            pair.check().await?;
            eprintln!(
                "round {round}: {way:?} {:.1} s; processor seconds: source {:.1}, target {:.1}, tool {:.1}; peak of the tool {} MiB; load {:.1}",
                this.seconds,
                this.source.processor,
                this.target.processor,
                this.tool.processor,
                this.tool.peak_memory >> 20,
                this.load
            );
            took.push(this);
        }
    }
    measure::record(if binlog { "copy, binlog on" } else { "copy, binlog off" }, &pair.table(&took, bytes, rows, rounds))
}

impl Pair {
    async fn start(mib: f64, binlog: bool) -> Result<Pair, Failure> {
        let directory = tempfile::tempdir()?;
        let options = ServerOptions::default().durable(true);
        let source =
            LocalServer::start(ServerKind::Mysql55, &directory.path().join("source"), &options.clone().buffer_pool(512 << 20)).await?;
        let options = options
            .rds_like(true)
            .binlog(binlog)
            .buffer_pool(setting::<u64>("DBMOVE_BENCH_BUFFER_MIB", 1024)? << 20)
            .argument("--innodb-redo-log-capacity=1G")
            .argument("--max-binlog-size=256M");
        let target = LocalServer::start(ServerKind::Mysql97, &directory.path().join("target"), &options).await?;
        let mut conn = Conn::new(source.connect_options(Account::Root, None)).await?;
        conn.query_drop("SET sql_log_bin = 0").await?;
        eprintln!("seeding about {mib} MiB");
        let size = seed(&mut conn, DATABASE, &SchoolSize::scaled(mib / MIB_PER_FACTOR), 7).await?;
        conn.disconnect().await?;
        let rows = size.by_table().into_iter().map(|(table, rows)| (table.to_owned(), rows)).collect();
        Ok(Pair { source, target, directory, rows, binlog })
    }

    /// Bytes on the source, indexes included, and rows.
    async fn size(&self) -> Result<(u64, u64), Failure> {
        let mut conn = self.connect(&self.source).await?;
        let query = "SELECT CAST(SUM(DATA_LENGTH + INDEX_LENGTH) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'school'";
        let bytes: Option<u64> = conn.query_first(query).await?;
        Ok((bytes.unwrap_or(0), self.rows.iter().map(|(_, rows)| rows).sum()))
    }

    async fn connect(&self, server: &LocalServer) -> Result<Conn, Failure> {
        Ok(Conn::new(server.connect_options(Account::Root, None)).await?)
    }

    /// Drops what a copy before has left, and lets the server come to rest.
    async fn clear_target(&self) -> Result<(), Failure> {
        let mut conn = self.connect(&self.target).await?;
        for database in [DATABASE, "_dbmove"] {
            conn.query_drop(format!("DROP DATABASE IF EXISTS `{database}`")).await?;
        }
        if self.binlog {
            conn.query_drop("RESET BINARY LOGS AND GTIDS").await?;
        }
        conn.query_drop("SET GLOBAL innodb_max_dirty_pages_pct = 0").await?;
        for _ in 0..100 {
            let dirty: Option<(String, u64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").await?;
            if dirty.is_none_or(|(_, pages)| pages < 50) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        conn.query_drop("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT").await?;
        conn.disconnect().await?;
        Ok(())
    }

    /// Whether the target has every row, and as many indexes as the source.
    async fn check(&self) -> Result<(), Failure> {
        let (mut source, mut target) = (self.connect(&self.source).await?, self.connect(&self.target).await?);
        for (table, rows) in &self.rows {
            let count: Option<u64> = target.query_first(format!("SELECT COUNT(*) FROM `{DATABASE}`.`{table}`")).await?;
            if count != Some(*rows) {
                return Err(format!("`{table}` has {} rows on the target and not {rows}", count.unwrap_or(0)).into());
            }
        }
        let indexes = "SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'school'";
        let keys = "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = 'school'";
        for query in [indexes, keys] {
            let (here, there): (Option<u64>, Option<u64>) = (source.query_first(query).await?, target.query_first(query).await?);
            if here != there {
                return Err(format!("{there:?} and not {here:?}: {query}").into());
            }
        }
        Ok(())
    }

    fn table(&self, took: &[(Way, Vec<Took>)], bytes: u64, rows: u64, rounds: usize) -> String {
        let middle = |took: &[Took], what: fn(&Took) -> f64| median(&took.iter().map(what).collect::<Vec<_>>());
        let dump = took.iter().find(|(way, _)| *way == Way::Dump).map(|(_, took)| middle(took, |took| took.seconds));
        let loads = took.iter().flat_map(|(_, took)| took.iter().map(|took| took.load));
        let (least, most) = loads.fold((f64::MAX, 0.0_f64), |(least, most), load| (least.min(load), most.max(load)));
        let mut text = format!(
            "MySQL {} → {}, {rows} rows, {} MiB with indexes in {} tables, target's buffer pool {} MiB, its binary log {}, medians of {rounds} round(s).\n{}. Load average at the end of each copy: {least:.1} to {most:.1}.\n\n",
            self.source.version(),
            self.target.version(),
            bytes >> 20,
            self.rows.len(),
            setting::<u64>("DBMOVE_BENCH_BUFFER_MIB", 1024).unwrap_or_default(),
            if self.binlog { "on" } else { "off" },
            machine(),
        );
        text.push_str("| way | seconds (each round) | MiB/s | against `mysqldump \\| mysql` | processor seconds: source, target, tool | peak memory of the tool |\n| --- | --- | --- | --- | --- | --- |\n");
        for (way, took) in took {
            let seconds = middle(took, |took| took.seconds);
            let each: Vec<String> = took.iter().map(|took| format!("{:.1}", took.seconds)).collect();
            let ratio = dump.map_or("not measured".to_owned(), |dump| format!("{:.2} times as fast", dump / seconds));
            let peak = took.iter().map(|took| took.tool.peak_memory).max().unwrap_or(0) >> 20;
            text.push_str(&format!(
                "| {} | {seconds:.1} ({}) | {:.1} | {ratio} | {:.1}, {:.1}, {:.1} | {} |\n",
                way.title(),
                each.join(", "),
                bytes as f64 / (1 << 20) as f64 / seconds,
                middle(took, |took| took.source.processor),
                middle(took, |took| took.target.processor),
                middle(took, |took| took.tool.processor),
                if *way == Way::Files { "in the bench".to_owned() } else { format!("{peak} MiB") },
            ));
        }
        text
    }
}
