//! What the state machine asks for, carried out: messages to workers, and queries that end.
//!
//! What always holds: a worker is told of a query before it is told of anything in it, and where an output is before it
//! is told to run what reads it.

use dovetail_engine::query::placed::Placement;
use dovetail_engine::scheduler::events::{Action, OutputId, QueryId, WorkerId};
use dovetail_planner::graph::{StageId, TaskGraph, TaskId};
use dovetail_planner::pipeline::Sink;

use super::{Driver, HOME};
use crate::cluster::messages;
use crate::cluster::queries::Query;
use crate::cluster::workers::Worker;
use crate::control;
use crate::control::scheduler_message::Message;
use crate::records::{self, record};

impl Driver {
    /// Does what the state machine asks for.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Run { query, output, worker } => self.run(query, output, worker),
            Action::Cancel { query, output, worker } => match self.workers.get(&worker) {
                Some(w) => {
                    let output = Some(control::Output::of(query.0, output));
                    w.send(Message::Cancel(control::Cancel { output }));
                }
                None => self.stop_at_home(query),
            },
            Action::Discard { query, output, worker } => {
                let output = Some(control::Output::of(query.0, output));
                self.send(worker, Message::Discard(control::Discard { output }));
            }
            Action::Release { query, stage } => self.release(query, stage),
            Action::Stop { query } => {
                for worker in self.workers.values().filter(|w| w.has_begun(query)) {
                    worker.send(Message::Stop(control::Stop { query: query.0 }));
                }
                self.stop_at_home(query);
            }
            // Whoever asked has the rows.
            Action::Answer { query } => self.end(query, Ok(())),
            // Whatever of it has run in vain since the answer was told to end then.
            Action::Finish { .. } => {}
            Action::Abandon { query, cause } => self.abandon(query, cause),
            Action::Dismiss { worker } => {
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.is_dismissed = true;
                    tracing::info!(worker = worker.0, "worker may go");
                    w.send(Message::Dismiss(control::Dismiss {}));
                }
            }
            Action::Disconnect { worker } => {
                if let Some(silent) = self.workers.remove(&worker) {
                    tracing::warn!(
                        worker = worker.0,
                        name = silent.hello.name,
                        "worker is silent: taken for lost"
                    );
                    self.count_slots();
                }
            }
        }
    }

    fn release(&mut self, id: QueryId, stage: StageId) {
        for worker in self.workers.values().filter(|w| w.has_begun(id)) {
            worker.send(Message::Release(control::Release { query: id.0, stage: stage.0 }));
        }
        if let Some(query) = self.queries.get_mut(&id) {
            query.reports.retain(|output, _| output.task.stage != stage);
        }
    }

    /// Sends a task, and before it whatever it needs to know.
    fn run(&mut self, id: QueryId, output: OutputId, worker: WorkerId) {
        let Some(query) = self.queries.get(&id) else { return };
        if worker == HOME {
            return self.bring_home(id, output);
        }
        let stage = output.task.stage;
        let placements = self.placements(id, query, stage);
        // A worker that is not there has just been lost: the state machine hears of it next.
        let Some(w) = self.workers.get_mut(&worker) else { return };
        tell(w, worker, id, query, &placements);
        w.running += 1;
        query.asked.context.metrics.note_sent(&w.hello.name, &w.hello.version);
        w.send(Message::Run(control::Run { output: Some(control::Output::of(id.0, output)) }));
        if let Sink::JoinBuild { join, .. } = &query.stages[stage.0 as usize].work.sink
            && !join.kind.emits_build_at_end()
        {
            // Those that have nothing to do make the same table meanwhile: they will need it.
            let idle = self.workers.iter_mut().filter(|(_, w)| w.running < w.hello.slots && !w.is_leaving);
            for (number, w) in idle.filter(|(number, _)| **number != worker) {
                tell(w, *number, id, query, &placements);
                w.send(Message::Warm(control::Warm { query: id.0, stage: stage.0 }));
            }
        }
    }

    /// Where everything is that a stage reads, and at which worker.
    pub fn placements(&self, id: QueryId, query: &Query, stage: StageId) -> Vec<(Placement, WorkerId)> {
        let mut placements = vec![];
        for stage in query.inputs(stage) {
            for partition in 0..query.stages[stage.0 as usize].tasks {
                let task = TaskId { stage, partition };
                let Some((attempt, holder)) = self.scheduler.output(id, task) else { continue };
                let output = OutputId { task, attempt };
                let Some(report) = query.reports.get(&output).cloned() else { continue };
                // If it has just been lost, the task will be told so by what it reads.
                let Some(at) = self.workers.get(&holder) else { continue };
                let place = Some(at.hello.address.clone());
                placements.push((Placement { output, place, report }, holder));
            }
        }
        placements
    }
}

/// Tells a worker of a query, and of places, what it does not know.
fn tell(w: &mut Worker, number: WorkerId, id: QueryId, query: &Query, placements: &[(Placement, WorkerId)]) {
    if !w.knows(id) {
        let graph = TaskGraph { stages: query.stages.clone(), results: query.asked.graph.results.clone() };
        let (graph, operators) = (messages::encode_plan(&graph), query.asked.operators as u32);
        let worker = w.hello.name.clone();
        query.record(|| record::Record::Told(records::Told { worker }));
        let memory = control::MemoryPart::of(&query.asked.context.memory);
        let capability = query.asked.capability.clone().unwrap_or_default().into();
        let begin = control::Begin { query: id.0, graph, operators, memory, capability };
        w.send(Message::Begin(begin));
    }
    for (placement, holder) in placements {
        if !w.knows_place(id, placement.output) {
            let output = Some(control::Output::of(id.0, placement.output));
            // Nothing for what is there already.
            let address = placement.place.clone().filter(|_| *holder != number).unwrap_or_default();
            let report = Some(control::Report::from(&*placement.report));
            w.send(Message::Placed(control::Placed { output, address, report }));
        }
    }
}
