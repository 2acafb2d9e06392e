//! A stage that waits is taken apart: a new stage takes over everything that it waits for, and it waits for that. Or
//! it gets another number of tasks.
//!
//! What always holds: the stage's number, and whoever reads it, stay the same; none of its tasks was ever
//! started, so no attempt of theirs can be mistaken for one of the tasks that it has from now on.

use dovetail_planner::graph::{Edge, EdgeKind, StageId, TaskId};

use super::super::events::{Attempt, OutputId, StageSplit};
use super::query::Query;
use super::stage::{Phase, Stage};

impl Query {
    pub fn can_split(&self, id: StageId) -> bool {
        let Some(stage) = self.stages.get(id.0 as usize) else { return false };
        let first = TaskId { stage: id, partition: 0 };
        let last = TaskId { stage: id, partition: u32::MAX };
        let attempts = OutputId { task: first, attempt: Attempt(0) }..=OutputId {
            task: last,
            attempt: Attempt(u32::MAX),
        };
        stage.phases.iter().all(|p| *p == Phase::Waiting)
            && stage.blocked_by > 0
            && stage.forward_inputs == 0
            && self.histories.range(first..=last).next().is_none()
            && self.running.range(attempts).next().is_none()
    }

    /// Gives a stage that waits so many tasks, at least one. Nothing reads or feeds it by forward edges.
    pub fn resize(&mut self, id: StageId, tasks: u32) {
        if self.stopping.is_some() {
            return;
        }
        assert!(self.can_split(id), "stage {} is resized although it does not wait", id.0);
        let old = &mut self.stages[id.0 as usize];
        assert!(tasks > 0 && old.tasks() > 0, "stage {} has no tasks", id.0);
        old.phases = vec![Phase::Waiting; tasks as usize];
        (old.unfinished, old.missing) = (tasks, tasks);
    }

    /// Puts a new stage before one that waits. Neither has forward edges.
    pub fn split(&mut self, split: StageSplit) {
        if self.stopping.is_some() {
            return;
        }
        let StageSplit { stage: id, front, rest } = split;
        assert!(self.can_split(id), "stage {} is split although it does not wait", id.0);
        let number = id.0 as usize;
        let new = StageId(self.stages.len() as u32);
        let old = &mut self.stages[number];
        let (rank, is_result, unfinished_consumers) = (old.rank, old.is_result, old.unfinished_consumers);
        let (consumers, blocked_by) = (std::mem::take(&mut old.consumers), old.blocked_by);
        let inputs = std::mem::take(&mut old.inputs);
        // The front takes the stage's place wherever it is waited for.
        for input in &inputs {
            for (consumer, _) in &mut self.stages[input.from.0 as usize].consumers {
                if *consumer == id {
                    *consumer = new;
                }
            }
        }
        let mut front = Stage::new(front, rank);
        assert_eq!(front.forward_inputs, 0, "the front of stage {number} has a forward edge");
        (front.inputs, front.blocked_by) = (inputs, blocked_by);
        let mut rest = Stage::new(rest, rank);
        assert_eq!(rest.forward_inputs, 0, "the rest of stage {number} has a forward edge");
        let reads: Vec<Edge> = rest.inputs.clone();
        rest.is_result = is_result;
        rest.consumers = consumers;
        rest.unfinished_consumers = unfinished_consumers;
        rest.blocked_by = 0;
        self.stages[number] = rest;
        self.stages.push(front);
        self.unfinished_stages += 1;
        for edge in reads {
            assert_ne!(edge.kind, EdgeKind::Forward, "the rest of stage {number} has a forward edge");
            let producer = &mut self.stages[edge.from.0 as usize];
            producer.unfinished_consumers += 1;
            producer.consumers.push((id, false));
            let blocks = producer.missing > 0;
            self.stages[number].blocked_by += u32::from(blocks);
        }
    }
}
