//! The values of a key column, whatever its physical form: as 64-bit integers, or as hashes of bytes.

use ahash::RandomState;
use arrow::array::{Array, AsArray};
use arrow::datatypes::*;

/// How keys of a type are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeyForm {
    /// As i64: integers, dates, times, decimals of up to 18 digits.
    Integer,
    /// By hash: strings, binaries.
    Bytes,
    Other,
}

/// The slots of an integer-like array, those of nulls included.
#[derive(Debug, Clone, Copy)]
pub enum Integers<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    I128(&'a [i128]),
}

/// Runs a block for whichever width the slots have.
macro_rules! each_width {
    ($integers:expr, $values:ident => $body:expr) => {
        match $integers {
            Integers::I8($values) => $body,
            Integers::I16($values) => $body,
            Integers::I32($values) => $body,
            Integers::I64($values) => $body,
            Integers::U8($values) => $body,
            Integers::U16($values) => $body,
            Integers::U32($values) => $body,
            Integers::U64($values) => $body,
            Integers::I128($values) => $body,
        }
    };
}
pub(super) use each_width;

/// A slot as a key; only equality matters, so a u64 may wrap. None: equal to no key.
pub trait ToKey: Copy {
    fn to_key(self) -> Option<i64>;
}

macro_rules! fits {
    ($($t:ty),*) => { $(impl ToKey for $t { #[inline] fn to_key(self) -> Option<i64> { Some(self as i64) } })* };
}
fits!(i8, i16, i32, i64, u8, u16, u32, u64);

impl ToKey for i128 {
    // A value beyond 18 digits is beyond its own type's precision; no key is.
    #[inline]
    fn to_key(self) -> Option<i64> {
        i64::try_from(self).ok()
    }
}

/// How keys of this physical type are compared.
pub fn key_form(t: &DataType) -> KeyForm {
    use DataType::*;
    match t {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Date32 | Date64 => KeyForm::Integer,
        Time32(_) | Time64(_) | Timestamp(_, _) | Decimal32(_, _) | Decimal64(_, _) => KeyForm::Integer,
        Decimal128(p, _) if *p <= 18 => KeyForm::Integer,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => KeyForm::Bytes,
        Dictionary(_, value) if key_form(value) == KeyForm::Bytes => KeyForm::Bytes,
        _ => KeyForm::Other,
    }
}

/// The slots of an array whose form is [`KeyForm::Integer`].
pub fn integers(array: &dyn Array) -> Option<Integers<'_>> {
    use DataType::*;
    Some(match array.data_type() {
        Int8 => Integers::I8(array.as_primitive::<Int8Type>().values()),
        Int16 => Integers::I16(array.as_primitive::<Int16Type>().values()),
        Int32 => Integers::I32(array.as_primitive::<Int32Type>().values()),
        Date32 => Integers::I32(array.as_primitive::<Date32Type>().values()),
        Decimal32(_, _) => Integers::I32(array.as_primitive::<Decimal32Type>().values()),
        Time32(TimeUnit::Second) => Integers::I32(array.as_primitive::<Time32SecondType>().values()),
        Time32(_) => Integers::I32(array.as_primitive_opt::<Time32MillisecondType>()?.values()),
        Int64 => Integers::I64(array.as_primitive::<Int64Type>().values()),
        Date64 => Integers::I64(array.as_primitive::<Date64Type>().values()),
        Decimal64(_, _) => Integers::I64(array.as_primitive::<Decimal64Type>().values()),
        Time64(TimeUnit::Microsecond) => {
            Integers::I64(array.as_primitive::<Time64MicrosecondType>().values())
        }
        Time64(_) => Integers::I64(array.as_primitive_opt::<Time64NanosecondType>()?.values()),
        Timestamp(unit, _) => Integers::I64(match unit {
            TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
            TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
            TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
            TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
        }),
        UInt8 => Integers::U8(array.as_primitive::<UInt8Type>().values()),
        UInt16 => Integers::U16(array.as_primitive::<UInt16Type>().values()),
        UInt32 => Integers::U32(array.as_primitive::<UInt32Type>().values()),
        UInt64 => Integers::U64(array.as_primitive::<UInt64Type>().values()),
        Decimal128(p, _) if *p <= 18 => Integers::I128(array.as_primitive::<Decimal128Type>().values()),
        _ => return None,
    })
}

/// Calls `f` with the key of each value that is not null; false for another form.
pub fn for_each_integer(array: &dyn Array, mut f: impl FnMut(i64)) -> bool {
    let Some(integers) = integers(array) else {
        return false;
    };
    match array.nulls() {
        None => each_width!(integers, values => values.iter().filter_map(|v| v.to_key()).for_each(f)),
        Some(nulls) => each_width!(integers, values => {
            nulls.valid_indices().filter_map(|i| values[i].to_key()).for_each(&mut f)
        }),
    }
    true
}

/// Calls `f` with the hash of each value, none for a null; false for another form.
pub fn for_each_hash(array: &dyn Array, mut f: impl FnMut(Option<u64>)) -> bool {
    let state = RandomState::with_seeds(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344);
    let mut hash = |v: Option<&[u8]>| f(v.map(|v| state.hash_one(v)));
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().for_each(|v| hash(v.map(str::as_bytes))),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().for_each(|v| hash(v.map(str::as_bytes))),
        DataType::Utf8View => array.as_string_view().iter().for_each(|v| hash(v.map(str::as_bytes))),
        DataType::Binary => array.as_binary::<i32>().iter().for_each(hash),
        DataType::LargeBinary => array.as_binary::<i64>().iter().for_each(hash),
        DataType::BinaryView => array.as_binary_view().iter().for_each(hash),
        _ => return false,
    }
    true
}
