//! Whether clients could write on the target: asked before anybody is held, and once more right before the switch.
//!
//! Nothing that dbmove does there shows it: its account may write though the server is `read_only` (SUPER, `CONNECTION_ADMIN`). Behind the switch every
//! client would get an error from both servers.

use super::reverse::rollback;
use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::mysql::bookkeeping::text;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::store::MysqlStore;

/// What refuses the writes of clients. (An Aurora reader has `innodb_read_only`; with the last two, sessions begin read-only.)
const REFUSING: [&str; 5] = ["read_only", "super_read_only", "innodb_read_only", "tx_read_only", "transaction_read_only"];

/// What a rollback leaves set on the target of a run, and the way back takes off when it is opened again.
const LEFT_BY_ROLLBACK: [&str; 2] = ["read_only", "super_read_only"];

/// Refuses a target that would not take clients' writes. `so_far` says what is left as it was.
///
/// # Errors
/// If it would not; or if it can't be asked.
pub(super) async fn refuse_if_not(context: &StepContext, store: &MysqlStore, so_far: &str) -> Result<(), StepError> {
    let mut target = Session::open(&store.target, Purpose::Read).await?;
    let rows = target.rows("SHOW GLOBAL VARIABLES LIKE '%read\\_only'", "looking whether the target takes writes").await?;
    target.close().await;
    let ours = rollback::left_read_only(context, store)?;
    let set: Vec<String> = rows
        .iter()
        // MariaDB from 11.8 on has levels; each refuses an ordinary account.
        .filter(|row| !matches!(text(row, 1).to_ascii_uppercase().as_str(), "OFF" | "0"))
        .map(|row| text(row, 0))
        .filter(|name| REFUSING.contains(&name.as_str()) && !(ours && LEFT_BY_ROLLBACK.contains(&name.as_str())))
        .map(|name| format!("`{name}`"))
        .collect();
    if set.is_empty() {
        return Ok(());
    }
    Err(StepError::definite(format!("the {} does not take the writes of clients: {} is on. {so_far}", store.target, set.join(", ")))
        .hint("turn it off there, or move to the server that writes (not an Aurora reader's address); then give the same command again"))
}
