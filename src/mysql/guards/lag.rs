//! The guard `mysql.lag`: how far following is behind the source, by positions ([`crate::mysql::behind`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Eye;
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::mysql::behind::Ends;
use crate::mysql::connect::Session;
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
