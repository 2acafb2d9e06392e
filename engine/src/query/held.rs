//! What one attempt of a task has left in this process, for readers here and elsewhere, as often as they come.

use std::ops::Range;
use std::sync::Arc;

use dovetail_planner::pipeline::{Sink, StageWork};
use dovetail_shuffle::Rows;

use crate::error::{EngineError, Result};
use crate::exchange::{Counted, HeldOutput, RowsReader};
use crate::operators::join::{BuildRows, BuildSide};
use crate::scheduler::events::OutputId;
use crate::task::Output;

/// An output with what it holds, counted once.
pub struct LocalOutput {
    id: OutputId,
    output: Output,
    /// By partition.
    rows: Vec<u64>,
    bytes: u64,
}

impl LocalOutput {
    /// The output of an attempt of a stage's task.
    pub fn new(id: OutputId, work: &StageWork, output: Output) -> Result<Self> {
        let (rows, bytes) = match &work.sink {
            Sink::Collect => {
                let kept = output.kept.as_ref().ok_or_else(|| missing("kept rows"))?;
                (vec![kept.rows()], kept.bytes())
            }
            Sink::Aggregate { .. } | Sink::HashPartition { .. } => {
                let exchange = output.exchange.as_ref().ok_or_else(|| missing("partitions"))?;
                ((0..exchange.partitions()).map(|p| exchange.rows(p)).collect(), exchange.bytes_of_all())
            }
            Sink::Sort(_) => {
                let runs = &output.runs;
                (runs.iter().map(|r| r.rows()).collect(), runs.iter().map(|r| r.bytes()).sum())
            }
            Sink::BuildRows { .. } => {
                let rows: Arc<BuildRows> = artifact(&output).ok_or_else(|| missing("build rows"))?;
                (rows.rows_by_partition()?, rows.bytes())
            }
            Sink::JoinBuild { .. } | Sink::Scalar { .. } => (vec![], 0),
        };
        Ok(LocalOutput { id, output, rows, bytes })
    }

    /// What the attempt has left.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Rows by partition.
    pub fn rows_by_partition(&self) -> &[u64] {
        &self.rows
    }

    /// The build side of a join, if it is one.
    pub fn build_side(&self) -> Option<Arc<BuildSide>> {
        artifact(&self.output)
    }

    fn open(&self, partitions: Range<usize>) -> Result<RowsReader> {
        if let Some(exchange) = self.output.exchange.clone() {
            return Ok(Box::new(partitions.flat_map(move |p| exchange.share(p))));
        }
        if let Some(kept) = &self.output.kept {
            return Ok(kept.share());
        }
        if let Some(rows) = artifact::<BuildRows>(&self.output) {
            return rows.share(partitions);
        }
        let runs = self.output.runs[partitions].to_vec();
        Ok(Box::new(runs.into_iter().flat_map(|run| run.share())))
    }
}

fn artifact<T: Send + Sync + 'static>(output: &Output) -> Option<Arc<T>> {
    output.artifact.clone().and_then(|a| a.downcast().ok())
}

fn missing(what: &str) -> EngineError {
    EngineError::internal(format!("a task has left no {what}"))
}

impl HeldOutput for LocalOutput {
    fn outputs(&self) -> Vec<OutputId> {
        vec![self.id]
    }

    fn partitions(&self) -> usize {
        self.rows.len()
    }

    fn rows(&self, partition: usize) -> u64 {
        self.rows[partition]
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, partitions: Range<usize>) -> Result<RowsReader> {
        let (exchange, first) = (self.id.task.stage.0.into(), partitions.start);
        let written = self.rows[partitions.clone()].iter().sum();
        let id = self.id;
        let rows = self.open(partitions).map_err(|e| lost(e, id))?;
        let rows = rows.map(move |rows: Result<Rows>| rows.map_err(|e| lost(e, id)));
        Ok(Box::new(Counted::new(Box::new(rows), exchange, first, written)))
    }
}

/// Rows whose file is damaged or gone are made again.
fn lost(error: EngineError, output: OutputId) -> EngineError {
    match error {
        EngineError::Shuffle(e) if e.is_loss() => {
            EngineError::Lost { outputs: vec![output], message: e.to_string() }
        }
        other => other,
    }
}
