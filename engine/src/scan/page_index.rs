//! What the column index says of each page of a chunk.
//!
//! The index is read for one column of one row group at a time, when a test could use it. It only ever
//! saves work: one that is damaged, or that does not fit the pages, is passed over.
//!
//! Format: <https://github.com/apache/parquet-format/blob/master/PageIndex.md>.

use arrow::datatypes::DataType;
use parquet::basic::Type;

use crate::catalog::bounds::{self, Bound, Bounds};
use crate::catalog::thrift::{Kind, Malformed, Reader};
use crate::scan::pruning::Known;

/// What is known of the pages of a chunk, which have so many rows each; none if the index does not fit.
pub fn pages(index: &[u8], physical: Type, logical: &DataType, page_rows: &[usize]) -> Option<Vec<Known>> {
    let index = ColumnIndex::read(index).ok()?;
    let count = page_rows.len();
    let fits = [index.null_pages.len(), index.mins.len(), index.maxs.len()].iter().all(|n| *n == count);
    if !fits || index.null_counts.as_ref().is_some_and(|n| n.len() != count) {
        return None;
    }
    let known = page_rows.iter().enumerate().map(|(i, rows)| {
        let rows = *rows as u64;
        if index.null_pages[i] {
            return Known { bounds: Bounds::default(), nulls: Some(rows), rows };
        }
        let nulls = index.null_counts.as_ref().and_then(|n| u64::try_from(n[i]).ok());
        let bounds = Bounds {
            min: bound(index.mins[i], physical, logical),
            max: bound(index.maxs[i], physical, logical),
        };
        Known { bounds, nulls, rows }
    });
    Some(known.collect())
}

/// A PLAIN value.
fn bound(bytes: &[u8], physical: Type, logical: &DataType) -> Option<Bound> {
    match physical {
        Type::BOOLEAN => bounds::of_bool(*bytes.first()? != 0, logical),
        Type::INT32 => bounds::of_i32(i32::from_le_bytes(bytes.try_into().ok()?), logical),
        Type::INT64 => bounds::of_i64(i64::from_le_bytes(bytes.try_into().ok()?), logical),
        Type::FLOAT => bounds::of_f64(f32::from_le_bytes(bytes.try_into().ok()?) as f64, logical),
        Type::DOUBLE => bounds::of_f64(f64::from_le_bytes(bytes.try_into().ok()?), logical),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => bounds::of_bytes(bytes, logical),
        Type::INT96 => None,
    }
}

#[derive(Default)]
struct ColumnIndex<'a> {
    null_pages: Vec<bool>,
    mins: Vec<&'a [u8]>,
    maxs: Vec<&'a [u8]>,
    null_counts: Option<Vec<i64>>,
}

impl<'a> ColumnIndex<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut index = ColumnIndex::default();
        let mut reader = Reader::new(bytes);
        let mut previous = 0;
        while let Some(field) = reader.field(previous)? {
            previous = field.id;
            match (field.id, field.kind) {
                (1, Kind::List) => index.null_pages = list(&mut reader, Reader::bool_element)?,
                (2, Kind::List) => index.mins = list(&mut reader, Reader::binary)?,
                (3, Kind::List) => index.maxs = list(&mut reader, Reader::binary)?,
                (5, Kind::List) => index.null_counts = Some(list(&mut reader, Reader::i64)?),
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(index)
    }
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    element: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let size = reader.list()?;
    (0..size).map(|_| element(reader)).collect()
}
