//! Whether the counts and sets of the state machine agree with what they are counts and sets of. Called after
//! each event in tests.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{EdgeKind, StageId, TaskId};

use super::Scheduler;
use super::query::{Ending, Query};
use super::stage::{Phase, Stage};

impl Scheduler {
    /// Panics if something does not agree.
    pub(in crate::scheduler) fn validate(&self) {
        let mut loads: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for (id, query) in &self.queries {
            query.validate();
            for (class, runnable) in self.runnable.iter().enumerate() {
                let entries: Vec<_> = runnable.iter().filter(|(_, q)| q == id).collect();
                assert_eq!(entries.len(), usize::from(query.has_ready(class)), "query {} runnable", id.0);
                assert!(entries.iter().all(|(running, _)| *running == query.running_count()));
            }
            for running in query.running.values() {
                assert!(self.workers.is_there(running.worker), "an attempt runs nowhere");
                loads.entry(running.worker).or_default().0 += 1;
            }
            for stage in &query.stages {
                let counts = query.stopping != Some(Ending::Answered);
                for kept in (0..stage.tasks()).filter_map(|t| stage.kept(t)).filter(|_| counts) {
                    loads.entry(kept.worker).or_default().1 += 1;
                    let there = self.workers.is_there(kept.worker) || query.stopping.is_some();
                    assert!(there || self.planted.is_some(), "an output is nowhere");
                }
            }
        }
        for (worker, load) in self.workers.loads() {
            assert_eq!(loads.get(&worker).copied().unwrap_or_default(), load, "load of worker {}", worker.0);
        }
        let ids: BTreeSet<_> = self.runnable.iter().flatten().map(|(_, id)| *id).collect();
        assert!(ids.iter().all(|id| self.queries.contains_key(id)), "a query that has ended is runnable");
    }
}

impl Query {
    fn validate(&self) {
        for (number, stage) in self.stages.iter().enumerate() {
            self.validate_stage(StageId(number as u32), stage);
        }
        if self.stopping == Some(Ending::Answered) {
            assert!(self.running.values().all(|r| r.cancelled), "an attempt still counts after the answer");
        }
        let unfinished = self.stages.iter().filter(|s| !s.done).count() as u32;
        assert_eq!(unfinished, self.unfinished_stages, "stages that are not done");
        for class in 0..self.ready.len() {
            let ready =
                self.stages.iter().enumerate().filter(|(_, s)| s.class() == class && !s.ready.is_empty());
            let ready: BTreeSet<_> = ready.map(|(number, s)| (s.rank, number as u32)).collect();
            assert_eq!(ready, self.ready[class], "stages with ready tasks");
        }
    }

    fn validate_stage(&self, id: StageId, stage: &Stage) {
        let count = |phase: fn(Phase) -> bool| stage.phases.iter().filter(|p| phase(**p)).count() as u32;
        assert_eq!(count(|p| !p.is_done()), stage.unfinished, "unfinished tasks of {id:?}");
        if stage.tasks() > 0 {
            assert_eq!(count(|p| p != Phase::Finished), stage.missing, "missing outputs of {id:?}");
            assert_eq!(stage.done, stage.unfinished == 0, "{id:?} is done");
        }
        let blocking = stage.inputs.iter().filter(|e| e.kind != EdgeKind::Forward);
        let blocked_by = blocking.filter(|e| self.stages[e.from.0 as usize].missing > 0).count();
        assert_eq!(blocked_by as u32, stage.blocked_by, "edges that block {id:?}");
        let readers = self.stages.iter().filter(|s| !s.done);
        let edges = readers.flat_map(|s| &s.inputs).filter(|e| e.from == id).count();
        assert_eq!(edges as u32, stage.unfinished_consumers, "unfinished consumers of {id:?}");
        let queued: Vec<u32> = stage.ready.iter().collect();
        assert_eq!(queued.len() as u32, count(|p| p == Phase::Ready), "ready tasks of {id:?}");
        for partition in 0..stage.tasks() {
            self.validate_task(TaskId { stage: id, partition }, stage, &queued);
        }
    }

    fn validate_task(&self, task: TaskId, stage: &Stage, queued: &[u32]) {
        let phase = stage.phases[task.partition as usize];
        let forward = stage.inputs.iter().filter(|e| e.kind == EdgeKind::Forward);
        let there = forward.filter(|e| self.output(TaskId { stage: e.from, ..task }).is_some()).count();
        let counted = stage.forward_there.get(task.partition as usize).copied().unwrap_or(0);
        assert_eq!(there, usize::from(counted), "forward inputs of {task:?}");
        assert_eq!(phase == Phase::Paused, self.paused.contains_key(&task), "{task:?} is paused");
        assert_eq!(phase == Phase::Ready, queued.contains(&task.partition), "{task:?} is queued");
        if self.stopping.is_some() {
            return;
        }
        let runs = self.attempts(task).any(|(_, r)| !r.cancelled);
        assert_eq!(phase == Phase::Running, runs, "{task:?} runs");
        match phase {
            Phase::Waiting => assert!(!stage.has_inputs(task.partition), "{task:?} waits for nothing"),
            Phase::Ready => assert!(stage.has_inputs(task.partition), "{task:?} is not ready"),
            Phase::Paused | Phase::Running | Phase::Finished | Phase::Gone => {}
        }
        if !phase.is_done() {
            for edge in &stage.inputs {
                let producer = &self.stages[edge.from.0 as usize];
                let gone = match edge.kind {
                    EdgeKind::Forward => producer.phases[task.partition as usize] == Phase::Gone,
                    EdgeKind::Hash | EdgeKind::Broadcast | EdgeKind::Gather | EdgeKind::Merge => {
                        producer.phases.contains(&Phase::Gone)
                    }
                };
                assert!(!gone, "{task:?} needs what nobody makes");
            }
        }
    }
}
