//! Random arrays of every type that blocks hold, from a seed.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
use dovetail_shuffle::Rows;

/// SplitMix64: every seed gives its own sequence.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        match self.below(3) {
            0 => None,
            1 => Some(NullBuffer::from_iter((0..rows).map(|_| self.below(4) > 0))),
            _ => Some(NullBuffer::from_iter((0..rows).map(|_| self.below(20) == 0))),
        }
    }

    fn text(&mut self) -> String {
        let pieces = [
            "",
            "a",
            "ab",
            "exactly 12 b",
            "thirteen byte",
            "größer",
            "日本語",
            "a longer one, of many bytes",
        ];
        let mut text = pieces[self.below(pieces.len())].to_string();
        if self.below(3) == 0 {
            text.push_str(&self.next().to_string());
        }
        text
    }
}

fn field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

/// Every type that blocks hold, some nested.
pub fn every_type() -> Vec<DataType> {
    use DataType as T;
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let mut all = vec![
        T::Null,
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float16,
        T::Float32,
        T::Float64,
        T::Date32,
        T::Date64,
        T::Time32(TimeUnit::Second),
        T::Time32(TimeUnit::Millisecond),
        T::Time64(TimeUnit::Microsecond),
        T::Time64(TimeUnit::Nanosecond),
        T::Interval(IntervalUnit::YearMonth),
        T::Interval(IntervalUnit::DayTime),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Decimal32(9, 2),
        T::Decimal64(18, 4),
        T::Decimal128(38, 10),
        T::Decimal256(76, 20),
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::LargeBinary,
        T::BinaryView,
        T::FixedSizeBinary(0),
        T::FixedSizeBinary(7),
        T::Dictionary(Box::new(T::UInt32), Box::new(T::Utf8View)),
        T::Dictionary(Box::new(T::Int8), Box::new(T::Utf8)),
        T::Dictionary(Box::new(T::Int64), Box::new(T::Decimal128(20, 3))),
        T::List(field(T::Int32)),
        T::List(field(T::Dictionary(Box::new(T::UInt32), Box::new(T::Utf8View)))),
        T::LargeList(field(T::List(field(T::Utf8View)))),
        T::FixedSizeList(field(T::Utf8), 3),
        T::FixedSizeList(field(T::Null), 0),
        T::Struct(Fields::empty()),
        T::Struct(Fields::from(vec![
            Field::new("a", T::Decimal64(10, 2), true),
            Field::new("b", T::Struct(Fields::from(vec![Field::new("c", T::Boolean, true)])), true),
            Field::new("d", T::List(field(T::Null)), true),
        ])),
        T::Map(Arc::new(Field::new("entries", T::Struct(map_fields()), false)), false),
    ];
    for unit in units {
        all.extend([
            T::Timestamp(unit, None),
            T::Timestamp(unit, Some("Asia/Tokyo".into())),
            T::Duration(unit),
        ]);
    }
    all
}

fn map_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8View, false),
        Field::new("value", DataType::Float64, true),
    ])
}

/// `rows` random values, with nulls or without.
pub fn random_array(random: &mut Random, data_type: &DataType, rows: usize) -> ArrayRef {
    use DataType as T;
    let nulls = random.nulls(rows);
    macro_rules! primitive {
        ($t:ty) => {{
            let bytes = random_bytes(random, rows, size_of::<<$t as ArrowPrimitiveType>::Native>());
            let values = ScalarBuffer::new(bytes, 0, rows);
            Arc::new(PrimitiveArray::<$t>::new(values, nulls).with_data_type(data_type.clone()))
        }};
    }
    downcast_primitive! {
        data_type => (primitive),
        T::Null => Arc::new(NullArray::new(rows)),
        T::Boolean => Arc::new(BooleanArray::new((0..rows).map(|_| random.below(2) > 0).collect(), nulls)),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => {
            let valid = |row| nulls.as_ref().is_none_or(|n| n.is_valid(row));
            let plain = StringArray::from_iter((0..rows).map(|row| valid(row).then(|| random.text())));
            cast(&plain, data_type).unwrap()
        }
        T::FixedSizeBinary(size) => {
            let bytes = random_bytes(random, rows, *size as usize);
            Arc::new(FixedSizeBinaryArray::try_new_with_len(*size, bytes, nulls, rows).unwrap())
        }
        T::Dictionary(key, value) => {
            let few = random.below(2) == 0;
            let count = 1 + random.below(if few { 3 } else { 100 });
            let values = random_array(random, value, count);
            let keys = (0..rows).map(|_| random.below(values.len()) as u32).collect();
            let keys = UInt32Array::new(keys, nulls);
            let keys = cast(&keys, key).unwrap().to_data().into_builder().data_type(data_type.clone());
            make_array(keys.add_child_data(values.to_data()).build().unwrap())
        }
        T::List(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4)).collect();
            let values = random_array(random, item.data_type(), lengths.iter().sum());
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), values, nulls))
        }
        T::LargeList(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4)).collect();
            let values = random_array(random, item.data_type(), lengths.iter().sum());
            Arc::new(LargeListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), values, nulls))
        }
        T::FixedSizeList(item, size) => {
            let values = random_array(random, item.data_type(), rows * *size as usize);
            let list = FixedSizeListArray::try_new_with_length(item.clone(), *size, values, nulls, rows);
            Arc::new(list.unwrap())
        }
        T::Struct(fields) => {
            let children = fields.iter().map(|f| random_array(random, f.data_type(), rows)).collect();
            Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, rows).unwrap())
        }
        T::Map(entry, sorted) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4)).collect();
            let count = lengths.iter().sum();
            let keys = StringViewArray::from_iter_values((0..count).map(|_| random.text()));
            let values = random_array(random, &DataType::Float64, count);
            let entries = StructArray::new(map_fields(), vec![Arc::new(keys), values], None);
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(MapArray::new(entry.clone(), offsets, entries, nulls, *sorted))
        }
        other => panic!("no samples of {other}"),
    }
}

/// Values of `width` bytes: two of three small, one of random bits.
fn random_bytes(random: &mut Random, rows: usize, width: usize) -> Buffer {
    let mut bytes = vec![];
    for _ in 0..rows {
        let used = if random.below(3) == 0 { width } else { 1 };
        bytes.extend((0..width).map(|at| if at < used { random.next() as u8 } else { 0 }));
    }
    Buffer::from(bytes.as_slice())
}

/// Rows with one column of every type, sliced out of longer arrays.
pub fn random_rows(random: &mut Random, rows: usize) -> Rows {
    let columns = every_type()
        .iter()
        .map(|data_type| {
            let (before, after) = (random.below(20), random.below(20));
            random_array(random, data_type, before + rows + after).slice(before, rows)
        })
        .collect();
    Rows::new(columns, rows)
}

/// Equal row by row; a dictionary may have become plain.
pub fn assert_same(read: &Rows, written: &Rows) {
    assert_eq!(read.rows, written.rows);
    assert_eq!(read.columns.len(), written.columns.len());
    for (r, w) in read.columns.iter().zip(&written.columns) {
        r.to_data().validate_full().unwrap();
        match w.data_type() {
            DataType::Dictionary(_, value) if r.data_type() == value.as_ref() => {
                assert_eq!(r, &cast(w, value).unwrap());
            }
            // Dictionaries are equal if their values are, wherever in the dictionary they lie.
            _ => assert_eq!(r, w, "a column of type {}", w.data_type()),
        }
    }
}
