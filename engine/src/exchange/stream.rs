//! A query's rows on their way to whoever asked, while the query still runs.
//!
//! ```text
//! tasks of the result's stage ─ push ─▶ ResultFlow, bounded ─ next ─▶ ResultStream ─▶ shell, client
//!                                 └─ full: the task waits, and another thread takes its place
//! ```
//!
//! Small results wait until they are complete: then they come in the order of their tasks, and an error comes
//! before any row. A result that outgrows [`ResultFlow::bound_bytes`] starts to flow: its reader gets rows as they
//! are made, and its tasks wait for a reader that is slow, so that any result passes through a bounded amount of
//! memory.
//!
//! What always holds: rows of one task keep their order; rows pushed are rows read, or the stream ends with an
//! error; nothing is pushed after the reader has gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Charge, Governor};
use crate::scheduler::threads::while_waiting;
use crate::task::{Flow, QueryContext};

/// The most that waits for the reader, in memory.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Of what an operator may hold, if that is less.
const WAITING_SHARE: usize = 4;

/// Between two looks whether the query was cancelled.
const CANCELLED_EACH: Duration = Duration::from_millis(50);

/// What waits for a reader before it gets the first rows, and then at a time.
pub(super) fn bound_bytes(memory: &Governor) -> usize {
    WAITING_BYTES_MAX.min(memory.fair_share_bytes() / WAITING_SHARE)
}

/// Both ends of a result.
pub struct ResultFlow {
    state: Mutex<State>,
    /// Rows came or went, or it is over.
    changed: Condvar,
    /// Changed with `state` locked.
    charge: Charge,
    bound_bytes: usize,
}

#[derive(Default)]
struct State {
    /// By task.
    waiting: BTreeMap<usize, VecDeque<Rows>>,
    held: HeldMemory,
    rows_pushed: u64,
    rows_read: u64,
    /// The reader may have what is there.
    flows: bool,
    /// The query has ended; an error is taken by the reader.
    ended: Option<Result<()>>,
    /// The reader has gone.
    is_closed: bool,
}

impl ResultFlow {
    /// A result of which nothing is there yet.
    pub fn new(memory: &Governor) -> Arc<ResultFlow> {
        Arc::new(ResultFlow {
            state: Mutex::default(),
            changed: Condvar::new(),
            charge: Charge::new(memory),
            bound_bytes: bound_bytes(memory),
        })
    }

    /// Adds a batch of a task, and waits while too much is there that nobody has read. Called by the task's thread.
    pub fn push(&self, task: usize, batch: &Batch, query: &QueryContext) -> Result<Flow> {
        let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<_>>()?;
        let rows = Rows::new(columns, batch.rows);
        let mut state = self.state.lock();
        if state.is_closed {
            return Ok(Flow::Done);
        }
        state.rows_pushed += rows.rows as u64;
        state.held.add(&rows);
        state.waiting.entry(task).or_default().push_back(rows);
        self.charge.set(state.held.bytes());
        let is_full = state.held.bytes() > self.bound_bytes;
        state.flows |= is_full;
        if state.flows {
            self.changed.notify_all();
        }
        drop(state);
        if is_full {
            while_waiting(|| self.wait_for_room(query))?;
        }
        Ok(Flow::Continue)
    }

    fn wait_for_room(&self, query: &QueryContext) -> Result<()> {
        let mut state = self.state.lock();
        while state.held.bytes() > self.bound_bytes && !state.is_closed {
            query.check_cancelled()?;
            self.changed.wait_for(&mut state, CANCELLED_EACH);
        }
        Ok(())
    }

    /// The query has ended, well or not. Called once.
    pub fn end(&self, result: Result<()>) {
        let mut state = self.state.lock();
        state.flows = true;
        state.ended = Some(result);
        self.changed.notify_all();
    }

    /// Waits until there are rows for the reader, or all is over: then an error is told here.
    pub fn wait(&self) -> Result<()> {
        let mut state = self.state.lock();
        while !state.flows {
            self.changed.wait(&mut state);
        }
        take_error(&mut state)
    }

    /// The next rows, or none at the end.
    pub fn next(&self) -> Result<Option<Batch>> {
        let mut state = self.state.lock();
        loop {
            take_error(&mut state)?;
            if state.flows
                && let Some(rows) = state.waiting.values_mut().find_map(VecDeque::pop_front)
            {
                state.held.remove(&rows);
                state.rows_read += rows.rows as u64;
                self.charge.set(state.held.bytes());
                self.changed.notify_all();
                return Ok(Some(Batch::from_arrays(rows.columns, rows.rows)));
            }
            if state.ended.is_some() {
                return match (state.rows_pushed, state.rows_read) {
                    (pushed, read) if pushed == read => Ok(None),
                    (pushed, read) => {
                        Err(EngineError::internal(format!("{pushed} rows were made and {read} were read")))
                    }
                };
            }
            self.changed.wait(&mut state);
        }
    }

    /// The reader goes: what waits is dropped, and nothing more is taken.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.waiting.clear();
        state.held.clear();
        self.charge.set(0);
        self.changed.notify_all();
    }

    /// Waits for the end of the query.
    pub fn wait_for_end(&self) {
        let mut state = self.state.lock();
        while state.ended.is_none() {
            self.changed.wait(&mut state);
        }
    }
}

/// The query's failure, once; afterwards the stream is at its end.
fn take_error(state: &mut MutexGuard<'_, State>) -> Result<()> {
    if !matches!(state.ended, Some(Err(_))) {
        return Ok(());
    }
    state.waiting.clear();
    state.held.clear();
    state.rows_read = state.rows_pushed;
    state.ended.replace(Ok(())).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::memory::SpillPolicy;

    fn numbers(start: i64, rows: i64) -> Batch {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + rows));
        Batch::from_arrays(vec![values], rows as usize)
    }

    fn first(batch: &Batch) -> i64 {
        batch.columns[0].values().unwrap().as_primitive::<Int64Type>().value(0)
    }

    #[test]
    fn a_small_result_comes_in_the_order_of_its_tasks() {
        let memory = Governor::unlimited();
        let flow = ResultFlow::new(&memory);
        let query = QueryContext::new(0);
        for (task, start) in [(2, 20), (0, 0), (1, 10), (0, 5)] {
            flow.push(task, &numbers(start, 5), &query).unwrap();
        }
        flow.end(Ok(()));
        flow.wait().unwrap();
        let read: Vec<i64> = std::iter::from_fn(|| flow.next().unwrap()).map(|b| first(&b)).collect();
        assert_eq!(read, [0, 5, 10, 20]);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn an_error_comes_before_the_rows_of_a_small_result() {
        let flow = ResultFlow::new(&Governor::unlimited());
        flow.push(0, &numbers(0, 5), &QueryContext::new(0)).unwrap();
        flow.end(Err(EngineError::execution("no")));
        assert!(flow.wait().is_err());
        assert!(flow.next().unwrap().is_none());
    }

    #[test]
    fn a_large_result_is_held_up_by_a_slow_reader_and_passes() {
        let memory = Governor::new(4 << 20, SpillPolicy::AtLimit);
        let flow = ResultFlow::new(&memory);
        let query = QueryContext::new(0);
        const BATCHES: i64 = 1000;
        std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..3)
                .map(|task| {
                    let (flow, query) = (&flow, &query);
                    scope.spawn(move || {
                        for i in 0..BATCHES {
                            flow.push(task, &numbers(i, 1000), query).unwrap();
                        }
                    })
                })
                .collect();
            flow.wait().unwrap();
            let mut read = 0;
            while read < 3 * BATCHES {
                let held = flow.state.lock().held.bytes();
                // Each task may add one batch before it sees that there is no room.
                assert!(held <= flow.bound_bytes + 3 * 8192, "{held}");
                read += i64::from(flow.next().unwrap().is_some());
            }
            tasks.into_iter().for_each(|t| t.join().unwrap());
            flow.end(Ok(()));
            assert!(flow.next().unwrap().is_none());
        });
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn nothing_is_taken_after_the_reader_has_gone_and_a_cancelled_task_does_not_wait() {
        let memory = Governor::new(1 << 20, SpillPolicy::AtLimit);
        let flow = ResultFlow::new(&memory);
        let query = QueryContext::new(0);
        std::thread::scope(|scope| {
            let task = scope.spawn(|| {
                loop {
                    if flow.push(0, &numbers(0, 1000), &query).unwrap() == Flow::Done {
                        return;
                    }
                }
            });
            flow.wait().unwrap();
            flow.close();
            task.join().unwrap();
        });
        assert_eq!(memory.used_bytes(), 0);
        let flow = ResultFlow::new(&memory);
        query.cancel();
        let cancelled =
            std::iter::repeat_with(|| flow.push(0, &numbers(0, 1000), &query)).find_map(Result::err);
        assert!(matches!(cancelled, Some(EngineError::Cancelled)));
    }
}
