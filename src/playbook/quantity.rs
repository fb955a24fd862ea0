//! Durations, sizes and rates as people write them: `16h`, `1h30m`, `250ms`; `4MiB`, `512KiB`, `1GB`; `20MiB/s`.
//!
//! A number without a unit is refused: nobody can tell whether `30` is seconds or minutes, and a
//! deadline is no place to guess. Parts of a duration go from large to small and each unit comes
//! once, so that `1m30h` (surely a slip) is an error and not 30 hours and a minute. Writing back
//! ([`fmt::Display`]) gives the shortest text that parses to the same value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::model::{DurationText, SizeText};

/// The `format` that marks a duration in the JSON Schema.
pub(crate) const DURATION_FORMAT: &str = "dbmove-duration";
/// The `format` that marks a size in the JSON Schema.
pub(crate) const SIZE_FORMAT: &str = "dbmove-size";
/// The `format` that marks a rate in the JSON Schema.
pub(crate) const RATE_FORMAT: &str = "dbmove-rate";
/// What a duration looks like, for editors. [`HumanDuration::from_str`] is stricter.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$";
/// What a size looks like, for editors.
pub(crate) const SIZE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$";

/// What a rate looks like, for editors.
pub(crate) const RATE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)/s$";

/// The units of a duration, large to small, in milliseconds.
const DURATION_UNITS: [(&str, u128); 6] = [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The units of a size in bytes: the powers of 1024 first, so that writing back prefers them.
const SIZE_UNITS: [(&str, u128); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

/// The longest duration: a century in milliseconds. More is surely a slip.
const LONGEST_MILLISECONDS: u128 = 100 * 366 * 86_400_000;

/// A text that is no duration, size or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {reason}")]
pub struct QuantityError {
    /// What was wanted: `duration`, `size` or `rate`.
    pub what: &'static str,
    /// The text as written.
    pub text: String,
    /// Why it is none.
    pub reason: String,
}

impl QuantityError {
    /// How the quantity is written, as a hint.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.what {
            "duration" => "write a duration such as `16h`, `30s`, `250ms`, `1h30m` or `7d`; units are w, d, h, m, s, ms",
            "rate" => "write how much in a second, such as `20MiB/s`; units are B, kB, MB, GB, TB and KiB, MiB, GiB, TiB",
            _ => "write a size such as `512KiB`, `4MiB` or `1GB`; units are B, kB, MB, GB, TB and KiB, MiB, GiB, TiB",
        }
    }
}

/// A duration that reads and writes itself as people do. For arguments of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// A size in bytes that reads and writes itself as people do. For arguments of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanSize(pub u64);

/// Bytes in a second, never 0, that read and write themselves as people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanRate(pub u64);

/// Splits `12.5` off the front: its digits as a whole number, how many of them are decimals, and the rest.
fn number(text: &str) -> Option<(u128, u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(end);
    let mut decimals = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        (decimals, rest) = after.split_at(end);
        if decimals.is_empty() {
            return None;
        }
    }
    if whole.is_empty() || whole.len() > 20 || decimals.len() > 6 {
        return None;
    }
    let digits = format!("{whole}{decimals}").parse().ok()?;
    Some((digits, u32::try_from(decimals.len()).ok()?, rest))
}

/// `digits / 10^decimals * unit`, if that is a whole number.
fn scaled(digits: u128, decimals: u32, unit: u128) -> Option<u128> {
    let (product, divisor) = (digits.checked_mul(unit)?, 10u128.pow(decimals));
    product.is_multiple_of(divisor).then(|| product / divisor)
}

impl FromStr for HumanDuration {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = |reason: String| QuantityError { what: "duration", text: text.to_owned(), reason };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(error("it is empty".to_owned()));
        }
        let (mut total, mut last) = (0u128, None);
        while !rest.is_empty() {
            let Some((digits, decimals, after)) = number(rest) else {
                return Err(error(format!("a number was expected at `{rest}`")));
            };
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            if unit.is_empty() {
                return Err(error("a number has no unit".to_owned()));
            }
            let Some(index) = DURATION_UNITS.iter().position(|&(name, _)| name == unit) else {
                return Err(error(format!("there is no unit `{unit}`")));
            };
            if last.is_some_and(|last| index <= last) {
                return Err(error("units go from large to small, each once".to_owned()));
            }
            last = Some(index);
            let part =
                scaled(digits, decimals, DURATION_UNITS[index].1).ok_or_else(|| error("parts of a millisecond are too fine".to_owned()))?;
            total += part;
            rest = after;
        }
        if total > LONGEST_MILLISECONDS {
            return Err(error("it is longer than a century".to_owned()));
        }
        let milliseconds = u64::try_from(total).map_err(|_| error("it is too long".to_owned()))?;
        Ok(HumanDuration(Duration::from_millis(milliseconds)))
    }
}

impl fmt::Display for HumanDuration {
    /// Whole milliseconds; what is finer is cut off. Weeks are written as days.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in &DURATION_UNITS[1..] {
            if left >= *length {
                write!(f, "{}{unit}", left / length)?;
                left %= length;
            }
        }
        Ok(())
    }
}

impl FromStr for HumanSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = |reason: &str| QuantityError { what: "size", text: text.to_owned(), reason: reason.to_owned() };
        let trimmed = text.trim();
        let Some((digits, decimals, rest)) = number(trimmed) else {
            return Err(error(if trimmed.is_empty() { "it is empty" } else { "a number was expected first" }));
        };
        let unit = rest.strip_prefix(' ').unwrap_or(rest);
        if unit.is_empty() {
            return Err(error("it has no unit"));
        }
        let Some(&(_, length)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(error(&format!("there is no unit `{unit}`")));
        };
        let bytes = scaled(digits, decimals, length).ok_or_else(|| error("it is no whole number of bytes"))?;
        u64::try_from(bytes).map(HumanSize).map_err(|_| error("it is too large"))
    }
}

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = u128::from(self.0);
        let whole =
            SIZE_UNITS.iter().filter(|(_, length)| bytes > 0 && bytes.is_multiple_of(*length)).min_by_key(|(_, length)| bytes / length);
        match whole {
            Some((unit, length)) => write!(f, "{}{unit}", bytes / length),
            None => write!(f, "{bytes}B"),
        }
    }
}

impl FromStr for HumanRate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = |reason: String| QuantityError { what: "rate", text: text.to_owned(), reason };
        let amount = text.trim().strip_suffix("/s").ok_or_else(|| error("it does not end with `/s`".to_owned()))?;
        match amount.parse::<HumanSize>() {
            Ok(HumanSize(0)) => Err(error("nothing in a second never ends".to_owned())),
            Ok(HumanSize(bytes)) => Ok(HumanRate(bytes)),
            Err(wrong) => Err(error(wrong.reason)),
        }
    }
}

impl fmt::Display for HumanRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", HumanSize(self.0))
    }
}

macro_rules! written_as_text {
    ($name:ident, $schema_name:literal, $format:expr, $pattern:expr, $about:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($schema_name)
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "type": "string", "description": $about, "format": $format, "pattern": $pattern })
            }
        }
    };
}

written_as_text!(HumanDuration, "Duration", DURATION_FORMAT, DURATION_PATTERN, "A duration such as `16h`, `30s`, `250ms`, `1h30m`.");
written_as_text!(HumanSize, "Size", SIZE_FORMAT, SIZE_PATTERN, "A size such as `512KiB`, `4MiB`, `1GB`.");

written_as_text!(HumanRate, "Rate", RATE_FORMAT, RATE_PATTERN, "Bytes in a second, such as `20MiB/s`.");

impl DurationText {
    /// The duration that is meant.
    ///
    /// # Errors
    /// If the text is no duration.
    pub fn parse(&self) -> Result<Duration, QuantityError> {
        self.0.parse::<HumanDuration>().map(|duration| duration.0)
    }
}

impl SizeText {
    /// The size in bytes that is meant.
    ///
    /// # Errors
    /// If the text is no size.
    pub fn parse(&self) -> Result<u64, QuantityError> {
        self.0.parse::<HumanSize>().map(|size| size.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        assert_eq!("20MiB/s".parse(), Ok(HumanRate(20 << 20)));
        assert_eq!(HumanRate(20 << 20).to_string(), "20MiB/s");
        for wrong in ["", "20MiB", "0B/s", "fast/s", "/s", "20/s", "-1MB/s"] {
            assert_eq!(wrong.parse::<HumanRate>().unwrap_err().what, "rate", "{wrong}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("16h", 57_600_000),
            ("30s", 30_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1.5h", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().0, Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            ("30", "a number has no unit"),
            ("30x", "there is no unit `x`"),
            ("1m30h", "units go from large to small, each once"),
            ("1h1h", "units go from large to small, each once"),
            ("h", "a number was expected at `h`"),
            ("-3s", "a number was expected at `-3s`"),
            ("1.h", "a number was expected at `1.h`"),
            ("0.5ms", "parts of a millisecond are too fine"),
            ("99999999w", "it is longer than a century"),
            ("99999999999999999999h", "it is longer than a century"),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn sizes_read_and_refuse() {
        for (text, bytes) in [("4MiB", 4 << 20), ("512KiB", 512 << 10), ("1GB", 1_000_000_000), ("1.5 KiB", 1536), ("0B", 0)] {
            assert_eq!(text.parse::<HumanSize>().unwrap().0, bytes, "{text}");
        }
        for (text, reason) in [
            ("", "it is empty"),
            ("4", "it has no unit"),
            ("4mib", "there is no unit `mib`"),
            ("0.3B", "it is no whole number of bytes"),
            ("999999999999999TiB", "it is too large"),
            ("MiB", "a number was expected first"),
        ] {
            assert_eq!(text.parse::<HumanSize>().unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn writing_back_reads_the_same() {
        for milliseconds in [0, 1, 999, 1000, 61_001, 86_400_000, 90_061_001, 604_800_000] {
            let duration = HumanDuration(Duration::from_millis(milliseconds));
            assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration);
        }
        assert_eq!(HumanDuration(Duration::from_secs(5400)).to_string(), "1h30m");
        for bytes in [0, 1, 1000, 1024, 1025, 4 << 20, 1_000_000_000, u64::MAX] {
            let size = HumanSize(bytes);
            assert_eq!(size.to_string().parse::<HumanSize>().unwrap(), size);
        }
        assert_eq!(HumanSize(4 << 20).to_string(), "4MiB");
        assert_eq!(HumanSize(1_000_000_000).to_string(), "1GB");
    }
}
