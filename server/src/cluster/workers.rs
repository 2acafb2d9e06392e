//! The workers that the driver knows, and what each of them has been told.

use std::collections::{BTreeMap, HashSet};

use dovetail_engine::scheduler::events::{OutputId, QueryId, WorkerId};
use tokio::sync::mpsc;
use tonic::Status;

use crate::control::scheduler_message::Message;
use crate::control::{Hello, SchedulerMessage};

/// Messages that wait for a worker to take them; one that lets more wait is cut off.
pub const MESSAGES_MAX: usize = 1 << 16;

/// To a worker.
pub type Outbound = mpsc::Sender<Result<SchedulerMessage, Status>>;

/// A worker that has joined.
pub struct Worker {
    pub hello: Hello,
    outbound: Outbound,
    begun: HashSet<QueryId>,
    /// Outputs whose places it knows.
    placed: HashSet<(QueryId, OutputId)>,
}

impl Worker {
    pub fn new(hello: Hello, outbound: Outbound) -> Worker {
        Worker { hello, outbound, begun: HashSet::new(), placed: HashSet::new() }
    }

    /// Sends a message. One that the worker cannot take is lost with the worker, which is noticed by its stream.
    pub fn send(&self, message: Message) {
        if self.outbound.try_send(Ok(SchedulerMessage { message: Some(message) })).is_err() {
            tracing::warn!(worker = self.hello.name, "a worker does not take its messages");
        }
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
