//! The guard `mysql.replication`: whether a server that is a replica itself replicates.
//!
//! A source is often a replica of the old primary, and dbmove moves what the replica has: while it stands still, following has no lag and
//! is wrong all the same. Both threads have to run, on every channel; a server that replicates from nobody does not hold the condition, as
//! whoever wrote the guard thought that it does.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Eye, WatchedSide};
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::mysql::connect::{Session, TextRow};
use crate::mysql::store::MysqlStore;
use crate::playbook::quantity::HumanDuration;

/// What `mysql.replication` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicationArguments {
    /// To be further behind its own source is too far (`Seconds_Behind_Master`). Default: only whether it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<HumanDuration>,
    /// Which server: `source` (default) or `target`.
    #[serde(default)]
    pub side: WatchedSide,
}

/// The guard `mysql.replication`.
pub struct Replication {
    eye: Eye,
    arguments: ReplicationArguments,
}

// The places of these columns have been the same since 5.1, on MariaDB too, and kept when 8.0.22 renamed them.
const FROM: usize = 1;
const IO_RUNS: usize = 10;
const SQL_RUNS: usize = 11;
const SECONDS_BEHIND: usize = 32;
const IO_ERROR: usize = 35;
const SQL_ERROR: usize = 37;

impl Replication {
    /// The name in a playbook.
    pub const NAME: &'static str = "mysql.replication";

    /// Of a store.
    #[must_use]
    pub fn new(store: &MysqlStore, arguments: ReplicationArguments) -> Replication {
        Replication { eye: Eye::on(arguments.side.server(store)), arguments }
    }

    fn judge(&self, channels: &[TextRow]) -> Look {
        let side = self.arguments.side.word();
        if channels.is_empty() {
            return Look::Fails(format!("the {side} replicates from nobody"));
        }
        let mut most = 0;
        for channel in channels {
            let text = |at: usize| channel.get(at).and_then(Option::as_deref).unwrap_or_default();
            let from = text(FROM);
            for (runs, thread, error) in [(IO_RUNS, "reading", IO_ERROR), (SQL_RUNS, "applying", SQL_ERROR)] {
                if text(runs) != "Yes" {
                    let why = if text(error).is_empty() { String::new() } else { format!(": {}", text(error)) };
                    return Look::Fails(format!("the {side} has stopped {thread} what `{from}` logs{why}"));
                }
            }
            match (text(SECONDS_BEHIND).parse::<u64>(), self.arguments.above) {
                (Ok(behind), Some(above)) if behind > above.0.as_secs() => {
                    return Look::Fails(format!("the {side} is {behind} s behind `{from}`, and may be at most {above}"));
                }
                (Err(_), Some(_)) => return Look::Fails(format!("the {side} does not know how far it is behind `{from}`")),
                (Ok(behind), _) => most = most.max(behind),
                (Err(_), None) => {}
            }
        }
        Look::Holds(format!("the {side} replicates, {most} s behind"))
    }
}

#[async_trait]
impl Guard for Replication {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        let behind = self.arguments.above.map(|above| format!(", at most {above} behind")).unwrap_or_default();
        format!("the {} has to replicate{behind}", self.arguments.side.word())
    }
    async fn look(&self, _sight: &Sight) -> Result<Look, Unseen> {
        let query = async |session: &Session| {
            let renamed = session.version.mysql_from((8, 0, 22));
            if renamed { "SHOW REPLICA STATUS".to_owned() } else { "SHOW SLAVE STATUS".to_owned() }
        };
        Ok(self.judge(&self.eye.rows(query, "asking whether it replicates").await?))
    }
}
