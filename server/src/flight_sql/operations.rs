//! The results that clients have been promised: those not fetched yet, and those being computed or fetched.
//!
//! What always holds: a handle is random, so nobody guesses another's; it is redeemed once; what is not
//! redeemed is forgotten after a while; there are never more than a fixed number of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::CancelStatus;
use bytes::Bytes;
use dovetail_engine::{Cancellation, Statement};
use parking_lot::Mutex;
use tonic::Status;

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
}

/// All results that have been promised.
#[derive(Clone)]
pub struct Operations {
    limits: Limits,
    all: Arc<Mutex<All>>,
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
}

impl Operations {
    /// None yet.
    pub fn new(limits: Limits) -> Operations {
        Operations { limits, all: Arc::default() }
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
        let Some((since, promise)) = all.unfetched.remove(handle) else {
            return Err(unknown());
        };
        if since.elapsed() >= self.limits.unfetched_age {
            return Err(unknown());
        }
        let running = self.enter(&mut all, handle.clone())?;
        Ok((promise, running))
    }

    /// A statement runs whose result was not promised to anybody.
    pub fn start(&self) -> Result<Running, Status> {
        self.enter(&mut self.all.lock(), random_handle(""))
    }

    fn enter(&self, all: &mut All, handle: Bytes) -> Result<Running, Status> {
        if all.running.len() >= self.limits.running {
            return Err(Status::resource_exhausted(format!(
                "{} statements are running, and the server takes no more at a time; try again later",
                self.limits.running
            )));
        }
        let cancellation = Cancellation::default();
        all.running.insert(handle.clone(), cancellation.clone());
        Ok(Running { handle, cancellation, all: self.all.clone() })
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
            None => Err(unknown()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().running.remove(&self.handle);
        self.cancellation.cancel();
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

    #[test]
    fn a_promise_is_redeemed_once() {
        let operations = Operations::new(Limits::default());
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
        let operations = Operations::new(limits);
        let first = operations.promise(Promise::Done, "").unwrap();
        operations.promise(Promise::Done, "").unwrap();
        assert_eq!(operations.promise(Promise::Done, "").unwrap_err().code(), tonic::Code::ResourceExhausted);
        std::thread::sleep(limits.unfetched_age);
        assert_eq!(operations.redeem(&first).err().unwrap().code(), tonic::Code::NotFound);
        operations.promise(Promise::Done, "").unwrap();
    }

    #[test]
    fn running_statements_are_bounded() {
        let operations = Operations::new(Limits { running: 1, ..Limits::default() });
        let running = operations.start().unwrap();
        assert_eq!(operations.start().err().unwrap().code(), tonic::Code::ResourceExhausted);
        drop(running);
        operations.start().unwrap();
    }
}
