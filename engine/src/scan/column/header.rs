//! Page headers: where the pages of a column chunk are, how long, and how encoded, without decompressing
//! any of them.
//!
//! Thrift definition: <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

use crate::catalog::thrift::{Kind, Malformed, Reader};

/// What kind of page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    Data,
    Dictionary,
    DataV2,
    Other,
}

/// A page's header. Sizes are not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub kind: PageKind,
    pub uncompressed_bytes: usize,
    pub compressed_bytes: usize,
    /// Rows of a flat column's data page, nulls included; entries of a dictionary page.
    pub values: usize,
    /// Number of the encoding in `parquet.thrift`.
    pub encoding: i32,
    /// Encoding of the definition levels of a V1 data page.
    pub level_encoding: i32,
    /// Bytes that the header itself takes.
    pub header_bytes: usize,
}

impl PageHeader {
    /// Reads the header at the beginning of `buffer`.
    pub fn read(buffer: &[u8]) -> Result<PageHeader, Malformed> {
        let mut reader = Reader::new(buffer);
        let (mut kind, mut uncompressed, mut compressed) = (None, None, None);
        let mut body = Body::default();
        let mut previous = 0;
        while let Some(field) = reader.field(previous)? {
            previous = field.id;
            match (field.id, field.kind) {
                (1, Kind::I32) => kind = Some(reader.i32()?),
                (2, Kind::I32) => uncompressed = Some(reader.i32()?),
                (3, Kind::I32) => compressed = Some(reader.i32()?),
                (5, Kind::Struct) => body = Body::read(&mut reader, 2, Some(3))?,
                (7, Kind::Struct) => body = Body::read(&mut reader, 2, None)?,
                (8, Kind::Struct) => body = Body::read(&mut reader, 4, None)?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        let malformed = Malformed { at: reader.position() };
        let size = |v: Option<i32>| v.and_then(|v| usize::try_from(v).ok()).ok_or(malformed);
        let kind = match kind {
            Some(0) => PageKind::Data,
            Some(2) => PageKind::Dictionary,
            Some(3) => PageKind::DataV2,
            Some(_) => PageKind::Other,
            None => return Err(malformed),
        };
        // Other pages are passed over and need no body.
        let body = if kind == PageKind::Other { Body::empty() } else { body };
        Ok(PageHeader {
            kind,
            uncompressed_bytes: size(uncompressed)?,
            compressed_bytes: size(compressed)?,
            values: size(body.values)?,
            encoding: body.encoding.ok_or(malformed)?,
            level_encoding: body.level_encoding.unwrap_or(-1),
            header_bytes: reader.position(),
        })
    }
}

/// The fields that the structs for the three kinds of page share.
#[derive(Default)]
struct Body {
    values: Option<i32>,
    encoding: Option<i32>,
    level_encoding: Option<i32>,
}

impl Body {
    fn empty() -> Body {
        Body { values: Some(0), encoding: Some(-1), level_encoding: None }
    }

    fn read(reader: &mut Reader, encoding: i16, level_encoding: Option<i16>) -> Result<Body, Malformed> {
        let mut body = Body::default();
        let mut previous = 0;
        while let Some(field) = reader.field(previous)? {
            previous = field.id;
            match (field.id, field.kind) {
                (1, Kind::I32) => body.values = Some(reader.i32()?),
                (id, Kind::I32) if id == encoding => body.encoding = Some(reader.i32()?),
                (id, Kind::I32) if Some(id) == level_encoding => body.level_encoding = Some(reader.i32()?),
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(body)
    }
}
