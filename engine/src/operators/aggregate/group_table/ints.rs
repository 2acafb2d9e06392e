//! Fixed-width key columns as integers: how a value of each type becomes 64 bits, and back.
//!
//! A group table packs keys as `value - base`, so it wants each column as integers. Floats are
//! integers by their bits, after -0.0 became 0.0 and every NaN the same NaN.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal64Array, PrimitiveArray,
    new_null_array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use crate::error::{EngineError, Result};

/// A value that stands for itself as 64 bits.
pub(super) trait KeyNative: Copy {
    fn to_key(self) -> i64;
    fn from_key(key: i64) -> Self;
}

macro_rules! key_native {
    ($($t:ty),*) => {$(
        impl KeyNative for $t {
            #[inline(always)]
            fn to_key(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn from_key(key: i64) -> Self {
                key as $t
            }
        }
    )*};
}
key_native!(i8, i16, i32, i64, u8, u16, u32, u64);

impl KeyNative for f64 {
    #[inline(always)]
    fn to_key(self) -> i64 {
        if self.is_nan() { f64::NAN.to_bits() as i64 } else { (self + 0.0).to_bits() as i64 }
    }
    fn from_key(key: i64) -> Self {
        f64::from_bits(key as u64)
    }
}

impl KeyNative for f32 {
    #[inline(always)]
    fn to_key(self) -> i64 {
        if self.is_nan() { f32::NAN.to_bits().into() } else { (self + 0.0).to_bits().into() }
    }
    fn from_key(key: i64) -> Self {
        f32::from_bits(key as u32)
    }
}

/// What is done with a key column's values, whatever their type.
pub(super) trait IntVisitor {
    type Out;
    fn visit<T: KeyNative>(self, values: &[T], nulls: Option<&NullBuffer>) -> Self::Out;
}

/// Calls the macro with the Arrow type of a logical key type, for those that are integers in disguise.
macro_rules! with_int_type {
    ($data_type:expr, $name:ident, $then:expr, $otherwise:expr) => {{
        macro_rules! arm {
            ($t:ty) => {{
                type $name = $t;
                $then
            }};
        }
        match $data_type {
            DataType::Int8 => arm!(Int8Type),
            DataType::Int16 => arm!(Int16Type),
            DataType::Int32 => arm!(Int32Type),
            DataType::Int64 => arm!(Int64Type),
            DataType::UInt8 => arm!(UInt8Type),
            DataType::UInt16 => arm!(UInt16Type),
            DataType::UInt32 => arm!(UInt32Type),
            DataType::UInt64 => arm!(UInt64Type),
            DataType::Float32 => arm!(Float32Type),
            DataType::Float64 => arm!(Float64Type),
            DataType::Decimal32(_, _) => arm!(Decimal32Type),
            DataType::Decimal64(_, _) => arm!(Decimal64Type),
            DataType::Date32 => arm!(Date32Type),
            DataType::Date64 => arm!(Date64Type),
            DataType::Time32(TimeUnit::Second) => arm!(Time32SecondType),
            DataType::Time32(_) => arm!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => arm!(Time64MicrosecondType),
            DataType::Time64(_) => arm!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => arm!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => arm!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => arm!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => arm!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => arm!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => arm!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => arm!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => arm!(DurationNanosecondType),
            DataType::Interval(IntervalUnit::YearMonth) => arm!(IntervalYearMonthType),
            _ => $otherwise,
        }
    }};
}

/// The type that keys of a logical type are held in: Decimal64 for a Decimal128 of up to 18 digits.
/// None for types whose values do not fit 64 bits.
pub(super) fn integer_form(logical: &DataType) -> Option<DataType> {
    match logical {
        DataType::Boolean | DataType::Null => Some(logical.clone()),
        DataType::Decimal128(p, s) if *p <= 18 => Some(DataType::Decimal64(*p, *s)),
        other => with_int_type!(other, T, Some(<T as IsInteger>::keep(other)), None),
    }
}

/// Lets `with_int_type` be used where only the match matters.
trait IsInteger: ArrowPrimitiveType {
    fn keep(data_type: &DataType) -> DataType {
        data_type.clone()
    }
}
impl<T: ArrowPrimitiveType> IsInteger for T {}

/// An array of a key column in the form that [`visit_ints`] takes.
pub(super) fn to_integer_form(array: &ArrayRef, form: &DataType) -> Result<ArrayRef> {
    match (array.data_type(), form) {
        (DataType::Decimal64(_, _), DataType::Decimal64(_, _)) => Ok(array.clone()),
        (DataType::Decimal128(_, _), DataType::Decimal64(p, s)) => narrow_decimal(array, *p, *s),
        (from, to) if from == to => Ok(array.clone()),
        (DataType::Dictionary(_, _), to) => Ok(arrow::compute::cast(array, to)?),
        (from, to) if from.equals_datatype(to) => Ok(array.clone()),
        (DataType::Null, to) => Ok(new_null_array(to, array.len())),
        (from, to) => {
            Err(EngineError::internal(format!("a group key of type {from} where the plan says {to}")))
        }
    }
}

fn narrow_decimal(array: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef> {
    let wide = array.as_primitive::<Decimal128Type>();
    let values: Vec<i64> = wide.values().iter().map(|v| *v as i64).collect();
    let fits = |(v, n): (&i128, &i64)| *v == i128::from(*n);
    let all_fit = wide.values().iter().zip(&values).all(fits);
    if !all_fit && (0..wide.len()).any(|i| wide.is_valid(i) && i128::from(values[i]) != wide.value(i)) {
        return Err(EngineError::execution(format!(
            "a value has more digits than its type DECIMAL({precision}, {scale}) allows"
        )));
    }
    let narrow = Decimal64Array::new(ScalarBuffer::from(values), wide.nulls().cloned());
    Ok(Arc::new(narrow.with_data_type(DataType::Decimal64(precision, scale))))
}

/// Visits the values of an array in integer form.
pub(super) fn visit_ints<V: IntVisitor>(array: &ArrayRef, visitor: V) -> Result<V::Out> {
    let nulls = array.nulls().filter(|n| n.null_count() > 0);
    match array.data_type() {
        DataType::Boolean => {
            let values: Vec<u8> = array.as_boolean().values().iter().map(u8::from).collect();
            Ok(visitor.visit(&values, nulls))
        }
        DataType::Null => {
            Ok(visitor.visit(&vec![0u8; array.len()], Some(&NullBuffer::new_null(array.len()))))
        }
        other => with_int_type!(
            other,
            T,
            Ok(visitor.visit(array.as_primitive::<T>().values(), nulls)),
            Err(EngineError::internal(format!("a group key of type {other} is not an integer")))
        ),
    }
}

/// An array of an integer form from keys; keys of null rows may be anything.
pub(super) fn from_keys(
    form: &DataType,
    keys: impl ExactSizeIterator<Item = i64>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    match form {
        DataType::Boolean => Ok(Arc::new(BooleanArray::new(keys.map(|k| k != 0).collect(), nulls))),
        DataType::Null => Ok(new_null_array(form, keys.len())),
        other => with_int_type!(
            other,
            T,
            {
                let values: Vec<<T as ArrowPrimitiveType>::Native> = keys.map(KeyNative::from_key).collect();
                Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(other.clone())))
            },
            Err(EngineError::internal(format!("a group key of type {other} is not an integer")))
        ),
    }
}
