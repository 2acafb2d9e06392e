//! Both ways of aggregating against a slow and obvious one, over random data in changing physical forms.

mod data;
mod edges;
mod functions;
mod keys;
mod reference;

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{Field, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Aggregate, AggregateCall, SortKey};

use super::final_stage::{FinalLimits, FinalSource};
use super::partial::{PartialLimits, PartialSinkFactory};
use super::shape::Shape;
use super::single_source;
use crate::batch::Batch;
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::functions as library;
use crate::memory::{Governor, SpillPolicy, SpillSpace};
use crate::task::{QueryContext, SinkFactory, Source, TaskContext};

/// A result row.
type Row = Vec<ScalarValue>;

/// A task with memory in abundance.
fn context() -> TaskContext {
    TaskContext::new(0, 1, Arc::default())
}

/// A task that spills whatever can be spilled.
fn spilling() -> TaskContext {
    let governor = Governor::new(u64::MAX, SpillPolicy::Always);
    let query = QueryContext::bounded(0, governor, SpillSpace::default().query());
    TaskContext::new(0, 1, Arc::new(query))
}

/// A call without anything special; the type of the result is the library's.
fn call(function: &str, args: Vec<Expr>) -> AggregateCall {
    let fields: Vec<_> = args.iter().map(|a| Arc::new(Field::new("a", a.data_type(), true))).collect();
    let output = library::aggregate(function).unwrap().return_field(&fields).unwrap();
    AggregateCall {
        function: function.into(),
        args,
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        output,
    }
}

fn ascending(expr: Expr) -> SortKey {
    SortKey { expr, descending: false, nulls_first: false }
}

/// Partial tasks over a part of the batches each, then the final stage; the same when everything spills.
fn two_phases(
    aggregate: &Aggregate,
    schema: &SchemaRef,
    batches: &[Batch],
    tasks: usize,
    partitions: usize,
    limits: PartialLimits,
) -> Result<Vec<Row>> {
    let found = two_phases_in(&context(), aggregate, schema, batches, tasks, partitions, limits);
    let task = spilling();
    let spilled = two_phases_in(&task, aggregate, schema, batches, tasks, partitions, limits);
    check_spilled(&task, aggregate, &found, spilled, batches);
    found
}

/// Both ways give the same, and the second has spilled.
fn check_spilled(
    task: &TaskContext,
    aggregate: &Aggregate,
    found: &Result<Vec<Row>>,
    spilled: Result<Vec<Row>>,
    batches: &[Batch],
) {
    match (found, spilled) {
        (Ok(found), Ok(spilled)) => {
            assert_same(spilled, found.clone(), aggregate.group_by.len(), "spilled");
            // One group alone is never divided.
            if batches.iter().any(|b| b.rows > 0) && found.len() > 1 {
                assert!(task.query.memory.spilled_bytes() > 0);
            }
        }
        (Err(found), Err(spilled)) => assert_eq!(found.to_string(), spilled.to_string()),
        (found, spilled) => panic!("{found:?} in memory, {spilled:?} when everything spills"),
    }
    assert_eq!(task.query.memory.used_bytes(), 0);
}

fn two_phases_in(
    task: &TaskContext,
    aggregate: &Aggregate,
    schema: &SchemaRef,
    batches: &[Batch],
    tasks: usize,
    partitions: usize,
    limits: PartialLimits,
) -> Result<Vec<Row>> {
    let shape = Shape::new(aggregate, schema)?;
    let factory = PartialSinkFactory::new(shape.clone(), partitions, limits)?;
    let mut outputs = vec![];
    for number in 0..tasks {
        let mut sink = factory.open(task)?;
        for batch in batches.iter().skip(number).step_by(tasks) {
            sink.push(batch.clone())?;
        }
        outputs.extend(sink.finish()?.exchange);
    }
    let mut rows = vec![];
    for partition in 0..partitions {
        let input = ExchangeReader::new(0, outputs.clone(), partition);
        let limits = FinalLimits { groups_max: limits.groups_max, part_rows: limits.groups_max };
        let source = FinalSource::new(shape.clone(), vec![input], partition == 0, limits, task);
        rows.extend(drain(aggregate, Box::new(source))?);
    }
    Ok(rows)
}

/// In one phase; the same when everything spills.
fn single(aggregate: &Aggregate, schema: &SchemaRef, batches: &[Batch]) -> Result<Vec<Row>> {
    let run = |task: &TaskContext| {
        let input = ExchangeReader::of_batches(batches.to_vec());
        drain(aggregate, single_source(aggregate, schema, input, true, task)?)
    };
    let (found, task) = (run(&context()), spilling());
    // Fewer than two batches are done when there would be a reason to spill.
    let enough = if batches.len() > 2 { batches } else { &[] };
    check_spilled(&task, aggregate, &found, run(&task), enough);
    found
}

/// A source's rows in logical types.
fn drain(aggregate: &Aggregate, mut source: Box<dyn Source>) -> Result<Vec<Row>> {
    let keys = aggregate.group_by.iter().map(|e| e.data_type());
    let types: Vec<_> = keys.chain(aggregate.calls.iter().map(|c| c.output.data_type().clone())).collect();
    let mut rows = vec![];
    while let Some(batch) = source.next()? {
        assert_eq!(batch.columns.len(), types.len());
        let arrays: Vec<_> =
            batch.columns.iter().zip(&types).map(|(c, t)| c.to_logical(t).unwrap()).collect();
        assert!(arrays.iter().all(|a| a.len() == batch.rows));
        for row in 0..batch.rows {
            rows.push(arrays.iter().map(|a| ScalarValue::try_from_array(a, row).unwrap()).collect());
        }
    }
    Ok(rows)
}

/// Limits that make small data flush and pass through.
fn tight(groups_max: usize, groups_per_row_max: f64) -> PartialLimits {
    PartialLimits {
        groups_max,
        groups_per_row_max,
        tables_passed: 2,
        growth_max: 3,
        scatter_rows: 100,
        ..Default::default()
    }
}

/// Both results have the same rows, floats up to rounding.
fn assert_same(mut found: Vec<Row>, mut expected: Vec<Row>, keys: usize, what: &str) {
    let name = |row: &Row| row[..keys].iter().map(|v| format!("{v:?}|")).collect::<String>();
    found.sort_by_key(name);
    expected.sort_by_key(name);
    assert_eq!(found.len(), expected.len(), "{what}: number of groups");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(name(found), name(expected), "{what}: a key");
        for (column, (a, b)) in found.iter().zip(expected).enumerate().skip(keys) {
            assert!(close(a, b), "{what}: group {} column {column}: {a:?} instead of {b:?}", name(found));
        }
    }
}

fn close(a: &ScalarValue, b: &ScalarValue) -> bool {
    match (a, b) {
        (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (a, b) => a == b,
    }
}
