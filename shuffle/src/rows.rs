//! Some rows of some columns: the unit that this crate moves.
//!
//! Arrays come in any physical form and differ in form from one [`Rows`] to the next; nothing here knows a
//! schema.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::compute::concat;
use arrow::datatypes::{ByteViewType, DataType};

use crate::block;
use crate::error::Result;

/// Columns of equal length. With no columns, `rows` still says how many rows there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
}

impl Rows {
    /// Columns that must all have `rows` values.
    pub fn new(columns: Vec<ArrayRef>, rows: usize) -> Self {
        assert!(columns.iter().all(|c| c.len() == rows), "invariant: columns of a batch are equally long");
        Rows { columns, rows }
    }

    /// Rows `offset..offset + rows`, without a copy.
    pub fn slice(&self, offset: usize, rows: usize) -> Rows {
        Rows { columns: self.columns.iter().map(|c| c.slice(offset, rows)).collect(), rows }
    }

    /// About how many bytes a block of these rows has before compression. Counts what the rows refer to, not
    /// the buffers they hold.
    pub fn encoded_bytes(&self) -> usize {
        self.columns.iter().map(|c| encoded_bytes(c.as_ref())).sum()
    }

    /// A deep copy that holds these rows and nothing else: what a slice of large buffers should become before
    /// it waits in memory. All columns of the copy share one allocation; a dictionary that does not pay is
    /// plain in it.
    pub fn compacted(&self) -> Result<Rows> {
        block::compacted(self)
    }

    /// Batches of the same physical types as one, or `None` if Arrow cannot join them: a dictionary of many
    /// dictionaries may have more values than its keys can count.
    pub fn joined(batches: &[Rows]) -> Option<Rows> {
        if let [one] = batches {
            return Some(one.clone());
        }
        let columns = (0..batches.first()?.columns.len()).map(|column| {
            let arrays: Vec<_> = batches.iter().map(|b| b.columns[column].as_ref()).collect();
            concat(&arrays).ok()
        });
        let rows = batches.iter().map(|b| b.rows).sum();
        Some(Rows::new(columns.collect::<Option<Vec<_>>>()?, rows))
    }

    /// Whether every column has the same physical type in both.
    pub fn same_types(&self, other: &Rows) -> bool {
        self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(a, b)| a.data_type() == b.data_type())
    }
}

fn encoded_bytes(array: &dyn Array) -> usize {
    let rows = array.len();
    let values = match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 => string_bytes(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => string_bytes(array.as_string::<i64>().value_offsets()),
        DataType::Binary => string_bytes(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => string_bytes(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => view_bytes(array.as_string_view()),
        DataType::BinaryView => view_bytes(array.as_binary_view()),
        DataType::FixedSizeBinary(size) => rows * *size as usize,
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values();
            // Of a dictionary larger than the rows, at most one value a row is written.
            let values = values.slice(0, values.len().min(rows));
            encoded_bytes(dictionary.keys()) + encoded_bytes(values.as_ref())
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|c| encoded_bytes(c.as_ref())).sum(),
        DataType::FixedSizeList(_, _) => encoded_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            list_bytes(list.value_offsets(), list.values().as_ref())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            list_bytes(list.value_offsets(), list.values().as_ref())
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            list_bytes(map.value_offsets(), map.entries())
        }
        other => rows * other.primitive_width().unwrap_or(0),
    };
    values + array.nulls().map_or(0, |_| rows.div_ceil(8))
}

/// Four bytes of length each, and the bytes themselves.
fn string_bytes<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    4 * (offsets.len() - 1) + last - first
}

fn view_bytes<T: ByteViewType>(array: &arrow::array::GenericByteViewArray<T>) -> usize {
    4 * array.len() + array.views().iter().map(|view| *view as u32 as usize).sum::<usize>()
}

fn list_bytes<O: OffsetSizeTrait>(offsets: &[O], values: &dyn Array) -> usize {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    4 * (offsets.len() - 1) + encoded_bytes(values.slice(first, last - first).as_ref())
}
