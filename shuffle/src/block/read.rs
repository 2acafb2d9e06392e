//! Columns from a block's body and metadata; the layout is in [`write`](super::write).
//!
//! What always holds: buffers are slices of the block, nothing is copied but lengths (to offsets) and
//! views. Arrays are made by Arrow's checked constructors. The one exception is string views, whose check
//! in Arrow goes value by value: here the data is checked as a whole, then each value's start, and the
//! views are our own.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray,
    GenericByteArray, GenericByteViewArray, GenericListArray, MapArray, NullArray, OffsetSizeTrait,
    PrimitiveArray, StructArray, downcast_integer, downcast_primitive, make_view,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, LargeBinaryType,
    LargeUtf8Type, StringViewType, Utf8Type,
};
use arrow::error::ArrowError;

use super::types::read_type;
use super::{ALIGNMENT, ELEMENTS_MAX};
use crate::bytes::{Bytes, Damage};

type Result<T> = std::result::Result<T, Damage>;

/// The columns of a block: `raw` is its decompressed bytes, the last `metadata_bytes` of them metadata.
pub(super) fn read_columns(raw: &Buffer, metadata_bytes: usize, rows: usize) -> Result<Vec<ArrayRef>> {
    let body_bytes = raw.len().checked_sub(metadata_bytes).ok_or("metadata is longer than the block")?;
    let metadata = Bytes::new(&raw.as_slice()[body_bytes..]);
    let body = raw.slice_with_length(0, body_bytes);
    let mut reader = ColumnReader { metadata, body, at: 0 };
    let count = reader.metadata.varint()?;
    let mut columns = vec![];
    for _ in 0..count {
        let data_type = read_type(&mut reader.metadata)?;
        columns.push(reader.array(&data_type, rows)?);
    }
    reader.metadata.end()?;
    if reader.at != body_bytes {
        return Err("the block has more data than its columns".into());
    }
    Ok(columns)
}

fn damage(error: ArrowError) -> Damage {
    error.to_string().into()
}

struct ColumnReader<'a> {
    metadata: Bytes<'a>,
    body: Buffer,
    /// Bytes of the body that are read.
    at: usize,
}

impl ColumnReader<'_> {
    fn array(&mut self, data_type: &DataType, length: usize) -> Result<ArrayRef> {
        use DataType as T;
        if length > ELEMENTS_MAX {
            return Err("an array has an absurd length".into());
        }
        if data_type == &T::Null {
            return Ok(Arc::new(NullArray::new(length)));
        }
        let nulls = self.nulls(length)?;
        Ok(match data_type {
            T::Boolean => Arc::new(BooleanArray::new(self.bits(length)?, nulls)),
            T::Utf8 => self.strings::<Utf8Type>(length, nulls)?,
            T::LargeUtf8 => self.strings::<LargeUtf8Type>(length, nulls)?,
            T::Binary => self.strings::<BinaryType>(length, nulls)?,
            T::LargeBinary => self.strings::<LargeBinaryType>(length, nulls)?,
            T::Utf8View => {
                let (lengths, data) = self.lengths_and_data(length)?;
                check_utf8(&lengths, &data)?;
                views::<StringViewType>(&lengths, data, nulls)
            }
            T::BinaryView => {
                let (lengths, data) = self.lengths_and_data(length)?;
                views::<BinaryViewType>(&lengths, data, nulls)
            }
            T::FixedSizeBinary(size) => {
                let values = self.take(length, *size as usize)?;
                let array = FixedSizeBinaryArray::try_new_with_len(*size, values, nulls, length);
                Arc::new(array.map_err(damage)?)
            }
            T::Struct(fields) => {
                let children = fields.iter().map(|f| self.array(f.data_type(), length));
                let children = children.collect::<Result<Vec<_>>>()?;
                let array = StructArray::try_new_with_length(fields.clone(), children, nulls, length);
                Arc::new(array.map_err(damage)?)
            }
            T::FixedSizeList(field, size) => {
                let elements = length.checked_mul(*size as usize).ok_or("a list has an absurd length")?;
                let values = self.array(field.data_type(), elements)?;
                let array =
                    FixedSizeListArray::try_new_with_length(field.clone(), *size, values, nulls, length);
                Arc::new(array.map_err(damage)?)
            }
            T::List(field) => {
                let (offsets, values) = self.elements::<i32>(field.data_type(), length)?;
                let array = GenericListArray::try_new(field.clone(), offsets, values, nulls);
                Arc::new(array.map_err(damage)?)
            }
            T::LargeList(field) => {
                let (offsets, values) = self.elements::<i64>(field.data_type(), length)?;
                let array = GenericListArray::try_new(field.clone(), offsets, values, nulls);
                Arc::new(array.map_err(damage)?)
            }
            T::Map(field, sorted) => {
                let (offsets, entries) = self.elements::<i32>(field.data_type(), length)?;
                let entries = entries.as_struct_opt().ok_or("a map's entries are not structs")?.clone();
                let array = MapArray::try_new(field.clone(), offsets, entries, nulls, *sorted);
                Arc::new(array.map_err(damage)?)
            }
            T::Dictionary(key_type, value_type) => {
                let count = usize::try_from(self.metadata.varint()?).unwrap_or(usize::MAX);
                let keys = self.values(key_type, length, nulls)?;
                let values = self.array(value_type, count)?;
                dictionary(&keys, values)?
            }
            _ => self.values(data_type, length, nulls)?,
        })
    }

    fn nulls(&mut self, length: usize) -> Result<Option<NullBuffer>> {
        match self.metadata.byte()? {
            0 => Ok(None),
            1 => Ok(Some(NullBuffer::new(self.bits(length)?))),
            _ => Err("a null marker is neither 0 nor 1".into()),
        }
    }

    fn bits(&mut self, length: usize) -> Result<BooleanBuffer> {
        let bytes = self.take(length.div_ceil(8), 1)?;
        Ok(BooleanBuffer::new(bytes, 0, length))
    }

    /// The next buffer: `count` values of `width` bytes.
    fn take(&mut self, count: usize, width: usize) -> Result<Buffer> {
        const SHORT: &str = "the block has less data than its columns";
        let start = self.at.next_multiple_of(ALIGNMENT);
        let bytes = count.checked_mul(width).ok_or(SHORT)?;
        let end = start.checked_add(bytes).filter(|end| *end <= self.body.len()).ok_or(SHORT)?;
        self.at = end;
        Ok(self.body.slice_with_length(start, end - start))
    }

    fn scalars<T: ArrowNativeType>(&mut self, count: usize) -> Result<ScalarBuffer<T>> {
        Ok(ScalarBuffer::new(self.take(count, size_of::<T>())?, 0, count))
    }

    /// A primitive array.
    fn values(&mut self, data_type: &DataType, length: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        macro_rules! values {
            ($t:ty) => {{
                let values = self.scalars(length)?;
                let array = PrimitiveArray::<$t>::try_new(values, nulls).map_err(damage)?;
                Ok(Arc::new(array.with_data_type(data_type.clone())) as ArrayRef)
            }};
        }
        downcast_primitive! {
            data_type => (values),
            _ => Err("a type that blocks do not hold".into()),
        }
    }

    /// Lengths, and as many bytes of data as they say.
    fn lengths_and_data(&mut self, length: usize) -> Result<(ScalarBuffer<u32>, Buffer)> {
        let lengths = self.scalars::<u32>(length)?;
        let data_bytes = usize::try_from(self.metadata.varint()?).unwrap_or(usize::MAX);
        if sum(&lengths) != data_bytes as u64 {
            return Err("the lengths of strings do not add up".into());
        }
        Ok((lengths, self.take(data_bytes, 1)?))
    }

    fn strings<T: ByteArrayType>(&mut self, length: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (lengths, data) = self.lengths_and_data(length)?;
        let array = GenericByteArray::<T>::try_new(offsets(&lengths), data, nulls);
        Ok(Arc::new(array.map_err(damage)?))
    }

    fn elements<O: OffsetSizeTrait>(
        &mut self,
        data_type: &DataType,
        length: usize,
    ) -> Result<(OffsetBuffer<O>, ArrayRef)> {
        let lengths = self.scalars::<u32>(length)?;
        let elements = usize::try_from(sum(&lengths)).unwrap_or(usize::MAX);
        let values = self.array(data_type, elements)?;
        Ok((offsets(&lengths), values))
    }
}

fn sum(lengths: &[u32]) -> u64 {
    lengths.iter().map(|l| u64::from(*l)).sum()
}

/// Running sums. The last is within the data, and so within 31 bits: the caller has compared.
fn offsets<O: OffsetSizeTrait>(lengths: &[u32]) -> OffsetBuffer<O> {
    let mut end = 0;
    let ends = lengths.iter().map(|length| {
        end += *length as usize;
        O::usize_as(end)
    });
    OffsetBuffer::new(std::iter::once(O::usize_as(0)).chain(ends).collect())
}

fn dictionary(keys: &ArrayRef, values: ArrayRef) -> Result<ArrayRef> {
    macro_rules! dictionary {
        ($t:ty) => {{
            let array = DictionaryArray::<$t>::try_new(keys.as_primitive().clone(), values);
            Ok(Arc::new(array.map_err(damage)?) as ArrayRef)
        }};
    }
    downcast_integer! {
        keys.data_type() => (dictionary),
        _ => Err("a dictionary's keys are not integers".into()),
    }
}

/// Whether every value is UTF-8: the data as a whole, and no value starts within a character.
fn check_utf8(lengths: &[u32], data: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(data).map_err(|_| "a string is not UTF-8")?;
    let mut at = 0;
    for length in lengths {
        if !text.is_char_boundary(at) {
            return Err("a string starts within a character".into());
        }
        at += *length as usize;
    }
    Ok(())
}

/// Views of values that lie one after the other in `data`, which must be checked already: the lengths add
/// up to its length, and it is UTF-8 if `T` is strings.
fn views<T: ByteViewType>(lengths: &[u32], data: Buffer, nulls: Option<NullBuffer>) -> ArrayRef {
    let mut views = Vec::with_capacity(lengths.len());
    let mut at = 0;
    for length in lengths {
        let end = at + *length as usize;
        views.push(view(&data, at, end));
        at = end;
    }
    // SAFETY: every view is made from its value in the only buffer, within its bounds, and the caller has
    // checked that each value is UTF-8 where it must be. `nulls` has one bit for each of the lengths.
    let array = unsafe { GenericByteViewArray::<T>::new_unchecked(views.into(), vec![data], nulls) };
    Arc::new(array)
}

/// The view of `data[start..end]` in buffer 0.
#[inline(always)]
fn view(data: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    match data.get(start..start + 16) {
        // Sixteen bytes at once, of which the length is kept: no branch for each length.
        Some(word) if length <= 12 => {
            let word = u128::from_le_bytes(word.try_into().expect("invariant: sixteen bytes"));
            (word & ((1 << (8 * length)) - 1)) << 32 | length as u128
        }
        _ => make_view(&data[start..end], 0, start as u32),
    }
}
