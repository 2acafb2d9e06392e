//! PollFlightInfo: queries that run while their clients ask now and then how far they are.
//!
//! ```text
//! first poll ─▶ begin: planned, promised, run in the background ─▶ up to a second later: info, progress, what to ask next
//! next polls ─▶ the same, until the first rows or the end are there: then nothing to ask next
//! DoGet with the info's ticket ─▶ take: the rows, as they come
//! ```
//!
//! A query is called complete when its rows can be fetched without waiting: the first of a large result, or all of a
//! small one. What has been computed by then is kept as any result is: a bounded amount here, where the query then
//! waits for its reader, and at the workers what they have computed. A query that fails tells its error to the
//! next poll or fetch. The ticket is good from the beginning: whoever redeems it earlier waits.
//!
//! What always holds: a query counts as running ([`Limits::running`](super::Limits)) from the first poll until its
//! rows were fetched; one that nobody asks for so long as a result is kept is stopped and forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use bytes::Bytes;
use dovetail_engine::{Cancellation, ResultStream, Statement};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use super::operations::{Promise, Running, unknown};
use super::service::expiry;
use super::statements::Statements;

/// A poll is answered after this time at the latest.
const POLL_MAX: Duration = Duration::from_secs(1);

/// The queries that were begun by a poll and not fetched. Cheap to clone.
#[derive(Clone)]
pub struct Polls {
    all: Arc<Mutex<HashMap<Bytes, Arc<Begun>>>>,
    /// How long one is kept that nobody asks for.
    age: Duration,
}

/// One of them.
struct Begun {
    info: FlightInfo,
    cancellation: Cancellation,
    asked: Mutex<Asked>,
    done: watch::Receiver<bool>,
    /// Taken by whoever fetches the rows; none before the query is done.
    outcome: Mutex<Option<Result<ResultStream, Status>>>,
    running: Mutex<Option<Running>>,
}

struct Asked {
    last: Instant,
    /// What was told, so that less is never told later.
    progress: f64,
}

impl Polls {
    /// None yet.
    pub fn new(age: Duration) -> Polls {
        Polls { all: Arc::default(), age }
    }

    /// What is known of a query after a while.
    pub async fn poll(&self, handle: &Bytes) -> Result<PollInfo, Status> {
        let begun = self.all.lock().get(handle).cloned().ok_or_else(unknown)?;
        // Whoever waits is asking.
        begun.asked.lock().last = Instant::now() + POLL_MAX;
        let mut done = begun.done.clone();
        let is_done = tokio::time::timeout(POLL_MAX, done.wait_for(|done| *done)).await.is_ok();
        if is_done && let Some(Err(failure)) = &*begun.outcome.lock() {
            let failure = failure.clone();
            drop(self.all.lock().remove(handle));
            return Err(failure);
        }
        let mut asked = begun.asked.lock();
        asked.last = Instant::now();
        asked.progress = match is_done {
            true => 1.0,
            false => asked.progress.max(progress(&begun.cancellation)),
        };
        let ticket = begun.info.endpoint.first().and_then(|e| e.ticket.as_ref());
        let next = ticket.filter(|_| !is_done).map(|t| FlightDescriptor::new_cmd(t.ticket.clone()));
        Ok(PollInfo {
            info: Some(begun.info.clone()),
            flight_descriptor: next,
            progress: Some(asked.progress),
            expiration_time: Some(expiry(self.age)),
        })
    }

    /// Forgets a query that nobody asks for any more.
    async fn expire(self, handle: Bytes) {
        loop {
            let last = match self.all.lock().get(&handle) {
                Some(begun) => begun.asked.lock().last,
                None => return,
            };
            match self.age.checked_sub(last.elapsed()) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => break,
            }
        }
        let expired = self.all.lock().remove(&handle);
        // Its rows may be in files, which are not deleted on a thread of the runtime.
        let _ = tokio::task::spawn_blocking(move || drop(expired)).await;
    }
}

/// The part of its tasks that a statement has ended.
fn progress(cancellation: &Cancellation) -> f64 {
    let (done, tasks) = cancellation.tasks();
    if tasks == 0 { 0.0 } else { (done as f64 / tasks as f64).min(1.0) }
}

impl Statements {
    /// Begins to run a query that was promised, for those who poll.
    pub fn begin(&self, handle: &Bytes, info: FlightInfo) -> Result<(), Status> {
        let (promise, running) = self.redeem_promise(handle)?;
        let Promise::Query(statement, session) = promise else {
            return Err(Status::internal("internal error: what is polled is no query; please report it"));
        };
        let statement: Statement = statement.with_handle(handle.to_vec());
        let cancellation = running.cancellation.clone();
        let (tell, done) = watch::channel(false);
        let begun = Arc::new(Begun {
            info,
            cancellation: cancellation.clone(),
            asked: Mutex::new(Asked { last: Instant::now(), progress: 0.0 }),
            done,
            outcome: Mutex::default(),
            running: Mutex::new(Some(running)),
        });
        self.polls.all.lock().insert(handle.clone(), begun.clone());
        let (statements, begun) = (self.clone(), Arc::downgrade(&begun));
        tokio::spawn(async move {
            let outcome = statements.run(statement, session, &cancellation).await;
            match begun.upgrade() {
                Some(begun) => *begun.outcome.lock() = Some(outcome),
                None => drop(tokio::task::spawn_blocking(move || drop(outcome))),
            }
            // Nobody may be waiting.
            let _ = tell.send(true);
        });
        tokio::spawn(self.polls.clone().expire(handle.clone()));
        Ok(())
    }

    /// The rows of a query that was begun by a poll, as soon as there are any; none if there is no such query.
    pub async fn take_polled(&self, handle: &Bytes) -> Option<(Result<ResultStream, Status>, Running)> {
        let begun = self.polls.all.lock().remove(handle)?;
        let mut done = begun.done.clone();
        let running = begun.running.lock().take()?;
        // A client that goes away drops this, and with it what is running.
        let is_told = done.wait_for(|done| *done).await.is_ok();
        let outcome = begun.outcome.lock().take().filter(|_| is_told);
        Some((outcome.unwrap_or_else(|| Err(unknown())), running))
    }
}
