//! Columns to a block's body and metadata.
//!
//! An array is written depth first. The metadata has a byte that says whether a null bitmap follows, and the
//! numbers below; the body has the buffers, each padded to start at a multiple of 16:
//!
//! | type | metadata | body |
//! |---|---|---|
//! | fixed width, Boolean | - | values |
//! | strings, binary, views | bytes of data | lengths as u32, data |
//! | list, map | - | lengths as u32, then the elements that the rows have |
//! | struct, fixed-size list | - | the children |
//! | dictionary | number of values | keys, then the values |
//!
//! Everything of variable length is written as lengths: they compress where offsets do not, and a slice
//! needs no rebasing. A null view is written as an empty one.

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, OffsetSizeTrait, downcast_primitive};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{ByteViewType, DataType};

use super::dictionary::{Form, paying_form};
use super::types::write_type;
use super::{ALIGNMENT, ELEMENTS_MAX, HEADER_BYTES};
use crate::bytes::put_varint;
use crate::error::{Result, ShuffleError};
use crate::rows::Rows;

/// Appends the columns' buffers to `raw`, which has the header's bytes only; gives the metadata.
pub(super) fn write_columns(rows: &Rows, raw: &mut Vec<u8>) -> Result<Vec<u8>> {
    assert_eq!(raw.len(), HEADER_BYTES);
    check_elements(rows.rows)?;
    let mut writer = ColumnWriter { body: raw, metadata: vec![] };
    put_varint(&mut writer.metadata, rows.columns.len() as u64);
    for column in &rows.columns {
        let column = paying_form(column, Form::PlainOrDictionary)?;
        write_type(column.data_type(), &mut writer.metadata)?;
        writer.array(&column)?;
    }
    Ok(writer.metadata)
}

fn check_elements(count: usize) -> Result<()> {
    if count > ELEMENTS_MAX {
        return Err(ShuffleError::too_large("rows or list elements", count, ELEMENTS_MAX));
    }
    Ok(())
}

struct ColumnWriter<'a> {
    body: &'a mut Vec<u8>,
    metadata: Vec<u8>,
}

impl ColumnWriter<'_> {
    fn array(&mut self, array: &ArrayRef) -> Result<()> {
        use DataType as T;
        check_elements(array.len())?;
        if array.data_type() == &T::Null {
            return Ok(());
        }
        self.nulls(array.as_ref());
        match array.data_type() {
            T::Boolean => self.bits(array.as_boolean().values()),
            T::Utf8 => {
                let array = array.as_string::<i32>();
                self.strings(array.value_offsets(), array.value_data())
            }
            T::LargeUtf8 => {
                let array = array.as_string::<i64>();
                self.strings(array.value_offsets(), array.value_data())
            }
            T::Binary => {
                let array = array.as_binary::<i32>();
                self.strings(array.value_offsets(), array.value_data())
            }
            T::LargeBinary => {
                let array = array.as_binary::<i64>();
                self.strings(array.value_offsets(), array.value_data())
            }
            T::Utf8View => self.views(array.as_string_view()),
            T::BinaryView => self.views(array.as_binary_view()),
            T::FixedSizeBinary(_) => self.buffer(array.as_fixed_size_binary().value_data()),
            T::Struct(_) => array.as_struct().columns().iter().try_for_each(|child| self.child(child))?,
            T::FixedSizeList(_, _) => self.child(array.as_fixed_size_list().values())?,
            T::List(_) => {
                let list = array.as_list::<i32>();
                self.elements(list.value_offsets(), list.values())?;
            }
            T::LargeList(_) => {
                let list = array.as_list::<i64>();
                self.elements(list.value_offsets(), list.values())?;
            }
            T::Map(_, _) => {
                let map = array.as_map();
                let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
                self.elements(map.value_offsets(), &entries)?;
            }
            T::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                put_varint(&mut self.metadata, dictionary.values().len() as u64);
                self.values(dictionary.keys())?;
                self.child(dictionary.values())?;
            }
            _ => self.values(array.as_ref())?,
        }
        Ok(())
    }

    /// A nested array keeps its type, which is part of its parent's.
    fn child(&mut self, array: &ArrayRef) -> Result<()> {
        self.array(&paying_form(array, Form::Dictionary)?)
    }

    fn nulls(&mut self, array: &dyn Array) {
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        self.metadata.push(u8::from(nulls.is_some()));
        if let Some(nulls) = nulls {
            self.bits(nulls.inner());
        }
    }

    fn bits(&mut self, bits: &BooleanBuffer) {
        self.buffer(&bits.sliced().as_slice()[..bits.len().div_ceil(8)]);
    }

    /// The values of a primitive array.
    fn values(&mut self, array: &dyn Array) -> Result<()> {
        macro_rules! values {
            ($t:ty) => {
                self.buffer(array.as_primitive::<$t>().values().inner().as_slice())
            };
        }
        downcast_primitive! {
            array.data_type() => (values),
            other => return Err(ShuffleError::UnsupportedType { data_type: other.clone() }),
        }
        Ok(())
    }

    fn strings<O: OffsetSizeTrait>(&mut self, offsets: &[O], data: &[u8]) {
        let (first, last) = self.lengths(offsets);
        put_varint(&mut self.metadata, (last - first) as u64);
        self.buffer(&data[first..last]);
    }

    fn elements<O: OffsetSizeTrait>(&mut self, offsets: &[O], values: &ArrayRef) -> Result<()> {
        let (first, last) = self.lengths(offsets);
        self.child(&values.slice(first, last - first))
    }

    /// Differences of the offsets; gives the first and the last of them. Lengths beyond 32 bits are refused
    /// when their data is.
    fn lengths<O: OffsetSizeTrait>(&mut self, offsets: &[O]) -> (usize, usize) {
        self.pad();
        self.body.reserve(4 * offsets.len());
        for pair in offsets.windows(2) {
            let length = (pair[1] - pair[0]).as_usize() as u32;
            self.body.extend_from_slice(&length.to_le_bytes());
        }
        (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize())
    }

    fn views<T: ByteViewType>(&mut self, array: &GenericByteViewArray<T>) {
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        let is_valid = |row: usize| nulls.is_none_or(|n| n.is_valid(row));
        self.pad();
        self.body.reserve(4 * array.len());
        let mut data_bytes = 0;
        for (row, view) in array.views().iter().enumerate() {
            let length = if is_valid(row) { *view as u32 } else { 0 };
            data_bytes += u64::from(length);
            self.body.extend_from_slice(&length.to_le_bytes());
        }
        put_varint(&mut self.metadata, data_bytes);
        self.pad();
        self.body.reserve(data_bytes as usize);
        for row in 0..array.len() {
            if is_valid(row) {
                let value: &[u8] = array.value(row).as_ref();
                self.body.extend_from_slice(value);
            }
        }
    }

    fn buffer(&mut self, bytes: &[u8]) {
        self.pad();
        self.body.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
    }
}
