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
use dovetail_engine::{Cancellation, Session, Statement};
use parking_lot::Mutex;
use tonic::Status;

use super::refusals::over_limit;
use crate::cluster::{DurableResults, Recovered};

/// What the audit calls it if nobody fetches a result in time.
const EXPIRED: &str = "expired";

/// Between two looks for results that nobody has fetched; less if they are kept for less.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// What clients can make the server keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Results that were promised and not fetched.
    pub unfetched: usize,
    /// How long they are kept.
    pub unfetched_age: Duration,
    /// Statements that run or are fetched at the same time,
    pub running: usize,
    /// and those of one user; whoever shows the server's token is one.
    pub running_per_user: usize,
    /// Prepared statements.
    pub prepared: usize,
    /// How long one is kept that nobody uses.
    pub prepared_age: Duration,
    /// Sessions, in total
    pub sessions: usize,
    /// and of one user.
    pub sessions_per_user: usize,
    /// How long one is kept that nobody uses.
    pub session_idle: Duration,
    /// Memory, in bytes, that the statements of a user may hold, of all of the user's sessions together;
    pub memory_per_user: Option<u64>,
    /// and those of a session, or of a call without one.
    pub memory_per_session: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            unfetched: 1000,
            unfetched_age: Duration::from_secs(300),
            running: 256,
            running_per_user: 256,
            prepared: 1000,
            prepared_age: Duration::from_secs(3600),
            sessions: 1000,
            sessions_per_user: 250,
            session_idle: Duration::from_secs(1800),
            memory_per_user: None,
            memory_per_session: None,
        }
    }
}

/// What a ticket gives.
pub enum Promise {
    /// A query's rows, in the session that it was planned in.
    Query(Box<Statement>, Arc<Session>),
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
    /// Somebody looks for old ones now and then.
    is_watched: bool,
    running: HashMap<Bytes, Started>,
}

struct Started {
    cancellation: Cancellation,
    user: Arc<str>,
    /// Kept for as long as the statement runs.
    session: Option<Arc<Session>>,
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
        self.expire();
        let mut all = self.all.lock();
        if all.unfetched.len() >= self.limits.unfetched {
            let message = format!(
                "{} results wait to be fetched, and the server keeps no more; fetch or cancel some, or try again later",
                self.limits.unfetched
            );
            return Err(over_limit(owner, message));
        }
        let handle = random_handle(owner);
        all.unfetched.insert(handle.clone(), (Instant::now(), promise));
        Ok(handle)
    }

    /// Redeems a promise, whose statement counts as the user's from now on.
    pub fn redeem(&self, handle: &Bytes, user: &Arc<str>) -> Result<(Promise, Running), Status> {
        self.expire();
        let mut all = self.all.lock();
        // First, so that who is told to try again later can.
        self.check_room(&all, user)?;
        let Some((_, promise)) = all.unfetched.remove(handle) else {
            let recovered = self.recovered(handle)?;
            let running = self.enter(&mut all, handle.clone(), user, None);
            return Ok((Promise::Recovered(Box::new(recovered)), running));
        };
        let session = match &promise {
            Promise::Query(_, session) => Some(session.clone()),
            Promise::Done | Promise::Recovered(_) => None,
        };
        let running = self.enter(&mut all, handle.clone(), user, session);
        Ok((promise, running))
    }

    /// The statement of a result that was promised and not fetched.
    pub fn promised_sql(&self, handle: &Bytes) -> Option<String> {
        match self.all.lock().unfetched.get(handle)? {
            (_, Promise::Query(statement, _)) => Some(statement.text().to_owned()),
            (_, Promise::Done | Promise::Recovered(_)) => None,
        }
    }

    /// Forgets what was not fetched in time, now and from time to time, until there is nothing.
    pub fn watch(&self) {
        if !std::mem::replace(&mut self.all.lock().is_watched, true) {
            tokio::spawn(self.clone().expire_now_and_then());
        }
    }

    async fn expire_now_and_then(self) {
        let interval = (self.limits.unfetched_age / 4).clamp(Duration::from_millis(10), SWEEP_INTERVAL_MAX);
        loop {
            tokio::time::sleep(interval).await;
            self.expire();
            let mut all = self.all.lock();
            if all.unfetched.is_empty() {
                all.is_watched = false;
                return;
            }
        }
    }

    /// Forgets what was not fetched in time. The audit has queries that did not run because of that.
    fn expire(&self) {
        let age = self.limits.unfetched_age;
        let is_old = |_: &Bytes, (since, _): &mut (Instant, Promise)| since.elapsed() >= age;
        let expired: Vec<(Bytes, (Instant, Promise))> =
            self.all.lock().unfetched.extract_if(is_old).collect();
        for (handle, (_, promise)) in expired {
            if let Promise::Query(statement, session) = promise {
                let owner = String::from_utf8_lossy(&handle[HANDLE_RANDOM_BYTES..]);
                let message = format!(
                    "the query has not run: nobody fetched its result within {} s",
                    age.as_secs_f64().ceil()
                );
                session.note_refusal(&owner, statement.text(), EXPIRED, &message);
            }
        }
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

    /// A statement of a user runs whose result was not promised to anybody.
    pub fn start(&self, user: &Arc<str>, session: &Arc<Session>) -> Result<Running, Status> {
        let mut all = self.all.lock();
        self.check_room(&all, user)?;
        Ok(self.enter(&mut all, random_handle(""), user, Some(session.clone())))
    }

    fn check_room(&self, all: &All, user: &Arc<str>) -> Result<(), Status> {
        if all.running.len() >= self.limits.running {
            let message = format!(
                "{} statements are running, and the server takes no more at a time; try again later",
                self.limits.running
            );
            return Err(over_limit(user, message));
        }
        if all.running.values().filter(|s| s.user == *user).count() >= self.limits.running_per_user {
            let message = format!(
                "{} statements of this user are running, and a user may have no more at a time; wait for one or cancel \
                 it",
                self.limits.running_per_user
            );
            return Err(over_limit(user, message));
        }
        Ok(())
    }

    fn enter(&self, all: &mut All, handle: Bytes, user: &Arc<str>, session: Option<Arc<Session>>) -> Running {
        let cancellation = Cancellation::default();
        let started = Started { cancellation: cancellation.clone(), user: user.clone(), session };
        all.running.insert(handle.clone(), started);
        Running { handle, cancellation, all: self.all.clone(), durable: self.durable.clone() }
    }

    /// Stops and forgets all of a session.
    pub fn end(&self, session: &Arc<Session>) {
        let mut all = self.all.lock();
        all.unfetched.retain(|_, (_, promise)| match promise {
            Promise::Query(_, of) => !Arc::ptr_eq(of, session),
            Promise::Done | Promise::Recovered(_) => true,
        });
        for started in all.running.values() {
            if started.session.as_ref().is_some_and(|of| Arc::ptr_eq(of, session)) {
                started.cancellation.cancel();
            }
        }
    }

    /// Stops or forgets what a handle stands for.
    pub fn cancel(&self, handle: &Bytes) -> Result<CancelStatus, Status> {
        let mut all = self.all.lock();
        if all.unfetched.remove(handle).is_some() {
            return Ok(CancelStatus::Cancelled);
        }
        match all.running.get(handle) {
            Some(started) => {
                started.cancellation.cancel();
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

    fn redeem(operations: &Operations, handle: &Bytes) -> Result<Running, Status> {
        operations.redeem(handle, &"".into()).map(|(_, running)| running)
    }

    #[test]
    fn a_promise_is_redeemed_once() {
        let operations = Operations::new(Limits::default(), None);
        let handle = operations.promise(Promise::Done, "").unwrap();
        let running = redeem(&operations, &handle).unwrap();
        assert_eq!(redeem(&operations, &handle).err().unwrap().code(), tonic::Code::NotFound);
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
        assert_eq!(redeem(&operations, &first).err().unwrap().code(), tonic::Code::NotFound);
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
        assert_eq!(redeem(&operations, &random_handle("")).err().unwrap().code(), tonic::Code::NotFound);
        let told = redeem(&operations, &handle).err().unwrap();
        assert_eq!((told.code(), told.message()), (tonic::Code::Aborted, "the reason"));
        assert_eq!(redeem(&operations, &handle).err().unwrap().code(), tonic::Code::NotFound);
    }

    #[test]
    fn running_statements_are_bounded() {
        let limits = Limits { running: 3, running_per_user: 2, ..Limits::default() };
        let operations = Operations::new(limits, None);
        let session = Arc::new(Session::new(dovetail_engine::SessionOptions::default()).unwrap());
        let start = |user: &str| operations.start(&user.into(), &session).map_err(|e| e.code());
        let exhausted = Some(tonic::Code::ResourceExhausted);
        let (first, second) = (start("anna").unwrap(), start("anna").unwrap());
        assert_eq!(start("anna").err(), exhausted);
        let of_another = start("bert").unwrap();
        let handle = operations.promise(Promise::Done, "carl").unwrap();
        let redeem = || operations.redeem(&handle, &"carl".into()).map_err(|e| e.code());
        assert_eq!(start("carl").err(), exhausted);
        assert_eq!(redeem().err(), exhausted);
        drop((first, of_another));
        // Who was told to try again later does so.
        redeem().unwrap();
        start("anna").unwrap();
        operations.end(&session);
        assert!(second.cancellation.is_cancelled());
    }
}
