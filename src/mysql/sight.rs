//! Whether our account sees who else is connected to a server.
//!
//! Without PROCESS a process list holds our own sessions alone, and does not say so: a server full of clients looks like one that nobody uses. So
//! whoever concludes something from who is *not* in it asks here first.

use std::sync::Arc;

use super::catalog::facts::Privileges;
use super::connect::{Purpose, Server, Session};
use super::error::{MysqlError, Result};
use crate::engine::step::{Failure, StepError};

/// Refuses a server that shows our account nobody else's connections. `left` says what was left as it is, and ends the sentence.
///
/// # Errors
/// [`Failure::Refused`] if our account lacks PROCESS; if it can't be asked.
pub async fn sees_everybody(session: &mut Session, left: &str) -> Result<()> {
    if Privileges::read(session).await?.has_process() {
        return Ok(());
    }
    let server = session.server();
    let message = format!("our account does not see who is connected to the {server} (it lacks PROCESS). {left}");
    let hint = format!("`GRANT PROCESS ON *.* TO` the account `{}` there, and give the same command again", server.user);
    Err(MysqlError::Step(StepError::new(Failure::Refused, message).hint(hint)))
}

/// The same, on a connection of its own.
///
/// # Errors
/// As [`sees_everybody`].
pub async fn sees_everybody_on(server: &Arc<Server>, left: &str) -> Result<()> {
    let mut session = Session::open(server, Purpose::Read).await?;
    sees_everybody(&mut session, left).await?;
    session.close().await;
    Ok(())
}
