//! `set NAME=VALUE`: what of a run can be set while it is driven.
//!
//! | name | value | what must hold |
//! | --- | --- | --- |
//! | `deadline` | as after `--deadline` | Forecast anew, and refused if it can't be kept: whoever wants the run undone says `abort`. Refused while clients are switched. It stands for the driver's own `--deadline` from then on, after a resumption too; how long it counts is told in [`deadline`](crate::engine::deadline). |
//! | `max_write_gap` | a duration | Refused while writes are held: the source's watchdog was set by the old one; and where a step's `watchdog` would not be longer than it. It stands for the driver's own limit from then on; another `--max-write-gap` given later counts more, and any given to a rollback. |
//! | `guard.ID` | `off`, `on` | `off` needs a reason. A guard that is off is not judged: it neither fires nor keeps the cutover back, and what it had fired for is lifted. `status` says so until it is on again. |
//!
//! All of them outlive the driver, as everything that is said to it.

use std::fmt;
use std::time::Duration;

use jiff::{Timestamp, ZonedDateTime};
use serde::{Deserialize, Serialize};

use crate::engine::deadline::{Deadline, DeadlineError};
use crate::playbook::quantity::{HumanDuration, QuantityError};

/// One thing that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Setting {
    /// By when everything is done or undone.
    Deadline {
        /// As given.
        text: String,
        /// The moment.
        until: Timestamp,
        /// The driver's own deadline that this one takes the place of, as it was given; the driver fills it in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<String>,
    },
    /// How long writes may be held.
    MaxWriteGap {
        /// At most so many milliseconds.
        milliseconds: u64,
        /// The driver's own limit that this one takes the place of, in milliseconds; the driver fills it in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<u64>,
    },
    /// Whether a guard watches.
    Guard {
        /// Its id.
        guard: String,
        /// `on`.
        watches: bool,
    },
}

/// A text that sets nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No `NAME=VALUE`.
    #[error("`{0}` is not NAME=VALUE")]
    NoValue(String),
    /// A name that can't be set.
    #[error("`{0}` can't be set; what can: `deadline`, `max_write_gap`, `guard.ID`")]
    Unknown(String),
    /// No deadline.
    #[error(transparent)]
    Deadline(#[from] DeadlineError),
    /// No duration.
    #[error("`max_write_gap`: {0}")]
    Duration(#[from] QuantityError),
    /// Writes can't be held for no time.
    #[error("`max_write_gap` of nothing would let no cutover through; `hold-cutover` keeps one back")]
    NoGap,
    /// A guard is on or off.
    #[error("`{0}` can be `on` or `off`")]
    NeitherOnNorOff(String),
}

impl Setting {
    /// Reads what a person writes, now.
    ///
    /// # Errors
    /// If it is no name that can be set, or no value of it.
    pub fn parse(text: &str, now: &ZonedDateTime) -> Result<Setting, SettingError> {
        let (name, value) = text.split_once('=').ok_or_else(|| SettingError::NoValue(text.to_owned()))?;
        let (name, value) = (name.trim(), value.trim());
        match (name, name.strip_prefix("guard.")) {
            ("deadline", _) => {
                let Deadline { text, until } = Deadline::parse(value, now)?;
                Ok(Setting::Deadline { text, until, instead_of: None })
            }
            ("max_write_gap", _) => {
                let limit: HumanDuration = value.parse()?;
                match u64::try_from(limit.0.as_millis()) {
                    Ok(milliseconds @ 1..) => Ok(Setting::MaxWriteGap { milliseconds, instead_of: None }),
                    _ => Err(SettingError::NoGap),
                }
            }
            (_, Some(guard)) => {
                let watches = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(SettingError::NeitherOnNorOff(name.to_owned())),
                };
                Ok(Setting::Guard { guard: guard.to_owned(), watches })
            }
            _ => Err(SettingError::Unknown(name.to_owned())),
        }
    }
}

/// A write gap's limit, as it is written.
pub(in crate::engine) fn gap(milliseconds: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(milliseconds))
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Deadline { text, .. } => write!(f, "deadline={text}"),
            Setting::MaxWriteGap { milliseconds, .. } => write!(f, "max_write_gap={}", gap(*milliseconds)),
            Setting::Guard { guard, watches } => write!(f, "guard.{guard}={}", if *watches { "on" } else { "off" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_what_nobody_means_is_named() {
        let now: ZonedDateTime = "2026-11-23T20:00:00[Europe/Berlin]".parse().unwrap();
        for (text, shown) in [
            ("deadline=06:00 UTC", "deadline=06:00 UTC"),
            (" max_write_gap = 2500ms", "max_write_gap=2s500ms"),
            ("guard.lag=off", "guard.lag=off"),
            ("guard.a.b=on", "guard.a.b=on"),
        ] {
            assert_eq!(Setting::parse(text, &now).unwrap().to_string(), shown);
        }
        for (text, words) in [
            ("deadline", "is not NAME=VALUE"),
            ("deadline=", "is not a deadline"),
            ("deadline=2020-01-01T00:00:00Z", "already passed"),
            ("max_write_gap=0s", "of nothing"),
            ("max_write_gap=soon", "max_write_gap"),
            ("guard.lag=quiet", "`on` or `off`"),
            ("readers=7", "`deadline`, `max_write_gap`, `guard.ID`"),
            ("=", "can't be set"),
        ] {
            let error = Setting::parse(text, &now).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
