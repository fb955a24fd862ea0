//! Ctrl-C, SIGTERM, SIGHUP: the first asks the run to stop at its checkpoints, the second ends the process at once.
//!
//! Both are safe: a run that is killed is settled by `probe` when the same command is given again. The first is only
//! nicer: services stop cleanly, the lease is let go, the journal says so.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use crate::engine::outcome::ExitCode;
use crate::telemetry::screen::Screen;

/// Keeps the terminal from echoing `^C`, which would push the bars one line down; put back when dropped.
struct NoEcho(Option<Termios>);

impl NoEcho {
    fn begin() -> NoEcho {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_modes.remove(LocalModes::ECHOCTL);
            // Cosmetic: a terminal that refuses is left as it is.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &quiet);
        }
        NoEcho(before)
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

/// The signals that end a run.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them over from the system's default.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> Result<Signals, Refusal> {
        let failed =
            |error: std::io::Error| Refusal::new(ExitCode::Error, format!("signals can't be received: {error}; nothing was touched"));
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Awaits `work`; the first signal cancels it, the second ends this process.
    pub async fn guard<T>(mut self, work: impl Future<Output = T>, cancel: &CancellationToken, screen: &Screen) -> T {
        let no_echo = screen.bars().map(|_| NoEcho::begin());
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.next() => {
                    if cancel.is_cancelled() {
                        drop(no_echo);
                        screen.say("stopped at once; the same command goes on from the last checkpoint");
                        std::process::exit(i32::from(ExitCode::Interrupted.code()));
                    }
                    cancel.cancel();
                    screen.say("stopping at the next checkpoint (once more: stop at once) …");
                }
            }
        }
    }
}
