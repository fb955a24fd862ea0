//! The deadline: a duration or a moment on somebody's wall clock.
//!
//! A person says `16h`, `06:00`, `06:00 Europe/Berlin`, `06:00+02:00`, `2026-11-24T06:00[America/New_York]` or
//! `2026-11-24T05:00:00Z`. All of them become one moment, once, when the run is asked to keep it; inside, time is
//! measured by the monotonic clock, so that a step of the wall clock in the night neither lengthens nor shortens it.
//! A time of day without a date means the next time the clock shows it; across a change to or from summer time
//! that is what the wall clock shows, not a count of hours.
//!
//! # How long a deadline that was given counts
//!
//! It is a promise about one night's attempt: by this moment clients are on the target, or all is as before. The run keeps it
//! ([`KeptDeadline`]), because an attempt may take several drivers. What follows is by what was said and what became of it:
//!
//! * *Other words are another promise*, at once. So is a moment that is set by `dbmove ctl`, which stands for the words it took the place of.
//! * *The same words, or none, mean the same moment as long as it lies ahead* (the playbook's own are no words of a person's), whatever ended the driver: a crash, Ctrl-C, a gate, a
//!   failure, a refusal because too little time is left. A command that comes back by itself or by habit must not carry the switch
//!   into the morning.
//! * *A moment that has passed* is over if the driver that worked towards it ended in order: whoever gives the same words on the next evening means
//!   that evening. If it died without a word, the same words are refused: a supervisor may have said them, a minute behind
//!   the moment. That refusal doesn't end the promise either; a person ends it with other words.
//! * *Nothing was promised* if no step began under it: a deadline that was refused at the door is forgotten.
//! * *Behind the switch* nothing is undone for a deadline, so there it is forgotten too.
//! * *A command that ends before the cutover* (`dbmove run`, `dbmove verify`) has no deadline and goes by none; it leaves one that
//!   stands to the next cutover.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use serde::{Deserialize, Serialize};

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
        "`{0}` is not a deadline: expected a duration (`16h`, `90m`), a time of day (`06:00`, `06:00 Europe/Berlin`, `06:00+02:00`) or a moment (`2026-11-24T06:00[Europe/Berlin]`)"
    )]
    Unreadable(String),
    /// A time zone nobody knows.
    #[error(
        "`{zone}` in the deadline `{text}` is not a known time zone: expected a name like `Europe/Berlin` or `UTC`, or an offset like `+02:00`"
    )]
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
        let (time_text, zone) = match written_zone(text) {
            Some((time, zone)) => {
                let known = if zone.eq_ignore_ascii_case("z") { Ok(TimeZone::UTC) } else { DateTimeParser::new().parse_time_zone(zone) };
                (time, known.map_err(|_| DeadlineError::UnknownZone { text: text.to_owned(), zone: zone.to_owned() })?)
            }
            None => (text, now.time_zone().clone()),
        };
        // What else stands there the parsers of civil times would read and leave out.
        if !time_text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.T ".contains(&byte)) {
            return Err(unreadable());
        }
        if let Ok(moment) = time_text.parse::<DateTime>() {
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

/// The zone or offset behind a time, and what stands before it: `06:00 Europe/Berlin`, `06:00[Europe/Berlin]`, `06:00+02:00`, `06:00Z`.
fn written_zone(text: &str) -> Option<(&str, &str)> {
    if let Some((time, zone)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        return Some((time.trim_end(), zone));
    }
    // A date has hyphens of its own, but stands before the first colon.
    let behind = text.find(':')?;
    let at = behind + text[behind..].find(|c: char| c.is_alphabetic() || c == '+' || c == '-')?;
    Some((text[..at].trim_end(), &text[at..]))
}

/// How far a run has come with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// No step has begun under it.
    Given,
    /// Steps have begun under it.
    UnderWay,
    /// The driver that worked towards it died.
    Died,
    /// The driver that worked towards it ended in order.
    Ended,
}

/// A deadline that a run was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDeadline {
    /// As given.
    pub text: String,
    /// The moment.
    pub until: Timestamp,
    /// When it was given.
    pub given: Timestamp,
    /// What became of it.
    pub attempt: Attempt,
    /// True while whoever drives the run goes by it.
    pub bounds: bool,
}

/// What a deadline that a run was given means to the next driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Nothing: the driver's own words count, from now.
    Not,
    /// It goes by it.
    Still,
    /// It has passed, and nobody has said so yet.
    Passed,
}

impl KeptDeadline {
    /// One that was given now.
    #[must_use]
    pub fn given(text: &str, until: Timestamp, given: Timestamp) -> KeptDeadline {
        KeptDeadline { text: text.to_owned(), until, given, attempt: Attempt::Given, bounds: true }
    }

    /// A driver has entered the run, one that goes to the cutover or one that ends before it.
    pub(super) fn entered(&mut self, to_cutover: bool) {
        self.bounds = to_cutover;
        if self.attempt == Attempt::UnderWay {
            self.attempt = Attempt::Died;
        }
        // Whoever goes on without it has looked.
        if !to_cutover && self.attempt == Attempt::Died {
            self.attempt = Attempt::Ended;
        }
    }

    /// A step begins.
    pub(super) fn worked(&mut self) {
        if self.bounds {
            self.attempt = Attempt::UnderWay;
        }
    }

    /// The driver ends in order. False if there was no promise.
    pub(super) fn ended(&mut self) -> bool {
        if self.attempt == Attempt::UnderWay {
            self.attempt = Attempt::Ended;
        }
        self.attempt != Attempt::Given
    }

    /// What it means to a driver that comes now with these words, or with none. `stands_for`: the words that a person set it in place of.
    #[must_use]
    pub fn counts(&self, asked: Option<&str>, stands_for: Option<&str>, now: Timestamp) -> Counts {
        let same = asked.is_none_or(|asked| asked == self.text || Some(asked) == stands_for);
        match self.attempt {
            Attempt::Given => Counts::Not,
            _ if !same => Counts::Not,
            _ if self.until > now => Counts::Still,
            Attempt::UnderWay | Attempt::Died => Counts::Passed,
            Attempt::Ended => Counts::Not,
        }
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
            ("06:00+03:00", "2026-11-24T03:00:00Z"),
            ("06:00 -03:30", "2026-11-24T09:30:00Z"),
            ("06:00Z", "2026-11-24T06:00:00Z"),
            ("06:00[America/New_York]", "2026-11-24T11:00:00Z"),
            ("2026-11-24T06:00-05:00", "2026-11-24T11:00:00Z"),
            ("2026-11-24 06:00 America/New_York", "2026-11-24T11:00:00Z"),
            ("2026-11-24 06:00[America/New_York]", "2026-11-24T11:00:00Z"),
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
        assert!(matches!(Deadline::parse("06:00[Middle/Earth]", &now), Err(DeadlineError::UnknownZone { .. })));
        assert!(matches!(Deadline::parse("06:00+2", &now), Err(DeadlineError::UnknownZone { .. })));
        // Two of them, of which one would be left out.
        assert!(matches!(Deadline::parse("06:00+05:00[Europe/Berlin]", &now), Err(DeadlineError::Unreadable(_))));
        assert!(matches!(Deadline::parse("2026-11-24T06:00+05:00 Europe/Berlin", &now), Err(DeadlineError::UnknownZone { .. })));
        assert!(matches!(Deadline::parse("2020-01-01T00:00:00Z", &now), Err(DeadlineError::Passed { .. })));
        assert_eq!(parse_duration(""), None);
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
    }

    /// The rule at the head of this file, case by case: what happened, what is said again, before the moment and behind it.
    #[test]
    fn a_deadline_counts_as_long_as_its_night() {
        let at = |hour: i64| Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_hours(hour)).unwrap();
        let given = KeptDeadline::given("16h", at(16), at(0));
        let worked = |what: &dyn Fn(&mut KeptDeadline)| {
            let mut kept = given.clone();
            kept.worked();
            what(&mut kept);
            [Some("16h"), None, Some("18h")].map(|asked| [at(15), at(17)].map(|now| kept.counts(asked, None, now)))
        };
        let (not, still, passed) = (Counts::Not, Counts::Still, Counts::Passed);
        let by_words = |ahead, behind| [[ahead, behind], [ahead, behind], [not, not]];
        assert_eq!(worked(&|kept| kept.entered(true)), by_words(still, passed), "killed");
        assert_eq!(worked(&|kept| assert!(kept.ended())), by_words(still, not), "ended in order");
        let refused = |kept: &mut KeptDeadline| {
            kept.entered(true);
            assert!(kept.ended());
            kept.entered(true);
        };
        assert_eq!(worked(&refused), by_words(still, passed), "killed, then refused at the door");
        let went_on = |kept: &mut KeptDeadline| {
            kept.entered(true);
            kept.worked();
            assert!(kept.ended());
        };
        assert_eq!(worked(&went_on), by_words(still, not), "killed, then gone on");
        let followed = |kept: &mut KeptDeadline| {
            kept.entered(false);
            kept.worked();
            kept.entered(true);
        };
        assert_eq!(worked(&followed), by_words(still, not), "killed, then a command without it");
        assert_eq!(given.counts(Some("16h"), None, at(15)), not, "nothing began under it");
        assert!(!given.clone().ended(), "refused at the door");
        let mut set = given;
        set.worked();
        assert_eq!(set.counts(Some("8h"), Some("8h"), at(15)), still, "set in place of `8h`");
    }
}
