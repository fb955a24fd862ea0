//! DECIMAL as stored: groups of nine decimal digits in four bytes each, shorter groups at both ends
//! in as few bytes as hold them, the first bit flipped so that bytes sort as numbers, all bits
//! flipped for negative numbers.

use super::reader::{Broken, Reader};

/// Bytes that hold so many digits (0 to 9).
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The longest stored form: 65 digits.
const MAXIMUM_BYTES: usize = 40;

/// Reads DECIMAL(precision, scale) and prints it as the server does: no leading zeros but one before
/// the point, all digits of the scale behind it.
pub(super) fn read(reader: &mut Reader<'_>, precision: u8, scale: u8) -> Result<Vec<u8>, Broken> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    if precision == 0 || precision > 65 || scale > precision {
        return Err(Broken::new(format!("DECIMAL({precision},{scale}) does not exist")));
    }
    let whole = precision - scale;
    let groups = || {
        std::iter::once(whole % 9)
            .chain(std::iter::repeat_n(9, whole / 9))
            .chain(std::iter::repeat_n(9, scale / 9))
            .chain(std::iter::once(scale % 9))
    };
    let length: usize = groups().map(|digits| GROUP_BYTES[digits]).sum();
    let stored = reader.take(length)?;
    let mut bytes = [0; MAXIMUM_BYTES];
    let bytes = bytes.get_mut(..length).ok_or_else(|| Broken::new("a DECIMAL is longer than the longest"))?;
    let negative = stored[0] & 0x80 == 0;
    for (byte, stored) in bytes.iter_mut().zip(stored) {
        *byte = if negative { !stored } else { *stored };
    }
    bytes[0] ^= 0x80;

    let mut digits = String::with_capacity(precision);
    let mut reader = Reader::new(bytes);
    for width in groups().filter(|&width| width > 0) {
        let group = reader.big(GROUP_BYTES[width])?;
        if group >= 10u64.pow(width as u32) {
            return Err(Broken::new(format!("{group} does not fit {width} decimal digits")));
        }
        digits.push_str(&format!("{group:0width$}"));
    }
    let (before, behind) = digits.split_at(whole);
    let before = before.trim_start_matches('0');
    let mut text = Vec::with_capacity(precision + 3);
    if negative {
        text.push(b'-');
    }
    text.extend_from_slice(if before.is_empty() { b"0" } else { before.as_bytes() });
    if scale > 0 {
        text.push(b'.');
        text.extend_from_slice(behind.as_bytes());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        String::from_utf8(read(&mut Reader::new(bytes), precision, scale).unwrap()).unwrap()
    }

    #[test]
    fn the_manuals_example() {
        let positive = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(text(&positive, 14, 4), "1234567890.1234");
        assert_eq!(text(&positive.map(|byte| !byte), 14, 4), "-1234567890.1234");
    }

    #[test]
    fn a_zero_stands_before_the_point() {
        assert_eq!(text(&[0x80, 0x00, 0x01], 5, 5), "0.00001");
        assert_eq!(text(&[0x80], 2, 0), "0");
    }

    #[test]
    fn digits_that_do_not_fit_are_refused() {
        assert!(read(&mut Reader::new(&[0xff]), 2, 0).is_err());
        assert!(read(&mut Reader::new(&[0x80]), 9, 0).is_err());
        assert!(read(&mut Reader::new(&[0x80; 64]), 2, 3).is_err());
        assert!(read(&mut Reader::new(&[0x80; 64]), 255, 3).is_err());
    }

    #[test]
    fn every_shape_is_within_the_longest_form() {
        for precision in 1..=65 {
            for scale in 0..=precision {
                let mut bytes = [0; 64];
                bytes[0] = 0x80;
                let printed = text(&bytes, precision, scale);
                assert_eq!(printed.len(), if scale == 0 { 1 } else { 2 + usize::from(scale) });
            }
        }
    }
}
