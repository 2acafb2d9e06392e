//! Results with several endpoints: the rows stay at a cluster's workers, and the client fetches them there.
//!
//! ```text
//! SET result_endpoints = 'workers'
//! GetFlightInfo ─▶ leave: run up to the last stage of the workers ─▶ an endpoint for each worker that has rows
//! DoGet at the workers (data::direct) ─▶ each tells the scheduler what was fetched
//! ```
//!
//! What always holds: the rows go when all were fetched, when the info is cancelled, when its session ends, and after
//! [`Limits::unfetched_age`](super::Limits); until then the statement counts as one that runs. A handle is the
//! capability that opens the rows at the workers: random, with its owner's name behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::{FlightEndpoint, Location, Ticket};
use bytes::Bytes;
use dovetail_engine::{Elsewhere, OutputPlace, Session, Statement};
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;

use super::operations::{Running, random_handle};
use super::service::expiry;
use super::statements::{Promised, Statements, blocking};
use super::wire::wire_schema;
use crate::control::{ClientTicket, OutputAttempt};
use crate::data::direct;

/// Between two looks whether a result was fetched.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The results that were left at workers. Cheap to clone.
#[derive(Clone)]
pub struct LeftResults {
    all: Arc<Mutex<HashMap<Bytes, Left>>>,
    /// How long one is kept.
    age: Duration,
}

struct Left {
    elsewhere: Elsewhere,
    /// Ends after it.
    _running: Running,
}

impl LeftResults {
    /// None yet.
    pub fn new(age: Duration) -> LeftResults {
        LeftResults { all: Arc::default(), age }
    }

    /// Drops a result. Says whether there was one.
    pub fn cancel(&self, handle: &Bytes) -> bool {
        let left = self.all.lock().remove(handle);
        let is_there = left.is_some();
        // Its end is written down: not on a thread of the runtime.
        tokio::task::spawn_blocking(move || drop(left));
        is_there
    }

    /// Drops a result when it was fetched or has failed, or its time is over.
    async fn watch(self, handle: Bytes) {
        let since = Instant::now();
        loop {
            tokio::time::sleep(LOOK_INTERVAL.min(self.age)).await;
            let is_over = match self.all.lock().get_mut(&handle) {
                Some(left) => left.elsewhere.is_over() || since.elapsed() >= self.age,
                None => return,
            };
            if is_over {
                self.cancel(&handle);
                return;
            }
        }
    }
}

/// The handle in a ticket that is one for workers.
pub fn handle_of(ticket: &[u8]) -> Option<Bytes> {
    let ticket = direct::takes(ticket).then(|| ClientTicket::decode(ticket).ok());
    ticket.flatten().map(|ticket| ticket.capability)
}

impl Statements {
    /// Runs a query whose rows stay at workers.
    pub async fn leave(
        &self,
        left: &LeftResults,
        statement: Statement,
        session: Arc<Session>,
    ) -> Result<Promised, Status> {
        let running = self.operations.start(&self.client.name, &session)?;
        let handle = random_handle(&self.client.name);
        let (cancellation, capability) = (running.cancellation.clone(), handle.to_vec());
        cancellation.for_user(&self.client.name);
        let elsewhere = blocking(move || session.run_elsewhere(statement, capability, &cancellation)).await?;
        let schema = wire_schema(&elsewhere.schema);
        let endpoints = endpoints(&elsewhere.outputs, &handle, left.age);
        left.all.lock().insert(handle.clone(), Left { elsewhere, _running: running });
        tokio::spawn(left.clone().watch(handle.clone()));
        Ok(Promised { handle, schema, command: None, endpoints })
    }
}

/// One for each worker.
fn endpoints(outputs: &[OutputPlace], handle: &Bytes, age: Duration) -> Vec<FlightEndpoint> {
    let mut workers: BTreeMap<&str, ClientTicket> = BTreeMap::new();
    for place in outputs {
        let empty = || ClientTicket { capability: handle.clone(), query: place.query, outputs: vec![] };
        let (partition, attempt) = (place.output.task.partition, place.output.attempt.0);
        let ticket = workers.entry(&place.address).or_insert_with(empty);
        ticket.outputs.push(OutputAttempt { partition, attempt });
    }
    let endpoint = |(address, ticket): (&str, ClientTicket)| FlightEndpoint {
        ticket: Some(Ticket::new(ticket.encode_to_vec())),
        location: vec![Location { uri: address.to_owned() }],
        expiration_time: Some(expiry(age)),
        ..FlightEndpoint::default()
    };
    workers.into_iter().map(endpoint).collect()
}
