//! The guard `mysql.lag`: how far following is behind the source.
//!
//! The source's clock can't tell: after an idle hour the newest change that was applied is an hour old, and nothing is behind. So it is counted
//! by positions: each look remembers where the source's log ended, and following is as far behind as the oldest end that it has not reached
//! yet. That is never more than the truth, and less by at most the time between two looks; what was behind already when the guard first
//! looked counts from then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Eye;
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::mysql::connect::Session;
use crate::mysql::position::Position;
use crate::mysql::status;
use crate::mysql::store::{Following, MysqlStore};
use crate::playbook::quantity::HumanDuration;

/// What `mysql.lag` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LagArguments {
    /// To be further behind is too far: `30s`.
    pub above: HumanDuration,
}

/// The guard `mysql.lag`.
pub struct Lag {
    store: Arc<MysqlStore>,
    above: Duration,
    eye: Eye,
    ends: Mutex<Ends>,
}

/// Ends of the source's log that are not reached yet, oldest first.
#[derive(Default)]
struct Ends(VecDeque<(Instant, Position)>);

/// Ends that are remembered at most.
const MOST_ENDS: usize = 4096;

impl Ends {
    /// How far behind somebody is who has reached `applied` when the log ends at `end`.
    fn behind(&mut self, now: Instant, applied: &Position, end: Position) -> Duration {
        let newer = self.0.back().is_none_or(|(_, last)| *last < end);
        if newer && self.0.len() < MOST_ENDS {
            self.0.push_back((now, end));
        }
        while self.0.front().is_some_and(|(_, end)| end <= applied) {
            self.0.pop_front();
        }
        self.0.front().map_or(Duration::ZERO, |(since, _)| now.duration_since(*since))
    }
}

impl Lag {
    /// The name in a playbook.
    pub const NAME: &'static str = "mysql.lag";

    /// Of a store.
    #[must_use]
    pub fn new(store: Arc<MysqlStore>, arguments: &LagArguments) -> Lag {
        Lag { eye: Eye::on(store.source.clone()), above: arguments.above.0, store, ends: Mutex::default() }
    }
}

#[async_trait]
impl Guard for Lag {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        format!("following may be at most {} behind", HumanDuration(self.above))
    }
    async fn look(&self, _sight: &Sight) -> Result<Look, Unseen> {
        let following = self.store.following.borrow().clone();
        match following {
            Following::Off => return Ok(Look::Nothing("the source is not followed yet".to_owned())),
            Following::Finished => return Ok(Look::Nothing("following has ended for the switch".to_owned())),
            Following::On(_) => {}
        }
        let end = self.eye.look(async |session: &mut Session| status::current_position(session).await).await?;
        // After the end was read: what is applied by now is not behind it.
        let applied = self.store.applied.borrow().position.clone();
        let behind = self.ends.lock().unwrap_or_else(PoisonError::into_inner).behind(Instant::now(), &applied, end);
        let shown = HumanDuration(Duration::from_secs(behind.as_secs()));
        let found = format!("following is {shown} behind");
        Ok(if behind > self.above {
            Look::Fails(format!("{found}, and may be at most {}", HumanDuration(self.above)))
        } else {
            Look::Holds(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_the_oldest_end_not_reached() {
        let began = Instant::now();
        let at = |offset| Position::new("log.000001", offset);
        let mut ends = Ends::default();
        let mut behind = |second, applied, end| ends.behind(began + Duration::from_secs(second), &at(applied), at(end)).as_secs();
        assert_eq!(behind(0, 100, 100), 0);
        // An idle hour, then a change: nothing was behind meanwhile.
        assert_eq!(behind(3600, 100, 200), 0);
        assert_eq!(behind(3605, 100, 300), 5);
        assert_eq!(behind(3610, 200, 400), 5);
        assert_eq!(behind(3615, 250, 400), 10);
        assert_eq!(behind(3620, 400, 400), 0);
    }
}
