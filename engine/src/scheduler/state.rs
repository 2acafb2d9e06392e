//! The scheduler's state machine: events in, actions out.
//!
//! What always holds:
//! - a task is run once all tasks that its edges name are finished, and never twice;
//! - a stage's outputs are released once, after every stage that reads them has finished;
//! - every submitted query ends in exactly one `Finish` or `Abandon`, after its last task has ended;
//! - a stage is split only while it waits; its number and whoever reads it stay the same;
//! - ready tasks start depth first: the planner numbers stages so that a subtree comes before the next
//!   one, and along forward edges a consumer goes before further producers, so intermediates die young.
//!
//! Cost: a few bytes a task (a phase, and for ready tasks an entry in their stage's queue) and amortised
//! constant time an event; `cargo bench -p dovetail-engine --bench scheduler` measures it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dovetail_planner::graph::{EdgeKind, StageId, TaskId};

use super::events::{Action, Event, GraphShape, QueryId, StageSplit, WorkerId};

/// The state of all queries and workers.
#[derive(Debug, Default)]
pub struct Scheduler {
    queries: BTreeMap<QueryId, Query>,
    /// Queries with ready tasks, by running tasks, then age: the one with the fewest goes first.
    runnable: BTreeSet<(u32, QueryId)>,
    /// Free slots of each worker that has any.
    free: BTreeMap<WorkerId, u32>,
}

#[derive(Debug)]
struct Query {
    stages: Vec<Stage>,
    /// Stages with ready tasks, by rank.
    ready: BTreeSet<(u32, u32)>,
    running: u32,
    unfinished_stages: u32,
    /// Failed or cancelled: only waiting for running tasks to end.
    stopping: bool,
}

#[derive(Debug)]
struct Stage {
    /// Place in the order of starting; smaller goes first.
    rank: u32,
    phases: Vec<Phase>,
    ready: ReadyTasks,
    unfinished_tasks: u32,
    /// Edges whose producer must finish as a whole before any task may start.
    blocking_inputs: u32,
    /// Forward edges into this stage.
    forward_inputs: u32,
    /// For stages with forward edges: finished producers by task.
    forward_done: Vec<u16>,
    inputs: Vec<StageId>,
    /// `(stage, forward)` that read this one.
    consumers: Vec<(StageId, bool)>,
    unfinished_consumers: u32,
    is_result: bool,
}

/// A task's way; there is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Ready,
    Running,
    Finished,
}

/// Ready tasks of a stage. All of them at once is the common case, and needs no list.
#[derive(Debug)]
enum ReadyTasks {
    Range { next: u32, end: u32 },
    List(VecDeque<u32>),
}

impl ReadyTasks {
    fn pop(&mut self) -> Option<u32> {
        match self {
            ReadyTasks::Range { next, end } if *next < *end => {
                *next += 1;
                Some(*next - 1)
            }
            ReadyTasks::Range { .. } => None,
            ReadyTasks::List(list) => list.pop_front(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            ReadyTasks::Range { next, end } => next >= end,
            ReadyTasks::List(list) => list.is_empty(),
        }
    }
}

impl Scheduler {
    /// A scheduler without workers or queries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event in; what is to be done is appended to `actions`, to be carried out in that order.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::GraphSubmitted { query, shape } => self.submitted(query, &shape, actions),
            Event::WorkerJoined { worker, slots } => {
                *self.free.entry(worker).or_default() += slots;
            }
            Event::TaskFinished { query, task, worker } => {
                self.task_ended(query, task, worker, true, actions)
            }
            Event::TaskFailed { query, task, worker } => self.task_ended(query, task, worker, false, actions),
            Event::StageSplit { query, split } => self.split(query, &split),
            Event::QueryCancelled { query } => self.stop(query, actions),
        }
        self.assign(actions);
    }

    /// Queries that have not ended.
    pub fn query_count(&self) -> usize {
        self.queries.len()
    }

    fn submitted(&mut self, id: QueryId, shape: &GraphShape, actions: &mut Vec<Action>) {
        let mut query = Query::new(shape);
        // Chosen before any is opened: a stage without tasks ends at once and opens others itself.
        let open: Vec<usize> =
            (0..query.stages.len()).filter(|&s| query.stages[s].blocking_inputs == 0).collect();
        for stage in open {
            query.open_stage(stage, actions, id);
        }
        let done = query.unfinished_stages == 0;
        if query.has_ready() {
            self.runnable.insert((0, id));
        }
        let before = self.queries.insert(id, query);
        assert!(before.is_none(), "query {} was submitted twice", id.0);
        if done {
            self.queries.remove(&id);
            actions.push(Action::Finish { query: id });
        }
    }

    fn task_ended(
        &mut self,
        id: QueryId,
        task: TaskId,
        worker: WorkerId,
        good: bool,
        actions: &mut Vec<Action>,
    ) {
        *self.free.entry(worker).or_default() += 1;
        let query =
            self.queries.get_mut(&id).expect("invariant: a query lives until its last task has ended");
        self.runnable.remove(&(query.running, id));
        query.running -= 1;
        let stage = task.stage.0 as usize;
        let phase = &mut query.stages[stage].phases[task.partition as usize];
        assert_eq!(*phase, Phase::Running, "task {task:?} of query {} ended without running", id.0);
        *phase = Phase::Finished;
        if !good && !query.stopping {
            query.stopping = true;
            actions.push(Action::Stop { query: id });
        }
        if !query.stopping {
            query.task_finished(stage, task.partition, actions, id);
        }
        self.settle(id, actions);
    }

    fn split(&mut self, id: QueryId, split: &StageSplit) {
        let query =
            self.queries.get_mut(&id).expect("invariant: a query lives until its last task has ended");
        if !query.stopping {
            query.split(split);
        }
    }

    fn stop(&mut self, id: QueryId, actions: &mut Vec<Action>) {
        // A cancellation may arrive after the query has ended: nothing is left to do then.
        let Some(query) = self.queries.get_mut(&id) else { return };
        self.runnable.remove(&(query.running, id));
        if !query.stopping {
            query.stopping = true;
            actions.push(Action::Stop { query: id });
        }
        self.settle(id, actions);
    }

    /// Ends the query if it has ended, else puts it back among the runnable.
    fn settle(&mut self, id: QueryId, actions: &mut Vec<Action>) {
        let query = &self.queries[&id];
        if query.stopping {
            if query.running == 0 {
                self.queries.remove(&id);
                actions.push(Action::Abandon { query: id });
            }
        } else if query.unfinished_stages == 0 {
            self.queries.remove(&id);
            actions.push(Action::Finish { query: id });
        } else if query.has_ready() {
            self.runnable.insert((query.running, id));
        }
    }

    fn assign(&mut self, actions: &mut Vec<Action>) {
        while let Some(&(running, id)) = self.runnable.first() {
            let Some(mut worker) = self.free.first_entry() else { return };
            let worker_id = *worker.key();
            *worker.get_mut() -= 1;
            if *worker.get() == 0 {
                worker.remove();
            }
            self.runnable.pop_first();
            let query = self.queries.get_mut(&id).expect("invariant: runnable queries are alive");
            let task = query.start_next();
            actions.push(Action::Run { query: id, task, worker: worker_id });
            if query.has_ready() {
                self.runnable.insert((running + 1, id));
            }
        }
    }
}

impl Query {
    fn new(shape: &GraphShape) -> Self {
        let ranks = ranks(shape);
        let mut stages: Vec<Stage> = shape
            .stages
            .iter()
            .zip(ranks)
            .map(|(s, rank)| {
                let forward = s.inputs.iter().filter(|e| e.kind == EdgeKind::Forward).count() as u32;
                Stage {
                    rank,
                    phases: vec![Phase::Waiting; s.tasks as usize],
                    ready: ReadyTasks::Range { next: 0, end: 0 },
                    unfinished_tasks: s.tasks,
                    blocking_inputs: s.inputs.len() as u32 - forward,
                    forward_inputs: forward,
                    forward_done: if forward > 0 { vec![0; s.tasks as usize] } else { vec![] },
                    inputs: s.inputs.iter().map(|e| e.from).collect(),
                    consumers: vec![],
                    unfinished_consumers: 0,
                    is_result: false,
                }
            })
            .collect();
        for (position, s) in shape.stages.iter().enumerate() {
            for edge in &s.inputs {
                let producer = &mut stages[edge.from.0 as usize];
                producer.consumers.push((StageId(position as u32), edge.kind == EdgeKind::Forward));
                producer.unfinished_consumers += 1;
            }
        }
        for result in &shape.results {
            stages[result.0 as usize].is_result = true;
        }
        let unfinished_stages = stages.len() as u32;
        Query { stages, ready: BTreeSet::new(), running: 0, unfinished_stages, stopping: false }
    }

    /// Puts a new stage before one that waits. Neither has forward edges.
    fn split(&mut self, split: &StageSplit) {
        let stage = split.stage.0 as usize;
        let front = self.stages.len();
        let s = &mut self.stages[stage];
        assert!(
            s.phases.iter().all(|p| *p == Phase::Waiting) && s.blocking_inputs > 0 && s.forward_inputs == 0,
            "stage {stage} is split although it does not wait"
        );
        let (rank, inputs, blocking_inputs) = (s.rank, std::mem::take(&mut s.inputs), s.blocking_inputs);
        s.phases = vec![Phase::Waiting; split.rest.tasks as usize];
        s.unfinished_tasks = split.rest.tasks;
        s.blocking_inputs = 0;
        // The front takes the stage's place wherever it is waited for.
        for input in &inputs {
            for (consumer, _) in &mut self.stages[input.0 as usize].consumers {
                if *consumer == split.stage {
                    *consumer = StageId(front as u32);
                }
            }
        }
        self.stages.push(Stage {
            rank,
            phases: vec![Phase::Waiting; split.front.tasks as usize],
            ready: ReadyTasks::Range { next: 0, end: 0 },
            unfinished_tasks: split.front.tasks,
            blocking_inputs,
            forward_inputs: 0,
            forward_done: vec![],
            inputs,
            consumers: vec![],
            unfinished_consumers: 0,
            is_result: false,
        });
        self.unfinished_stages += 1;
        for edge in &split.rest.inputs {
            let producer = &mut self.stages[edge.from.0 as usize];
            producer.unfinished_consumers += 1;
            if producer.unfinished_tasks > 0 {
                producer.consumers.push((split.stage, false));
                self.stages[stage].blocking_inputs += 1;
            }
            self.stages[stage].inputs.push(edge.from);
        }
    }

    fn has_ready(&self) -> bool {
        !self.stopping && !self.ready.is_empty()
    }

    /// All blocking inputs of a stage are there: its tasks may start, or wait for forward inputs only.
    fn open_stage(&mut self, stage: usize, actions: &mut Vec<Action>, id: QueryId) {
        let s = &mut self.stages[stage];
        if s.unfinished_tasks == 0 {
            return self.stage_finished(stage, actions, id);
        }
        if s.forward_inputs == 0 {
            s.phases.fill(Phase::Ready);
            s.ready = ReadyTasks::Range { next: 0, end: s.phases.len() as u32 };
        } else {
            let wanted = s.forward_inputs as u16;
            let mut list = VecDeque::new();
            for (task, done) in s.forward_done.iter().enumerate() {
                if *done == wanted {
                    s.phases[task] = Phase::Ready;
                    list.push_back(task as u32);
                }
            }
            s.ready = ReadyTasks::List(list);
        }
        self.note_ready(stage);
    }

    fn note_ready(&mut self, stage: usize) {
        let s = &self.stages[stage];
        if !s.ready.is_empty() {
            self.ready.insert((s.rank, stage as u32));
        }
    }

    fn start_next(&mut self) -> TaskId {
        let &(rank, stage) = self.ready.first().expect("invariant: only called with ready tasks");
        let s = &mut self.stages[stage as usize];
        let partition = s.ready.pop().expect("invariant: a stage in the ready set has a ready task");
        if s.ready.is_empty() {
            self.ready.remove(&(rank, stage));
        }
        let phase = &mut s.phases[partition as usize];
        assert_eq!(*phase, Phase::Ready, "task {partition} of stage {stage} is started but not ready");
        *phase = Phase::Running;
        self.running += 1;
        TaskId { stage: StageId(stage), partition }
    }

    fn task_finished(&mut self, stage: usize, partition: u32, actions: &mut Vec<Action>, id: QueryId) {
        self.stages[stage].unfinished_tasks -= 1;
        let consumers = std::mem::take(&mut self.stages[stage].consumers);
        for &(consumer, forward) in &consumers {
            if forward {
                self.forward_input_finished(consumer.0 as usize, partition);
            }
        }
        self.stages[stage].consumers = consumers;
        if self.stages[stage].unfinished_tasks == 0 {
            self.stage_finished(stage, actions, id);
        }
    }

    fn forward_input_finished(&mut self, consumer: usize, partition: u32) {
        let c = &mut self.stages[consumer];
        let done = &mut c.forward_done[partition as usize];
        *done += 1;
        if u32::from(*done) == c.forward_inputs && c.blocking_inputs == 0 {
            c.phases[partition as usize] = Phase::Ready;
            match &mut c.ready {
                ReadyTasks::List(list) => list.push_back(partition),
                range => *range = ReadyTasks::List(VecDeque::from([partition])),
            }
            self.note_ready(consumer);
        }
    }

    fn stage_finished(&mut self, stage: usize, actions: &mut Vec<Action>, id: QueryId) {
        self.unfinished_stages -= 1;
        for input in std::mem::take(&mut self.stages[stage].inputs) {
            let producer = &mut self.stages[input.0 as usize];
            producer.unfinished_consumers -= 1;
            if producer.unfinished_consumers == 0 && !producer.is_result {
                actions.push(Action::Release { query: id, stage: input });
            }
        }
        for (consumer, forward) in std::mem::take(&mut self.stages[stage].consumers) {
            if !forward {
                self.stages[consumer.0 as usize].blocking_inputs -= 1;
                if self.stages[consumer.0 as usize].blocking_inputs == 0 {
                    self.open_stage(consumer.0 as usize, actions, id);
                }
            }
        }
    }
}

/// The order of starting: stages linked by forward edges stand together at the place of the first of
/// them, and among these the consumer goes before its producer.
fn ranks(shape: &GraphShape) -> Vec<u32> {
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

#[cfg(test)]
mod tests;
