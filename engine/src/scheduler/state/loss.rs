//! Outputs that were lost: what is run again because of that, and what the query cannot survive.
//!
//! First it is found out what has to run again, without changing anything ([`Query::plan_reruns`]): the lost
//! outputs that somebody still needs, and up the lineage whatever is gone of what they are made of. Then it is
//! done. Between the two stands the question whether all of it can be made again as it was: a stage that is not
//! replayable can only be run again as long as nothing that was read of it counts.
//!
//! What is running goes on: it has what it needs, or will find out that it has not.

use std::collections::BTreeSet;

use dovetail_planner::graph::{EdgeKind, StageId, TaskId};

use super::super::events::Cause;
use super::LOSSES_MAX;
use super::planted::PlantedBug;
use super::query::{Context, Query};
use super::stage::Phase;

impl Query {
    /// The outputs of these tasks, which were there, are gone. If the query cannot go on, nothing has changed but
    /// that it is to be stopped.
    pub fn lose(&mut self, lost: &[TaskId], cx: &mut Context) -> Result<(), Cause> {
        if lost.is_empty() {
            return Ok(());
        }
        let reruns = self.plan_reruns(lost);
        let checked = !cx.has(PlantedBug::IgnoresReplayability);
        if let Some(&task) = reruns.iter().find(|&&task| checked && !self.can_rerun(task)) {
            return Err(Cause::NotReplayable { task });
        }
        for &task in &reruns {
            let first = self.first_attempt;
            let history = self.history(task);
            history.losses += 1;
            history.finished = true;
            let (attempts, losses) = (history.next - first, history.losses);
            if losses > LOSSES_MAX {
                return Err(Cause::GivenUp { task, attempts });
            }
        }
        for &task in lost {
            self.drop_output(task, cx);
        }
        for &task in &reruns {
            self.undone(task);
        }
        for &task in &reruns {
            self.try_ready(task);
        }
        Ok(())
    }

    /// A worker that leaves would be missed no more: what it holds and somebody needs is made again elsewhere, as
    /// far as that is possible without stopping the query.
    pub fn evacuate(&mut self, held: &[TaskId], cx: &mut Context) {
        let reruns = self.plan_reruns(held);
        let losses = |task| self.histories.get(task).map_or(0, |h| h.losses);
        if reruns.iter().all(|task| self.can_rerun(*task) && losses(task) < LOSSES_MAX) {
            self.lose(held, cx).expect("invariant: everything can be run again");
        }
    }

    /// What has to run again if these outputs, which are there, are lost.
    pub(super) fn plan_reruns(&self, lost: &[TaskId]) -> BTreeSet<TaskId> {
        let is_lost: BTreeSet<TaskId> = lost.iter().copied().collect();
        let mut reruns: BTreeSet<TaskId> =
            lost.iter().copied().filter(|task| self.is_needed(*task)).collect();
        let mut todo: Vec<TaskId> = reruns.iter().copied().collect();
        // A stage's inputs other than forward ones are the same for all its tasks.
        let mut expanded: BTreeSet<StageId> = BTreeSet::new();
        while let Some(task) = todo.pop() {
            let whole = expanded.insert(task.stage);
            for edge in &self.stages[task.stage.0 as usize].inputs {
                let producer = &self.stages[edge.from.0 as usize];
                let read = match edge.kind {
                    EdgeKind::Forward => task.partition..task.partition + 1,
                    EdgeKind::Hash | EdgeKind::Broadcast | EdgeKind::Gather | EdgeKind::Merge => {
                        if !whole {
                            continue;
                        }
                        0..producer.tasks()
                    }
                };
                for partition in read {
                    let input = TaskId { stage: edge.from, partition };
                    let gone = producer.phases[partition as usize] == Phase::Gone || is_lost.contains(&input);
                    if gone && reruns.insert(input) {
                        todo.push(input);
                    }
                }
            }
        }
        reruns
    }

    /// Whether a task that is not done reads the output, or whoever gets the result.
    fn is_needed(&self, task: TaskId) -> bool {
        let stage = &self.stages[task.stage.0 as usize];
        let reads = |&(consumer, forward): &(StageId, bool)| {
            let consumer = &self.stages[consumer.0 as usize];
            if forward { !consumer.phases[task.partition as usize].is_done() } else { !consumer.done }
        };
        stage.is_result || stage.consumers.iter().any(reads)
    }

    /// Whether a task that had an output may run again: it would leave the same rows, or nothing that was read of
    /// them counts. An attempt that was cancelled does not count, nor one that has failed.
    pub(super) fn can_rerun(&self, task: TaskId) -> bool {
        let stage = &self.stages[task.stage.0 as usize];
        stage.replayable
            || !stage.consumers.iter().any(|&(consumer, forward)| {
                if forward {
                    self.has_read(TaskId { stage: consumer, partition: task.partition })
                } else {
                    self.stages[consumer.0 as usize].finished_ever || self.runs(consumer)
                }
            })
    }

    fn has_read(&self, reader: TaskId) -> bool {
        let finished = self.histories.get(&reader).is_some_and(|h| h.finished);
        match self.stages[reader.stage.0 as usize].phases[reader.partition as usize] {
            Phase::Running | Phase::Finished | Phase::Gone => true,
            Phase::Waiting | Phase::Ready | Phase::Paused => finished,
        }
    }

    fn runs(&self, stage: StageId) -> bool {
        self.stages[stage.0 as usize].phases.contains(&Phase::Running)
    }

    /// The output is not there any more, and until it is known better nobody needs it.
    fn drop_output(&mut self, task: TaskId, cx: &mut Context) {
        let stage = &mut self.stages[task.stage.0 as usize];
        let phase = &mut stage.phases[task.partition as usize];
        if *phase == Phase::Finished {
            *phase = Phase::Gone;
            cx.workers.drops(stage.outputs[task.partition as usize].worker);
            self.output_gone(task);
        }
    }
}
