//! The build side of a hash join: what the tasks of the build side have kept becomes one table, or, if that
//! does not fit in memory, stays in hash partitions for the probing tasks to take one by one.
//!
//! One task does it. What takes long, grouping rows by key, works on arrays of codes and splits by
//! hash prefix or by code range, should several tasks share it one day.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::HashJoin;
use dovetail_shuffle::memory::HeldMemory;

use super::build_rows::{BuildRows, NAME, TakenRows, hold, partitioned};
use super::build_shape::BuildShape;
use super::join_table::{BuildSide, JoinTable, PartitionedBuild};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeInput, HeldOutput};
use crate::memory::Reservation;
use crate::scan::RuntimeFilter;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// For `planner::pipeline::Sink::JoinBuild`. The one task's [`Output::artifact`] is a [`BuildSide`].
pub fn build_sink_factory(
    join: &HashJoin,
    build_schema: &SchemaRef,
    rows: Vec<Arc<BuildRows>>,
) -> Result<Arc<dyn SinkFactory>> {
    Ok(Arc::new(BuildFactory { shape: Arc::new(BuildShape::new(join, build_schema)?), rows }))
}

/// [`build_sink_factory`] of rows that may be read again.
pub fn held_build_sink_factory(
    join: &HashJoin,
    build_schema: &SchemaRef,
    rows: Vec<Arc<dyn HeldOutput>>,
) -> Result<Arc<dyn SinkFactory>> {
    Ok(Arc::new(HeldBuild { join: join.clone(), build_schema: build_schema.clone(), rows, task: None }))
}

/// The factory, and its sink.
#[derive(Clone)]
struct HeldBuild {
    join: HashJoin,
    build_schema: SchemaRef,
    rows: Vec<Arc<dyn HeldOutput>>,
    task: Option<TaskContext>,
}

impl SinkFactory for HeldBuild {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(HeldBuild { task: Some(task.clone()), ..self.clone() }))
    }
}

impl Sink for HeldBuild {
    fn push(&mut self, _: Batch) -> Result<Flow> {
        Err(EngineError::internal("a join build takes its rows by itself"))
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        let task = self.task.expect("invariant: a sink was opened by a task");
        let side = held_build_side(&self.join, &self.build_schema, self.rows, &task)?;
        Ok(Output { artifact: Some(Arc::new(side)), ..Output::default() })
    }
}

/// Larger build sides than this are not sent to every worker: both sides are partitioned then.
const BROADCAST_BYTES_MAX: u64 = 256 << 20;

/// The build side of rows that may be read again, among workers: a table if it fits here and is not too much to
/// have on each of them. A join that owes rows from its build side at the end is partitioned, because only the
/// one task that has met all probe rows knows which.
pub fn held_build_side(
    join: &HashJoin,
    build_schema: &SchemaRef,
    rows: Vec<Arc<dyn HeldOutput>>,
    task: &TaskContext,
) -> Result<BuildSide> {
    let shape = Arc::new(BuildShape::new(join, build_schema)?);
    let (bytes, count) = size(&rows);
    let fits = bytes <= BROADCAST_BYTES_MAX
        && shape.table_bytes(bytes as usize, count as usize) <= task.query.memory.firm_room_bytes();
    if join.kind.emits_build_at_end() {
        // No table, but its filters: the probe side is about to be moved.
        let filters = match fits && !join.runtime_filters.is_empty() {
            true => or_nothing(read(&shape, &rows, task))?
                .map_or(Ok(vec![]), |(batches, _)| shape.runtime_filters(&batches))?,
            false => vec![],
        };
        return Ok(partitioned_build_side(shape, rows, filters));
    }
    if !shape.is_partitionable() {
        return Ok(BuildSide::Table(Arc::new(held_table(&shape, &rows, task)?)));
    }
    let table = if fits { or_nothing(held_table(&shape, &rows, task))? } else { None };
    Ok(match table {
        Some(table) => BuildSide::Table(Arc::new(table)),
        None => partitioned_build_side(shape, rows, vec![]),
    })
}

/// Nothing, if there was no memory for it.
fn or_nothing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(EngineError::Resources(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`held_build_side`] where another worker has decided whether it is a table.
pub fn held_build_side_again(
    join: &HashJoin,
    build_schema: &SchemaRef,
    rows: Vec<Arc<dyn HeldOutput>>,
    is_partitioned: bool,
    task: &TaskContext,
) -> Result<BuildSide> {
    let shape = Arc::new(BuildShape::new(join, build_schema)?);
    match is_partitioned {
        true => Ok(partitioned_build_side(shape, rows, vec![])),
        false => Ok(BuildSide::Table(Arc::new(held_table(&shape, &rows, task)?))),
    }
}

fn partitioned_build_side(
    shape: Arc<BuildShape>,
    rows: Vec<Arc<dyn HeldOutput>>,
    runtime_filters: Vec<(u32, Arc<RuntimeFilter>)>,
) -> BuildSide {
    let outputs = rows.into_iter().map(ExchangeInput::Held).collect();
    BuildSide::Partitioned(Arc::new(PartitionedBuild { shape, outputs, runtime_filters }))
}

/// Bytes and rows.
fn size(rows: &[Arc<dyn HeldOutput>]) -> (u64, u64) {
    let count = |held: &Arc<dyn HeldOutput>| (0..held.partitions()).map(|p| held.rows(p)).sum::<u64>();
    (rows.iter().map(|held| held.bytes()).sum(), rows.iter().map(count).sum())
}

fn held_table(shape: &BuildShape, rows: &[Arc<dyn HeldOutput>], task: &TaskContext) -> Result<JoinTable> {
    let (batches, memory) = read(shape, rows, task)?;
    Ok(JoinTable::reserved(shape.table(batches, true)?, memory))
}

/// All rows, with memory for a table of them.
fn read(
    shape: &BuildShape,
    rows: &[Arc<dyn HeldOutput>],
    task: &TaskContext,
) -> Result<(Vec<Batch>, Reservation)> {
    let mut memory = task.query.memory.reserve(NAME);
    let (mut batches, mut held, mut count) = (vec![], HeldMemory::default(), 0);
    // All at once, because some may come from elsewhere.
    let readers = rows.iter().map(|r| r.read(0..r.partitions())).collect::<Result<Vec<_>>>()?;
    for rows in readers.into_iter().flatten() {
        task.query.check_cancelled()?;
        let rows = rows?;
        let batch = Batch::from_arrays(rows.columns, rows.rows);
        hold(&mut held, &batch);
        count += batch.rows;
        batches.push(batch);
        memory.resize_firm(shape.table_bytes(held.bytes(), count))?;
    }
    Ok((batches, memory))
}

struct BuildFactory {
    shape: Arc<BuildShape>,
    rows: Vec<Arc<BuildRows>>,
}

impl SinkFactory for BuildFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(BuildSink { shape: self.shape.clone(), rows: self.rows.clone(), task: task.clone() }))
    }
}

struct BuildSink {
    shape: Arc<BuildShape>,
    rows: Vec<Arc<BuildRows>>,
    task: TaskContext,
}

impl Sink for BuildSink {
    fn push(&mut self, _: Batch) -> Result<Flow> {
        Err(EngineError::internal("a join build takes its rows by itself"))
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        let rows: u64 = self.rows.iter().map(|r| r.rows()).sum();
        let in_memory = self.rows.iter().all(|r| r.is_in_memory());
        let taken: Vec<TakenRows> = self.rows.iter().map(|r| r.take()).collect();
        let mut memory = self.task.query.memory.reserve(NAME);
        let side = if in_memory && self.fits(&taken, rows as usize, &mut memory)? {
            let batches = taken.into_iter().flat_map(|t| match t {
                TakenRows::Memory(batches) => batches,
                TakenRows::Exchange(_) => vec![],
            });
            let table = self.shape.table(batches.collect(), true)?;
            BuildSide::Table(Arc::new(JoinTable::reserved(table, memory)))
        } else {
            drop(memory);
            let outputs = taken.into_iter().map(|t| Ok(partitioned(&self.shape, t, &self.task)?.into()));
            let outputs = outputs.collect::<Result<_>>()?;
            let runtime_filters = vec![];
            BuildSide::Partitioned(Arc::new(PartitionedBuild { shape: self.shape, outputs, runtime_filters }))
        };
        Ok(Output { artifact: Some(Arc::new(side)), ..Output::default() })
    }
}

impl BuildSink {
    /// Whether all of the rows are in memory and their table may be; if so, it is reserved.
    fn fits(&self, taken: &[TakenRows], rows: usize, memory: &mut Reservation) -> Result<bool> {
        let mut held = HeldMemory::default();
        for taken in taken {
            // Another thread may have spilled it just before it was taken.
            let TakenRows::Memory(batches) = taken else { return Ok(false) };
            batches.iter().for_each(|b| hold(&mut held, b));
        }
        let bytes = self.shape.table_bytes(held.bytes(), rows);
        if !self.shape.is_partitionable() {
            memory.resize_firm(bytes)?;
            return Ok(true);
        }
        Ok(bytes <= self.task.query.memory.firm_room_bytes() && memory.resize_firm(bytes).is_ok())
    }
}
