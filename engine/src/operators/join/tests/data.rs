//! Random tables, and the many forms in which the same rows can arrive.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;

use crate::batch::{Batch, Column};

/// Xorshift: the same numbers at every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize) % bound
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// How a key column's values are spread.
#[derive(Debug, Clone, Copy)]
pub enum Spread {
    /// So many different values.
    Few(usize),
    /// Half of the rows have the same value.
    Skewed,
    /// From the whole range of the type, drawn from so many.
    Wide(usize),
}

#[derive(Debug, Clone)]
pub struct KeyColumn {
    pub data_type: DataType,
    pub spread: Spread,
    pub null_percent: usize,
}

/// Rows of values: the key columns, then `id` (the row number) and `v` (a small number).
pub struct Table {
    pub schema: SchemaRef,
    pub rows: Vec<Vec<ScalarValue>>,
}

impl Table {
    pub fn random(random: &mut Random, keys: &[KeyColumn], rows: usize) -> Table {
        let mut fields: Vec<Field> =
            (0..).zip(keys).map(|(i, k)| Field::new(format!("k{i}"), k.data_type.clone(), true)).collect();
        fields.push(Field::new("id", DataType::Int64, true));
        fields.push(Field::new("v", DataType::Int64, true));
        let rows = (0..rows)
            .map(|id| {
                let mut row: Vec<ScalarValue> = keys.iter().map(|k| value(random, k)).collect();
                row.push(ScalarValue::Int64(Some(id as i64)));
                row.push(ScalarValue::Int64((!random.chance(10)).then(|| random.below(10) as i64)));
                row
            })
            .collect();
        Table { schema: Arc::new(Schema::new(fields)), rows }
    }

    /// The rows as batches of random sizes and forms.
    pub fn batches(&self, random: &mut Random) -> Vec<Batch> {
        let mut batches = vec![];
        let mut start = 0;
        while start < self.rows.len() {
            let count = [1, 7, 100, 3000, 20_000][random.below(5)].min(self.rows.len() - start);
            batches.push(self.batch(random, &self.rows[start..start + count]));
            start += count;
            if random.chance(10) {
                batches.push(self.batch(random, &[]));
            }
        }
        batches
    }

    /// The rows as one batch.
    pub fn whole(&self) -> Option<Batch> {
        (!self.rows.is_empty()).then(|| self.batch(&mut Random(1), &self.rows))
    }

    fn batch(&self, random: &mut Random, rows: &[Vec<ScalarValue>]) -> Batch {
        let columns = (0..self.schema.fields().len())
            .map(|c| {
                let logical = self.schema.field(c).data_type();
                let array = match rows {
                    [] => arrow::array::new_empty_array(logical),
                    _ => ScalarValue::iter_to_array(rows.iter().map(|r| r[c].clone())).unwrap(),
                };
                let array = physical(random, array);
                lazy(random, array)
            })
            .collect();
        Batch { columns, rows: rows.len() }
    }
}

fn value(random: &mut Random, key: &KeyColumn) -> ScalarValue {
    if random.chance(key.null_percent) {
        return ScalarValue::try_from(&key.data_type).unwrap();
    }
    let n = match key.spread {
        Spread::Few(n) => random.below(n) as i64 - n as i64 / 2,
        Spread::Skewed => [3, random.below(50) as i64][random.below(2)],
        Spread::Wide(n) => match random.below(n) as i64 {
            0 => i64::MIN,
            1 => i64::MAX,
            i => (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64,
        },
    };
    let text = || if n % 3 == 0 { format!("{n}") } else { format!("a string longer than a view {n}") };
    match &key.data_type {
        DataType::Int64 => ScalarValue::Int64(Some(n)),
        DataType::Int32 => ScalarValue::Int32(Some(n as i32)),
        DataType::UInt64 => ScalarValue::UInt64(Some(n as u64)),
        DataType::UInt8 => ScalarValue::UInt8(Some(n as u8)),
        DataType::Boolean => ScalarValue::Boolean(Some(n % 2 == 0)),
        DataType::Date32 => ScalarValue::Date32(Some(n as i32)),
        DataType::Timestamp(TimeUnit::Microsecond, tz) => {
            ScalarValue::TimestampMicrosecond(Some(n), tz.clone())
        }
        DataType::Float64 => ScalarValue::Float64(Some(match n % 5 {
            0 => 0.0,
            1 => -0.0,
            2 => f64::NAN,
            3 => -f64::NAN,
            _ => n as f64,
        })),
        DataType::Decimal128(p, s) if *p <= 18 => {
            ScalarValue::Decimal128(Some((n % 100_000_000_000_000) as i128), *p, *s)
        }
        DataType::Decimal128(p, s) => ScalarValue::Decimal128(Some(n as i128 * 1_000_000), *p, *s),
        DataType::Utf8View => ScalarValue::Utf8View(Some(text())),
        DataType::Utf8 => ScalarValue::Utf8(Some(text())),
        DataType::BinaryView => ScalarValue::BinaryView(Some(text().into_bytes())),
        other => panic!("no values of {other}"),
    }
}

/// The array in one of the forms that its logical type may have.
fn physical(random: &mut Random, array: ArrayRef) -> ArrayRef {
    let to = match array.data_type() {
        DataType::Decimal128(p, s) if *p <= 18 => DataType::Decimal64(*p, *s),
        t @ (DataType::Utf8View | DataType::Utf8 | DataType::BinaryView) => {
            DataType::Dictionary(Box::new(DataType::UInt32), Box::new(t.clone()))
        }
        _ => return array,
    };
    if random.chance(50) { cast(&array, &to).unwrap() } else { array }
}

/// The array as it is, or seen through indices.
fn lazy(random: &mut Random, array: ArrayRef) -> Column {
    if random.chance(50) {
        return Column::new(array);
    }
    let n = array.len() as u32;
    let reversed = arrow::compute::take(&array, &UInt32Array::from_iter_values((0..n).rev()), None).unwrap();
    Column::indexed(reversed, Arc::new(UInt32Array::from_iter_values((0..n).rev())))
}
