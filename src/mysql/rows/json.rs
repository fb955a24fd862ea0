//! JSON as MySQL (5.7 and later) stores and logs it, printed as the server prints it.
//!
//! # What must hold
//!
//! The text is, byte for byte, what a SELECT of the same document gives: a [`Cell`](super::super::cell::Cell) that was followed is one
//! that was read, and a row of a table without a key is found by it. So members keep the stored order, and numbers the server's digits.
//!
//! What text can't say is lost on the way, as in every dump: the target reads DECIMAL as DOUBLE, and dates and bytes as strings. Where
//! that changes the text (`19.90` becomes `19.9`) a comparison finds it, and an event that looks for such a row of a table without a key
//! does not, which stops following; `assess` says it of every such column (`json-column`).
//!
//! # The format
//!
//! A type byte and its value: 0 and 1 are a small and a large object, 2 and 3 such arrays, 4 a literal, 5 to 10 integers of two, four and
//! eight bytes, each signed and unsigned, 11 a DOUBLE, 12 a string, 15 a value of another type of SQL. An object or array begins with the number of its members and its size, of two bytes each (small) or four
//! (large); entries of keys (offset, length in two bytes) and of values (type byte, offset) follow, then the bytes they point to. Offsets
//! count from the container's first byte. Literals and numbers that fit stand in the place of their offset. (MySQL's source, the comment
//! at the top of `json_binary.h`.)
//!
//! An event is hostile input: an offset may point anywhere, at its own container too. Nothing is read outside the container at hand, depth
//! ends where the server's does, and no text is longer than the longest that so many bytes can honestly be.

use super::reader::{Broken, Reader};
use super::{decimal, temporal};

/// As deep as the server nests (`JSON_DOCUMENT_MAX_DEPTH`).
const MAXIMUM_DEPTH: usize = 100;
/// The most characters that a stored byte becomes: a control character is printed as `\u0001`, an entry of three bytes as `-32768, `.
const MOST_PER_BYTE: usize = 8;
/// The server's lines of base64.
const LINE: usize = 76;

/// The document's text. No bytes at all are what `INSERT IGNORE` makes of NULL where NULL is not allowed, and read as `null` (`parse_binary`
/// of MySQL's `json_binary.cc`).
pub(super) fn text(document: &[u8]) -> Result<Vec<u8>, Broken> {
    let Some((&kind, value)) = document.split_first() else { return Ok(b"null".to_vec()) };
    let mut printer = Printer { out: Vec::with_capacity(document.len() * 2), most: document.len() * MOST_PER_BYTE + 64 };
    printer.value(kind, value, 0)?;
    Ok(printer.out)
}

struct Printer {
    out: Vec<u8>,
    /// Of all bytes of `out`.
    most: usize,
}

/// A container's widths.
#[derive(Clone, Copy)]
struct Shape {
    object: bool,
    large: bool,
}

impl Printer {
    fn push(&mut self, text: &[u8]) -> Result<(), Broken> {
        if self.out.len() + text.len() > self.most {
            return Err(Broken::new("a JSON document is longer than its bytes can be"));
        }
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn value(&mut self, kind: u8, bytes: &[u8], depth: usize) -> Result<(), Broken> {
        let mut reader = Reader::new(bytes);
        match kind {
            0x00..=0x03 => self.container(Shape { object: kind < 0x02, large: kind % 2 == 1 }, bytes, depth),
            0x04 => match reader.byte()? {
                0 => self.push(b"null"),
                1 => self.push(b"true"),
                2 => self.push(b"false"),
                other => Err(Broken::new(format!("{other} is no JSON literal"))),
            },
            0x05 | 0x07 | 0x09 => self.push(reader.little_signed(integer_bytes(kind))?.to_string().as_bytes()),
            0x06 | 0x08 | 0x0a => self.push(reader.little(integer_bytes(kind))?.to_string().as_bytes()),
            0x0b => {
                let printed = double(f64::from_le_bytes(reader.array()?))?;
                self.push(printed.as_bytes())
            }
            0x0c => self.string(counted(&mut reader)?),
            0x0f => {
                let kind = reader.byte()?;
                self.opaque(kind, counted(&mut reader)?)
            }
            other => Err(Broken::new(format!("{other} is no type of JSON"))),
        }
    }

    fn container(&mut self, shape: Shape, bytes: &[u8], depth: usize) -> Result<(), Broken> {
        if depth >= MAXIMUM_DEPTH {
            return Err(Broken::new(format!("a JSON document is nested deeper than {MAXIMUM_DEPTH}")));
        }
        let width = if shape.large { 4 } else { 2 };
        let mut header = Reader::new(bytes);
        let members = header.little(width)?;
        let size = header.little(width)? as usize;
        let whole = bytes.get(..size).ok_or_else(|| Broken::new("a JSON container is longer than its document"))?;
        let from = |offset: u64| usize::try_from(offset).ok().and_then(|offset| whole.get(offset..)).ok_or_else(outside);
        let key_entries = if shape.object { members * (width as u64 + 2) } else { 0 };
        let mut keys = Reader::new(from(2 * width as u64)?);
        let mut values = Reader::new(from(2 * width as u64 + key_entries)?);
        self.push(if shape.object { b"{" } else { b"[" })?;
        for member in 0..members {
            if member > 0 {
                self.push(b", ")?;
            }
            if shape.object {
                let (offset, length) = (keys.little(width)?, keys.little(2)? as usize);
                self.string(from(offset)?.get(..length).ok_or_else(outside)?)?;
                self.push(b": ")?;
            }
            let kind = values.byte()?;
            let entry = values.take(width)?;
            if in_its_entry(kind, shape.large) {
                self.value(kind, entry, depth + 1)?;
            } else {
                self.value(kind, from(Reader::new(entry).little(width)?)?, depth + 1)?;
            }
        }
        self.push(if shape.object { b"}" } else { b"]" })
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if std::str::from_utf8(bytes).is_err() {
            return Err(Broken::new("a string of a JSON document is no UTF-8"));
        }
        self.push(b"\"")?;
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            self.push(&rest[..at])?;
            match rest[at] {
                b'"' => self.push(b"\\\"")?,
                b'\\' => self.push(b"\\\\")?,
                0x08 => self.push(b"\\b")?,
                0x0c => self.push(b"\\f")?,
                b'\n' => self.push(b"\\n")?,
                b'\r' => self.push(b"\\r")?,
                b'\t' => self.push(b"\\t")?,
                other => self.push(format!("\\u{other:04x}").as_bytes())?,
            }
            rest = &rest[at + 1..];
        }
        self.push(rest)?;
        self.push(b"\"")
    }

    /// A value of a type that JSON has not, by the protocol's number of its type.
    fn opaque(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Broken> {
        use super::table_map::wire;
        match kind {
            wire::NEWDECIMAL => {
                let mut reader = Reader::new(bytes);
                let (precision, scale) = (reader.byte()?, reader.byte()?);
                let printed = decimal::read(&mut reader, precision, scale)?;
                self.push(&printed)
            }
            wire::DATE => {
                let printed = moment(bytes)?;
                self.string(printed.get(..10).ok_or_else(outside)?)
            }
            wire::DATETIME | wire::TIMESTAMP => self.string(&moment(bytes)?),
            wire::TIME => {
                let stored = packed(bytes)?.checked_add(0x80_0000 << 24).map(i64::to_be_bytes);
                let Some([0, 0, time @ ..]) = stored else { return Err(Broken::new("a TIME within JSON is out of range")) };
                let printed = temporal::time(&mut Reader::new(&time), 6)?;
                self.string(&printed)
            }
            _ => {
                let encoded = data_encoding::BASE64.encode(bytes);
                let lines: Vec<&[u8]> = encoded.as_bytes().chunks(LINE).collect();
                let mut printed = format!("base64:type{kind}:").into_bytes();
                printed.extend_from_slice(&lines.join(&b'\n'));
                self.string(&printed)
            }
        }
    }
}

fn outside() -> Broken {
    Broken::new("a JSON document points outside itself")
}

fn integer_bytes(kind: u8) -> usize {
    match kind {
        0x05 | 0x06 => 2,
        0x07 | 0x08 => 4,
        _ => 8,
    }
}

/// Whether a value stands where the offset of another would.
fn in_its_entry(kind: u8, large: bool) -> bool {
    matches!(kind, 0x04..=0x06) || (large && matches!(kind, 0x07 | 0x08))
}

/// Bytes behind their number, which has seven bits a byte, the lowest first, as long as the eighth is set.
fn counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Broken> {
    let mut length = 0u64;
    for place in 0..5 {
        let byte = reader.byte()?;
        length |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return reader.take(usize::try_from(length).unwrap_or(usize::MAX));
        }
    }
    Err(Broken::new("a length within a JSON document has no end"))
}

/// A date or time within JSON: the number that the server keeps it as, lowest byte first.
fn packed(bytes: &[u8]) -> Result<i64, Broken> {
    Ok(i64::from_le_bytes(Reader::new(bytes).array()?))
}

/// A packed DATETIME, with six digits.
fn moment(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    let stored = packed(bytes)?.checked_add(0x80_0000_0000 << 24).ok_or_else(|| Broken::new("a DATETIME within JSON is out of range"))?;
    temporal::datetime(&mut Reader::new(&stored.to_be_bytes()), 6)
}

/// The shortest digits that read back as the same value, with an exponent where the server writes one, and never as an integer. When it
/// writes one was measured on 9.7.4 for 1 to 17 digits and every place of the point from -22 to 24: below 10⁻¹⁵, and from
/// 10¹⁵ on unless the number has a fraction still, as one of 16 and a digit behind the point.
fn double(value: f64) -> Result<String, Broken> {
    if !value.is_finite() {
        return Err(Broken::new("a JSON document holds a number that is none"));
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.rsplit_once('e').unwrap_or((&scientific, "0"));
    let digits = digits.bytes().filter(u8::is_ascii_digit).count() as i32;
    let exponent: i32 = exponent.parse().map_err(|_| Broken::new(format!("{value} within a JSON document has no exponent")))?;
    if exponent < -15 || (exponent > 14 && exponent + 1 >= digits) {
        return Ok(scientific);
    }
    let plain = format!("{value}");
    Ok(if plain.contains('.') { plain } else { plain + ".0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(document: &[u8]) -> String {
        String::from_utf8(text(document).unwrap()).unwrap()
    }

    fn refused(document: &[u8]) -> String {
        text(document).unwrap_err().0
    }

    #[test]
    fn doubles_as_the_server_prints_them() {
        // What 9.7.4 printed.
        for (value, expected) in [
            (1e14, "100000000000000.0"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1_234_567_890_123_456.0, "1.234567890123456e15"),
            (1e15, "1e15"),
            (1_234_567_891_234_567.8, "1234567891234567.8"),
            (12_345_678_912_345_678.0, "1.2345678912345678e16"),
            (1e-7, "0.0000001"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.234_567_890_123_456_7e-14, "0.000000000000012345678901234567"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (-2.5e-20, "-2.5e-20"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
        ] {
            assert_eq!(double(value).unwrap(), expected);
        }
        assert!(double(f64::NAN).is_err());
    }

    #[test]
    fn nothing_and_scalars() {
        assert_eq!(printed(&[]), "null");
        assert_eq!(printed(&[4, 1]), "true");
        assert_eq!(printed(&[5, 0xff, 0xff]), "-1");
        assert_eq!(printed(&[6, 0xff, 0xff]), "65535");
        assert_eq!(printed(b"\x0c\x06a\"\\\n\x01/"), r#""a\"\\\n\u0001/""#);
        assert_eq!(printed(&[0x0f, 15, 2, 0xff, 0]), r#""base64:type15:/wA=""#);
    }

    #[test]
    fn containers_of_both_widths() {
        // The key is at 11, its value at 12.
        assert_eq!(printed(&[0, 1, 0, 22, 0, 11, 0, 1, 0, 2, 12, 0, b'a', 2, 0, 10, 0, 5, 1, 0, 4, 1, 0]), r#"{"a": [1, true]}"#);
        // [70000] as a large array: four bytes fit their entry.
        assert_eq!(printed(&[3, 1, 0, 0, 0, 13, 0, 0, 0, 7, 0x70, 0x11, 1, 0]), "[70000]");
        assert_eq!(printed(&[2, 0, 0, 4, 0]), "[]");
        assert_eq!(printed(&[0, 0, 0, 4, 0]), "{}");
    }

    #[test]
    fn hostile_documents_are_refused() {
        // An array whose one member is itself.
        assert!(refused(&[2, 1, 0, 7, 0, 2, 0, 0]).contains("nested deeper"));
        // Many members that are all the same long string.
        let mut bomb = vec![2, 200, 0, 0, 0];
        let string = 4 + 200 * 3u16;
        for _ in 0..200 {
            bomb.push(0x0c);
            bomb.extend_from_slice(&string.to_le_bytes());
        }
        bomb.push(0x7f);
        bomb.extend_from_slice(&[b'x'; 0x7f]);
        let size = (bomb.len() - 1) as u16;
        bomb[3..5].copy_from_slice(&size.to_le_bytes());
        assert!(refused(&bomb).contains("longer than its bytes can be"));
        assert!(refused(&[2, 1, 0, 7, 0, 0x0c, 0xff, 0xff]).contains("outside"));
        assert!(refused(&[2, 1, 0, 0xff, 0, 4, 1, 0]).contains("longer than its document"));
        assert!(refused(&[0x0c, 0xff, 0xff, 0xff, 0xff, 0xff]).contains("no end"));
        assert!(refused(&[0x0c, 1, 0xff]).contains("no UTF-8"));
        assert!(refused(&[0x0e, 1]).contains("no type"));
        assert!(text(&[0x0f, 246, 3, 0, 0, 0]).is_err(), "a DECIMAL of no digits");
        assert!(text(&[0x0f, 12, 8, 255, 255, 255, 255, 255, 255, 255, 127]).is_err(), "a DATETIME out of range");
        assert!(text(&[0x0f, 11, 8, 255, 255, 255, 255, 255, 255, 255, 127]).is_err(), "a TIME out of range");
    }

    /// No bytes may make it panic, or run for long.
    #[test]
    fn any_bytes_are_text_or_an_error() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200_000 {
            let length = random.random_range(0..60);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.random_range(0..20)).collect();
            if let Some(first) = bytes.first_mut() {
                *first %= 16;
            }
            let _ = text(&bytes);
        }
    }
}
