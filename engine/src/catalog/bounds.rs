//! Minima and maxima from Parquet's statistics, made comparable.
//!
//! What is returned bounds every value of the chunk or page that is not null and not NaN: truncated
//! string statistics do, statistics in an undefined order (deprecated fields on strings or unsigned
//! numbers) do not and are left out.

use std::cmp::Ordering;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;
use parquet::file::statistics::Statistics;

/// A value in the order of its type: integers, dates, times, decimals' unscaled values; floats without
/// NaN; bytes of strings and binaries.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    Int(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

/// The least and the greatest value, as far as known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounds {
    pub min: Option<Bound>,
    pub max: Option<Bound>,
}

impl Bound {
    /// The order of two values of one type; none for values of different types.
    pub fn compare(&self, other: &Bound) -> Option<Ordering> {
        match (self, other) {
            (Bound::Int(a), Bound::Int(b)) => Some(a.cmp(b)),
            (Bound::Float(a), Bound::Float(b)) => a.partial_cmp(b),
            (Bound::Bytes(a), Bound::Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// A literal's value; none for nulls, NaN and types without bounds.
    pub fn of_scalar(value: &ScalarValue) -> Option<Bound> {
        use ScalarValue::*;
        Some(match value {
            Boolean(v) => Bound::Int((*v)? as i128),
            Int8(v) => Bound::Int((*v)? as i128),
            Int16(v) => Bound::Int((*v)? as i128),
            Int32(v) | Date32(v) | Time32Second(v) | Time32Millisecond(v) => Bound::Int((*v)? as i128),
            Int64(v) | Date64(v) | Time64Microsecond(v) | Time64Nanosecond(v) => Bound::Int((*v)? as i128),
            TimestampSecond(v, _) | TimestampMillisecond(v, _) => Bound::Int((*v)? as i128),
            TimestampMicrosecond(v, _) | TimestampNanosecond(v, _) => Bound::Int((*v)? as i128),
            UInt8(v) => Bound::Int((*v)? as i128),
            UInt16(v) => Bound::Int((*v)? as i128),
            UInt32(v) => Bound::Int((*v)? as i128),
            UInt64(v) => Bound::Int((*v)? as i128),
            Decimal64(v, _, _) => Bound::Int((*v)? as i128),
            Decimal128(v, _, _) => Bound::Int((*v)?),
            Float32(v) => float((*v)? as f64)?,
            Float64(v) => float((*v)?)?,
            Utf8(v) | LargeUtf8(v) | Utf8View(v) => Bound::Bytes(v.as_ref()?.as_bytes().to_vec()),
            Binary(v) | LargeBinary(v) | BinaryView(v) => Bound::Bytes(v.as_ref()?.clone()),
            Dictionary(_, v) => return Bound::of_scalar(v),
            _ => return None,
        })
    }

    /// The value as a literal of a type; none if it is not one (a truncated string that is not UTF-8).
    pub fn to_scalar(&self, t: &DataType) -> Option<ScalarValue> {
        use DataType as T;
        Some(match (self, t) {
            (Bound::Int(v), T::Boolean) => ScalarValue::Boolean(Some(*v != 0)),
            (Bound::Int(v), T::Int8) => ScalarValue::Int8(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::Int16) => ScalarValue::Int16(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::Int32) => ScalarValue::Int32(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::Int64) => ScalarValue::Int64(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::UInt8) => ScalarValue::UInt8(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::UInt16) => ScalarValue::UInt16(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::UInt32) => ScalarValue::UInt32(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::UInt64) => ScalarValue::UInt64(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::Date32) => ScalarValue::Date32(Some((*v).try_into().ok()?)),
            (Bound::Int(v), T::Decimal128(p, s)) => ScalarValue::Decimal128(Some(*v), *p, *s),
            (Bound::Int(v), T::Timestamp(unit, zone)) => {
                let v = Some((*v).try_into().ok()?);
                match unit {
                    TimeUnit::Second => ScalarValue::TimestampSecond(v, zone.clone()),
                    TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(v, zone.clone()),
                    TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(v, zone.clone()),
                    TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(v, zone.clone()),
                }
            }
            (Bound::Float(v), T::Float32) => ScalarValue::Float32(Some(*v as f32)),
            (Bound::Float(v), T::Float64) => ScalarValue::Float64(Some(*v)),
            (Bound::Bytes(v), T::Utf8View) => ScalarValue::Utf8View(Some(String::from_utf8(v.clone()).ok()?)),
            (Bound::Bytes(v), T::BinaryView) => ScalarValue::BinaryView(Some(v.clone())),
            _ => return None,
        })
    }
}

/// A chunk's bounds, for a column of logical type `t`.
pub fn of_statistics(statistics: &Statistics, t: &DataType) -> Bounds {
    use Statistics as S;
    // The deprecated fields were written in signed order, whatever the type's own.
    if statistics.is_min_max_deprecated() && !is_signed(t) {
        return Bounds::default();
    }
    fn both<T>(min: Option<&T>, max: Option<&T>, f: impl Fn(&T) -> Option<Bound>) -> Bounds {
        Bounds { min: min.and_then(&f), max: max.and_then(&f) }
    }
    match statistics {
        S::Boolean(s) => both(s.min_opt(), s.max_opt(), |v| of_bool(*v, t)),
        S::Int32(s) => both(s.min_opt(), s.max_opt(), |v| of_i32(*v, t)),
        S::Int64(s) => both(s.min_opt(), s.max_opt(), |v| of_i64(*v, t)),
        S::Float(s) => both(s.min_opt(), s.max_opt(), |v| of_f64(*v as f64, t)),
        S::Double(s) => both(s.min_opt(), s.max_opt(), |v| of_f64(*v, t)),
        S::ByteArray(s) => both(s.min_opt(), s.max_opt(), |v| of_bytes(v.data(), t)),
        S::FixedLenByteArray(s) => both(s.min_opt(), s.max_opt(), |v| of_bytes(v.data(), t)),
        S::Int96(_) => Bounds::default(),
    }
}

/// A physical BOOLEAN of a column of logical type `t`.
pub fn of_bool(v: bool, t: &DataType) -> Option<Bound> {
    (*t == DataType::Boolean).then_some(Bound::Int(v as i128))
}

/// A physical INT32 of a column of logical type `t`.
pub fn of_i32(v: i32, t: &DataType) -> Option<Bound> {
    use DataType::*;
    match t {
        UInt8 | UInt16 | UInt32 => Some(Bound::Int(v as u32 as i128)),
        Int8 | Int16 | Int32 | Date32 | Decimal128(_, _) => Some(Bound::Int(v as i128)),
        _ => None,
    }
}

/// A physical INT64 of a column of logical type `t`.
pub fn of_i64(v: i64, t: &DataType) -> Option<Bound> {
    use DataType::*;
    match t {
        UInt64 => Some(Bound::Int(v as u64 as i128)),
        Int64 | Timestamp(_, _) | Decimal128(_, _) => Some(Bound::Int(v as i128)),
        _ => None,
    }
}

/// A physical FLOAT or DOUBLE of a column of logical type `t`.
pub fn of_f64(v: f64, t: &DataType) -> Option<Bound> {
    matches!(t, DataType::Float32 | DataType::Float64).then(|| float(v)).flatten()
}

/// A physical BYTE_ARRAY or FIXED_LEN_BYTE_ARRAY of a column of logical type `t`.
pub fn of_bytes(v: &[u8], t: &DataType) -> Option<Bound> {
    match t {
        DataType::Utf8View | DataType::BinaryView => Some(Bound::Bytes(v.to_vec())),
        DataType::Decimal128(_, _) if !v.is_empty() && v.len() <= 16 => {
            let mut wide = [if v[0] & 0x80 != 0 { 0xff } else { 0 }; 16];
            wide[16 - v.len()..].copy_from_slice(v);
            Some(Bound::Int(i128::from_be_bytes(wide)))
        }
        _ => None,
    }
}

fn float(v: f64) -> Option<Bound> {
    (!v.is_nan()).then_some(Bound::Float(v))
}

fn is_signed(t: &DataType) -> bool {
    use DataType::*;
    matches!(t, Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(_, _) | Float32 | Float64)
}
