//! The threaded driver: a fixed pool of threads around one scheduler state machine.
//!
//! Each thread runs a task, takes the lock, reports the end to the state machine and carries out what
//! it answers; runs go into a queue that the threads empty. The lock is held for the state machine only
//! (microseconds a task), never while a task runs.
//!
//! What always holds: `run` returns after the query's last task has ended; dropping the pool joins all
//! threads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use dovetail_planner::graph::TaskGraph;
use parking_lot::{Condvar, Mutex};

use super::events::{Action, Event, Failure, GraphShape, OutputId, QueryId, WorkerId};
use super::state::Scheduler;
use super::{TaskRunner, run_caught};
use crate::error::{EngineError, Result};

/// Stack of a task's thread: deeply nested expressions are evaluated by recursion.
const STACK_BYTES: usize = 16 << 20;

/// The pool of this process as the scheduler sees it: one worker with as many slots as threads.
const WORKER: WorkerId = WorkerId(0);

/// A fixed pool of threads that runs task graphs, several at a time.
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A task was queued, or the pool is closing.
    work: Condvar,
    /// A query has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    scheduler: Scheduler,
    queue: VecDeque<(QueryId, OutputId)>,
    queries: HashMap<QueryId, Running>,
    next_query: u64,
    closing: bool,
}

struct Running {
    runner: Arc<dyn TaskRunner>,
    failure: Option<EngineError>,
    ended: bool,
}

impl ThreadPool {
    /// A pool of `threads` threads, at least one.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            ended: Condvar::new(),
        });
        let mut actions = vec![];
        shared
            .state
            .lock()
            .scheduler
            .handle(Event::WorkerJoined { worker: WORKER, slots: threads as u32, home: true }, &mut actions);
        let mut pool = ThreadPool { shared, threads: vec![] };
        for number in 0..threads {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("dovetail-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.work_until_closed())
                .map_err(|e| EngineError::Resources(format!("cannot start a thread: {e}")))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Runs a graph to its end; the calling thread waits.
    pub fn run<W>(&self, graph: &TaskGraph<W>, runner: Arc<dyn TaskRunner>) -> Result<()> {
        graph.validate().map_err(EngineError::Internal)?;
        let mut state = self.shared.state.lock();
        let query = QueryId(state.next_query);
        state.next_query += 1;
        state.queries.insert(query, Running { runner, failure: None, ended: false });
        self.shared.handle(&mut state, Event::GraphSubmitted { query, shape: GraphShape::of(graph) });
        while !state.queries[&query].ended {
            self.shared.ended.wait(&mut state);
        }
        let done = state.queries.remove(&query).expect("invariant: only its own caller removes a query");
        done.failure.map_or(Ok(()), Err)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a pool thread has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work_until_closed(&self) {
        let mut state = self.state.lock();
        loop {
            let Some((query, output)) = state.queue.pop_front() else {
                if state.closing {
                    return;
                }
                self.work.wait(&mut state);
                continue;
            };
            let runner = state.queries[&query].runner.clone();
            drop(state);
            let result = run_caught(runner.as_ref(), output.task);
            state = self.state.lock();
            // With the lock held: new stages are numbered in the order in which the state machine hears of them.
            let event = match result.and_then(|()| runner.splits(output.task)) {
                Ok(splits) => {
                    for split in splits {
                        self.handle(&mut state, Event::StageSplit { query, split });
                    }
                    Event::TaskFinished { query, output, worker: WORKER }
                }
                Err(e) => {
                    if let Some(running) = state.queries.get_mut(&query) {
                        // What follows a failure is mostly "cancelled": the first one is the reason.
                        running.failure.get_or_insert(e);
                    }
                    // There is no other place where it could go better.
                    Event::TaskFailed { query, output, worker: WORKER, failure: Failure::Fatal }
                }
            };
            drop(runner);
            self.handle(&mut state, event);
        }
    }

    /// Feeds the state machine and carries out its answers. Called with the lock held.
    fn handle(&self, state: &mut State, event: Event) {
        let mut actions = vec![];
        state.scheduler.handle(event, &mut actions);
        for action in actions {
            match action {
                Action::Run { query, output, .. } => {
                    state.queue.push_back((query, output));
                    self.work.notify_one();
                }
                Action::Release { query, stage } => {
                    if let Some(running) = state.queries.get(&query) {
                        running.runner.release(stage);
                    }
                }
                Action::Stop { query } => {
                    if let Some(running) = state.queries.get(&query) {
                        running.runner.cancel();
                    }
                }
                Action::Finish { query } | Action::Abandon { query, .. } => {
                    if let Some(running) = state.queries.get_mut(&query) {
                        running.ended = true;
                    }
                    self.ended.notify_all();
                }
                // Nothing runs in vain: `Finish` comes at the same time.
                Action::Answer { .. } => {}
                // The one worker is neither lost nor slow: no task is ever run twice.
                Action::Cancel { .. }
                | Action::Discard { .. }
                | Action::Dismiss { .. }
                | Action::Disconnect { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::StageSplit;
    use super::*;
    use dovetail_planner::graph::{Edge, EdgeKind, Place, Stage, StageId, TaskId};
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Counting {
        runs: AtomicU32,
        fail_at: Option<TaskId>,
    }

    impl TaskRunner for Counting {
        fn run(&self, task: TaskId) -> Result<()> {
            self.runs.fetch_add(1, Ordering::Relaxed);
            match self.fail_at {
                Some(t) if t == task => panic!("on purpose"),
                _ => Ok(()),
            }
        }
        fn splits(&self, _: TaskId) -> Result<Vec<StageSplit>> {
            Ok(vec![])
        }
        fn release(&self, _: StageId) {}
        fn cancel(&self) {}
    }

    fn graph() -> TaskGraph<()> {
        let edge = Edge { from: StageId(0), kind: EdgeKind::Hash };
        let stage = |id, inputs| Stage {
            id: StageId(id),
            tasks: 50,
            inputs,
            place: Place::Anywhere,
            replayable: true,
            work: (),
        };
        TaskGraph { stages: vec![stage(0, vec![]), stage(1, vec![edge])], results: vec![StageId(1)] }
    }

    #[test]
    fn many_queries_from_many_threads() {
        let pool = ThreadPool::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runner = Arc::new(Counting { runs: AtomicU32::new(0), fail_at: None });
                    pool.run(&graph(), runner.clone()).unwrap();
                    assert_eq!(runner.runs.load(Ordering::Relaxed), 100);
                });
            }
        });
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2).unwrap();
        let fail_at = Some(TaskId { stage: StageId(0), partition: 3 });
        let failing = Arc::new(Counting { runs: AtomicU32::new(0), fail_at });
        let error = pool.run(&graph(), failing).unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        let runner = Arc::new(Counting { runs: AtomicU32::new(0), fail_at: None });
        pool.run(&graph(), runner).unwrap();
    }
}
