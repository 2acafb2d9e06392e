//! The scheduler: one state machine, and the drivers that feed it.
//!
//! [`state::Scheduler`] decides; it does no I/O and owns no clock, thread, socket or randomness. A driver
//! turns its actions into running tasks and reports back with events:
//!
//! - [`threads::ThreadPool`]: a fixed pool of threads, the default;
//! - [`synchronous::run`]: the calling thread, in a deterministic order;
//! - the scheduler process of a cluster, with workers in other processes.
//!
//! The first two have one worker that is never lost, and so run every task once.
//!
//! The work itself is behind [`TaskRunner`]: the scheduler sees stages, tasks and edges only.

pub mod events;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod synchronous;
pub mod threads;

use dovetail_planner::graph::{StageId, TaskId};

use crate::error::{EngineError, Result};
use events::StageSplit;

/// Does the work of one submitted graph. Called by the driver's threads, several at a time.
pub trait TaskRunner: Send + Sync {
    /// Runs one task to completion. Everything it reads is finished. Called once per task.
    fn run(&self, task: TaskId) -> Result<()>;

    /// After [`Self::run`] has succeeded and before anything that waits for the task starts: the stages that
    /// have to be taken apart because of what came out of it. One call at a time.
    fn splits(&self, task: TaskId) -> Result<Vec<StageSplit>>;

    /// Nobody will read the stage's outputs any more.
    fn release(&self, stage: StageId);

    /// The query has failed or was cancelled: running tasks should stop at their next batch.
    fn cancel(&self);
}

/// Runs a task and turns a panic into an error: a defect must not take the process along.
fn run_caught(runner: &dyn TaskRunner, task: TaskId) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runner.run(task))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| s.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a task panicked".into());
        Err(EngineError::internal(text))
    })
}
