//! Fixed-width keys as 64-bit integers: equal keys, equal integers.
//!
//! Integers, dates, times, timestamps, durations, booleans and decimals of up to 18 digits keep their
//! value (UInt64 its bits). Floats give the bits of a canonical form, in which -0.0 is 0.0 and all NaNs
//! are one, because SQL compares them so.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::*;

use crate::error::{EngineError, Result};

/// Keys of this logical type are read by [`read`].
pub fn is_integer_like(logical: &DataType) -> bool {
    use DataType::*;
    match logical {
        Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => true,
        Float16 | Float32 | Float64 | Date32 | Date64 | Time32(_) | Time64(_) => true,
        Timestamp(_, _) | Duration(_) | Decimal32(_, _) | Decimal64(_, _) => true,
        Decimal128(p, _) => *p <= 18,
        _ => false,
    }
}

/// `value - subtract`, wrapping, for every row; what null rows get is undefined.
pub fn read(array: &ArrayRef, subtract: i64, out: &mut Vec<u64>) -> Result<()> {
    out.clear();
    macro_rules! values {
        ($type:ty) => {
            values!($type, |v| v as i64)
        };
        ($type:ty, $convert:expr) => {{
            let convert: fn(<$type as ArrowPrimitiveType>::Native) -> i64 = $convert;
            let values = array.as_primitive::<$type>().values();
            out.extend(values.iter().map(|&v| convert(v).wrapping_sub(subtract) as u64));
        }};
    }
    match array.data_type() {
        DataType::Null => out.resize(array.len(), 0),
        DataType::Boolean => {
            out.extend(array.as_boolean().values().iter().map(|v| (v as i64).wrapping_sub(subtract) as u64))
        }
        DataType::Int8 => values!(Int8Type),
        DataType::Int16 => values!(Int16Type),
        DataType::Int32 => values!(Int32Type),
        DataType::Int64 => values!(Int64Type),
        DataType::UInt8 => values!(UInt8Type),
        DataType::UInt16 => values!(UInt16Type),
        DataType::UInt32 => values!(UInt32Type),
        DataType::UInt64 => values!(UInt64Type),
        DataType::Float16 => values!(Float16Type, |v| float_bits(v.to_f64())),
        DataType::Float32 => values!(Float32Type, |v| float_bits(v as f64)),
        DataType::Float64 => values!(Float64Type, float_bits),
        DataType::Date32 => values!(Date32Type),
        DataType::Date64 => values!(Date64Type),
        DataType::Time32(TimeUnit::Second) => values!(Time32SecondType),
        DataType::Time32(_) => values!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => values!(Time64MicrosecondType),
        DataType::Time64(_) => values!(Time64NanosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => values!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => values!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => values!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => values!(TimestampNanosecondType),
        DataType::Duration(TimeUnit::Second) => values!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => values!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => values!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => values!(DurationNanosecondType),
        DataType::Decimal32(_, _) => values!(Decimal32Type),
        DataType::Decimal64(_, _) => values!(Decimal64Type),
        DataType::Decimal128(_, _) => read_decimal128(array, subtract, out)?,
        other => return Err(EngineError::internal(format!("a join key of type {other} read as integer"))),
    }
    Ok(())
}

fn read_decimal128(array: &ArrayRef, subtract: i64, out: &mut Vec<u64>) -> Result<()> {
    let array = array.as_primitive::<Decimal128Type>();
    let mut lost = false;
    out.extend(array.values().iter().map(|&v| {
        lost |= v as i64 as i128 != v;
        (v as i64).wrapping_sub(subtract) as u64
    }));
    // What lies under a null may be anything.
    if lost && array.iter().flatten().any(|v| v as i64 as i128 != v) {
        return Err(EngineError::internal("a decimal join key has more digits than its type allows"));
    }
    Ok(())
}

fn float_bits(value: f64) -> i64 {
    let canonical = if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    canonical.to_bits() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal64Array, Decimal128Array, Float32Array, Int8Array};
    use std::sync::Arc;

    fn integers(array: ArrayRef) -> Vec<i64> {
        let mut out = vec![];
        read(&array, 0, &mut out).unwrap();
        out.into_iter().map(|v| v as i64).collect()
    }

    #[test]
    fn forms_of_one_decimal_agree() {
        let narrow = Decimal64Array::from(vec![-5, 1_000_000]).with_precision_and_scale(15, 2).unwrap();
        let wide = Decimal128Array::from(vec![-5, 1_000_000]).with_precision_and_scale(15, 2).unwrap();
        assert_eq!(integers(Arc::new(narrow)), integers(Arc::new(wide)));
        assert_eq!(integers(Arc::new(Int8Array::from(vec![-128, 127]))), [-128, 127]);
    }

    #[test]
    fn floats_are_equal_as_in_sql() {
        let read = integers(Arc::new(Float32Array::from(vec![0.0, -0.0, f32::NAN, -f32::NAN, 1.5])));
        assert_eq!(read[0], read[1]);
        assert_eq!(read[2], read[3]);
        assert_ne!(read[0], read[4]);
    }
}
