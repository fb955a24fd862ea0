//! The command line: one file per command, no logic that a test can't call.
//!
//! [`arguments`] is what was typed, [`settings`] what it means. A command returns an [`answer::Answer`] or an [`answer::Refusal`]; [`main`] prints it:
//! data on stdout (text, or one JSON object with `--json`), words on stderr, one exit code.
//!
//! | module | command |
//! | --- | --- |
//! | [`playbook`] | `playbook list`, `show`, `new`, `check`, `schema` |
//! | [`assess`] | `assess` |
//! | [`schema`] | `schema diff` |
//! | [`plan`] | `plan`; the plan itself is made in [`planning`] |
//! | [`rehearse`], [`run`], [`verify`], [`cutover`] | the same; what they share is in [`drive`] |
//! | [`ctl`] | `ctl`: what a driver is told over its socket |
//! | [`rollback`], [`undo`], [`approve`], [`status`], [`report`], [`certificate`], [`audit`] | the same |
//! | [`demo`] | `demo`: all of it, here, on private servers |
//! | [`go_ahead`], [`signals`], [`reading`] | the question before what is dangerous; Ctrl-C; what the journal knows before |
//! | [`proposals`] | commands that are proposed, as they have to be typed here |
//! | [`stores`] | the stores of a playbook, for commands that only look |

pub mod answer;
pub mod approve;
pub mod arguments;
pub mod assess;
pub mod audit;
pub mod certificate;
pub mod ctl;
pub mod cutover;
pub mod demo;
pub mod drive;
pub mod go_ahead;
pub mod plan;
pub mod planning;
pub mod playbook;
pub mod proposals;
pub mod reading;
pub mod rehearse;
pub mod report;
pub mod rollback;
pub mod run;
pub mod schema;
pub mod settings;
pub mod signals;
pub mod status;
pub mod stores;
pub mod undo;
pub mod verify;

use std::io::{IsTerminal, Write};
use std::path::Path;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use answer::{Answer, Refusal};
use arguments::{Arguments, CertificateCommand, Command, PlaybookCommand, SchemaCommand};
use proposals::Typed;
use settings::Everywhere;

use crate::engine::outcome::ExitCode;
use crate::steps;
use crate::telemetry::human::wrapped;
use crate::telemetry::logs;
use crate::telemetry::printable::printable_lines;

/// The whole program: arguments in, exit code out.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let (arguments, typed) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // `--help` and `--version` are errors to clap too; it knows which stream each belongs to.
            let _ = error.print();
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
            return code.into();
        }
    };
    let name = arguments.command.name();
    let everywhere = Everywhere::resolve(&arguments.common, typed, arguments.command.shows_progress());
    let result = logs::start(&everywhere.screen, everywhere.verbosity, everywhere.log_format)
        .map_err(Refusal::usage)
        .and_then(|()| execute(&everywhere, &arguments.command));
    match result {
        Ok(answer) => print_answer(&everywhere, &answer).into(),
        Err(refusal) => print_refusal(&everywhere, name, &everywhere.typed.refusal(refusal)).into(),
    }
}

/// What was typed, and what of it other commands repeat.
fn parse() -> Result<(Arguments, Typed), clap::Error> {
    let matches = Arguments::command().try_get_matches()?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))?;
    let by_hand = matches.value_source("state_dir") == Some(ValueSource::CommandLine);
    let state_directory = by_hand.then_some(arguments.common.state_dir.as_path());
    let typed = Typed::new(std::env::args_os().skip(1), state_directory, arguments.command.playbook());
    Ok((arguments, typed))
}

impl Command {
    /// The playbook that it names.
    fn playbook(&self) -> Option<&Path> {
        Some(match self {
            Command::Playbook(PlaybookCommand::Check { file }) => file,
            Command::Assess(typed) => &typed.playbook,
            Command::Schema(SchemaCommand::Diff(typed)) => &typed.playbook,
            Command::Plan(typed) => &typed.playbook,
            Command::Rehearse(typed) => &typed.driving.playbook,
            Command::Run(typed) => &typed.driving.playbook,
            Command::Verify(typed) => &typed.playbook,
            Command::Cutover(typed) => &typed.driving.playbook,
            Command::Rollback(typed) => &typed.playbook,
            Command::Undo(typed) => &typed.playbook,
            Command::Approve(typed) => &typed.playbook,
            Command::Ctl(typed) => return typed.playbook.as_deref(),
            Command::Certificate(
                CertificateCommand::Show { playbook }
                | CertificateCommand::Export { playbook, .. }
                | CertificateCommand::Check { playbook, .. },
            ) => playbook,
            Command::Playbook(_)
            | Command::Status(_)
            | Command::Report(_)
            | Command::Audit
            | Command::Demo(_)
            | Command::Completions { .. } => return None,
        })
    }

    /// Its name, as in the frame of its JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Playbook(PlaybookCommand::List) => "playbook list",
            Command::Playbook(PlaybookCommand::Show { .. }) => "playbook show",
            Command::Playbook(PlaybookCommand::New { .. }) => "playbook new",
            Command::Playbook(PlaybookCommand::Check { .. }) => "playbook check",
            Command::Playbook(PlaybookCommand::Schema) => "playbook schema",
            Command::Assess(_) => "assess",
            Command::Schema(SchemaCommand::Diff(_)) => "schema diff",
            Command::Plan(_) => "plan",
            Command::Rehearse(_) => "rehearse",
            Command::Run(_) => "run",
            Command::Verify(_) => "verify",
            Command::Cutover(_) => "cutover",
            Command::Rollback(_) => "rollback",
            Command::Undo(_) => "undo",
            Command::Approve(_) => "approve",
            Command::Ctl(_) => "ctl",
            Command::Status(_) => "status",
            Command::Report(_) => "report",
            Command::Certificate(CertificateCommand::Show { .. }) => "certificate show",
            Command::Certificate(CertificateCommand::Export { .. }) => "certificate export",
            Command::Certificate(CertificateCommand::Check { .. }) => "certificate check",
            Command::Audit => "audit",
            Command::Demo(_) => "demo",
            Command::Completions { .. } => "completions",
        }
    }

    /// True if it takes long enough to show progress.
    fn shows_progress(&self) -> bool {
        matches!(
            self,
            Command::Rehearse(_) | Command::Run(_) | Command::Verify(_) | Command::Cutover(_) | Command::Rollback(_) | Command::Undo(_)
        )
    }
}

/// Does what a command asks for.
fn execute(everywhere: &Everywhere, command: &Command) -> Result<Answer, Refusal> {
    match command {
        Command::Playbook(command) => execute_playbook(everywhere, command),
        Command::Assess(typed) => on_runtime(assess::assess(everywhere, typed)),
        Command::Schema(SchemaCommand::Diff(typed)) => on_runtime(schema::diff(everywhere, typed)),
        Command::Plan(typed) => on_runtime(plan::plan(everywhere, typed)),
        Command::Rehearse(typed) => on_runtime(rehearse::rehearse(everywhere, typed)),
        Command::Run(typed) => on_runtime(run::run(everywhere, typed)),
        Command::Verify(typed) => on_runtime(verify::verify(everywhere, typed)),
        Command::Cutover(typed) => on_runtime(cutover::cutover(everywhere, typed)),
        Command::Rollback(typed) => on_runtime(rollback::rollback(everywhere, typed)),
        Command::Undo(typed) => on_runtime(undo::undo(everywhere, typed)),
        Command::Approve(typed) => on_runtime(approve::approve(everywhere, typed)),
        Command::Ctl(typed) => on_runtime(ctl::ctl(everywhere, typed)),
        Command::Status(typed) => status::status(everywhere, typed),
        Command::Report(typed) => report::report(everywhere, typed),
        Command::Certificate(command) => on_runtime(certificate::certificate(everywhere, command)),
        Command::Audit => audit::audit(everywhere),
        Command::Demo(typed) => on_runtime(demo::demo(everywhere, typed)),
        Command::Completions { shell } => Ok(completions(*shell)),
    }
}

/// Runs an async command to its end.
fn on_runtime(work: impl Future<Output = Result<Answer, Refusal>>) -> Result<Answer, Refusal> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal::new(ExitCode::Error, format!("no threads can be started: {error}; nothing was touched")))?;
    runtime.block_on(work)
}

fn execute_playbook(everywhere: &Everywhere, command: &PlaybookCommand) -> Result<Answer, Refusal> {
    let vocabulary = steps::vocabulary();
    Ok(match command {
        PlaybookCommand::List => playbook::list(),
        PlaybookCommand::Show { name } => playbook::show(name)?,
        PlaybookCommand::New { name, from, directory } => playbook::new(directory, name, from.as_deref())?,
        PlaybookCommand::Check { file } => playbook::check(file, vocabulary, everywhere.columns, everywhere.colour),
        PlaybookCommand::Schema => playbook::schema(vocabulary),
    })
}

/// The completions for a shell. They are a program's text and no object, with `--json` too.
fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "dbmove", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    let json = answer::framed("completions", ExitCode::Done, &serde_json::json!({ "script": text }), &[]);
    Answer { json, text, words: String::new(), exit_code: ExitCode::Done }
}

/// Writes to stdout. A reader that has gone away (`| head`) is not an error of ours.
fn print_data(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Text as it fits a terminal on stdout; elsewhere as it is.
fn for_stdout(everywhere: &Everywhere, text: &str) -> String {
    if std::io::stdout().is_terminal() { wrapped(text, everywhere.columns) } else { text.to_owned() }
}

/// Says words, broken to a terminal's width.
fn say(everywhere: &Everywhere, text: &str) {
    if std::io::stderr().is_terminal() {
        everywhere.screen.say(&wrapped(text, everywhere.columns));
    } else {
        everywhere.screen.say(text);
    }
}

fn print_answer(everywhere: &Everywhere, answer: &Answer) -> ExitCode {
    if everywhere.json {
        print_data(&format!("{}\n", answer.json.trim_end()));
    } else {
        print_data(&for_stdout(everywhere, &answer.text));
    }
    if !answer.words.is_empty() {
        say(everywhere, answer.words.trim_end());
    }
    answer.exit_code
}

fn print_refusal(everywhere: &Everywhere, command: &str, refusal: &Refusal) -> ExitCode {
    if everywhere.json {
        print_data(&format!("{}\n", refusal.json(command)));
    }
    if let Some(shown) = &refusal.shown {
        say(everywhere, shown.trim_end());
        everywhere.screen.say("");
    }
    let (error, hint) = if everywhere.colour { ("\u{1b}[1;31merror\u{1b}[0m", "\u{1b}[1;36mhint\u{1b}[0m") } else { ("error", "hint") };
    say(everywhere, &format!("{error}: {}", printable_lines(&refusal.message).join("\n")));
    if let Some(text) = &refusal.hint {
        say(everywhere, &format!("{hint}: {}", printable_lines(text).join("\n")));
    }
    refusal.exit_code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_says_what_it_does() {
        fn look(command: &clap::Command) {
            assert!(command.get_about().is_some() || command.get_name() == "dbmove", "`{}` has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{}` of `{}` has no help", argument.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }
}
