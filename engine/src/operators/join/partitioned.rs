//! The probe side of a hash join whose build side is partitioned.
//!
//! ```text
//! task i of n:              the i-th n-th of the build's partitions ─▶ table ◀─ probe rows of the same
//! a single task:            probe rows ─▶ partitions; at the end partition by partition
//! too large a partition:    both sides ─▶ parts by other bits of the hash; at the end part by part
//! parts that do not help:   the build in blocks, each of which meets all probe rows
//! ```
//!
//! What always holds: a build row meets all probe rows whose key has the same hash, once each; at most one
//! table a task, and one set of parts a depth, at most [`DEPTH_MAX`] of them, are there at a time.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::{HashJoin, JoinKind};
use dovetail_shuffle::memory::HeldMemory;
use dovetail_shuffle::partitioner::partition_of;

use super::blocks;
use super::build_rows::{NAME, PARTITIONS, hold};
use super::join_table::{JoinTable, PartitionedBuild};
use super::marked;
use super::probe::probe_factory;
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::parts::{DEPTH_MAX, PARTS_MAX, part_of, split_by};
use crate::exchange::{ExchangeInput, ExchangeReader, ExchangeWriter};
use crate::expr::{CompiledExpr, compile};
use crate::memory::{Reservation, SpillPolicy};
use crate::task::{Downstream, Flow, Operator, OperatorFactory, TaskContext};

/// What errors and files call the probe rows that wait for their part of the build.
const PROBE_NAME: &str = "the probe side of a join";

/// Parts of a build partition are to be a quarter of what an operator may hold.
const FAIR_SHARE_PART: u64 = 4;

/// A hash join whose build side stays partitioned.
#[derive(Clone)]
pub struct PartitionedJoin {
    pub join: HashJoin,
    pub probe_schema: SchemaRef,
    pub build_schema: SchemaRef,
    pub build: Arc<PartitionedBuild>,
}

/// For `planner::pipeline::Transform::HashJoinProbe`. Opened by one task, or by tasks that share the partitions, each
/// with the probe rows of its own. `marks` are the outputs of the stage that makes them, if there is one, each with the
/// partition that it is of.
pub fn partitioned_probe_factory(
    join: PartitionedJoin,
    tasks: usize,
    marks: Vec<(u32, ExchangeInput)>,
) -> Arc<dyn OperatorFactory> {
    Arc::new(Factory { join, tasks, marks })
}

struct Factory {
    join: PartitionedJoin,
    tasks: usize,
    marks: Vec<(u32, ExchangeInput)>,
}

impl OperatorFactory for Factory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Operator>> {
        match task.share.filter(|s| s.is_hot() && self.join.join.kind.emits_build_at_end()) {
            Some(share) => {
                let marks = self.marks.iter().filter(|(partition, _)| *partition == share.first);
                let marks = marks.map(|(_, output)| output.clone()).collect();
                marked::open(&self.join, task, self.tasks, share, marks)
            }
            None => self.join.open(task, self.tasks),
        }
    }
}

impl PartitionedJoin {
    /// Opens the probe for one of so many tasks.
    pub(super) fn open(&self, task: &TaskContext, tasks: usize) -> Result<Box<dyn Operator>> {
        let probing = Probing {
            join: self.join.clone(),
            probe_schema: self.probe_schema.clone(),
            build_schema: self.build_schema.clone(),
            build: self.build.clone(),
            keys: self.join.keys.iter().map(|(probe, _)| compile(probe)).collect::<Result<_>>()?,
            task: task.clone(),
        };
        let outputs = self.build.outputs.clone();
        let state = if tasks == 1 {
            State::Parts(Box::new(Parts {
                rows: outputs.iter().map(|o| (0..PARTITIONS).map(|p| o.rows(p)).sum::<u64>()).sum(),
                build: outputs,
                probe: ExchangeWriter::new(task, PROBE_NAME, PARTITIONS),
                level: Level::Partitions,
            }))
        } else {
            let own = task.own_partitions(PARTITIONS)?;
            match probing.load(ExchangeReader::of_range(0, outputs, own), 0)? {
                Loaded::Table(table) => State::Table(probing.open(*table)?),
                Loaded::Parts(parts) => State::Parts(parts),
                Loaded::TooLarge(_) => {
                    return Err(EngineError::internal("a whole partition of a build cannot be divided"));
                }
            }
        };
        Ok(Box::new(PartitionedProbe { probing, state }))
    }
}

/// What stays the same for all parts of a task.
pub(super) struct Probing {
    pub join: HashJoin,
    probe_schema: SchemaRef,
    build_schema: SchemaRef,
    build: Arc<PartitionedBuild>,
    keys: Vec<CompiledExpr>,
    pub task: TaskContext,
}

struct PartitionedProbe {
    probing: Probing,
    state: State,
}

enum State {
    Table(Box<dyn Operator>),
    Parts(Box<Parts>),
    Done,
}

/// Build rows of a partition, read.
enum Loaded {
    Table(Box<JoinTable>),
    /// They did not fit.
    Parts(Box<Parts>),
    /// They did not fit, and cannot be divided further.
    TooLarge(ExchangeReader),
}

/// Build rows in parts, and the probe rows that came so far.
struct Parts {
    build: Vec<ExchangeInput>,
    /// All build rows.
    rows: u64,
    probe: ExchangeWriter,
    level: Level,
}

/// Which bits of the hash tell the parts.
#[derive(Clone, Copy)]
enum Level {
    Partitions,
    Parts { parts: usize, depth: u32 },
}

impl Level {
    fn count(self) -> usize {
        match self {
            Level::Partitions => PARTITIONS,
            Level::Parts { parts, .. } => parts,
        }
    }

    fn of(self, hash: u64) -> usize {
        match self {
            Level::Partitions => partition_of(hash, PARTITIONS),
            Level::Parts { parts, depth } => part_of(hash, parts, depth),
        }
    }

    /// How often the rows of one of the parts have been divided.
    fn depth_below(self) -> u32 {
        match self {
            Level::Partitions => 0,
            Level::Parts { depth, .. } => depth + 1,
        }
    }

    fn push(self, writer: &mut ExchangeWriter, batch: Batch, keys: &[ArrayRef]) -> Result<()> {
        let (batch, ends) = split_by(batch, keys, self.count(), |hash| self.of(hash))?;
        let mut start = 0;
        for (part, end) in ends.into_iter().enumerate() {
            if end > start {
                writer.push(part, &batch.slice(start, end - start))?;
            }
            start = end;
        }
        Ok(())
    }
}

impl Operator for PartitionedProbe {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        match &mut self.state {
            State::Table(probe) => probe.push(batch, out),
            State::Parts(parts) => self.probing.push_part(parts, batch).map(|()| Flow::Continue),
            State::Done => Err(EngineError::internal("a batch after the end")),
        }
    }

    fn finish(&mut self, out: &mut dyn Downstream) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Table(mut probe) => probe.finish(out),
            State::Parts(parts) => self.probing.join_parts(*parts, &mut Watched::new(out)),
            State::Done => Ok(()),
        }
    }
}

/// Remembers that nothing more is wanted.
pub(super) struct Watched<'a> {
    out: &'a mut dyn Downstream,
    pub done: bool,
}

impl<'a> Watched<'a> {
    pub fn new(out: &'a mut dyn Downstream) -> Self {
        Watched { out, done: false }
    }
}

impl Downstream for Watched<'_> {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        let flow = self.out.push(batch)?;
        self.done = self.done || flow == Flow::Done;
        Ok(flow)
    }
}

impl Probing {
    /// A probe of a table, to be used for all probe rows that can match in it.
    fn open(&self, table: JoinTable) -> Result<Box<dyn Operator>> {
        self.open_shared(&self.join, Arc::new(table))
    }

    /// [`Self::open`] for a join of another kind or output.
    pub fn open_shared(&self, join: &HashJoin, table: Arc<JoinTable>) -> Result<Box<dyn Operator>> {
        probe_factory(join, &self.probe_schema, &self.build_schema, table, 1)?.open(&self.task)
    }

    /// A probe of a table without rows.
    pub fn open_empty(&self) -> Result<Box<dyn Operator>> {
        self.open(self.build.shape.table(vec![], false)?)
    }

    /// The number of probe columns.
    pub fn probe_width(&self) -> usize {
        self.probe_schema.fields().len()
    }

    pub fn reserve(&self) -> Reservation {
        self.task.query.memory.reserve(NAME)
    }

    /// The table of some kept batches, if there is memory for it.
    pub fn table(
        &self,
        batches: &mut Vec<Batch>,
        held_bytes: usize,
        memory: Reservation,
    ) -> Result<Option<JoinTable>> {
        let mut memory = memory;
        let rows = batches.iter().map(|b| b.rows).sum();
        memory.shrink(0);
        if memory.resize_firm(self.build.shape.table_bytes(held_bytes, rows)).is_err() {
            return Ok(None);
        }
        let table = self.build.shape.table(std::mem::take(batches), false)?;
        Ok(Some(JoinTable::reserved(table, memory)))
    }

    /// The least that a block of the build side can be: what one batch needs.
    pub fn table_bytes(&self, held_bytes: usize, rows: usize) -> usize {
        self.build.shape.table_bytes(held_bytes, rows)
    }

    /// Reads build rows that were divided `depth` times.
    fn load(&self, mut reader: ExchangeReader, depth: u32) -> Result<Loaded> {
        let mut memory = self.reserve();
        let (mut batches, mut held, mut rows) = (vec![], HeldMemory::default(), 0);
        // Where everything spills, dividing once is enough.
        let may_divide = self.task.query.memory.policy() != SpillPolicy::Always || depth == 0;
        let mut fits = true;
        while fits && let Some(batch) = reader.next().transpose()? {
            self.task.query.check_cancelled()?;
            hold(&mut held, &batch);
            rows += batch.rows;
            batches.push(batch);
            let must_spill = memory.resize(self.table_bytes(held.bytes(), rows));
            fits = !(must_spill && (may_divide || depth >= DEPTH_MAX));
        }
        if fits && let Some(table) = self.table(&mut batches, held.bytes(), memory)? {
            return Ok(Loaded::Table(Box::new(table)));
        }
        if depth >= DEPTH_MAX {
            batches.into_iter().rev().for_each(|b| reader.put_back(b));
            return Ok(Loaded::TooLarge(reader));
        }
        let bytes = held.bytes() as u64 / rows.max(1) as u64 * (rows as u64 + reader.rows_left());
        let part_bytes = (self.task.query.memory.fair_share_bytes() as u64 / FAIR_SHARE_PART).max(1);
        let parts = (bytes / part_bytes).clamp(2, PARTS_MAX as u64).next_power_of_two() as usize;
        let level = Level::Parts { parts, depth };
        let mut writer = ExchangeWriter::new(&self.task, NAME, parts);
        batches.into_iter().rev().for_each(|b| reader.put_back(b));
        drop(held);
        let rows = reader.rows_left();
        for batch in reader {
            self.task.query.check_cancelled()?;
            let batch = batch?;
            let keys = self.build.shape.keys(&batch)?;
            level.push(&mut writer, batch, &keys)?;
            if writer.must_spill(0) {
                writer.spill(0)?;
            }
        }
        let probe = ExchangeWriter::new(&self.task, PROBE_NAME, parts);
        Ok(Loaded::Parts(Box::new(Parts { build: vec![writer.finish()?.into()], rows, probe, level })))
    }

    /// Sends probe rows to their parts.
    fn push_part(&self, parts: &mut Parts, batch: Batch) -> Result<()> {
        let keys = self.keys.iter().map(|k| k.evaluate(&batch)?.values()).collect::<Result<Vec<_>>>()?;
        parts.level.push(&mut parts.probe, batch, &keys)?;
        if parts.probe.must_spill(0) {
            parts.probe.spill(0)?;
        }
        Ok(())
    }

    /// Joins part by part.
    fn join_parts(&self, parts: Parts, out: &mut Watched<'_>) -> Result<()> {
        let probe = parts.probe.finish()?;
        for part in 0..parts.level.count() {
            if out.done {
                return Ok(());
            }
            let build = ExchangeReader::new(0, parts.build.clone(), part);
            if !self.can_give_rows(build.rows_left(), probe.rows(part)) {
                continue;
            }
            // Rows that all went to one part have one key: dividing them again is of no use.
            let alike = matches!(parts.level, Level::Parts { .. }) && build.rows_left() == parts.rows;
            let depth = if alike { DEPTH_MAX } else { parts.level.depth_below() };
            match self.load(build, depth)? {
                Loaded::Table(table) => {
                    let mut operator = self.open(*table)?;
                    push_all(operator.as_mut(), ExchangeReader::new(0, vec![probe.clone()], part), out)?;
                }
                Loaded::Parts(mut inner) => {
                    for batch in ExchangeReader::new(0, vec![probe.clone()], part) {
                        self.task.query.check_cancelled()?;
                        self.push_part(&mut inner, batch?)?;
                    }
                    self.join_parts(*inner, out)?;
                }
                Loaded::TooLarge(build) => blocks::join(self, build, &probe, part, out)?,
            }
        }
        Ok(())
    }

    /// Whether a join of so many rows can hand on anything.
    fn can_give_rows(&self, build_rows: u64, probe_rows: u64) -> bool {
        use JoinKind::*;
        let of_build = matches!(self.join.kind, BuildOuter | Full | BuildAnti) && build_rows > 0;
        let of_probe = matches!(self.join.kind, ProbeOuter | Full | ProbeAnti | ProbeMark) && probe_rows > 0;
        of_build || of_probe || build_rows > 0 && probe_rows > 0
    }
}

/// Pushes all batches through a probe, to its end.
pub(super) fn push_all(
    operator: &mut dyn Operator,
    batches: impl Iterator<Item = Result<Batch>>,
    out: &mut Watched<'_>,
) -> Result<()> {
    for batch in batches {
        // This table may have nothing more to give, though others do.
        if operator.push(batch?, out)? == Flow::Done {
            break;
        }
    }
    if out.done { Ok(()) } else { operator.finish(out) }
}
