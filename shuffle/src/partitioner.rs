//! Which hash partition a row belongs to: the one hash that all exchanges of a query agree on.
//!
//! [`hash_columns`] hashes key columns row by row and [`partition_of`] maps a hash to a partition. Both
//! sides of a join, the partial and the final stage of an aggregation, and tasks on different machines
//! must agree, so the function is frozen: a test holds it to literal values. What always holds:
//!
//! - Equal values hash equally in every physical form: Decimal32, 64, 128 and 256 of one scale; a
//!   dictionary and its plain values; Utf8, LargeUtf8, Utf8View and the binary types; integers of any
//!   width.
//! - A null hashes like any other null; -0.0 like 0.0; every NaN like every other NaN.
//! - Intervals that PostgreSQL calls equal hash equally: a month is 30 days, a day 24 hours. So do `1 month`,
//!   `30 days` and `720 hours`, in each of the three interval types.
//! - [`partition_of`] uses the upper 32 bits only. A hash table that is filled from one partition may take
//!   its slot bits from the lower half, where the rows of a partition still differ.

use arrow::array::types::*;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, GenericByteViewArray, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

/// The seed of every exchange.
pub const EXCHANGE_SEED: u64 = 0;

const START: u64 = 0x9e37_79b9_7f4a_7c15;
const COMBINE: u64 = 0xd6e8_feb8_6659_fd93;
const BYTES: u64 = 0xa076_1d64_78bd_642f;
const LENGTH: u64 = 0xe703_7ed1_a0b4_28db;
const NULL_WORD: u64 = 0x8ebc_6af0_9c88_c6e3;

/// One hash per row over the key columns, which must be at least one and of equal length. The result
/// depends on the order of the columns.
pub fn hash_columns(columns: &[ArrayRef], seed: u64) -> Vec<u64> {
    let mut hashes = vec![];
    hash_columns_into(columns, seed, &mut hashes);
    hashes
}

/// [`hash_columns`] into a buffer that is reused.
pub fn hash_columns_into(columns: &[ArrayRef], seed: u64, hashes: &mut Vec<u64>) {
    hashes.clear();
    hashes.resize(columns.first().map_or(0, |c| c.len()), fold(seed ^ START, COMBINE));
    for column in columns {
        let out = hashes.as_mut_slice();
        for_each_word(column.as_ref(), &mut Combine(out));
    }
}

/// The partition, `0..partitions`, of a hash. Uses the hash's upper 32 bits.
#[inline]
pub fn partition_of(hash: u64, partitions: usize) -> usize {
    (((hash >> 32) * partitions as u64) >> 32) as usize
}

/// The 128-bit product's halves, xored: every input bit reaches the whole result.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Receives one 64-bit word per row, which stands for the row's value.
trait WordSink {
    fn word(&mut self, row: usize, word: u64);
}

struct Combine<'a>(&'a mut [u64]);

impl WordSink for Combine<'_> {
    #[inline(always)]
    fn word(&mut self, row: usize, word: u64) {
        let h = &mut self.0[row];
        *h = fold(*h ^ word, COMBINE);
    }
}

struct Collect<'a>(&'a mut Vec<u64>);

impl WordSink for Collect<'_> {
    #[inline(always)]
    fn word(&mut self, _row: usize, word: u64) {
        self.0.push(word);
    }
}

/// The word of every row, in order.
fn words(array: &dyn Array) -> Vec<u64> {
    let mut found = Vec::with_capacity(array.len());
    for_each_word(array, &mut Collect(&mut found));
    found
}

fn for_each_word(array: &dyn Array, sink: &mut impl WordSink) {
    use DataType as T;
    match array.data_type() {
        T::Int8 => primitive::<Int8Type>(array, sink, |v| v as i64 as u64),
        T::Int16 => primitive::<Int16Type>(array, sink, |v| v as i64 as u64),
        T::Int32 => primitive::<Int32Type>(array, sink, |v| v as i64 as u64),
        T::Int64 => primitive::<Int64Type>(array, sink, |v| v as u64),
        T::UInt8 => primitive::<UInt8Type>(array, sink, u64::from),
        T::UInt16 => primitive::<UInt16Type>(array, sink, u64::from),
        T::UInt32 => primitive::<UInt32Type>(array, sink, u64::from),
        T::UInt64 => primitive::<UInt64Type>(array, sink, |v| v),
        T::Float16 => primitive::<Float16Type>(array, sink, |v| float_word(v.to_f64())),
        T::Float32 => primitive::<Float32Type>(array, sink, |v| float_word(v.into())),
        T::Float64 => primitive::<Float64Type>(array, sink, float_word),
        T::Decimal32(_, _) => primitive::<Decimal32Type>(array, sink, |v| v as i64 as u64),
        T::Decimal64(_, _) => primitive::<Decimal64Type>(array, sink, |v| v as u64),
        T::Decimal128(_, _) => primitive::<Decimal128Type>(array, sink, wide_word),
        T::Decimal256(_, _) => primitive::<Decimal256Type>(array, sink, |v| match v.to_i128() {
            Some(narrow) => wide_word(narrow),
            None => bytes_word(&v.to_le_bytes()),
        }),
        T::Date32 => primitive::<Date32Type>(array, sink, |v| v as i64 as u64),
        T::Date64 => primitive::<Date64Type>(array, sink, |v| v as u64),
        T::Time32(TimeUnit::Second) => primitive::<Time32SecondType>(array, sink, |v| v as i64 as u64),
        T::Time32(_) => primitive::<Time32MillisecondType>(array, sink, |v| v as i64 as u64),
        T::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(array, sink, |v| v as u64),
        T::Time64(_) => primitive::<Time64NanosecondType>(array, sink, |v| v as u64),
        T::Timestamp(unit, _) => match unit {
            TimeUnit::Second => primitive::<TimestampSecondType>(array, sink, |v| v as u64),
            TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(array, sink, |v| v as u64),
            TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(array, sink, |v| v as u64),
            TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(array, sink, |v| v as u64),
        },
        T::Duration(unit) => match unit {
            TimeUnit::Second => primitive::<DurationSecondType>(array, sink, |v| v as u64),
            TimeUnit::Millisecond => primitive::<DurationMillisecondType>(array, sink, |v| v as u64),
            TimeUnit::Microsecond => primitive::<DurationMicrosecondType>(array, sink, |v| v as u64),
            TimeUnit::Nanosecond => primitive::<DurationNanosecondType>(array, sink, |v| v as u64),
        },
        T::Interval(IntervalUnit::YearMonth) => {
            primitive::<IntervalYearMonthType>(array, sink, |v| interval_word(v, 0, 0))
        }
        T::Interval(IntervalUnit::DayTime) => primitive::<IntervalDayTimeType>(array, sink, |v| {
            interval_word(0, v.days, i64::from(v.milliseconds) * 1_000_000)
        }),
        T::Interval(IntervalUnit::MonthDayNano) => primitive::<IntervalMonthDayNanoType>(array, sink, |v| {
            interval_word(v.months, v.days, v.nanoseconds)
        }),
        T::Boolean => booleans(array.as_boolean(), sink),
        T::Utf8 => with_nulls(array, sink, |row| bytes_word(array.as_string::<i32>().value(row).as_bytes())),
        T::LargeUtf8 => {
            with_nulls(array, sink, |row| bytes_word(array.as_string::<i64>().value(row).as_bytes()))
        }
        T::Binary => with_nulls(array, sink, |row| bytes_word(array.as_binary::<i32>().value(row))),
        T::LargeBinary => with_nulls(array, sink, |row| bytes_word(array.as_binary::<i64>().value(row))),
        T::FixedSizeBinary(_) => {
            let fixed = array.as_fixed_size_binary();
            with_nulls(array, sink, |row| bytes_word(fixed.value(row)))
        }
        T::Utf8View => views(array.as_string_view(), sink),
        T::BinaryView => views(array.as_binary_view(), sink),
        T::Dictionary(_, _) => dictionary(array, sink),
        T::Struct(_) => {
            let hashes = hash_columns(array.as_struct().columns(), BYTES);
            with_nulls(array, sink, |row| hashes.get(row).copied().unwrap_or(BYTES));
        }
        T::List(_) => {
            let list = array.as_list::<i32>();
            let elements = words(list.values());
            let ends = list.value_offsets();
            with_nulls(array, sink, |row| list_word(&elements[ends[row] as usize..ends[row + 1] as usize]));
        }
        T::LargeList(_) => {
            let list = array.as_list::<i64>();
            let elements = words(list.values());
            let ends = list.value_offsets();
            with_nulls(array, sink, |row| list_word(&elements[ends[row] as usize..ends[row + 1] as usize]));
        }
        T::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list();
            let elements = words(list.values());
            let size = list.value_length() as usize;
            with_nulls(array, sink, |row| {
                let start = list.value_offset(row) as usize;
                list_word(&elements[start..start + size])
            });
        }
        // Nulls, and types that no exchange is known to use as a key: all rows in one partition, which
        // is slow and right.
        _ => (0..array.len()).for_each(|row| sink.word(row, NULL_WORD)),
    }
}

#[inline(always)]
fn primitive<T: ArrowPrimitiveType>(
    array: &dyn Array,
    sink: &mut impl WordSink,
    word: impl Fn(T::Native) -> u64,
) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let values = array.values();
    match real_nulls(array.nulls()) {
        None => values.iter().enumerate().for_each(|(row, v)| sink.word(row, word(*v))),
        Some(nulls) => {
            for (row, v) in values.iter().enumerate() {
                let word = if nulls.is_valid(row) { word(*v) } else { NULL_WORD };
                sink.word(row, word);
            }
        }
    }
}

fn with_nulls(array: &dyn Array, sink: &mut impl WordSink, word: impl Fn(usize) -> u64) {
    let nulls = real_nulls(array.nulls());
    for row in 0..array.len() {
        let word = if nulls.is_none_or(|n| n.is_valid(row)) { word(row) } else { NULL_WORD };
        sink.word(row, word);
    }
}

fn real_nulls(nulls: Option<&NullBuffer>) -> Option<&NullBuffer> {
    nulls.filter(|n| n.null_count() > 0)
}

fn booleans(array: &BooleanArray, sink: &mut impl WordSink) {
    let values = array.values();
    with_nulls(array, sink, |row| u64::from(values.value(row)));
}

/// Strings of up to 12 bytes stand in the view itself, padded with zeros.
fn views<T: ByteViewType>(array: &GenericByteViewArray<T>, sink: &mut impl WordSink) {
    let views = array.views();
    with_nulls(array, sink, |row| {
        let view = views[row];
        let length = view as u32;
        if length <= 12 {
            let word = fold(u64::from(length).wrapping_mul(LENGTH) ^ (view >> 32) as u64, BYTES);
            fold(word ^ (view >> 96) as u64, BYTES)
        } else {
            bytes_word(array.value(row).as_ref())
        }
    });
}

/// Hashes the values once each if rows repeat them, else row by row.
fn dictionary(array: &dyn Array, sink: &mut impl WordSink) {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    if values.is_empty() {
        return (0..array.len()).for_each(|row| sink.word(row, NULL_WORD));
    }
    if values.len() > 2 * array.len() {
        let plain = arrow::compute::take(values.as_ref(), dictionary.keys(), None)
            .expect("invariant: a dictionary's keys are integers within its values");
        return for_each_word(plain.as_ref(), sink);
    }
    let words = words(values.as_ref());
    if let DataType::UInt32 = dictionary.keys().data_type() {
        let keys = dictionary.keys().as_primitive::<UInt32Type>().values();
        return with_nulls(array, sink, |row| words[keys[row] as usize]);
    }
    let keys = dictionary.normalized_keys();
    with_nulls(array, sink, |row| words[keys[row]]);
}

fn list_word(elements: &[u64]) -> u64 {
    let start = (elements.len() as u64).wrapping_mul(LENGTH);
    elements.iter().fold(fold(start ^ BYTES, COMBINE), |h, word| fold(h ^ word, COMBINE))
}

#[inline(always)]
fn float_word(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else {
        // -0.0 + 0.0 is 0.0.
        (value + 0.0).to_bits()
    }
}

/// A value that fits 64 bits hashes as if it had been narrow.
#[inline(always)]
fn wide_word(value: i128) -> u64 {
    match i64::try_from(value) {
        Ok(narrow) => narrow as u64,
        Err(_) => two_words(value as u64, (value >> 64) as u64),
    }
}

/// An interval is its length: a month is 30 days and a day 24 hours, which is how SQL compares them.
#[inline(always)]
fn interval_word(months: i32, days: i32, nanoseconds: i64) -> u64 {
    const DAY_NANOSECONDS: i128 = 24 * 3_600 * 1_000_000_000;
    let days = i128::from(months) * 30 + i128::from(days);
    wide_word(days * DAY_NANOSECONDS + i128::from(nanoseconds))
}

#[inline(always)]
fn two_words(low: u64, high: u64) -> u64 {
    fold(fold(low ^ LENGTH, BYTES) ^ high, BYTES)
}

/// Bytes as little-endian words, the last padded with zeros, never fewer than two words.
#[inline]
fn bytes_word(bytes: &[u8]) -> u64 {
    let start = (bytes.len() as u64).wrapping_mul(LENGTH);
    if bytes.len() <= 8 {
        return fold(fold(start ^ padded(bytes), BYTES), BYTES);
    }
    let (whole, rest) = bytes.as_chunks::<8>();
    let mut h = start;
    for chunk in whole {
        h = fold(h ^ u64::from_le_bytes(*chunk), BYTES);
    }
    if rest.is_empty() { h } else { fold(h ^ padded(rest), BYTES) }
}

/// Up to eight bytes as a little-endian word, padded with zeros.
#[inline(always)]
fn padded(bytes: &[u8]) -> u64 {
    let n = bytes.len();
    if n == 8 {
        u64::from_le_bytes(bytes.try_into().expect("invariant: eight bytes"))
    } else if n >= 4 {
        let low = u32::from_le_bytes(bytes[..4].try_into().expect("invariant: four bytes"));
        let high = u32::from_le_bytes(bytes[n - 4..].try_into().expect("invariant: four bytes"));
        u64::from(low) | u64::from(high) << ((n - 4) * 8)
    } else if n > 0 {
        u64::from(bytes[0])
            | u64::from(bytes[n / 2]) << (n / 2 * 8)
            | u64::from(bytes[n - 1]) << ((n - 1) * 8)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::compute::cast;
    use arrow::datatypes::Fields;
    use std::sync::Arc;

    fn one(array: impl Array + 'static) -> Vec<u64> {
        hash_columns(&[Arc::new(array)], EXCHANGE_SEED)
    }

    /// Changing any of these breaks exchanges between workers of different versions.
    #[test]
    fn the_hash_is_frozen() {
        assert_eq!(
            one(Int64Array::from(vec![Some(0), Some(1), Some(-1), Some(i64::MAX), None])),
            FROZEN_INTS
        );
        let strings =
            ["", "a", "ab", "abc", "abcdefg", "abcdefgh", "abcdefghijkl", "abcdefghijklmnopqrstuvwxyz"];
        assert_eq!(one(StringViewArray::from(strings.to_vec())), FROZEN_STRINGS);
        assert_eq!(one(Float64Array::from(vec![0.0, 1.5, f64::NAN])), FROZEN_FLOATS);
        let pair: [ArrayRef; 2] =
            [Arc::new(Int32Array::from(vec![7])), Arc::new(StringArray::from(vec!["x"]))];
        assert_eq!(hash_columns(&pair, 42), [FROZEN_PAIR]);
        assert_eq!(one(Decimal128Array::from(vec![i128::MAX])), [FROZEN_WIDE]);
        let intervals = [(0, 0, 1), (1, 2, 3), (-12, 0, 0), (i32::MAX, i32::MAX, i64::MAX)];
        assert_eq!(one(month_day_nanos(&intervals)), FROZEN_INTERVALS);
        assert_eq!(partition_of(0xffff_ffff_0000_0000, 7), 6);
        assert_eq!(partition_of(0x0000_0000_ffff_ffff, 7), 0);
        assert_eq!(partition_of(0x8000_0000_0000_0000, 7), 3);
    }

    const FROZEN_INTS: [u64; 5] = [
        0x1137_509a_84ab_7784,
        0x482e_5122_1ef5_7276,
        0x5da7_531c_b82b_67d8,
        0x683b_dc78_8dc6_6691,
        0x8492_492d_a19c_3cf6,
    ];
    const FROZEN_STRINGS: [u64; 8] = [
        0x1137_509a_84ab_7784,
        0xadd0_ebf7_925d_568a,
        0x05ab_bc11_bc83_6c19,
        0xf02f_3bad_efcf_5d70,
        0xe475_d071_aaf2_dc76,
        0x8c9c_6ab7_92fd_4391,
        0xa0af_bb02_5292_cf23,
        0xa79c_73ca_31ff_4669,
    ];
    const FROZEN_FLOATS: [u64; 3] = [0x1137_509a_84ab_7784, 0x8302_d5cb_da37_36ff, 0x1579_1279_c089_b604];
    const FROZEN_INTERVALS: [u64; 4] =
        [0x482e_5122_1ef5_7276, 0x2a99_933c_f3f4_5387, 0xb707_122c_233d_274f, 0x0bd0_2d49_01c0_de2c];
    const FROZEN_PAIR: u64 = 0xa846_0c6f_868d_c9ad;
    const FROZEN_WIDE: u64 = 0x7540_c44b_9cf2_4b0a;

    #[test]
    fn physical_forms_agree() {
        let strings = StringArray::from(vec![
            Some(""),
            None,
            Some("a"),
            Some("abcd"),
            Some("abcdefgh"),
            Some("abcdefghi"),
            Some("abcdefghijkl"),
            Some("abcdefghijklm"),
            Some("abcdefghijklmnopqrstuvwx"),
            Some("a"),
        ]);
        let plain: ArrayRef = Arc::new(strings);
        let expected = hash_columns(std::slice::from_ref(&plain), 0);
        for form in [
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Binary,
            DataType::BinaryView,
            DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View)),
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
        ] {
            assert_eq!(hash_columns(&[cast(&plain, &form).unwrap()], 0), expected, "{form}");
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(-5), None, Some(1 << 40)]));
        let expected = hash_columns(std::slice::from_ref(&numbers), 0);
        for form in [DataType::Decimal64(15, 0), DataType::Decimal128(20, 0), DataType::Decimal256(40, 0)] {
            assert_eq!(hash_columns(&[cast(&numbers, &form).unwrap()], 0), expected, "{form}");
        }
        let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![i128::from(i64::MAX) * 3]));
        let wider = cast(&wide, &DataType::Decimal256(50, 10)).unwrap();
        assert_eq!(
            hash_columns(&[cast(&wide, &DataType::Decimal256(38, 10)).unwrap()], 0),
            hash_columns(&[wide], 0)
        );
        assert_eq!(wider.len(), 1);
    }

    #[test]
    fn slices_and_large_dictionaries_agree() {
        let plain: ArrayRef =
            Arc::new(StringViewArray::from_iter((0..100).map(|i| (i % 7 > 0).then(|| format!("value {i}")))));
        let dictionary =
            cast(&plain, &DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View)))
                .unwrap();
        let expected = hash_columns(std::slice::from_ref(&plain), 0);
        assert_eq!(hash_columns(&[plain.slice(13, 5)], 0), expected[13..18]);
        // 5 rows of about 86 values: the values are not hashed one by one.
        assert_eq!(hash_columns(&[dictionary.slice(13, 5)], 0), expected[13..18]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1)]),
            None,
            Some(vec![]),
            Some(vec![Some(1)]),
            Some(vec![None]),
        ]);
        let hashes = one(list.clone());
        assert_eq!(hashes[0], hashes[3]);
        assert_eq!(one(list.slice(2, 3)), hashes[2..]);
        assert_ne!(hashes[1], hashes[2]);
        assert_ne!(hashes[2], hashes[4]);
    }

    #[test]
    fn floats_that_are_equal_in_sql_agree() {
        let h = one(Float64Array::from(vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff8_0000_0000_0001),
        ]));
        assert_eq!(h[0], h[1]);
        assert_eq!(h[2], h[3]);
        assert_eq!(h[2], h[4]);
        assert_eq!(one(Float32Array::from(vec![-0.0, f32::NAN])), [h[0], h[2]]);
    }

    fn month_day_nanos(parts: &[(i32, i32, i64)]) -> IntervalMonthDayNanoArray {
        let value = |&(m, d, n): &(i32, i32, i64)| IntervalMonthDayNanoType::make_value(m, d, n);
        IntervalMonthDayNanoArray::from_iter_values(parts.iter().map(value))
    }

    #[test]
    fn intervals_that_are_equal_in_sql_agree() {
        const HOUR: i64 = 3_600 * 1_000_000_000;
        let h = one(month_day_nanos(&[
            (1, 0, 0),
            (0, 30, 0),
            (0, 0, 720 * HOUR),
            (2, -30, 0),
            (1, -1, 24 * HOUR),
            (0, 31, 0),
            (0, 30, 1),
        ]));
        assert!(h[..5].iter().all(|same| *same == h[0]), "{h:?}");
        assert_ne!(h[5], h[0]);
        assert_ne!(h[6], h[0]);
        assert_eq!(one(IntervalYearMonthArray::from(vec![1])), [h[0]]);
        let day_times =
            [(30, 0), (29, 24 * 3_600_000)].map(|(days, ms)| IntervalDayTimeType::make_value(days, ms));
        assert_eq!(one(IntervalDayTimeArray::from_iter_values(day_times)), [h[0], h[0]]);
    }

    #[test]
    fn a_null_struct_hides_its_fields() {
        let fields = Fields::from(vec![arrow::datatypes::Field::new("a", DataType::Int32, true)]);
        let array = StructArray::new(
            fields,
            vec![Arc::new(Int32Array::from(vec![1, 2, 1]))],
            Some(NullBuffer::from(vec![false, false, true])),
        );
        let h = one(array);
        assert_eq!(h[0], h[1]);
        assert_ne!(h[0], h[2]);
    }

    #[test]
    fn partitions_are_even_and_leave_the_lower_bits_alone() {
        for step in [1i64, 4, 32, 1000, 1 << 20, 1 << 32] {
            let hashes = one(Int64Array::from_iter_values((0..64_000).map(|i| i * step)));
            let mut counts = [0u32; 64];
            let mut low = [0u32; 256];
            for h in hashes {
                let partition = partition_of(h, 64);
                counts[partition] += 1;
                if partition == 5 {
                    low[h as usize % 256] += 1;
                }
            }
            assert!(counts.iter().all(|c| (600..1500).contains(c)), "step {step}: {counts:?}");
            assert!(low.iter().filter(|c| **c > 0).count() > 150, "step {step}: {low:?}");
        }
    }
}
