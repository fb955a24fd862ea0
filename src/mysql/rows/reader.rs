//! A cursor over an event's bytes that can't pass their end.

/// The bytes ended too early, or a byte can't be what it is. The caller adds table and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

impl Broken {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Broken(message.into())
    }
}

/// The bytes not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(Broken::new(format!("{length} bytes are needed, {} are left", self.rest.len()))),
        }
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.array::<1>()?[0])
    }

    /// An unsigned number of up to eight bytes, lowest byte first.
    pub(super) fn little(&mut self, length: usize) -> Result<u64, Broken> {
        Ok(self.take(length)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// An unsigned number of up to eight bytes, highest byte first.
    pub(super) fn big(&mut self, length: usize) -> Result<u64, Broken> {
        Ok(self.take(length)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A signed number of up to eight bytes, lowest byte first.
    pub(super) fn little_signed(&mut self, length: usize) -> Result<i64, Broken> {
        let unused = 64 - 8 * length as u32;
        Ok(((self.little(length)? << unused) as i64) >> unused)
    }

    /// The protocol's number of one, three, four or nine bytes.
    pub(super) fn length_encoded(&mut self) -> Result<u64, Broken> {
        match self.byte()? {
            byte @ 0..=250 => Ok(u64::from(byte)),
            252 => self.little(2),
            253 => self.little(3),
            254 => self.little(8),
            byte => Err(Broken::new(format!("{byte} does not start a length"))),
        }
    }
}

/// Bit `index` of a bitmap, lowest bit of the first byte first. Bits past the end are unset.
pub(super) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_of_every_length() {
        assert_eq!(Reader::new(&[0xff]).little_signed(1), Ok(-1));
        assert_eq!(Reader::new(&[0x00, 0x00, 0x80]).little_signed(3), Ok(-8_388_608));
        assert_eq!(Reader::new(&[0xff; 8]).little_signed(8), Ok(-1));
        assert_eq!(Reader::new(&[0xff, 0x7f]).little_signed(2), Ok(32767));
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut reader = Reader::new(&[1, 2]);
        assert!(reader.take(usize::MAX).is_err());
        assert!(reader.big(3).is_err());
        assert_eq!(reader.big(2), Ok(258));
    }
}
