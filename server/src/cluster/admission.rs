//! Queries that wait until the workers have room for them.
//!
//! A query begins at once as long as few run and the workers have memory and disk. Where either is short it waits, since
//! one more would make all of them spill more, or fail; but not for long, because it may need little of what is
//! short, and what runs may run for hours. The number of queries that run is bounded for good; one whose rows are all
//! computed and wait for their reader does not run any more.
//!
//! What always holds: they begin in the order in which they came; if nothing runs, the next one begins; one that was
//! cancelled, or that waits too far back, is answered and never begins.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dovetail_engine::EngineError;
use dovetail_engine::scheduler::events::QueryId;

use super::queries::Query;
use super::workers::Workers;

/// Queries that run at a time. Each has state at every worker.
pub const RUNNING_MAX: usize = 64;

/// Queries that wait; more are refused.
const WAITING_MAX: usize = 1024;

/// How long a query waits because memory or disk is short.
const SHORT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Of all workers' memory: when more is used, it is short.
const MEMORY_FULL_PERCENT: u64 = 90;

/// When a worker that has spilled can spill less than this, disk is short.
const DISK_ROOM_MIN: u64 = 1 << 30;

/// Those that wait, the first to begin first.
#[derive(Default)]
pub struct Admission {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: QueryId,
    query: Query,
    since: Instant,
}

/// What the workers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Queries of which more is left than to bring their rows home: that may take as long as a client likes.
    pub running: usize,
    pub memory_used_bytes: u64,
    pub memory_limit_bytes: u64,
    /// Of the worker that has least of it; none if none has spilled.
    pub disk_room_bytes: Option<u64>,
}

impl Load {
    pub fn of(workers: &Workers, running: usize) -> Load {
        let staying = || workers.values().filter(|w| !w.is_leaving);
        Load {
            running,
            memory_used_bytes: staying().map(|w| w.heartbeat.memory_used_bytes).sum(),
            memory_limit_bytes: staying().map(|w| w.hello.memory_limit_bytes).sum(),
            disk_room_bytes: staying().filter_map(|w| w.heartbeat.spill_room_bytes).min(),
        }
    }

    /// Whether a query that has waited so long may begin.
    fn has_room(&self, waited: Duration) -> bool {
        self.running == 0
            || self.running < RUNNING_MAX && (waited >= SHORT_WAIT_MAX || self.what_is_short().is_none())
    }

    fn what_is_short(&self) -> Option<&'static str> {
        let (used, limit) = (u128::from(self.memory_used_bytes), u128::from(self.memory_limit_bytes));
        if used * 100 > limit * u128::from(MEMORY_FULL_PERCENT) {
            return Some("memory");
        }
        self.disk_room_bytes.is_some_and(|room| room < DISK_ROOM_MIN).then_some("disk")
    }
}

impl Admission {
    /// Lets a query wait for its turn, which may have come already. Gives back one that has to be refused.
    pub fn wait(&mut self, id: QueryId, query: Query) -> Option<(Query, EngineError)> {
        if self.waiting.len() >= WAITING_MAX {
            let message = format!(
                "{RUNNING_MAX} queries are running and {WAITING_MAX} are waiting, and the server takes no more; try \
                 again later"
            );
            return Some((query, EngineError::Resources(message)));
        }
        self.waiting.push_back(Waiting { id, query, since: Instant::now() });
        None
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next query, if it may begin.
    pub fn next(&mut self, load: &Load) -> Option<(QueryId, Query)> {
        let first = self.waiting.front_mut()?;
        let waited = first.since.elapsed();
        if load.has_room(waited) {
            return self.waiting.pop_front().map(|w| (w.id, w.query));
        }
        if !first.query.has_waited {
            first.query.has_waited = true;
            let why = load.what_is_short().unwrap_or("many queries are running");
            tracing::info!(query = first.id.0, running = load.running, why, "a query waits");
        }
        None
    }

    /// Those whose callers do not want them any more.
    pub fn take_cancelled(&mut self) -> Vec<Query> {
        let is_cancelled = |w: &Waiting| w.query.asked.context.check_cancelled().is_err();
        let (cancelled, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(is_cancelled);
        self.waiting = waiting;
        let cancelled: VecDeque<Waiting> = cancelled;
        cancelled.into_iter().map(|w| w.query).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const IDLE: Load =
        Load { running: 1, memory_used_bytes: 0, memory_limit_bytes: 10 * GIB, disk_room_bytes: None };

    #[test]
    fn one_always_runs_and_not_too_many_do() {
        let none = Load { running: 0, memory_used_bytes: 10 * GIB, disk_room_bytes: Some(0), ..IDLE };
        assert!(none.has_room(Duration::ZERO));
        assert!(Load { running: RUNNING_MAX - 1, ..IDLE }.has_room(Duration::ZERO));
        assert!(!Load { running: RUNNING_MAX, ..IDLE }.has_room(Duration::MAX));
    }

    #[test]
    fn what_is_short_is_waited_for_but_not_for_long() {
        for (short, what) in [
            (Load { memory_used_bytes: 10 * GIB, ..IDLE }, "memory"),
            (Load { disk_room_bytes: Some(GIB - 1), ..IDLE }, "disk"),
        ] {
            assert_eq!(short.what_is_short(), Some(what));
            assert!(!short.has_room(Duration::ZERO));
            assert!(short.has_room(SHORT_WAIT_MAX));
        }
        assert!(
            Load { memory_used_bytes: 9 * GIB, disk_room_bytes: Some(GIB), ..IDLE }.has_room(Duration::ZERO)
        );
    }
}
