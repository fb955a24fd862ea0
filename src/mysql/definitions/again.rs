//! Copies the tables that began anew, when `mysql.snapshot` does not.
//!
//! That step copies everything there is, and what begins anew while it runs is copied by it. Behind it nobody would. So `mysql.replicate`
//! looks after it: it takes the copier's turn ([`MysqlStore::copying`]), and copies what is not complete by then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::records;
use crate::engine::steering::Steering;
use crate::engine::step::Epoch;
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::copy::CopySettings;
use crate::mysql::copy::copier::Copier;
use crate::mysql::copy::progress::CopyProgress;
use crate::mysql::error::Result;
use crate::mysql::names::TableName;
use crate::mysql::store::MysqlStore;
use crate::mysql::tables::TableId;
use crate::mysql::verification::Verifier;

/// Copies what began anew and is not complete; the tables it copied. Give it up with the definitions it works by.
///
/// # Errors
/// As the servers give them. What is in stays in; running it again goes on from there.
pub async fn copy(
    store: &Arc<MysqlStore>,
    epoch: Epoch,
    settings: CopySettings,
    steering: Steering,
    cancel: &CancellationToken,
) -> Result<Vec<TableName>> {
    let steady = store.definitions.steady().await;
    let _turn = store.copying.lock().await;
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let names = records::incomplete(&mut session, &store.name).await?;
    session.close().await;
    let described = store.described().await?;
    let tables = &described.shared.tables;
    let only: BTreeSet<TableId> = names.iter().filter_map(|name| tables.id(&name.database, &name.table)).collect();
    if !only.is_empty() {
        let copier = Copier {
            shared: described.shared.clone(),
            source: store.source.clone(),
            target: store.target.clone(),
            epoch,
            settings,
            after_rows: Arc::new(MysqlStore::after_rows(&described)),
            mender: Verifier::mender(store).await?,
            only: Some(Arc::new(only.clone())),
            applied: store.applied.subscribe(),
            steering,
            progress: Arc::new(CopyProgress::default()),
            guard: steady.guard.clone(),
        };
        copier.run(Instant::now(), cancel).await?;
        for name in &names {
            described.shared.note(format!("`{name}` is copied again"));
        }
    }
    Ok(names)
}
