//! Workers that leave: who still reads what they hold, what of it is made elsewhere, and when they may go.
//!
//! What always holds: for each leaving worker it is known which attempts read from it, from the moment at which it
//! says that it leaves; it is told to go when it runs nothing, holds nothing that counts, and nobody reads from it.

use dovetail_planner::graph::{EdgeKind, TaskId};

use super::super::events::{Action, OutputId, WorkerId};
use super::Scheduler;
use super::planted::PlantedBug;
use super::query::{Context, Query};

impl Scheduler {
    pub(super) fn leaving(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        self.workers.leaving(worker, self.now_ms());
        for id in self.query_ids() {
            self.with_query(id, actions, |query, cx| {
                for (output, _) in query.running.iter().filter(|(_, r)| !r.cancelled) {
                    query.note_reader(*output, cx);
                }
            });
        }
    }

    /// Leaving workers that run nothing: what they hold is made elsewhere, and they are told to go.
    pub(super) fn see_off(&mut self, actions: &mut Vec<Action>) {
        for worker in self.workers.take_evacuable() {
            for id in self.query_ids() {
                self.with_query(id, actions, |query, cx| {
                    if query.stopping.is_none() {
                        let held = query.held_by(worker);
                        query.evacuate(&held, cx);
                    }
                });
            }
        }
        for worker in self.workers.take_unneeded() {
            actions.push(Action::Dismiss { worker });
        }
    }
}

impl Query {
    /// An attempt reads from leaving workers what it reads there until it ends, whatever becomes of the task's
    /// output meanwhile.
    pub fn note_reader(&self, output: OutputId, cx: &mut Context) {
        if !cx.workers.any_is_leaving() || cx.has(PlantedBug::DismissesReadWorkers) {
            return;
        }
        for edge in &self.stages[output.task.stage.0 as usize].inputs {
            let producer = &self.stages[edge.from.0 as usize];
            let read = match edge.kind {
                EdgeKind::Forward => output.task.partition..output.task.partition + 1,
                EdgeKind::Hash | EdgeKind::Broadcast | EdgeKind::Gather | EdgeKind::Merge => {
                    0..producer.tasks()
                }
            };
            for partition in read {
                let holder = self.output(TaskId { stage: edge.from, partition });
                holder.into_iter().for_each(|(_, worker)| cx.workers.is_read_by(worker, (cx.query, output)));
            }
        }
    }
}
