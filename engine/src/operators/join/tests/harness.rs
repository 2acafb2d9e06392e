//! Runs joins as a stage would: one build task, several probing tasks.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::physical::{HashJoin, JoinKind, NestedLoopJoin};

use super::super::{JoinTable, build_sink_factory, nested_loop_factory, probe_factory};
use super::reference::Row;
use crate::batch::Batch;
use crate::error::Result;
use crate::task::{Downstream, Flow, OperatorFactory, TaskContext};

#[derive(Default)]
pub struct Collected {
    pub batches: Vec<Batch>,
    /// Say that nothing more is wanted after this many.
    pub enough: Option<usize>,
}

impl Downstream for Collected {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        assert!(self.enough.is_none_or(|n| self.batches.len() < n), "pushed after Done");
        assert!(batch.columns.iter().all(|c| c.len() == batch.rows));
        self.batches.push(batch);
        Ok(if self.enough.is_some_and(|n| self.batches.len() >= n) { Flow::Done } else { Flow::Continue })
    }
}

pub fn task(partition: usize, partitions: usize) -> TaskContext {
    TaskContext::new(partition, partitions, Arc::default())
}

pub fn build(join: &HashJoin, schema: &SchemaRef, batches: Vec<Batch>) -> Arc<JoinTable> {
    let mut sink = build_sink_factory(join, schema).unwrap().open(&task(0, 1)).unwrap();
    for batch in batches {
        sink.push(batch).unwrap();
    }
    sink.finish().unwrap().artifact.unwrap().downcast().unwrap()
}

/// Probes with several tasks on threads of their own.
pub fn run(factory: Arc<dyn OperatorFactory>, batches: Vec<Batch>, tasks: usize) -> Vec<Batch> {
    let mut shares: Vec<Vec<Batch>> = vec![vec![]; tasks];
    for (i, batch) in batches.into_iter().enumerate() {
        shares[i % tasks].push(batch);
    }
    let one = |i: usize, share: Vec<Batch>| {
        let mut operator = factory.open(&task(i, tasks)).unwrap();
        let mut out = Collected::default();
        for batch in share {
            if operator.push(batch, &mut out).unwrap() == Flow::Done {
                break;
            }
        }
        operator.finish(&mut out).unwrap();
        out.batches
    };
    std::thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> =
            shares.into_iter().enumerate().map(|(i, s)| scope.spawn(move || one(i, s))).collect();
        running.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

pub fn hash_join(
    join: &HashJoin,
    (probe_schema, probe): (&SchemaRef, Vec<Batch>),
    (build_schema, build_batches): (&SchemaRef, Vec<Batch>),
    tasks: usize,
) -> Vec<Row> {
    let table = build(join, build_schema, build_batches);
    let factory = probe_factory(join, probe_schema, build_schema, table, tasks).unwrap();
    let types = full_row(join.kind, probe_schema, build_schema);
    rows(&run(factory, probe, tasks), &types, &join.output)
}

pub fn nested_loop(
    join: &NestedLoopJoin,
    (probe_schema, probe): (&SchemaRef, Vec<Batch>),
    (build_schema, build_batches): (&SchemaRef, Vec<Batch>),
    tasks: usize,
) -> Vec<Row> {
    let factory = nested_loop_factory(join, probe_schema, build_schema, build_batches, tasks).unwrap();
    let types = full_row(join.kind, probe_schema, build_schema);
    rows(&run(factory, probe, tasks), &types, &join.output)
}

/// Types of a join's full row.
pub fn full_row(kind: JoinKind, probe: &SchemaRef, build: &SchemaRef) -> Vec<DataType> {
    use JoinKind::*;
    let types =
        |s: &SchemaRef| s.fields().iter().map(|f: &Arc<Field>| f.data_type().clone()).collect::<Vec<_>>();
    match kind {
        ProbeSemi | ProbeAnti => types(probe),
        BuildSemi | BuildAnti => types(build),
        ProbeMark => types(probe).into_iter().chain([DataType::Boolean]).collect(),
        _ => types(probe).into_iter().chain(types(build)).collect(),
    }
}

fn rows(batches: &[Batch], types: &[DataType], output: &[usize]) -> Vec<Row> {
    let mut rows = vec![];
    for batch in batches {
        let arrays: Vec<_> =
            batch.columns.iter().zip(output).map(|(c, &o)| c.to_logical(&types[o]).unwrap()).collect();
        assert_eq!(arrays.len(), output.len());
        for i in 0..batch.rows {
            rows.push(arrays.iter().map(|a| ScalarValue::try_from_array(a, i).unwrap()).collect());
        }
    }
    rows
}

/// Fails unless both have the same rows equally often.
pub fn assert_same_rows(actual: Vec<Row>, expected: Vec<Row>, output: &[usize], context: &str) {
    let text = |r: &[ScalarValue]| r.iter().map(|v| format!("{v:?}|")).collect::<String>();
    let mut actual: Vec<String> = actual.iter().map(|r| text(r)).collect();
    let picked = |r: &Row| text(&output.iter().map(|&o| r[o].clone()).collect::<Vec<_>>());
    let mut expected: Vec<String> = expected.iter().map(picked).collect();
    actual.sort();
    expected.sort();
    if actual != expected {
        let at = actual.iter().zip(&expected).position(|(a, e)| a != e);
        let at = at.unwrap_or(actual.len().min(expected.len()));
        panic!(
            "{context}: {} rows instead of {}; the first difference: {:?} instead of {:?}",
            actual.len(),
            expected.len(),
            actual.get(at),
            expected.get(at)
        );
    }
}
