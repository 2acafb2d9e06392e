//! Which ready task goes where, after each event.
//!
//! What always holds: afterwards no slot is free that a ready task could take, save one for which all its tasks
//! wait for another worker.

use dovetail_planner::graph::{EdgeKind, TaskId};

use super::super::events::{Action, QueryId, WorkerId};
use super::Scheduler;
use super::query::Query;
use super::stage::{ANYWHERE, HOME};
use super::workers::Choice;

/// So many ready tasks are passed over because they have failed on all workers that have a free slot. If there are
/// more of them, the workers are more likely to blame than the tasks, and get none.
const PASSED_OVER_MAX: usize = 16;

impl Scheduler {
    /// Starts as many ready tasks as there are slots for.
    pub(super) fn assign(&mut self, actions: &mut Vec<Action>) {
        while let Some(&(_, id)) = self.runnable[HOME].first() {
            let Some(home) = self.workers.free_home() else { break };
            let task = self.take(id, HOME);
            self.with_query(id, actions, |q, cx| q.start(task, home, cx));
        }
        let mut passed_over: Vec<(QueryId, TaskId)> = vec![];
        while self.workers.any_free() && passed_over.len() < PASSED_OVER_MAX {
            let Some(&(_, id)) = self.runnable[ANYWHERE].first() else { break };
            let task = self.take(id, ANYWHERE);
            let query = &self.queries[&id];
            let failed_on = query.histories.get(&task).map_or(&[][..], |h| &h.failed_on);
            match self.workers.choose(query.holders(task), failed_on) {
                Some(Choice::To(worker)) => {
                    self.with_query(id, actions, |q, cx| q.start(task, worker, cx));
                }
                Some(Choice::Later) | None => {
                    passed_over.push((id, task));
                    self.with_query(id, actions, |_, _| {});
                }
            }
        }
        for (id, task) in passed_over {
            self.with_query(id, actions, |q, _| q.put_back(task));
        }
    }

    /// Takes the next ready task of a query, which is noted as runnable again when it has been started.
    fn take(&mut self, id: QueryId, class: usize) -> TaskId {
        let query = self.queries.get_mut(&id).expect("invariant: runnable queries are alive");
        let task = query.next_ready(class).expect("invariant: runnable queries have ready tasks");
        query.take_ready(class);
        task
    }
}

impl Query {
    /// The workers that hold what a task reads alone.
    fn holders(&self, task: TaskId) -> impl Iterator<Item = WorkerId> {
        let stage = &self.stages[task.stage.0 as usize];
        let inputs = if stage.forward_inputs > 0 { &stage.inputs[..] } else { &[] };
        let forward = inputs.iter().filter(|e| e.kind == EdgeKind::Forward);
        forward.filter_map(move |e| Some(self.stages[e.from.0 as usize].kept(task.partition)?.worker))
    }
}
