//! What is checked after every event: a second account of what the scheduler was told and has asked for, kept in
//! the plainest way, against which its answers are held.
//!
//! - One attempt of a task is its output at a time. It became so by finishing while it was wanted, and stays so
//!   until it is released or lost.
//! - Nothing is run before everything that it reads is there; nothing is released that somebody still reads, and no
//!   worker is dismissed from which somebody does.
//! - A task that has failed is tried again after a pause.
//! - The shuffle's catalogue agrees.
//! - A query ends once, when nothing of it runs, for a cause that was there. It is answered with the event that brings
//!   its result: then every task was done, everything was released, and what was delivered was made of one version of
//!   every task's output.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{StageId, TaskId};

use super::super::events::{
    Action, Attempt, Event, Failure, GraphShape, OutputId, QueryId, Restored, WorkerId,
};
use super::super::state::{RETRY_PAUSE_MS, RETRY_PAUSE_MS_MAX, Scheduler};
use super::exchanges::Exchanges;
use super::graph::{reads, unread_stages};
use super::worker::{Input, Key};

#[derive(Default)]
pub struct Watch {
    pub queries: BTreeMap<QueryId, Seen>,
    pub workers: BTreeMap<WorkerId, SeenWorker>,
    pub others_have_joined: bool,
    /// What attempts have left: the content, and what it was made of.
    pub made: BTreeMap<Key, Made>,
    pub exchanges: Exchanges,
    /// As the scheduler was told.
    pub now_ms: Option<u64>,
    /// Queries of a scheduler that has died.
    pub orphaned: BTreeMap<QueryId, Seen>,
}

#[derive(Clone)]
pub struct Made {
    pub content: u64,
    pub read: Vec<(TaskId, u64)>,
}

/// A query that has not ended.
pub struct Seen {
    pub shape: GraphShape,
    pub attempts: BTreeMap<OutputId, SeenAttempt>,
    pub outputs: BTreeMap<TaskId, (Attempt, WorkerId)>,
    pub ever_finished: BTreeSet<TaskId>,
    pub unreleased: BTreeSet<StageId>,
    pub answered: bool,
    pub stopped: bool,
    pub cancelled: bool,
    pub fatal: BTreeSet<TaskId>,
    pub failures: BTreeMap<TaskId, u32>,
    /// Tasks that have failed, and when they may be tried again.
    pub paused: BTreeMap<TaskId, u64>,
    pub something_was_lost: bool,
    /// Of this life of the scheduler.
    pub first_attempt: u32,
}

pub struct SeenAttempt {
    pub worker: WorkerId,
    /// And where from, unless somebody has found that it is lost.
    pub reads: BTreeSet<(OutputId, WorkerId)>,
    pub cancelled: bool,
    pub ended: bool,
}

pub struct SeenWorker {
    pub slots: u32,
    pub home: bool,
    pub leaving: bool,
}

impl Watch {
    /// Called after the scheduler has answered an event.
    pub fn check(&mut self, event: &Event, actions: &[Action], scheduler: &Scheduler) {
        let wanted = self.take_in(event);
        if let Event::QueryRestored { query, restored } = event {
            self.restored(*query, restored, actions, scheduler);
        }
        for action in actions {
            if let Action::Disconnect { worker } = action {
                self.worker_lost(*worker);
            }
        }
        self.check_outputs(event, wanted, actions, scheduler);
        for action in actions {
            match (event, action) {
                // What is not wanted of a restored query was never accounted for.
                (Event::QueryRestored { .. }, Action::Cancel { .. }) => {}
                _ => self.check_action(action, scheduler),
            }
        }
        self.check_slots();
        self.check_answers();
        assert_eq!(scheduler.query_count(), self.queries.len(), "queries that have not ended");
    }

    /// Where a task that is to be run finds what it reads.
    pub fn inputs(&self, query: QueryId, task: TaskId) -> Vec<Input> {
        let seen = &self.queries[&query];
        let edges = &seen.shape.stages[task.stage.0 as usize].inputs;
        let tasks = edges.iter().flat_map(|edge| {
            reads(&seen.shape, edge, task.partition).map(|partition| TaskId { stage: edge.from, partition })
        });
        let input = |task| match seen.outputs.get(&task) {
            Some(&(attempt, holder)) => Input { output: OutputId { task, attempt }, holder },
            None => panic!("query {} reads {task:?}, which is not there", query.0),
        };
        tasks.map(input).collect()
    }

    /// Accounts for an event. Says whether it is the end of an attempt that was wanted.
    fn take_in(&mut self, event: &Event) -> Option<Key> {
        match event {
            Event::GraphSubmitted { query, shape } => {
                let seen = Seen {
                    shape: shape.clone(),
                    attempts: BTreeMap::new(),
                    outputs: BTreeMap::new(),
                    ever_finished: BTreeSet::new(),
                    unreleased: BTreeSet::new(),
                    answered: false,
                    stopped: false,
                    cancelled: false,
                    fatal: BTreeSet::new(),
                    failures: BTreeMap::new(),
                    paused: BTreeMap::new(),
                    something_was_lost: false,
                    first_attempt: 0,
                };
                self.queries.insert(*query, seen);
            }
            Event::WorkerJoined { worker, slots, home } => {
                self.workers.insert(*worker, SeenWorker { slots: *slots, home: *home, leaving: false });
                self.others_have_joined |= !home;
            }
            Event::SlotsChanged { worker, slots } => {
                self.workers.get_mut(worker).into_iter().for_each(|w| w.slots = *slots);
            }
            Event::WorkerLeaving { worker } => {
                self.workers.get_mut(worker).into_iter().for_each(|w| w.leaving = true);
            }
            Event::WorkerLost { worker } => self.worker_lost(*worker),
            Event::TaskFinished { query, output, worker } => {
                let wanted = self.attempt_ended(*query, *output, *worker);
                return wanted.then_some((*query, *output));
            }
            Event::TaskFailed { query, output, worker, failure } => {
                if self.attempt_ended(*query, *output, *worker) {
                    self.attempt_failed(*query, *output, failure);
                }
            }
            Event::StageSplit { query, split } => {
                let seen = self.queries.get_mut(query).expect("the driver splits what runs");
                seen.shape.stages[split.stage.0 as usize] = split.rest.clone();
                seen.shape.stages.push(split.front.clone());
            }
            Event::StageResized { query, stage, tasks } => {
                let seen = self.queries.get_mut(query).expect("the driver resizes stages of what runs");
                seen.shape.stages[stage.0 as usize].tasks = *tasks;
            }
            Event::QueryCancelled { query } => {
                self.queries.get_mut(query).into_iter().for_each(|q| q.cancelled = true);
            }
            Event::Ticked { now_ms } => self.now_ms = Some(*now_ms),
            Event::WorkerHeard { .. } | Event::QueryRestored { .. } => {}
        }
        None
    }

    /// The scheduler's process is gone, and with it whatever it knew.
    pub fn scheduler_died(&mut self) {
        for &query in self.queries.keys() {
            self.exchanges.ended(query);
        }
        // The next one knows no time before it is told.
        self.now_ms = None;
        // What was answered has no log any more.
        let queries = std::mem::take(&mut self.queries);
        self.orphaned = queries.into_iter().filter(|(_, q)| !q.answered).collect();
        self.workers.clear();
        self.others_have_joined = false;
    }

    /// A query goes on. What the scheduler says that it has must be there; that it fits together is seen when the
    /// query finishes.
    fn restored(&mut self, query: QueryId, restored: &Restored, actions: &[Action], scheduler: &Scheduler) {
        let mut seen = self.orphaned.remove(&query).expect("a query is restored once");
        self.others_have_joined = true;
        seen.shape = restored.shape.clone();
        (seen.stopped, seen.something_was_lost) = (false, true);
        seen.first_attempt = restored.first_attempt.0;
        seen.failures.clear();
        seen.paused.clear();
        let unread = unread_stages(&seen.shape);
        let stages = seen.shape.stages.iter().enumerate();
        let tasks: Vec<TaskId> = stages
            .flat_map(|(number, stage)| {
                (0..stage.tasks).map(move |partition| TaskId { stage: StageId(number as u32), partition })
            })
            .collect();
        seen.ever_finished.extend(tasks.iter().filter(|t| unread.contains(&t.stage)));
        (seen.outputs, seen.unreleased) = Default::default();
        for task in tasks {
            let Some((attempt, worker)) = scheduler.output(query, task) else { continue };
            let output = OutputId { task, attempt };
            assert!(
                restored.held.contains(&(output, worker)),
                "nobody holds {output:?} of query {}",
                query.0
            );
            let recorded = restored.recorded.iter().find(|o| o.task == task);
            let is_held = |o: &&OutputId| restored.held.iter().any(|(held, _)| held == *o);
            assert!(recorded.filter(is_held).is_none_or(|o| *o == output), "{output:?} is not the last");
            seen.outputs.insert(task, (attempt, worker));
            seen.ever_finished.insert(task);
            seen.unreleased.insert(task.stage);
            self.exchanges.kept(query, output, seen.shape.stages[task.stage.0 as usize].tasks);
        }
        let goes_on = |output: &OutputId| {
            // A query that is begun anew is over everywhere.
            let ends = |a: &Action| match a {
                Action::Cancel { output: o, .. } => o == output,
                Action::Abandon { .. } => true,
                _ => false,
            };
            !actions.iter().any(ends)
        };
        let running: Vec<_> =
            restored.running.iter().filter(|(output, _)| goes_on(output)).copied().collect();
        // What is taken over counts as an attempt.
        let over = |worker| SeenAttempt { worker, reads: BTreeSet::new(), cancelled: false, ended: true };
        let outputs = seen.outputs.iter();
        seen.attempts =
            outputs.map(|(&task, &(attempt, worker))| (OutputId { task, attempt }, over(worker))).collect();
        self.queries.insert(query, seen);
        for (output, worker) in running {
            let inputs = self.inputs(query, output.task);
            let reads = inputs.iter().map(|input| (input.output, input.holder)).collect();
            let attempt = SeenAttempt { worker, reads, cancelled: false, ended: false };
            let seen = self.queries.get_mut(&query).expect("it is there");
            seen.attempts.insert(output, attempt);
        }
    }

    fn attempt_ended(&mut self, query: QueryId, output: OutputId, worker: WorkerId) -> bool {
        let Some(seen) = self.queries.get_mut(&query) else { return false };
        let Some(attempt) = seen.attempts.get_mut(&output) else { return false };
        if attempt.worker != worker || std::mem::replace(&mut attempt.ended, true) {
            return false;
        }
        !attempt.cancelled && !seen.stopped && !seen.answered
    }

    fn attempt_failed(&mut self, query: QueryId, output: OutputId, failure: &Failure) {
        let seen = self.queries.get_mut(&query).expect("it was there");
        match failure {
            Failure::Fatal => {
                seen.fatal.insert(output.task);
            }
            Failure::Transient | Failure::Stopped => {
                let failures = seen.failures.entry(output.task).or_default();
                *failures += 1;
                let pause_ms =
                    (0..*failures - 1).fold(RETRY_PAUSE_MS, |ms, _| RETRY_PAUSE_MS_MAX.min(2 * ms));
                let mut attempts = seen.attempts.iter().filter(|(o, _)| o.task == output.task);
                let another_runs = attempts.any(|(_, a)| !a.ended && !a.cancelled);
                if let Some(now_ms) = self.now_ms.filter(|_| !another_runs) {
                    seen.paused.insert(output.task, now_ms + pause_ms);
                }
            }
            Failure::InputLost(lost) => {
                seen.something_was_lost = true;
                seen.attempts.values_mut().for_each(|a| a.reads.retain(|(output, _)| !lost.contains(output)));
            }
        }
    }

    /// A query whose result is there was answered. One with a stage without tasks may wait in vain: such a stage is
    /// done when what it would read is there, whether anybody reads that or not.
    fn check_answers(&self) {
        for (query, seen) in self.queries.iter().filter(|(_, seen)| !seen.stopped && !seen.answered) {
            let is_there = |stage: &StageId| {
                let partitions = 0..seen.shape.stages[stage.0 as usize].tasks;
                let mut tasks = partitions.map(|partition| TaskId { stage: *stage, partition });
                tasks.all(|task| seen.outputs.contains_key(&task))
            };
            let may_wait = seen.shape.stages.iter().any(|s| s.tasks == 0);
            let is_done = !may_wait && seen.shape.results.iter().all(is_there);
            assert!(!is_done, "query {} waits for nothing", query.0);
        }
    }

    fn worker_lost(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        for seen in self.queries.values_mut() {
            seen.something_was_lost = true;
            seen.attempts.values_mut().filter(|a| a.worker == worker).for_each(|a| a.ended = true);
        }
    }

    fn check_outputs(
        &mut self,
        event: &Event,
        wanted: Option<Key>,
        actions: &[Action],
        scheduler: &Scheduler,
    ) {
        for (&query, seen) in &mut self.queries {
            let ends = |a: &Action| match a {
                Action::Answer { query: q } | Action::Abandon { query: q, .. } => *q == query,
                _ => false,
            };
            let wanted = wanted.filter(|(q, _)| *q == query).map(|(_, output)| output);
            if let Some(output) = wanted {
                let before = seen.outputs.get(&output.task);
                assert_eq!(before, None, "a second attempt of {output:?} has won");
                let worker = seen.attempts[&output].worker;
                seen.outputs.insert(output.task, (output.attempt, worker));
                seen.ever_finished.insert(output.task);
                seen.unreleased.insert(output.task.stage);
                let tasks = seen.shape.stages[output.task.stage.0 as usize].tasks;
                self.exchanges.kept(query, output, tasks);
            }
            if seen.answered || actions.iter().any(ends) {
                continue;
            }
            let released = |task: TaskId| actions.contains(&Action::Release { query, stage: task.stage });
            let named = |output: OutputId| match event {
                Event::TaskFailed { failure: Failure::InputLost(lost), query: q, .. } => {
                    *q == query && lost.contains(&output)
                }
                _ => false,
            };
            let lost = |output, worker: WorkerId| {
                named(output) || self.workers.get(&worker).is_none_or(|w| w.leaving)
            };
            let mut gone = vec![];
            for (number, stage) in seen.shape.stages.iter().enumerate() {
                for partition in 0..stage.tasks {
                    let task = TaskId { stage: StageId(number as u32), partition };
                    match (seen.outputs.get(&task), scheduler.output(query, task)) {
                        (Some(&ours), Some(theirs)) => {
                            assert_eq!(ours, theirs, "the output of {task:?} of query {}", query.0);
                            let there = self.workers.contains_key(&ours.1) || seen.stopped;
                            let stops = actions.contains(&Action::Stop { query });
                            assert!(there || stops, "the output of {task:?} is on a lost worker");
                        }
                        (None, Some(theirs)) => panic!("{task:?} has an output {theirs:?} that nobody made"),
                        (Some(&(attempt, worker)), None) => {
                            let output = OutputId { task, attempt };
                            let fair = released(task) || lost(output, worker);
                            assert!(fair, "{output:?} of query {} has vanished", query.0);
                            gone.push(task);
                        }
                        (None, None) => {}
                    }
                }
            }
            let mut by_release: BTreeMap<StageId, BTreeMap<TaskId, OutputId>> = BTreeMap::new();
            for task in gone {
                let (attempt, _) = seen.outputs.remove(&task).expect("it was just listed");
                let output = OutputId { task, attempt };
                if released(task) {
                    by_release.entry(task.stage).or_default().insert(task, output);
                } else {
                    self.exchanges.lost(query, output);
                }
            }
            by_release.iter().for_each(|(stage, outputs)| self.exchanges.released(query, *stage, outputs));
        }
    }
}
