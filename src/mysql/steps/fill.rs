//! `mysql.fill`: fills a rehearsal's source with a copy of production; its undo removes it. How, and what must hold, is told in
//! [`fill`](crate::mysql::fill).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::{Meter, STOP_GRACE, from_rate, rows_progress, shown};
use crate::engine::certificate::fact;
use crate::engine::context::StepContext;
use crate::engine::crash;
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, Undoable, Work};
use crate::mysql::bookkeeping;
use crate::mysql::connect::{Purpose, Server, Session};
use crate::mysql::copies::Copies;
use crate::mysql::fill::{self, Fill, FillProgress, Filled, From, origin, standing};
use crate::mysql::store::MysqlStore;
use crate::playbook::model::AccountsOption;
use crate::playbook::quantity::HumanSize;

/// The step.
pub struct FillCopy {
    /// The store.
    pub store: Arc<MysqlStore>,
}

impl FillCopy {
    /// What it is called; no playbook says it.
    pub const NAME: &str = "mysql.fill";

    fn asked(&self) -> Result<&From, StepError> {
        let copy = self.store.production.get().and_then(|production| production.copy.as_ref());
        copy.ok_or_else(|| {
            StepError::definite(format!("store `{}` is not asked to be filled: this is no rehearsal of it", self.store.name))
        })
    }

    /// Production, where what is sent is counted.
    fn from(&self, context: &StepContext) -> Result<Arc<Server>, StepError> {
        let server = self.asked()?.server.as_ref().ok_or_else(|| {
            StepError::definite(format!("the server that the copy of `{}` is made from can't be known here", self.store.name))
                .hint("name one that can be reached from here, with a password that is there, in `rehearsal: { copy: { from: … } }`")
        })?;
        let sendings = self.store.production.get().map(|production| production.sendings.clone());
        sendings.iter().try_for_each(|sendings| sendings.keep_in(&context.checkpoints))?;
        Ok(Arc::new(Server { watched: sendings, ..Server::clone(server) }))
    }

    async fn copies(&self, context: &StepContext) -> Result<Copies, StepError> {
        let not =
            || StepError::definite(format!("the servers of `{}` have not proven to be copies, and are not written to", self.store.name));
        self.store.copies(&context.checkpoints).await?.cloned().ok_or_else(not)
    }

    async fn fill(&self, context: &StepContext) -> Result<Output, StepError> {
        let rate = self.asked()?.rate;
        let (from, copies) = (self.from(context)?, self.copies(context).await?);
        let (progress, meter) = (FillProgress::default(), Meter::default());
        let fill = Fill {
            store: &self.store.name,
            from: &from,
            copies: &copies,
            selection: &self.store.selection,
            context,
            rate,
            progress: &progress,
        };
        let show = || {
            let (rows, expected) = (progress.rows.load(Ordering::Relaxed), progress.expected.load(Ordering::Relaxed));
            let held = context.steering.held_back().unwrap_or_else(|| format!("at most {rate} from production"));
            rows_progress(rows, expected, &meter, progress.note(), Some(held))
        };
        let filled = shown(context, show, fill.run()).await?;
        let output = self.output(&filled, &from);
        context.save_output(&output)?;
        let mut session = Session::open(copies.source(), Purpose::Catalog).await?;
        standing::note_all(&mut session, &fill::name_of(&self.store.name), context.epoch).await?;
        session.close().await;
        crash::point("fill.noted");
        // What stands there now was not there when others looked.
        self.store.forget_described().await;
        Ok(output)
    }

    fn output(&self, filled: &Filled, from: &Server) -> Output {
        let rows: u64 = filled.tables.values().map(|whole| whole.rows).sum();
        let bytes: u64 = filled.tables.values().map(|whole| whole.bytes).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let reached = filled.bytes_read as f64 / filled.seconds.max(0.001);
        let rate = self.asked().map_or(fill::DEFAULT_RATE, |asked| asked.rate);
        let mut not_as_there = filled.not_as_there.clone();
        if self.store.settings.accounts == AccountsOption::Move {
            not_as_there
                .push("accounts are not copied: those of the rehearsal's source are what `accounts: move` is rehearsed with".to_owned());
        }
        Output {
            work: Some(Work { unit: "rows".to_owned(), amount: rows, seconds: filled.seconds }),
            ..Output::default()
                .fact(fact::COPIED_FROM, from.to_string())
                .fact("copied_tables", serde_json::json!(filled.tables))
                .fact("copied_rows", rows)
                .fact("copied_bytes", bytes)
                .fact("copied_seconds", filled.seconds)
                .fact("databases", serde_json::json!(filled.databases))
                .fact("rate_asked", rate.to_string())
                .fact("rate_reached", format!("{}/s", HumanSize(reached as u64)))
                .fact("from_before", filled.from_before)
                .fact("position", serde_json::json!(filled.position))
                .fact("without_snapshot", serde_json::json!(filled.without_snapshot))
                .fact("not_as_on_production", serde_json::json!(not_as_there))
        }
    }

    /// What a person should know of it.
    fn say(context: &StepContext, output: &Output) -> Result<(), StepError> {
        let lines = |name: &str| -> Vec<String> {
            let list = output.facts.get(name).and_then(serde_json::Value::as_array);
            list.into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)).collect()
        };
        let without = lines("without_snapshot");
        if !without.is_empty() {
            let finding = serde_json::json!({
                "level": "warn",
                "object": "copy",
                "found": format!("{} are in the copy as they were when each was read, and not of one moment: their engine has no snapshots", shortened(&without)),
                "fix": "copy from a replica that stands still (`STOP SLAVE SQL_THREAD` there) if that matters",
            });
            context.find("copy-without-snapshot", &finding)?;
        }
        let others = lines("not_as_on_production");
        if !others.is_empty() {
            let finding = serde_json::json!({
                "level": "warn",
                "object": "copy",
                "found": format!("not as on production, so not rehearsed: {}", others.join("; ")),
                "fix": "what is missing on the rehearsal's source can be put there before the rehearsal; else look at it on the night itself",
            });
            context.find("copy-differs", &finding)?;
        }
        Ok(())
    }
}

/// Tables, and how many more.
fn shortened(tables: &[String]) -> String {
    const NAMED: usize = 5;
    let named = tables.iter().take(NAMED).map(|table| format!("`{table}`")).collect::<Vec<_>>().join(", ");
    match tables.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[async_trait]
impl Step for FillCopy {
    fn name(&self) -> &'static str {
        FillCopy::NAME
    }
    fn stops_within(&self) -> Duration {
        STOP_GRACE
    }
    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }
    fn undo_does(&self) -> String {
        format!(
            "drop on the {} the databases that this run created there, with all that is in them, and its part of `_dbmove`",
            self.store.source
        )
    }
    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let rate = self.asked()?.rate;
        let from = self.from(context)?;
        let catalog = origin::describe(&from, &self.store.selection).await?;
        let mut lines = vec![format!(
            "copy {} tables, about {}, from the {from} to the {}, at most {rate}; read only, in one snapshot, no table locked",
            catalog.tables.len(),
            size(catalog.data_bytes()),
            self.store.source
        )];
        lines.extend(catalog.databases.iter().map(|database| format!("create database `{}`", database.name)));
        lines.push("compare each table with what was read; drop it all when the rehearsal is over".to_owned());
        let mut warnings = Vec::new();
        let (snapshot, without): (Vec<_>, Vec<_>) = catalog.tables.values().partition(|table| origin::in_snapshot(&table.engine));
        if !without.is_empty() {
            let names: Vec<String> = without.iter().map(|table| table.name.to_string()).collect();
            warnings.push(format!(
                "{} have no snapshot: they are copied as they are, and locked while one page of them is read",
                shortened(&names)
            ));
        }
        if !snapshot.is_empty() {
            let seconds = Duration::from_secs(catalog.data_bytes() / rate.0.max(1));
            warnings.push(format!(
                "one snapshot is open there for about {}, and the server keeps old rows for it as long: best on a replica",
                crate::playbook::quantity::HumanDuration(seconds)
            ));
        }
        Ok(Plan { lines, warnings })
    }
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        let rate = self.asked()?.rate;
        let catalog = origin::describe(&self.from(context)?, &self.store.selection).await?;
        let rows = catalog.tables.values().fold(0_u64, |sum, table| sum.saturating_add(table.row_estimate));
        #[expect(clippy::cast_precision_loss, reason = "a forecast needs no 53 bits")]
        let at_rate = Duration::try_from_secs_f64(catalog.data_bytes() as f64 / rate.0.max(1) as f64).unwrap_or(Duration::MAX);
        Ok(match from_rate(context, "rows", rows) {
            measured @ Estimate::Expected { duration, .. } if duration >= at_rate => measured,
            _ => Estimate::Expected { duration: at_rate, basis: format!("{} at {rate}, as asked for", size(catalog.data_bytes())) },
        })
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        let output = self.fill(context).await?;
        Self::say(context, &output)?;
        Ok(output)
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let mut session = Session::open(&self.store.source, Purpose::Catalog).await?;
        let name = fill::name_of(&self.store.name);
        let found = match bookkeeping::lease(&mut session, &name).await? {
            None => Probe::NotStarted,
            Some((run, _)) if *run != *context.run => {
                Probe::Foreign { found: format!("run `{run}` has made a copy on the {}", self.store.source) }
            }
            Some(_) if standing::is_all(&mut session, &name).await? => Probe::Done,
            Some(_) => Probe::Partly { from: "tables that are whole stay, others are copied anew".to_owned() },
        };
        session.close().await;
        Ok(found)
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        self.store.prove_copies_in_use(&context.checkpoints).await?;
        let dropped = fill::removal::remove(&self.copies(context).await?, &self.store.name, context).await?;
        tracing::info!(databases = ?dropped, "removed the copy from the rehearsal's source");
        Ok(())
    }
}

/// Bytes for people: whole MiB, where there are some.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB { format!("{} MiB", bytes / MIB) } else { format!("{} KiB", bytes.div_ceil(1 << 10)) }
}
