//! A whole cluster in one thread: the real scheduler, its driver, workers, and the time between them.
//!
//! What happens next is the earliest in one queue of happenings; all chance comes from the seed. Connections keep
//! the order of their messages; how long each takes, and whether it comes twice, is chance. The driver does what a
//! driver has to: it tells each worker of its tasks where their inputs are, asks the scheduler before it reports a
//! split or other tasks of a stage, submits a query again that could not be replayed, and ends queries everywhere.

use std::collections::BTreeMap;

use super::super::events::{Action, Cause, Event, OutputId, QueryId, WorkerId};
use super::super::state::{PlantedBug, Scheduler};
use super::faults::{Blow, Faults};
use super::graph::{self, Graph};
use super::invariants::Watch;
use super::restart::{Life, Record};
use super::rng::Rng;
use super::tally::Tally;
use super::worker::{Key, Message, SimWorker};

/// By then everything must have ended.
const END_MS: u64 = 600_000;
/// For what is still on its way when the last query has ended.
const AFTERWARDS_MS: u64 = 40_000;
const HEARTBEAT_MS: u64 = 1_000;
const TICK_MS: u64 = 500;
/// How often a query is submitted that cannot be replayed.
const SUBMITTED_MAX: u32 = 4;
/// How often rows turn out to be unevenly shared when one of the tasks ends that make them.
const RESIZED_PERCENT: u64 = 4;
/// How often a marking stage comes before them then.
const MARKED_PERCENT: u64 = 40;
pub(super) const HOME: WorkerId = WorkerId(0);
pub(super) const HOME_SLOTS: u32 = 2;

pub struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) now_ms: u64,
    pub(super) workers: BTreeMap<WorkerId, SimWorker>,
    pub(super) watch: Watch,
    pub(super) scheduler: Scheduler,
    /// By time, then in the order of being planned.
    pub(super) agenda: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    next_query: u64,
    pub(super) next_worker: u32,
    pub(super) graphs: BTreeMap<QueryId, (Graph, u32)>,
    pub(super) life: Life,
    /// Queries and cancellations that are yet to come.
    to_come: u32,
    last_ended_ms: Option<u64>,
    tally: Tally,
}

/// Something that is going to happen.
pub enum Happening {
    Submit {
        graph: Graph,
        times: u32,
    },
    CancelQuery(QueryId),
    ToScheduler {
        worker: WorkerId,
        event: Event,
    },
    ToWorker {
        worker: WorkerId,
        message: Message,
    },
    /// An attempt is half through, or through.
    Step {
        worker: WorkerId,
        key: Key,
    },
    Heartbeat(WorkerId),
    Strikes(Blow),
    /// The scheduler finds a connection closed.
    Closed(WorkerId),
    /// A worker finds that it was cut off.
    CutOff(WorkerId),
    Tick,
    SchedulerReturns,
}

/// Runs the schedule of a seed. Panics if anything is wrong; otherwise says what has happened.
pub fn run(seed: u64, planted: Option<PlantedBug>) -> Tally {
    let mut rng = Rng::new(seed);
    let faults = Faults::of(&mut rng);
    let mut scheduler = Scheduler::new();
    scheduler.planted = planted;
    let mut world = World {
        rng,
        faults,
        now_ms: 0,
        workers: BTreeMap::new(),
        watch: Watch::default(),
        scheduler,
        agenda: BTreeMap::new(),
        planned: 0,
        next_query: 0,
        next_worker: 1,
        graphs: BTreeMap::new(),
        life: Life::default(),
        to_come: 0,
        last_ended_ms: None,
        tally: Tally::default(),
    };
    world.begin();
    while let Some(((time_ms, _), happening)) = world.agenda.pop_first() {
        world.now_ms = time_ms;
        world.happens(happening);
        if world.last_ended_ms.is_some_and(|ended| time_ms > ended + AFTERWARDS_MS) {
            break;
        }
        assert!(time_ms < END_MS, "queries do not end: {:?}", world.watch.queries.keys());
    }
    world.check_nothing_is_left();
    world.tally
}

impl World {
    fn begin(&mut self) {
        self.workers.insert(HOME, SimWorker::new(true));
        self.tell(Event::WorkerJoined { worker: HOME, slots: HOME_SLOTS, home: true });
        // None: home does everything, until one joins.
        for _ in 0..self.rng.below(5) {
            self.join();
        }
        for _ in 0..self.rng.within(1..4) {
            let graph = graph::random(&mut self.rng);
            let at_ms = self.rng.below(3_000);
            self.to_come += 1;
            self.plan(at_ms, Happening::Submit { graph, times: 1 });
        }
        for (at_ms, blow) in std::mem::take(&mut self.faults.blows) {
            self.plan(at_ms, Happening::Strikes(blow));
        }
        self.plan(0, Happening::Tick);
    }

    fn happens(&mut self, happening: Happening) {
        let Some(happening) = self.outlives(happening) else { return };
        // Whatever a process that hangs should do, it does later.
        if let Some(until_ms) = self.hangs(&happening) {
            return self.plan(until_ms, happening);
        }
        match happening {
            Happening::Submit { graph, times } => self.submit(graph, times),
            Happening::CancelQuery(query) => {
                self.to_come -= 1;
                self.tell(Event::QueryCancelled { query });
            }
            Happening::ToScheduler { worker, event } => {
                // Of a connection that was closed some messages are still read.
                if self.workers[&worker].linked || self.rng.percent(50) {
                    self.reported(worker, event);
                }
            }
            Happening::ToWorker { worker, message } => self.reaches(worker, message),
            Happening::Step { worker, key } => self.step(worker, key),
            Happening::Heartbeat(worker) => {
                if self.workers[&worker].alive {
                    self.send(worker, Event::WorkerHeard { worker });
                    self.plan(self.now_ms + HEARTBEAT_MS, Happening::Heartbeat(worker));
                }
            }
            Happening::Strikes(blow) => self.strikes(blow),
            Happening::Closed(worker) => {
                if std::mem::take(&mut self.worker(worker).linked) {
                    self.tell(Event::WorkerLost { worker });
                }
            }
            Happening::CutOff(worker) => self.dies(worker),
            Happening::SchedulerReturns => self.scheduler_returns(),
            Happening::Tick => {
                let now_ms = self.now_ms;
                self.tell(Event::Ticked { now_ms });
                // Now and then this process does not run for a while.
                let pause_ms = if self.rng.percent(1) { 7_000 } else { 0 };
                self.plan(now_ms + TICK_MS + pause_ms, Happening::Tick);
            }
        }
    }

    fn hangs(&self, happening: &Happening) -> Option<u64> {
        let worker = match happening {
            Happening::ToWorker { worker, .. }
            | Happening::Step { worker, .. }
            | Happening::Heartbeat(worker)
            | Happening::CutOff(worker) => worker,
            Happening::Submit { .. }
            | Happening::CancelQuery(_)
            | Happening::ToScheduler { .. }
            | Happening::Strikes(_)
            | Happening::Closed(_)
            | Happening::SchedulerReturns
            | Happening::Tick => return None,
        };
        let until_ms = self.workers[worker].hung_until_ms;
        (until_ms > self.now_ms).then_some(until_ms)
    }

    pub(super) fn plan(&mut self, at_ms: u64, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((at_ms, self.planned), happening);
    }

    pub(super) fn worker(&mut self, worker: WorkerId) -> &mut SimWorker {
        self.workers.get_mut(&worker).expect("workers are kept when they are gone")
    }

    fn submit(&mut self, graph: Graph, times: u32) {
        let query = QueryId(self.next_query);
        self.next_query += 1;
        self.to_come -= 1;
        if self.rng.percent(self.faults.cancelled) {
            self.to_come += 1;
            let at_ms = self.now_ms + self.rng.below(4_000);
            self.plan(at_ms, Happening::CancelQuery(query));
        }
        let shape = graph.shape.clone();
        self.graphs.insert(query, (graph, times));
        self.tell(Event::GraphSubmitted { query, shape });
    }

    /// A worker's message has come. If a build side did not fit, the stage that probes it is split first.
    fn reported(&mut self, worker: WorkerId, event: Event) {
        if let Event::TaskFinished { query, output, .. } = &event {
            let (query, output) = (*query, *output);
            let probe = self.graphs.get(&query).and_then(|(g, _)| g.splits.get(&output.task.stage)).copied();
            if let Some(probe) = probe
                && self.scheduler.is_wanted(query, output, worker)
                && self.scheduler.can_split(query, probe)
            {
                self.graphs.get_mut(&query).expect("it was there").0.splits.remove(&output.task.stage);
                let shape = &self.watch.queries[&query].shape;
                let split = graph::split(&mut self.rng, shape, output.task.stage, probe);
                let before = shape.clone();
                self.life.record(Record::Split { query, before, build: output.task.stage, probe });
                self.tell(Event::StageSplit { query, split });
            }
            self.resize_a_reader(query, output, worker);
            if worker != HOME && self.scheduler.is_wanted(query, output, worker) {
                self.life.record(Record::Finished { query, output });
            }
        }
        self.tell(event);
    }

    /// The rows that a stage reads may turn out to be unevenly shared: then it gets other tasks, perhaps after a stage
    /// that reads the same.
    fn resize_a_reader(&mut self, query: QueryId, output: OutputId, worker: WorkerId) {
        let Some(seen) = self.watch.queries.get(&query) else { return };
        let Some(stage) = graph::resizable(&seen.shape, output.task.stage) else { return };
        if !self.scheduler.is_wanted(query, output, worker)
            || !self.scheduler.can_split(query, stage)
            || !self.rng.percent(RESIZED_PERCENT)
        {
            return;
        }
        let before = seen.shape.clone();
        let event = match self.rng.percent(MARKED_PERCENT) {
            true => Event::StageSplit { query, split: graph::marked(&mut self.rng, &before, stage) },
            false => Event::StageResized { query, stage, tasks: self.rng.within(1..6) as u32 },
        };
        self.life.record(Record::Resized { query, before });
        self.tell(event);
    }

    /// Tells the scheduler, holds its answers against the invariants, and carries them out.
    pub(super) fn tell(&mut self, event: Event) {
        let mut actions = vec![];
        self.scheduler.handle(event.clone(), &mut actions);
        self.tally.count(&event, &actions);
        self.watch.check(&event, &actions, &self.scheduler);
        self.scheduler.validate();
        for action in actions {
            self.carry_out(action);
        }
        if self.watch.queries.is_empty() && self.to_come == 0 {
            self.last_ended_ms.get_or_insert(self.now_ms);
        } else {
            self.last_ended_ms = None;
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Run { query, output, worker } => {
                // The query may have ended with a later answer to the same event.
                if self.watch.queries.contains_key(&query) {
                    let inputs = self.watch.inputs(query, output.task);
                    self.deliver(worker, Message::Run { key: (query, output), inputs });
                }
            }
            Action::Cancel { query, output, worker } => {
                self.deliver(worker, Message::Cancel((query, output)))
            }
            Action::Discard { query, output, worker } => {
                self.deliver(worker, Message::Discard((query, output)));
            }
            Action::Release { query, stage } => self.deliver_all(|| Message::Release(query, stage)),
            Action::Stop { query } => self.deliver_all(|| Message::Stop(query)),
            Action::Answer { query } => self.ended(query, None),
            // Everything of it was dropped with the answer.
            Action::Finish { .. } => {}
            Action::Abandon { query, cause } => self.ended(query, Some(cause)),
            Action::Dismiss { worker } => self.deliver(worker, Message::Dismiss),
            Action::Disconnect { worker } => {
                self.worker(worker).linked = false;
                let at_ms = self.now_ms + self.rng.within(1..2_000);
                self.plan(at_ms, Happening::CutOff(worker));
            }
        }
    }

    fn ended(&mut self, query: QueryId, cause: Option<Cause>) {
        self.deliver_all(|| Message::End(query));
        self.life.forget(query);
        let (graph, times) = self.graphs.remove(&query).expect("a query ends once");
        match cause {
            Some(Cause::NotReplayable { .. }) if times < SUBMITTED_MAX => {
                self.to_come += 1;
                self.plan(self.now_ms, Happening::Submit { graph, times: times + 1 });
            }
            Some(Cause::NoWorkers) => assert!(!self.faults.replaced, "workers are there again in time"),
            _ => {}
        }
    }

    fn deliver_all(&mut self, message: impl Fn() -> Message) {
        let linked: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.linked).map(|(id, _)| *id).collect();
        linked.into_iter().for_each(|worker| self.deliver(worker, message()));
    }

    fn deliver(&mut self, worker: WorkerId, message: Message) {
        let at_ms = self.now_ms + self.latency_ms(worker);
        let to = self.worker(worker);
        if to.linked {
            to.last_in_ms = to.last_in_ms.max(at_ms);
            let at_ms = to.last_in_ms;
            self.plan(at_ms, Happening::ToWorker { worker, message });
        }
    }

    /// A worker's message to the scheduler; reports may come twice.
    pub(super) fn send(&mut self, worker: WorkerId, event: Event) {
        let is_report = matches!(event, Event::TaskFinished { .. } | Event::TaskFailed { .. });
        let copies = if is_report && worker != HOME && self.rng.percent(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let at_ms = self.now_ms + self.latency_ms(worker);
            let from = self.worker(worker);
            from.last_out_ms = from.last_out_ms.max(at_ms);
            let at_ms = from.last_out_ms;
            self.plan(at_ms, Happening::ToScheduler { worker, event: event.clone() });
        }
    }

    fn latency_ms(&mut self, worker: WorkerId) -> u64 {
        match worker {
            HOME => 0,
            _ if self.rng.percent(self.faults.late) => self.rng.within(100..1_500),
            _ => self.rng.within(1..20),
        }
    }

    pub(super) fn join(&mut self) {
        let (worker, slots) = (WorkerId(self.next_worker), self.rng.within(1..4) as u32);
        self.next_worker += 1;
        self.workers.insert(worker, SimWorker::new(false));
        self.tell(Event::WorkerJoined { worker, slots, home: false });
        self.plan(self.now_ms + HEARTBEAT_MS, Happening::Heartbeat(worker));
    }

    fn check_nothing_is_left(&self) {
        assert_eq!(self.scheduler.query_count(), 0, "queries that have not ended");
        for (id, worker) in self.workers.iter().filter(|(_, w)| w.alive && w.linked) {
            let running: Vec<&Key> = worker.running.keys().collect();
            let outputs: Vec<&Key> = worker.outputs.keys().collect();
            assert!(running.is_empty(), "worker {} still runs {running:?}", id.0);
            assert!(outputs.is_empty(), "worker {} still holds {outputs:?}", id.0);
        }
    }
}
