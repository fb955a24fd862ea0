//! What was typed → what it means. Flag, then environment (`DBMOVE_…`), then playbook, then default: resolved here and nowhere else.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use super::answer::Refusal;
use super::arguments::{Colour, Common};
use super::proposals::Typed;
use crate::engine::budget::DEFAULT_MARGIN;
use crate::engine::certificate::DEFAULT_LIFETIME;
use crate::engine::deadline::Deadline;
use crate::engine::run::DEFAULT_MAX_WRITE_GAP;
use crate::playbook::model::{DurationText, Playbook};
use crate::playbook::quantity::HumanDuration;
use crate::telemetry::logs::LogFormat;
use crate::telemetry::progress::Mode;
use crate::telemetry::screen::{Screen, Words};

/// Text is laid out for so many columns where the terminal doesn't say.
const DEFAULT_COLUMNS: usize = 80;

/// Whether there is a go-ahead for what is dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoAhead {
    /// `--yes`.
    Given,
    /// A person at a terminal can be asked.
    Ask,
    /// Nobody can be asked: `--no-input`, or no terminal.
    Missing,
}

/// What holds for every command.
#[derive(Clone)]
pub struct Everywhere {
    /// Where the journal lies.
    pub state_directory: PathBuf,
    /// One JSON object on stdout.
    pub json: bool,
    /// Whether there is a go-ahead.
    pub go_ahead: GoAhead,
    /// `-v` minus `-q`.
    pub verbosity: i16,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How progress is shown.
    pub progress: Mode,
    /// True if words on stderr may be coloured.
    pub colour: bool,
    /// How wide text on stderr may be.
    pub columns: usize,
    /// The way to stderr.
    pub screen: Screen,
    /// What was typed, for the commands that are proposed.
    pub typed: Typed,
}

/// How wide the terminal is.
fn columns() -> usize {
    let from_terminal =
        || rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    let from_environment = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    from_terminal().or_else(from_environment).unwrap_or(DEFAULT_COLUMNS).clamp(40, 200)
}

/// Whether to colour: the flag, then `NO_COLOR`, then whether it is a terminal.
fn colours(wanted: Colour, terminal: bool, no_color: bool) -> bool {
    match wanted {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => terminal && !no_color,
    }
}

impl Everywhere {
    /// Resolves the `options` that were typed, for this process's own terminal and environment. `draws` says if the command shows progress.
    #[must_use]
    pub fn resolve(options: &Common, typed: Typed, draws: bool) -> Everywhere {
        let terminal = Screen::is_terminal();
        let json_log = options.log_format == LogFormat::Json;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = colours(options.color, terminal, no_color) && !json_log;
        let progress = options.progress.resolve(terminal, json_log);
        let can_ask = !options.no_input && terminal && std::io::stdin().is_terminal() && !json_log;
        Everywhere {
            state_directory: options.state_dir.clone(),
            json: options.json,
            go_ahead: match (options.yes, can_ask) {
                (true, _) => GoAhead::Given,
                (false, true) => GoAhead::Ask,
                (false, false) => GoAhead::Missing,
            },
            verbosity: i16::from(options.verbose) - i16::from(options.quiet),
            log_format: options.log_format,
            progress,
            colour,
            columns: columns(),
            screen: Screen::new(draws && progress == Mode::Bars, if json_log { Words::Events } else { Words::Text }, colour),
            typed,
        }
    }
}

/// A duration of an option, named in the error.
///
/// # Errors
/// If the text is none.
pub fn duration(option: &str, text: &str) -> Result<Duration, Refusal> {
    match text.parse::<HumanDuration>() {
        Ok(duration) => Ok(duration.0),
        Err(error) => Err(Refusal::usage(format!("`{option}`: {error}")).hint(error.help())),
    }
}

/// How long writes may be held: option, playbook, default.
///
/// # Errors
/// If the text is no duration.
pub fn max_write_gap(typed: Option<&str>, playbook: &Playbook) -> Result<Duration, Refusal> {
    match (typed, &playbook.max_write_gap) {
        (Some(text), _) => duration("--max-write-gap", text),
        (None, Some(written)) => from_playbook("max_write_gap", written),
        (None, None) => Ok(DEFAULT_MAX_WRITE_GAP),
    }
}

/// How long a certificate holds: playbook, default.
///
/// # Errors
/// If the text is no duration.
pub fn certificate_lifetime(playbook: &Playbook) -> Result<Duration, Refusal> {
    playbook.certificate_lifetime.as_ref().map_or(Ok(DEFAULT_LIFETIME), |written| from_playbook("certificate_lifetime", written))
}

/// The deadline, counted from now: option, playbook, none.
///
/// # Errors
/// If the text is no deadline, or the moment has passed.
pub fn deadline(typed: Option<&str>, playbook: &Playbook) -> Result<Option<Deadline>, Refusal> {
    let (name, text) = match (typed, &playbook.deadline) {
        (Some(text), _) => ("--deadline", text),
        (None, Some(written)) => ("deadline", written.0.as_str()),
        (None, None) => return Ok(None),
    };
    Deadline::parse(text, &jiff::ZonedDateTime::now()).map(Some).map_err(|error| Refusal::usage(format!("`{name}`: {error}")))
}

/// The margin on forecasts: option, default.
///
/// # Errors
/// If it is less than one or no number.
pub fn margin(typed: Option<f64>) -> Result<f64, Refusal> {
    match typed {
        None => Ok(DEFAULT_MARGIN),
        Some(margin) if margin.is_finite() && (1.0..=10.0).contains(&margin) => Ok(margin),
        Some(margin) => {
            Err(Refusal::usage(format!("`--margin`: {margin} is not from 1 to 10")).hint("1.25 keeps a quarter more than was forecast"))
        }
    }
}

fn from_playbook(field: &str, written: &DurationText) -> Result<Duration, Refusal> {
    written.parse().map_err(|error| Refusal::usage(format!("the playbook's `{field}`: {error}")).hint(error.help()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::model::Stages;

    fn playbook() -> Playbook {
        Playbook {
            playbook: "p".into(),
            about: None,
            deadline: Some(DurationText("16h".into())),
            max_write_gap: Some(DurationText("5s".into())),
            certificate_lifetime: None,
            guards: Vec::new(),
            hooks: Vec::new(),
            stores: std::collections::BTreeMap::new(),
            stages: Stages::default(),
        }
    }

    #[test]
    fn option_before_playbook_before_default() {
        assert_eq!(max_write_gap(Some("250ms"), &playbook()).unwrap(), Duration::from_millis(250));
        assert_eq!(max_write_gap(None, &playbook()).unwrap(), Duration::from_secs(5));
        assert_eq!(max_write_gap(None, &Playbook { max_write_gap: None, ..playbook() }).unwrap(), DEFAULT_MAX_WRITE_GAP);
        assert_eq!(deadline(Some("2h"), &playbook()).unwrap().unwrap().text, "2h");
        assert_eq!(deadline(None, &playbook()).unwrap().unwrap().text, "16h");
        assert_eq!(deadline(None, &Playbook { deadline: None, ..playbook() }).unwrap(), None);
        assert_eq!(certificate_lifetime(&playbook()).unwrap(), DEFAULT_LIFETIME);
    }

    #[test]
    fn wrong_values_name_the_option() {
        assert!(max_write_gap(Some("soon"), &playbook()).unwrap_err().message.contains("`--max-write-gap`"));
        assert!(deadline(Some("soon"), &playbook()).unwrap_err().message.contains("`--deadline`"));
        assert!(margin(Some(0.5)).is_err() && margin(Some(f64::NAN)).is_err() && margin(Some(2.0)).is_ok());
    }

    #[test]
    fn no_color_is_honoured_and_a_flag_is_stronger() {
        assert!(colours(Colour::Auto, true, false));
        assert!(!colours(Colour::Auto, true, true));
        assert!(!colours(Colour::Auto, false, false));
        assert!(colours(Colour::Always, false, true));
        assert!(!colours(Colour::Never, true, false));
    }
}
