//! Runs joins as a stage would: one build task, several probing tasks.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::physical::{HashJoin, JoinKind, NestedLoopJoin};

use super::super::{
    BuildSide, JoinTable, PARTITIONS, PartitionedJoin, build_rows_factory, build_sink_factory,
    nested_loop_factory, partitioned_probe_factory, probe_factory,
};
use super::reference::Row;
use crate::batch::Batch;
use crate::error::Result;
use crate::memory::{Governor, SpillPolicy, SpillSpace};
use crate::operators::harness::partitions_of;
use crate::operators::partition;
use crate::task::{Downstream, Flow, OperatorFactory, QueryContext, TaskContext};

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
    match &*build_side(join, schema, batches, &task(0, 1)).unwrap() {
        BuildSide::Table(table) => table.clone(),
        BuildSide::Partitioned(_) => panic!("there is as much memory as it wants"),
    }
}

/// The build side from the rows of two tasks.
fn build_side(
    join: &HashJoin,
    schema: &SchemaRef,
    mut batches: Vec<Batch>,
    task: &TaskContext,
) -> Result<Arc<BuildSide>> {
    let factory = build_rows_factory(join, schema).unwrap();
    let half = batches.split_off(batches.len() / 2);
    let rows = [batches, half].into_iter().map(|batches| {
        let mut sink = factory.open(task).unwrap();
        for batch in batches {
            sink.push(batch).unwrap();
        }
        sink.finish().unwrap().artifact.unwrap().downcast().unwrap()
    });
    let sink = build_sink_factory(join, schema, rows.collect())?.open(task)?;
    Ok(sink.finish()?.artifact.unwrap().downcast().unwrap())
}

/// How little memory a join has.
#[derive(Debug, Clone, Copy)]
pub enum Memory {
    /// Whatever can be spilled is spilled.
    Nothing,
    Bytes(u64),
}

/// A join with little memory, by one task or by some that share the partitions. None if it has fitted after all.
pub fn hash_join_in(
    memory: Memory,
    join: &HashJoin,
    (probe_schema, probe): (&SchemaRef, Vec<Batch>),
    (build_schema, build_batches): (&SchemaRef, Vec<Batch>),
    tasks: usize,
) -> Result<Option<Vec<Row>>> {
    let governor = match memory {
        Memory::Nothing => Governor::new(u64::MAX, SpillPolicy::Always),
        Memory::Bytes(bytes) => Governor::new(bytes, SpillPolicy::AtLimit),
    };
    let query = Arc::new(QueryContext::bounded(0, governor.clone(), SpillSpace::default().query()));
    let task = |partition, partitions| TaskContext::new(partition, partitions, query.clone());
    let side = build_side(join, build_schema, build_batches, &task(0, 1))?;
    let BuildSide::Partitioned(build) = &*side else { return Ok(None) };
    let shares = if tasks == 1 {
        vec![probe]
    } else {
        let keys: Vec<_> = join.keys.iter().map(|(p, _)| p.clone()).collect();
        let mut sink = partition::sink_factory(&keys, PARTITIONS)?.open(&task(0, 1))?;
        for batch in probe {
            sink.push(batch)?;
        }
        let mut partitions = partitions_of(&sink.finish()?).into_iter();
        (0..tasks).map(|_| partitions.by_ref().take(PARTITIONS / tasks).flatten().collect()).collect()
    };
    let join_of_partitions = PartitionedJoin {
        join: join.clone(),
        probe_schema: probe_schema.clone(),
        build_schema: build_schema.clone(),
        build: build.clone(),
    };
    let factory = partitioned_probe_factory(join_of_partitions, tasks, vec![]);
    let mut out = Collected::default();
    for (i, share) in shares.into_iter().enumerate() {
        let mut operator = factory.open(&task(i, tasks))?;
        for batch in share {
            if operator.push(batch, &mut out)? == Flow::Done {
                break;
            }
        }
        operator.finish(&mut out)?;
    }
    let types = full_row(join.kind, probe_schema, build_schema);
    let rows = rows(&out.batches, &types, &join.output);
    drop((factory, side, out));
    assert_eq!(governor.used_bytes(), 0);
    Ok(Some(rows))
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
    let factory = {
        let memory = Governor::unlimited().reserve("the build side");
        nested_loop_factory(join, probe_schema, build_schema, build_batches, memory, tasks).unwrap()
    };
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
