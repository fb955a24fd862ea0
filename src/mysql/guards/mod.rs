//! Guards of a MySQL store. What follows when one fires is the engine's: see [`engine::guards`](crate::engine::guards).
//!
//! | file | what is watched |
//! | --- | --- |
//! | [`lag`] | `mysql.lag`: how far following is behind the source |
//! | [`replication`] | `mysql.replication`: whether a server that is a replica itself replicates |
//! | [`load`] | `mysql.threads_running` and `mysql.error_rate`: what a server counts |
//!
//! Each has one session of its own, opened when it first looks and again after it broke. A server that can't be asked is unseen, never
//! quiet.

pub mod lag;
pub mod load;
pub mod replication;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::connect::{Purpose, Server, Session, TextRow};
use super::error::MysqlError;
use super::store::MysqlStore;
use crate::engine::guards::Unseen;

/// Which server of a store is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchedSide {
    /// Where the data lives now.
    #[default]
    Source,
    /// Where it goes.
    Target,
}

impl WatchedSide {
    fn server(self, store: &MysqlStore) -> Arc<Server> {
        match self {
            WatchedSide::Source => store.source.clone(),
            WatchedSide::Target => store.target.clone(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            WatchedSide::Source => "source",
            WatchedSide::Target => "target",
        }
    }
}

/// A session for looking, kept from look to look.
struct Eye {
    server: Arc<Server>,
    session: Mutex<Option<Session>>,
}

impl Eye {
    fn on(server: Arc<Server>) -> Eye {
        Eye { server, session: Mutex::new(None) }
    }

    /// Looks with the session there is, or a new one. One that failed, or whose look was dropped, is not used again.
    async fn look<T>(&self, look: impl AsyncFnOnce(&mut Session) -> Result<T, MysqlError>) -> Result<T, Unseen> {
        let mut kept = self.session.lock().await;
        let looked = async {
            let mut session = match kept.take() {
                Some(session) => session,
                None => Session::open(&self.server, Purpose::Catalog).await?,
            };
            let found = look(&mut session).await?;
            Ok::<_, MysqlError>((session, found))
        };
        let (session, found) = looked.await.map_err(|error| Unseen(error.to_string()))?;
        *kept = Some(session);
        Ok(found)
    }

    async fn rows(&self, query: impl AsyncFnOnce(&Session) -> String, what: &str) -> Result<Vec<TextRow>, Unseen> {
        self.look(async |session: &mut Session| {
            let query = query(session).await;
            session.rows(&query, what).await
        })
        .await
    }
}
