//! The scheduler's process dies in the middle of everything, and another takes its place that has its log.
//!
//! Of what was on its way to a worker the first few messages still come; whatever was on its way to the scheduler is
//! lost. Meanwhile the workers go on. Those that live join the new process, as new workers that say what they hold and
//! run; what they cannot have been told because nobody was there (that a query has ended) they are told then. Those
//! that the dead process took for lost, and that do not know it, are among them. The log may lack its last records.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::StageId;

use super::super::events::{Attempt, Event, GraphShape, OutputId, QueryId, Restored, WorkerId};
use super::super::state::Scheduler;
use super::worker::Message;
use super::world::{HOME, HOME_SLOTS, Happening, World};

/// Numbers of attempts that each life of the scheduler has for itself.
pub const ATTEMPTS_OF_A_LIFE: u32 = 1_000;

/// A worker that has not come back by then is a new one.
const LATE_PERCENT: u64 = 10;
/// A worker dies along with the scheduler.
const DIES_TOO_PERCENT: u64 = 15;
const DOWN_MS: std::ops::Range<u64> = 100..3_000;

/// What outlives the scheduler's process.
#[derive(Default)]
pub struct Life {
    log: Vec<Record>,
    /// While no process is there: when there will be one.
    down_until_ms: Option<u64>,
    lives: u32,
    /// Numbers that workers had, and what they are called now.
    renamed: BTreeMap<WorkerId, WorkerId>,
}

/// Something that the driver has written down.
pub enum Record {
    Finished {
        query: QueryId,
        output: OutputId,
    },
    /// With what is known again if the record is lost.
    Split {
        query: QueryId,
        before: GraphShape,
        build: StageId,
        probe: StageId,
    },
    Resized {
        query: QueryId,
        before: GraphShape,
    },
}

impl Life {
    pub fn record(&mut self, record: Record) {
        self.log.push(record);
    }

    pub fn forget(&mut self, query: QueryId) {
        self.log.retain(|record| match record {
            Record::Finished { query: q, .. }
            | Record::Split { query: q, .. }
            | Record::Resized { query: q, .. } => *q != query,
        });
    }
}

impl World {
    /// What a worker is called now that had this number.
    pub(super) fn now_known_as(&self, mut worker: WorkerId) -> WorkerId {
        while let Some(&new) = self.life.renamed.get(&worker) {
            worker = new;
        }
        worker
    }

    /// What becomes of something that was to happen, now that the scheduler is gone or another one is there.
    pub(super) fn outlives(&mut self, happening: Happening) -> Option<Happening> {
        let down_until_ms = self.life.down_until_ms;
        let old = |worker: &WorkerId| self.life.renamed.contains_key(worker);
        match happening {
            Happening::Step { worker, key } => {
                Some(Happening::Step { worker: self.now_known_as(worker), key })
            }
            Happening::Heartbeat(worker) => Some(Happening::Heartbeat(self.now_known_as(worker))),
            Happening::SchedulerReturns => Some(Happening::SchedulerReturns),
            Happening::ToScheduler { worker, .. }
            | Happening::ToWorker { worker, .. }
            | Happening::Closed(worker)
            | Happening::CutOff(worker)
                if old(&worker) || down_until_ms.is_some() =>
            {
                None
            }
            later => match down_until_ms {
                Some(until_ms) => {
                    self.plan(until_ms + 1, later);
                    None
                }
                None => Some(later),
            },
        }
    }

    pub(super) fn scheduler_dies(&mut self) {
        self.some_messages_come();
        self.worker(HOME).dies();
        for worker in self.workers.values_mut() {
            worker.linked = false;
            if worker.leaving {
                worker.dies();
            }
        }
        self.watch.scheduler_died();
        let planted = self.scheduler.planted;
        self.scheduler = Scheduler::new();
        self.scheduler.planted = planted;
        let until_ms = self.now_ms + self.rng.within(DOWN_MS);
        self.life.down_until_ms = Some(until_ms);
        self.plan(until_ms, Happening::SchedulerReturns);
    }

    /// The first few of the messages that are on their way to each worker.
    fn some_messages_come(&mut self) {
        let agenda = std::mem::take(&mut self.agenda);
        let mut to_come: BTreeMap<WorkerId, u64> = BTreeMap::new();
        let mut come = vec![];
        for (at, happening) in agenda {
            let Happening::ToWorker { worker, message } = happening else {
                self.agenda.insert(at, happening);
                continue;
            };
            let some = self.rng.below(5);
            let left = to_come.entry(worker).or_insert(some);
            if *left > 0 {
                *left -= 1;
                come.push((worker, message));
            }
        }
        for (worker, message) in come {
            // A worker that is dismissed ends by itself.
            if !matches!(message, Message::Dismiss) {
                self.reaches(worker, message);
            }
        }
    }

    pub(super) fn scheduler_returns(&mut self) {
        self.life.down_until_ms = None;
        self.life.lives += 1;
        let torn = self.lose_records();
        self.worker(HOME).alive = true;
        self.worker(HOME).linked = true;
        self.tell(Event::WorkerJoined { worker: HOME, slots: HOME_SLOTS, home: true });
        let back = self.workers_come_back();
        if self.next_worker == HOME.0 + 1 {
            // There never was one, and home waits for them from now on.
            self.replace();
        }
        let queries: Vec<QueryId> = self.watch.orphaned.keys().copied().collect();
        for &worker in &back {
            let known = |q: &QueryId| queries.contains(q) && !torn.contains(q);
            let worker = self.worker(worker);
            worker.outputs.retain(|(q, _), _| known(q));
            worker.running.retain(|(q, _), _| known(q));
        }
        for query in queries {
            let restored = Box::new(self.restored(query, &back));
            self.tell(Event::QueryRestored { query, restored });
        }
    }

    /// The log's end was not written. Gives the queries of whose splits the workers know more than the log.
    fn lose_records(&mut self) -> BTreeSet<QueryId> {
        let mut torn = BTreeSet::new();
        for _ in 0..self.rng.pick(&[0, 0, 0, 1, 3, 10]) {
            match self.life.log.pop() {
                Some(Record::Split { query, before, build, probe }) => {
                    self.graphs.get_mut(&query).expect("it has not ended").0.splits.insert(build, probe);
                    self.watch.orphaned.get_mut(&query).expect("it has not ended").shape = before;
                    torn.insert(query);
                }
                Some(Record::Resized { query, before }) => {
                    self.watch.orphaned.get_mut(&query).expect("it has not ended").shape = before;
                    torn.insert(query);
                }
                Some(Record::Finished { .. }) | None => {}
            }
        }
        torn
    }

    fn workers_come_back(&mut self) -> Vec<WorkerId> {
        let old: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.alive && !w.home).map(|(id, _)| *id).collect();
        let mut back = vec![];
        for old in old {
            let is_late = self.workers[&old].hung_until_ms > self.now_ms || self.rng.percent(LATE_PERCENT);
            if is_late || self.rng.percent(DIES_TOO_PERCENT) {
                self.dies(old);
                continue;
            }
            let new = WorkerId(self.next_worker);
            self.next_worker += 1;
            let mut worker = self.workers.remove(&old).expect("it was just listed");
            worker.linked = true;
            // As many as it runs, at least: those were its slots.
            let slots = (worker.running.len() as u32).max(self.rng.within(1..4) as u32);
            self.workers.insert(new, worker);
            self.life.renamed.insert(old, new);
            self.tell(Event::WorkerJoined { worker: new, slots, home: false });
            back.push(new);
        }
        back
    }

    fn restored(&self, query: QueryId, back: &[WorkerId]) -> Restored {
        let mut recorded: BTreeMap<_, OutputId> = BTreeMap::new();
        for record in &self.life.log {
            if let Record::Finished { query: q, output } = record
                && *q == query
            {
                recorded.insert(output.task, *output);
            }
        }
        let (mut held, mut running) = (vec![], vec![]);
        for id in back {
            let worker = &self.workers[id];
            held.extend(worker.outputs.keys().filter(|(q, _)| *q == query).map(|(_, o)| (*o, *id)));
            running.extend(worker.running.keys().filter(|(q, _)| *q == query).map(|(_, o)| (*o, *id)));
        }
        Restored {
            shape: self.watch.orphaned[&query].shape.clone(),
            first_attempt: Attempt(self.life.lives * ATTEMPTS_OF_A_LIFE),
            recorded: recorded.into_values().collect(),
            held,
            running,
        }
    }
}
