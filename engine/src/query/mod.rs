//! One running query: the work behind a task graph's stages, and what passes between them.
//!
//! The scheduler's driver calls [`QueryRun::run`] with a task; the stage's factories are made at its
//! first task ([`stage`]), the task's pipeline is opened from them and run, and its output kept until
//! the scheduler says that nobody reads it any more.
//!
//! The graph changes while it runs: where a join's build side did not fit in memory, the stage that probes it
//! is split, which is planned here ([`QueryRun::splits`]) and told to the scheduler.
//!
//! What always holds: a stage's factories are made after everything that the stage reads is finished,
//! so join tables, scalar subqueries' values and runtime filters are there.

mod recursive;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion_common::ScalarValue;
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_planner::pipeline::{QueryGraph, QueryStage, Sink, StageWork, split_at_join};
use parking_lot::{Mutex, RwLock};

use crate::batch::Batch;
use crate::catalog::Catalog;
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeReader, KeptReader, KeptRows};
use crate::memory::{HeldBatches, Reservation};
use crate::operators::join::{BuildRows, BuildSide, PARTITIONS};
use crate::operators::sort::SortedRun;
use crate::scan::{RuntimeFilter, RuntimeFilters};
use crate::scheduler::TaskRunner;
use crate::scheduler::events::{StageShape, StageSplit};
use crate::task::{Output, QueryContext};

use stage::StageRuntime;

/// Rows of the last round of each recursive query that is being run, by its number.
pub type WorkTables = HashMap<u32, Vec<Batch>>;

/// A query that runs, has run or is about to.
pub struct QueryRun {
    catalog: Arc<Catalog>,
    context: Arc<QueryContext>,
    work_tables: WorkTables,
    /// By number; those of splits come behind the graph's.
    stages: RwLock<Vec<Arc<StageSlot>>>,
    parameters: Mutex<HashMap<u32, ScalarValue>>,
    filters: Arc<PublishedFilters>,
}

struct StageSlot {
    stage: QueryStage,
    runtime: Mutex<Option<Arc<StageRuntime>>>,
    outputs: Mutex<Vec<Option<Output>>>,
}

impl StageSlot {
    fn new(stage: QueryStage) -> Arc<Self> {
        let outputs = Mutex::new((0..stage.tasks).map(|_| None).collect());
        Arc::new(StageSlot { stage, runtime: Mutex::default(), outputs })
    }

    fn work(&self) -> &StageWork {
        &self.stage.work
    }

    /// The first task's artifact, if it is a `T`.
    fn artifact<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let outputs = self.outputs.lock();
        let artifact = outputs.iter().flatten().find_map(|o| o.artifact.clone());
        artifact.and_then(|a| a.downcast().ok())
    }
}

/// Runtime filters of the joins whose builds have finished.
#[derive(Default)]
struct PublishedFilters(Mutex<HashMap<u32, Arc<RuntimeFilter>>>);

impl RuntimeFilters for PublishedFilters {
    fn get(&self, id: u32) -> Option<Arc<RuntimeFilter>> {
        self.0.lock().get(&id).cloned()
    }
}

impl QueryRun {
    /// A query to be run; nothing starts before a scheduler calls.
    pub fn new(
        graph: &QueryGraph,
        catalog: Arc<Catalog>,
        context: Arc<QueryContext>,
        work_tables: WorkTables,
    ) -> Self {
        context.tasks.fetch_add(graph.task_count(), Ordering::Relaxed);
        QueryRun {
            catalog,
            context,
            work_tables,
            stages: RwLock::new(graph.stages.iter().cloned().map(StageSlot::new).collect()),
            parameters: Mutex::default(),
            filters: Arc::default(),
        }
    }

    fn slot(&self, stage: StageId) -> Arc<StageSlot> {
        self.stages.read()[stage.0 as usize].clone()
    }

    /// The rows that a stage's tasks kept, in task order.
    pub fn kept(&self, stage: StageId) -> Vec<Arc<KeptRows>> {
        self.slot(stage).outputs.lock().iter().flatten().filter_map(|o| o.kept.clone()).collect()
    }

    /// All rows that a stage's tasks kept, in memory, which `operator` holds as long as the reservation lives.
    fn rows_in_memory(
        &self,
        stage: StageId,
        operator: &'static str,
        takes: bool,
    ) -> Result<(Vec<Batch>, Reservation)> {
        let mut held = HeldBatches::of_query(&self.context, operator);
        let reader = if takes { KeptReader::taking } else { KeptReader::sharing };
        let mut batches = vec![];
        for batch in reader(self.kept(stage)) {
            let batch = batch?;
            held.add(&batch)?;
            batches.push(batch);
        }
        let bytes = held.bytes();
        Ok((batches, held.become_bytes(bytes)?))
    }

    /// One hash partition of a stage's outputs, for its one reader.
    fn partition(&self, stage: StageId, partition: usize) -> ExchangeReader {
        let slot = self.slot(stage);
        let outputs = slot.outputs.lock();
        let outputs = outputs.iter().flatten().filter_map(|o| o.exchange.clone()).collect();
        ExchangeReader::new(u64::from(stage.0), outputs, partition)
    }

    /// The hash partitions of a stage's outputs that belong to task `task` of `tasks` readers: the next ones to
    /// each, equally many.
    fn partitions_of(&self, stage: StageId, task: usize, tasks: usize) -> Vec<ExchangeReader> {
        let slot = self.slot(stage);
        let outputs: Vec<_> =
            slot.outputs.lock().iter().flatten().filter_map(|o| o.exchange.clone()).collect();
        let each = outputs.first().map_or(0, |o| o.partitions()) / tasks;
        let reader = |p| ExchangeReader::new(u64::from(stage.0), outputs.clone(), p);
        (task * each..(task + 1) * each).map(reader).collect()
    }

    /// The sorted runs of a stage's tasks, in task order, taken.
    fn take_runs(&self, stage: StageId) -> Vec<Arc<SortedRun>> {
        let slot = self.slot(stage);
        let mut outputs = slot.outputs.lock();
        outputs.iter_mut().flatten().flat_map(|o| std::mem::take(&mut o.runs)).collect()
    }

    fn build_side(&self, stage: StageId) -> Result<Arc<BuildSide>> {
        let side = self.slot(stage).artifact();
        side.ok_or_else(|| EngineError::internal(format!("stage {} left no join table", stage.0)))
    }

    /// The build rows of a stage's tasks.
    fn build_rows(&self, stage: StageId) -> Result<Vec<Arc<BuildRows>>> {
        let slot = self.slot(stage);
        let outputs = slot.outputs.lock();
        let rows = outputs.iter().flatten().map(|o| o.artifact.clone()?.downcast().ok());
        let rows: Option<Vec<_>> = rows.collect();
        rows.ok_or_else(|| EngineError::internal(format!("stage {} left no build rows", stage.0)))
    }

    fn runtime(&self, slot: &StageSlot) -> Result<Arc<StageRuntime>> {
        let mut runtime = slot.runtime.lock();
        if let Some(runtime) = runtime.as_ref() {
            return Ok(runtime.clone());
        }
        Ok(runtime.insert(Arc::new(StageRuntime::new(self, &slot.stage)?)).clone())
    }

    fn keep(&self, task: TaskId, output: Output) -> Result<()> {
        let slot = self.slot(task.stage);
        let work = slot.work();
        match &work.sink {
            Sink::Scalar { parameter } => {
                let logical = work.sink_schema.field(0).data_type();
                let row = output.partitions.iter().flatten().find(|b| b.rows > 0);
                let value = match row {
                    Some(batch) => ScalarValue::try_from_array(&batch.columns[0].to_logical(logical)?, 0)?,
                    None => ScalarValue::try_from(logical)?,
                };
                self.parameters.lock().insert(*parameter, value);
            }
            Sink::JoinBuild { .. } => {
                let side = output.artifact.clone().and_then(|a| a.downcast::<BuildSide>().ok());
                if let Some(BuildSide::Table(table)) = side.as_deref() {
                    self.filters.0.lock().extend(table.runtime_filters().iter().cloned());
                }
            }
            Sink::Collect
            | Sink::Aggregate { .. }
            | Sink::HashPartition { .. }
            | Sink::BuildRows { .. }
            | Sink::Sort(_) => {}
        }
        slot.outputs.lock()[task.partition as usize] = Some(output);
        Ok(())
    }
}

fn shape(stage: &QueryStage) -> StageShape {
    StageShape {
        tasks: stage.tasks,
        inputs: stage.inputs.clone(),
        place: stage.place,
        replayable: stage.replayable,
    }
}

impl TaskRunner for QueryRun {
    fn run(&self, task: TaskId) -> Result<()> {
        self.context.check_cancelled()?;
        let runtime = self.runtime(&self.slot(task.stage))?;
        let pipeline = runtime.open(self, task.partition)?;
        let output = pipeline.run(&self.context)?;
        self.context.tasks_done.fetch_add(1, Ordering::Relaxed);
        self.keep(task, output)
    }

    fn splits(&self, task: TaskId) -> Result<Vec<StageSplit>> {
        let slot = self.slot(task.stage);
        let is_build = matches!(slot.work().sink, Sink::JoinBuild { .. });
        if !is_build || !matches!(slot.artifact().as_deref(), Some(BuildSide::Partitioned(_))) {
            return Ok(vec![]);
        }
        let mut stages = self.stages.write();
        let mut splits = vec![];
        for number in 0..stages.len() {
            let front = StageId(stages.len() as u32);
            let split = split_at_join(&stages[number].stage, task.stage, front, PARTITIONS as u32);
            let Some(split) = split else { continue };
            let more = split.front.tasks + split.rest.tasks - stages[number].stage.tasks;
            self.context.tasks.fetch_add(more.into(), Ordering::Relaxed);
            splits.push(StageSplit {
                stage: split.rest.id,
                front: shape(&split.front),
                rest: shape(&split.rest),
            });
            stages[number] = StageSlot::new(split.rest);
            stages.push(StageSlot::new(split.front));
        }
        Ok(splits)
    }

    fn release(&self, stage: StageId) {
        let slot = self.slot(stage);
        slot.outputs.lock().clear();
        slot.runtime.lock().take();
    }

    fn cancel(&self) {
        self.context.cancel();
    }
}
