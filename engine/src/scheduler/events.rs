//! What the scheduler is told (events, in the past tense) and what it asks for (actions, in the
//! imperative). Plain data.
//!
//! A task may be run several times; each run is an [`Attempt`]. What an attempt leaves behind is named by task
//! and attempt, so that a late or a lost one is never read.

use dovetail_planner::graph::{Edge, Place, StageId, TaskGraph, TaskId};
use serde::{Deserialize, Serialize};

/// A submitted graph's number; smaller ones came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueryId(pub u64);

/// A place where tasks run. A worker that was lost and comes back is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// One run of a task, numbered from 0 in the order of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt(pub u32);

/// What one attempt of a task leaves for later stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputId {
    pub task: TaskId,
    pub attempt: Attempt,
}

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
    pub place: Place,
    /// Whether a task that runs again leaves the same rows as before, in whatever order. If not, what has been
    /// read of an output that is lost does not fit what would be made in its place.
    pub replayable: bool,
}

impl GraphShape {
    /// The shape of a graph, whose invariants the caller has checked.
    pub fn of<W>(graph: &TaskGraph<W>) -> Self {
        GraphShape {
            stages: graph
                .stages
                .iter()
                .map(|s| StageShape {
                    tasks: s.tasks,
                    inputs: s.inputs.clone(),
                    place: s.place,
                    replayable: s.replayable,
                })
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

/// A query that a scheduler was running when its process ended, as its log and the workers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// As it is after all splits.
    pub shape: GraphShape,
    /// Higher than that of every attempt that was ever made.
    pub first_attempt: Attempt,
    /// Outputs that became those of their tasks, of each task the last. What the log lacks came after all that it
    /// has.
    pub recorded: Vec<OutputId>,
    /// What workers hold, known to the log or not.
    pub held: Vec<(OutputId, WorkerId)>,
    /// What they run.
    pub running: Vec<(OutputId, WorkerId)>,
}

/// Why an attempt failed, which decides what happens next. Survives the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// It would fail anywhere: a division by zero, a malformed file. The query fails.
    Fatal,
    /// It may go well elsewhere, or later: I/O, memory, a full disk. Bounded by
    /// [`ATTEMPTS_MAX`](super::state::ATTEMPTS_MAX), with a pause before each further attempt.
    Transient,
    /// What it was to read is gone. These outputs are made again; it does not count as the task's own failure.
    InputLost(Vec<OutputId>),
    /// It was told to stop.
    Stopped,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    GraphSubmitted {
        query: QueryId,
        shape: GraphShape,
    },
    /// Takes the place of its submission. The workers have joined; nothing else was said of the query.
    QueryRestored {
        query: QueryId,
        restored: Box<Restored>,
    },
    /// A worker that can run `slots` tasks at a time. `home` is the process that the scheduler is in: it runs
    /// the stages of [`Place::Home`], and if `slots` are all there are (no other worker has ever joined), all.
    WorkerJoined {
        worker: WorkerId,
        slots: u32,
        home: bool,
    },
    /// It can run more tasks at a time than it said, or fewer: what runs goes on.
    SlotsChanged {
        worker: WorkerId,
        slots: u32,
    },
    /// A sign of life.
    WorkerHeard {
        worker: WorkerId,
    },
    /// It will leave: it gets no more tasks, what it runs is finished, what it holds can be read until it is
    /// told to go.
    WorkerLeaving {
        worker: WorkerId,
    },
    /// Its connection is gone, and with it everything that it ran and held.
    WorkerLost {
        worker: WorkerId,
    },
    TaskFinished {
        query: QueryId,
        output: OutputId,
        worker: WorkerId,
    },
    TaskFailed {
        query: QueryId,
        output: OutputId,
        worker: WorkerId,
        failure: Failure,
    },
    /// Comes before the end of the task that made it necessary.
    StageSplit {
        query: QueryId,
        split: StageSplit,
    },
    /// A stage of which no task has started gets another number of tasks. Comes before the end of the task that made
    /// it necessary.
    StageResized {
        query: QueryId,
        stage: StageId,
        tasks: u32,
    },
    QueryCancelled {
        query: QueryId,
    },
    /// The time, which the scheduler has from nowhere else. It never goes back.
    Ticked {
        now_ms: u64,
    },
}

/// Why a query was abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A task failed for good.
    Failed {
        task: TaskId,
    },
    /// A task has failed so often that it is given up, or its inputs were lost so often. Of a query that was taken up
    /// from another scheduler, what the task did there counts as one attempt, if anything.
    GivenUp {
        task: TaskId,
        attempts: u32,
    },
    Cancelled,
    /// No worker has been there for [`WAIT_FOR_WORKERS_MS`](super::state::WAIT_FOR_WORKERS_MS).
    NoWorkers,
    /// An output was lost that cannot be made again as it was, and some of it had been read. The query as a
    /// whole can be run again.
    NotReplayable {
        task: TaskId,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run a task; everything it reads is finished.
    Run { query: QueryId, output: OutputId, worker: WorkerId },
    /// Stop an attempt whose result is not wanted any more. It ends like any other, as finished or failed.
    Cancel { query: QueryId, output: OutputId, worker: WorkerId },
    /// Drop what an attempt has left; another's is the task's output.
    Discard { query: QueryId, output: OutputId, worker: WorkerId },
    /// Drop a stage's outputs, wherever they are.
    Release { query: QueryId, stage: StageId },
    /// Tell the query's running tasks to stop; no task of it will be started any more.
    Stop { query: QueryId },
    /// All stages are done: the result may be given, and the rest dropped. Attempts that have not ended were
    /// cancelled; nothing is asked of the query any more.
    Answer { query: QueryId },
    /// The query was answered, and its last running attempt has ended. It is forgotten.
    Finish { query: QueryId },
    /// The query failed or was cancelled, and its last running attempt has ended. It is forgotten.
    Abandon { query: QueryId, cause: Cause },
    /// Nothing that the worker holds is needed any more: a leaving worker may go.
    Dismiss { worker: WorkerId },
    /// The worker has been silent for too long: cut its connection. It counts as lost already.
    Disconnect { worker: WorkerId },
}
