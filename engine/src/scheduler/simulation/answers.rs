//! The scheduler's actions, each held against the account: may it be asked for now?

use std::collections::BTreeMap;

use dovetail_planner::graph::{Place, StageId, TaskId};

use super::super::events::{Action, Attempt, Cause, OutputId, QueryId, WorkerId};
use super::super::state::{ATTEMPTS_MAX, LOSSES_MAX, Scheduler};
use super::invariants::{Seen, SeenAttempt, Watch};

/// Speculation adds at most one attempt to each that fails or is lost.
const RUNS_MAX: u32 = 2 * (ATTEMPTS_MAX + LOSSES_MAX + 1);

impl Watch {
    pub(super) fn check_action(&mut self, action: &Action, scheduler: &Scheduler) {
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
            Action::Answer { query } => self.check_answer(query),
            Action::Finish { query } => {
                assert!(self.end(query).answered, "query {} was not answered", query.0)
            }
            Action::Abandon { query, cause } => self.check_abandon(query, cause),
            Action::Dismiss { worker } => self.check_dismiss(worker),
            Action::Disconnect { worker } => assert!(!self.workers.contains_key(&worker)),
        }
    }

    fn check_run(&mut self, query: QueryId, output: OutputId, worker: WorkerId) {
        let to = &self.workers[&worker];
        assert!(!to.leaving, "a task for a worker that leaves");
        // Checks that everything is there.
        let inputs = self.inputs(query, output.task);
        let reads = inputs.iter().map(|input| (input.output, input.holder)).collect();
        let now_ms = self.now_ms;
        let seen = self.queries.get_mut(&query).expect("a query that has not ended");
        assert!(!seen.stopped && !seen.answered, "query {} is stopped", query.0);
        let stage = &seen.shape.stages[output.task.stage.0 as usize];
        match stage.place {
            Place::Home => assert!(to.home),
            Place::Anywhere => assert!(!to.home || !self.others_have_joined),
        }
        let live = seen.attempts.iter().filter(|(o, a)| o.task == output.task && !a.ended && !a.cancelled);
        let live = live.count();
        assert!(live == 0 || (live == 1 && stage.replayable), "{live} attempts of {output:?} run already");
        assert!(!seen.outputs.contains_key(&output.task), "{output:?} is run although there is an output");
        assert!(output.attempt.0 >= seen.first_attempt, "{output:?} was used before");
        assert!(output.attempt.0 - seen.first_attempt < RUNS_MAX, "{output:?} is run without end");
        let pause = seen.paused.get(&output.task).filter(|_| live == 0);
        assert!(pause <= now_ms.as_ref(), "{output:?} has just failed");
        let new = SeenAttempt { worker, reads, cancelled: false, ended: false };
        let before = seen.attempts.insert(output, new);
        assert!(before.is_none(), "{output:?} of query {} is run twice", query.0);
    }

    fn check_release(&mut self, query: QueryId, stage: StageId) {
        let seen = self.queries.get_mut(&query).expect("a query that has not ended");
        assert!(!seen.shape.results.contains(&stage), "a result is released");
        seen.unreleased.remove(&stage);
        // What is made again after that is made for another reason.
        seen.paused.retain(|task, _| task.stage != stage);
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

    fn check_answer(&mut self, query: QueryId) {
        let seen = self.queries.get(&query).expect("a query that has not ended");
        assert!(!seen.answered && !seen.stopped, "query {} is answered too often", query.0);
        for (number, stage) in seen.shape.stages.iter().enumerate() {
            for partition in 0..stage.tasks {
                let task = TaskId { stage: StageId(number as u32), partition };
                assert!(seen.ever_finished.contains(&task), "{task:?} of query {} never finished", query.0);
            }
        }
        let kept: Vec<&StageId> = seen.unreleased.iter().collect();
        assert_eq!(kept, seen.shape.results.iter().collect::<Vec<_>>(), "stages that were not released");
        self.check_versions(query, seen);
        let seen = self.queries.get_mut(&query).expect("it was there");
        (seen.answered, seen.outputs) = (true, BTreeMap::new());
        self.exchanges.ended(query);
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
                // Of a query that was taken up, what a task did before counts as one.
                let fits = runs == attempts || (seen.first_attempt > 0 && runs + 1 == attempts);
                assert!(fits, "{runs} attempts of {task:?}, not {attempts}");
                let failures = seen.failures.get(&task).copied().unwrap_or(0);
                assert!(failures >= ATTEMPTS_MAX || attempts > LOSSES_MAX, "{task:?} is given up early");
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
            let mut wanted = seen.attempts.values().filter(|a| !a.ended && !a.cancelled && !seen.stopped);
            let reads = wanted.any(|a| a.reads.iter().any(|(_, holder)| *holder == worker));
            let needs = holds || runs || reads;
            assert!(!needs, "query {} needs worker {}, which is dismissed", query.0, worker.0);
        }
    }

    pub(super) fn check_slots(&self) {
        let mut used: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for attempt in self.queries.values().flat_map(|q| q.attempts.values()).filter(|a| !a.ended) {
            *used.entry(attempt.worker).or_default() += 1;
        }
        for (worker, used) in used {
            assert!(used <= self.workers[&worker].slots, "worker {} runs {used} attempts", worker.0);
        }
    }
}
