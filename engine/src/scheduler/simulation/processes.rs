//! What happens inside of the workers' processes: attempts start, read, make outputs or fail, and messages of the
//! driver are obeyed. A process knows only what it was told.

use dovetail_planner::graph::TaskId;

use super::super::events::{Event, Failure, OutputId, QueryId, WorkerId};
use super::invariants::Made;
use super::rng::mixed;
use super::worker::{Ending, Input, Key, Message, Work};
use super::world::{Happening, World};

impl World {
    pub(super) fn reaches(&mut self, id: WorkerId, message: Message) {
        if !self.workers[&id].alive {
            return;
        }
        self.worker(id).obeys(&message);
        match message {
            Message::Run { key, inputs } => self.start(id, key, inputs),
            Message::Dismiss => {
                self.dies(id);
                self.plan(self.now_ms + 1, Happening::Closed(id));
            }
            Message::Cancel(_)
            | Message::Discard(_)
            | Message::Release(..)
            | Message::Stop(_)
            | Message::End(_) => {}
        }
    }

    fn start(&mut self, id: WorkerId, key: Key, inputs: Vec<Input>) {
        let slow = self.rng.percent(self.faults.slow);
        let half_ms = if slow { self.rng.within(1_000..8_000) } else { self.rng.within(2..150) };
        let ending = match self.rng.below(100) {
            n if n < self.faults.fatal => Ending::Badly(Failure::Fatal),
            n if n < self.faults.fatal + self.faults.transient => Ending::Badly(Failure::Transient),
            _ => Ending::Well,
        };
        let work = Work { inputs, read: vec![], half_ms, half_done: false, cancelled: false, ending };
        let before = self.worker(id).running.insert(key, work);
        assert!(before.is_none(), "{key:?} is sent twice");
        self.plan(self.now_ms + half_ms, Happening::Step { worker: id, key });
    }

    /// Half of the inputs are read when half of the time is over, the others at the end.
    pub(super) fn step(&mut self, id: WorkerId, key: Key) {
        let Some(mut work) = self.worker(id).running.remove(&key) else { return };
        if work.cancelled && !self.rng.percent(self.faults.ignores_cancel) {
            return self.fails(id, key, Failure::Stopped);
        }
        let half = work.inputs.len() / 2;
        let rest = work.inputs.split_off(if work.half_done { 0 } else { half });
        let now = if work.half_done { rest.clone() } else { std::mem::take(&mut work.inputs) };
        let mut missing = vec![];
        for input in now {
            match self.reads(key.0, input) {
                Some(content) => work.read.push((input.output.task, content)),
                None => missing.push(input.output),
            }
        }
        if !missing.is_empty() {
            return self.fails(id, key, Failure::InputLost(missing));
        }
        if !work.half_done {
            (work.inputs, work.half_done) = (rest, true);
            let at_ms = self.now_ms + work.half_ms;
            self.worker(id).running.insert(key, work);
            return self.plan(at_ms, Happening::Step { worker: id, key });
        }
        match work.ending {
            Ending::Well => self.makes(id, key, work.read),
            Ending::Badly(failure) => self.fails(id, key, failure),
        }
    }

    fn reads(&mut self, query: QueryId, input: Input) -> Option<u64> {
        if self.faults.unreachable_left > 0 && self.rng.percent(self.faults.unreachable) {
            self.faults.unreachable_left -= 1;
            return None;
        }
        let holder = &self.workers[&self.now_known_as(input.holder)];
        let answers = holder.alive && holder.hung_until_ms <= self.now_ms;
        holder.outputs.get(&(query, input.output)).copied().filter(|_| answers)
    }

    /// The content of an output says what it was made of; that of a stage which is not replayable, also by which
    /// attempt.
    fn makes(&mut self, worker: WorkerId, key: Key, read: Vec<(TaskId, u64)>) {
        let (query, output) = key;
        let OutputId { task, attempt } = output;
        let mut content = mixed(query.0 ^ mixed(u64::from(task.stage.0) << 32 | u64::from(task.partition)));
        read.iter().for_each(|(_, input)| content = mixed(content ^ mixed(*input)));
        let shape = self.watch.queries.get(&query).map(|q| &q.shape);
        if shape.is_some_and(|s| !s.stages[task.stage.0 as usize].replayable) {
            content = mixed(content ^ mixed(u64::from(attempt.0) + 1));
        }
        self.watch.made.insert(key, Made { content, read });
        if !self.workers[&worker].ended.contains(&query) {
            self.worker(worker).outputs.insert(key, content);
        }
        self.send(worker, Event::TaskFinished { query, output, worker });
    }

    fn fails(&mut self, worker: WorkerId, (query, output): Key, failure: Failure) {
        self.send(worker, Event::TaskFailed { query, output, worker, failure });
    }
}
