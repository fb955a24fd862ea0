//! Durations, counts and rates as people read them: short, and no more exact than is of use.

use std::time::Duration;

/// `250ms`, `4.2s`, `48s`, `3m20s`, `11h02m`, `3d04h`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    if duration < Duration::from_millis(9_950) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    let seconds = u64::try_from((milliseconds + 500) / 1000).unwrap_or(u64::MAX);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// The same for seconds as the journal keeps them. What is no duration (negative, not a number) is `?`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "?".to_owned(), duration)
}

/// `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `512 B`, `3.4 MiB`, `120 GiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// An amount in its unit: `1,234 rows`, but bytes as `3.4 MiB`.
#[must_use]
pub fn amount(number: u64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(number),
        "" => count(number),
        // Units are named in the plural.
        unit if number == 1 => format!("1 {}", unit.strip_suffix('s').unwrap_or(unit)),
        unit => format!("{} {unit}", count(number)),
    }
}

/// `52k/s`, `410/s`, `0.4/s`; bytes as `38 MiB/s`.
#[must_use]
pub fn rate(per_second: f64, unit: &str) -> String {
    if !per_second.is_finite() || per_second < 0.0 {
        return "?/s".to_owned();
    }
    if unit == "bytes" {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, and saturating
        return format!("{}/s", bytes(per_second as u64));
    }
    match per_second {
        r if r < 9.95 => format!("{r:.1}/s"),
        r if r < 9_999.5 => format!("{r:.0}/s"),
        r if r < 999_500.0 => format!("{:.0}k/s", r / 1000.0),
        r => format!("{:.1}M/s", r / 1_000_000.0),
    }
}

/// Breaks lines that are longer than so many columns at their blanks, and indents what follows like the line and two more. A
/// word that is too long stays whole, so that it can be copied.
#[must_use]
pub fn wrapped(text: &str, columns: usize) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / 40);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        if line.chars().count() <= columns {
            wrapped.push_str(line);
            wrapped.push_str(end);
            continue;
        }
        let indent: String = line.chars().take_while(|c| *c == ' ').chain("  ".chars()).collect();
        let mut used = 0;
        let mut begun = false;
        // The first piece keeps the line's own indentation and inner blanks.
        for word in line.split_inclusive(' ') {
            let width = word.trim_end().chars().count();
            if begun && used + width > columns {
                let kept = wrapped.trim_end_matches(' ').len();
                wrapped.truncate(kept);
                wrapped.push('\n');
                wrapped.push_str(&indent);
                used = indent.chars().count();
            }
            wrapped.push_str(word);
            used += word.chars().count();
            begun |= width > 0;
        }
        wrapped.push_str(end);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (250, "250ms"),
            (4_200, "4.2s"),
            (9_960, "10s"),
            (59_400, "59s"),
            (59_600, "1m"),
            (200_000, "3m20s"),
            (360_000, "6m"),
            (39_720_000, "11h02m"),
            (86_400_000 * 3 + 4 * 3_600_000, "3d04h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(seconds(-1.0), "?");
        assert_eq!(seconds(f64::NAN), "?");
    }

    #[test]
    fn long_lines_are_broken_at_blanks() {
        assert_eq!(wrapped("short\n", 10), "short\n");
        assert_eq!(wrapped("  one two three four\nx\n", 12), "  one two\n    three\n    four\nx\n");
        assert_eq!(wrapped("a 0123456789abcdef\n", 10), "a\n  0123456789abcdef\n");
        assert!(wrapped(&"word ".repeat(100), 40).lines().all(|line| line.chars().count() <= 40));
    }

    #[test]
    fn counts_bytes_and_rates() {
        assert_eq!([count(0), count(999), count(1_000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([bytes(512), bytes(1536), bytes(5 << 30)], ["512 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(
            [rate(0.42, "rows"), rate(410.0, "rows"), rate(52_000.0, "rows"), rate(38.0 * 1048576.0, "bytes")],
            ["0.4/s", "410/s", "52k/s", "38 MiB/s"]
        );
        assert_eq!(rate(f64::INFINITY, "rows"), "?/s");
        assert_eq!([amount(1_200, "rows"), amount(1, "rows")], ["1,200 rows", "1 row"]);
    }
}
