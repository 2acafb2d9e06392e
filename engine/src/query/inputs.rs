//! What a stage is opened with: what its work reads, and what surrounds it.
//!
//! Two kinds of runs hand it out. [`QueryRun`](super::QueryRun) has all outputs in this process, each taken by
//! its one reader, and the tasks of a stage share a queue. [`PlacedRun`](super::placed::PlacedRun) has outputs
//! that may be elsewhere and are read as often as need be, and its tasks share nothing.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_common::ScalarValue;
use dovetail_planner::graph::StageId;
use dovetail_planner::physical::Scan;
use dovetail_planner::pipeline::Share;

use super::WorkTables;
use super::stage::BuildInputs;
use crate::batch::Batch;
use crate::catalog::{Catalog, MemoryTables};
use crate::error::Result;
use crate::exchange::{ExchangeInput, KeptInput, KeptReader, ResultFlow};
use crate::memory::{HeldBatches, Reservation};
use crate::operators::join::BuildSide;
use crate::operators::sort::SortedRun;
use crate::scan::{Experience, RuntimeFilters};
use crate::task::{QueryContext, TaskContext};

/// What a stage reads. Everything that it depends on has finished.
pub trait StageInputs {
    fn context(&self) -> &Arc<QueryContext>;
    fn catalog(&self) -> &Arc<Catalog>;
    fn work_tables(&self) -> &WorkTables;
    /// Values of the scalar subqueries that have run.
    fn parameters(&self) -> HashMap<u32, ScalarValue>;
    fn filters(&self) -> Arc<dyn RuntimeFilters>;
    fn memory_tables(&self) -> Arc<dyn MemoryTables>;

    /// What was learnt of a scan, which its operator's number names, before this opening of its stage.
    fn experience(&self, scan: &Scan, operator: u32) -> Arc<Experience>;

    /// The tasks of a stage share nothing: each has splits of its own.
    fn is_isolated(&self) -> bool;

    /// Where the rows of a stage go that are the query's result and are read while it runs.
    fn result_flow(&self, stage: StageId) -> Option<Arc<ResultFlow>>;

    /// The rows that a stage's tasks kept, in task order.
    fn kept(&self, stage: StageId) -> Result<Vec<KeptInput>>;

    /// The hash partitions that a stage's tasks have left; with a share, those of the tasks that it has.
    fn exchanged(&self, stage: StageId, share: Option<Share>) -> Result<Vec<ExchangeInput>>;

    /// The hash partitions that each of a stage's tasks has left, in task order.
    fn exchanged_by_task(&self, stage: StageId) -> Result<Vec<ExchangeInput>>;

    /// The sorted runs of a stage's tasks, in task order, to be taken.
    fn runs(&self, stage: StageId, task: &TaskContext) -> Result<Vec<Arc<SortedRun>>>;

    /// The types of the rows that reach a stage's sink.
    fn sink_schema(&self, stage: StageId) -> arrow::datatypes::SchemaRef;

    /// What a join's build stage has left.
    fn build_side(&self, stage: StageId) -> Result<Arc<BuildSide>>;

    /// The build rows of a stage's tasks.
    fn build_rows(&self, stage: StageId) -> Result<BuildInputs>;
}

/// All rows that a stage's tasks kept, in memory, which `operator` holds as long as the reservation lives.
pub fn rows_in_memory(
    inputs: &dyn StageInputs,
    stage: StageId,
    operator: &'static str,
    takes: bool,
) -> Result<(Vec<Batch>, Reservation)> {
    let mut held = HeldBatches::of_query(inputs.context(), operator);
    let reader = if takes { KeptReader::taking } else { KeptReader::sharing };
    let mut batches = vec![];
    for batch in reader(inputs.kept(stage)?) {
        let batch = batch?;
        held.add(&batch)?;
        batches.push(batch);
    }
    let bytes = held.bytes();
    Ok((batches, held.become_bytes(bytes)?))
}
