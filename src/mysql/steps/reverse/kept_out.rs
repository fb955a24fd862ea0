//! Keeps clients out of the old source as long as the way back is open, also when that server was started again.
//!
//! `read_only`, and the event scheduler that is off, are settings of a running server, and old ones can't keep them. A source that is started again hours
//! after the switch takes the writes of whoever still has its address, and runs its events. Nobody is told: following reconnects, and what comes
//! back is written over theirs. So both settings are looked at before anything is written there by a driver, and every second from then on.
//!
//! Where one was not as it has to be, it is set again at once, and that is noted: as a finding, in the journal, and on every status line. A
//! start can't be told from somebody who turned it off, and what others wrote meanwhile is in no log that is followed. So every table is compared
//! as a whole then: what differs ends the way back, as every difference there does; and where nothing differs nothing of theirs is left.
//!
//! Whom `read_only` does not stop is looked after in [`privileged`](super::privileged).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::mysql::bookkeeping::{number, text};
use crate::mysql::connect::{Purpose, Session};
use crate::mysql::error::{MysqlError, Result as MysqlResult};
use crate::mysql::fence::{self, NOT_ALLOWED};
use crate::mysql::foreign::is_of_the_server;
use crate::mysql::store::MysqlStore;
use crate::telemetry::human;

/// Checkpoint of a store: that clients could write on the source behind the switch, see [`LetIn`].
const LET_IN: &str = "reverse.let_in";

/// How long `read_only` may take to be set: whoever runs a statement there is waited for.
const SETTING: Duration = Duration::from_secs(10);

/// That clients could write on the source while the way back was open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LetIn {
    /// What was found.
    pub found: String,
    /// Whether every table was compared since, and nothing differed.
    pub compared: bool,
}

impl LetIn {
    /// What the journal has, if anything.
    pub fn load(context: &StepContext, store: &MysqlStore) -> Result<Option<LetIn>, StepError> {
        match context.checkpoints.load(LET_IN, &store.name)? {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| StepError::definite(format!("the checkpoint `{LET_IN}` of `{}` can't be read: {error}", store.name))),
        }
    }

    fn save(&self, context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
        context.checkpoints.save(LET_IN, &store.name, &serde_json::json!(self))
    }

    /// For a status line.
    pub fn line(&self) -> String {
        let compared = if self.compared {
            "every table was compared since, and nothing differs"
        } else {
            "until every table is compared, a rollback may keep what others wrote there, or may have written over it"
        };
        format!("{}; {compared}", self.found)
    }
}

/// Forgets it: the way back is gone.
pub(super) fn forget(context: &StepContext, store: &MysqlStore) -> Result<(), StepError> {
    context.checkpoints.save(LET_IN, &store.name, &serde_json::Value::Null)
}

/// Notes that everything was compared behind what was found, unless more was found meanwhile.
pub(super) fn compared(context: &StepContext, store: &MysqlStore, before: &LetIn) -> Result<(), StepError> {
    match LetIn::load(context, store)? {
        Some(now) if now == *before => LetIn { compared: true, ..now }.save(context, store),
        _ => Ok(()),
    }
}

/// Looks whether clients are kept out of the source, keeps them out again if not, and notes that. `since`: the last look at which they were.
///
/// # Errors
/// If the source can't be reached or refuses it, or the journal can't be written.
pub(in crate::mysql::steps) async fn look(
    context: &StepContext,
    store: &MysqlStore,
    session: &mut Session,
    since: Option<Timestamp>,
) -> MysqlResult<()> {
    let mut off = Vec::new();
    if !fence::read_only(session).await? {
        set_read_only(store).await?;
        off.push("`read_only` was off");
    }
    if fence::event_scheduler(session).await? {
        match fence::set_event_scheduler(&store.source, false).await {
            Ok(()) => off.push("`event_scheduler` was on"),
            // The fence has said so: it never was off.
            Err(error) if error.code() == Some(NOT_ALLOWED) => {}
            Err(error) => return Err(error),
        }
    }
    if off.is_empty() {
        return Ok(());
    }
    let found = format!(
        "the {} let clients write {}: {}, and is set again. It has been running for {}. {}",
        store.source,
        since.map_or_else(|| "while no driver looked".to_owned(), |since| format!("after {since:.0}")),
        off.join(", "),
        human::duration(uptime(session).await?),
        connected(session).await?,
    );
    let fix = "what others wrote there meanwhile is not on the target; look for it in that server's own log. Put `read_only = 1` and `event_scheduler = OFF` into its configuration file, so that it starts with them, and find out who still has its address";
    Ok(let_in(context, store, found, fix)?)
}

/// Notes that others wrote there, or may have: every table is compared as a whole from here on. What was found before and is not compared yet
/// stays beside it.
///
/// # Errors
/// If the journal can't be written.
pub(super) fn let_in(context: &StepContext, store: &MysqlStore, found: String, fix: &str) -> Result<(), StepError> {
    /// Somebody who writes all the time must not fill the journal.
    const LONGEST: usize = 1000;
    tracing::error!(store = %store.name, "{found}");
    let found = match LetIn::load(context, store)?.filter(|before| !before.compared) {
        Some(before) if before.found.len() > LONGEST => before.found,
        Some(before) => format!("{}; {found}", before.found),
        None => found,
    };
    let finding = serde_json::json!({ "level": "warning", "object": store.name, "found": found, "fix": fix });
    context.find("source-let-clients-in", &finding)?;
    LetIn { found, compared: false }.save(context, store)
}

/// On a session of its own, since it may have to be given up in the middle of the statement.
async fn set_read_only(store: &MysqlStore) -> MysqlResult<()> {
    let mut session = Session::open(&store.source, Purpose::Read).await?;
    match tokio::time::timeout(SETTING, fence::set_read_only(&mut session, true)).await {
        Ok(set) => set?,
        Err(_) => {
            return Err(MysqlError::Object {
                message: format!(
                    "the {} takes writes of clients, and `read_only` could not be set there within {} s",
                    store.source,
                    SETTING.as_secs()
                ),
                hint: "look at `SHOW PROCESSLIST` there for the statement that is waited for; `SET GLOBAL read_only = 1`".to_owned(),
            });
        }
    }
    session.close().await;
    Ok(())
}

async fn uptime(session: &mut Session) -> MysqlResult<Duration> {
    let row = session.first("SHOW GLOBAL STATUS LIKE 'Uptime'", "reading how long the source has been running").await?;
    Ok(Duration::from_secs(row.map(|row| number(&row, 1)).unwrap_or_default()))
}

/// Who is connected there now: most likely who wrote.
async fn connected(session: &mut Session) -> MysqlResult<String> {
    let ours = session.server().user.clone();
    let rows = session.rows("SHOW PROCESSLIST", "looking who is connected to the source").await?;
    let users: std::collections::BTreeSet<String> =
        rows.iter().map(|row| text(row, 1)).filter(|user| *user != ours && !is_of_the_server(user)).collect();
    if users.is_empty() {
        return Ok("Nobody else is connected there now".to_owned());
    }
    let users: Vec<String> = users.into_iter().map(|user| format!("`{user}`")).collect();
    Ok(format!("Connected there now: {}", users.join(", ")))
}
