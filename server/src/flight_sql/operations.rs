//! The results that clients have been promised: those not fetched yet, and those being computed or fetched.
//!
//! What always holds: a handle is random, so nobody guesses another's; it is redeemed once; what is not
//! redeemed is forgotten after a while; there are never more than a fixed number of each. A handle that was redeemed in
//! the process before this one may be redeemed again, if that process has left its queries ([`DurableResults`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::CancelStatus;
use bytes::Bytes;
use dovetail_engine::{Cancellation, Statement};
use parking_lot::Mutex;
use tonic::Status;

use crate::cluster::{DurableResults, Recovered};

/// What clients can make the server keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Results that were promised and not fetched.
    pub unfetched: usize,
    /// How long they are kept.
    pub unfetched_age: Duration,
    /// Statements that run or are fetched at the same time.
    pub running: usize,
    /// Prepared statements.
    pub prepared: usize,
    /// How long one is kept that nobody uses.
    pub prepared_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            unfetched: 1000,
            unfetched_age: Duration::from_secs(300),
            running: 256,
            prepared: 1000,
            prepared_age: Duration::from_secs(3600),
        }
    }
}

/// What a ticket gives.
pub enum Promise {
    /// A query's rows.
    Query(Box<Statement>),
    /// Nothing: the command was carried out when the ticket was made.
    Done,
    /// The rows of a query that another process has begun.
    Recovered(Box<Recovered>),
}

/// All results that have been promised.
#[derive(Clone)]
pub struct Operations {
    limits: Limits,
    all: Arc<Mutex<All>>,
    durable: Option<Arc<DurableResults>>,
}

#[derive(Default)]
struct All {
    unfetched: HashMap<Bytes, (Instant, Promise)>,
    running: HashMap<Bytes, Cancellation>,
}

/// A statement that runs. When this is dropped the statement is stopped, if it has not ended by then.
pub struct Running {
    handle: Bytes,
    pub cancellation: Cancellation,
    all: Arc<Mutex<All>>,
    durable: Option<Arc<DurableResults>>,
}

impl Operations {
    /// None yet, but those that the process before has left.
    pub fn new(limits: Limits, durable: Option<Arc<DurableResults>>) -> Operations {
        Operations { limits, all: Arc::default(), durable }
    }

    /// Keeps a promise to somebody until it is redeemed or has become old.
    pub fn promise(&self, promise: Promise, owner: &str) -> Result<Bytes, Status> {
        let mut all = self.all.lock();
        all.unfetched.retain(|_, (since, _)| since.elapsed() < self.limits.unfetched_age);
        if all.unfetched.len() >= self.limits.unfetched {
            return Err(Status::resource_exhausted(format!(
                "{} results wait to be fetched, and the server keeps no more; fetch or cancel some, or try again later",
                self.limits.unfetched
            )));
        }
        let handle = random_handle(owner);
        all.unfetched.insert(handle.clone(), (Instant::now(), promise));
        Ok(handle)
    }

    /// Redeems a promise, whose statement counts as running from now on.
    pub fn redeem(&self, handle: &Bytes) -> Result<(Promise, Running), Status> {
        let mut all = self.all.lock();
        // First, so that who is told to try again later can.
        self.check_room(&all)?;
        let Some((since, promise)) = all.unfetched.remove(handle) else {
            let recovered = self.recovered(handle)?;
            let running = self.enter(&mut all, handle.clone());
            return Ok((Promise::Recovered(Box::new(recovered)), running));
        };
        if since.elapsed() >= self.limits.unfetched_age {
            return Err(unknown());
        }
        let running = self.enter(&mut all, handle.clone());
        Ok((promise, running))
    }

    /// Whether results can be had from the process after this one.
    pub fn outlive_the_process(&self) -> bool {
        self.durable.is_some()
    }

    fn recovered(&self, handle: &Bytes) -> Result<Recovered, Status> {
        match self.durable.as_ref().and_then(|durable| durable.claim(handle)) {
            Some(result) => result.map_err(Status::aborted),
            None => Err(unknown()),
        }
    }

    /// A statement runs whose result was not promised to anybody.
    pub fn start(&self) -> Result<Running, Status> {
        let mut all = self.all.lock();
        self.check_room(&all)?;
        Ok(self.enter(&mut all, random_handle("")))
    }

    fn check_room(&self, all: &All) -> Result<(), Status> {
        match all.running.len() < self.limits.running {
            true => Ok(()),
            false => Err(Status::resource_exhausted(format!(
                "{} statements are running, and the server takes no more at a time; try again later",
                self.limits.running
            ))),
        }
    }

    fn enter(&self, all: &mut All, handle: Bytes) -> Running {
        let cancellation = Cancellation::default();
        all.running.insert(handle.clone(), cancellation.clone());
        Running { handle, cancellation, all: self.all.clone(), durable: self.durable.clone() }
    }

    /// Stops or forgets what a handle stands for.
    pub fn cancel(&self, handle: &Bytes) -> Result<CancelStatus, Status> {
        let mut all = self.all.lock();
        if all.unfetched.remove(handle).is_some() {
            return Ok(CancelStatus::Cancelled);
        }
        match all.running.get(handle) {
            Some(cancellation) => {
                cancellation.cancel();
                Ok(CancelStatus::Cancelling)
            }
            None => {
                let recovered = self.recovered(handle)?;
                recovered.cancel();
                self.durable.iter().for_each(|durable| durable.ended(handle));
                Ok(CancelStatus::Cancelled)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().running.remove(&self.handle);
        // Before its log is looked for: one that is begun later sees that it need not be.
        self.cancellation.cancel();
        self.durable.iter().for_each(|durable| durable.ended(&self.handle));
    }
}

/// Of a handle; behind them is its owner's name.
pub const HANDLE_RANDOM_BYTES: usize = 16;

/// Nobody guesses it.
pub fn random_handle(owner: &str) -> Bytes {
    [uuid::Uuid::new_v4().as_bytes(), owner.as_bytes()].concat().into()
}

/// A handle of nothing.
pub fn unknown() -> Status {
    Status::not_found(
        "there is no such result: it was fetched or cancelled already, or was not fetched in time; run the query again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, StateDirectory};

    #[test]
    fn a_promise_is_redeemed_once() {
        let operations = Operations::new(Limits::default(), None);
        let handle = operations.promise(Promise::Done, "").unwrap();
        let running = operations.redeem(&handle).unwrap().1;
        assert_eq!(operations.redeem(&handle).err().unwrap().code(), tonic::Code::NotFound);
        assert_eq!(operations.cancel(&handle).unwrap(), CancelStatus::Cancelling);
        drop(running);
        assert_eq!(operations.cancel(&handle).unwrap_err().code(), tonic::Code::NotFound);
        assert!(operations.all.lock().running.is_empty());
    }

    #[test]
    fn promises_are_bounded_in_number_and_age() {
        let limits = Limits { unfetched: 2, unfetched_age: Duration::from_millis(50), ..Limits::default() };
        let operations = Operations::new(limits, None);
        let first = operations.promise(Promise::Done, "").unwrap();
        operations.promise(Promise::Done, "").unwrap();
        assert_eq!(operations.promise(Promise::Done, "").unwrap_err().code(), tonic::Code::ResourceExhausted);
        std::thread::sleep(limits.unfetched_age);
        assert_eq!(operations.redeem(&first).err().unwrap().code(), tonic::Code::NotFound);
        operations.promise(Promise::Done, "").unwrap();
    }

    #[test]
    fn what_the_process_before_has_left_is_handed_out_once_and_to_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(place.path()).unwrap();
        let durable = Arc::new(DurableResults::new(Arc::new(Journal::new(&state))));
        let handle = random_handle("");
        durable.expect(handle.clone(), Err("the reason".into()));
        let operations = Operations::new(Limits::default(), Some(durable));
        assert_eq!(operations.redeem(&random_handle("")).err().unwrap().code(), tonic::Code::NotFound);
        let told = operations.redeem(&handle).err().unwrap();
        assert_eq!((told.code(), told.message()), (tonic::Code::Aborted, "the reason"));
        assert_eq!(operations.redeem(&handle).err().unwrap().code(), tonic::Code::NotFound);
    }

    #[test]
    fn running_statements_are_bounded() {
        let operations = Operations::new(Limits { running: 1, ..Limits::default() }, None);
        let running = operations.start().unwrap();
        let handle = operations.promise(Promise::Done, "").unwrap();
        assert_eq!(operations.start().err().unwrap().code(), tonic::Code::ResourceExhausted);
        assert_eq!(operations.redeem(&handle).err().unwrap().code(), tonic::Code::ResourceExhausted);
        drop(running);
        operations.start().unwrap();
        // Who was told to try again later does so.
        operations.redeem(&handle).unwrap();
    }
}
