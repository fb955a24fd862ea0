//! Ctrl-C, SIGTERM, SIGHUP: the first asks the run to stop at its checkpoints, a second one ends the process at once.
//!
//! Both are safe: a run that is killed is settled by `probe` when the same command is given again. The first is only
//! nicer: services stop cleanly, the lease is let go, the journal says so, and writes that are held are let through.
//!
//! So a second one has to be meant. A connection that breaks is a SIGHUP from the shell and one from the kernel: that never ends the process at
//! once, and is not heard at all where it was ignored (`nohup`). A second Ctrl-C or SIGTERM within [`DOUBLED`] is the first.

use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use crate::engine::outcome::ExitCode;
use crate::report::held::Held;
use crate::telemetry::screen::Screen;

/// What comes so soon after the first signal is the same one.
const DOUBLED: Duration = Duration::from_secs(1);

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
    /// `None` where whoever started us wants it ignored.
    hangup: Option<Signal>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Ctrl-C or SIGTERM.
    Asked,
    /// The terminal is gone.
    HungUp,
}

/// Whether this process was started with a signal ignored, by the mask of the kernel's `SigIgn:` line.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

impl Signals {
    /// Takes them over from the system's default.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> Result<Signals, Refusal> {
        let failed =
            |error: std::io::Error| Refusal::new(ExitCode::Error, format!("signals can't be received: {error}; nothing was touched"));
        // A system that does not say so ignores nothing.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = SignalKind::hangup();
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hangup: if is_ignored(&status, hangup) { None } else { Some(signal(hangup).map_err(failed)?) },
        })
    }

    async fn next(&mut self) -> Heard {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Asked,
            _ = self.terminate.recv() => Heard::Asked,
            _ = hangup => Heard::HungUp,
        }
    }

    /// Awaits `work`; the first signal cancels it, a second one ends this process. `held` says what becomes of writes that are held now.
    pub async fn guard<T>(
        mut self,
        work: impl Future<Output = T>,
        cancel: &CancellationToken,
        screen: &Screen,
        held: impl Fn() -> Option<Held>,
    ) -> T {
        let no_echo = screen.bars().map(|_| NoEcho::begin());
        let mut first: Option<Instant> = None;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                heard = self.next() => match first {
                    None => {
                        first = Some(Instant::now());
                        cancel.cancel();
                        match held() {
                            Some(held) => screen.say(&held.asked),
                            None => screen.say("stopping at the next checkpoint (once more, after a second: stop at once) …"),
                        }
                    }
                    Some(first) if heard == Heard::HungUp || first.elapsed() < DOUBLED => {}
                    Some(_) => {
                        drop(no_echo);
                        match held() {
                            Some(held) => screen.say(&held.left),
                            None => screen.say("stopped at once; the same command goes on from the last checkpoint"),
                        }
                        std::process::exit(i32::from(ExitCode::Interrupted.code()));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ignored_stays_so() {
        let status = "Name:\tdbmove\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000003\n";
        assert!(is_ignored(status, SignalKind::hangup()));
        assert!(!is_ignored(status, SignalKind::interrupt()));
        assert!(!is_ignored("", SignalKind::hangup()));
    }
}
