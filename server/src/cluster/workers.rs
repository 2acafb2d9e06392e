//! The workers that the driver knows, and what each of them has been told.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use dovetail_engine::scheduler::events::{OutputId, QueryId, WorkerId};
use tokio::sync::mpsc;
use tonic::Status;

use crate::control::scheduler_message::Message;
use crate::control::{Heartbeat, Hello, SchedulerMessage};

/// Messages that wait for a worker to take them; one that lets more wait is cut off.
pub const MESSAGES_MAX: usize = 1 << 16;

/// To a worker.
pub type Outbound = mpsc::Sender<Result<SchedulerMessage, Status>>;

/// A worker that has joined.
pub struct Worker {
    pub hello: Hello,
    /// What it has said last.
    pub heartbeat: Heartbeat,
    /// It gets no more tasks.
    pub is_leaving: bool,
    /// It was told that it may go: its end is no loss.
    pub is_dismissed: bool,
    /// It has let too many messages wait.
    is_stuck: Cell<bool>,
    /// Attempts that it was sent and has not reported.
    pub running: u32,
    outbound: Outbound,
    begun: HashSet<QueryId>,
    /// Outputs whose places it knows.
    placed: HashSet<(QueryId, OutputId)>,
}

impl Worker {
    pub fn new(hello: Hello, outbound: Outbound) -> Worker {
        Worker {
            hello,
            heartbeat: Heartbeat::default(),
            is_leaving: false,
            is_dismissed: false,
            is_stuck: Cell::new(false),
            running: 0,
            outbound,
            begun: HashSet::new(),
            placed: HashSet::new(),
        }
    }

    /// Sends a message. A worker that does not take its messages is [`Self::is_stuck`] from then on.
    pub fn send(&self, message: Message) {
        if self.outbound.try_send(Ok(SchedulerMessage { message: Some(message) })).is_err() {
            self.is_stuck.set(true);
        }
    }

    /// Whether a message was lost, and the worker must be with it.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }

    /// Whether it knows the query; it does from now on.
    pub fn knows(&mut self, query: QueryId) -> bool {
        !self.begun.insert(query)
    }

    /// Whether it was told of the query.
    pub fn has_begun(&self, query: QueryId) -> bool {
        self.begun.contains(&query)
    }

    /// Whether it knows where the output is; it does from now on.
    pub fn knows_place(&mut self, query: QueryId, output: OutputId) -> bool {
        !self.placed.insert((query, output))
    }

    /// Forgets a query.
    pub fn forget(&mut self, query: QueryId) {
        self.begun.remove(&query);
        self.placed.retain(|(q, _)| *q != query);
    }
}

/// All of them, by number.
pub type Workers = BTreeMap<WorkerId, Worker>;
