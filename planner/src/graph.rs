//! The task graph: stages times partitions, and the edges between them. Plain data that knows no SQL.
//!
//! A stage is one kind of work (`W`), done by a number of tasks; task `i` of a stage is its partition
//! `i`. An edge says which output of one stage the tasks of another read. The scheduler sees numbers and
//! edges; it never looks inside the work, so a graph over any deterministic function is scheduled the
//! same way.
//!
//! Invariants, checked by [`TaskGraph::validate`]: stages are numbered by their position; edges point
//! to earlier stages only (so the graph has no cycle); a forward edge joins stages of equal task count.

use serde::{Deserialize, Serialize};

/// A stage's number: its position in [`TaskGraph::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StageId(pub u32);

/// A task: one partition of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    pub stage: StageId,
    pub partition: u32,
}

/// Stages in an order in which they could run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskGraph<W> {
    pub stages: Vec<Stage<W>>,
    /// The stages whose outputs the caller keeps; everything else is released when it has been read.
    pub results: Vec<StageId>,
}

/// One kind of work, done by `tasks` tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage<W> {
    pub id: StageId,
    pub tasks: u32,
    pub inputs: Vec<Edge>,
    pub place: Place,
    /// Whether a task that runs again leaves the same rows as before, in whatever order. If not, what has been
    /// read of an output that is lost does not fit what would be made in its place.
    pub replayable: bool,
    pub work: W,
}

/// Where the tasks of a stage may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// On any worker.
    Anywhere,
    /// In the process that has the scheduler: what hands the result to the client.
    Home,
}

/// What a stage needs of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    pub from: StageId,
    pub kind: EdgeKind,
}

/// Which outputs of the earlier stage feed which tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EdgeKind {
    /// Task `i` reads the output of task `i`; it may start when that one is done.
    Forward,
    /// Task `i` reads hash partition `i` of every task's output.
    Hash,
    /// Every task reads everything.
    Broadcast,
    /// The one task reads everything, in no order.
    Gather,
    /// The one task reads everything, in the order of the sorted runs.
    Merge,
}

impl<W> TaskGraph<W> {
    /// Number of tasks of all stages.
    pub fn task_count(&self) -> u64 {
        self.stages.iter().map(|s| u64::from(s.tasks)).sum()
    }

    /// Checks the invariants; the message names the stage.
    pub fn validate(&self) -> Result<(), String> {
        for (position, stage) in self.stages.iter().enumerate() {
            if stage.id.0 as usize != position {
                return Err(format!("stage {} stands at position {position}", stage.id.0));
            }
            for edge in &stage.inputs {
                if edge.from >= stage.id {
                    return Err(format!(
                        "stage {position} reads stage {}, which is not before it",
                        edge.from.0
                    ));
                }
                let from = &self.stages[edge.from.0 as usize];
                if edge.kind == EdgeKind::Forward && from.tasks != stage.tasks {
                    return Err(format!(
                        "stage {position} has {} tasks and a forward edge from stage {} with {}",
                        stage.tasks, edge.from.0, from.tasks
                    ));
                }
            }
        }
        match self.results.iter().find(|r| r.0 as usize >= self.stages.len()) {
            Some(r) => Err(format!("the result stage {} does not exist", r.0)),
            None => Ok(()),
        }
    }
}
