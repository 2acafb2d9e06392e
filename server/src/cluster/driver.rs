//! The distributed driver: one thread, one queue, the scheduler's state machine.
//!
//! What always holds: inputs are handled one after the other, each to its end, without waiting for anybody; what
//! the state machine asks for is carried out in its order; a query's caller gets exactly one answer; of a query
//! with a log, what has finished is in the log before anybody is told to read it.

mod actions;
mod home;
mod restore;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dovetail_engine::exchange::{Delivery, Fetcher};
use dovetail_engine::query::placed::Report;
use dovetail_engine::scheduler::events::{
    Action, Cause, Event, Failure, GraphShape, OutputId, QueryId, WorkerId,
};
use dovetail_engine::scheduler::state::{LEASE_MS, Scheduler, WAIT_FOR_WORKERS_MS};
use dovetail_engine::session::cluster::{ClusterQuery, TaskState, WorkerState};
use dovetail_engine::task::OperatorCounts;
use dovetail_engine::{EngineError, Result};
use dovetail_planner::graph::StageId;
use dovetail_planner::pipeline::QueryStage;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::ClusterHandle;
use super::admission::{Admission, Load};
use super::messages;
use super::queries::Query;
use super::shown;
use super::workers::{Outbound, Worker, Workers};
use crate::control::scheduler_message::Message;
use crate::control::{self, worker_message};
use crate::journal::{Identity, Journal, QueryLog, Unfinished};
use crate::records::{self, record};
use restore::Restoring;

/// The scheduler's own process.
const HOME: WorkerId = WorkerId(0);

/// Results that are on their way home at a time: more than clients may have, and they take no thread. Others wait.
const HOME_SLOTS: u32 = 4096;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Of the driver's thread: deep plans are copied and dropped by recursion.
pub const STACK_BYTES: usize = 64 << 20;

/// Times that a query is begun anew.
const RESTARTS_MAX: u32 = 3;

/// Something has happened.
pub enum Input {
    Submitted {
        id: QueryId,
        query: Box<ClusterQuery>,
        log: Option<Arc<QueryLog>>,
        delivery: Delivery,
    },
    WorkerJoined {
        hello: Box<control::Hello>,
        /// What it has kept of queries.
        held: Vec<control::Held>,
        outbound: Outbound,
        welcome: oneshot::Sender<WorkerId>,
    },
    WorkerSaid {
        worker: WorkerId,
        message: Box<worker_message::Message>,
    },
    WorkerGone {
        worker: WorkerId,
    },
    /// Somebody has all rows of a query, so many, or cannot get at them any more.
    Brought {
        query: QueryId,
        output: OutputId,
        rows: Result<u64>,
    },
    /// Somebody asks who is there and what runs.
    Asked {
        reply: std::sync::mpsc::Sender<(Vec<WorkerState>, Vec<TaskState>)>,
    },
    Ticked,
}

/// What the driver does about losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recovery {
    /// What is lost is made again.
    #[default]
    On,
    /// A query fails with the first thing that it loses. For tests, which show so that a fault was one.
    Off,
}

/// A query of the process before, to go on with.
pub struct Orphan {
    pub unfinished: Box<Unfinished>,
    pub log: Arc<QueryLog>,
    pub asked: ClusterQuery,
    pub delivery: Delivery,
}

/// What a driver begins with.
pub struct Beginning {
    pub identity: Identity,
    pub journal: Option<Arc<Journal>>,
    pub orphans: Vec<Orphan>,
}

/// Starts the driver's thread.
pub fn start(
    runtime: &Handle,
    fetcher: Arc<dyn Fetcher>,
    recovery: Recovery,
    beginning: Beginning,
) -> std::io::Result<ClusterHandle> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let slots = Arc::new(AtomicU32::new(0));
    let Beginning { identity, journal, orphans } = beginning;
    let next_query = Arc::new(AtomicU64::new(identity.first_query()));
    let mut driver = Driver {
        scheduler: Scheduler::new(),
        started: Instant::now(),
        inputs: sender.downgrade(),
        fetcher,
        workers: Workers::new(),
        queries: BTreeMap::new(),
        admission: Admission::default(),
        next_query: next_query.clone(),
        identity,
        restoring: Restoring::new(orphans),
        next_worker: HOME.0 + 1,
        slots: slots.clone(),
        recovery,
        actions: vec![],
        failed_at_home: vec![],
    };
    let ticks = sender.downgrade();
    runtime.spawn(async move {
        let mut interval = tokio::time::interval(TICK);
        loop {
            interval.tick().await;
            let Some(sender) = ticks.upgrade() else { return };
            if sender.send(Input::Ticked).is_err() {
                return;
            }
        }
    });
    std::thread::Builder::new()
        .name("dovetail-driver".into())
        .stack_size(STACK_BYTES)
        .spawn(move || driver.drive(receiver))?;
    Ok(ClusterHandle { driver: sender, slots, next_query, journal })
}

struct Driver {
    scheduler: Scheduler,
    started: Instant,
    inputs: mpsc::WeakUnboundedSender<Input>,
    fetcher: Arc<dyn Fetcher>,
    workers: Workers,
    queries: BTreeMap<QueryId, Query>,
    admission: Admission,
    next_query: Arc<AtomicU64>,
    identity: Identity,
    /// Queries of the process before that do not go on yet.
    restoring: Option<Restoring>,
    next_worker: u32,
    slots: Arc<AtomicU32>,
    recovery: Recovery,
    actions: Vec<Action>,
    /// Attempts to bring rows home that have failed, of which the state machine is to be told.
    failed_at_home: Vec<(QueryId, OutputId, Failure)>,
}

impl Driver {
    fn drive(&mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        self.tell(Event::WorkerJoined { worker: HOME, slots: HOME_SLOTS, home: true });
        while let Some(input) = inputs.blocking_recv() {
            self.take(input);
            self.tell_failed_at_home();
            self.admit();
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Submitted { id, query, log, delivery } => {
                let refused = self.admission.wait(id, Query::new(*query, delivery, 0, log));
                refused.into_iter().for_each(|(query, error)| query.delivery.fail(error));
            }
            Input::WorkerJoined { hello, held, outbound, welcome } => {
                self.joined(*hello, held, outbound, welcome);
            }
            Input::WorkerSaid { worker, message } => self.said(worker, *message),
            Input::WorkerGone { worker } => self.gone(worker),
            Input::Brought { query, output, rows } => self.brought(query, output, rows),
            // Who has asked may have given up.
            Input::Asked { reply } => drop(reply.send(shown::state(&self.workers, &self.scheduler))),
            Input::Ticked => self.ticked(),
        }
    }

    /// Tells the state machine, and does what it asks for.
    fn tell(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.handle(event, &mut actions);
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions = actions;
    }

    /// Begins what has waited, as far as there is room.
    fn admit(&mut self) {
        while self.admission.has_waiting() {
            let running = self.queries.values().filter(|query| query.at_home.is_none()).count();
            let load = Load::of(&self.workers, running);
            let Some((id, query)) = self.admission.next(&load) else { return };
            self.submit(id, query);
        }
    }

    fn submit(&mut self, id: QueryId, query: Query) {
        let (graph, context) = (&query.asked.graph, &query.asked.context);
        let (shape, tasks) = (GraphShape::of(graph), graph.task_count());
        tracing::info!(query = id.0, tasks, restarts = query.restarts, "query begins");
        context.tasks.store(tasks, Ordering::Relaxed);
        context.tasks_done.store(0, Ordering::Relaxed);
        self.queries.insert(id, query);
        self.tell(Event::GraphSubmitted { query: id, shape });
    }

    fn joined(
        &mut self,
        hello: control::Hello,
        held: Vec<control::Held>,
        outbound: Outbound,
        welcome: oneshot::Sender<WorkerId>,
    ) {
        // It has noticed before us that its connection is gone.
        let before = self.workers.iter().find(|(_, w)| w.hello.address == hello.address).map(|(id, _)| *id);
        before.into_iter().for_each(|before| self.gone(before));
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        tracing::info!(worker = worker.0, name = hello.name, slots = hello.slots, "worker joins");
        let slots = hello.slots;
        let lineage = self.identity.lineage.into_bytes().to_vec();
        let is_ours = hello.lineage == lineage;
        let mut new = Worker::new(hello, outbound);
        let (worker_id, lease_ms) = (worker.0, LEASE_MS as u32);
        new.send(Message::Welcome(control::Welcome { worker: worker_id, lease_ms, lineage: lineage.into() }));
        if welcome.send(worker).is_err() {
            return;
        }
        // Before it can be told of a query again.
        if is_ours {
            self.reattach(worker, &mut new, held);
        }
        self.workers.insert(worker, new);
        self.count_slots();
        self.tell(Event::WorkerJoined { worker, slots, home: false });
        self.restore_if_due();
    }

    fn send(&self, worker: WorkerId, message: Message) {
        // One that is not there has nothing of what the message is about.
        self.workers.get(&worker).into_iter().for_each(|w| w.send(message.clone()));
    }

    fn count_slots(&self) {
        let working = self.workers.values().filter(|w| !w.is_leaving);
        self.slots.store(working.map(|w| w.hello.slots).sum(), Ordering::Relaxed);
    }

    fn gone(&mut self, worker: WorkerId) {
        if let Some(gone) = self.workers.remove(&worker) {
            tracing::warn!(worker = worker.0, name = gone.hello.name, "worker is gone");
            self.count_slots();
            self.restoring.as_mut().into_iter().for_each(|r| r.lost(worker));
            self.fail_without_recovery(&gone);
            self.tell(Event::WorkerLost { worker });
        }
    }

    fn fail_without_recovery(&mut self, lost: &Worker) {
        if self.recovery == Recovery::On || lost.is_dismissed {
            return;
        }
        let queries: Vec<QueryId> = self.queries.keys().copied().filter(|q| lost.has_begun(*q)).collect();
        for id in queries {
            if let Some(query) = self.queries.get_mut(&id) {
                let message = format!("worker {} is lost", lost.hello.name);
                query.failure.get_or_insert(EngineError::Lost { outputs: vec![], message });
            }
            self.tell(Event::QueryCancelled { query: id });
        }
    }

    fn said(&mut self, worker: WorkerId, message: worker_message::Message) {
        let Some(w) = self.workers.get_mut(&worker) else { return };
        if matches!(message, worker_message::Message::Finished(_) | worker_message::Message::Failed(_)) {
            w.running = w.running.saturating_sub(1);
        }
        let message = match &mut self.restoring {
            Some(restoring) => restoring.said(worker, message),
            None => Some(message),
        };
        let Some(message) = message else { return };
        match message {
            // They come first, and not here.
            worker_message::Message::Hello(_)
            | worker_message::Message::Held(_)
            | worker_message::Message::HeldAll(_) => {}
            worker_message::Message::Heartbeat(heartbeat) => {
                w.heartbeat = heartbeat;
                self.tell(Event::WorkerHeard { worker });
            }
            worker_message::Message::Leaving(_) => {
                if let Some(leaving) = self.workers.get_mut(&worker) {
                    tracing::info!(worker = worker.0, "worker leaves");
                    leaving.is_leaving = true;
                }
                self.count_slots();
                self.tell(Event::WorkerLeaving { worker });
            }
            worker_message::Message::Fetched(fetched) => match fetched.output {
                Some(output) => self.fetched(QueryId(output.query), output.id()),
                None => self.cut(worker, "the fetching of nothing"),
            },
            worker_message::Message::Finished(finished) => {
                let report = finished.report.unwrap_or_default();
                let counts: Vec<OperatorCounts> =
                    serde_json::from_slice(&finished.counts).unwrap_or_default();
                match (finished.output, messages::report(report)) {
                    (Some(output), Ok(report)) => {
                        self.finished(QueryId(output.query), output.id(), worker, report, &counts);
                    }
                    (_, Err(problem)) => self.cut(worker, &problem),
                    (None, _) => self.cut(worker, "the end of nothing"),
                }
            }
            worker_message::Message::Failed(failed) => {
                let failure: Option<Failure> = serde_json::from_str(&failed.failure).ok();
                match (failed.output, failure) {
                    (Some(output), Some(failure)) => {
                        let error = error_of(&failure, failed.message);
                        self.failed(QueryId(output.query), output.id(), worker, failure, error);
                    }
                    _ => self.cut(worker, "a failure that is none"),
                }
            }
        }
    }

    /// Cuts off a worker that does not speak our language.
    fn cut(&mut self, worker: WorkerId, problem: &str) {
        tracing::error!(worker = worker.0, problem, "a worker is cut off");
        self.gone(worker);
    }

    fn finished(
        &mut self,
        id: QueryId,
        output: OutputId,
        worker: WorkerId,
        report: Report,
        counts: &[OperatorCounts],
    ) {
        let is_wanted = self.scheduler.is_wanted(id, output, worker);
        let mut change = None;
        if is_wanted && let Some(query) = self.queries.get_mut(&id) {
            let context = &query.asked.context;
            context.metrics.add(counts, self.workers.get(&worker).map(|w| &*w.hello.name));
            context.tasks_done.fetch_add(1, Ordering::Relaxed);
            let scheduler = &self.scheduler;
            let slots = self.slots.load(Ordering::Relaxed);
            change = query.reported(output, report, slots, |stage| scheduler.can_split(id, stage));
            if let Some(change) = &change {
                let tasks = query.stages.iter().map(|s| u64::from(s.tasks)).sum();
                query.asked.context.tasks.store(tasks, Ordering::Relaxed);
                self.tell_changed(id, change.build, &change.stages);
            }
        }
        if is_wanted && let Some(query) = self.queries.get(&id) {
            query.record_finished(output);
        }
        if let Some(change) = change {
            for split in change.splits {
                self.tell(Event::StageSplit { query: id, split });
            }
            for (stage, tasks) in change.resized {
                self.tell(Event::StageResized { query: id, stage, tasks });
            }
        }
        self.tell(Event::TaskFinished { query: id, output, worker });
    }

    /// Tells everybody who knows the query that stages are other than they were.
    fn tell_changed(&mut self, id: QueryId, build: StageId, stages: &[QueryStage]) {
        self.queries.get(&id).into_iter().for_each(|query| query.record_split(build, stages));
        let json = messages::encode_plan(&stages);
        for worker in self.workers.values().filter(|w| w.has_begun(id)) {
            worker.send(Message::Split(control::Split { query: id.0, stages: json.clone() }));
        }
    }

    fn failed(
        &mut self,
        id: QueryId,
        output: OutputId,
        worker: WorkerId,
        failure: Failure,
        error: EngineError,
    ) {
        let failure = match (self.recovery, failure) {
            (Recovery::Off, Failure::Transient | Failure::InputLost(_)) => Failure::Fatal,
            (_, failure) => failure,
        };
        if let Some(query) = self.queries.get_mut(&id) {
            let task = output.task;
            tracing::info!(query = id.0, stage = task.stage.0, task = task.partition, %error, "a task has failed");
            query.failed_attempts += 1;
            match failure {
                Failure::Fatal => drop(query.failure.get_or_insert(error)),
                // Kept for the case that it is given up; what follows a cancellation is no reason.
                Failure::Transient | Failure::InputLost(_) if query.failure.is_none() => {
                    query.failure = Some(error)
                }
                Failure::Transient | Failure::InputLost(_) | Failure::Stopped => {}
            }
        }
        self.tell(Event::TaskFailed { query: id, output, worker, failure });
    }

    fn ticked(&mut self) {
        self.restore_if_due();
        let waiting = self.admission.take_cancelled().into_iter();
        waiting.for_each(|query| query.delivery.fail(EngineError::Cancelled));
        let cancelled: Vec<QueryId> = self
            .queries
            .iter_mut()
            .filter(|(_, q)| !q.is_cancelled && q.asked.context.check_cancelled().is_err())
            .map(|(id, q)| {
                q.is_cancelled = true;
                *id
            })
            .collect();
        for query in cancelled {
            self.tell(Event::QueryCancelled { query });
        }
        self.give_up_lost_results();
        let stuck: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.is_stuck()).map(|(id, _)| *id).collect();
        stuck.into_iter().for_each(|worker| self.cut(worker, "it does not take its messages"));
        self.tell(Event::Ticked { now_ms: self.started.elapsed().as_millis() as u64 });
    }

    /// Forgets the query everywhere, and says why if its rows have not come home.
    fn end(&mut self, id: QueryId, end: Result<()>) {
        self.forget(id);
        if let Some(query) = self.queries.remove(&id) {
            tracing::info!(query = id.0, is_ok = end.is_ok(), "query ends");
            match end {
                Ok(()) => query.delivery.fetched(),
                Err(error) => query.delivery.fail(error),
            }
        }
    }

    fn forget(&mut self, id: QueryId) {
        for worker in self.workers.values_mut().filter(|w| w.has_begun(id)) {
            worker.send(Message::End(control::End { query: id.0 }));
            worker.forget(id);
        }
    }

    /// Begins a query anew, under another number.
    fn submit_again(&mut self, query: Query) {
        let Query { asked, delivery, restarts, log, .. } = query;
        let id = QueryId(self.next_query.fetch_add(1, Ordering::Relaxed));
        let query = Query::new(asked, delivery, restarts + 1, log);
        query.record(|| record::Record::Anew(records::Anew { query: id.0 }));
        self.submit(id, query);
    }

    fn abandon(&mut self, id: QueryId, cause: Cause) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        let failure = query.failure.take();
        let error = match cause {
            Cause::Cancelled => failure.filter(|_| !query.is_cancelled).unwrap_or(EngineError::Cancelled),
            Cause::Failed { .. } => failure.unwrap_or_else(|| EngineError::internal("a task has failed")),
            Cause::GivenUp { task, attempts } => {
                let last = failure.map_or(String::new(), |e| format!("; the first failure was: {e}"));
                EngineError::Resources(format!(
                    "task {} of stage {} was given up after {attempts} attempts{last}",
                    task.partition, task.stage.0
                ))
            }
            Cause::NoWorkers => EngineError::Resources(format!(
                "all workers are gone, and no new one has come for {} s; start one with `dovetail worker \
                 --scheduler URL` and run the query again",
                WAIT_FOR_WORKERS_MS / 1000
            )),
            Cause::NotReplayable { .. } if !query.delivery.take_back() => EngineError::Resources(
                "a worker that held rows of the result was lost, and the query would not make the same rows again; \
                 some have been handed out already: run the query again"
                    .into(),
            ),
            Cause::NotReplayable { .. } if query.restarts < RESTARTS_MAX && !query.is_cancelled => {
                self.forget(id);
                if let Some(query) = self.queries.remove(&id) {
                    self.submit_again(query);
                }
                return;
            }
            Cause::NotReplayable { .. } => {
                let last = failure.map_or(String::new(), |e| format!("; the last time because of this: {e}"));
                EngineError::Resources(format!(
                    "workers or what they had made were lost so often that the query was begun {} times without an \
                     end{last}",
                    RESTARTS_MAX + 1
                ))
            }
        };
        self.end(id, Err(error));
    }
}

/// An error that another process has met: its class is in the failure, its text is for the user.
fn error_of(failure: &Failure, message: String) -> EngineError {
    match failure {
        Failure::Fatal => EngineError::Execution(message),
        Failure::Transient => EngineError::Resources(message),
        Failure::InputLost(outputs) => EngineError::Lost { outputs: outputs.clone(), message },
        Failure::Stopped => EngineError::Cancelled,
    }
}
