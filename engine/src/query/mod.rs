//! One running query: the work behind a task graph's stages, and what passes between them.
//!
//! The scheduler's driver calls [`QueryRun::run`] with a task; the stage's factories are made at its
//! first task ([`stage`]), the task's pipeline is opened from them and run, and its output kept until
//! the scheduler says that nobody reads it any more.
//!
//! What always holds: a stage's factories are made after everything that the stage reads is finished,
//! so join tables, scalar subqueries' values and runtime filters are there.

mod recursive;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_planner::pipeline::{QueryGraph, Sink};
use parking_lot::Mutex;

use crate::batch::Batch;
use crate::catalog::Catalog;
use crate::error::{EngineError, Result};
use crate::exchange::ExchangeReader;
use crate::operators::join::JoinTable;
use crate::operators::sort::SortedRun;
use crate::scan::{RuntimeFilter, RuntimeFilters};
use crate::scheduler::TaskRunner;
use crate::task::{Output, QueryContext};

use stage::StageRuntime;

/// Rows of the last round of each recursive query that is being run, by its number.
pub type WorkTables = HashMap<u32, Vec<Batch>>;

/// A query that runs, has run or is about to.
pub struct QueryRun {
    graph: Arc<QueryGraph>,
    catalog: Arc<Catalog>,
    context: Arc<QueryContext>,
    work_tables: WorkTables,
    stages: Vec<StageSlot>,
    parameters: Mutex<HashMap<u32, ScalarValue>>,
    filters: Arc<PublishedFilters>,
}

#[derive(Default)]
struct StageSlot {
    runtime: Mutex<Option<Arc<StageRuntime>>>,
    outputs: Mutex<Vec<Option<Output>>>,
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
        graph: Arc<QueryGraph>,
        catalog: Arc<Catalog>,
        context: Arc<QueryContext>,
        work_tables: WorkTables,
    ) -> Self {
        let stages = graph
            .stages
            .iter()
            .map(|s| StageSlot {
                runtime: Mutex::default(),
                outputs: Mutex::new((0..s.tasks).map(|_| None).collect()),
            })
            .collect();
        QueryRun {
            graph,
            catalog,
            context,
            work_tables,
            stages,
            parameters: Mutex::default(),
            filters: Arc::default(),
        }
    }

    /// The rows that a stage's tasks kept, in task order.
    pub fn rows(&self, stage: StageId) -> Vec<Batch> {
        let outputs = self.stages[stage.0 as usize].outputs.lock();
        outputs.iter().flatten().flat_map(|o| o.partitions.iter().flatten().cloned()).collect()
    }

    /// The rows of a stage as record batches of exactly `schema`.
    pub fn record_batches(&self, stage: StageId, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        self.rows(stage).iter().map(|b| b.to_record_batch(schema)).collect()
    }

    /// One hash partition of a stage's outputs, for its one reader.
    fn partition(&self, stage: StageId, partition: usize) -> ExchangeReader {
        let outputs = self.stages[stage.0 as usize].outputs.lock();
        let outputs = outputs.iter().flatten().filter_map(|o| o.exchange.clone()).collect();
        ExchangeReader::new(u64::from(stage.0), outputs, partition)
    }

    /// The sorted runs of a stage's tasks, in task order, taken.
    fn take_runs(&self, stage: StageId) -> Vec<Arc<SortedRun>> {
        let mut outputs = self.stages[stage.0 as usize].outputs.lock();
        outputs.iter_mut().flatten().flat_map(|o| std::mem::take(&mut o.runs)).collect()
    }

    fn join_table(&self, stage: StageId) -> Result<Arc<JoinTable>> {
        let outputs = self.stages[stage.0 as usize].outputs.lock();
        let artifact = outputs.iter().flatten().find_map(|o| o.artifact.clone());
        artifact
            .and_then(|a| a.downcast::<JoinTable>().ok())
            .ok_or_else(|| EngineError::internal(format!("stage {} left no join table", stage.0)))
    }

    fn runtime(&self, stage: StageId) -> Result<Arc<StageRuntime>> {
        let mut slot = self.stages[stage.0 as usize].runtime.lock();
        if let Some(runtime) = slot.as_ref() {
            return Ok(runtime.clone());
        }
        let runtime = Arc::new(StageRuntime::new(self, &self.graph.stages[stage.0 as usize])?);
        *slot = Some(runtime.clone());
        Ok(runtime)
    }

    fn keep(&self, task: TaskId, output: Output) -> Result<()> {
        let work = &self.graph.stages[task.stage.0 as usize].work;
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
                if let Some(table) = output.artifact.clone().and_then(|a| a.downcast::<JoinTable>().ok()) {
                    self.filters.0.lock().extend(table.runtime_filters().iter().cloned());
                }
            }
            Sink::Collect | Sink::Aggregate { .. } | Sink::HashPartition { .. } | Sink::Sort(_) => {}
        }
        self.stages[task.stage.0 as usize].outputs.lock()[task.partition as usize] = Some(output);
        Ok(())
    }
}

impl TaskRunner for QueryRun {
    fn run(&self, task: TaskId) -> Result<()> {
        self.context.check_cancelled()?;
        let runtime = self.runtime(task.stage)?;
        let pipeline = runtime.open(self, task.partition)?;
        let output = pipeline.run(&self.context)?;
        self.keep(task, output)
    }

    fn release(&self, stage: StageId) {
        let slot = &self.stages[stage.0 as usize];
        slot.outputs.lock().clear();
        slot.runtime.lock().take();
    }

    fn cancel(&self) {
        self.context.cancel();
    }
}
