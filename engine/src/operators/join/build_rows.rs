//! The build side of a hash join before it is a table: one task's rows, as they come.
//!
//! With enough memory nothing is done to them. A task that is told to spill orders what it has by hash
//! partition and writes it; rows that wait for the table are spilled in the same way by whoever needs the
//! room.
//!
//! What always holds: [`PARTITIONS`] and the hash are the same for all tasks of all joins; the rows are taken
//! once, all in memory or all in an exchange.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::HashJoin;
use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use dovetail_shuffle::output::MapOutputWriter;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns_into, partition_of};
use parking_lot::Mutex;

use super::build_shape::{BuildShape, Keeper};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::parts::split_by;
use crate::exchange::{ExchangeOutput, ExchangeWriter, RowsReader};
use crate::memory::{Charge, Parked, Spillable};
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// Partitions of a build side that does not fit, and of the probe side then: so many that one is a small
/// part of what fits, so few that a spill writes blocks of a good size to each.
pub const PARTITIONS: usize = 64;

/// What errors, files and counters call it.
pub(super) const NAME: &str = "the build side of a join";

/// For `planner::pipeline::Sink::BuildRows`. Each task's [`Output::artifact`] is a [`BuildRows`].
pub fn build_rows_factory(join: &HashJoin, build_schema: &SchemaRef) -> Result<Arc<dyn SinkFactory>> {
    Ok(Arc::new(BuildRowsFactory { shape: Arc::new(BuildShape::new(join, build_schema)?) }))
}

struct BuildRowsFactory {
    shape: Arc<BuildShape>,
}

impl SinkFactory for BuildRowsFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(BuildRowsSink {
            keeper: self.shape.keeper()?,
            shape: self.shape.clone(),
            batches: vec![],
            held: HeldMemory::default(),
            rows: 0,
            writer: ExchangeWriter::new(task, NAME, PARTITIONS),
            task: task.clone(),
        }))
    }
}

struct BuildRowsSink {
    shape: Arc<BuildShape>,
    keeper: Keeper,
    /// Kept batches that are not in the writer.
    batches: Vec<Batch>,
    held: HeldMemory,
    rows: u64,
    writer: ExchangeWriter,
    task: TaskContext,
}

impl Sink for BuildRowsSink {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        let batch = self.keeper.keep(&batch)?;
        self.rows += batch.rows as u64;
        hold(&mut self.held, &batch);
        self.batches.push(batch);
        if self.shape.is_partitionable() && self.writer.must_spill(self.held.bytes()) {
            self.spill()?;
        }
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        let state = if self.writer.rows() > 0 {
            self.spill()?;
            State::Exchange(self.writer.finish()?)
        } else {
            drop(self.writer);
            State::Memory(self.batches)
        };
        let rows = BuildRows::park(self.shape, state, self.rows, self.held.bytes(), &self.task)?;
        Ok(Output { artifact: Some(rows), ..Output::default() })
    }
}

impl BuildRowsSink {
    /// Writes everything to disk.
    fn spill(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        for batch in batches {
            bases(&batch).for_each(|rows| self.held.remove(&rows));
            let mut push = |partition, rows: &Batch| self.writer.push(partition, rows);
            push_partitioned(&self.shape, batch, &mut push)?;
            if self.writer.memory_bytes() > COPY_BYTES_MAX {
                self.writer.spill(self.held.bytes())?;
            }
        }
        self.writer.spill(0)
    }
}

/// What a batch holds: whole arrays, whatever its indices pick.
pub(super) fn bases(batch: &Batch) -> impl Iterator<Item = Rows> {
    batch.columns.iter().map(|c| Rows::new(vec![c.base().clone()], c.base().len()))
}

/// Counts what a batch holds.
pub(super) fn hold(held: &mut HeldMemory, batch: &Batch) {
    bases(batch).for_each(|rows| {
        held.add(&rows);
    });
}

/// Gives each partition its rows of a kept batch.
fn push_partitioned(
    shape: &BuildShape,
    batch: Batch,
    push: &mut dyn FnMut(usize, &Batch) -> Result<()>,
) -> Result<()> {
    let keys = shape.keys(&batch)?;
    let (batch, ends) = split_by(batch, &keys, PARTITIONS, |hash| partition_of(hash, PARTITIONS))?;
    let mut start = 0;
    for (partition, end) in ends.into_iter().enumerate() {
        if end > start {
            push(partition, &batch.slice(start, end - start))?;
        }
        start = end;
    }
    Ok(())
}

/// One task's build rows while they wait.
pub struct BuildRows {
    shape: Arc<BuildShape>,
    rows: u64,
    state: Mutex<State>,
    partitioning: Mutex<()>,
    /// Of the rows in memory; what is in an exchange is counted there.
    charge: Charge,
    parked: OnceLock<Parked>,
    task: TaskContext,
}

enum State {
    /// Kept batches.
    Memory(Vec<Batch>),
    Exchange(Arc<ExchangeOutput>),
    Taken,
}

/// The rows, taken.
pub enum TakenRows {
    Memory(Vec<Batch>),
    Exchange(Arc<ExchangeOutput>),
}

impl BuildRows {
    fn park(
        shape: Arc<BuildShape>,
        state: State,
        rows: u64,
        memory_bytes: usize,
        task: &TaskContext,
    ) -> Result<Arc<Self>> {
        let charge = Charge::new(&task.query.memory);
        let in_memory = matches!(state, State::Memory(_));
        charge.set(if in_memory { memory_bytes } else { 0 });
        let rows = Arc::new(BuildRows {
            rows,
            state: Mutex::new(state),
            partitioning: Mutex::default(),
            charge,
            parked: OnceLock::new(),
            task: task.clone(),
            shape,
        });
        if in_memory && rows.rows > 0 && rows.shape.is_partitionable() {
            let holder: Arc<dyn Spillable> = rows.clone();
            // Set once, here: nobody else has the rows yet.
            let _ = rows.parked.set(task.query.memory.park(&holder)?);
        }
        Ok(rows)
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About the bytes of the rows; on disk, as they are there.
    pub fn bytes(&self) -> u64 {
        match &*self.state.lock() {
            State::Exchange(output) => output.bytes_of_all(),
            State::Memory(_) | State::Taken => self.charge.bytes() as u64,
        }
    }

    /// Rows by hash partition; all in one if the join does not allow partitions.
    pub fn rows_by_partition(&self) -> Result<Vec<u64>> {
        if !self.shape.is_partitionable() {
            return Ok(vec![self.rows]);
        }
        let mut rows = vec![0; PARTITIONS];
        match &*self.state.lock() {
            State::Exchange(output) => rows.iter_mut().enumerate().for_each(|(p, r)| *r = output.rows(p)),
            State::Memory(batches) => {
                let mut hashes = vec![];
                for batch in batches {
                    hash_columns_into(&self.shape.keys(batch)?, EXCHANGE_SEED, &mut hashes);
                    hashes.iter().for_each(|hash| rows[partition_of(*hash, PARTITIONS)] += 1);
                }
            }
            State::Taken => {}
        }
        Ok(rows)
    }

    /// The rows of some partitions, which stay where they are. For some of many partitions, they are
    /// partitioned here first, if they are not yet.
    pub fn share(&self, partitions: Range<usize>) -> Result<RowsReader> {
        let is_part = partitions.len() < PARTITIONS && self.shape.is_partitionable();
        if let Some(batches) = self.batches() {
            if !is_part {
                return Ok(Box::new(batches.into_iter().map(|batch| {
                    let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<Vec<_>>>()?;
                    Ok(Rows::new(columns, batch.rows))
                })));
            }
            self.partition()?;
        }
        match &*self.state.lock() {
            State::Exchange(output) => {
                let output = output.clone();
                Ok(Box::new(partitions.flat_map(move |p| output.share(p))))
            }
            State::Memory(_) | State::Taken => {
                Err(EngineError::internal("build rows that are gone are read"))
            }
        }
    }

    /// The rows in memory, if they are there.
    fn batches(&self) -> Option<Vec<Batch>> {
        match &*self.state.lock() {
            State::Memory(batches) => Some(batches.clone()),
            State::Exchange(_) | State::Taken => None,
        }
    }

    /// Partitions the rows that are in memory. Without the lock on the state: making room may spill these
    /// very rows.
    fn partition(&self) -> Result<()> {
        let _one_at_a_time = self.partitioning.lock();
        let Some(batches) = self.batches() else { return Ok(()) };
        let output = partitioned(&self.shape, TakenRows::Memory(batches), &self.task)?;
        let mut state = self.state.lock();
        if matches!(*state, State::Memory(_)) {
            *state = State::Exchange(output);
            self.charge.set(0);
        }
        Ok(())
    }

    /// Whether they are still in memory, all of them.
    pub fn is_in_memory(&self) -> bool {
        matches!(*self.state.lock(), State::Memory(_))
    }

    /// The rows, for whoever makes the table. What they hold in memory is the caller's to count from now on.
    pub fn take(&self) -> TakenRows {
        let mut state = self.state.lock();
        self.charge.set(0);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Memory(batches) => TakenRows::Memory(batches),
            State::Exchange(output) => TakenRows::Exchange(output),
            State::Taken => unreachable!("invariant: build rows are taken once"),
        }
    }
}

impl Spillable for BuildRows {
    fn memory_bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn spill(&self) -> Result<u64> {
        let mut state = self.state.lock();
        let State::Memory(batches) = &*state else { return Ok(0) };
        let mut writer = MapOutputWriter::new(NAME, PARTITIONS);
        let mut rows = vec![0; PARTITIONS];
        let store = self.task.query.spill.store()?;
        let mut written = 0;
        for batch in batches {
            push_partitioned(&self.shape, batch.clone(), &mut |partition, slice| {
                rows[partition] += slice.rows as u64;
                let columns = slice.columns.iter().map(|c| c.values()).collect::<Result<Vec<_>>>()?;
                writer.push(partition, Rows::new(columns, slice.rows));
                Ok(())
            })?;
            // The copy in the order of the partitions is to stay small.
            if writer.memory_bytes() > COPY_BYTES_MAX {
                written += writer.spill(&store)?;
            }
        }
        written += writer.spill(&store)?;
        *state = State::Exchange(ExchangeOutput::park(writer.finish()?, rows, &self.task)?);
        self.charge.set(0);
        self.task.note_spilled(written);
        Ok(written)
    }
}

/// A spill orders rows by partition in copies of about so many bytes.
const COPY_BYTES_MAX: usize = 16 << 20;

/// Rows of a task as partitions, if they are not yet.
pub(super) fn partitioned(
    shape: &BuildShape,
    taken: TakenRows,
    task: &TaskContext,
) -> Result<Arc<ExchangeOutput>> {
    let batches = match taken {
        TakenRows::Exchange(output) => return Ok(output),
        TakenRows::Memory(batches) => batches,
    };
    let mut held = HeldMemory::default();
    batches.iter().for_each(|b| hold(&mut held, b));
    let mut writer = ExchangeWriter::new(task, NAME, PARTITIONS);
    for batch in batches.into_iter().rev() {
        bases(&batch).for_each(|rows| held.remove(&rows));
        push_partitioned(shape, batch, &mut |partition, rows| writer.push(partition, rows))?;
        if writer.must_spill(held.bytes()) {
            writer.spill(held.bytes())?;
        }
    }
    writer.finish()
}
