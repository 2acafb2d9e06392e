//! Key columns that are not integers, as codes of an interner.
//!
//! Strings that come as codes of a dictionary, or as rows of a join's build side, are interned once per
//! distinct code: a translation from code to interned code is kept for as long as batches point into the
//! same array. What has no bytes of its own (lists, structs) is interned by Arrow's row format.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, DictionaryArray, FixedSizeBinaryBuilder,
    PrimitiveArray, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, IntervalUnit};
use arrow::row::{RowConverter, SortField};

use super::interner::Interner;
use crate::batch::{Column, to_logical};
use crate::error::Result;

const UNKNOWN: u32 = u32::MAX;
/// Largest array that is translated although one batch does not repeat its values.
const TRANSLATION_ROWS_MAX: usize = 1 << 22;

/// A key column held as interned codes; code 0 is null.
pub(super) struct BytesKey {
    /// The type of the values, never a dictionary.
    value_type: DataType,
    interner: Interner,
    form: Form,
    /// Codes of the current batch.
    pub(super) codes: Vec<u32>,
    translation: Translation,
}

/// How values become bytes.
enum Form {
    /// Strings and binaries: they are bytes.
    Bytes,
    /// Fixed-width values: their bytes in memory.
    Fixed,
    /// Everything else, by Arrow's row format.
    Rows(RowConverter),
}

/// Interned codes of the rows of one array.
#[derive(Default)]
struct Translation {
    array: Option<ArrayRef>,
    /// By row of `array`; empty as long as nobody expects the array to come again.
    codes: Vec<u32>,
}

impl BytesKey {
    pub(super) fn new(value_type: DataType) -> Result<Self> {
        use DataType as T;
        let form = match &value_type {
            T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => Form::Bytes,
            T::FixedSizeBinary(_) => Form::Bytes,
            T::Decimal128(_, _)
            | T::Decimal256(_, _)
            | T::Float16
            | T::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => Form::Fixed,
            other => Form::Rows(RowConverter::new(vec![SortField::new(other.clone())])?),
        };
        Ok(BytesKey {
            value_type,
            interner: Interner::new(),
            form,
            codes: vec![],
            translation: Translation::default(),
        })
    }

    /// Distinct values so far, without null: the largest code.
    pub(super) fn distinct(&self) -> usize {
        self.interner.len()
    }

    /// Memory that is read for every row, bytes.
    pub(super) fn hot_bytes(&self) -> usize {
        match self.translation.codes.len() {
            0 => self.interner.memory_bytes(),
            codes => codes * 4,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.interner.memory_bytes() + self.translation.codes.capacity() * 4
    }

    /// Fills `codes` with the codes of a batch's column.
    pub(super) fn encode(&mut self, column: &Column) -> Result<()> {
        self.codes.clear();
        if !matches!(self.form, Form::Bytes) {
            let plain = column.to_logical(&self.value_type)?;
            return self.encode_plain(&plain);
        }
        match (column.data_type(), column.indices()) {
            (DataType::Dictionary(k, _), _) if k.as_ref() == &DataType::UInt32 => {
                let array = column.values()?;
                let dictionary = array.as_dictionary::<UInt32Type>();
                self.encode_rows_of(dictionary.values(), dictionary.keys())
            }
            (DataType::Dictionary(_, _), _) => {
                let plain = cast(&column.values()?, &self.value_type)?;
                self.encode_plain(&plain)
            }
            (_, Some(indices)) => match self.translates(column.base(), indices.len()) {
                true => self.encode_rows_of(column.base(), &indices.clone()),
                false => self.encode_plain(&column.values()?),
            },
            (_, None) => self.encode_plain(column.base()),
        }
    }

    /// Whether it pays to keep codes by row of `array`; remembers the array.
    fn translates(&mut self, array: &ArrayRef, rows: usize) -> bool {
        if self.translation.array.as_ref().is_some_and(|a| Arc::ptr_eq(a, array)) {
            if self.translation.codes.is_empty() && array.len() <= TRANSLATION_ROWS_MAX {
                self.translation.codes.resize(array.len(), UNKNOWN);
            }
        } else {
            self.translation.array = Some(array.clone());
            self.translation.codes.clear();
            if array.len() <= rows {
                self.translation.codes.resize(array.len(), UNKNOWN);
            }
        }
        !self.translation.codes.is_empty()
    }

    fn encode_rows_of(&mut self, values: &ArrayRef, rows: &UInt32Array) -> Result<()> {
        if !self.translates(values, rows.len()) {
            return self.encode_plain(&take(values, rows, None)?);
        }
        let nulls = rows.nulls().filter(|n| n.null_count() > 0);
        let known = &mut self.translation.codes;
        for (i, &row) in rows.values().iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(i)) {
                self.codes.push(0);
                continue;
            }
            let mut code = known[row as usize];
            if code == UNKNOWN {
                code = intern_one(&mut self.interner, values, row as usize);
                known[row as usize] = code;
            }
            self.codes.push(code);
        }
        Ok(())
    }

    fn encode_plain(&mut self, array: &ArrayRef) -> Result<()> {
        match (&self.form, array.data_type()) {
            (Form::Rows(converter), _) => {
                let rows = converter.convert_columns(std::slice::from_ref(array))?;
                let interner = &mut self.interner;
                self.codes.extend((0..array.len()).map(|i| interner.code(rows.row(i).as_ref())));
            }
            (_, DataType::Utf8View) => {
                self.interner.codes_of_views(array.as_string_view(), &mut self.codes);
            }
            (_, DataType::BinaryView) => {
                self.interner.codes_of_views(array.as_binary_view(), &mut self.codes);
            }
            (_, DataType::Null) => self.codes.resize(array.len(), 0),
            _ => {
                let interner = &mut self.interner;
                self.codes.extend((0..array.len()).map(|row| intern_one(interner, array, row)));
            }
        }
        Ok(())
    }

    /// The values of the codes (0 for null), one for each group, in a form of the value type; nothing is
    /// interned then.
    pub(super) fn take(&mut self, codes: Vec<u32>) -> Result<ArrayRef> {
        self.translation.codes.fill(UNKNOWN);
        let distinct = self.take_distinct()?;
        let in_order = codes.len() == distinct.len() && codes.iter().zip(1u32..).all(|(c, n)| *c == n);
        if in_order {
            return Ok(distinct);
        }
        let nulls = codes
            .contains(&0)
            .then(|| NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |i| codes[i] != 0)));
        let rows: Vec<u32> = codes.into_iter().map(|c| c.saturating_sub(1)).collect();
        let rows = UInt32Array::new(ScalarBuffer::from(rows), nulls);
        let repeats = distinct.len() * 2 <= rows.len() && !distinct.is_empty();
        let may_be_dictionary =
            matches!(self.form, Form::Bytes) && !matches!(self.value_type, DataType::FixedSizeBinary(_));
        if repeats && may_be_dictionary {
            return Ok(Arc::new(DictionaryArray::new(rows, distinct)));
        }
        if distinct.is_empty() {
            return Ok(arrow::array::new_null_array(&self.value_type, rows.len()));
        }
        Ok(take(&distinct, &rows, None)?)
    }

    /// Every interned value once, in the order of the codes, in the value type.
    fn take_distinct(&mut self) -> Result<ArrayRef> {
        use DataType as T;
        match (&self.form, &self.value_type) {
            (Form::Bytes, T::Utf8View) => Ok(self.interner.take_strings()),
            (Form::Bytes, T::Utf8 | T::LargeUtf8) => {
                Ok(cast(&self.interner.take_strings(), &self.value_type)?)
            }
            (Form::Bytes, T::BinaryView) => Ok(Arc::new(self.interner.take())),
            (Form::Bytes, T::FixedSizeBinary(size)) => {
                let values = self.interner.take();
                let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), *size);
                for value in values.iter().flatten() {
                    builder.append_value(value)?;
                }
                Ok(Arc::new(builder.finish()))
            }
            (Form::Bytes, _) => {
                let values: ArrayRef = Arc::new(self.interner.take());
                Ok(cast(&values, &self.value_type)?)
            }
            (Form::Fixed, T::Decimal128(_, _)) => {
                fixed::<Decimal128Type>(self.interner.take(), &self.value_type)
            }
            (Form::Fixed, T::Decimal256(_, _)) => {
                fixed::<Decimal256Type>(self.interner.take(), &self.value_type)
            }
            (Form::Fixed, T::Float16) => fixed::<Float16Type>(self.interner.take(), &self.value_type),
            (Form::Fixed, T::Interval(IntervalUnit::DayTime)) => {
                fixed::<IntervalDayTimeType>(self.interner.take(), &self.value_type)
            }
            (Form::Fixed, _) => fixed::<IntervalMonthDayNanoType>(self.interner.take(), &self.value_type),
            (Form::Rows(converter), _) => {
                let bytes = self.interner.take();
                let parser = converter.parser();
                let rows = bytes.iter().flatten().map(|b| parser.parse(b));
                let arrays = converter.convert_rows(rows)?;
                to_logical(&arrays[0], &self.value_type)
            }
        }
    }
}

/// Interns one value; for the types whose values have bytes.
fn intern_one(interner: &mut Interner, array: &ArrayRef, row: usize) -> u32 {
    use DataType as T;
    if array.is_null(row) {
        return 0;
    }
    match array.data_type() {
        T::Utf8View => interner.code(array.as_string_view().value(row).as_bytes()),
        T::Utf8 => interner.code(array.as_string::<i32>().value(row).as_bytes()),
        T::LargeUtf8 => interner.code(array.as_string::<i64>().value(row).as_bytes()),
        T::BinaryView => interner.code(array.as_binary_view().value(row)),
        T::Binary => interner.code(array.as_binary::<i32>().value(row)),
        T::LargeBinary => interner.code(array.as_binary::<i64>().value(row)),
        T::FixedSizeBinary(_) => interner.code(array.as_fixed_size_binary().value(row)),
        T::Decimal128(_, _) => {
            interner.code(&array.as_primitive::<Decimal128Type>().value(row).to_le_bytes())
        }
        T::Decimal256(_, _) => {
            interner.code(&array.as_primitive::<Decimal256Type>().value(row).to_le_bytes())
        }
        T::Float16 => {
            let value = array.as_primitive::<Float16Type>().value(row);
            let bits: u16 = match value.to_f32() {
                v if v.is_nan() => 0x7e00,
                0.0 => 0,
                _ => value.to_bits(),
            };
            interner.code(&bits.to_le_bytes())
        }
        T::Interval(IntervalUnit::DayTime) => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            interner.code(&[value.days.to_le_bytes(), value.milliseconds.to_le_bytes()].concat())
        }
        T::Interval(_) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let mut bytes = [0u8; 16];
            bytes[..4].copy_from_slice(&value.months.to_le_bytes());
            bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
            bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
            interner.code(&bytes)
        }
        other => unreachable!("invariant: {other} is interned by its rows"),
    }
}

/// Values of a fixed-width type from the bytes that [`intern_one`] made of them.
fn fixed<T: FixedBytes>(values: BinaryViewArray, data_type: &DataType) -> Result<ArrayRef> {
    let natives: Vec<T::Native> = values.iter().flatten().map(T::from_bytes).collect();
    Ok(Arc::new(PrimitiveArray::<T>::new(natives.into(), None).with_data_type(data_type.clone())))
}

trait FixedBytes: ArrowPrimitiveType {
    fn from_bytes(bytes: &[u8]) -> Self::Native;
}

/// The first `N` bytes from an offset.
fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("invariant: as many bytes as were interned")
}

impl FixedBytes for Decimal128Type {
    fn from_bytes(bytes: &[u8]) -> i128 {
        i128::from_le_bytes(part(bytes, 0))
    }
}

impl FixedBytes for Decimal256Type {
    fn from_bytes(bytes: &[u8]) -> Self::Native {
        Self::Native::from_le_bytes(part(bytes, 0))
    }
}

impl FixedBytes for Float16Type {
    fn from_bytes(bytes: &[u8]) -> Self::Native {
        Self::Native::from_bits(u16::from_le_bytes(part(bytes, 0)))
    }
}

impl FixedBytes for IntervalDayTimeType {
    fn from_bytes(bytes: &[u8]) -> Self::Native {
        Self::make_value(i32::from_le_bytes(part(bytes, 0)), i32::from_le_bytes(part(bytes, 4)))
    }
}

impl FixedBytes for IntervalMonthDayNanoType {
    fn from_bytes(bytes: &[u8]) -> Self::Native {
        let (months, days) = (i32::from_le_bytes(part(bytes, 0)), i32::from_le_bytes(part(bytes, 4)));
        Self::make_value(months, days, i64::from_le_bytes(part(bytes, 8)))
    }
}
