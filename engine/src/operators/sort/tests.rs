//! Sorts, merges and top-ks against a stable sort of rows by PostgreSQL's rules.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Sort, SortKey};

use super::*;
use crate::memory::{Governor, SpillPolicy, SpillSpace, Spillable};
use crate::operators::harness::{Random, drain, rows, run_sink, task};
use crate::task::{Flow, Output, QueryContext, TaskContext};

fn random_array(kind: usize, n: usize, domain: u64, nulls: u64, random: &mut Random) -> ArrayRef {
    let mut values: Vec<Option<i64>> = vec![];
    for _ in 0..n {
        let null = random.below(100) < nulls;
        let value = random.below(domain) as i64 - domain as i64 / 2;
        values.push((!null).then_some(value));
    }
    let text = |v: &Option<i64>| {
        v.map(|v| match v.rem_euclid(4) {
            0 => format!("customer number {v}"),
            1 => "x\0".repeat(v.unsigned_abs() as usize % 5),
            2 => String::new(),
            _ => format!("customer number 17 and a long tail of words {v}"),
        })
    };
    let ints = Int64Array::from(values.clone());
    match kind {
        0 => Arc::new(ints),
        1 => Arc::new(Float64Array::from_iter(values.iter().map(|v| {
            v.map(|v| match v.rem_euclid(7) {
                0 => f64::NAN,
                1 => -0.0,
                2 => 0.0,
                3 => f64::NEG_INFINITY,
                4 => -f64::NAN,
                _ => v as f64 / 3.0,
            })
        }))),
        2 => Arc::new(StringViewArray::from_iter(values.iter().map(text))),
        3 => Arc::new(BooleanArray::from_iter(values.iter().map(|v| v.map(|v| v % 2 == 0)))),
        4 => Arc::new(
            Decimal128Array::from_iter(values.iter().map(|v| v.map(|v| i128::from(v) << 70)))
                .with_precision_and_scale(38, 2)
                .unwrap(),
        ),
        5 => Arc::new(Decimal64Array::from_iter(values).with_precision_and_scale(18, 2).unwrap()),
        6 => {
            let plain: StringArray = values.iter().map(text).collect();
            arrow::compute::cast(
                &plain,
                &DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View)),
            )
            .unwrap()
        }
        7 => Arc::new(Date32Array::from_iter(values.iter().map(|v| v.map(|v| v as i32)))),
        8 => Arc::new(UInt64Array::from_iter(values.iter().map(|v| {
            v.map(|v| match v.rem_euclid(5) {
                0 => u64::MAX,
                1 => 0,
                _ => v as u64,
            })
        }))),
        9 => Arc::new(IntervalMonthDayNanoArray::from_iter(values.iter().map(|v| {
            v.map(|v| IntervalMonthDayNano::new((v % 3) as i32, (v % 5) as i32 * 15, v % 2 * DAY))
        }))),
        10 => Arc::new(StringArray::from_iter(values.iter().map(|v| v.map(|v| format!("{}", v % 100))))),
        11 => Arc::new(Int8Array::from_iter(values.iter().map(|v| v.map(|v| v as i8)))),
        12 => Arc::new(Float32Array::from_iter(values.iter().map(|v| v.map(|v| -v as f32)))),
        13 => Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                values.iter().map(|v| v.map(|v| (v as i32).to_be_bytes())),
                4,
            )
            .unwrap(),
        ),
        _ => {
            let lists = values.iter().map(|v| v.map(|v| vec![Some(v % 3), (v % 2 == 0).then_some(v)]));
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
        }
    }
}

const KINDS: usize = 15;
const DAY: i64 = 86_400_000_000_000;

/// PostgreSQL's order of two values that are not null.
fn compare_values(a: &ScalarValue, b: &ScalarValue) -> Ordering {
    use ScalarValue::*;
    fn float(a: f64, b: f64) -> Ordering {
        match (a.is_nan(), b.is_nan()) {
            (false, false) => a.partial_cmp(&b).unwrap(),
            (x, y) => x.cmp(&y),
        }
    }
    // Runs may come back in another physical form.
    fn plain(v: &ScalarValue) -> ScalarValue {
        match v {
            Dictionary(_, v) => (**v).clone(),
            Decimal64(v, p, s) => Decimal128(v.map(i128::from), *p, *s),
            v => v.clone(),
        }
    }
    match (&plain(a), &plain(b)) {
        (Float64(Some(a)), Float64(Some(b))) => float(*a, *b),
        (Float32(Some(a)), Float32(Some(b))) => float(f64::from(*a), f64::from(*b)),
        (IntervalMonthDayNano(Some(a)), IntervalMonthDayNano(Some(b))) => {
            let length = |v: &arrow::datatypes::IntervalMonthDayNano| {
                (i128::from(v.months) * 30 + i128::from(v.days)) * i128::from(DAY) + i128::from(v.nanoseconds)
            };
            length(a).cmp(&length(b))
        }
        (List(a), List(b)) => {
            let items = |l: &Arc<ListArray>| -> Vec<_> {
                // Nulls are the largest inside of lists.
                l.value(0).as_primitive::<Int64Type>().iter().map(|v| (v.is_none(), v)).collect()
            };
            items(a).cmp(&items(b))
        }
        (a, b) => a.partial_cmp(b).unwrap(),
    }
}

fn compare_rows(a: &[ScalarValue], b: &[ScalarValue], keys: &[SortKey]) -> Ordering {
    for key in keys {
        let Expr::Column { index, .. } = key.expr else { unreachable!() };
        let (a, b) = (&a[index], &b[index]);
        let order = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if key.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if key.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ if key.descending => compare_values(b, a),
            _ => compare_values(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The rows of an output's only run, if there is any.
fn run_rows(output: Output) -> Vec<Batch> {
    assert!(output.runs.len() <= 1);
    let mut readers = output.runs.into_iter().map(sorted_run::RunReader::new);
    let mut batches = vec![];
    if let Some(mut reader) = readers.next() {
        while let Some((batch, _)) = reader.next().unwrap() {
            batches.push(batch);
        }
    }
    batches
}

/// The last column, which numbers the rows.
fn numbers(rows: &[Vec<ScalarValue>]) -> Vec<String> {
    rows.iter().map(|r| r.last().unwrap().to_string()).collect()
}

/// Random batches of key columns and a row number, the keys over them and the schema.
fn input(kinds: &[usize], batches: usize, random: &mut Random) -> (Vec<Batch>, Vec<SortKey>, SchemaRef) {
    let domains = [2, 20, 1000, 1 << 40];
    let spec: Vec<_> = kinds
        .iter()
        .map(|_| (domains[random.below(4) as usize], [0, 0, 10, 100][random.below(4) as usize]))
        .collect();
    let mut number = 0i64;
    let mut out = vec![];
    for _ in 0..batches {
        let n = random.below(700) as usize;
        let mut arrays: Vec<ArrayRef> =
            kinds.iter().zip(&spec).map(|(&k, &(d, nulls))| random_array(k, n, d, nulls, random)).collect();
        arrays.push(Arc::new(Int64Array::from_iter_values(number..number + n as i64)));
        number += n as i64;
        let batch = Batch::from_arrays(arrays, n);
        // Every other batch is lazy.
        out.push(if random.below(2) == 0 {
            batch.select(&Arc::new(UInt32Array::from_iter_values(0..n as u32)))
        } else {
            batch
        });
    }
    let logical = |t: &DataType| match t {
        DataType::Dictionary(_, v) => v.as_ref().clone(),
        DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        t => t.clone(),
    };
    let types: Vec<DataType> = out[0].columns.iter().map(|c| logical(c.data_type())).collect();
    let keys = (0..kinds.len())
        .map(|i| SortKey {
            expr: Expr::column(i, types[i].clone()),
            descending: random.below(2) == 0,
            nulls_first: random.below(2) == 0,
        })
        .collect();
    let fields: Vec<_> =
        types.into_iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t, true)).collect();
    (out, keys, Arc::new(Schema::new(fields)))
}

/// Every type alone, then random combinations.
fn combinations(random: &mut Random) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = (0..KINDS).flat_map(|k| [vec![k], vec![k]]).collect();
    for _ in 0..60 {
        let width = 2 + random.below(4) as usize;
        all.push((0..width).map(|_| random.below(KINDS as u64) as usize).collect());
    }
    all
}

#[test]
fn a_run_is_a_stable_sort() {
    let mut random = Random(7);
    for kinds in combinations(&mut random) {
        let (batches, keys, schema) = input(&kinds, 5, &mut random);
        let mut expected = rows(&batches);
        expected.sort_by(|a, b| compare_rows(a, b, &keys));
        let sort = Sort { keys, fetch: None };
        let output = run_sink(sink_factory(&sort, &schema).unwrap().as_ref(), batches).unwrap();
        let found = rows(&run_rows(output));
        assert!(numbers(&found) == numbers(&expected), "{kinds:?} {:?}", sort.keys);
    }
}

#[test]
fn merged_runs_are_in_order_and_lose_no_row() {
    let mut random = Random(11);
    for (i, kinds) in combinations(&mut random).into_iter().enumerate() {
        let tasks = 1 + i % 6;
        let (batches, keys, schema) = input(&kinds, 8, &mut random);
        let sort = Sort { keys, fetch: None };
        let fetch = (i % 3 == 0).then_some(random.below(3000));
        let factory = sink_factory(&sort, &schema).unwrap();
        let mut runs = vec![];
        let mut in_order = vec![];
        for part in 0..tasks {
            let mine: Vec<Batch> = batches.iter().skip(part).step_by(tasks).cloned().collect();
            in_order.extend(rows(&mine));
            runs.extend(run_sink(factory.as_ref(), mine).unwrap().runs);
        }
        in_order.sort_by(|a, b| compare_rows(a, b, &sort.keys));
        in_order.truncate(fetch.map_or(usize::MAX, |f| f as usize));
        let merge = merge_source(&Sort { fetch, ..sort.clone() }, &schema, runs, &task(0, 1)).unwrap();
        let found = drain(merge).unwrap();
        assert!(found.iter().all(|b| b.rows > 0));
        assert!(numbers(&rows(&found)) == numbers(&in_order), "{kinds:?} {:?}", sort.keys);
    }
}

#[test]
fn top_k_is_sort_and_limit() {
    let mut random = Random(13);
    for (i, kinds) in combinations(&mut random).into_iter().enumerate() {
        let tasks = 1 + i % 3;
        let (batches, keys, schema) = input(&kinds, 30, &mut random);
        let fetch = [0, 1, 10, 500, 100_000][i % 5];
        let sort = Sort { keys, fetch: Some(fetch) };
        let mut expected = rows(&batches);
        expected.sort_by(|a, b| compare_rows(a, b, &sort.keys));
        expected.truncate(fetch as usize);

        let factory = sink_factory(&sort, &schema).unwrap();
        let mut sinks: Vec<_> = (0..tasks).map(|t| factory.open(&task(t, tasks)).unwrap()).collect();
        for (b, batch) in batches.into_iter().enumerate() {
            let flow = sinks[b % tasks].push(batch).unwrap();
            assert_eq!(flow == Flow::Done, fetch == 0);
        }
        let runs = sinks.into_iter().flat_map(|s| s.finish().unwrap().runs).collect();
        let found = rows(&drain(merge_source(&sort, &schema, runs, &task(0, 1)).unwrap()).unwrap());
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(&expected) {
            assert_eq!(compare_rows(f, e, &sort.keys), Ordering::Equal, "{f:?} instead of {e:?}");
        }
        if tasks == 1 {
            assert!(numbers(&found) == numbers(&expected), "{kinds:?}");
        }
        let mut distinct = numbers(&found);
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), found.len(), "no row twice");
    }
}

#[test]
fn computed_keys_do_not_reach_the_output() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![2, 1, 3]));
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let constant = Expr::literal(ScalarValue::Int64(Some(1)));
    let key = |expr| SortKey { expr, descending: false, nulls_first: false };
    for fetch in [None, Some(2)] {
        let sort = Sort { keys: vec![key(constant.clone()), key(Expr::column(0, DataType::Int64))], fetch };
        let batch = Batch::from_arrays(vec![array.clone()], 3);
        let output = run_sink(sink_factory(&sort, &schema).unwrap().as_ref(), vec![batch]).unwrap();
        let found: Vec<_> = rows(&run_rows(output)).into_iter().map(|r| format!("{r:?}")).collect();
        assert_eq!(found, ["[Int64(1)]", "[Int64(2)]", "[Int64(3)]"][..fetch.unwrap_or(3) as usize]);
    }
}

#[test]
fn a_key_of_untyped_nulls_keeps_the_order() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![2, 1, 3]));
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let expr = Expr::literal(ScalarValue::Null);
    for fetch in [None, Some(2)] {
        let sort =
            Sort { keys: vec![SortKey { expr: expr.clone(), descending: true, nulls_first: true }], fetch };
        let factory = sink_factory(&sort, &schema).unwrap();
        let run = || {
            let batch = Batch::from_arrays(vec![array.clone()], 3);
            run_sink(factory.as_ref(), vec![batch]).unwrap().runs.remove(0)
        };
        let merged = drain(merge_source(&sort, &schema, vec![run(), run()], &task(0, 1)).unwrap()).unwrap();
        let expected = ["2", "1", "3", "2", "1", "3"];
        assert_eq!(numbers(&rows(&merged)), expected[..fetch.unwrap_or(6) as usize]);
    }
}

#[test]
fn large_runs_take_the_radix_path() {
    let mut random = Random(5);
    let n = 100_000;
    for (domain, nulls) in [(1000, 0), (1 << 20, 5), (1 << 45, 1)] {
        let array = random_array(0, n, domain, nulls, &mut random);
        let values = array.as_primitive::<Int64Type>().clone();
        for (descending, nulls_first) in [(false, false), (true, false), (true, true)] {
            let found = sort_rows(&[Key::new(&array, descending, nulls_first).unwrap()], n, None).unwrap();
            let mut expected: Vec<u32> = (0..n as u32).collect();
            expected.sort_by_key(|&row| {
                let value = values.is_valid(row as usize).then(|| values.value(row as usize));
                (value.is_none() != nulls_first, value.map(|v| if descending { -v } else { v }))
            });
            assert!(found == expected, "{domain} {descending} {nulls_first}");
        }
    }
}

/// Task `partition` of `partitions` of a query with little memory, or one that spills whenever it can.
fn bounded(limit_bytes: u64, policy: SpillPolicy) -> Arc<QueryContext> {
    let memory = Governor::new(limit_bytes, policy);
    Arc::new(QueryContext::bounded(0, memory, SpillSpace::default().query()))
}

#[test]
fn spilled_runs_merge_in_several_passes() {
    let mut random = Random(17);
    // With the smallest limit two runs are merged at a time.
    let mut several = [0; 3];
    let contexts =
        [(1 << 18, SpillPolicy::AtLimit), (1 << 20, SpillPolicy::Always), (1 << 24, SpillPolicy::Always)];
    for (i, kinds) in combinations(&mut random).into_iter().step_by(2).enumerate() {
        let (limit, policy) = contexts[i % contexts.len()];
        let query = bounded(limit, policy);
        let tasks = 1 + i % 2;
        let (batches, keys, schema) = input(&kinds, 32, &mut random);
        let fetch = (i % 4 == 0).then_some(random.below(3000));
        let sort = Sort { keys, fetch: None };
        let factory = sink_factory(&sort, &schema).unwrap();
        let (mut runs, mut in_order) = (vec![], vec![]);
        for part in 0..tasks {
            let mut sink = factory.open(&TaskContext::new(part, tasks, query.clone())).unwrap();
            for batch in batches.iter().skip(part).step_by(tasks) {
                in_order.extend(rows(std::slice::from_ref(batch)));
                sink.push(batch.clone()).unwrap();
            }
            runs.extend(sink.finish().unwrap().runs);
        }
        several[i % contexts.len()] += usize::from(runs.len() > 2);
        in_order.sort_by(|a, b| compare_rows(a, b, &sort.keys));
        in_order.truncate(fetch.map_or(usize::MAX, |f| f as usize));
        let task = TaskContext::new(0, 1, query.clone());
        let merge = merge_source(&Sort { fetch, ..sort.clone() }, &schema, runs, &task).unwrap();
        let found = drain(merge).unwrap();
        assert!(numbers(&rows(&found)) == numbers(&in_order), "{kinds:?} {:?}", sort.keys);
        assert_eq!(query.memory.used_bytes(), 0);
    }
    assert!(several.iter().all(|several| *several > 10), "{several:?} of 15 each had more runs than fit");
}

#[test]
fn a_spilled_top_k_is_sort_and_limit() {
    let mut random = Random(19);
    let mut several = [0; 2];
    for (i, kinds) in combinations(&mut random).into_iter().step_by(2).enumerate() {
        let policy = [SpillPolicy::AtLimit, SpillPolicy::Always][i % 2];
        let query = bounded(1 << 18, policy);
        let (batches, keys, schema) = input(&kinds, 24, &mut random);
        let total: u64 = batches.iter().map(|b| b.rows as u64).sum();
        let fetch = [1, 100, total / 2, total - 10, total + 10][i % 5];
        let sort = Sort { keys, fetch: Some(fetch) };
        let mut expected = rows(&batches);
        expected.sort_by(|a, b| compare_rows(a, b, &sort.keys));
        expected.truncate(fetch as usize);
        let task = TaskContext::new(0, 1, query.clone());
        let mut sink = sink_factory(&sort, &schema).unwrap().open(&task).unwrap();
        for batch in batches {
            sink.push(batch).unwrap();
        }
        let runs = sink.finish().unwrap().runs;
        assert!(runs.iter().all(|run| run.rows() <= fetch));
        several[i % 2] += usize::from(runs.len() > 1);
        let found = drain(merge_source(&sort, &schema, runs, &task).unwrap()).unwrap();
        assert!(numbers(&rows(&found)) == numbers(&expected), "{kinds:?} {fetch}");
        assert_eq!(query.memory.used_bytes(), 0);
    }
    assert!(several[0] > 2 && several[1] > 18, "{several:?} of 22 each had several runs");
}

#[test]
fn a_run_that_waits_can_be_spilled_while_it_is_read() {
    let mut random = Random(23);
    let (batches, keys, schema) = input(&[0, 2], 100, &mut random);
    let query = bounded(u64::MAX, SpillPolicy::AtLimit);
    let task = TaskContext::new(0, 1, query.clone());
    let mut sink = sink_factory(&Sort { keys, fetch: None }, &schema).unwrap().open(&task).unwrap();
    let total: usize = batches.iter().map(|b| b.rows).sum();
    for batch in batches {
        sink.push(batch).unwrap();
    }
    let run = sink.finish().unwrap().runs.remove(0);
    assert_eq!((run.rows() as usize, run.memory_bytes()), (total, query.memory.used_bytes()));
    let mut reader = sorted_run::RunReader::new(run.clone());
    let mut read = reader.next().unwrap().unwrap().0.rows;
    assert!(run.spill().unwrap() > 0);
    assert_eq!((run.memory_bytes(), query.memory.used_bytes(), run.spill().unwrap()), (0, 0, 0));
    while let Some((batch, bytes)) = reader.next().unwrap() {
        assert!(bytes < 1 << 20);
        read += batch.rows;
    }
    assert_eq!(read, total);
}
