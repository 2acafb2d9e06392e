//! A query of which this process runs some tasks, and others the rest.
//!
//! The scheduler says where outputs are ([`PlacedRun::place`]) before it asks for a task that reads them. An
//! attempt's output stays here, whoever reads it, until it is released or discarded; what is elsewhere is
//! fetched. Values that are small (of scalar subqueries, filters of join builds) come with the places.
//!
//! What always holds: attempts share nothing but what never changes (join tables, values, filters) and what
//! changes no answer (experience of scans), so that a failed one leaves no trace; every attempt reads the outputs that were placed when it started.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Literal;
use dovetail_planner::graph::StageId;
use dovetail_planner::physical::{HashJoin, Scan};
use dovetail_planner::pipeline::{QueryGraph, QueryStage, Share, Sink};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::held::LocalOutput;
use super::inputs::StageInputs;
use super::stage::{BuildInputs, StageRuntime};
use super::{PublishedFilters, WorkTables, scalar_value};
use crate::catalog::{Catalog, MemoryTables};
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeInput, Fetcher, HeldOutput, KeptInput, RemoteOutputs, ResultFlow, RowsReader};
use crate::operators::join::{BuildSide, held_build_side, held_build_side_again};
use crate::operators::sort::SortedRun;
use crate::scan::{Experience, RuntimeFilter, RuntimeFilters};
use crate::scheduler::events::OutputId;
use crate::task::{OperatorCounts, QueryContext, TaskContext};

/// Larger filters, and more of one build, are not sent around: scans do without them.
const FILTER_BYTES_MAX: usize = 8 << 20;
const FILTERS_MAX: usize = 4;

/// A query on one of several processes.
pub struct PlacedRun {
    surroundings: Surroundings,
    stages: RwLock<Vec<Arc<Slot>>>,
    made: Mutex<HashMap<OutputId, Arc<LocalOutput>>>,
    running: Mutex<HashMap<OutputId, Arc<QueryContext>>>,
    parameters: Mutex<HashMap<u32, ScalarValue>>,
    filters: Arc<PublishedFilters>,
    /// Of scans, by operator: each attempt opens its stage anew.
    experience: Mutex<HashMap<u32, Arc<Experience>>>,
}

/// What a query is run with.
pub struct Surroundings {
    /// The scheduler's number of the query.
    pub query: u64,
    pub catalog: Arc<Catalog>,
    pub memory_tables: Arc<dyn MemoryTables>,
    pub context: Arc<QueryContext>,
    pub fetcher: Arc<dyn Fetcher>,
}

struct Slot {
    stage: QueryStage,
    /// By task.
    placed: Mutex<Vec<Option<Placement>>>,
    /// Of a join's build stage: made by its task, or by the first task here that probes it. Locked for a moment
    /// only, because the control stream waits for it.
    side: Mutex<MadeSide>,
    /// Held by whoever makes it.
    making: Mutex<()>,
}

#[derive(Default)]
struct MadeSide {
    made: Option<Arc<BuildSide>>,
    /// Changes with what it was made of: what was begun before is not kept.
    version: u64,
}

impl MadeSide {
    fn forget(&mut self) {
        self.made = None;
        self.version += 1;
    }
}

/// Where an output is, and what its maker has reported of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub output: OutputId,
    /// The address of the process; none is this one.
    pub place: Option<String>,
    pub report: Arc<Report>,
}

/// What a finished attempt reports of its output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By partition.
    pub rows: Vec<u64>,
    pub bytes: u64,
    /// The build side of a join stays in partitions; the stages that probe it must be split.
    pub is_partitioned: bool,
    pub value: Value,
}

/// What later stages need of a stage besides rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    #[default]
    Nothing,
    /// Of a scalar subquery.
    Parameter(u32, Literal),
    /// Runtime filters of a join build, by number, as [`RuntimeFilter::encode`] makes them.
    Filters(Vec<(u32, Vec<u8>)>),
}

/// What a process has of a query.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Stages that it knows of, those of splits included.
    pub stages: usize,
    pub running: Vec<OutputId>,
    pub outputs: Vec<(OutputId, Report)>,
}

impl Slot {
    fn new(stage: QueryStage) -> Arc<Slot> {
        let placed = Mutex::new(vec![None; stage.tasks as usize]);
        Arc::new(Slot { stage, placed, side: Mutex::default(), making: Mutex::default() })
    }
}

impl PlacedRun {
    /// A query of which nothing has run.
    pub fn new(graph: QueryGraph, surroundings: Surroundings) -> Self {
        PlacedRun {
            surroundings,
            stages: RwLock::new(graph.stages.into_iter().map(Slot::new).collect()),
            made: Mutex::default(),
            running: Mutex::default(),
            parameters: Mutex::default(),
            filters: Arc::default(),
            experience: Mutex::default(),
        }
    }

    /// Stages that have changed before any of their tasks has started, and new ones. What is known already changes
    /// nothing.
    pub fn change(&self, changed: Vec<QueryStage>) -> Result<()> {
        let mut stages = self.stages.write();
        for stage in changed {
            let number = stage.id.0 as usize;
            match number.cmp(&stages.len()) {
                std::cmp::Ordering::Less if stages[number].stage == stage => {}
                std::cmp::Ordering::Less => stages[number] = Slot::new(stage),
                std::cmp::Ordering::Equal => stages.push(Slot::new(stage)),
                std::cmp::Ordering::Greater => {
                    return Err(EngineError::internal(format!("stage {number} comes out of turn")));
                }
            }
        }
        Ok(())
    }

    /// Says where a task's output is. One that was placed before is gone.
    pub fn place(&self, placement: Placement) -> Result<()> {
        match &placement.report.value {
            Value::Nothing => {}
            Value::Parameter(id, value) => {
                self.parameters.lock().insert(*id, value.0.clone());
            }
            Value::Filters(filters) => {
                let mut published = self.filters.0.lock();
                for (id, bytes) in filters {
                    let filter = RuntimeFilter::decode(bytes)
                        .ok_or_else(|| EngineError::internal("a runtime filter came damaged"))?;
                    published.insert(*id, Arc::new(filter));
                }
            }
        }
        let (stage, task) = (placement.output.task.stage, placement.output.task.partition as usize);
        let is_partitioned = placement.report.is_partitioned;
        let (output, place) = (placement.output, placement.place.clone());
        let slot = self.slot(stage)?;
        let before = match slot.placed.lock().get_mut(task) {
            Some(known) => known.replace(placement),
            None => return Err(EngineError::internal(format!("there is no task {task} to be placed"))),
        };
        if before.is_some_and(|before| before.output != output || before.place != place) {
            self.forget_partitions_of(stage);
        }
        // A build that ran again, or was made in advance, may have come to another end than was decided first.
        let mut side = slot.side.lock();
        if side.made.as_ref().is_some_and(|made| made.is_partitioned() != is_partitioned) {
            side.forget();
        }
        Ok(())
    }

    /// Build sides that are to be read where they were made, and are somewhere else now.
    fn forget_partitions_of(&self, stage: StageId) {
        for slot in self.stages.read().iter() {
            if matches!(&slot.stage.work.sink, Sink::JoinBuild { rows, .. } if *rows == stage) {
                let mut side = slot.side.lock();
                // A table has its rows.
                if side.made.as_ref().is_none_or(|made| made.is_partitioned()) {
                    side.forget();
                }
            }
        }
    }

    /// Runs one attempt of a task to its end. Its output stays here.
    pub fn run(&self, output: OutputId) -> Result<(Report, Vec<OperatorCounts>)> {
        let context = Arc::new(self.surroundings.context.attempt());
        self.running.lock().insert(output, context.clone());
        let _ended = Ended { run: self, output };
        context.check_cancelled()?;
        let slot = self.slot(output.task.stage)?;
        let attempt = Attempt { run: self, context: context.clone() };
        let runtime = StageRuntime::new(&attempt, &slot.stage)?;
        let pipeline = runtime.open(&attempt, output.task.partition)?;
        let made = pipeline.run(&context)?;
        let made = Arc::new(LocalOutput::new(output, &slot.stage.work, made)?);
        let report = self.report(&slot, &made)?;
        if let Some(side) = made.build_side() {
            slot.side.lock().made = Some(side);
        }
        self.made.lock().insert(output, made);
        Ok((report, context.metrics.counts()))
    }

    fn report(&self, slot: &Slot, made: &LocalOutput) -> Result<Report> {
        let mut report =
            Report { rows: made.rows_by_partition().to_vec(), bytes: made.bytes(), ..Report::default() };
        match &slot.stage.work.sink {
            Sink::Scalar { parameter } => {
                let value = scalar_value(&slot.stage.work, made.output())?;
                report.value = Value::Parameter(*parameter, Literal(value));
            }
            Sink::JoinBuild { .. } => {
                let side =
                    made.build_side().ok_or_else(|| EngineError::internal("a build has left nothing"))?;
                report.is_partitioned = side.is_partitioned();
                let filters = side.runtime_filters().iter().map(|(id, f)| (*id, f.encode()));
                let small = filters.filter(|(_, bytes)| bytes.len() <= FILTER_BYTES_MAX);
                report.value = Value::Filters(small.take(FILTERS_MAX).collect());
            }
            Sink::Collect
            | Sink::Aggregate { .. }
            | Sink::HashPartition { .. }
            | Sink::BuildRows { .. }
            | Sink::Sort(_) => {}
        }
        Ok(report)
    }

    /// Makes a join's build side before a task here needs it: while its own task makes it elsewhere and this
    /// process has nothing else to do. It may be made in vain.
    pub fn warm(&self, stage: StageId) -> Result<()> {
        let slot = self.slot(stage)?;
        let context = Arc::new(self.surroundings.context.attempt());
        let side = self.make_side(
            &slot,
            |_| true,
            |join, schema, rows| held_build_side(join, schema, rows, &TaskContext::new(0, 1, context)),
        );
        side.map(drop)
    }

    /// The build side of a join, if there is one that is meant, or made now.
    fn make_side(
        &self,
        slot: &Slot,
        is_meant: impl Fn(&Arc<BuildSide>) -> bool,
        make: impl FnOnce(&HashJoin, &SchemaRef, Vec<Arc<dyn HeldOutput>>) -> Result<BuildSide>,
    ) -> Result<Arc<BuildSide>> {
        let Sink::JoinBuild { join, rows } = &slot.stage.work.sink else {
            return Err(EngineError::internal(format!("stage {} builds no join table", slot.stage.id.0)));
        };
        let _one_at_a_time = slot.making.lock();
        let version = {
            let side = slot.side.lock();
            if let Some(made) = side.made.as_ref().filter(|made| is_meant(made)) {
                return Ok(made.clone());
            }
            side.version
        };
        let made = Arc::new(make(join, &slot.stage.work.sink_schema, self.by_place(*rows, |_| true)?)?);
        let mut side = slot.side.lock();
        if side.version == version {
            side.made = Some(made.clone());
        }
        Ok(made)
    }

    /// Asks one attempt to stop at its next batch.
    pub fn cancel_attempt(&self, output: OutputId) {
        if let Some(context) = self.running.lock().get(&output) {
            context.cancel();
        }
    }

    /// Asks all attempts that run now to stop.
    pub fn stop_attempts(&self) {
        self.running.lock().values().for_each(|context| context.cancel());
    }

    /// Asks everything to stop.
    pub fn cancel(&self) {
        self.surroundings.context.cancel();
    }

    /// Drops what one attempt has left.
    pub fn discard(&self, output: OutputId) {
        self.made.lock().remove(&output);
    }

    /// Drops a stage's outputs.
    pub fn release(&self, stage: StageId) {
        self.made.lock().retain(|output, _| output.task.stage != stage);
        if let Ok(slot) = self.slot(stage) {
            slot.placed.lock().fill(None);
            slot.side.lock().forget();
        }
    }

    /// What runs and what is left here, for a scheduler that has to learn it anew. An attempt that ends meanwhile
    /// may be in both lists.
    pub fn inventory(&self) -> Result<Inventory> {
        let running = self.running.lock().keys().copied().collect();
        let made: Vec<(OutputId, Arc<LocalOutput>)> =
            self.made.lock().iter().map(|(output, made)| (*output, made.clone())).collect();
        let report = |(output, made): (OutputId, Arc<LocalOutput>)| {
            let slot = self.slot(output.task.stage)?;
            Ok((output, self.report(&slot, &made)?))
        };
        let stages = self.stages.read().len();
        Ok(Inventory { stages, running, outputs: made.into_iter().map(report).collect::<Result<_>>()? })
    }

    /// The rows of an output that is here.
    pub fn read(&self, output: OutputId, partitions: Option<Range<usize>>) -> Result<RowsReader> {
        let made = self.made(output)?;
        let all = 0..made.partitions();
        let partitions = partitions.unwrap_or(all.clone());
        if partitions.start > partitions.end || partitions.end > all.end {
            return Err(EngineError::internal(format!(
                "an output of {} partitions has no {partitions:?}",
                all.end
            )));
        }
        made.read(partitions)
    }

    fn made(&self, output: OutputId) -> Result<Arc<LocalOutput>> {
        let made = self.made.lock().get(&output).cloned();
        made.ok_or_else(|| EngineError::Lost {
            outputs: vec![output],
            message: format!(
                "the output of task {} of stage {} is gone",
                output.task.partition, output.task.stage.0
            ),
        })
    }

    fn slot(&self, stage: StageId) -> Result<Arc<Slot>> {
        let slot = self.stages.read().get(stage.0 as usize).cloned();
        slot.ok_or_else(|| EngineError::internal(format!("there is no stage {}", stage.0)))
    }

    /// Where the outputs of all of a stage's tasks are.
    fn placements(&self, stage: StageId) -> Result<Vec<Placement>> {
        let slot = self.slot(stage)?;
        let placed = slot.placed.lock();
        let all: Option<Vec<Placement>> = placed.iter().cloned().collect();
        all.ok_or_else(|| EngineError::internal(format!("an output of stage {} has no place", stage.0)))
    }

    fn remote(&self, stage: StageId, place: &str, partitions: usize) -> RemoteOutputs {
        let Surroundings { fetcher, query, .. } = &self.surroundings;
        RemoteOutputs::new(fetcher.clone(), place.to_string(), *query, stage, partitions)
    }

    /// The outputs of a stage, each by itself, in the order of the tasks.
    fn each(&self, stage: StageId) -> Result<Vec<Arc<dyn HeldOutput>>> {
        let mut held: Vec<Arc<dyn HeldOutput>> = vec![];
        for Placement { output, place, report } in self.placements(stage)? {
            match place {
                None => held.push(self.made(output)?),
                Some(place) => {
                    let mut remote = self.remote(stage, &place, report.rows.len());
                    remote.add(output, &report.rows, report.bytes)?;
                    held.push(Arc::new(remote));
                }
            }
        }
        Ok(held)
    }

    /// The outputs of those tasks of a stage that are wanted, those of another process together.
    fn by_place(&self, stage: StageId, is_wanted: impl Fn(u32) -> bool) -> Result<Vec<Arc<dyn HeldOutput>>> {
        let mut held: Vec<Arc<dyn HeldOutput>> = vec![];
        let mut elsewhere: BTreeMap<String, RemoteOutputs> = BTreeMap::new();
        let placements = self.placements(stage)?.into_iter();
        for Placement { output, place, report } in placements.filter(|p| is_wanted(p.output.task.partition)) {
            match place {
                None => held.push(self.made(output)?),
                Some(place) => {
                    let remote = || self.remote(stage, &place, report.rows.len());
                    let remote = elsewhere.entry(place.clone()).or_insert_with(remote);
                    remote.add(output, &report.rows, report.bytes)?;
                }
            }
        }
        held.extend(elsewhere.into_values().map(|remote| Arc::new(remote) as Arc<dyn HeldOutput>));
        Ok(held)
    }
}

/// Forgets a running attempt.
struct Ended<'a> {
    run: &'a PlacedRun,
    output: OutputId,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.run.running.lock().remove(&self.output);
    }
}

/// One attempt's view of the query.
struct Attempt<'a> {
    run: &'a PlacedRun,
    context: Arc<QueryContext>,
}

impl StageInputs for Attempt<'_> {
    fn context(&self) -> &Arc<QueryContext> {
        &self.context
    }

    fn catalog(&self) -> &Arc<Catalog> {
        &self.run.surroundings.catalog
    }

    fn work_tables(&self) -> &WorkTables {
        static NONE: std::sync::LazyLock<WorkTables> = std::sync::LazyLock::new(WorkTables::default);
        &NONE
    }

    fn parameters(&self) -> HashMap<u32, ScalarValue> {
        self.run.parameters.lock().clone()
    }

    fn filters(&self) -> Arc<dyn RuntimeFilters> {
        self.run.filters.clone()
    }

    fn experience(&self, scan: &Scan, operator: u32) -> Arc<Experience> {
        let mut all = self.run.experience.lock();
        all.entry(operator).or_insert_with(|| Arc::new(Experience::of(scan))).clone()
    }

    fn memory_tables(&self) -> Arc<dyn MemoryTables> {
        self.run.surroundings.memory_tables.clone()
    }

    fn is_isolated(&self) -> bool {
        true
    }

    fn result_flow(&self, _: StageId) -> Option<Arc<ResultFlow>> {
        // An attempt that fails must leave no trace.
        None
    }

    fn kept(&self, stage: StageId) -> Result<Vec<KeptInput>> {
        Ok(self.run.each(stage)?.into_iter().map(KeptInput::Held).collect())
    }

    fn exchanged(&self, stage: StageId, share: Option<Share>) -> Result<Vec<ExchangeInput>> {
        let is_read = |task| share.is_none_or(|share| share.has_output(task));
        Ok(self.run.by_place(stage, is_read)?.into_iter().map(ExchangeInput::Held).collect())
    }

    fn exchanged_by_task(&self, stage: StageId) -> Result<Vec<ExchangeInput>> {
        Ok(self.run.each(stage)?.into_iter().map(ExchangeInput::Held).collect())
    }

    fn runs(&self, stage: StageId, task: &TaskContext) -> Result<Vec<Arc<SortedRun>>> {
        let mut runs = vec![];
        for output in self.run.each(stage)? {
            for run in 0..output.partitions() {
                runs.extend(SortedRun::import(output.read(run..run + 1)?, task)?);
            }
        }
        Ok(runs)
    }

    fn sink_schema(&self, stage: StageId) -> SchemaRef {
        let slot = self.run.slot(stage).ok();
        slot.map_or_else(|| Arc::new(arrow::datatypes::Schema::empty()), |s| s.stage.work.sink_schema.clone())
    }

    fn build_side(&self, stage: StageId) -> Result<Arc<BuildSide>> {
        let slot = self.run.slot(stage)?;
        let is_partitioned = self.run.placements(stage)?.iter().any(|p| p.report.is_partitioned);
        let is_meant = |side: &Arc<BuildSide>| side.is_partitioned() == is_partitioned;
        self.run.make_side(&slot, is_meant, |join, schema, rows| {
            let task = TaskContext::new(0, 1, self.context.clone());
            held_build_side_again(join, schema, rows, is_partitioned, &task)
        })
    }

    fn build_rows(&self, stage: StageId) -> Result<BuildInputs> {
        Ok(BuildInputs::Held(self.run.by_place(stage, |_| true)?))
    }
}
