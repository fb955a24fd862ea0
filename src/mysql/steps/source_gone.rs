//! An old server that dies right behind the switch doesn't keep the cutover from its end: clients are on the target, and nothing there needs the source.
//!
//! Before the switch a source that can't be reached is an error like any other, and the cutover is undone. Behind it the steps that would do
//! something on the source go without, once it could not be reached for [`PATIENCE`]; what that means is a finding (`source-gone`) and in the
//! journal. Whether it is the server that is gone or only the way to it can't be told from here: clients that are connected there may stay so
//! for as long, and `read_only` keeps them from writing. `mysql.reverse` closes them as soon as it reaches the source again, and goes on from there.

use std::time::{Duration, Instant};

use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::store::MysqlStore;

/// For how long a source is tried before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same once another step has found it so.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// Checkpoint of a store: whether a step went without the source behind the switch.
const GONE: &str = "source.gone";

/// A session on the source; `None` if it can't be reached behind the switch, which is noted then.
///
/// # Errors
/// If it can't be reached before the switch, or refuses us.
pub(super) async fn reach(context: &StepContext, store: &MysqlStore) -> Result<Option<Session>, StepError> {
    let patience = if is_noted(context, store)? { SHORT_PATIENCE } else { PATIENCE };
    let began = Instant::now();
    loop {
        let error = match Session::open(&store.source, Purpose::Read).await {
            Ok(session) => return Ok(Some(session)),
            Err(error) => error,
        };
        // One that answers with an error of its own is there.
        if !context.switched || error.code().is_some() || !error.transient() {
            return Err(error.into());
        }
        if began.elapsed() >= patience {
            note(context, store, &error.to_string())?;
            return Ok(None);
        }
        context.check_cancelled()?;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a step went without the source.
///
/// # Errors
/// If the journal can't be read.
pub(super) fn is_noted(context: &StepContext, store: &MysqlStore) -> Result<bool, StepError> {
    Ok(context.checkpoints.load(GONE, &store.name)?.is_some_and(|gone| gone == true))
}

fn note(context: &StepContext, store: &MysqlStore, why: &str) -> Result<(), StepError> {
    if is_noted(context, store)? {
        return Ok(());
    }
    let found =
        format!("clients were switched, and since then the {} could not be reached ({why}): no rollback while it is away", store.source);
    tracing::error!(store = %store.name, "{found}");
    let fix = "look whether that server runs. If only the way to it is broken, clients that are connected there were not closed: `read_only` keeps all but \
                accounts with SUPER from writing. Once it can be reached, `dbmove cutover PLAYBOOK` goes on with the way back. If it is gone for good, close the way back";
    find(context, store, "source-gone", &found, fix)?;
    context.checkpoints.save(GONE, &store.name, &serde_json::json!(true))
}

/// Notes that the source is there again, and what was done on it.
///
/// # Errors
/// If the journal can't be written.
pub(super) fn is_back(context: &StepContext, store: &MysqlStore, closed: u64) -> Result<(), StepError> {
    let found =
        format!("the {} could not be reached behind the switch, and is there again; {closed} connections were closed on it", store.source);
    tracing::warn!(store = %store.name, "{found}");
    find(context, store, "source-back", &found, "nothing: what clients write on the target is carried back to it")?;
    context.checkpoints.save(GONE, &store.name, &serde_json::Value::Null)
}

fn find(context: &StepContext, store: &MysqlStore, id: &str, found: &str, fix: &str) -> Result<(), StepError> {
    context.find(id, &serde_json::json!({ "level": "warning", "object": store.name, "found": found, "fix": fix }))
}
