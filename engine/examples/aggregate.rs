//! How long aggregation takes, in nanoseconds per input row of one thread, over made-up data in the shapes
//! that TPC-H and ClickBench have. `cargo run --release --example aggregate [name]`

use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_engine::Result;
use dovetail_engine::batch::{BATCH_ROWS, Batch, Column};
use dovetail_engine::exchange::ExchangeReader;
use dovetail_engine::operators::aggregate::{final_source, partial_sink_factory};
use dovetail_engine::task::TaskContext;
use dovetail_planner::expr::{BinaryOp, Expr};
use dovetail_planner::physical::{Aggregate, AggregateCall};

const ROWS: usize = 6_000_000;
const PARTITIONS: usize = 8;
/// Rows that share a dictionary.
const GROUP_ROWS: usize = 14 * BATCH_ROWS;

struct Case {
    name: &'static str,
    schema: Vec<DataType>,
    group_by: Vec<usize>,
    calls: Vec<AggregateCall>,
    make: fn(usize) -> Batch,
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for case in cases() {
        if !case.name.starts_with(&wanted) {
            continue;
        }
        let fields: Vec<Field> = case
            .schema
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true))
            .collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let group_by = case.group_by.iter().map(|i| Expr::column(*i, case.schema[*i].clone())).collect();
        let aggregate = Aggregate { group_by, calls: case.calls };
        let batches: Vec<Batch> = (0..ROWS).step_by(BATCH_ROWS).map(case.make).collect();
        let mut best = (f64::MAX, f64::MAX);
        let (mut groups, mut partial_rows) = (0, 0);
        for _ in 0..3 {
            let task = TaskContext::new(0, 1, Arc::default());
            let start = cpu_time();
            let mut sink = partial_sink_factory(&aggregate, &schema, PARTITIONS)?.open(&task)?;
            for batch in &batches {
                sink.push(batch.clone())?;
            }
            let output = sink.finish()?;
            let partial = cpu_time() - start;
            partial_rows = output.rows();
            let start = cpu_time();
            groups = 0;
            for number in 0..PARTITIONS {
                let outputs: Vec<_> = output.exchange.iter().cloned().collect();
                let finer = outputs[0].partitions() / PARTITIONS;
                let reader = |p| ExchangeReader::new(0, outputs.clone(), p);
                let inputs = (number * finer..(number + 1) * finer).map(reader).collect();
                let mut source = final_source(&aggregate, &schema, inputs, number == 0, &task)?;
                while let Some(batch) = source.next()? {
                    groups += batch.rows;
                }
            }
            let per_row = |t: Duration| t.as_nanos() as f64 / ROWS as f64;
            let (partial, last) = (per_row(partial), per_row(cpu_time() - start));
            if partial + last < best.0 + best.1 {
                best = (partial, last);
            }
        }
        println!(
            "{:<28} partial {:6.2} ns/row  final {:6.2} ns/row  {groups:>8} groups  {partial_rows:>8} partial",
            case.name, best.0, best.1
        );
    }
    Ok(())
}

/// Time that this thread has spent on a processor, so that a busy machine measures too.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

fn hash(n: usize) -> u64 {
    let n = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n ^ (n >> 32)
}

fn rows(start: usize) -> std::ops::Range<usize> {
    start..(start + BATCH_ROWS).min(ROWS)
}

fn ints(start: usize, f: impl Fn(usize) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows(start).map(f)))
}

fn decimals(start: usize, precision: u8, scale: i8, f: impl Fn(usize) -> i64) -> ArrayRef {
    let array = Decimal64Array::from_iter_values(rows(start).map(f));
    Arc::new(array.with_data_type(DataType::Decimal64(precision, scale)))
}

fn texts(start: usize, f: impl Fn(usize) -> String) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(rows(start).map(f)))
}

thread_local! {
    static DICTIONARY: std::cell::RefCell<Vec<(usize, usize, ArrayRef)>> = const { std::cell::RefCell::new(vec![]) };
}

/// Codes into a dictionary that the rows of a row group share.
fn coded(start: usize, values: &[&str], f: impl Fn(usize) -> usize) -> ArrayRef {
    let key = (start / GROUP_ROWS, values.as_ptr() as usize);
    let dictionary = DICTIONARY.with_borrow_mut(|all| {
        if let Some((_, _, a)) = all.iter().find(|(g, p, _)| (*g, *p) == key) {
            return a.clone();
        }
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(values));
        all.push((key.0, key.1, array.clone()));
        array
    });
    let keys = UInt32Array::from_iter_values(rows(start).map(|row| f(row) as u32));
    Arc::new(DictionaryArray::new(keys, dictionary))
}

fn batch(arrays: Vec<ArrayRef>) -> Batch {
    let rows = arrays[0].len();
    Batch::from_arrays(arrays, rows)
}

fn call(function: &str, args: Vec<Expr>, output: DataType) -> AggregateCall {
    AggregateCall {
        function: function.into(),
        args,
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        output: Arc::new(Field::new(function, output, true)),
    }
}

fn count() -> AggregateCall {
    call("count", vec![Expr::literal(ScalarValue::Int64(Some(1)))], DataType::Int64)
}

fn sum_int(column: usize) -> AggregateCall {
    call("sum", vec![Expr::column(column, DataType::Int64)], DataType::Int64)
}

fn cases() -> Vec<Case> {
    let money = DataType::Decimal128(15, 2);
    let value = |i: usize| Expr::column(i, DataType::Decimal128(15, 2));
    let binary = |op, left: Expr, right: Expr, p, s| Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
        data_type: DataType::Decimal128(p, s),
    };
    let one = || Expr::literal(ScalarValue::Decimal128(Some(100), 15, 2));
    let disc_price =
        || binary(BinaryOp::Multiply, value(3), binary(BinaryOp::Subtract, one(), value(4), 16, 2), 32, 4);
    let charge =
        || binary(BinaryOp::Multiply, disc_price(), binary(BinaryOp::Add, one(), value(5), 16, 2), 38, 6);
    let text = DataType::Utf8View;
    let q1 = |computed: bool| {
        let mut calls = vec![
            call("sum", vec![value(2)], DataType::Decimal128(25, 2)),
            call("sum", vec![value(3)], DataType::Decimal128(25, 2)),
            call("avg", vec![value(2)], DataType::Decimal128(19, 6)),
            call("avg", vec![value(3)], DataType::Decimal128(19, 6)),
            call("avg", vec![value(4)], DataType::Decimal128(19, 6)),
            count(),
        ];
        if computed {
            calls.push(call("sum", vec![disc_price()], DataType::Decimal128(38, 4)));
            calls.push(call("sum", vec![charge()], DataType::Decimal128(38, 6)));
        }
        calls
    };
    let q1_schema =
        vec![text.clone(), text.clone(), money.clone(), money.clone(), money.clone(), money.clone()];
    let q1_rows: fn(usize) -> Batch = |s| {
        batch(vec![
            coded(s, &["A", "N", "R"], |r| hash(r) as usize % 3),
            coded(s, &["F", "O"], |r| hash(r * 3) as usize % 2),
            decimals(s, 15, 2, |r| 100 + hash(r * 5) as i64 % 50 * 100),
            decimals(s, 15, 2, |r| 90_000 + (hash(r * 7) % 10_000_000) as i64),
            decimals(s, 15, 2, |r| (hash(r * 11) % 11) as i64),
            decimals(s, 15, 2, |r| (hash(r * 13) % 9) as i64),
        ])
    };
    let int = DataType::Int64;
    vec![
        Case { name: "q1", schema: q1_schema.clone(), group_by: vec![0, 1], calls: q1(true), make: q1_rows },
        Case {
            name: "q1-no-expressions",
            schema: q1_schema.clone(),
            group_by: vec![0, 1],
            calls: q1(false),
            make: q1_rows,
        },
        Case { name: "q6-no-keys", schema: q1_schema, group_by: vec![], calls: q1(false), make: q1_rows },
        Case {
            name: "q18-sorted-sparse",
            schema: vec![int.clone(), money.clone()],
            group_by: vec![0],
            calls: vec![call("sum", vec![value(1)], DataType::Decimal128(25, 2))],
            make: |s| {
                batch(vec![
                    ints(s, |r| (r / 4 / 8 * 32 + r / 4 % 8) as i64),
                    decimals(s, 15, 2, |r| 100 + (hash(r) % 50) as i64 * 100),
                ])
            },
        },
        Case {
            name: "q13-random-dense",
            schema: vec![int.clone()],
            group_by: vec![0],
            calls: vec![count()],
            make: |s| batch(vec![ints(s, |r| (hash(r) % 600_000) as i64)]),
        },
        Case {
            name: "small-ints",
            schema: vec![int.clone(), int.clone()],
            group_by: vec![0],
            calls: vec![count(), sum_int(1)],
            make: |s| batch(vec![ints(s, |r| (hash(r) % 5000) as i64), ints(s, |r| r as i64)]),
        },
        Case {
            name: "sparse-16k",
            schema: vec![int.clone(), int.clone()],
            group_by: vec![0],
            calls: vec![count(), sum_int(1)],
            make: |s| {
                batch(vec![ints(s, |r| hash((hash(r) % 16_000) as usize) as i64), ints(s, |r| r as i64)])
            },
        },
        Case {
            name: "unique-64-bit",
            schema: vec![int.clone(), int.clone()],
            group_by: vec![0],
            calls: vec![count(), sum_int(1)],
            make: |s| batch(vec![ints(s, |r| hash(r) as i64), ints(s, |r| r as i64)]),
        },
        Case {
            name: "zipf-64-bit",
            schema: vec![int.clone(), int.clone()],
            group_by: vec![0],
            calls: vec![count(), sum_int(1)],
            make: |s| {
                let skewed = |r: usize| {
                    let u = (hash(r) >> 11) as f64 / (1u64 << 53) as f64;
                    (u.powi(4) * 4e6) as usize
                };
                batch(vec![ints(s, |r| hash(skewed(r)) as i64), ints(s, |r| r as i64)])
            },
        },
        Case {
            name: "text-few-plain",
            schema: vec![text.clone()],
            group_by: vec![0],
            calls: vec![count()],
            make: |s| batch(vec![texts(s, |r| format!("value {}", hash(r) % 1000))]),
        },
        Case {
            name: "text-many-long",
            schema: vec![text.clone()],
            group_by: vec![0],
            calls: vec![count()],
            make: |s| batch(vec![texts(s, |r| format!("https://example.com/{}", hash(r) % 2_000_000))]),
        },
        Case {
            name: "int-text-date",
            schema: vec![int.clone(), text.clone(), DataType::Date32],
            group_by: vec![0, 1, 2],
            calls: vec![count()],
            make: |s| {
                batch(vec![
                    ints(s, |r| (hash(r) % 300) as i64),
                    coded(s, &["AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB", "REG AIR"], |r| {
                        hash(r * 3) as usize % 7
                    }),
                    Arc::new(Date32Array::from_iter_values(
                        rows(s).map(|r| 9000 + (hash(r * 5) % 30) as i32),
                    )),
                ])
            },
        },
        Case {
            name: "q10-build-side",
            schema: vec![int.clone(), text.clone(), text.clone(), money.clone(), text, money],
            group_by: vec![0, 1, 2, 3, 4],
            calls: vec![call("sum", vec![value(5)], DataType::Decimal128(25, 2))],
            make: |s| {
                let indices =
                    Arc::new(UInt32Array::from_iter_values(rows(s).map(|r| hash(r) as u32 % 400_000)));
                let mut columns: Vec<Column> =
                    build_side().into_iter().map(|a| Column::indexed(a, indices.clone())).collect();
                columns.push(Column::new(decimals(s, 15, 2, |r| (hash(r) % 1_000_000) as i64)));
                Batch { rows: indices.len(), columns }
            },
        },
    ]
}

/// The customers of a join's build side.
fn build_side() -> Vec<ArrayRef> {
    static BUILD: std::sync::OnceLock<Vec<ArrayRef>> = std::sync::OnceLock::new();
    let make = || -> Vec<ArrayRef> {
        let n = 0..400_000usize;
        vec![
            Arc::new(Int64Array::from_iter_values(n.clone().map(|i| i as i64 * 3))),
            Arc::new(StringViewArray::from_iter_values(n.clone().map(|i| format!("Customer#{:09}", i * 3)))),
            Arc::new(StringViewArray::from_iter_values(
                n.clone().map(|i| format!("13-{:010}", hash(i) % 10_000_000_000)),
            )),
            Arc::new(
                Decimal64Array::from_iter_values(n.clone().map(|i| (hash(i) % 1_000_000) as i64))
                    .with_data_type(DataType::Decimal64(15, 2)),
            ),
            Arc::new(StringViewArray::from_iter_values(n.map(|i| format!("{} some street", hash(i * 7))))),
        ]
    };
    BUILD.get_or_init(make).clone()
}
