//! The synchronous driver: every task on the calling thread, one after the other, always in the same
//! order. For debugging and for tests.

use std::collections::VecDeque;

use dovetail_planner::graph::TaskGraph;

use super::events::{Action, Event, Failure, GraphShape, QueryId, WorkerId};
use super::state::Scheduler;
use super::{TaskRunner, run_caught};
use crate::error::{EngineError, Result};

/// Runs a graph to its end.
pub fn run<W>(graph: &TaskGraph<W>, runner: &dyn TaskRunner) -> Result<()> {
    graph.validate().map_err(EngineError::Internal)?;
    let (query, worker) = (QueryId(0), WorkerId(0));
    let mut scheduler = Scheduler::new();
    let mut actions = vec![];
    scheduler.handle(Event::WorkerJoined { worker, slots: 1, home: true }, &mut actions);
    scheduler.handle(Event::GraphSubmitted { query, shape: GraphShape::of(graph) }, &mut actions);
    let mut todo: VecDeque<Action> = actions.drain(..).collect();
    let mut failure = None;
    while let Some(action) = todo.pop_front() {
        match action {
            Action::Run { output, .. } => {
                let splits = run_caught(runner, output.task).and_then(|()| runner.splits(output.task));
                let event = match splits {
                    Ok(splits) => {
                        for split in splits {
                            scheduler.handle(Event::StageSplit { query, split }, &mut actions);
                        }
                        Event::TaskFinished { query, output, worker }
                    }
                    Err(e) => {
                        failure.get_or_insert(e);
                        // There is no other place where it could go better.
                        Event::TaskFailed { query, output, worker, failure: Failure::Fatal }
                    }
                };
                scheduler.handle(event, &mut actions);
                todo.extend(actions.drain(..));
            }
            Action::Release { stage, .. } => runner.release(stage),
            Action::Stop { .. } => runner.cancel(),
            Action::Answer { .. } | Action::Finish { .. } | Action::Abandon { .. } => {}
            // The one worker is neither lost nor slow: no task is ever run twice.
            Action::Cancel { .. }
            | Action::Discard { .. }
            | Action::Dismiss { .. }
            | Action::Disconnect { .. } => {}
        }
    }
    failure.map_or(Ok(()), Err)
}
