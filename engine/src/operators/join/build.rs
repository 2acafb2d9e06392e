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
use crate::memory::Reservation;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// For `planner::pipeline::Sink::JoinBuild`. The one task's [`Output::artifact`] is a [`BuildSide`].
pub fn build_sink_factory(
    join: &HashJoin,
    build_schema: &SchemaRef,
    rows: Vec<Arc<BuildRows>>,
) -> Result<Arc<dyn SinkFactory>> {
    Ok(Arc::new(BuildFactory { shape: Arc::new(BuildShape::new(join, build_schema)?), rows }))
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
            let outputs = taken.into_iter().map(|t| partitioned(&self.shape, t, &self.task));
            let outputs = outputs.collect::<Result<_>>()?;
            BuildSide::Partitioned(Arc::new(PartitionedBuild { shape: self.shape, outputs }))
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
