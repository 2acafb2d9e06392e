//! A query that another scheduler was running when its process ended: it goes on with what its workers still hold.
//!
//! It begins as if all of it had been done and everything had been released. Then outputs that workers hold are put
//! in their places; then the result is taken for lost, and what has to run again because of that is found as for any
//! loss ([`super::loss`]): nothing that is there, and nothing that only what is there was made of.
//!
//! Which outputs are used? That of the last attempt that the log knows as its task's. Others may have been made of
//! outputs that were lost and made again since, by a worker that was taken for lost then; they are used only if
//! there is but one version of their rows, because neither their stage nor any that it reads, near or far, is one
//! that is not replayable. The same holds for attempts that still run.

use std::collections::BTreeMap;

use dovetail_planner::graph::{StageId, TaskId};

use super::super::events::{Action, Attempt, Cause, OutputId, Restored, WorkerId};
use super::planted::PlantedBug;
use super::query::{Context, History, Query, Running};
use super::stage::{Kept, Phase};

impl Query {
    /// Called once, on a query of which nothing is ready.
    pub fn restore(&mut self, restored: &Restored, cx: &mut Context) {
        self.all_gone();
        let recorded: BTreeMap<TaskId, Attempt> =
            restored.recorded.iter().filter(|o| self.is_there(o.task)).map(|o| (o.task, o.attempt)).collect();
        for &task in recorded.keys() {
            self.stages[task.stage.0 as usize].finished_ever = true;
        }
        let steady = self.steady_stages(cx);
        self.adopt_outputs(&restored.held, &recorded, &steady, cx);
        let results = (0..self.stages.len()).filter(|s| self.stages[*s].is_result);
        let results: Vec<TaskId> = results.flat_map(|s| self.tasks_of(StageId(s as u32))).collect();
        let reruns = self.plan_reruns(&results);
        for &task in &reruns {
            if recorded.contains_key(&task) {
                let again = History { next: self.first_attempt, finished: true, ..History::default() };
                self.histories.insert(task, again);
            }
            self.undone(task);
        }
        let checked = !cx.has(PlantedBug::IgnoresReplayability);
        let cannot = |task: &&TaskId| checked && recorded.contains_key(task) && !self.can_rerun(**task);
        if let Some(&task) = reruns.iter().find(cannot) {
            return self.stop(Cause::NotReplayable { task }, cx);
        }
        self.adopt_running(&restored.running, &steady, cx);
        reruns.into_iter().for_each(|task| self.try_ready(task));
        self.release_unread(cx);
    }

    fn is_there(&self, task: TaskId) -> bool {
        self.stages.get(task.stage.0 as usize).is_some_and(|s| task.partition < s.tasks())
    }

    fn tasks_of(&self, stage: StageId) -> impl Iterator<Item = TaskId> + use<> {
        (0..self.stages[stage.0 as usize].tasks()).map(move |partition| TaskId { stage, partition })
    }

    /// Every task is done and its output released. Stages without tasks are done for good.
    fn all_gone(&mut self) {
        self.unfinished_stages = 0;
        for number in 0..self.stages.len() {
            let stage = &mut self.stages[number];
            stage.phases.fill(Phase::Gone);
            stage.done = true;
            (stage.unfinished, stage.unfinished_consumers) = (0, 0);
            if stage.tasks() == 0 {
                stage.missing = 0;
                self.unblock_readers(number);
            }
        }
    }

    /// Nothing of the stage is missing: its readers do not wait for it.
    fn unblock_readers(&mut self, number: usize) {
        for consumer in 0..self.stages[number].consumers.len() {
            let (consumer, forward) = self.stages[number].consumers[consumer];
            if !forward {
                self.stages[consumer.0 as usize].blocked_by -= 1;
            }
        }
    }

    /// By stage: whether there is but one version of its rows, whoever made them and when.
    fn steady_stages(&self, cx: &Context) -> Vec<bool> {
        if cx.has(PlantedBug::AdoptsAnything) {
            return vec![true; self.stages.len()];
        }
        let mut steady: Vec<bool> = self.stages.iter().map(|s| s.replayable).collect();
        let mut todo: Vec<usize> = (0..steady.len()).filter(|s| !steady[*s]).collect();
        while let Some(stage) = todo.pop() {
            for (consumer, _) in &self.stages[stage].consumers {
                if std::mem::take(&mut steady[consumer.0 as usize]) {
                    todo.push(consumer.0 as usize);
                }
            }
        }
        steady
    }

    fn adopt_outputs(
        &mut self,
        held: &[(OutputId, WorkerId)],
        recorded: &BTreeMap<TaskId, Attempt>,
        steady: &[bool],
        cx: &mut Context,
    ) {
        let is_recorded = |output: &OutputId| recorded.get(&output.task) == Some(&output.attempt);
        let (known, others): (Vec<_>, Vec<_>) = held.iter().copied().partition(|(o, _)| is_recorded(o));
        let known = known.into_iter().map(|held| (held, true));
        for ((output, worker), known) in known.chain(others.into_iter().map(|held| (held, false))) {
            if !cx.workers.is_there(worker) {
                continue;
            }
            let OutputId { task, attempt } = output;
            let fits = self.is_there(task) && (known || steady[task.stage.0 as usize]);
            if fits && self.output(task).is_none() {
                self.adopt(task, Kept { worker, attempt }, cx);
            } else {
                cx.actions.push(Action::Discard { query: cx.query, output, worker });
            }
        }
    }

    fn adopt(&mut self, task: TaskId, kept: Kept, cx: &mut Context) {
        cx.workers.holds(kept.worker);
        let number = task.stage.0 as usize;
        let stage = &mut self.stages[number];
        stage.phases[task.partition as usize] = Phase::Finished;
        stage.keep(task.partition, kept);
        stage.finished_ever = true;
        stage.missing -= 1;
        let all = stage.missing == 0;
        for consumer in 0..self.stages[number].consumers.len() {
            let (consumer, forward) = self.stages[number].consumers[consumer];
            if forward {
                self.stages[consumer.0 as usize].forward_there[task.partition as usize] += 1;
            }
        }
        if all {
            self.unblock_readers(number);
        }
    }

    /// Attempts that run and whose outputs are needed go on, if everything that they read is there.
    fn adopt_running(&mut self, running: &[(OutputId, WorkerId)], steady: &[bool], cx: &mut Context) {
        for &(output, worker) in running {
            if !cx.workers.is_there(worker) {
                continue;
            }
            let task = output.task;
            let number = task.stage.0 as usize;
            let waits = self.is_there(task)
                && self.stages[number].phases[task.partition as usize] == Phase::Waiting
                && self.stages[number].has_inputs(task.partition);
            if waits && steady[number] && cx.workers.has_slot(worker) {
                self.stages[number].phases[task.partition as usize] = Phase::Running;
                // It counts as the task's first attempt here.
                self.histories.get_mut(&task).into_iter().for_each(|h| h.next += 1);
                self.running.insert(output, Running { worker, started_ms: cx.now_ms, cancelled: false });
                cx.workers.started(worker);
                self.note_reader(output, cx);
            } else {
                cx.actions.push(Action::Cancel { query: cx.query, output, worker });
            }
        }
    }

    /// What is there and nobody will read.
    fn release_unread(&mut self, cx: &mut Context) {
        for number in 0..self.stages.len() {
            let stage = &self.stages[number];
            let unread = stage.unfinished_consumers == 0 && !stage.is_result;
            if unread && stage.phases.contains(&Phase::Finished) {
                self.release(StageId(number as u32), cx);
            }
        }
    }
}
