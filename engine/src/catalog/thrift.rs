//! Thrift's compact protocol, read without building anything: enough to check that a footer or an index
//! is well-formed before a decoder that trusts list sizes sees it, and to read page headers.
//!
//! Format: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.
//! Every list element takes at least a byte, so a size above the bytes that are left is a lie.

/// Nesting of the deepest real structure is far below this.
const DEPTH_MAX: usize = 64;

/// The input is not well-formed at a byte position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
}

/// A field of a struct: its number and its type on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldHeader {
    pub id: i16,
    pub kind: Kind,
}

/// Types on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    True,
    False,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

/// A position in a buffer.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buffer: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, Malformed>;

/// Checks that `buffer` begins with one well-formed struct.
pub fn check_struct(buffer: &[u8]) -> Result<()> {
    Reader::new(buffer).skip_struct(0)
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `buffer`.
    pub fn new(buffer: &'a [u8]) -> Self {
        Reader { buffer, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next field of a struct, or none at its end; `previous` is the number of the field before it,
    /// 0 at the start.
    pub fn field(&mut self, previous: i16) -> Result<Option<FieldHeader>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let kind = self.kind(byte & 0x0f)?;
        let delta = (byte >> 4) as i16;
        let id = if delta == 0 {
            i16::try_from(self.zigzag()?).map_err(|_| self.malformed())?
        } else {
            previous.checked_add(delta).ok_or_else(|| self.malformed())?
        };
        Ok(Some(FieldHeader { id, kind }))
    }

    /// An i16, i32 or i64 value; an error if it is outside of i32.
    pub fn i32(&mut self) -> Result<i32> {
        i32::try_from(self.zigzag()?).map_err(|_| self.malformed())
    }

    /// An integer value of any width.
    pub fn i64(&mut self) -> Result<i64> {
        self.zigzag()
    }

    /// The bytes of a binary value.
    pub fn binary(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        let start = self.at;
        self.advance(usize::try_from(length).map_err(|_| self.malformed())?)?;
        Ok(&self.buffer[start..self.at])
    }

    /// The size of a list; its elements follow.
    pub fn list(&mut self) -> Result<usize> {
        let byte = self.byte()?;
        let size = match byte >> 4 {
            15 => self.varint()?,
            small => small as u64,
        };
        self.check_size(size)?;
        Ok(size as usize)
    }

    /// A boolean in a list.
    pub fn bool_element(&mut self) -> Result<bool> {
        Ok(self.byte()? == 1)
    }

    /// Passes over a value.
    pub fn skip(&mut self, kind: Kind) -> Result<()> {
        self.skip_value(kind, false, 0)
    }

    fn skip_struct(&mut self, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(self.malformed());
        }
        let mut previous = 0;
        while let Some(field) = self.field(previous)? {
            previous = field.id;
            self.skip_value(field.kind, false, depth)?;
        }
        Ok(())
    }

    fn skip_value(&mut self, kind: Kind, in_list: bool, depth: usize) -> Result<()> {
        match kind {
            // A struct's boolean is in the field's type; a list's is a byte.
            Kind::True | Kind::False if in_list => self.advance(1),
            Kind::True | Kind::False => Ok(()),
            Kind::Byte => self.advance(1),
            Kind::I16 | Kind::I32 | Kind::I64 => self.varint().map(|_| ()),
            Kind::Double => self.advance(8),
            Kind::Uuid => self.advance(16),
            Kind::Binary => {
                let length = self.varint()?;
                self.advance(usize::try_from(length).map_err(|_| self.malformed())?)
            }
            Kind::List => {
                let byte = self.byte()?;
                let size = match byte >> 4 {
                    15 => self.varint()?,
                    small => small as u64,
                };
                if size == 0 {
                    return Ok(());
                }
                let element = self.kind(byte & 0x0f)?;
                self.check_size(size)?;
                for _ in 0..size {
                    self.skip_value(element, true, depth + 1)?;
                }
                Ok(())
            }
            Kind::Map => {
                let size = self.varint()?;
                if size == 0 {
                    return Ok(());
                }
                self.check_size(size)?;
                let byte = self.byte()?;
                let (key, value) = (self.kind(byte >> 4)?, self.kind(byte & 0x0f)?);
                for _ in 0..size {
                    self.skip_value(key, true, depth + 1)?;
                    self.skip_value(value, true, depth + 1)?;
                }
                Ok(())
            }
            Kind::Struct => self.skip_struct(depth + 1),
        }
    }

    fn check_size(&self, elements: u64) -> Result<()> {
        if elements > (self.buffer.len() - self.at) as u64 { Err(self.malformed()) } else { Ok(()) }
    }

    fn kind(&self, code: u8) -> Result<Kind> {
        Ok(match code {
            1 => Kind::True,
            2 => Kind::False,
            3 => Kind::Byte,
            4 => Kind::I16,
            5 => Kind::I32,
            6 => Kind::I64,
            7 => Kind::Double,
            8 => Kind::Binary,
            9 | 10 => Kind::List,
            11 => Kind::Map,
            12 => Kind::Struct,
            13 => Kind::Uuid,
            _ => return Err(self.malformed()),
        })
    }

    fn zigzag(&mut self) -> Result<i64> {
        let v = self.varint()?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= ((byte & 0x7f) as u64) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.buffer.get(self.at).ok_or_else(|| self.malformed())?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.buffer.len() - self.at {
            return Err(self.malformed());
        }
        self.at += bytes;
        Ok(())
    }

    fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_with_a_list_of_structs() {
        // {1: i32 5, 2: list<struct>[{1: true}, {}], 4: binary "ab"}
        let bytes = [0x15, 0x0a, 0x19, 0x2c, 0x11, 0x00, 0x00, 0x28, 0x02, b'a', b'b', 0x00];
        assert_eq!(check_struct(&bytes), Ok(()));
        for cut in 0..bytes.len() {
            assert!(check_struct(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_list_larger_than_the_input_is_refused() {
        let bytes = [0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0x00];
        assert!(check_struct(&bytes).is_err());
    }

    #[test]
    fn endless_nesting_is_refused() {
        assert!(check_struct(&[0x1c; 100_000]).is_err());
    }
}
