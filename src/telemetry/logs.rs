//! `tracing`, set up: one event per fact, key=value, the field of an error named `error`.
//!
//! What is shown: `RUST_LOG` if it is set and can be read, else `-v`/`-q`. Warnings by default: what a person should see while a run goes well
//! is the progress, not the log. In JSON the progress and the words are events too ([`PROGRESS`], [`WORDS`]),
//! so they are let through whatever the level.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::screen::Screen;

/// The target of progress events in a JSON log.
pub const PROGRESS: &str = "dbmove::progress";
/// The target of plain words in a JSON log.
pub const WORDS: &str = "dbmove::words";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The level for so many `-v` (positive) or `-q` (negative).
#[must_use]
pub fn level(verbosity: i16) -> LevelFilter {
    match verbosity {
        i16::MIN..=-2 => LevelFilter::OFF,
        -1 => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    }
}

/// The filter: `rust_log` if there is one, else ours at the level and the libraries' one step quieter.
fn filter(verbosity: i16, format: LogFormat, rust_log: Option<&str>) -> Result<EnvFilter, String> {
    let base = match rust_log.filter(|text| !text.trim().is_empty()) {
        Some(text) => text.to_owned(),
        None => format!("{},dbmove={}", level(verbosity - 1).max(level(verbosity.min(0))), level(verbosity)),
    };
    let text = if format == LogFormat::Json { format!("{base},{PROGRESS}=info,{WORDS}=info") } else { base };
    EnvFilter::try_new(&text).map_err(|error| format!("`RUST_LOG={}` can't be read: {error}", rust_log.unwrap_or_default()))
}

/// Starts the log. To be called once; a second call changes nothing.
///
/// # Errors
/// If `RUST_LOG` can't be read, in words.
pub fn start(screen: &Screen, verbosity: i16, format: LogFormat) -> Result<(), String> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = filter(verbosity, format, rust_log.as_deref())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone()).with_ansi(screen.colour());
    // Only fails when a subscriber stands already, as in tests.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_flags() {
        assert_eq!(
            [level(-5), level(-1), level(0), level(1), level(2), level(9)],
            [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE]
        );
    }

    #[test]
    fn the_environment_wins_and_is_checked() {
        assert!(filter(0, LogFormat::Text, Some("dbmove=nonsense=x")).unwrap_err().contains("RUST_LOG"));
        assert!(filter(0, LogFormat::Text, Some("debug")).unwrap().to_string().contains("debug"));
        assert!(filter(-2, LogFormat::Text, None).unwrap().to_string().contains("off"));
        assert!(filter(-2, LogFormat::Json, None).unwrap().to_string().contains("dbmove::progress=info"));
    }
}
