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

mod held;
mod inputs;
pub mod placed;
mod recursive;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_planner::physical::Scan;
use dovetail_planner::pipeline::{QueryGraph, QueryStage, Share, Sink, StageWork, split_at_join};
use parking_lot::{Mutex, RwLock};

use crate::batch::Batch;
use crate::catalog::{Catalog, MemoryTables};
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeInput, KeptInput, KeptRows, ResultFlow};
use crate::operators::join::{BuildSide, PARTITIONS};
use crate::operators::sort::SortedRun;
use crate::scan::{Experience, RuntimeFilter, RuntimeFilters};
use crate::scheduler::TaskRunner;
use crate::scheduler::events::{StageShape, StageSplit};
use crate::task::{Output, QueryContext, TaskContext};

use inputs::StageInputs;
use stage::{BuildInputs, StageRuntime};

/// Rows of the last round of each recursive query that is being run, by its number.
pub type WorkTables = HashMap<u32, Vec<Batch>>;

/// A query that runs, has run or is about to.
pub struct QueryRun {
    catalog: Arc<Catalog>,
    context: Arc<QueryContext>,
    memory_tables: Arc<dyn MemoryTables>,
    work_tables: WorkTables,
    /// By number; those of splits come behind the graph's.
    stages: RwLock<Vec<Arc<StageSlot>>>,
    parameters: Mutex<HashMap<u32, ScalarValue>>,
    filters: Arc<PublishedFilters>,
    /// The stage whose rows are read while the query runs.
    result: Option<(StageId, Arc<ResultFlow>)>,
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
        let memory_tables = catalog.clone();
        Self::with_tables(graph, catalog, memory_tables, context, work_tables)
    }

    /// [`Self::new`] with tables in memory from elsewhere.
    fn with_tables(
        graph: &QueryGraph,
        catalog: Arc<Catalog>,
        memory_tables: Arc<dyn MemoryTables>,
        context: Arc<QueryContext>,
        work_tables: WorkTables,
    ) -> Self {
        context.tasks.fetch_add(graph.task_count(), Ordering::Relaxed);
        QueryRun {
            catalog,
            memory_tables,
            context,
            work_tables,
            stages: RwLock::new(graph.stages.iter().cloned().map(StageSlot::new).collect()),
            parameters: Mutex::default(),
            filters: Arc::default(),
            result: None,
        }
    }

    /// Has the rows of the last stage go to their reader while the query runs, instead of being kept.
    pub fn with_result(self, stage: StageId, flow: Arc<ResultFlow>) -> Self {
        QueryRun { result: Some((stage, flow)), ..self }
    }

    fn slot(&self, stage: StageId) -> Arc<StageSlot> {
        self.stages.read()[stage.0 as usize].clone()
    }

    /// The rows that a stage's tasks kept, in task order.
    pub fn kept_rows(&self, stage: StageId) -> Vec<Arc<KeptRows>> {
        self.slot(stage).outputs.lock().iter().flatten().filter_map(|o| o.kept.clone()).collect()
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
                self.parameters.lock().insert(*parameter, scalar_value(work, &output)?);
            }
            Sink::JoinBuild { .. } => {
                let side = output.artifact.clone().and_then(|a| a.downcast::<BuildSide>().ok());
                if let Some(side) = side {
                    self.filters.0.lock().extend(side.runtime_filters().iter().cloned());
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

impl StageInputs for QueryRun {
    fn context(&self) -> &Arc<QueryContext> {
        &self.context
    }

    fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn work_tables(&self) -> &WorkTables {
        &self.work_tables
    }

    fn parameters(&self) -> HashMap<u32, ScalarValue> {
        self.parameters.lock().clone()
    }

    fn filters(&self) -> Arc<dyn RuntimeFilters> {
        self.filters.clone()
    }

    fn experience(&self, scan: &Scan, _: u32) -> Arc<Experience> {
        // The stage is opened once.
        Arc::new(Experience::of(scan))
    }

    fn memory_tables(&self) -> Arc<dyn MemoryTables> {
        self.memory_tables.clone()
    }

    fn is_isolated(&self) -> bool {
        false
    }

    fn result_flow(&self, stage: StageId) -> Option<Arc<ResultFlow>> {
        self.result.as_ref().filter(|(result, _)| *result == stage).map(|(_, flow)| flow.clone())
    }

    fn kept(&self, stage: StageId) -> Result<Vec<KeptInput>> {
        Ok(self.kept_rows(stage).into_iter().map(KeptInput::Own).collect())
    }

    fn exchanged(&self, stage: StageId, share: Option<Share>) -> Result<Vec<ExchangeInput>> {
        if share.is_some() {
            return Err(EngineError::internal("outputs that are taken by their reader have one each"));
        }
        let slot = self.slot(stage);
        let outputs = slot.outputs.lock();
        Ok(outputs.iter().flatten().filter_map(|o| Some(o.exchange.clone()?.into())).collect())
    }

    fn exchanged_by_task(&self, _: StageId) -> Result<Vec<ExchangeInput>> {
        Err(EngineError::internal("outputs that are taken by their reader are read together"))
    }

    fn runs(&self, stage: StageId, _: &TaskContext) -> Result<Vec<Arc<SortedRun>>> {
        let slot = self.slot(stage);
        let mut outputs = slot.outputs.lock();
        Ok(outputs.iter_mut().flatten().flat_map(|o| std::mem::take(&mut o.runs)).collect())
    }

    fn sink_schema(&self, stage: StageId) -> SchemaRef {
        self.slot(stage).work().sink_schema.clone()
    }

    fn build_side(&self, stage: StageId) -> Result<Arc<BuildSide>> {
        let side = self.slot(stage).artifact();
        side.ok_or_else(|| EngineError::internal(format!("stage {} left no join table", stage.0)))
    }

    fn build_rows(&self, stage: StageId) -> Result<BuildInputs> {
        let slot = self.slot(stage);
        let outputs = slot.outputs.lock();
        let rows = outputs.iter().flatten().map(|o| o.artifact.clone()?.downcast().ok());
        let rows: Option<Vec<_>> = rows.collect();
        let rows =
            rows.ok_or_else(|| EngineError::internal(format!("stage {} left no build rows", stage.0)))?;
        Ok(BuildInputs::Own(rows))
    }
}

/// The value of a scalar subquery.
fn scalar_value(work: &StageWork, output: &Output) -> Result<ScalarValue> {
    let logical = work.sink_schema.field(0).data_type();
    let row = output.partitions.iter().flatten().find(|b| b.rows > 0);
    Ok(match row {
        Some(batch) => ScalarValue::try_from_array(&batch.columns[0].to_logical(logical)?, 0)?,
        None => ScalarValue::try_from(logical)?,
    })
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
            let split =
                split_at_join(&stages[number].stage, task.stage, front, PARTITIONS as u32, PARTITIONS as u32);
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
