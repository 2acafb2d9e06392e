//! Event scripts against the state machine, each with the cluster that it needs.

mod attempts;
mod losses;
mod order;
mod random;
mod restore;
mod speculation;
mod workers;

use dovetail_planner::graph::{Edge, EdgeKind, Place, StageId, TaskId};

use super::super::events::{
    Action, Attempt, Cause, Event, Failure, GraphShape, OutputId, QueryId, StageShape, StageSplit, WorkerId,
};
use super::*;

const Q: QueryId = QueryId(1);
/// A query that ends when its result is there.
const ENDS: [Action; 2] = [Action::Answer { query: Q }, Action::Finish { query: Q }];
/// The worker of scripts that need only one.
const W: WorkerId = WorkerId(0);

fn stage(tasks: u32, inputs: &[(u32, EdgeKind)]) -> StageShape {
    let inputs = inputs.iter().map(|&(from, kind)| Edge { from: StageId(from), kind }).collect();
    StageShape { tasks, inputs, place: Place::Anywhere, replayable: true }
}

fn home_stage(inputs: &[(u32, EdgeKind)]) -> StageShape {
    StageShape { place: Place::Home, ..stage(1, inputs) }
}

fn once_only(stage: StageShape) -> StageShape {
    StageShape { replayable: false, ..stage }
}

fn shape(stages: Vec<StageShape>) -> GraphShape {
    let results = vec![StageId(stages.len() as u32 - 1)];
    GraphShape { stages, results }
}

fn task(stage: u32, partition: u32) -> TaskId {
    TaskId { stage: StageId(stage), partition }
}

fn output(stage: u32, partition: u32, attempt: u32) -> OutputId {
    OutputId { task: task(stage, partition), attempt: Attempt(attempt) }
}

/// Tasks that are to be run, as `(stage, partition)`.
fn started(actions: &[Action]) -> Vec<(u32, u32)> {
    runs(actions).into_iter().map(|(stage, partition, _, _)| (stage, partition)).collect()
}

/// Attempts that are to be run, as `(stage, partition, attempt, worker)`.
fn runs(actions: &[Action]) -> Vec<(u32, u32, u32, u32)> {
    let run = |a: &Action| match *a {
        Action::Run { output, worker, .. } => {
            Some((output.task.stage.0, output.task.partition, output.attempt.0, worker.0))
        }
        _ => None,
    };
    actions.iter().filter_map(run).collect()
}

fn abandoned(actions: &[Action]) -> Option<Cause> {
    actions.iter().find_map(|a| match *a {
        Action::Abandon { cause, .. } => Some(cause),
        _ => None,
    })
}

/// A scheduler with a script's events.
#[derive(Default)]
struct Script {
    scheduler: Scheduler,
}

impl Script {
    /// A home worker 0 with one slot, and workers from 1 on.
    fn cluster(slots: &[u32]) -> Self {
        let mut script = Script::default();
        script.on(Event::WorkerJoined { worker: W, slots: 1, home: true });
        for (number, &slots) in slots.iter().enumerate() {
            script.join(number as u32 + 1, slots);
        }
        script
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = vec![];
        self.scheduler.handle(event, &mut actions);
        self.scheduler.validate();
        actions
    }

    fn join(&mut self, worker: u32, slots: u32) -> Vec<Action> {
        self.on(Event::WorkerJoined { worker: WorkerId(worker), slots, home: false })
    }

    fn submit(&mut self, shape: GraphShape) -> Vec<Action> {
        self.on(Event::GraphSubmitted { query: Q, shape })
    }

    fn tick(&mut self, now_ms: u64) -> Vec<Action> {
        self.on(Event::Ticked { now_ms })
    }

    fn heard(&mut self, worker: u32) {
        self.on(Event::WorkerHeard { worker: WorkerId(worker) });
    }

    fn lost(&mut self, worker: u32) -> Vec<Action> {
        self.on(Event::WorkerLost { worker: WorkerId(worker) })
    }

    fn leaving(&mut self, worker: u32) -> Vec<Action> {
        self.on(Event::WorkerLeaving { worker: WorkerId(worker) })
    }

    fn finish(&mut self, output: OutputId, worker: u32) -> Vec<Action> {
        self.on(Event::TaskFinished { query: Q, output, worker: WorkerId(worker) })
    }

    fn fail(&mut self, output: OutputId, worker: u32, failure: Failure) -> Vec<Action> {
        self.on(Event::TaskFailed { query: Q, output, worker: WorkerId(worker), failure })
    }
}
