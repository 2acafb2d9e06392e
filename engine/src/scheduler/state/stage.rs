//! A stage of a running query: how far its tasks are, and what waits for what. Plain data, a few bytes a task.

use std::collections::BTreeSet;
use std::ops::Range;

use dovetail_planner::graph::{Edge, EdgeKind, Place, StageId};

use super::super::events::{Attempt, GraphShape, StageShape, WorkerId};

/// Ready tasks of stages that run anywhere, and of those that run at home.
pub const ANYWHERE: usize = 0;
pub const HOME: usize = 1;

#[derive(Debug)]
pub struct Stage {
    /// Place in the order of starting; smaller goes first.
    pub rank: u32,
    pub home: bool,
    pub replayable: bool,
    pub is_result: bool,
    /// All its tasks are [`Phase::is_done`]; a stage without tasks: everything that it waits for was there.
    pub done: bool,
    /// A task of it has finished at some time, whatever became of its output.
    pub finished_ever: bool,
    pub phases: Vec<Phase>,
    pub ready: ReadyTasks,
    /// By task; of those that are finished. Empty before the first is and after the release.
    pub outputs: Vec<Kept>,
    /// Tasks that are not [`Phase::is_done`].
    pub unfinished: u32,
    /// Tasks whose output is not there. Of a stage without tasks: 1 until it is done, so that it is waited for.
    pub missing: u32,
    /// Edges, other than forward ones, of whose producer an output is missing.
    pub blocked_by: u32,
    /// Forward edges into this stage.
    pub forward_inputs: u16,
    /// For stages with forward edges: how many of a task's forward inputs are there.
    pub forward_there: Vec<u16>,
    pub inputs: Vec<Edge>,
    /// `(stage, forward)` that read this one.
    pub consumers: Vec<(StageId, bool)>,
    /// Edges out of this stage whose consumer is not done.
    pub unfinished_consumers: u32,
    /// Of the attempts that finished.
    pub run_ms_total: u64,
    pub runs: u32,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// For its inputs.
    Waiting,
    /// Its inputs are there.
    Ready,
    /// For the end of a pause after a failure, whether its inputs are there or not.
    Paused,
    /// One attempt or more that could still become its output.
    Running,
    /// Its output is there.
    Finished,
    /// It has finished, and its output is gone because nobody needs it.
    Gone,
}

impl Phase {
    /// Nothing is left to do, as far as anybody knows.
    pub fn is_done(self) -> bool {
        match self {
            Phase::Finished | Phase::Gone => true,
            Phase::Waiting | Phase::Ready | Phase::Paused | Phase::Running => false,
        }
    }
}

/// Where a task's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub worker: WorkerId,
    pub attempt: Attempt,
}

/// Ready tasks of a stage. All of them at once is the common case, and needs no list; single ones go first.
#[derive(Debug, Default)]
pub struct ReadyTasks {
    all: Range<u32>,
    single: BTreeSet<u32>,
}

impl ReadyTasks {
    /// All tasks of a stage.
    pub fn all(tasks: u32) -> Self {
        ReadyTasks { all: 0..tasks, single: BTreeSet::new() }
    }

    pub fn peek(&self) -> Option<u32> {
        self.single.first().copied().or((!self.all.is_empty()).then_some(self.all.start))
    }

    pub fn pop(&mut self) -> Option<u32> {
        self.single.pop_first().or_else(|| self.all.next())
    }

    pub fn insert(&mut self, task: u32) {
        self.single.insert(task);
    }

    pub fn remove(&mut self, task: u32) {
        if self.all.contains(&task) {
            self.single.extend(std::mem::take(&mut self.all));
        }
        self.single.remove(&task);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.single.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.single.iter().copied().chain(self.all.clone())
    }
}

impl Stage {
    /// A stage that waits. Its consumers, and what it is blocked by, are for the caller to fill in.
    pub fn new(shape: StageShape, rank: u32) -> Self {
        let StageShape { tasks, inputs, place, replayable } = shape;
        let forward = inputs.iter().filter(|e| e.kind == EdgeKind::Forward).count() as u16;
        Stage {
            rank,
            home: match place {
                Place::Home => true,
                Place::Anywhere => false,
            },
            replayable,
            is_result: false,
            done: false,
            finished_ever: false,
            phases: vec![Phase::Waiting; tasks as usize],
            ready: ReadyTasks::default(),
            outputs: vec![],
            unfinished: tasks,
            missing: tasks.max(1),
            blocked_by: inputs.len() as u32 - u32::from(forward),
            forward_inputs: forward,
            forward_there: if forward > 0 { vec![0; tasks as usize] } else { vec![] },
            inputs,
            consumers: vec![],
            unfinished_consumers: 0,
            run_ms_total: 0,
            runs: 0,
        }
    }

    /// Which set of ready tasks its own belong to.
    pub fn class(&self) -> usize {
        if self.home { HOME } else { ANYWHERE }
    }

    pub fn tasks(&self) -> u32 {
        self.phases.len() as u32
    }

    /// Whether everything that a task reads is there.
    pub fn has_inputs(&self, task: u32) -> bool {
        self.blocked_by == 0
            && (self.forward_inputs == 0 || self.forward_there[task as usize] == self.forward_inputs)
    }

    pub fn keep(&mut self, task: u32, kept: Kept) {
        if self.outputs.is_empty() {
            // Of the others nobody asks before they are finished.
            self.outputs = vec![kept; self.phases.len()];
        }
        self.outputs[task as usize] = kept;
    }

    /// The output of a task, if it is there.
    pub fn kept(&self, task: u32) -> Option<Kept> {
        let phase = self.phases.get(task as usize)?;
        (*phase == Phase::Finished).then(|| self.outputs[task as usize])
    }
}

/// The order of starting: stages linked by forward edges stand together at the place of the first of
/// them, and among these the consumer goes before its producer.
pub fn ranks(shape: &GraphShape) -> Vec<u32> {
    let mut first_of_chain: Vec<usize> = (0..shape.stages.len()).collect();
    for (position, stage) in shape.stages.iter().enumerate() {
        for edge in stage.inputs.iter().filter(|e| e.kind == EdgeKind::Forward) {
            first_of_chain[position] = first_of_chain[position].min(first_of_chain[edge.from.0 as usize]);
        }
    }
    let mut order: Vec<usize> = (0..shape.stages.len()).collect();
    order.sort_by_key(|&s| (first_of_chain[s], std::cmp::Reverse(s)));
    let mut ranks = vec![0; order.len()];
    for (rank, stage) in order.into_iter().enumerate() {
        ranks[stage] = rank as u32;
    }
    ranks
}
