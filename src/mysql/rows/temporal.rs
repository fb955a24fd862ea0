//! Dates and times as stored, printed as the server prints them in UTC.
//!
//! Two generations: until 5.5 decimal numbers (`hhhmmss`, `YYYYMMDDhhmmss`) and a plain Unix time;
//! from 5.6 on packed bits with up to six fractional digits, offset so that bytes sort. A zero date,
//! a month 00 or a day 00 is a value like any other and is printed, not judged.

use super::reader::{Broken, Reader};

/// DATE: three bytes, day in five bits, month in four, year above.
pub(super) fn date(reader: &mut Reader<'_>) -> Result<Vec<u8>, Broken> {
    let packed = reader.little(3)?;
    Ok(format!("{:04}-{:02}-{:02}", packed >> 9, packed >> 5 & 15, packed & 31).into_bytes())
}

/// YEAR: years since 1900, 0 for the year 0000. YEAR(2) holds two digits only (the server prints no
/// more), which mean 1970 to 2069.
pub(super) fn year(reader: &mut Reader<'_>, two_digits: bool) -> Result<Vec<u8>, Broken> {
    let stored = u16::from(reader.byte()?);
    let year = match (two_digits, stored) {
        (false, 0) => 0,
        (false, stored) => 1900 + stored,
        (true, stored) => match stored % 100 {
            short @ 0..70 => 2000 + short,
            short => 1900 + short,
        },
    };
    Ok(format!("{year:04}").into_bytes())
}

/// TIME until 5.5: a signed number `hhhmmss` in three bytes.
pub(super) fn old_time(reader: &mut Reader<'_>) -> Result<Vec<u8>, Broken> {
    let number = reader.little_signed(3)?;
    let (sign, number) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    Ok(format!("{sign}{:02}:{:02}:{:02}", number / 10_000, number / 100 % 100, number % 100).into_bytes())
}

/// DATETIME until 5.5: a number `YYYYMMDDhhmmss` in eight bytes.
pub(super) fn old_datetime(reader: &mut Reader<'_>) -> Result<Vec<u8>, Broken> {
    let number = reader.little(8)?;
    if number > 99_991_231_235_959 {
        return Err(Broken::new(format!("{number} is no DATETIME")));
    }
    let (date, time) = (number / 1_000_000, number % 1_000_000);
    Ok(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date / 10_000,
        date / 100 % 100,
        date % 100,
        time / 10_000,
        time / 100 % 100,
        time % 100
    )
    .into_bytes())
}

/// TIMESTAMP until 5.5: seconds since 1970, lowest byte first; 0 is the zero date.
pub(super) fn old_timestamp(reader: &mut Reader<'_>) -> Result<Vec<u8>, Broken> {
    Ok(unix_time(reader.little(4)?).into_bytes())
}

/// TIMESTAMP from 5.6: seconds since 1970, highest byte first, and a fraction.
pub(super) fn timestamp(reader: &mut Reader<'_>, digits: u8) -> Result<Vec<u8>, Broken> {
    let seconds = reader.big(4)?;
    let micros = fraction(reader, digits)?;
    let mut text = if seconds == 0 && micros != 0 { "1970-01-01 00:00:00".to_owned() } else { unix_time(seconds) };
    push_fraction(&mut text, micros, digits);
    Ok(text.into_bytes())
}

/// DATETIME from 5.6: year*13+month, day, hour, minute, second packed in 40 bits, and a fraction.
pub(super) fn datetime(reader: &mut Reader<'_>, digits: u8) -> Result<Vec<u8>, Broken> {
    let packed = reader.big(5)?;
    let micros = fraction(reader, digits)?;
    let packed = packed.checked_sub(0x80_0000_0000).ok_or_else(|| Broken::new("a DATETIME is negative"))?;
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let (months, day) = (date >> 5, date & 31);
    let mut text = format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", months / 13, months % 13, day, time >> 12, time >> 6 & 63, time & 63);
    push_fraction(&mut text, micros, digits);
    Ok(text.into_bytes())
}

/// TIME from 5.6: hour, minute, second packed in 24 bits with the fraction behind, one number offset
/// by its middle; below the middle it is negative as a whole.
pub(super) fn time(reader: &mut Reader<'_>, digits: u8) -> Result<Vec<u8>, Broken> {
    let bytes = fraction_bytes(digits)?;
    let stored = reader.big(3 + bytes)? as i64;
    let number = stored - (0x80_0000 << (8 * bytes));
    let (sign, number) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let (whole, part) = (number >> (8 * bytes), number & ((1 << (8 * bytes)) - 1));
    let mut text = format!("{sign}{:02}:{:02}:{:02}", whole >> 12 & 0x3ff, whole >> 6 & 63, whole & 63);
    push_fraction(&mut text, micros(part, bytes)?, digits);
    Ok(text.into_bytes())
}

/// Bytes that hold so many fractional digits: two digits a byte.
fn fraction_bytes(digits: u8) -> Result<usize, Broken> {
    if digits > 6 {
        return Err(Broken::new(format!("{digits} fractional digits do not exist")));
    }
    Ok(usize::from(digits.div_ceil(2)))
}

fn fraction(reader: &mut Reader<'_>, digits: u8) -> Result<u64, Broken> {
    let bytes = fraction_bytes(digits)?;
    micros(reader.big(bytes)?, bytes)
}

/// Microseconds from hundredths, ten-thousandths or millionths.
fn micros(part: u64, bytes: usize) -> Result<u64, Broken> {
    let micros = part * [0, 10_000, 100, 1][bytes];
    if micros > 999_999 {
        return Err(Broken::new(format!("{part} is no fraction of a second")));
    }
    Ok(micros)
}

fn push_fraction(text: &mut String, micros: u64, digits: u8) {
    if digits > 0 {
        text.push('.');
        text.push_str(&format!("{micros:06}")[..usize::from(digits)]);
    }
}

/// Seconds since 1970 in UTC; 0 is the zero date.
fn unix_time(seconds: u64) -> String {
    if seconds == 0 {
        return "0000-00-00 00:00:00".to_owned();
    }
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, by 400-year eras that start on 1 March (H. Hinnant, "chrono-Compatible
    // Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Vec<u8>, Broken>) -> String {
        String::from_utf8(result.unwrap()).unwrap()
    }

    #[test]
    fn unix_times_over_leap_years_and_centuries() {
        for (seconds, expected) in [
            (0, "0000-00-00 00:00:00"),
            (1, "1970-01-01 00:00:01"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_330_559_999, "2012-02-29 23:59:59"),
            (2_147_483_647, "2038-01-19 03:14:07"),
            (4_294_967_295, "2106-02-07 06:28:15"),
        ] {
            assert_eq!(unix_time(seconds), expected);
        }
    }

    #[test]
    fn new_times_with_fractions_of_both_signs() {
        // Values as MySQL 5.6 stores them: number = ±(hms << 24 | micros), offset by the middle.
        assert_eq!(text(time(&mut Reader::new(&[0x80, 0x00, 0x00]), 0)), "00:00:00");
        assert_eq!(text(time(&mut Reader::new(&[0x7f, 0xff, 0xff]), 0)), "-00:00:01");
        assert_eq!(text(time(&mut Reader::new(&[0x7f, 0xff, 0xff, 0xff]), 2)), "-00:00:00.01");
        assert_eq!(text(time(&mut Reader::new(&[0x80, 0x10, 0x83, 0x00, 0x00, 0x07]), 6)), "01:02:03.000007");
        assert_eq!(text(time(&mut Reader::new(&[0xb4, 0x6e, 0xfb]), 0)), "838:59:59");
        assert_eq!(text(time(&mut Reader::new(&[0x4b, 0x91, 0x05]), 0)), "-838:59:59");
    }

    #[test]
    fn new_datetimes() {
        assert_eq!(text(datetime(&mut Reader::new(&[0x80, 0, 0, 0, 0, 0, 0]), 3)), "0000-00-00 00:00:00.000");
        // 2012-12-15 12:21:12 (the example in the server's manual on internals).
        let months = 2012u64 * 13 + 12;
        let packed = ((months << 5 | 15) << 17 | (12 << 12 | 21 << 6 | 12)) + 0x80_0000_0000;
        assert_eq!(text(datetime(&mut Reader::new(&packed.to_be_bytes()[3..]), 0)), "2012-12-15 12:21:12");
    }

    #[test]
    fn fractions_that_do_not_exist_are_refused() {
        assert!(datetime(&mut Reader::new(&[0x80, 0, 0, 0, 0, 100]), 2).is_err());
        assert!(datetime(&mut Reader::new(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 7).is_err());
        assert!(datetime(&mut Reader::new(&[0x7f, 0, 0, 0, 0]), 0).is_err());
        assert!(old_datetime(&mut Reader::new(&[0xff; 8])).is_err());
    }

    #[test]
    fn years_of_two_digits_are_printed_in_full() {
        assert_eq!(text(year(&mut Reader::new(&[0]), false)), "0000");
        assert_eq!(text(year(&mut Reader::new(&[255]), false)), "2155");
        assert_eq!(text(year(&mut Reader::new(&[169]), true)), "2069");
        assert_eq!(text(year(&mut Reader::new(&[70]), true)), "1970");
        assert_eq!(text(year(&mut Reader::new(&[0]), true)), "2000");
    }
}
