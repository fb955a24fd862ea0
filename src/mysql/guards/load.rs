//! The guards `mysql.threads_running` and `mysql.error_rate`: what a server counts.
//!
//! **Threads** are `Threads_running`: sessions that run a statement at the moment of the look, the guard's own one among them. A server that
//! answers slowly shows it here before anywhere else.
//!
//! **Errors** are connections that failed: `Aborted_clients` (ended without a good-bye), `Aborted_connects` (never got in), and since 5.6
//! `Connection_errors_%` (turned away before that), all counted up since the server started. The rate is what they grew by between two
//! looks, a second. dbmove's own kills are among them: from the cutover's first step that holds writes to the end of that stage the guard rests, and
//! counts anew behind it. A statement that failed is none of them: no server counts these for all clients alike.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Eye, WatchedSide};
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::engine::step::StepError;
use crate::mysql::store::MysqlStore;

/// What `mysql.threads_running` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThreadsArguments {
    /// More are too many.
    pub above: u32,
    /// Which server: `source` (default) or `target`.
    #[serde(default)]
    pub side: WatchedSide,
}

/// What `mysql.error_rate` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorArguments {
    /// More failed connections a second are too many.
    pub above: f64,
    /// Which server: `source` (default) or `target`.
    #[serde(default)]
    pub side: WatchedSide,
}

/// The guard `mysql.threads_running`.
pub struct ThreadsRunning {
    eye: Eye,
    arguments: ThreadsArguments,
}

/// The guard `mysql.error_rate`.
pub struct ErrorRate {
    eye: Eye,
    arguments: ErrorArguments,
    before: Mutex<Option<(Instant, u64)>>,
}

const THREADS: &str = "SHOW GLOBAL STATUS LIKE 'Threads_running'";
const ERRORS: &str =
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('Aborted_clients', 'Aborted_connects') OR Variable_name LIKE 'Connection\\_errors\\_%'";

/// The sum of the counters that a server showed; `None` if it showed none.
async fn count(eye: &Eye, query: &'static str) -> Result<u64, Unseen> {
    let rows = eye.rows(async |_| query.to_owned(), "reading what it counts").await?;
    let counted = |row: &crate::mysql::connect::TextRow| row.get(1).and_then(Option::as_deref).and_then(|value| value.parse::<u64>().ok());
    let counts: Option<Vec<u64>> = rows.iter().map(counted).collect();
    let counts = counts.filter(|counts| !counts.is_empty());
    counts.map(|counts| counts.iter().sum()).ok_or_else(|| Unseen(format!("the {} does not show what it counts", eye.server)))
}

impl ThreadsRunning {
    /// The name in a playbook.
    pub const NAME: &'static str = "mysql.threads_running";

    /// Of a store.
    #[must_use]
    pub fn new(store: &MysqlStore, arguments: ThreadsArguments) -> ThreadsRunning {
        ThreadsRunning { eye: Eye::on(arguments.side.server(store)), arguments }
    }
}

impl ErrorRate {
    /// The name in a playbook.
    pub const NAME: &'static str = "mysql.error_rate";

    /// Of a store.
    #[must_use]
    pub fn new(store: &Arc<MysqlStore>, arguments: ErrorArguments) -> ErrorRate {
        ErrorRate { eye: Eye::on(arguments.side.server(store)), arguments, before: Mutex::default() }
    }

    /// What a type can't say of the arguments.
    ///
    /// # Errors
    /// If the threshold is negative.
    pub fn check(arguments: &ErrorArguments) -> Result<(), StepError> {
        if arguments.above < 0.0 { Err(StepError::definite("`above` is negative, and no rate is")) } else { Ok(()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    fn judge(&self, now: Instant, errors: u64) -> Look {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).replace((now, errors));
        let side = self.arguments.side.word();
        let Some((then, counted)) = before else { return Look::Nothing("it was looked at once, and a rate needs two looks".to_owned()) };
        if errors < counted {
            return Look::Nothing(format!("the {side} counts anew: it was restarted, or its status flushed"));
        }
        let rate = (errors - counted) as f64 / now.duration_since(then).as_secs_f64().max(1.0);
        let found = format!("{rate:.1} connections a second fail on the {side}");
        if rate > self.arguments.above {
            Look::Fails(format!("{found}, and may be at most {}", self.arguments.above))
        } else {
            Look::Holds(found)
        }
    }
}

#[async_trait]
impl Guard for ThreadsRunning {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        format!("at most {} threads may run on the {}", self.arguments.above, self.arguments.side.word())
    }
    async fn look(&self, _sight: &Sight) -> Result<Look, Unseen> {
        let running = count(&self.eye, THREADS).await?;
        let found = format!("{running} threads run on the {}", self.arguments.side.word());
        let above = self.arguments.above;
        Ok(if running > u64::from(above) { Look::Fails(format!("{found}, and may be at most {above}")) } else { Look::Holds(found) })
    }
}

#[async_trait]
impl Guard for ErrorRate {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        format!("at most {} connections a second may fail on the {}", self.arguments.above, self.arguments.side.word())
    }
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen> {
        let errors = count(&self.eye, ERRORS).await?;
        // Asked behind the count: what is in it was closed before.
        if sight.closes_connections() {
            *self.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(Look::Nothing("it rests until the cutover is done: dbmove itself closes connections meanwhile".to_owned()));
        }
        Ok(self.judge(Instant::now(), errors))
    }
    fn remarks(&self) -> Vec<String> {
        vec!["rests from the first step that holds writes to the end of `cutover`: dbmove itself closes connections then".to_owned()]
    }
}
