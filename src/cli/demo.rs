//! `dbmove demo`: a live move on private servers, told as a story. What happens in it is [`crate::demo::run`].

use std::io::IsTerminal as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal};
use super::arguments::Demo;
use super::settings::Everywhere;
use crate::demo::run::{DemoError, DemoOptions, Told, tell};
use crate::demo::story::narrator::{Narrator, Stage};
use crate::engine::outcome::ExitCode;
use crate::report::next::shell_word;
use crate::telemetry::human;

/// The largest school: ten times that is a day's seeding.
const LARGEST: f64 = 1000.0;

/// Runs the command. The story is told on stdout, or with `--json` on stderr, and then stdout has one verdict object and
/// nothing else.
///
/// # Errors
/// If the story could not be told to its end.
pub async fn demo(everywhere: &Everywhere, typed: &Demo) -> Result<Answer, Refusal> {
    if !(typed.scale > 0.0 && typed.scale <= LARGEST) {
        return Err(
            Refusal::usage(format!("`--scale`: {} is not above 0 and up to {LARGEST}", typed.scale)).hint("1 is about 300,000 rows")
        );
    }
    let options = DemoOptions {
        scale: typed.scale,
        seed: typed.seed,
        directory: typed.directory.clone().unwrap_or_else(std::env::temp_dir),
        keep: typed.keep,
    };
    // Before the first word, so that no moment of the story is without them.
    let interruptions = Interruptions::listen()?;
    let nobody_listens = CancellationToken::new();
    let (stage, bold) = match everywhere.json {
        true => (Stage::Stderr, everywhere.colour),
        false => (Stage::Stdout, everywhere.colour && std::io::stdout().is_terminal()),
    };
    let narrator = Narrator::new(stage, everywhere.columns, bold, nobody_listens.clone());
    // Whichever ends first: the other is dropped here, and the servers and the directory with it.
    let told = tokio::select! {
        told = tell(&options, &narrator) => told,
        () = interruptions.first() => {
            return Err(Refusal::new(ExitCode::Interrupted, "the demo was stopped; its servers and its directory are gone"));
        }
        () = nobody_listens.cancelled() => {
            return Err(Refusal::new(ExitCode::Interrupted, "nobody reads the story any more; the demo's servers and its directory are gone"));
        }
    };
    match told {
        Ok(told) => Ok(answer(&told, &narrator)),
        Err(error) => Err(refusal(&error, typed.keep)),
    }
}

/// Ctrl-C, SIGTERM and SIGHUP, received from when this is made.
struct Interruptions([Signal; 3]);

impl Interruptions {
    fn listen() -> Result<Interruptions, Refusal> {
        let listen = |kind| {
            signal(kind).map_err(|error| Refusal::new(ExitCode::Error, format!("signals can't be received: {error}; nothing was started")))
        };
        Ok(Interruptions([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn first(self) {
        let Interruptions([mut interrupt, mut terminate, mut hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn answer(told: &Told, narrator: &Narrator) -> Answer {
    let judged = &told.judged;
    let exit_code = judged.exit_code();
    narrator.scene(10, if exit_code == ExitCode::Done { "Verdict: ALL IS WELL" } else { "Verdict: NOT WELL" });
    for (what, value) in judged.lines() {
        narrator.show(what, &value);
    }
    if let Some(directory) = judged.verdict.report.parent() {
        narrator.to_copy("look again", &format!("dbmove report --state-dir {}", shell_word(&directory.display().to_string())));
    }
    for reason in &judged.wrong {
        narrator.show("WRONG", reason);
    }
    match &told.left {
        None => narrator.show("left behind", "nothing but that report and its journal"),
        Some(left) => {
            narrator.say("");
            narrator.say("The servers are still up, the users are gone:");
            left.tell(narrator);
        }
    }
    narrator.show("took", &human::duration(told.took));
    let json = serde_json::to_string_pretty(&judged.verdict).unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()));
    let words = if judged.wrong.is_empty() { String::new() } else { format!("error: {}", judged.wrong.join("; ")) };
    Answer { json, text: String::new(), words, exit_code }
}

fn refusal(error: &DemoError, kept: bool) -> Refusal {
    let refusal = Refusal::new(error.exit_code(), error.to_string());
    match error {
        DemoError::NotFetched { .. } => {
            refusal.hint("`make demo` does all of it; by hand: `fixtures/servers/fetch mysql-5.5.34 mysql-9.7 haproxy-2.6`")
        }
        _ if kept => refusal.hint("the servers were left up: see above"),
        _ => refusal.hint("the demo's servers and its directory are gone; `--keep` leaves them up to look at"),
    }
}
