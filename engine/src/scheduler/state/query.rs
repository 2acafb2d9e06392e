//! A query that runs: its stages, its running attempts, and what an attempt's start and end do to them.
//!
//! What always holds: a task is [`Phase::Running`] exactly if one of its attempts runs and was not cancelled;
//! only such an attempt can become its output. An attempt that was cancelled holds its slot until it ends, and
//! whatever it says then is not used.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{EdgeKind, StageId, TaskId};

use super::super::events::{Action, Attempt, Cause, Failure, GraphShape, OutputId, QueryId, WorkerId};
use super::planted::PlantedBug;
use super::stage::{Kept, Phase, Stage, ranks};
use super::workers::Workers;
use super::{ATTEMPTS_MAX, LOSSES_MAX};

#[derive(Debug)]
pub struct Query {
    pub(super) stages: Vec<Stage>,
    /// Stages with ready tasks, by rank; see [`Stage::class`].
    pub(super) ready: [BTreeSet<(u32, u32)>; 2],
    pub(super) running: BTreeMap<OutputId, Running>,
    /// Of tasks that do not run for the first time, or not once.
    pub(super) histories: BTreeMap<TaskId, History>,
    /// Tasks that are [`Phase::Paused`], and until when.
    pub(super) paused: BTreeMap<TaskId, u64>,
    pub(super) unfinished_stages: u32,
    /// Only waiting for running attempts to end.
    pub(super) stopping: Option<Ending>,
    pub(super) submitted_ms: u64,
    /// Number of each task's first attempt; not 0 in a query that was restored.
    pub(super) first_attempt: u32,
}

/// How a query will have ended when its last attempt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Answered,
    /// Failed or cancelled.
    Abandoned(Cause),
}

/// An attempt that has not ended.
#[derive(Debug)]
pub struct Running {
    pub worker: WorkerId,
    pub started_ms: u64,
    pub cancelled: bool,
}

/// What a task has been through.
#[derive(Debug, Default)]
pub struct History {
    /// The number of the next attempt.
    pub next: u32,
    pub failures: u32,
    pub losses: u32,
    /// It had an output once.
    pub finished: bool,
    /// At most [`ATTEMPTS_MAX`].
    pub failed_on: Vec<WorkerId>,
}

/// What a query needs of the rest while it changes.
pub struct Context<'a> {
    pub query: QueryId,
    pub workers: &'a mut Workers,
    pub actions: &'a mut Vec<Action>,
    pub now_ms: u64,
    /// Whether the time is told at all.
    pub has_clock: bool,
    #[cfg(test)]
    pub planted: Option<PlantedBug>,
}

impl Query {
    /// Nothing of it is ready yet.
    pub fn new(shape: GraphShape, now_ms: u64) -> Self {
        let ranks = ranks(&shape);
        let mut stages: Vec<Stage> =
            shape.stages.into_iter().zip(ranks).map(|(shape, rank)| Stage::new(shape, rank)).collect();
        for position in 0..stages.len() {
            for input in 0..stages[position].inputs.len() {
                let edge = stages[position].inputs[input];
                let producer = &mut stages[edge.from.0 as usize];
                producer.consumers.push((StageId(position as u32), edge.kind == EdgeKind::Forward));
                producer.unfinished_consumers += 1;
            }
        }
        for result in &shape.results {
            stages[result.0 as usize].is_result = true;
        }
        Query {
            unfinished_stages: stages.len() as u32,
            stages,
            ready: Default::default(),
            running: BTreeMap::new(),
            histories: BTreeMap::new(),
            paused: BTreeMap::new(),
            stopping: None,
            submitted_ms: now_ms,
            first_attempt: 0,
        }
    }

    pub fn running_count(&self) -> u32 {
        self.running.len() as u32
    }

    /// If all stages are done: the result is given now, whoever still runs in vain.
    pub fn answer(&mut self, cx: &mut Context) {
        let is_late = cx.has(PlantedBug::AnswersLate) && !self.running.is_empty();
        if self.stopping.is_none() && self.unfinished_stages == 0 && !is_late {
            self.forget_outputs(cx);
            self.stopping = Some(Ending::Answered);
            cx.actions.push(Action::Answer { query: cx.query });
        }
    }

    /// Whether it has ended, and how.
    pub fn end(&self) -> Option<Ending> {
        self.stopping.filter(|_| self.running.is_empty())
    }

    pub fn is_wanted(&self, output: OutputId, worker: WorkerId) -> bool {
        let runs = |r: &Running| r.worker == worker && !r.cancelled;
        self.stopping.is_none() && self.running.get(&output).is_some_and(runs)
    }

    pub fn output(&self, task: TaskId) -> Option<(Attempt, WorkerId)> {
        let stage =
            self.stages.get(task.stage.0 as usize).filter(|_| self.stopping != Some(Ending::Answered))?;
        let kept = stage.kept(task.partition)?;
        Some((kept.attempt, kept.worker))
    }

    /// No task of it will be started any more.
    pub fn stop(&mut self, cause: Cause, cx: &mut Context) {
        if self.stopping.is_none() {
            self.stopping = Some(Ending::Abandoned(cause));
            cx.actions.push(Action::Stop { query: cx.query });
        }
    }

    /// Starts a ready task, or a further attempt of a running one.
    pub fn start(&mut self, task: TaskId, worker: WorkerId, cx: &mut Context) {
        let phase = &mut self.stages[task.stage.0 as usize].phases[task.partition as usize];
        let again = match phase {
            Phase::Ready => false,
            Phase::Running => true,
            Phase::Waiting | Phase::Paused | Phase::Finished | Phase::Gone => {
                panic!("{task:?} of query {} is started while {phase:?}", cx.query.0)
            }
        };
        *phase = Phase::Running;
        let attempt = if again || self.histories.contains_key(&task) {
            let history = self.history(task);
            history.next += 1;
            Attempt(history.next - 1)
        } else {
            Attempt(self.first_attempt)
        };
        let output = OutputId { task, attempt };
        self.running.insert(output, Running { worker, started_ms: cx.now_ms, cancelled: false });
        cx.workers.started(worker);
        self.note_reader(output, cx);
        cx.actions.push(Action::Run { query: cx.query, output, worker });
    }

    pub fn finished(&mut self, output: OutputId, worker: WorkerId, cx: &mut Context) {
        let ended = self.attempt_ended(output, worker, cx);
        if self.stopping.is_some() {
            return;
        }
        let stands = ended.as_ref().is_some_and(|r| !r.cancelled);
        let stands = stands || (cx.has(PlantedBug::AcceptsTheSecond) && ended.is_some());
        let Some(running) = ended.filter(|_| stands) else {
            // A second report of what is the task's output already changes nothing.
            if self.output(output.task) != Some((output.attempt, worker)) && cx.workers.is_there(worker) {
                cx.actions.push(Action::Discard { query: cx.query, output, worker });
            }
            return;
        };
        self.cancel_attempts(output.task, cx);
        let stage = &mut self.stages[output.task.stage.0 as usize];
        stage.runs += 1;
        stage.run_ms_total += cx.now_ms - running.started_ms;
        self.output_made(output.task, Kept { worker, attempt: output.attempt }, cx);
    }

    pub fn failed(&mut self, output: OutputId, worker: WorkerId, failure: Failure, cx: &mut Context) {
        let ended = self.attempt_ended(output, worker, cx);
        if self.stopping.is_some() || ended.is_none_or(|r| r.cancelled) {
            return;
        }
        let task = output.task;
        let (is_its_own, lost) = match failure {
            Failure::Fatal => return self.stop(Cause::Failed { task }, cx),
            // One that has stopped without having been told to has failed.
            Failure::Transient | Failure::Stopped => (true, vec![]),
            Failure::InputLost(outputs) => (false, outputs),
        };
        let first = self.first_attempt;
        let history = self.history(task);
        if is_its_own {
            history.failures += 1;
            history.failed_on.push(worker);
        } else {
            history.losses += 1;
        }
        let (attempts, given_up) =
            (history.next - first, history.failures >= ATTEMPTS_MAX || history.losses > LOSSES_MAX);
        if given_up {
            return self.stop(Cause::GivenUp { task, attempts }, cx);
        }
        self.runs_no_more(task);
        // Only what is a task's output now: others have told of it before, and it is being made again.
        let is_there = |o: &OutputId| self.output(o.task).is_some_and(|(attempt, _)| attempt == o.attempt);
        let lost: Vec<TaskId> = lost.iter().filter(|o| is_there(o)).map(|o| o.task).collect();
        if let Err(cause) = self.lose(&lost, cx) {
            return self.stop(cause, cx);
        }
        if is_its_own {
            self.pause(task, cx);
        }
        self.try_ready(task);
    }

    /// Everything that the worker ran and held for this query.
    pub fn worker_lost(&mut self, worker: WorkerId, cx: &mut Context) {
        let gone: Vec<OutputId> =
            self.running.iter().filter(|(_, r)| r.worker == worker).map(|(output, _)| *output).collect();
        let mut ended = vec![];
        for output in gone {
            let running = self.running.remove(&output).expect("invariant: it was just listed");
            cx.workers.reads_no_more((cx.query, output));
            if !running.cancelled {
                ended.push(output.task);
            }
        }
        if self.stopping.is_some() {
            return;
        }
        for &task in &ended {
            let first = self.first_attempt;
            let history = self.history(task);
            history.losses += 1;
            let (attempts, losses) = (history.next - first, history.losses);
            if losses > LOSSES_MAX {
                return self.stop(Cause::GivenUp { task, attempts }, cx);
            }
            self.runs_no_more(task);
        }
        let lost = if cx.has(PlantedBug::ForgetsLostOutputs) { vec![] } else { self.held_by(worker) };
        if let Err(cause) = self.lose(&lost, cx) {
            return self.stop(cause, cx);
        }
        ended.into_iter().for_each(|task| self.try_ready(task));
    }

    /// The tasks whose outputs a worker holds.
    pub fn held_by(&self, worker: WorkerId) -> Vec<TaskId> {
        let mut held = vec![];
        for (number, stage) in self.stages.iter().enumerate().filter(|(_, s)| !s.outputs.is_empty()) {
            for partition in 0..stage.tasks() {
                if stage.kept(partition).is_some_and(|k| k.worker == worker) {
                    held.push(TaskId { stage: StageId(number as u32), partition });
                }
            }
        }
        held
    }

    /// The outputs count for their workers no more.
    pub fn forget_outputs(&mut self, cx: &mut Context) {
        for stage in self.stages.iter().filter(|s| !s.outputs.is_empty()) {
            for kept in (0..stage.tasks()).filter_map(|task| stage.kept(task)) {
                cx.workers.drops(kept.worker);
            }
        }
    }

    /// The attempts of a task that still run.
    pub fn attempts(&self, task: TaskId) -> impl Iterator<Item = (OutputId, &Running)> {
        let output = |attempt| OutputId { task, attempt };
        self.running.range(output(Attempt(0))..=output(Attempt(u32::MAX))).map(|(o, r)| (*o, r))
    }

    /// The history of a task that was started at least once.
    pub fn history(&mut self, task: TaskId) -> &mut History {
        let next = self.first_attempt + 1;
        self.histories.entry(task).or_insert(History { next, ..History::default() })
    }

    /// Asks all running attempts of a task to stop: none of them will be its output.
    pub fn cancel_attempts(&mut self, task: TaskId, cx: &mut Context) {
        let all = OutputId { task, attempt: Attempt(0) }..=OutputId { task, attempt: Attempt(u32::MAX) };
        for (&output, running) in self.running.range_mut(all) {
            if !running.cancelled {
                running.cancelled = true;
                cx.workers.reads_no_more((cx.query, output));
                cx.actions.push(Action::Cancel { query: cx.query, output, worker: running.worker });
            }
        }
    }

    /// Frees the slot of an attempt, if it ran there: a second report, or one of a worker that is not its own,
    /// ends nothing.
    fn attempt_ended(&mut self, output: OutputId, worker: WorkerId, cx: &mut Context) -> Option<Running> {
        if self.running.get(&output)?.worker != worker {
            return None;
        }
        cx.workers.ended(worker);
        cx.workers.reads_no_more((cx.query, output));
        self.running.remove(&output)
    }

    /// An attempt has ended without an output. The task waits again, unless another attempt of it runs.
    fn runs_no_more(&mut self, task: TaskId) {
        let live = self.attempts(task).any(|(_, r)| !r.cancelled);
        let phase = &mut self.stages[task.stage.0 as usize].phases[task.partition as usize];
        if !live && *phase == Phase::Running {
            *phase = Phase::Waiting;
        }
    }
}
