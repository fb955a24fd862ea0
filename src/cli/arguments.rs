//! What was typed. What it means is settled in [`settings`](super::settings).
//!
//! The doc comments here are the `--help` texts. An option may come from the environment too where it describes the place and not the
//! moment: a go-ahead (`--yes`) and a reason (`--without-rehearsal`) can only be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::telemetry::logs::LogFormat;
use crate::telemetry::progress::Mode;

/// Moves live databases: rehearsed on a copy, every row verified, cut over inside a time budget, and reversible.
#[derive(Debug, Parser)]
#[command(name = "dbmove", version, max_term_width = 100, propagate_version = false, disable_help_subcommand = true)]
#[command(after_help = "Start with `dbmove playbook new NAME`, then `check`, `plan` and `rehearse` it.\n\n\
    Exit codes: 0 done, 1 error, 2 usage, 3 differences, 4 refused by a gate,\n\
    5 deadline would be missed: rolled back, 6 waiting for approval,\n\
    7 driven by another process, 130 interrupted (resumable)")]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// What all commands share.
    #[command(flatten)]
    pub common: Common,
}

/// What all commands share.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Common {
    /// Where the journal and the reports lie
    #[arg(long, global = true, value_name = "DIRECTORY", env = "DBMOVE_STATE_DIR", default_value = ".dbmove", hide_env_values = true)]
    pub state_dir: PathBuf,
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Give the go-ahead without being asked
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
    /// Never ask: what needs a go-ahead and has none shows its plan and ends with exit code 2
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Log more (-v info, -vv debug, -vvv trace); `RUST_LOG` overrides it
    #[arg(long, short = 'v', global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log less (-q errors only, -qq nothing)
    #[arg(long, short = 'q', global = true, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// How stderr looks: `text`, or `json` for one object a line
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "DBMOVE_LOG_FORMAT",
        default_value = "text",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub log_format: LogFormat,
    /// Colours: `auto` (on a terminal, unless `NO_COLOR` is set), `always`, `never`
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "DBMOVE_COLOR",
        default_value = "auto",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub color: Colour,
    /// How progress is shown: `auto` (bars on a terminal, lines elsewhere), `bars`, `lines`, `none`
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        env = "DBMOVE_PROGRESS",
        default_value = "auto",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub progress: Mode,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List, show, make and check playbooks
    #[command(subcommand)]
    Playbook(PlaybookCommand),
    /// Look for what stands in the way: findings with evidence and fix; touches nothing. Exit code 4 if an error stands
    Assess(Assess),
    /// Show what becomes of the tables' definitions
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Show what every step would do and how long it should take; touches nothing
    Plan(Plan),
    /// Run every stage, the switch and the way back on the rehearsal pair; leaves a certificate
    Rehearse(Rehearse),
    /// Prepare, copy and verify on production, and keep following until the cutover
    Run(Run),
    /// Compare every row once more, now; exit code 3 if any differ
    Verify(Verify),
    /// Everything that remains, inside the deadline, or back to where it was
    Cutover(Cutover),
    /// After the switch: point clients back to the source, with everything they wrote on the target since
    Rollback(Rollback),
    /// Give a run up before the switch: undo all that it made; the source serves before and after
    Undo(Undo),
    /// Say yes to what a `gate.approve` step asks, so that its run may go on
    Approve(Approve),
    /// Steer a run that is being driven: pause, throttle, hold the cutover, abort
    Ctl(Ctl),
    /// Where the runs stand; works beside a running one and with none running
    Status(Status),
    /// What a run did: the verdict, times, verification, certificate
    Report(Report),
    /// What the newest rehearsal proved, and whether it still holds
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Check that the journal was not edited; exit code 1 and the place if it was
    Audit,
    /// Move a live MySQL 5.5 to a new server, here, on private servers, in minutes; leaves only a report
    Demo(Demo),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `dbmove playbook …`.
#[derive(Debug, Subcommand)]
pub enum PlaybookCommand {
    /// The playbooks that come with dbmove
    List,
    /// Print one of them
    Show {
        /// Its name
        name: String,
    },
    /// Write NAME.yaml, made from one of them
    New {
        /// The new playbook's name: letters, digits, `-` and `_`
        name: String,
        /// Which one to start from
        #[arg(long, value_name = "READY")]
        from: Option<String>,
        /// Where to write it
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        directory: PathBuf,
    },
    /// Check a playbook; contacts no server and resolves no secret
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print the JSON Schema of playbooks, for editors
    Schema,
}

/// `dbmove assess`.
#[derive(Clone, Debug, Args)]
pub struct Assess {
    /// The playbook
    pub playbook: PathBuf,
    /// Look at the rehearsal pair instead of production
    #[arg(long)]
    pub rehearsal: bool,
    /// From which level on findings that are not accepted end with exit code 4
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub fail_on: FailOn,
    /// Look at every row of the source, not at both ends of each table. It takes as long as reading all data does, and a
    /// MyISAM table can't be written to while it is read: use it on a rehearsal copy or a replica
    #[arg(long)]
    pub deep: bool,
    /// Create the converted schema on the rehearsal target, report every statement that fails or warns, and drop it all
    /// again. Looks at the rehearsal pair
    #[arg(long = "try")]
    pub attempt: bool,
}

/// From which level on findings refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Everything that is found.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors only.
    Error,
}

/// `dbmove schema …`.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Each table that changes on its way: the rules that fired, and a unified diff; touches nothing
    Diff(SchemaDiff),
}

/// `dbmove schema diff`.
#[derive(Clone, Debug, Args)]
pub struct SchemaDiff {
    /// The playbook
    pub playbook: PathBuf,
    /// Look at the rehearsal pair instead of production
    #[arg(long)]
    pub rehearsal: bool,
}

/// `dbmove plan`.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// The playbook
    pub playbook: PathBuf,
    /// Plan the rehearsal instead of the production run
    #[arg(long)]
    pub rehearsal: bool,
}

/// What every driving command may be told.
#[derive(Clone, Debug, Args)]
pub struct Driving {
    /// The playbook
    pub playbook: PathBuf,
    /// Start another run though there is one; refused while that one has begun its cutover and is not over
    #[arg(long)]
    pub new_run: bool,
    /// Go on though the playbook changed, if only steps changed that have not begun
    #[arg(long)]
    pub accept_changes: bool,
    /// How long writes may be held at the switch [default: the playbook's, or 30s]
    #[arg(long, value_name = "DURATION", env = "DBMOVE_MAX_WRITE_GAP", hide_env_values = true)]
    pub max_write_gap: Option<String>,
}

/// `dbmove rehearse`.
#[derive(Clone, Debug, Args)]
pub struct Rehearse {
    /// What every driving command may be told.
    #[command(flatten)]
    pub driving: Driving,
    /// Replay production's own recent writes into the rehearsal source meanwhile, at so many times their rate: `3x`, from
    /// `0.1x` to `20x`. Fails if the target can't keep up
    #[arg(long, value_name = "TIMES")]
    pub load: Option<String>,
    /// How far back the log is replayed; when it is through, it begins again [default: 1h; of files all that is in them]
    #[arg(long, value_name = "DURATION", requires = "load")]
    pub load_window: Option<String>,
    /// Replay these binary log files, in this order, and don't read production's log: `FILE,FILE,…`. With several stores say whose they
    /// are, once for each: `STORE=FILE,FILE,…`
    #[arg(long, value_name = "FILES", requires = "load")]
    pub load_log: Vec<String>,
    /// How long the rehearsal is under load at least before the cutover begins [default: 1m]
    #[arg(long, value_name = "DURATION", requires = "load")]
    pub load_for: Option<String>,
}

/// `dbmove run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// What every driving command may be told.
    #[command(flatten)]
    pub driving: Driving,
    /// End once verified instead of following on; `cutover` catches up from there
    #[arg(long)]
    pub no_follow: bool,
}

/// `dbmove verify`.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// The playbook
    pub playbook: PathBuf,
    /// Go on though the playbook changed, if only steps changed that have not begun
    #[arg(long)]
    pub accept_changes: bool,
    /// How long to wait for a running `dbmove run` to hand over
    #[arg(long, value_name = "DURATION", env = "DBMOVE_TAKE_OVER", hide_env_values = true, default_value = "60s")]
    pub take_over: String,
    /// Copy rows that differ once more, then compare everything again; tables without key are copied as a whole
    #[arg(long)]
    pub repair: bool,
}

/// `dbmove cutover`.
#[derive(Clone, Debug, Args)]
pub struct Cutover {
    /// What every driving command may be told.
    #[command(flatten)]
    pub driving: Driving,
    /// By when all is done or undone: `16h`, `06:00`, `06:00 Europe/Berlin` [default: the playbook's]
    #[arg(long, value_name = "WHEN", env = "DBMOVE_DEADLINE", hide_env_values = true)]
    pub deadline: Option<String>,
    /// What forecasts are multiplied with before anything starts [default: 1.25]
    #[arg(long, value_name = "FACTOR", env = "DBMOVE_MARGIN", hide_env_values = true)]
    pub margin: Option<f64>,
    /// Go ahead without a certificate; the reason goes into journal and report
    #[arg(long, value_name = "REASON")]
    pub without_rehearsal: Option<String>,
    /// How long to wait for a running `dbmove run` to hand over
    #[arg(long, value_name = "DURATION", env = "DBMOVE_TAKE_OVER", hide_env_values = true, default_value = "60s")]
    pub take_over: String,
}

/// `dbmove rollback`.
#[derive(Clone, Debug, Args)]
pub struct Rollback {
    /// The playbook
    pub playbook: PathBuf,
    /// By when clients are on the source again, or stay on the target: `10m`, `06:00`, `06:00 Europe/Berlin` [default: none]
    #[arg(long, value_name = "WHEN")]
    pub deadline: Option<String>,
    /// How long writes may be held [default: the playbook's, or 30s]
    #[arg(long, value_name = "DURATION", env = "DBMOVE_MAX_WRITE_GAP", hide_env_values = true)]
    pub max_write_gap: Option<String>,
    /// Go on though the playbook changed, if only steps changed that have not begun
    #[arg(long)]
    pub accept_changes: bool,
    /// How long to wait for a running `dbmove cutover` to hand over
    #[arg(long, value_name = "DURATION", env = "DBMOVE_TAKE_OVER", hide_env_values = true, default_value = "60s")]
    pub take_over: String,
}

/// `dbmove undo`.
#[derive(Clone, Debug, Args)]
pub struct Undo {
    /// The playbook
    pub playbook: PathBuf,
    /// Undo the rehearsal that was left, instead of the production run
    #[arg(long)]
    pub rehearsal: bool,
    /// Go on though the playbook changed, if only steps changed that have not begun
    #[arg(long)]
    pub accept_changes: bool,
    /// How long to wait for a running `dbmove run` to hand over
    #[arg(long, value_name = "DURATION", env = "DBMOVE_TAKE_OVER", hide_env_values = true, default_value = "60s")]
    pub take_over: String,
}

/// `dbmove approve`.
#[derive(Clone, Debug, Args)]
pub struct Approve {
    /// The playbook
    pub playbook: PathBuf,
    /// The id of the step that asks
    pub step: String,
    /// Why; goes into journal and report
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who says yes; goes into journal and report [default: your login name]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// `dbmove ctl`.
#[derive(Clone, Debug, Args)]
#[command(subcommand_precedence_over_arg = true)]
pub struct Ctl {
    /// The playbook whose run is being driven
    #[arg(required_unless_present = "run")]
    pub playbook: Option<PathBuf>,
    /// A run's id, instead of the playbook
    #[arg(long, value_name = "RUN", conflicts_with = "playbook")]
    pub run: Option<String>,
    /// Who says it; goes into journal and report [default: your login name]
    #[arg(long, value_name = "NAME", global = true)]
    pub by: Option<String>,
    /// Why; goes into journal and report
    #[arg(long, value_name = "TEXT", global = true)]
    pub reason: Option<String>,
    /// What it is told
    #[command(subcommand)]
    pub act: CtlAct,
}

/// What a run can be told.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlAct {
    /// Ask the driver how the run stands
    Status,
    /// Start no new step, copy and compare no new chunk; following goes on. Refused while writes are held
    Pause,
    /// Lift a pause
    Resume,
    /// Copy no faster than RATE, on average
    Throttle {
        /// `20MiB/s`, `5000rows/s`, or `off`
        rate: String,
    },
    /// Have the cutover's first step wait for `go`
    HoldCutover,
    /// Let the cutover begin
    Go,
    /// Go by another value from now on: `deadline=06:00`, `max_write_gap=10s`, `guard.ID=off` (or `on`)
    Set {
        /// NAME=VALUE
        #[arg(value_name = "NAME=VALUE")]
        setting: String,
    },
    /// Say yes to what a step asks, as `dbmove approve` does
    Approve {
        /// The step's id
        step: String,
    },
    /// End the run as Ctrl-C does: a cutover that has not switched is undone. Refused behind the point of no return
    Abort,
}

/// `dbmove status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// A run's id; without it the newest run of every playbook
    pub run: Option<String>,
}

/// `dbmove report`.
#[derive(Clone, Debug, Args)]
pub struct Report {
    /// A run's id; without it the newest run
    #[arg(conflicts_with = "schema")]
    pub run: Option<String>,
    /// Write report.json to this file as well, replacing it
    #[arg(long, value_name = "FILE", conflicts_with = "schema")]
    pub output: Option<PathBuf>,
    /// Leave the values of differing rows out
    #[arg(long, conflicts_with = "schema")]
    pub redact: bool,
    /// Print the JSON Schema of report.json
    #[arg(long)]
    pub schema: bool,
}

/// `dbmove certificate …`.
#[derive(Clone, Debug, Subcommand)]
pub enum CertificateCommand {
    /// Show the newest certificate of a playbook, and whether it still holds
    Show {
        /// The playbook's file
        playbook: PathBuf,
    },
    /// Write the newest certificate out, to be kept elsewhere
    Export {
        /// The playbook's file
        playbook: PathBuf,
        /// Write it to this file, replacing it; without it to stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check whether a certificate holds today; exit code 4 and every reason if it does not
    Check {
        /// The playbook's file
        playbook: PathBuf,
        /// An exported certificate; without it the newest one of the journal
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `dbmove demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Leave the servers up at the end, and say how to connect and how to stop them
    #[arg(long)]
    pub keep: bool,
    /// How large the school is; 1 is about 300,000 rows
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub scale: f64,
    /// What rows and users' choices are drawn from
    #[arg(long, value_name = "NUMBER", default_value_t = 2011)]
    pub seed: u64,
    /// Make the private directory below this one [default: the system's temporary directory]
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}
