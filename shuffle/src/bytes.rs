//! Small values to bytes and back: varints and length-prefixed strings.
//!
//! Used by the metadata of blocks and by the index of segments. What always holds: [`Bytes`] never reads past
//! its slice and allocates nothing; what does not fit is a [`Damage`].

use std::borrow::Cow;

/// What is wrong with bytes that were read: a clause such as "the index ends early". Whoever knows the file
/// and the offset makes it a [`ShuffleError::Corrupt`](crate::error::ShuffleError::Corrupt).
pub(crate) type Damage = Cow<'static, str>;

/// Appends a number, seven bits a byte, the least significant first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above have written, front to back.
pub(crate) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Bytes { rest: bytes }
    }

    /// Bytes not read yet: a bound on how many more values there can be.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.rest.split_first().ok_or("metadata ends early")?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits".into())
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.varint()?;
        if length > self.rest.len() as u64 {
            return Err("metadata ends early".into());
        }
        let (bytes, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, Damage> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a name is not UTF-8".into())
    }

    /// Nothing may be left over.
    pub(crate) fn end(&self) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err("metadata goes on after its end".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut out = vec![];
        numbers.iter().for_each(|n| put_varint(&mut out, *n));
        put_bytes(&mut out, "größe".as_bytes());
        let mut bytes = Bytes::new(&out);
        for n in numbers {
            assert_eq!(bytes.varint().unwrap(), n);
        }
        assert_eq!(bytes.string().unwrap(), "größe");
        bytes.end().unwrap();
        assert!(bytes.byte().is_err());
    }

    #[test]
    fn what_does_not_fit_is_damage() {
        assert!(Bytes::new(&[0xff; 10]).varint().is_err());
        assert!(Bytes::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint().is_err());
        assert!(Bytes::new(&[0x80]).varint().is_err());
        assert!(Bytes::new(&[5, 1, 2]).bytes().is_err());
        assert!(Bytes::new(&[1, 0xff]).string().is_err());
        assert!(Bytes::new(&[1]).end().is_err());
    }
}
