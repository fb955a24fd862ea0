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
use crate::mysql::store::MysqlStore;
use crate::mysql::upstream::{self, Channel};
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

impl Replication {
    /// The name in a playbook.
    pub const NAME: &'static str = "mysql.replication";

    /// Of a store.
    #[must_use]
    pub fn new(store: &MysqlStore, arguments: ReplicationArguments) -> Replication {
        Replication { eye: Eye::on(arguments.side.server(store)), arguments }
    }

    fn judge(&self, channels: &[Channel]) -> Look {
        let side = self.arguments.side.word();
        if channels.is_empty() {
            return Look::Fails(format!("the {side} replicates from nobody"));
        }
        let mut most = 0;
        for channel in channels {
            let from = &channel.from;
            for (runs, thread, error) in
                [(channel.reads, "reading", &channel.read_error), (channel.applies, "applying", &channel.apply_error)]
            {
                if !runs {
                    let why = if error.is_empty() { String::new() } else { format!(": {error}") };
                    return Look::Fails(format!("the {side} has stopped {thread} what `{from}` logs{why}"));
                }
            }
            match (channel.seconds_behind, self.arguments.above) {
                (Some(behind), Some(above)) if behind > above.0.as_secs() => {
                    return Look::Fails(format!("the {side} is {behind} s behind `{from}`, and may be at most {above}"));
                }
                (None, Some(_)) => return Look::Fails(format!("the {side} does not know how far it is behind `{from}`")),
                (Some(behind), _) => most = most.max(behind),
                (None, None) => {}
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
        Ok(self.judge(&self.eye.look(upstream::channels).await?))
    }
}
