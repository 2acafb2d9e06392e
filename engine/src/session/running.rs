//! The queries that run at the moment: seen by whoever asks, and stopped by whoever may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::audit::Reading;
use crate::task::QueryContext;

/// All of them, the oldest first.
#[derive(Default)]
pub struct Running {
    next: AtomicU64,
    queries: Mutex<Vec<RunningQuery>>,
}

/// One of them.
#[derive(Clone)]
pub struct RunningQuery {
    pub id: u64,
    /// The statement; empty if it is not a person's.
    pub sql: Arc<str>,
    /// Whose it is; empty where nobody signs in by name.
    pub user: Arc<str>,
    pub context: Arc<QueryContext>,
    pub since: Instant,
    /// Microseconds since 1970, UTC.
    pub started_micros: i64,
}

/// Stops whatever runs in a session. Cheap to clone, may be used from any thread.
#[derive(Clone)]
pub struct CancelHandle(Arc<Running>);

/// Ends the note of a query.
pub struct RunningGuard {
    running: Arc<Running>,
    id: u64,
    /// What it reads, if it is audited.
    _reading: Option<Reading>,
}

impl Running {
    /// Notes a query as running until the guard is dropped.
    pub fn enter(
        self: &Arc<Self>,
        sql: Arc<str>,
        user: Arc<str>,
        context: Arc<QueryContext>,
    ) -> RunningGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_micros = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
        let query = RunningQuery { id, sql, user, context, since: Instant::now(), started_micros };
        self.queries.lock().push(query);
        RunningGuard { running: self.clone(), id, _reading: None }
    }

    /// Those that run now.
    pub fn all(&self) -> Vec<RunningQuery> {
        self.queries.lock().clone()
    }

    /// The one that has been running longest.
    pub fn oldest(&self) -> Option<Arc<QueryContext>> {
        self.queries.lock().first().map(|q| q.context.clone())
    }
}

impl RunningGuard {
    /// Has what the query reads be noted when it ends.
    pub fn with_reading(mut self, reading: Option<Reading>) -> RunningGuard {
        self._reading = reading;
        self
    }
}

impl CancelHandle {
    pub(super) fn new(running: Arc<Running>) -> CancelHandle {
        CancelHandle(running)
    }

    /// Stops every query that runs in the session at this moment.
    pub fn cancel(&self) {
        self.0.queries.lock().iter().for_each(|q| q.context.cancel());
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.queries.lock().retain(|q| q.id != self.id);
    }
}
