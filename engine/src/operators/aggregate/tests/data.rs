//! Random batches with a column of every kind, in physical forms that change from batch to batch.

use std::sync::Arc;

use arrow::array::types::Int32Type;
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit};
use dovetail_planner::expr::Expr;

use crate::batch::{Batch, Column};

/// A small generator of reproducible numbers.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// Names of the columns, keys first.
pub(super) const KEYS: [&str; 14] = [
    "int", "wide", "text", "decimal", "float", "bool", "date", "binary", "list", "big", "interval", "fixed",
    "coded", "half",
];

pub(super) fn schema() -> SchemaRef {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let types = [
        ("int", DataType::Int64),
        ("wide", DataType::Int64),
        ("text", DataType::Utf8View),
        ("decimal", DataType::Decimal128(12, 2)),
        ("float", DataType::Float64),
        ("bool", DataType::Boolean),
        ("date", DataType::Date32),
        ("binary", DataType::Binary),
        ("list", list),
        ("big", DataType::Decimal128(30, 4)),
        ("interval", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("fixed", DataType::FixedSizeBinary(3)),
        ("coded", coded),
        ("half", DataType::Float16),
        ("v_int", DataType::Int64),
        ("v_float", DataType::Float64),
        ("v_decimal", DataType::Decimal128(15, 2)),
        ("v_text", DataType::Utf8View),
        ("v_bool", DataType::Boolean),
        ("v_unsigned", DataType::UInt64),
        ("v_time", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("v_wide_decimal", DataType::Decimal128(38, 3)),
    ];
    Arc::new(Schema::new(types.map(|(n, t)| Field::new(n, t, true)).to_vec()))
}

pub(super) fn column(name: &str) -> Expr {
    let schema = schema();
    let index = schema.index_of(name).unwrap();
    Expr::column(index, schema.field(index).data_type().clone())
}

/// Batches of random rows. `nulls` in 100 values are null; `distinct` bounds the values of a key.
pub(super) fn batches(seed: u64, count: usize, rows: usize, nulls: u64, distinct: u64) -> Vec<Batch> {
    let mut random = Random::new(seed);
    (0..count).map(|number| batch(&mut random, number, rows, nulls, distinct)).collect()
}

fn batch(r: &mut Random, number: usize, rows: usize, nulls: u64, distinct: u64) -> Batch {
    let columns = schema()
        .fields()
        .iter()
        .map(|field| {
            let values: Vec<Option<u64>> = (0..rows)
                .map(|_| {
                    let bound = if field.name().starts_with("v_") { 10_000 } else { distinct };
                    (r.below(100) >= nulls).then(|| r.below(bound))
                })
                .collect();
            physical(logical(field.name(), field.data_type(), &values), number, r)
        })
        .collect();
    Batch { columns, rows }
}

fn logical(name: &str, data_type: &DataType, v: &[Option<u64>]) -> ArrayRef {
    let v = || v.iter().copied();
    match name {
        "int" => Arc::new(Int64Array::from_iter(v().map(|v| v.map(|v| v as i64 - 3)))),
        "wide" => Arc::new(Int64Array::from_iter(
            v().map(|v| v.map(|v| v.wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64)),
        )),
        "text" | "v_text" => Arc::new(StringViewArray::from_iter(v().map(|v| v.map(text)))),
        "decimal" => decimals(v().map(|v| v.map(|v| v as i128 * 25 - 100)), data_type),
        "v_decimal" => decimals(v().map(|v| v.map(|v| v as i128 * 7919 - 1_000_000)), data_type),
        "v_wide_decimal" => {
            decimals(v().map(|v| v.map(|v| (v as i128 - 5000) * 1_000_000_007_000_000_000_000)), data_type)
        }
        "big" => decimals(v().map(|v| v.map(|v| (v as i128 - 2) << 70)), data_type),
        "float" => Arc::new(Float64Array::from_iter(v().map(|v| {
            v.map(|v| match v {
                0 => 0.0,
                1 => -0.0,
                2 => f64::NAN,
                3 => -f64::NAN,
                n => n as f64 / 8.0 - 1.0,
            })
        }))),
        "v_float" => Arc::new(Float64Array::from_iter(v().map(|v| v.map(|v| v as f64 / 64.0)))),
        "bool" | "v_bool" => Arc::new(BooleanArray::from_iter(v().map(|v| v.map(|v| v % 3 == 0)))),
        "date" => Arc::new(Date32Array::from_iter(v().map(|v| v.map(|v| 9000 + v as i32)))),
        "binary" => Arc::new(v().map(|v| v.map(|v| vec![v as u8; v as usize % 20])).collect::<BinaryArray>()),
        "list" => {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(v().map(|v| {
                v.map(|v| (0..v % 4).map(|i| (i != 2).then_some((v % 5) as i32)).collect::<Vec<_>>())
            })))
        }
        "interval" => Arc::new(IntervalMonthDayNanoArray::from_iter(
            v().map(|v| v.map(|v| IntervalMonthDayNano::new(v as i32 % 2, -(v as i32), v as i64))),
        )),
        "fixed" => {
            let mut builder = FixedSizeBinaryBuilder::new(3);
            for v in v() {
                match v {
                    Some(v) => builder.append_value([v as u8, 1, 2]).unwrap(),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        "coded" => cast(&StringArray::from_iter(v().map(|v| v.map(text))), data_type).unwrap(),
        "half" => {
            let floats =
                Float32Array::from_iter(v().map(|v| v.map(|v| if v == 1 { -0.0 } else { v as f32 / 2.0 })));
            cast(&floats, &DataType::Float16).unwrap()
        }
        "v_int" => Arc::new(Int64Array::from_iter(v().map(|v| v.map(|v| v as i64 - 5000)))),
        "v_unsigned" => Arc::new(UInt64Array::from_iter(v())),
        "v_time" => {
            Arc::new(TimestampMicrosecondArray::from_iter(v().map(|v| v.map(|v| v as i64 * 1_000_000))))
        }
        other => unreachable!("{other}"),
    }
}

fn text(v: u64) -> String {
    match v % 3 {
        0 => format!("{v}"),
        1 => format!("a longer text with number {v}"),
        _ => "é".repeat(v as usize % 9),
    }
}

fn decimals(values: impl Iterator<Item = Option<i128>>, data_type: &DataType) -> ArrayRef {
    Arc::new(Decimal128Array::from_iter(values).with_data_type(data_type.clone()))
}

/// One of the forms that a column may have.
fn physical(array: ArrayRef, number: usize, r: &mut Random) -> Column {
    let form = match array.data_type() {
        DataType::Utf8View if number.is_multiple_of(2) => {
            Some(DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View)))
        }
        DataType::Decimal128(p, s) if *p <= 18 && number % 3 != 1 => Some(DataType::Decimal64(*p, *s)),
        _ => None,
    };
    let array = form.map_or(array.clone(), |form| cast(&array, &form).unwrap());
    if r.below(3) > 0 {
        return Column::new(array);
    }
    // The same rows, seen through indices into an array in which they are reversed.
    let reversed: UInt32Array = (0..array.len() as u32).rev().collect();
    let base = arrow::compute::take(&array, &reversed, None).unwrap();
    Column::indexed(base, Arc::new(reversed))
}
