//! A data type as a few bytes.
//!
//! A type without parameters is one byte, its place in [`PLAIN`]; the others are a tag and their parameters.
//! Blocks carry the types of their columns, because physical forms differ from block to block. What always
//! holds: reading is bounded in depth ([`DEPTH_MAX`]) and by the bytes at hand.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION,
    DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit,
};

use crate::bytes::{Bytes, Damage, put_bytes, put_varint};
use crate::error::{Result, ShuffleError};

/// How deep types may nest.
const DEPTH_MAX: usize = 64;

/// Types without parameters. A type's place is its tag: append only.
static PLAIN: [DataType; 36] = [
    DataType::Null,
    DataType::Boolean,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float16,
    DataType::Float32,
    DataType::Float64,
    DataType::Date32,
    DataType::Date64,
    DataType::Time32(TimeUnit::Second),
    DataType::Time32(TimeUnit::Millisecond),
    DataType::Time64(TimeUnit::Microsecond),
    DataType::Time64(TimeUnit::Nanosecond),
    DataType::Timestamp(TimeUnit::Second, None),
    DataType::Timestamp(TimeUnit::Millisecond, None),
    DataType::Timestamp(TimeUnit::Microsecond, None),
    DataType::Timestamp(TimeUnit::Nanosecond, None),
    DataType::Duration(TimeUnit::Second),
    DataType::Duration(TimeUnit::Millisecond),
    DataType::Duration(TimeUnit::Microsecond),
    DataType::Duration(TimeUnit::Nanosecond),
    DataType::Interval(IntervalUnit::YearMonth),
    DataType::Interval(IntervalUnit::DayTime),
    DataType::Interval(IntervalUnit::MonthDayNano),
    DataType::Utf8,
    DataType::LargeUtf8,
    DataType::Utf8View,
    DataType::Binary,
    DataType::LargeBinary,
    DataType::BinaryView,
];

// Tags of types with parameters. Append only.
const TIMESTAMP: u8 = 64;
const DECIMAL32: u8 = 65;
const DECIMAL64: u8 = 66;
const DECIMAL128: u8 = 67;
const DECIMAL256: u8 = 68;
const FIXED_SIZE_BINARY: u8 = 69;
const FIXED_SIZE_LIST: u8 = 70;
const LIST: u8 = 71;
const LARGE_LIST: u8 = 72;
const STRUCT: u8 = 73;
const MAP: u8 = 74;
const DICTIONARY: u8 = 75;

const UNITS: [TimeUnit; 4] =
    [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// Appends a type. Fails for types that blocks do not hold: unions, run ends, list views.
pub(super) fn write_type(data_type: &DataType, out: &mut Vec<u8>) -> Result<()> {
    write_nested(data_type, out, 0)
}

/// Reads what [`write_type`] has written.
pub(super) fn read_type(bytes: &mut Bytes) -> std::result::Result<DataType, Damage> {
    read_nested(bytes, 0)
}

fn write_nested(data_type: &DataType, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    use DataType as T;
    let unsupported = || ShuffleError::UnsupportedType { data_type: data_type.clone() };
    if depth > DEPTH_MAX {
        return Err(unsupported());
    }
    if let Some(tag) = PLAIN.iter().position(|p| p == data_type) {
        out.push(tag as u8);
        return Ok(());
    }
    let decimal = |out: &mut Vec<u8>, tag: u8, precision: u8, scale: i8| {
        out.extend_from_slice(&[tag, precision, scale as u8]);
        Ok(())
    };
    match data_type {
        T::Timestamp(unit, Some(zone)) => {
            let unit = UNITS.iter().position(|u| u == unit).expect("invariant: UNITS has all units");
            out.extend_from_slice(&[TIMESTAMP, unit as u8]);
            put_bytes(out, zone.as_bytes());
            Ok(())
        }
        T::Decimal32(p, s) => decimal(out, DECIMAL32, *p, *s),
        T::Decimal64(p, s) => decimal(out, DECIMAL64, *p, *s),
        T::Decimal128(p, s) => decimal(out, DECIMAL128, *p, *s),
        T::Decimal256(p, s) => decimal(out, DECIMAL256, *p, *s),
        T::FixedSizeBinary(size) => {
            out.push(FIXED_SIZE_BINARY);
            put_varint(out, *size as u64);
            Ok(())
        }
        T::FixedSizeList(field, size) => {
            out.push(FIXED_SIZE_LIST);
            put_varint(out, *size as u64);
            write_field(field, out, depth)
        }
        T::List(field) => {
            out.push(LIST);
            write_field(field, out, depth)
        }
        T::LargeList(field) => {
            out.push(LARGE_LIST);
            write_field(field, out, depth)
        }
        T::Struct(fields) => {
            out.push(STRUCT);
            put_varint(out, fields.len() as u64);
            fields.iter().try_for_each(|field| write_field(field, out, depth))
        }
        T::Map(field, sorted) => {
            out.extend_from_slice(&[MAP, u8::from(*sorted)]);
            write_field(field, out, depth)
        }
        T::Dictionary(key, value) => {
            out.push(DICTIONARY);
            write_nested(key, out, depth + 1)?;
            write_nested(value, out, depth + 1)
        }
        _ => Err(unsupported()),
    }
}

fn write_field(field: &Field, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    put_bytes(out, field.name().as_bytes());
    out.push(u8::from(field.is_nullable()));
    put_varint(out, field.metadata().len() as u64);
    for (key, value) in field.metadata() {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    write_nested(field.data_type(), out, depth + 1)
}

fn read_nested(bytes: &mut Bytes, depth: usize) -> std::result::Result<DataType, Damage> {
    use DataType as T;
    if depth > DEPTH_MAX {
        return Err("a type nests too deeply".into());
    }
    let tag = bytes.byte()?;
    if let Some(plain) = PLAIN.get(usize::from(tag)) {
        return Ok(plain.clone());
    }
    Ok(match tag {
        TIMESTAMP => {
            let unit = UNITS.get(usize::from(bytes.byte()?)).ok_or("an unknown time unit")?;
            T::Timestamp(*unit, Some(bytes.string()?.into()))
        }
        DECIMAL32 => read_decimal(bytes, DECIMAL32_MAX_PRECISION, T::Decimal32)?,
        DECIMAL64 => read_decimal(bytes, DECIMAL64_MAX_PRECISION, T::Decimal64)?,
        DECIMAL128 => read_decimal(bytes, DECIMAL128_MAX_PRECISION, T::Decimal128)?,
        DECIMAL256 => read_decimal(bytes, DECIMAL256_MAX_PRECISION, T::Decimal256)?,
        FIXED_SIZE_BINARY => T::FixedSizeBinary(read_size(bytes)?),
        FIXED_SIZE_LIST => {
            let size = read_size(bytes)?;
            T::FixedSizeList(read_field(bytes, depth)?, size)
        }
        LIST => T::List(read_field(bytes, depth)?),
        LARGE_LIST => T::LargeList(read_field(bytes, depth)?),
        STRUCT => {
            let count = bytes.varint()?;
            if count > bytes.remaining() as u64 {
                return Err("a struct has more fields than bytes".into());
            }
            let fields = (0..count).map(|_| read_field(bytes, depth));
            T::Struct(fields.collect::<std::result::Result<Fields, Damage>>()?)
        }
        MAP => {
            let sorted = bytes.byte()? != 0;
            T::Map(read_field(bytes, depth)?, sorted)
        }
        DICTIONARY => {
            let key = read_nested(bytes, depth + 1)?;
            if !key.is_dictionary_key_type() {
                return Err("a dictionary's keys are not integers".into());
            }
            T::Dictionary(Box::new(key), Box::new(read_nested(bytes, depth + 1)?))
        }
        _ => return Err("an unknown type".into()),
    })
}

fn read_decimal(
    bytes: &mut Bytes,
    precision_max: u8,
    decimal: fn(u8, i8) -> DataType,
) -> std::result::Result<DataType, Damage> {
    let (precision, scale) = (bytes.byte()?, bytes.byte()? as i8);
    if precision > precision_max {
        return Err("a decimal has too many digits".into());
    }
    Ok(decimal(precision, scale))
}

fn read_size(bytes: &mut Bytes) -> std::result::Result<i32, Damage> {
    i32::try_from(bytes.varint()?).map_err(|_| "a fixed size does not fit 31 bits".into())
}

fn read_field(bytes: &mut Bytes, depth: usize) -> std::result::Result<FieldRef, Damage> {
    let name = bytes.string()?.to_string();
    let nullable = bytes.byte()? != 0;
    let mut metadata = HashMap::new();
    for _ in 0..bytes.varint()? {
        let key = bytes.string()?.to_string();
        metadata.insert(key, bytes.string()?.to_string());
    }
    let data_type = read_nested(bytes, depth + 1)?;
    Ok(Arc::new(Field::new(name, data_type, nullable).with_metadata(metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new("item", data_type, true))
    }

    fn samples() -> Vec<DataType> {
        use DataType as T;
        let annotated = Field::new("a", T::Utf8View, false).with_metadata([("k".into(), "v".into())].into());
        let entries =
            Fields::from(vec![Field::new("key", T::Utf8, false), Field::new("value", T::Null, true)]);
        let mut all = PLAIN.to_vec();
        all.extend([
            T::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
            T::Decimal32(9, -3),
            T::Decimal64(18, 2),
            T::Decimal128(38, 38),
            T::Decimal256(76, 0),
            T::FixedSizeBinary(0),
            T::FixedSizeBinary(16),
            T::FixedSizeList(item(T::Int8), 3),
            T::List(item(T::LargeList(item(T::Boolean)))),
            T::Struct(Fields::empty()),
            T::Struct(vec![annotated].into()),
            T::Map(Arc::new(Field::new("entries", T::Struct(entries), false)), false),
            T::Dictionary(Box::new(T::UInt32), Box::new(T::Utf8View)),
        ]);
        all
    }

    #[test]
    fn types_come_back_and_their_prefixes_are_damage() {
        for data_type in samples() {
            let mut out = vec![];
            write_type(&data_type, &mut out).unwrap();
            let mut bytes = Bytes::new(&out);
            assert_eq!(read_type(&mut bytes).unwrap(), data_type);
            bytes.end().unwrap();
            for end in 0..out.len() {
                assert!(read_type(&mut Bytes::new(&out[..end])).is_err(), "{data_type} in {end} bytes");
            }
        }
    }

    /// A block that one version wrote may be read by the next.
    #[test]
    fn tags_are_frozen() {
        assert_eq!(PLAIN[5], DataType::Int64);
        assert_eq!(PLAIN[22], DataType::Timestamp(TimeUnit::Nanosecond, None));
        assert_eq!(PLAIN[35], DataType::BinaryView);
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let deep = (0..DEPTH_MAX + 1).fold(DataType::Int8, |inner, _| DataType::List(item(inner)));
        assert!(matches!(write_type(&deep, &mut vec![]), Err(ShuffleError::UnsupportedType { .. })));
        // A list of lists of lists, and so on: an empty name, not nullable, no metadata.
        let hostile = [LIST, 0, 0, 0].repeat(100_000);
        assert!(read_type(&mut Bytes::new(&hostile)).unwrap_err().contains("deeply"));
    }

    #[test]
    fn what_blocks_do_not_hold_is_refused() {
        let view = DataType::ListView(item(DataType::Int8));
        assert!(matches!(write_type(&view, &mut vec![]), Err(ShuffleError::UnsupportedType { .. })));
        assert!(read_type(&mut Bytes::new(&[DECIMAL64, 19, 0])).is_err());
        assert!(read_type(&mut Bytes::new(&[DICTIONARY, 30, 30])).is_err());
        assert!(read_type(&mut Bytes::new(&[200])).is_err());
    }
}
