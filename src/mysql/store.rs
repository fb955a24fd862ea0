//! One MySQL store of a run: both servers, and what its steps share.
//!
//! The steps of a store (`mysql.replicate`, `mysql.snapshot`, `mysql.verify` …) are objects of their own,
//! but they work on one migration: they share the catalog, the memories of the applier, and how far
//! it is. All of that is here, is made when first needed, and holds nothing that the target or the
//! journal does not hold too: after a crash it is made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::apply::applier::{Applied, ApplySettings};
use super::beside::Sources;
use super::bookkeeping;
use super::catalog::{Catalog, ServerFacts};
use super::connect::{Purpose, Server, Session};
use super::conversion::{Conversions, ConvertedTables};
use super::copies::{self, Copies, Evidence, Production};
use super::copy::copier::AfterRows;
use super::ddl::{TargetSchema, Wanted};
use super::definitions::{Beginnings, Definitions, Misfits};
use super::error::{MysqlError, Result};
use super::fence;
use super::names::{Selection, TableName};
use super::objects;
use super::position::Position;
use super::shared::Shared;
use super::status;
use super::tables::{TableId, Tables};
use super::touches::Mark;
use super::uses::Uses;
use crate::engine::certificate::fact;
use crate::engine::context::{Checkpoints, Outputs};
use crate::engine::step::{Epoch, Failure, StepError, TargetLease};
use crate::playbook::model::{AccountsOption, ObjectsOption, OnDdl, Template};

/// What a store's memory may take and how it works; the steps' arguments override single values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Keys that each memory (deleted, touched) holds at most, about 120 bytes each and the key.
    pub remembered_keys: usize,
    /// Bytes of row changes on their way from the source to the target.
    pub follow_memory: u64,
    /// How changes are applied.
    pub apply: ApplySettings,
    /// What becomes of views, routines, triggers and events.
    pub objects: ObjectsOption,
    /// What becomes of accounts.
    pub accounts: AccountsOption,
    /// References to the passwords that accounts get on the target, by `user@host`.
    pub passwords: BTreeMap<String, Template>,
    /// Which text is called by another character set on the target.
    pub conversions: Conversions,
    /// What to do when a table is altered while it is followed.
    pub on_ddl: OnDdl,
    /// What the playbook does with it.
    pub uses: Uses,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            remembered_keys: 300_000,
            follow_memory: 24 << 20,
            apply: ApplySettings::default(),
            objects: ObjectsOption::default(),
            accounts: AccountsOption::default(),
            passwords: BTreeMap::new(),
            conversions: Conversions::default(),
            on_ddl: OnDdl::default(),
            uses: Uses::default(),
        }
    }
}

/// What a server says of a table that is not there.
const NO_SUCH_TABLE: u16 = 1146;

/// How often a catalog is read again of which a table vanished meanwhile.
const READINGS: u32 = 10;

/// Between two readings.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// Reads a catalog, and again where a table was dropped or renamed meanwhile.
async fn read_whole<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    let mut vanished = 0;
    loop {
        match read().await {
            Err(error) if error.code() == Some(NO_SUCH_TABLE) && vanished < READINGS => {
                vanished += 1;
                tokio::time::sleep(READ_AGAIN).await;
            }
            whole => return whole,
        }
    }
}

/// What is read from the servers when a run starts, and again when definitions change.
#[derive(Clone)]
pub struct Described {
    /// The source's settings and our privileges there.
    pub source: ServerFacts,
    /// The target's.
    pub target: ServerFacts,
    /// What the source holds.
    pub catalog: Catalog,
    /// Tables whose text is converted.
    pub converted: ConvertedTables,
    /// What the target gets.
    pub schema: TargetSchema,
    /// What copier, applier and verifier share.
    pub shared: Arc<Shared>,
}

/// Whether the source is being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Following {
    /// No.
    Off,
    /// Since then (this process).
    On(Instant),
    /// It was ended on purpose. On the way forward everything up to the end of the source's log is applied then.
    Finished,
}

/// One store.
pub struct MysqlStore {
    /// Its name in the playbook.
    pub name: String,
    /// The source.
    pub source: Arc<Server>,
    /// The target.
    pub target: Arc<Server>,
    /// What moves.
    pub selection: Arc<Selection>,
    /// Limits.
    pub settings: StoreSettings,
    /// In a rehearsal: what it has to be kept away from.
    pub production: std::sync::OnceLock<Production>,
    /// The sources of the playbook's stores.
    pub beside: std::sync::OnceLock<Arc<Sources>>,
    copies: tokio::sync::OnceCell<(Copies, Evidence)>,
    described: tokio::sync::Mutex<Option<Arc<Described>>>,
    /// Who works by the definitions as they are described.
    pub definitions: Definitions,
    /// Tables that began anew and are not complete yet.
    pub again: watch::Sender<BTreeSet<TableName>>,
    /// The copier's turn: one at a time.
    pub copying: tokio::sync::Mutex<()>,
    /// How far the applier is.
    pub applied: watch::Sender<Applied>,
    /// Whether the source is being followed.
    pub following: watch::Sender<Following>,
    /// Cancelled when following has to end with everything applied.
    pub finish: Mutex<CancellationToken>,
    /// The mark of each keyless table's last event when it was found equal.
    pub keyless_verified: Mutex<BTreeMap<TableId, Mark>>,
    /// Every key touched since this position is marked, or was compared after its change.
    pub verified_floor: watch::Sender<Option<Position>>,
    /// Others that the target's process list has shown.
    pub foreign: super::foreign::Seen,
    /// Tables that began anew because rows in the log did not fit.
    pub misfits: Arc<Misfits>,
    /// The fence's sessions, while it stands.
    pub fence: tokio::sync::Mutex<Option<super::fence::Fence>>,
    /// The same store with its sides swapped, while `mysql.reverse` keeps the way back open.
    pub back: watch::Sender<Option<Arc<MysqlStore>>>,
}

impl MysqlStore {
    /// A store; nothing is connected yet.
    #[must_use]
    pub fn open(name: &str, source: Server, target: Server, selection: Selection, settings: StoreSettings) -> Arc<MysqlStore> {
        Self::new(name.to_owned(), (Arc::new(source), Arc::new(target)), Arc::new(selection), settings, None)
    }

    /// The store with its sides swapped: what it follows, and what it writes to, is described already. Its bookkeeping is on the
    /// server that it writes to, under a name of its own; its `fence` is that of the side it follows.
    #[must_use]
    pub fn swapped(&self, described: Described) -> Arc<MysqlStore> {
        // A table that is altered ends the way back.
        let apply = ApplySettings { marks: true, ..self.settings.apply.clone() };
        let settings = StoreSettings { on_ddl: OnDdl::Stop, apply, ..self.settings.clone() };
        let sides = (self.target.clone(), self.source.clone());
        Self::new(self.name_back(), sides, self.selection.clone(), settings, Some(Arc::new(described)))
    }

    fn new(
        name: String,
        (source, target): (Arc<Server>, Arc<Server>),
        selection: Arc<Selection>,
        settings: StoreSettings,
        described: Option<Arc<Described>>,
    ) -> Arc<MysqlStore> {
        Arc::new(MysqlStore {
            name,
            source,
            target,
            selection,
            settings,
            production: std::sync::OnceLock::new(),
            beside: std::sync::OnceLock::new(),
            copies: tokio::sync::OnceCell::new(),
            described: tokio::sync::Mutex::new(described),
            definitions: Definitions::default(),
            again: watch::Sender::default(),
            copying: tokio::sync::Mutex::default(),
            applied: watch::Sender::new(Applied::at(Position::new("", 0))),
            following: watch::Sender::new(Following::Off),
            finish: Mutex::default(),
            keyless_verified: Mutex::default(),
            verified_floor: watch::Sender::new(None),
            foreign: super::foreign::Seen::default(),
            misfits: Arc::default(),
            fence: tokio::sync::Mutex::new(None),
            back: watch::Sender::new(None),
        })
    }

    /// In a rehearsal: proves once that the servers are copies, see [`copies`]. To be called before anything is written to them.
    ///
    /// # Errors
    /// As [`copies::prove`].
    pub async fn prove_copies(&self, checkpoints: &Arc<dyn Checkpoints>) -> std::result::Result<Option<&Evidence>, StepError> {
        self.prove(checkpoints, true).await
    }

    /// The same in the middle of a rehearsal that another process began: clients of its own, as the canary, may be connected by then.
    ///
    /// # Errors
    /// As [`copies::prove`].
    pub async fn prove_copies_in_use(&self, checkpoints: &Arc<dyn Checkpoints>) -> std::result::Result<Option<&Evidence>, StepError> {
        self.prove(checkpoints, false).await
    }

    async fn prove(&self, checkpoints: &Arc<dyn Checkpoints>, alone: bool) -> std::result::Result<Option<&Evidence>, StepError> {
        match self.production.get() {
            Some(production) => self.proven(production, checkpoints, alone).await.map(|(_, evidence)| Some(evidence)),
            None => Ok(None),
        }
    }

    /// In a rehearsal: its servers, once they have proven to be copies.
    ///
    /// # Errors
    /// As [`copies::prove`].
    pub async fn copies(&self, checkpoints: &Arc<dyn Checkpoints>) -> std::result::Result<Option<&Copies>, StepError> {
        match self.production.get() {
            // Whether they are used by others was asked when the rehearsal began.
            Some(production) => self.proven(production, checkpoints, false).await.map(|(copies, _)| Some(copies)),
            None => Ok(None),
        }
    }

    async fn proven(
        &self,
        production: &Production,
        checkpoints: &Arc<dyn Checkpoints>,
        alone: bool,
    ) -> std::result::Result<&(Copies, Evidence), StepError> {
        production.sendings.keep_in(checkpoints)?;
        self.copies.get_or_try_init(|| copies::prove(self, production, alone)).await
    }

    /// What the way back is called in the bookkeeping on the source.
    #[must_use]
    pub fn name_back(&self) -> String {
        format!("{} (back)", self.name)
    }

    /// What the servers hold, read when first asked for.
    ///
    /// # Errors
    /// If a server can't be read, nothing matches `include`, or a table can't be carried.
    pub async fn described(&self) -> Result<Arc<Described>> {
        let mut described = self.described.lock().await;
        if let Some(described) = &*described {
            return Ok(described.clone());
        }
        let read = Arc::new(self.describe().await?);
        *described = Some(read.clone());
        Ok(read)
    }

    /// Puts what was read again in the place of what was read first; with nothing remembered of it but the notes.
    pub async fn install(&self, read: Arc<Described>, beginnings: Arc<Beginnings>) {
        let mut described = self.described.lock().await;
        let notes = described.as_ref().map(|before| before.shared.notes()).unwrap_or_default();
        let shared = Arc::new(Shared::begun(&read.shared, beginnings, self.settings.remembered_keys, notes));
        *described = Some(Arc::new(Described { shared, ..Described::clone(&read) }));
        // Its numbers are those of the tables before.
        self.keyless_verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Has the servers read anew when next asked for: the source was filled meanwhile.
    pub async fn forget_described(&self) {
        *self.described.lock().await = None;
    }

    /// Reads what the servers hold, now.
    ///
    /// # Errors
    /// As [`MysqlStore::described`].
    pub async fn describe(&self) -> Result<Described> {
        read_whole(|| self.describe_once()).await
    }

    /// What a certificate is held against, now: the source's schema and the versions of both servers.
    ///
    /// # Errors
    /// If a server can't be read.
    pub async fn facts_today(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        read_whole(|| self.facts_once()).await
    }

    async fn facts_once(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut source = Session::open(&self.source, Purpose::Catalog).await?;
        let mut target = Session::open(&self.target, Purpose::Catalog).await?;
        let versions = (ServerFacts::read(&mut source).await?.version, ServerFacts::read(&mut target).await?.version);
        let catalog = Catalog::read(&mut source, &self.selection).await?;
        source.close().await;
        target.close().await;
        Ok(BTreeMap::from([
            (fact::SCHEMA.to_owned(), catalog.fingerprint().into()),
            (fact::SCHEMA_PARTS.to_owned(), serde_json::json!(catalog.parts())),
            (fact::SOURCE_VERSION.to_owned(), versions.0.to_string().into()),
            (fact::TARGET_VERSION.to_owned(), versions.1.to_string().into()),
        ]))
    }

    async fn describe_once(&self) -> Result<Described> {
        let mut source = Session::open(&self.source, Purpose::Catalog).await?;
        let mut target = Session::open(&self.target, Purpose::Catalog).await?;
        let source_facts = ServerFacts::read(&mut source).await?;
        let target_facts = ServerFacts::read(&mut target).await?;
        let catalog = Catalog::read(&mut source, &self.selection).await?;
        if catalog.tables.is_empty() {
            return Err(MysqlError::Object {
                message: format!("the {} holds no table that `include` of store `{}` names", self.source, self.name),
                hint: "check database and table names in `include`, and that the account may see them (SELECT)".to_owned(),
            });
        }
        let converted = self.settings.conversions.apply(&catalog)?;
        let restricts = target_facts.variables.get("restrict_fk_on_non_standard_key").is_some_and(|value| value == "ON");
        let wanted = Wanted { target: &target_facts.version, standard_parents: restricts, converted: Some(&converted) };
        let mut schema = TargetSchema::read(&mut source, &catalog, wanted).await?;
        schema.not_carried.extend(objects::left_behind(&catalog, &self.selection, self.settings.objects));
        let all: Vec<_> = catalog.tables.values().cloned().collect();
        let tables = Arc::new(Tables::converted(&all, &converted, &target_facts.version)?);
        let shared = Arc::new(Shared::new(&self.name, self.selection.clone(), tables, self.settings.remembered_keys));
        source.close().await;
        target.close().await;
        Ok(Described { source: source_facts, target: target_facts, catalog, converted, schema, shared })
    }

    /// The statements that each table gets after its rows.
    #[must_use]
    pub fn after_rows(described: &Described) -> HashMap<TableId, AfterRows> {
        let tables = &described.shared.tables;
        let after = described.schema.tables.iter().filter_map(|ddl| {
            let id = tables.id(&ddl.name.database, &ddl.name.table)?;
            Some((id, AfterRows { indexes: ddl.indexes.clone(), foreign_keys: ddl.foreign_keys.clone() }))
        });
        after.collect()
    }

    /// Waits until the source is followed; `false` if it was ended on purpose.
    ///
    /// # Errors
    /// If nothing starts to follow within the time.
    pub async fn wait_following(&self, patience: Duration) -> Result<Option<Instant>> {
        let mut following = self.following.subscribe();
        let started = tokio::time::timeout(patience, following.wait_for(|state| *state != Following::Off)).await;
        match started {
            Ok(Ok(state)) => Ok(match &*state {
                Following::On(since) => Some(*since),
                Following::Off | Following::Finished => None,
            }),
            _ => Err(MysqlError::Object {
                message: format!("store `{}` is not being followed", self.name),
                hint: "put a `mysql.replicate` step before this one".to_owned(),
            }),
        }
    }

    /// After a failure of what works by the definitions: waits until everything that the source has logged by now is applied. If
    /// definitions were the reason, whoever waits is called off before that (see [`super::definitions`]); else it failed by itself.
    pub async fn failed_by_itself(&self, error: &StepError) {
        /// Following that does not get there in this time has troubles of its own.
        const PATIENCE: Duration = Duration::from_secs(600);
        if error.failure != Failure::Definite || !matches!(*self.following.borrow(), Following::On(_)) {
            return;
        }
        tracing::warn!(store = %self.name, %error, "failed; waiting whether the log tells of a definition that changed");
        let reached = async {
            let mut source = Session::open(&self.source, Purpose::Read).await?;
            let end = status::current_position(&mut source).await?;
            source.close().await;
            let mut applied = self.applied.subscribe();
            let mut following = self.following.subscribe();
            tokio::select! {
                reached = applied.wait_for(|applied| applied.position >= end) => drop(reached),
                ended = following.wait_for(|following| !matches!(following, Following::On(_))) => drop(ended),
            }
            Ok::<(), MysqlError>(())
        };
        // If the source can't be asked, the failure stands as it is.
        let _ = tokio::time::timeout(PATIENCE, reached).await;
    }

    /// The token that ends following with everything applied.
    #[must_use]
    pub fn finish_token(&self) -> CancellationToken {
        self.finish.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new token, for following once more.
    pub fn renew_finish_token(&self) -> CancellationToken {
        let mut finish = self.finish.lock().unwrap_or_else(PoisonError::into_inner);
        *finish = CancellationToken::new();
        finish.clone()
    }
}

#[async_trait]
impl TargetLease for MysqlStore {
    fn store(&self) -> &str {
        &self.name
    }

    /// Where dbmove's schema is not there yet, nothing is claimed: `mysql.prepare` makes it and claims it.
    async fn claim(
        &self,
        run: &str,
        epoch: Epoch,
        _outputs: &Arc<Outputs>,
        checkpoints: &Arc<dyn Checkpoints>,
    ) -> std::result::Result<(), StepError> {
        let mut session = Session::open(&self.target, Purpose::Catalog).await?;
        // A driver that died in a rollback may hold the target's writes still, and the claim is one.
        fence::end_holder(&mut session, &fence::name_in_rollback(run, &self.name)).await?;
        let held = bookkeeping::lease(&mut session, &self.name).await?;
        // One that this run holds was taken after the proof.
        if held.as_ref().is_none_or(|(holder, _)| holder != run) {
            self.prove_copies(checkpoints).await?;
        }
        if held.is_some() {
            bookkeeping::claim(&mut session, &self.name, run, epoch).await?;
        }
        session.close().await;
        Ok(())
    }

    /// Removes dbmove's own tables from the target: the run is over, and clients use the server now.
    async fn release(&self, run: &str, epoch: Epoch) -> std::result::Result<(), StepError> {
        let mut session = Session::open(&self.target, Purpose::Catalog).await?;
        if bookkeeping::lease(&mut session, &self.name).await?.is_some_and(|(holder, held)| holder == run && held == epoch) {
            // A playbook without `mysql.disconnect` has not enabled them yet.
            let enabled = objects::bring::enable_events(self, epoch).await?;
            enabled.lines.iter().for_each(|line| tracing::warn!("{line}"));
            bookkeeping::remove(&mut session, &self.name).await?;
        }
        session.close().await;
        Ok(())
    }
}
