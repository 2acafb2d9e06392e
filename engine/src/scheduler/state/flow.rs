//! How the tasks of a query depend on each other: what becomes ready when an output is made, what has to wait
//! again when one is gone, and when a stage's outputs are released.
//!
//! What always holds between events:
//! - [`Stage::missing`](super::stage::Stage::missing), `blocked_by` and `forward_there` count what is not there,
//!   or is; a task that waits and has all its inputs is ready;
//! - an output is [`Phase::Gone`] only if nobody needs it: no task that is not done reads it.
//!
//! Chains of stages may be a million long, so nothing here recurses.

use dovetail_planner::graph::{StageId, TaskId};

use super::super::events::Action;
use super::planted::PlantedBug;
use super::query::{Context, Query};
use super::stage::{Kept, Phase, ReadyTasks};

impl Query {
    /// Opens the stages that wait for nothing.
    pub fn open_first(&mut self, cx: &mut Context) {
        // Chosen before any is opened: a stage without tasks ends at once and opens others itself.
        let open: Vec<usize> = (0..self.stages.len()).filter(|&s| self.stages[s].blocked_by == 0).collect();
        for stage in open {
            if self.open(stage) {
                self.stage_done(stage, cx);
                self.all_there(stage, cx);
            }
        }
    }

    pub fn has_ready(&self, class: usize) -> bool {
        self.stopping.is_none() && !self.ready[class].is_empty()
    }

    /// The next ready task, without taking it.
    pub fn next_ready(&self, class: usize) -> Option<TaskId> {
        let &(_, stage) = self.ready[class].first()?;
        let partition = self.stages[stage as usize].ready.peek()?;
        Some(TaskId { stage: StageId(stage), partition })
    }

    /// Takes the next ready task. It stays [`Phase::Ready`] until it is started or put back.
    pub fn take_ready(&mut self, class: usize) {
        let &(rank, stage) = self.ready[class].first().expect("invariant: only called with ready tasks");
        let ready = &mut self.stages[stage as usize].ready;
        ready.pop().expect("invariant: a stage in the ready set has a ready task");
        if ready.is_empty() {
            self.ready[class].remove(&(rank, stage));
        }
    }

    pub fn put_back(&mut self, task: TaskId) {
        let stage = &mut self.stages[task.stage.0 as usize];
        stage.ready.insert(task.partition);
        self.ready[stage.class()].insert((stage.rank, task.stage.0));
    }

    /// If everything that a waiting task reads is there, it is ready.
    pub fn try_ready(&mut self, task: TaskId) {
        let stage = &mut self.stages[task.stage.0 as usize];
        if stage.phases[task.partition as usize] == Phase::Waiting && stage.has_inputs(task.partition) {
            stage.phases[task.partition as usize] = Phase::Ready;
            self.put_back(task);
        }
    }

    /// A task has an output.
    pub fn output_made(&mut self, task: TaskId, kept: Kept, cx: &mut Context) {
        cx.workers.holds(kept.worker);
        let number = task.stage.0 as usize;
        let stage = &mut self.stages[number];
        if cx.has(PlantedBug::AcceptsTheSecond) && stage.phases[task.partition as usize].is_done() {
            return stage.keep(task.partition, kept);
        }
        stage.phases[task.partition as usize] = Phase::Finished;
        stage.keep(task.partition, kept);
        stage.finished_ever = true;
        stage.missing -= 1;
        stage.unfinished -= 1;
        let done = stage.unfinished == 0;
        for consumer in 0..self.stages[number].consumers.len() {
            let (consumer, forward) = self.stages[number].consumers[consumer];
            if forward {
                self.stages[consumer.0 as usize].forward_there[task.partition as usize] += 1;
                self.try_ready(TaskId { stage: consumer, partition: task.partition });
            }
        }
        if done {
            self.stage_done(number, cx);
        }
        if self.stages[number].missing == 0 {
            self.all_there(number, cx);
        }
    }

    /// An output that was there is not any more; its task's phase has been changed. Whoever has not started to
    /// read it waits again.
    pub fn output_gone(&mut self, task: TaskId) {
        let number = task.stage.0 as usize;
        self.stages[number].missing += 1;
        let first = self.stages[number].missing == 1;
        for consumer in 0..self.stages[number].consumers.len() {
            let (consumer, forward) = self.stages[number].consumers[consumer];
            if forward {
                self.forward_gone(consumer, task.partition);
            } else if first {
                self.block(consumer);
            }
        }
    }

    /// A task whose output was gone will be run again.
    pub fn undone(&mut self, task: TaskId) {
        let number = task.stage.0 as usize;
        let stage = &mut self.stages[number];
        stage.phases[task.partition as usize] = Phase::Waiting;
        stage.unfinished += 1;
        if stage.done {
            stage.done = false;
            self.unfinished_stages += 1;
            for input in 0..self.stages[number].inputs.len() {
                let edge = self.stages[number].inputs[input];
                self.stages[edge.from.0 as usize].unfinished_consumers += 1;
            }
        }
    }

    /// The stage is done; what only it was reading is released, and so on: a stage that was being made again and
    /// is not needed any more ends with that.
    fn stage_done(&mut self, stage: usize, cx: &mut Context) {
        self.stages[stage].done = true;
        let mut done = vec![stage];
        while let Some(stage) = done.pop() {
            self.unfinished_stages -= 1;
            for input in 0..self.stages[stage].inputs.len() {
                let from = self.stages[stage].inputs[input].from;
                let producer = &mut self.stages[from.0 as usize];
                producer.unfinished_consumers -= 1;
                let unread = producer.unfinished_consumers == 0;
                let unread = unread || (cx.has(PlantedBug::ReleasesEarly) && producer.unfinished == 0);
                if unread && !producer.is_result && self.release(from, cx) {
                    done.push(from.0 as usize);
                }
            }
        }
    }

    /// Nobody reads the stage any more. Says whether that has ended it.
    pub(super) fn release(&mut self, id: StageId, cx: &mut Context) -> bool {
        cx.actions.push(Action::Release { query: cx.query, stage: id });
        let number = id.0 as usize;
        let tasks = self.stages[number].tasks();
        if tasks == 0 {
            return false;
        }
        for partition in 0..tasks {
            let stage = &mut self.stages[number];
            let before = std::mem::replace(&mut stage.phases[partition as usize], Phase::Gone);
            match before {
                Phase::Finished => {
                    cx.workers.drops(stage.outputs[partition as usize].worker);
                    self.output_gone(TaskId { stage: id, partition });
                }
                Phase::Running => self.cancel_attempts(TaskId { stage: id, partition }, cx),
                Phase::Paused => drop(self.paused.remove(&TaskId { stage: id, partition })),
                Phase::Waiting | Phase::Ready | Phase::Gone => {}
            }
        }
        let stage = &mut self.stages[number];
        stage.outputs = vec![];
        stage.ready = ReadyTasks::default();
        stage.unfinished = 0;
        self.ready[stage.class()].remove(&(stage.rank, id.0));
        !std::mem::replace(&mut stage.done, true)
    }

    /// All outputs of a stage are there: what has waited for that is opened.
    fn all_there(&mut self, stage: usize, cx: &mut Context) {
        let mut there = vec![stage];
        while let Some(stage) = there.pop() {
            for consumer in 0..self.stages[stage].consumers.len() {
                let (consumer, forward) = self.stages[stage].consumers[consumer];
                if forward {
                    continue;
                }
                let consumer = consumer.0 as usize;
                self.stages[consumer].blocked_by -= 1;
                if self.stages[consumer].blocked_by == 0 && self.open(consumer) {
                    self.stage_done(consumer, cx);
                    there.push(consumer);
                }
            }
        }
    }

    /// Whatever a stage waited for as a whole is there: its tasks are ready, or wait for forward inputs only.
    /// Says whether the stage has no tasks, and is done with that.
    fn open(&mut self, number: usize) -> bool {
        let stage = &mut self.stages[number];
        if stage.phases.is_empty() {
            return std::mem::take(&mut stage.missing) > 0;
        }
        if stage.forward_inputs == 0 && stage.phases.iter().all(|p| *p == Phase::Waiting) {
            stage.phases.fill(Phase::Ready);
            stage.ready = ReadyTasks::all(stage.tasks());
        } else {
            for partition in 0..stage.tasks() {
                if stage.phases[partition as usize] == Phase::Waiting && stage.has_inputs(partition) {
                    stage.phases[partition as usize] = Phase::Ready;
                    stage.ready.insert(partition);
                }
            }
        }
        if !stage.ready.is_empty() {
            self.ready[stage.class()].insert((stage.rank, number as u32));
        }
        false
    }

    /// A stage waits for one more of its inputs.
    fn block(&mut self, id: StageId) {
        let stage = &mut self.stages[id.0 as usize];
        stage.blocked_by += 1;
        for partition in std::mem::take(&mut stage.ready).iter() {
            stage.phases[partition as usize] = Phase::Waiting;
        }
        self.ready[stage.class()].remove(&(stage.rank, id.0));
    }

    /// A task waits for one more of its forward inputs.
    fn forward_gone(&mut self, id: StageId, partition: u32) {
        let stage = &mut self.stages[id.0 as usize];
        stage.forward_there[partition as usize] -= 1;
        let phase = &mut stage.phases[partition as usize];
        if *phase == Phase::Ready {
            *phase = Phase::Waiting;
            stage.ready.remove(partition);
            if stage.ready.is_empty() {
                self.ready[stage.class()].remove(&(stage.rank, id.0));
            }
        }
    }
}
