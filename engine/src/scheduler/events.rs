//! What the scheduler is told (events, in the past tense) and what it asks for (actions, in the
//! imperative). Plain data.

use dovetail_planner::graph::{Edge, StageId, TaskGraph, TaskId};

/// A submitted graph's number; smaller ones came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// A place where tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// What the scheduler needs to know of a graph: its shape, not its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphShape {
    pub stages: Vec<StageShape>,
    pub results: Vec<StageId>,
}

/// A stage without its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShape {
    pub tasks: u32,
    pub inputs: Vec<Edge>,
}

impl GraphShape {
    /// The shape of a graph, whose invariants the caller has checked.
    pub fn of<W>(graph: &TaskGraph<W>) -> Self {
        GraphShape {
            stages: graph
                .stages
                .iter()
                .map(|s| StageShape { tasks: s.tasks, inputs: s.inputs.clone() })
                .collect(),
            results: graph.results.clone(),
        }
    }
}

/// A stage that was taken apart before any of its tasks had started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSplit {
    pub stage: StageId,
    /// A new stage, numbered after all others, which takes over everything that the stage waits for.
    pub front: StageShape,
    /// What the stage is from now on; it reads the front.
    pub rest: StageShape,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    GraphSubmitted {
        query: QueryId,
        shape: GraphShape,
    },
    WorkerJoined {
        worker: WorkerId,
        slots: u32,
    },
    TaskFinished {
        query: QueryId,
        task: TaskId,
        worker: WorkerId,
    },
    TaskFailed {
        query: QueryId,
        task: TaskId,
        worker: WorkerId,
    },
    /// Comes before the end of the task that made it necessary.
    StageSplit {
        query: QueryId,
        split: StageSplit,
    },
    QueryCancelled {
        query: QueryId,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run a task; everything it reads is finished.
    Run { query: QueryId, task: TaskId, worker: WorkerId },
    /// Drop a stage's outputs.
    Release { query: QueryId, stage: StageId },
    /// Tell the query's running tasks to stop; no task of it will be started any more.
    Stop { query: QueryId },
    /// All stages are done. The query is forgotten.
    Finish { query: QueryId },
    /// The query failed or was cancelled, and its last running task has ended. It is forgotten.
    Abandon { query: QueryId },
}
