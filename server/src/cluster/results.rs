//! Results that their clients can ask for again after the server's process has ended and another has taken its place.
//!
//! What always holds: a result is handed out once; one that nobody asks for is given up after a while, and with it
//! its query; the log of a query goes when its rows have been fetched or are given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use dovetail_engine::exchange::DeliveredRows;
use dovetail_engine::session::cluster::Resumed;
use dovetail_engine::{Cancellation, Result, ResultStream};
use parking_lot::Mutex;

use crate::journal::Journal;

/// How long a query that was recovered, and its rows, wait for the client.
const UNCLAIMED_MAX: Duration = Duration::from_secs(300);

/// The results of the process before.
pub struct DurableResults {
    journal: Arc<Journal>,
    /// By handle. As many as there were logs.
    unclaimed: Mutex<HashMap<Bytes, Unclaimed>>,
    /// This process ends: the logs are for the next.
    are_left: AtomicBool,
}

struct Unclaimed {
    since: Instant,
    /// Or why there is no result.
    result: Result<Recovered, String>,
}

/// A query that goes on, with its rows.
pub struct Recovered {
    pub schema: SchemaRef,
    resumed: Resumed,
    rows: DeliveredRows,
}

impl DurableResults {
    pub fn new(journal: Arc<Journal>) -> DurableResults {
        DurableResults { journal, unclaimed: Mutex::default(), are_left: AtomicBool::new(false) }
    }

    /// Somebody will ask for it. It may also be the reason why there is nothing.
    pub fn expect(&self, handle: Bytes, result: Result<Recovered, String>) {
        self.unclaimed.lock().insert(handle, Unclaimed { since: Instant::now(), result });
    }

    /// Hands a result out.
    pub fn claim(&self, handle: &[u8]) -> Option<Result<Recovered, String>> {
        self.unclaimed.lock().remove(handle).map(|u| u.result)
    }

    /// The rows have been fetched, or nobody wants them: the query need not survive any more.
    pub fn ended(&self, handle: &[u8]) {
        if !self.are_left.load(Ordering::SeqCst) {
            self.journal.end(handle);
        }
    }

    /// From now on no log goes: connections end because the process does.
    pub fn leave(&self) {
        self.are_left.store(true, Ordering::SeqCst);
    }

    /// Gives up what nobody has asked for. To be called now and then.
    pub fn give_up_old(&self) {
        let old: Vec<(Bytes, Unclaimed)> =
            self.unclaimed.lock().extract_if(|_, u| u.since.elapsed() >= UNCLAIMED_MAX).collect();
        for (handle, unclaimed) in old {
            tracing::warn!("nobody has asked for the result of a query that was recovered");
            if let Ok(recovered) = unclaimed.result {
                recovered.cancel();
            }
            self.ended(&handle);
        }
    }
}

impl Recovered {
    /// A query that the session goes on with, and how it will be answered.
    pub fn new(schema: SchemaRef, resumed: Resumed, rows: DeliveredRows) -> Recovered {
        Recovered { schema, resumed, rows }
    }

    /// Stops the query.
    pub fn cancel(&self) {
        self.resumed.cancel();
    }

    /// Waits for the rows. They are all of the query's, from the first on.
    pub fn wait(self, cancellation: &Cancellation) -> Result<ResultStream> {
        self.resumed.stop_with(cancellation);
        self.resumed.into_stream(self.rows)
    }
}
