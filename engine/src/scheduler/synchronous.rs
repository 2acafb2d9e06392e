//! The synchronous driver: every task on the calling thread, one after the other, always in the same
//! order. For debugging and for tests.

use std::collections::VecDeque;

use dovetail_planner::graph::TaskGraph;

use super::events::{Action, Event, GraphShape, QueryId, WorkerId};
use super::state::Scheduler;
use super::{TaskRunner, run_caught};
use crate::error::{EngineError, Result};

/// Runs a graph to its end.
pub fn run<W>(graph: &TaskGraph<W>, runner: &dyn TaskRunner) -> Result<()> {
    graph.validate().map_err(EngineError::Internal)?;
    let (query, worker) = (QueryId(0), WorkerId(0));
    let mut scheduler = Scheduler::new();
    let mut actions = vec![];
    scheduler.handle(Event::WorkerJoined { worker, slots: 1 }, &mut actions);
    scheduler.handle(Event::GraphSubmitted { query, shape: GraphShape::of(graph) }, &mut actions);
    let mut todo: VecDeque<Action> = actions.drain(..).collect();
    let mut failure = None;
    while let Some(action) = todo.pop_front() {
        match action {
            Action::Run { task, .. } => {
                let splits = run_caught(runner, task).and_then(|()| runner.splits(task));
                let event = match splits {
                    Ok(splits) => {
                        for split in splits {
                            scheduler.handle(Event::StageSplit { query, split }, &mut actions);
                        }
                        Event::TaskFinished { query, task, worker }
                    }
                    Err(e) => {
                        failure.get_or_insert(e);
                        Event::TaskFailed { query, task, worker }
                    }
                };
                scheduler.handle(event, &mut actions);
                todo.extend(actions.drain(..));
            }
            Action::Release { stage, .. } => runner.release(stage),
            Action::Stop { .. } => runner.cancel(),
            Action::Finish { .. } | Action::Abandon { .. } => {}
        }
    }
    failure.map_or(Ok(()), Err)
}
