//! Key columns as numbers.
//!
//! [`Key::new`] brings an array into a form whose plain order is SQL's: floats with one NaN and one
//! zero, intervals as their length, dictionaries as their values. [`codes`] then maps the values of a
//! type to unsigned integers of the same order, which the sort packs and the top-k compares with its
//! bound. Codes know nothing of nulls and of DESC; whoever packs them does.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array,
    FixedSizeListArray, GenericListArray, OffsetSizeTrait, PrimitiveArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::downcast_primitive_array;

use crate::error::Result;

/// A key column, ready for comparison.
pub struct Key {
    /// Values whose plain (Arrow) order is SQL's.
    pub array: ArrayRef,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Key {
    /// A key column from values in any physical form.
    pub fn new(values: &ArrayRef, descending: bool, nulls_first: bool) -> Result<Self> {
        Ok(Key { array: canonical(values)?, descending, nulls_first })
    }

    /// The same key again; the values are shared.
    pub fn share(&self) -> Key {
        Key { array: self.array.clone(), ..*self }
    }

    /// Keys that together sort as this one does, and whose nested nulls stand where PostgreSQL has them:
    /// behind all values, before them with DESC, whatever NULLS FIRST says of the rows themselves.
    pub fn flat(self) -> Vec<Key> {
        if !self.array.data_type().is_nested() {
            return vec![self];
        }
        let is_null = match self.nulls() {
            Some(nulls) => BooleanArray::new(!nulls.inner(), None),
            None => BooleanArray::new(BooleanBuffer::new_unset(self.array.len()), None),
        };
        let flag = Key { array: Arc::new(is_null), descending: self.nulls_first, nulls_first: false };
        vec![flag, Key { nulls_first: self.descending, ..self }]
    }

    /// The rows without a value.
    pub fn nulls(&self) -> Option<NullBuffer> {
        self.array.logical_nulls().filter(|n| n.null_count() > 0)
    }
}

/// The values in a form whose plain order is SQL's, and in which values that SQL calls equal are the same.
pub fn canonical(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float16 => {
            let zero = half_bits(0.0);
            floats::<Float16Type>(values, |v| {
                if v.is_nan() {
                    half_bits(f32::NAN)
                } else if v == zero {
                    zero
                } else {
                    v
                }
            })
        }
        DataType::Float32 => floats::<Float32Type>(values, |v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
        DataType::Float64 => floats::<Float64Type>(values, |v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
        DataType::Interval(IntervalUnit::MonthDayNano) => lengths::<IntervalMonthDayNanoType>(values, |v| {
            (i128::from(v.months) * 30 + i128::from(v.days)) * DAY_NANOS + i128::from(v.nanoseconds)
        }),
        DataType::Interval(IntervalUnit::DayTime) => lengths::<IntervalDayTimeType>(values, |v| {
            i128::from(v.days) * DAY_NANOS + i128::from(v.milliseconds) * 1_000_000
        }),
        DataType::Dictionary(_, plain) => canonical(&cast(values, plain)?)?,
        DataType::List(field) => Arc::new(canonical_list(values.as_list::<i32>(), field)?),
        DataType::LargeList(field) => Arc::new(canonical_list(values.as_list::<i64>(), field)?),
        DataType::FixedSizeList(field, size) => {
            let list = values.as_fixed_size_list();
            let items = canonical(list.values())?;
            let nulls = list.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new(field_of(field, &items), *size, items, nulls)?)
        }
        DataType::Struct(fields) => {
            let parts = values.as_struct();
            let columns = parts.columns().iter().map(canonical).collect::<Result<Vec<_>>>()?;
            let fields = fields.iter().zip(&columns).map(|(f, c)| field_of(f, c)).collect::<Fields>();
            let nulls = parts.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields, columns, nulls, parts.len())?)
        }
        _ => values.clone(),
    })
}

fn canonical_list<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    field: &FieldRef,
) -> Result<GenericListArray<O>> {
    let items = canonical(list.values())?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    Ok(GenericListArray::try_new(field_of(field, &items), offsets, items, nulls)?)
}

/// The field with the type of an array.
fn field_of(field: &FieldRef, array: &ArrayRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()))
}

const DAY_NANOS: i128 = 86_400_000_000_000;

fn half_bits(v: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_f32(v)
}

fn floats<T: ArrowPrimitiveType>(values: &ArrayRef, f: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    Arc::new(values.as_primitive::<T>().unary::<_, T>(f))
}

fn lengths<T: ArrowPrimitiveType>(values: &ArrayRef, f: impl Fn(T::Native) -> i128) -> ArrayRef {
    let lengths: Decimal128Array = values.as_primitive::<T>().unary(f);
    Arc::new(lengths)
}

/// Unsigned integers in the order of the values they stand for. Those of null rows mean nothing.
pub enum Codes {
    /// Different values have different codes.
    Narrow(Vec<u64>),
    /// Different values have different codes.
    Wide(Vec<u128>),
    /// The values are byte strings: see [`prefixes`].
    Bytes,
    /// The type has no codes: lists, structs, 256-bit decimals.
    None,
}

/// The codes of a canonical array.
pub fn codes(array: &ArrayRef) -> Codes {
    let array = array.as_ref();
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean().values();
            Codes::Narrow(values.iter().map(u64::from).collect())
        }
        DataType::Decimal128(_, _) => {
            let values = array.as_primitive::<Decimal128Type>().values();
            Codes::Wide(values.iter().map(|&v| v as u128 ^ (1 << 127)).collect())
        }
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Codes::Bytes,
        DataType::Float16 => narrow::<Float16Type>(array, |v| {
            let bits = v.to_bits() as i16;
            (bits ^ (((bits >> 15) as u16) >> 1) as i16) as u16 as u64 ^ 0x8000
        }),
        DataType::Float32 => narrow::<Float32Type>(array, |v| {
            let bits = v.to_bits() as i32;
            (bits ^ (((bits >> 31) as u32) >> 1) as i32) as u32 as u64 ^ 0x8000_0000
        }),
        DataType::Float64 => narrow::<Float64Type>(array, |v| {
            let bits = v.to_bits() as i64;
            (bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64 ^ (1 << 63)
        }),
        DataType::UInt8 => narrow::<UInt8Type>(array, u64::from),
        DataType::UInt16 => narrow::<UInt16Type>(array, u64::from),
        DataType::UInt32 => narrow::<UInt32Type>(array, u64::from),
        DataType::UInt64 => narrow::<UInt64Type>(array, |v| v),
        DataType::Decimal256(_, _)
        | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => Codes::None,
        // What is left of the fixed-width types is signed integers of up to 64 bits.
        _ => signed(array),
    }
}

fn narrow<T: ArrowPrimitiveType>(array: &dyn Array, f: impl Fn(T::Native) -> u64) -> Codes {
    Codes::Narrow(array.as_primitive::<T>().values().iter().map(|&v| f(v)).collect())
}

fn signed(array: &dyn Array) -> Codes {
    fn of<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> Codes {
        if T::Native::default().to_i64().is_none() {
            return Codes::None;
        }
        let code = |v: T::Native| v.to_i64().unwrap_or_default() as u64 ^ (1 << 63);
        Codes::Narrow(array.values().iter().map(|&v| code(v)).collect())
    }
    use arrow::datatypes::ArrowNativeType as _;
    downcast_primitive_array!(
        array => of(array),
        _ => Codes::None
    )
}

/// The byte strings of a canonical array, given to `f` as an iterator, null rows included.
macro_rules! with_bytes {
    ($array:expr, $f:ident $(, $arg:expr)*) => {{
        let array: &dyn Array = $array;
        match array.data_type() {
            DataType::Utf8 => $f(array.as_string::<i32>() $(, $arg)*),
            DataType::LargeUtf8 => $f(array.as_string::<i64>() $(, $arg)*),
            DataType::Utf8View => $f(array.as_string_view() $(, $arg)*),
            DataType::Binary => $f(array.as_binary::<i32>() $(, $arg)*),
            DataType::LargeBinary => $f(array.as_binary::<i64>() $(, $arg)*),
            DataType::BinaryView => $f(array.as_binary_view() $(, $arg)*),
            DataType::FixedSizeBinary(_) => $f(array.as_fixed_size_binary() $(, $arg)*),
            other => unreachable!("invariant: {other} is no byte string"),
        }
    }};
}

/// What byte strings have in common; see [`shape`].
pub struct Shape {
    /// Bytes with which all of them begin.
    pub common: usize,
    /// Bytes of the longest behind those.
    pub longest: usize,
}

/// The shape of an array of byte strings, null rows aside. Only for [`Codes::Bytes`].
pub fn shape(array: &ArrayRef) -> Shape {
    fn of<A: ArrayAccessor>(array: A) -> Shape
    where
        A::Item: AsRef<[u8]>,
    {
        let mut first: Option<A::Item> = None;
        let (mut common, mut longest) = (0, 0);
        for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
            let value = array.value(row);
            let bytes = value.as_ref();
            longest = longest.max(bytes.len());
            match &first {
                None => {
                    common = bytes.len();
                    first = Some(value);
                }
                Some(first) if common > 0 => {
                    let same = first.as_ref()[..common].iter().zip(bytes).take_while(|(a, b)| a == b);
                    common = same.count();
                }
                Some(_) => {}
            }
        }
        Shape { common, longest: longest - common }
    }
    with_bytes!(array.as_ref(), of)
}

/// `count` bytes (at most 8) of every byte string from position `skip` on, as big-endian numbers, padded
/// with zeros: codes for which different strings can be equal. Those of null rows mean nothing.
pub fn prefixes(array: &ArrayRef, skip: usize, count: usize) -> Vec<u64> {
    fn of<A: ArrayAccessor>(array: A, skip: usize, count: usize) -> Vec<u64>
    where
        A::Item: AsRef<[u8]>,
    {
        let shift = 64 - 8 * count as u32;
        (0..array.len())
            .map(|row| {
                let value = array.value(row);
                let bytes = value.as_ref().get(skip..).unwrap_or(&[]);
                let mut padded = [0; 8];
                match bytes.first_chunk::<8>() {
                    Some(chunk) => padded = *chunk,
                    None => padded[..bytes.len()].copy_from_slice(bytes),
                }
                u64::from_be_bytes(padded).checked_shr(shift).unwrap_or(0)
            })
            .collect()
    }
    with_bytes!(array.as_ref(), of, skip, count)
}

/// The lengths of byte strings behind position `skip`.
pub fn lengths_behind(array: &ArrayRef, skip: usize) -> Vec<u64> {
    fn of<A: ArrayAccessor>(array: A, skip: usize) -> Vec<u64>
    where
        A::Item: AsRef<[u8]>,
    {
        (0..array.len()).map(|row| array.value(row).as_ref().len().saturating_sub(skip) as u64).collect()
    }
    with_bytes!(array.as_ref(), of, skip)
}
