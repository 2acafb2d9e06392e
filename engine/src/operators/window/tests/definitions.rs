//! What the tests of window functions hold results against: each function by its definition, row by row
//! and frame by frame.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{Expr, Literal};
use dovetail_planner::physical::{FrameBound, FrameUnits, SortKey, Window, WindowCall, WindowFrame};

use super::super::source;
use super::super::stream::{Stream, is_streamable, order_of};
use crate::batch::Batch;
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::memory::{Governor, SpillPolicy, SpillSpace};
use crate::operators::harness::{Random, drain, rows};
use crate::operators::sort::ExternalSort;
use crate::task::{QueryContext, Source, TaskContext};

pub(super) const PARTITION: usize = 0;
pub(super) const ORDER: usize = 1;
pub(super) const INT: usize = 2;
pub(super) const FLOAT: usize = 3;
pub(super) const TEXT: usize = 4;
pub(super) const DECIMAL: usize = 5;
pub(super) const FLAG: usize = 6;
pub(super) const ROW: usize = 7;
const COLUMNS: usize = 8;

pub(super) fn schema(order: &DataType) -> SchemaRef {
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    Arc::new(Schema::new(vec![
        field("p", DataType::Int64),
        field("o", order.clone()),
        field("i", DataType::Int64),
        field("f", DataType::Float64),
        field("t", DataType::Utf8View),
        field("d", DataType::Decimal128(12, 2)),
        field("b", DataType::Boolean),
        field("r", DataType::Int64),
    ]))
}

/// Random rows in batches; decimals come in both physical forms.
pub(super) fn input(n: usize, order: &DataType, random: &mut Random) -> Vec<Batch> {
    let mut batches = vec![];
    let mut first = 0;
    while first < n {
        let rows = (1 + random.below(40) as usize).min(n - first);
        let mut ints = |domain: u64, nulls: u64| -> Vec<Option<i64>> {
            (0..rows)
                .map(|_| {
                    let value = random.below(domain) as i64 - 3;
                    (random.below(100) >= nulls).then_some(value)
                })
                .collect()
        };
        let keys = Int64Array::from(ints(12, 15));
        let decimals = Int64Array::from(ints(1000, 20));
        let decimal64: ArrayRef =
            Arc::new(Decimal64Array::from_iter(decimals.iter()).with_precision_and_scale(12, 2).unwrap());
        let decimal = match first % 2 {
            0 => decimal64,
            _ => arrow::compute::cast(&decimal64, &DataType::Decimal128(12, 2)).unwrap(),
        };
        let order_values: ArrayRef = match order {
            DataType::Date32 => Arc::new(Date32Array::from_iter(keys.iter().map(|k| k.map(|k| k as i32)))),
            DataType::Float64 => {
                Arc::new(Float64Array::from_iter(keys.iter().map(|k| k.map(|k| k as f64 / 2.0))))
            }
            other => arrow::compute::cast(&keys, other).unwrap(),
        };
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ints(4, 10))),
            order_values,
            Arc::new(Int64Array::from(ints(20, 20))),
            Arc::new(Float64Array::from_iter(ints(50, 20).into_iter().map(|v| v.map(|v| v as f64 / 2.0)))),
            Arc::new(StringViewArray::from_iter(
                ints(30, 20).into_iter().map(|v| v.map(|v| format!("a text of some length {v}"))),
            )),
            decimal,
            Arc::new(BooleanArray::from_iter(ints(2, 20).into_iter().map(|v| v.map(|v| v == -3)))),
            Arc::new(Int64Array::from_iter_values(first as i64..(first + rows) as i64)),
        ];
        batches.push(Batch::from_arrays(arrays, rows));
        first += rows;
    }
    batches
}

/// A row of the output, with what the definitions need to know of it.
struct Row {
    values: Vec<ScalarValue>,
    /// Position in the partition, and number of the group of peers in it.
    position: i64,
    group: i64,
    /// The order key times two, as an integer.
    key: Option<i64>,
}

fn number(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(v) => *v,
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => v.map(i64::from),
        ScalarValue::Boolean(v) => v.map(i64::from),
        ScalarValue::Float64(v) => v.map(|v| (v * 2.0) as i64),
        ScalarValue::Decimal128(v, _, _) => v.map(|v| v as i64),
        ScalarValue::Decimal64(v, _, _) => *v,
        other => panic!("{other:?}"),
    }
}

/// The output's rows by partition; checks that they are sorted.
fn partitions(window: &Window, output: &[Batch]) -> Vec<Vec<Row>> {
    let mut partitions: Vec<Vec<Row>> = vec![];
    for values in rows(output) {
        let key = number(&values[ORDER]);
        let last = partitions.last().and_then(|p| p.last());
        let same =
            last.filter(|l| window.partition_by.is_empty() || l.values[PARTITION] == values[PARTITION]);
        let (position, group) = match same {
            None => (0, 0),
            Some(last) => {
                let order = &window.order_by;
                let peer = order.is_empty() || last.key == key;
                if let [order] = &order[..] {
                    let rank = |k: Option<i64>| match k {
                        None => (if order.nulls_first { -1 } else { 1 }, 0),
                        Some(k) => (0, if order.descending { -k } else { k }),
                    };
                    assert!(rank(last.key) <= rank(key), "sorted");
                }
                (last.position + 1, last.group + i64::from(!peer))
            }
        };
        if position == 0 {
            let seen = partitions.iter().any(|p| p[0].values[PARTITION] == values[PARTITION]);
            assert!(!seen || window.partition_by.is_empty(), "a partition is in one piece");
            partitions.push(vec![]);
        }
        partitions.last_mut().unwrap().push(Row { values, position, group, key });
    }
    partitions
}

/// The rows of a row's frame, by the definition.
fn frame_of<'a>(frame: &WindowFrame, order: Option<&SortKey>, rows: &'a [Row], row: &Row) -> Vec<&'a Row> {
    let offset = |l: &Literal| match &l.0 {
        ScalarValue::UInt64(Some(n)) => *n as i64,
        // In units of the key.
        ScalarValue::IntervalMonthDayNano(Some(v)) => i64::from(v.days),
        other => number(other).unwrap(),
    };
    // Distance of `other` from the row, behind it if positive; None if it has none.
    let inside = |bound: &FrameBound, other: &Row, is_end: bool| -> bool {
        let (limit, back) = match bound {
            FrameBound::UnboundedPreceding | FrameBound::UnboundedFollowing => return true,
            FrameBound::CurrentRow => (0, false),
            FrameBound::Preceding(l) => (offset(l), true),
            FrameBound::Following(l) => (offset(l), false),
        };
        let limit = if back { -limit } else { limit };
        let distance = match (frame.units, bound) {
            (FrameUnits::Rows, _) => other.position - row.position,
            (FrameUnits::Groups, _) | (FrameUnits::Range, FrameBound::CurrentRow) => other.group - row.group,
            (FrameUnits::Range, _) => match (row.key, other.key) {
                (None, _) => {
                    let distance = other.group - row.group;
                    return if is_end { distance <= 0 } else { distance >= 0 };
                }
                (Some(_), None) => return is_end == order.unwrap().nulls_first,
                (Some(a), Some(b)) if order.unwrap().descending => a - b,
                (Some(a), Some(b)) => b - a,
            },
        };
        if is_end { distance <= limit } else { distance >= limit }
    };
    rows.iter().filter(|r| inside(&frame.start, r, false) && inside(&frame.end, r, true)).collect()
}

/// The value of a call, by the definition, as text.
fn expected(call: &WindowCall, order: Option<&SortKey>, rows: &[Row], row: &Row) -> String {
    let argument = |r: &Row, i: usize| match &call.args[i] {
        Expr::Column { index, .. } => r.values[*index].clone(),
        Expr::Literal(l) => l.0.clone(),
        _ => unreachable!(),
    };
    let literal = |i: usize| match call.args.get(i) {
        Some(Expr::Literal(l)) => number(&l.0),
        _ => None,
    };
    let text =
        |v: Option<ScalarValue>| v.filter(|v| !v.is_null()).map_or("null".to_string(), |v| v.to_string());
    let peers = rows.iter().filter(|r| r.group == row.group).count() as i64;
    let before = rows.iter().filter(|r| r.group < row.group).count() as i64;
    let n = rows.len() as i64;
    match call.function.as_str() {
        "row_number" => return (row.position + 1).to_string(),
        "rank" => return (before + 1).to_string(),
        "dense_rank" => return (row.group + 1).to_string(),
        "percent_rank" if n == 1 => return "0".into(),
        "percent_rank" => return (before as f64 / (n - 1) as f64).to_string(),
        "cume_dist" => return ((before + peers) as f64 / n as f64).to_string(),
        "ntile" => {
            let parts = literal(0).unwrap();
            let sizes = (0..parts).map(|p| n / parts + i64::from(p < n % parts));
            let mut end = 0;
            for (part, size) in sizes.enumerate() {
                end += size;
                if row.position < end {
                    return (part + 1).to_string();
                }
            }
            unreachable!()
        }
        "lag" | "lead" => {
            let offset = literal(1).unwrap_or(1) * if call.function == "lag" { -1 } else { 1 };
            let mut target = row.position;
            let mut steps = offset.abs();
            while steps > 0 && 0 <= target && target < n {
                target += offset.signum();
                let counts = !call.ignore_nulls
                    || !(0..n).contains(&target)
                    || !argument(&rows[target as usize], 0).is_null();
                steps -= i64::from(counts);
            }
            let found = (0..n).contains(&target).then(|| argument(&rows[target as usize], 0));
            return text(found.or_else(|| call.args.get(2).map(|_| argument(row, 2))));
        }
        _ => {}
    }
    let mut frame = frame_of(&call.frame, order, rows, row);
    if call.filter.is_some() {
        frame.retain(|r| r.values[FLAG] == ScalarValue::Boolean(Some(true)));
    }
    let mut values: Vec<ScalarValue> = frame.iter().map(|r| argument(r, 0)).collect();
    if call.ignore_nulls
        || !matches!(call.function.as_str(), "first_value" | "last_value" | "nth_value" | "array_agg")
    {
        values.retain(|v| !v.is_null());
    }
    if call.distinct {
        let mut seen = vec![];
        values.retain(|v| {
            let new = !seen.contains(v);
            seen.push(v.clone());
            new
        });
    }
    if call.function == "count" {
        return values.len().to_string();
    }
    if call.function == "array_agg" {
        let items: Vec<_> = values.into_iter().map(|v| text(Some(v))).collect();
        return format!("[{}]", items.join(", "));
    }
    let numbers = || values.iter().map(|v| number(v).unwrap());
    let compare = |a: &&ScalarValue, b: &&ScalarValue| a.partial_cmp(b).unwrap();
    let picked = match call.function.as_str() {
        "first_value" => values.first().cloned(),
        "last_value" => values.last().cloned(),
        "nth_value" => match literal(1).unwrap() {
            n @ 1.. => values.get(n as usize - 1).cloned(),
            0 => None,
            n => values.len().checked_sub(n.unsigned_abs() as usize).map(|i| values[i].clone()),
        },
        _ if values.is_empty() => None,
        "min" => values.iter().min_by(compare).cloned(),
        "max" => values.iter().max_by(compare).cloned(),
        "bool_and" => Some(ScalarValue::Boolean(Some(numbers().all(|v| v == 1)))),
        "sum" => {
            let sum: i64 = numbers().sum();
            Some(match call.output.data_type() {
                DataType::Float64 => ScalarValue::Float64(Some(sum as f64 / 2.0)),
                DataType::Decimal128(p, s) => ScalarValue::Decimal128(Some(sum.into()), *p, *s),
                _ => ScalarValue::Int64(Some(sum)),
            })
        }
        "avg" => {
            let (sum, count) = (numbers().sum::<i64>(), values.len() as i64);
            Some(match call.output.data_type() {
                DataType::Decimal128(p, s) => {
                    ScalarValue::Decimal128(Some((sum * 10_000 / count).into()), *p, *s)
                }
                _ => ScalarValue::Float64(Some(sum as f64 / 2.0 / count as f64)),
            })
        }
        "median" => {
            let mut sorted: Vec<i64> = numbers().collect();
            sorted.sort();
            let half = sorted.len() / 2;
            Some(ScalarValue::Float64(Some(match sorted.len() % 2 {
                1 => sorted[half] as f64 / 2.0,
                _ => (sorted[half - 1] + sorted[half]) as f64 / 4.0,
            })))
        }
        other => panic!("{other}"),
    };
    text(picked)
}

fn found(value: &ScalarValue) -> String {
    match value {
        ScalarValue::List(list) => {
            let items = list.value(0);
            let items: Vec<_> =
                (0..items.len()).map(|i| found(&ScalarValue::try_from_array(&items, i).unwrap())).collect();
            if list.is_null(0) { "[]".into() } else { format!("[{}]", items.join(", ")) }
        }
        v if v.is_null() => "null".into(),
        v => v.to_string(),
    }
}

/// Runs the window and holds every value against its definition.
/// Holds the result over `n` random rows against the definitions, in memory, spilling whenever it can, and, if
/// the calls allow it, computed from row to row.
pub(super) fn verify(window: &Window, order: &DataType, n: usize, seed: u64) {
    let batches = input(n, order, &mut Random(seed));
    let evaluate = |query: &Arc<QueryContext>| {
        let (reader, task) =
            (ExchangeReader::of_batches(batches.clone()), TaskContext::new(0, 1, query.clone()));
        drain(source(window, &schema(order), reader, &task).unwrap()).unwrap()
    };
    check(window, n, &evaluate(&Arc::default()));
    let memory = Governor::new(u64::MAX, SpillPolicy::Always);
    let spilling = Arc::new(QueryContext::bounded(0, memory, SpillSpace::default().query()));
    check(window, n, &evaluate(&spilling));
    assert!(spilling.memory.spilled_bytes() > 0 || window.partition_by.is_empty() && !is_streamable(window));
    assert_eq!(spilling.memory.used_bytes(), 0);
    if is_streamable(window) {
        check(window, n, &streamed(window, &schema(order), &batches, &mut Random(seed)));
    }
}

/// The result computed from row to row, of rows that come in small pieces.
fn streamed(window: &Window, schema: &SchemaRef, batches: &[Batch], random: &mut Random) -> Vec<Batch> {
    struct Pieces(std::vec::IntoIter<Batch>);
    impl Source for Pieces {
        fn next(&mut self) -> Result<Option<Batch>> {
            Ok(self.0.next())
        }
    }
    let task = TaskContext::new(0, 1, Arc::default());
    let mut sort = ExternalSort::new(&order_of(window), schema, &task).unwrap();
    batches.iter().for_each(|batch| sort.push(batch).unwrap());
    let mut pieces = vec![];
    for batch in drain(sort.finish().unwrap()).unwrap() {
        let mut start = 0;
        while start < batch.rows {
            let rows = (1 + random.below(7) as usize).min(batch.rows - start);
            pieces.push(batch.slice(start, rows));
            start += rows;
        }
    }
    let mut stream = Stream::new(window, Box::new(Pieces(pieces.into_iter())));
    let mut reservation = task.query.memory.reserve("test");
    let mut output = vec![];
    while let Some(batch) = stream.next(&mut reservation).unwrap() {
        output.push(batch);
    }
    output
}

/// Holds a result of `n` rows against the definitions.
fn check(window: &Window, n: usize, output: &[Batch]) {
    assert_eq!(output.iter().map(|b| b.rows).sum::<usize>(), n);
    for (i, call) in window.calls.iter().enumerate() {
        assert!(output.iter().all(|b| b.columns[COLUMNS + i].data_type() == call.output.data_type()));
    }
    let mut numbers: Vec<_> = rows(output).iter().map(|r| number(&r[ROW])).collect();
    numbers.sort();
    assert!(numbers.into_iter().eq((0..n as i64).map(Some)), "every row once");
    for partition in partitions(window, output) {
        for row in &partition {
            for (i, call) in window.calls.iter().enumerate() {
                let expected = expected(call, window.order_by.first(), &partition, row);
                let found = found(&row.values[COLUMNS + i]);
                assert_eq!(found, expected, "{call:?} at {:?} of {:?}", row.values, window.order_by);
            }
        }
    }
}
