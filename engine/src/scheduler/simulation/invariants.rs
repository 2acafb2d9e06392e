//! What is checked after every event: a second account of what the scheduler was told and has asked for, kept in
//! the plainest way, against which its answers are held.
//!
//! - One attempt of a task is its output at a time. It became so by finishing while it was wanted, and stays so
//!   until it is released or lost.
//! - Nothing is run before everything that it reads is there; nothing is released that somebody still reads.
//! - The shuffle's catalogue agrees.
//! - A query ends once, when nothing of it runs, for a cause that was there; if it finishes, every task was done,
//!   everything was released, and what was delivered was made of one version of every task's output.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{Place, StageId, TaskId};

use super::super::events::{Action, Attempt, Cause, Event, Failure, GraphShape, OutputId, QueryId, WorkerId};
use super::super::state::{ATTEMPTS_MAX, LOSSES_MAX, Scheduler};
use super::exchanges::Exchanges;
use super::graph::reads;
use super::worker::{Input, Key};

/// Speculation adds at most one attempt to each that fails or is lost.
const RUNS_MAX: u32 = 2 * (ATTEMPTS_MAX + LOSSES_MAX + 1);

#[derive(Default)]
pub struct Watch {
    pub queries: BTreeMap<QueryId, Seen>,
    workers: BTreeMap<WorkerId, SeenWorker>,
    others_have_joined: bool,
    /// What attempts have left: the content, and what it was made of.
    pub made: BTreeMap<Key, Made>,
    exchanges: Exchanges,
}

#[derive(Clone)]
pub struct Made {
    pub content: u64,
    pub read: Vec<(TaskId, u64)>,
}

/// A query that has not ended.
pub struct Seen {
    pub shape: GraphShape,
    attempts: BTreeMap<OutputId, SeenAttempt>,
    outputs: BTreeMap<TaskId, (Attempt, WorkerId)>,
    ever_finished: BTreeSet<TaskId>,
    unreleased: BTreeSet<StageId>,
    stopped: bool,
    cancelled: bool,
    fatal: BTreeSet<TaskId>,
    failures: BTreeMap<TaskId, u32>,
    something_was_lost: bool,
}

struct SeenAttempt {
    worker: WorkerId,
    cancelled: bool,
    ended: bool,
}

struct SeenWorker {
    slots: u32,
    home: bool,
    leaving: bool,
}

impl Watch {
    /// Called after the scheduler has answered an event.
    pub fn check(&mut self, event: &Event, actions: &[Action], scheduler: &Scheduler) {
        let wanted = self.take_in(event);
        for action in actions {
            if let Action::Disconnect { worker } = action {
                self.worker_lost(*worker);
            }
        }
        self.check_outputs(event, wanted, actions, scheduler);
        actions.iter().for_each(|action| self.check_action(action, scheduler));
        self.check_slots();
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
                    stopped: false,
                    cancelled: false,
                    fatal: BTreeSet::new(),
                    failures: BTreeMap::new(),
                    something_was_lost: false,
                };
                self.queries.insert(*query, seen);
            }
            Event::WorkerJoined { worker, slots, home } => {
                self.workers.insert(*worker, SeenWorker { slots: *slots, home: *home, leaving: false });
                self.others_have_joined |= !home;
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
            Event::QueryCancelled { query } => {
                self.queries.get_mut(query).into_iter().for_each(|q| q.cancelled = true);
            }
            Event::WorkerHeard { .. } | Event::Ticked { .. } => {}
        }
        None
    }

    fn attempt_ended(&mut self, query: QueryId, output: OutputId, worker: WorkerId) -> bool {
        let Some(seen) = self.queries.get_mut(&query) else { return false };
        let Some(attempt) = seen.attempts.get_mut(&output) else { return false };
        if attempt.worker != worker || std::mem::replace(&mut attempt.ended, true) {
            return false;
        }
        !attempt.cancelled && !seen.stopped
    }

    fn attempt_failed(&mut self, query: QueryId, output: OutputId, failure: &Failure) {
        let seen = self.queries.get_mut(&query).expect("it was there");
        match failure {
            Failure::Fatal => {
                seen.fatal.insert(output.task);
            }
            Failure::Transient | Failure::Stopped => *seen.failures.entry(output.task).or_default() += 1,
            Failure::InputLost(_) => seen.something_was_lost = true,
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
                Action::Finish { query: q } | Action::Abandon { query: q, .. } => *q == query,
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
            if actions.iter().any(ends) {
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

    fn check_action(&mut self, action: &Action, scheduler: &Scheduler) {
        match *action {
            Action::Run { query, output, worker } => self.check_run(query, output, worker),
            Action::Cancel { query, output, worker } => {
                let seen = self.queries.get_mut(&query).expect("a query that has not ended");
                let attempt = seen.attempts.get_mut(&output).expect("an attempt that was started");
                assert!(attempt.worker == worker && !attempt.ended && !attempt.cancelled);
                attempt.cancelled = true;
            }
            Action::Discard { query, output, worker } => {
                assert!(self.workers.contains_key(&worker), "nobody is there to discard {output:?}");
                assert_ne!(scheduler.output(query, output.task), Some((output.attempt, worker)));
            }
            Action::Release { query, stage } => self.check_release(query, stage),
            Action::Stop { query } => {
                let seen = self.queries.get_mut(&query).expect("a query that has not ended");
                assert!(!std::mem::replace(&mut seen.stopped, true), "query {} is stopped twice", query.0);
            }
            Action::Finish { query } => self.check_finish(query),
            Action::Abandon { query, cause } => self.check_abandon(query, cause),
            Action::Dismiss { worker } => self.check_dismiss(worker),
            Action::Disconnect { worker } => assert!(!self.workers.contains_key(&worker)),
        }
    }

    fn check_run(&mut self, query: QueryId, output: OutputId, worker: WorkerId) {
        let to = &self.workers[&worker];
        assert!(!to.leaving, "a task for a worker that leaves");
        // Checks that everything is there.
        self.inputs(query, output.task);
        let seen = self.queries.get_mut(&query).expect("a query that has not ended");
        assert!(!seen.stopped, "query {} is stopped", query.0);
        let stage = &seen.shape.stages[output.task.stage.0 as usize];
        match stage.place {
            Place::Home => assert!(to.home),
            Place::Anywhere => assert!(!to.home || !self.others_have_joined),
        }
        let live = seen.attempts.iter().filter(|(o, a)| o.task == output.task && !a.ended && !a.cancelled);
        let live = live.count();
        assert!(live == 0 || (live == 1 && stage.replayable), "{live} attempts of {output:?} run already");
        assert!(!seen.outputs.contains_key(&output.task), "{output:?} is run although there is an output");
        assert!(output.attempt.0 < RUNS_MAX, "{output:?} is run without end");
        let new = SeenAttempt { worker, cancelled: false, ended: false };
        let before = seen.attempts.insert(output, new);
        assert!(before.is_none(), "{output:?} of query {} is run twice", query.0);
    }

    fn check_release(&mut self, query: QueryId, stage: StageId) {
        let seen = self.queries.get_mut(&query).expect("a query that has not ended");
        assert!(!seen.shape.results.contains(&stage), "a result is released");
        seen.unreleased.remove(&stage);
        for (number, consumer) in seen.shape.stages.iter().enumerate() {
            if consumer.inputs.iter().any(|e| e.from == stage) {
                for partition in 0..consumer.tasks {
                    let task = TaskId { stage: StageId(number as u32), partition };
                    assert!(seen.ever_finished.contains(&task), "{stage:?} is released before {task:?}");
                    let mut attempts = seen.attempts.iter().filter(|(o, _)| o.task == task);
                    let reads = attempts.any(|(_, a)| !a.ended && !a.cancelled);
                    assert!(!reads, "{stage:?} is released while {task:?} reads it");
                }
            }
        }
    }

    fn check_finish(&mut self, query: QueryId) {
        let seen = self.end(query);
        for (number, stage) in seen.shape.stages.iter().enumerate() {
            for partition in 0..stage.tasks {
                let task = TaskId { stage: StageId(number as u32), partition };
                assert!(seen.ever_finished.contains(&task), "{task:?} of query {} never finished", query.0);
            }
        }
        let kept: Vec<&StageId> = seen.unreleased.iter().collect();
        assert_eq!(kept, seen.shape.results.iter().collect::<Vec<_>>(), "stages that were not released");
        self.check_versions(query, &seen);
    }

    /// What was delivered is made of one version of every task's output.
    fn check_versions(&self, query: QueryId, seen: &Seen) {
        let of_query =
            (query, OutputId { task: TaskId { stage: StageId(0), partition: 0 }, attempt: Attempt(0) });
        let made = self.made.range(of_query..).take_while(|((q, _), _)| *q == query);
        let read_by: BTreeMap<u64, &[(TaskId, u64)]> = made.map(|(_, m)| (m.content, &m.read[..])).collect();
        let mut versions: BTreeMap<TaskId, u64> = BTreeMap::new();
        let mut todo: Vec<(TaskId, u64)> = vec![];
        for result in &seen.shape.results {
            let task = TaskId { stage: *result, partition: 0 };
            let (attempt, _) = seen.outputs[&task];
            todo.push((task, self.made[&(query, OutputId { task, attempt })].content));
        }
        while let Some((task, content)) = todo.pop() {
            match versions.insert(task, content) {
                None => todo.extend(read_by[&content]),
                Some(before) => {
                    assert_eq!(before, content, "two versions of {task:?} of query {} were read", query.0);
                }
            }
        }
    }

    fn check_abandon(&mut self, query: QueryId, cause: Cause) {
        let seen = self.end(query);
        assert!(seen.stopped, "query {} is abandoned and was not stopped", query.0);
        match cause {
            Cause::Failed { task } => assert!(seen.fatal.contains(&task)),
            Cause::GivenUp { task, attempts } => {
                let runs = seen.attempts.keys().filter(|o| o.task == task).count() as u32;
                assert_eq!(runs, attempts, "attempts of {task:?}");
                let failures = seen.failures.get(&task).copied().unwrap_or(0);
                assert!(failures >= ATTEMPTS_MAX || runs > LOSSES_MAX, "{task:?} is given up early");
            }
            Cause::Cancelled => assert!(seen.cancelled),
            // The world knows when workers are replaced.
            Cause::NoWorkers => {}
            Cause::NotReplayable { task } => {
                assert!(seen.something_was_lost && !seen.shape.stages[task.stage.0 as usize].replayable);
            }
        }
    }

    fn end(&mut self, query: QueryId) -> Seen {
        let seen = self.queries.remove(&query).expect("a query ends once");
        assert!(seen.attempts.values().all(|a| a.ended), "query {} ends while it runs", query.0);
        self.exchanges.ended(query);
        seen
    }

    fn check_dismiss(&mut self, worker: WorkerId) {
        assert!(self.workers[&worker].leaving, "a worker is dismissed that wants to stay");
        for (query, seen) in &self.queries {
            let holds = seen.outputs.values().any(|(_, w)| *w == worker);
            let runs = seen.attempts.values().any(|a| a.worker == worker && !a.ended);
            assert!(!holds && !runs, "query {} needs worker {}, which is dismissed", query.0, worker.0);
        }
    }

    fn check_slots(&self) {
        let mut used: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for attempt in self.queries.values().flat_map(|q| q.attempts.values()).filter(|a| !a.ended) {
            *used.entry(attempt.worker).or_default() += 1;
        }
        for (worker, used) in used {
            assert!(used <= self.workers[&worker].slots, "worker {} runs {used} attempts", worker.0);
        }
    }
}
