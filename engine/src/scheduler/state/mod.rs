//! The scheduler's state machine: events in, actions out.
//!
//! What always holds:
//! - a task is run once everything that its edges name is finished and there; of its attempts the first that
//!   finishes counts, and no other ever does;
//! - an output that is lost is made again exactly if somebody still needs it, and with it whatever it is made of
//!   ([`loss`]); if that could show two versions of the same rows to a query, the query is stopped instead;
//! - a stage's outputs are released when every stage that reads them has finished, again if they were made
//!   again;
//! - every submitted query ends in exactly one `Finish` or `Abandon`, after its last attempt has ended; before a
//!   `Finish` comes one `Answer`, as soon as the result is there;
//! - a query of a scheduler that has died goes on with what its workers still hold ([`restore`]);
//! - messages about attempts may be late or doubled: what does not fit is discarded or ignored, never asserted;
//! - ready tasks start depth first: the planner numbers stages so that a subtree comes before the next
//!   one, and along forward edges a consumer goes before further producers, so intermediates die young.
//!
//! Cost: a few bytes a task (a phase, where its output is, and for ready tasks an entry in their stage's queue)
//! and amortised constant time an event; `cargo bench -p dovetail-engine --bench scheduler` measures it.

mod assign;
mod clock;
mod flow;
mod leaving;
mod loss;
mod planted;
mod query;
mod restore;
mod split;
mod stage;
#[cfg(test)]
mod validate;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{StageId, TaskId};

use super::events::{Action, Attempt, Cause, Event, OutputId, QueryId, WorkerId};
#[cfg(test)]
pub(in crate::scheduler) use planted::PlantedBug;
use query::{Context, Ending, Query};
use workers::Workers;

/// Failures of its own after which a task is given up.
pub const ATTEMPTS_MAX: u32 = 4;

/// How often a task is run again because its input, its output or its worker was lost; then it is given up. A
/// task that takes its workers along is bounded by this.
pub const LOSSES_MAX: u32 = 20;

/// Before a task that has failed is tried again; twice as long after each further failure.
pub const RETRY_PAUSE_MS: u64 = 200;
pub const RETRY_PAUSE_MS_MAX: u64 = 1_000;

/// A worker that is silent for so long is taken for lost.
pub const LEASE_MS: u64 = 5_000;

/// How long a query with ready tasks waits for a first worker, or a new one, before it is abandoned.
pub const WAIT_FOR_WORKERS_MS: u64 = 15_000;

/// A task is not run twice at a time before it has run for so long.
pub const SPECULATION_AFTER_MS: u64 = 2_000;

/// Nor before it has run so many times as long as its stage's finished tasks did on average.
pub const SPECULATION_TIMES_MEAN: u64 = 3;

/// The state of all queries and workers.
#[derive(Debug, Default)]
pub struct Scheduler {
    queries: BTreeMap<QueryId, Query>,
    /// Queries with ready tasks, by running attempts, then age: the one with the fewest goes first. One set for
    /// tasks that run anywhere, one for those that run at home.
    runnable: [BTreeSet<(u32, QueryId)>; 2],
    workers: Workers,
    now_ms: Option<u64>,
    /// A defect that the simulator is to find.
    #[cfg(test)]
    pub(in crate::scheduler) planted: Option<PlantedBug>,
}

impl Scheduler {
    /// A scheduler without workers or queries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event in; what is to be done is appended to `actions`, to be carried out in that order.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::GraphSubmitted { query, shape } => {
                let new = Query::new(shape, self.now_ms());
                let before = self.queries.insert(query, new);
                assert!(before.is_none(), "query {} was submitted twice", query.0);
                self.with_query(query, actions, |q, cx| q.open_first(cx));
            }
            Event::QueryRestored { query, restored } => {
                self.workers.expect_others(self.now_ms());
                let mut new = Query::new(restored.shape.clone(), self.now_ms());
                new.first_attempt = restored.first_attempt.0;
                let before = self.queries.insert(query, new);
                assert!(before.is_none(), "query {} is there already", query.0);
                self.with_query(query, actions, |q, cx| q.restore(&restored, cx));
            }
            Event::WorkerJoined { worker, slots, home } => {
                self.workers.joined(worker, slots, home, self.now_ms());
            }
            Event::SlotsChanged { worker, slots } => self.workers.set_slots(worker, slots),
            Event::WorkerHeard { worker } => self.heard(worker),
            Event::WorkerLeaving { worker } => {
                self.heard(worker);
                self.leaving(worker, actions);
            }
            Event::WorkerLost { worker } => self.worker_lost(worker, actions),
            Event::TaskFinished { query, output, worker } => {
                self.heard(worker);
                self.task_finished(query, output, worker, actions);
            }
            Event::TaskFailed { query, output, worker, failure } => {
                self.heard(worker);
                self.with_query(query, actions, |q, cx| q.failed(output, worker, failure, cx));
            }
            Event::StageSplit { query, split } => {
                self.with_query(query, actions, |q, _| q.split(split));
            }
            Event::StageResized { query, stage, tasks } => {
                self.with_query(query, actions, |q, _| q.resize(stage, tasks));
            }
            Event::QueryCancelled { query } => {
                self.with_query(query, actions, |q, cx| q.stop(Cause::Cancelled, cx));
            }
            Event::Ticked { now_ms } => self.ticked(now_ms, actions),
        }
        self.see_off(actions);
        self.assign(actions);
    }

    /// Queries that have not ended.
    pub fn query_count(&self) -> usize {
        self.queries.len()
    }

    /// Whether the attempt would become its task's output if it were reported as finished now. A driver that has
    /// a split to report asks first: what comes of a late or doubled report must not change the graph.
    pub fn is_wanted(&self, query: QueryId, output: OutputId, worker: WorkerId) -> bool {
        self.queries.get(&query).is_some_and(|q| q.is_wanted(output, worker))
    }

    /// Whether the stage may still be split or get other tasks: none of its tasks was ever started.
    pub fn can_split(&self, query: QueryId, stage: StageId) -> bool {
        self.queries.get(&query).is_some_and(|q| q.can_split(stage))
    }

    /// The attempt that is the task's output, and the worker that holds it. None while there is none, or if it
    /// was released.
    pub fn output(&self, query: QueryId, task: TaskId) -> Option<(Attempt, WorkerId)> {
        self.queries.get(&query)?.output(task)
    }

    /// The attempts that run, with their workers and for how many milliseconds.
    pub fn running(&self) -> impl Iterator<Item = (QueryId, OutputId, WorkerId, u64)> {
        let now_ms = self.now_ms();
        self.queries.iter().flat_map(move |(id, query)| {
            query.running.iter().map(move |(output, r)| (*id, *output, r.worker, now_ms - r.started_ms))
        })
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.unwrap_or(0)
    }

    fn heard(&mut self, worker: WorkerId) {
        self.workers.heard(worker, self.now_ms());
    }

    fn task_finished(
        &mut self,
        query: QueryId,
        output: OutputId,
        worker: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        if self.queries.contains_key(&query) {
            self.with_query(query, actions, |q, cx| q.finished(output, worker, cx));
        } else if self.workers.is_there(worker) {
            // Its query has ended, or it is of a query that nobody knows.
            actions.push(Action::Discard { query, output, worker });
        }
    }

    /// One path for the loss of a worker, whoever noticed it.
    fn worker_lost(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        if !self.workers.lost(worker, self.now_ms()) {
            return;
        }
        for query in self.query_ids() {
            self.with_query(query, actions, |q, cx| q.worker_lost(worker, cx));
        }
    }

    fn query_ids(&self) -> Vec<QueryId> {
        self.queries.keys().copied().collect()
    }

    /// Changes a query, then ends it if it has ended, else puts it among the runnable if it is. A query that is
    /// not there has ended: nothing is left to do.
    fn with_query(
        &mut self,
        id: QueryId,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Query, &mut Context),
    ) {
        let now_ms = self.now_ms();
        let Some(query) = self.queries.get_mut(&id) else { return };
        for runnable in &mut self.runnable {
            runnable.remove(&(query.running_count(), id));
        }
        let mut context = Context {
            query: id,
            workers: &mut self.workers,
            actions,
            now_ms,
            has_clock: self.now_ms.is_some(),
            #[cfg(test)]
            planted: self.planted,
        };
        change(query, &mut context);
        query.answer(&mut context);
        match query.end() {
            Some(Ending::Answered) => {
                actions.push(Action::Finish { query: id });
                self.queries.remove(&id);
            }
            Some(Ending::Abandoned(cause)) => {
                query.forget_outputs(&mut context);
                actions.push(Action::Abandon { query: id, cause });
                self.queries.remove(&id);
            }
            None => self.note_runnable(id),
        }
    }

    fn note_runnable(&mut self, id: QueryId) {
        let query = &self.queries[&id];
        for (class, runnable) in self.runnable.iter_mut().enumerate() {
            if query.has_ready(class) {
                runnable.insert((query.running_count(), id));
            }
        }
    }
}

#[cfg(test)]
mod tests;
