//! The threaded driver: a fixed pool of threads around one scheduler state machine.
//!
//! Each thread runs a task, takes the lock, reports the end to the state machine and carries out what
//! it answers; runs go into a queue that the threads empty. The lock is held for the state machine only
//! (microseconds a task), never while a task runs.
//!
//! A task that waits for somebody outside, a client that reads slowly, says so ([`while_waiting`]): as long as it
//! waits another thread takes its place, which is started if there is none to spare.
//!
//! What always holds: a query's end is told once, after its last task has ended and without the lock; as many
//! threads as were asked for run tasks, those that wait not counted; dropping the pool stops its queries and
//! joins all threads.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use dovetail_planner::graph::TaskGraph;
use parking_lot::{Condvar, Mutex, MutexGuard};

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
}

struct Shared {
    state: Mutex<State>,
    /// A task was queued, or the pool is closing.
    work: Condvar,
    /// Threads that run tasks.
    threads: usize,
}

#[derive(Default)]
struct State {
    scheduler: Scheduler,
    queue: VecDeque<(QueryId, OutputId)>,
    queries: HashMap<QueryId, Running>,
    /// Queries that have ended, whose callers are to be told.
    ended: Vec<Running>,
    next_query: u64,
    /// Threads that have not ended, and those of them whose tasks wait.
    alive: usize,
    waiting: usize,
    handles: Vec<JoinHandle<()>>,
    closing: bool,
}

struct Running {
    runner: Arc<dyn TaskRunner>,
    failure: Option<EngineError>,
    on_end: OnEnd,
}

/// Is told how a query has ended.
type OnEnd = Box<dyn FnOnce(Result<()>) + Send>;

thread_local! {
    /// The pool whose thread this is.
    static POOL: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// Waits for something that no task does. On a thread of a pool another one runs tasks meanwhile.
pub fn while_waiting<T>(wait: impl FnOnce() -> T) -> T {
    let pool = POOL.with_borrow(Clone::clone);
    let _place = pool.as_ref().map(Place::give_up);
    wait()
}

/// A thread's place among those that run tasks, which it has given up until this is dropped.
struct Place<'a>(&'a Arc<Shared>);

impl Place<'_> {
    fn give_up(shared: &Arc<Shared>) -> Place<'_> {
        let mut state = shared.state.lock();
        state.waiting += 1;
        if state.alive - state.waiting < shared.threads
            && !state.closing
            && let Err(error) = shared.start_thread(&mut state)
        {
            tracing::warn!(%error, "fewer tasks run while a client is slow");
        }
        shared.slots_changed(&mut state);
        Place(shared)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting -= 1;
        self.0.slots_changed(&mut state);
    }
}

impl ThreadPool {
    /// A pool of `threads` threads, at least one.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), threads });
        let pool = ThreadPool { shared };
        let mut state = pool.shared.state.lock();
        let joined = Event::WorkerJoined { worker: WORKER, slots: threads as u32, home: true };
        state.scheduler.handle(joined, &mut vec![]);
        for _ in 0..threads {
            pool.shared.start_thread(&mut state)?;
        }
        drop(state);
        Ok(pool)
    }

    /// Number of threads that run tasks.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs a graph to its end; the calling thread waits.
    pub fn run<W>(&self, graph: &TaskGraph<W>, runner: Arc<dyn TaskRunner>) -> Result<()> {
        let (tell, told) = std::sync::mpsc::channel();
        // The receiver waits below.
        self.start(graph, runner, Box::new(move |end| drop(tell.send(end))))?;
        told.recv().unwrap_or_else(|_| Err(EngineError::internal("a query has ended without a word")))
    }

    /// Starts to run a graph. Its end is told on a thread of the pool, or on this one, unless this fails.
    pub fn start<W>(&self, graph: &TaskGraph<W>, runner: Arc<dyn TaskRunner>, on_end: OnEnd) -> Result<()> {
        graph.validate().map_err(EngineError::Internal)?;
        let mut state = self.shared.state.lock();
        let query = QueryId(state.next_query);
        state.next_query += 1;
        state.queries.insert(query, Running { runner, failure: None, on_end });
        self.shared.handle(&mut state, Event::GraphSubmitted { query, shape: GraphShape::of(graph) });
        tell_ends(&mut state);
        Ok(())
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let handles = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            state.queries.values().for_each(|q| q.runner.cancel());
            std::mem::take(&mut state.handles)
        };
        self.shared.work.notify_all();
        for thread in handles {
            // A panic of a pool thread has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn start_thread(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let shared = self.clone();
        let thread = std::thread::Builder::new()
            .name(format!("dovetail-{}", state.alive))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                POOL.set(Some(shared.clone()));
                shared.work_until_closed();
            })
            .map_err(|e| EngineError::Resources(format!("cannot start a thread: {e}")))?;
        state.handles.retain(|h| !h.is_finished());
        state.handles.push(thread);
        state.alive += 1;
        Ok(())
    }

    fn slots_changed(&self, state: &mut MutexGuard<'_, State>) {
        let slots = (self.threads + state.waiting) as u32;
        self.handle(state, Event::SlotsChanged { worker: WORKER, slots });
        tell_ends(state);
    }

    fn work_until_closed(&self) {
        let mut state = self.state.lock();
        loop {
            let is_surplus = state.alive - state.waiting > self.threads;
            let next = if is_surplus { None } else { state.queue.pop_front() };
            let Some((query, output)) = next else {
                if is_surplus || state.closing {
                    state.alive -= 1;
                    // It may have been woken for a task.
                    self.work.notify_one();
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
            tell_ends(&mut state);
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
                    let ended = state.queries.remove(&query);
                    state.ended.extend(ended);
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

/// Tells the callers of queries that have ended, with the lock given back for as long.
fn tell_ends(state: &mut MutexGuard<'_, State>) {
    if state.ended.is_empty() {
        return;
    }
    let ended = std::mem::take(&mut state.ended);
    MutexGuard::unlocked(state, || {
        for Running { runner, failure, on_end } in ended {
            // What the query holds goes first.
            drop(runner);
            on_end(failure.map_or(Ok(()), Err));
        }
    });
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

    /// Tasks of the first stage wait until a task of somebody else has run.
    struct Waiting(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>);

    impl TaskRunner for Waiting {
        fn run(&self, task: TaskId) -> Result<()> {
            if task.stage == StageId(0) {
                while_waiting(|| self.1.lock().recv().unwrap());
            }
            Ok(())
        }
        fn splits(&self, _: TaskId) -> Result<Vec<StageSplit>> {
            Ok(vec![])
        }
        fn release(&self, _: StageId) {}
        fn cancel(&self) {
            (0..50).for_each(|_| self.0.send(()).unwrap());
        }
    }

    #[test]
    fn a_task_that_waits_does_not_hold_up_others() {
        let pool = ThreadPool::new(2).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = Arc::new(Waiting(sender.clone(), Mutex::new(receiver)));
        pool.start(&graph(), waiting, Box::new(move |end| tell.send(end).unwrap())).unwrap();
        let runner = Arc::new(Counting { runs: AtomicU32::new(0), fail_at: None });
        pool.run(&graph(), runner.clone()).unwrap();
        assert_eq!(runner.runs.load(Ordering::Relaxed), 100);
        assert!(told.try_recv().is_err());
        (0..50).for_each(|_| sender.send(()).unwrap());
        told.recv().unwrap().unwrap();
        let state = pool.shared.state.lock();
        assert_eq!(state.waiting, 0);
        drop(state);
        // The threads that took their places go when they find nothing to do.
        let runner = Arc::new(Counting { runs: AtomicU32::new(0), fail_at: None });
        pool.run(&graph(), runner).unwrap();
        let running = pool.shared.state.lock().alive;
        assert!(running <= 52, "{running} threads");
    }

    #[test]
    fn a_pool_that_goes_stops_what_waits() {
        let pool = ThreadPool::new(1).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = Arc::new(Waiting(sender, Mutex::new(receiver)));
        pool.start(&graph(), waiting, Box::new(move |end| tell.send(end).unwrap())).unwrap();
        drop(pool);
        told.recv().unwrap().unwrap();
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
