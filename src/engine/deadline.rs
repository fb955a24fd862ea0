//! The deadline: a duration or a moment on somebody's wall clock.
//!
//! A person says `16h`, `06:00`, `06:00 Europe/Berlin`, `2026-11-24T06:00[America/New_York]` or
//! `2026-11-24T05:00:00Z`. All of them become one moment, once, when the run is asked to keep it; inside, time is
//! measured by the monotonic clock, so that a step of the wall clock in the night neither lengthens nor shortens it.
//! A time of day without a date means the next time the clock shows it; across a change to or from summer time
//! that is what the wall clock shows, not a count of hours.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

/// By when everything that remains must be done or undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// As given.
    pub text: String,
    /// The moment.
    pub until: Timestamp,
}

/// A text that is no deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadlineError {
    /// Neither a duration nor a time.
    #[error(
        "`{0}` is not a deadline: expected a duration (`16h`, `90m`), a time of day (`06:00`, `06:00 Europe/Berlin`) or a moment (`2026-11-24T06:00[Europe/Berlin]`)"
    )]
    Unreadable(String),
    /// A time zone nobody knows.
    #[error("`{zone}` in the deadline `{text}` is not a known time zone: expected a name like `Europe/Berlin` or `UTC`")]
    UnknownZone {
        /// The whole text.
        text: String,
        /// The part that was read as a zone.
        zone: String,
    },
    /// Already over.
    #[error("the deadline `{text}` ({until}) has already passed")]
    Passed {
        /// As given.
        text: String,
        /// The moment it names.
        until: Timestamp,
    },
}

/// Reads a duration as people write it: `16h`, `30s`, `250ms`, `1h30m`, `7d`. No sign, no months.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
    }
    Some(total)
}

impl Deadline {
    /// Reads a deadline as a person writes it, counted from `now` and, where no zone is named, in `now`'s zone.
    ///
    /// # Errors
    /// If it can't be read, or has already passed.
    pub fn parse(text: &str, now: &ZonedDateTime) -> Result<Deadline, DeadlineError> {
        let text = text.trim();
        if let Some(duration) = parse_duration(text) {
            let span = SignedDuration::try_from(duration).map_err(|_| DeadlineError::Unreadable(text.to_owned()))?;
            let until = now.timestamp().checked_add(span).map_err(|_| DeadlineError::Unreadable(text.to_owned()))?;
            return Ok(Deadline { text: text.to_owned(), until });
        }
        let until = Self::moment(text, now)?;
        if until <= now.timestamp() {
            return Err(DeadlineError::Passed { text: text.to_owned(), until });
        }
        Ok(Deadline { text: text.to_owned(), until })
    }

    fn moment(text: &str, now: &ZonedDateTime) -> Result<Timestamp, DeadlineError> {
        if let Ok(zoned) = text.parse::<ZonedDateTime>() {
            return Ok(zoned.timestamp());
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(moment);
        }
        let unreadable = || DeadlineError::Unreadable(text.to_owned());
        let (time_text, zone) = match text.rsplit_once(' ') {
            Some((time, zone)) if !zone.contains(':') => {
                let zone = TimeZone::get(zone).map_err(|_| DeadlineError::UnknownZone { text: text.to_owned(), zone: zone.to_owned() })?;
                (time.trim(), zone)
            }
            _ => (text, now.time_zone().clone()),
        };
        if let Ok(moment) = time_text.parse::<jiff::civil::DateTime>() {
            return Ok(zone.to_zoned_datetime(moment).map_err(|_| unreadable())?.timestamp());
        }
        // `16` is more likely a forgotten unit than four in the afternoon.
        if !time_text.contains(':') {
            return Err(unreadable());
        }
        let time: Time = time_text.parse().map_err(|_| unreadable())?;
        let today = now.with_time_zone(zone.clone()).date();
        for date in [today, today.tomorrow().map_err(|_| unreadable())?] {
            let candidate = zone.to_zoned_datetime(date.to_datetime(time)).map_err(|_| unreadable())?.timestamp();
            if candidate > now.timestamp() {
                return Ok(candidate);
            }
        }
        Err(unreadable())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn berlin(text: &str) -> ZonedDateTime {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    fn until(text: &str, now: &str) -> String {
        Deadline::parse(text, &berlin(now)).unwrap().until.to_string()
    }

    #[test]
    fn durations_and_moments_are_read() {
        let now = "2026-11-23T20:00:00";
        for (text, moment) in [
            ("16h", "2026-11-24T11:00:00Z"),
            ("1h30m", "2026-11-23T20:30:00Z"),
            ("250ms", "2026-11-23T19:00:00.25Z"),
            ("06:00", "2026-11-24T05:00:00Z"),
            ("21:00", "2026-11-23T20:00:00Z"),
            ("06:00 UTC", "2026-11-24T06:00:00Z"),
            ("06:00 America/New_York", "2026-11-24T11:00:00Z"),
            ("2026-11-24T06:00[America/New_York]", "2026-11-24T11:00:00Z"),
            ("2026-11-24T05:00:00Z", "2026-11-24T05:00:00Z"),
            ("2026-11-24 06:00", "2026-11-24T05:00:00Z"),
        ] {
            assert_eq!(until(text, now), moment, "{text}");
        }
    }

    #[test]
    fn a_time_of_day_is_what_the_clock_on_the_wall_shows() {
        // Summer time ends in this night: from 20:00 to 06:00 it is eleven hours.
        assert_eq!(until("06:00", "2026-10-24T20:00:00"), "2026-10-25T05:00:00Z");
        assert_eq!(until("10h", "2026-10-24T20:00:00"), "2026-10-25T04:00:00Z");
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let now = berlin("2026-11-23T20:00:00");
        assert!(matches!(Deadline::parse("soon", &now), Err(DeadlineError::Unreadable(_))));
        assert!(matches!(Deadline::parse("-3h", &now), Err(DeadlineError::Unreadable(_))));
        assert!(matches!(Deadline::parse("16", &now), Err(DeadlineError::Unreadable(_))));
        assert!(matches!(Deadline::parse("06:00 Middle/Earth", &now), Err(DeadlineError::UnknownZone { .. })));
        assert!(matches!(Deadline::parse("2020-01-01T00:00:00Z", &now), Err(DeadlineError::Passed { .. })));
        assert_eq!(parse_duration(""), None);
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
    }
}
