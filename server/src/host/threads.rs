//! Threads that run tasks, in the order in which they were asked for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use dovetail_engine::EngineError;
use dovetail_engine::query::placed::PlacedRun;
use dovetail_engine::scheduler::events::OutputId;
use dovetail_planner::graph::StageId;
use parking_lot::{Condvar, Mutex};

use super::{Ends, Runs};

/// Stack of a task's thread: deeply nested expressions are evaluated by recursion.
const STACK_BYTES: usize = 16 << 20;

/// What a thread does.
pub enum Job {
    Task {
        query: u64,
        output: OutputId,
        run: Arc<PlacedRun>,
    },
    /// Make the build side of a join in advance. Nobody waits for the end.
    Warm {
        stage: StageId,
        run: Arc<PlacedRun>,
    },
}

/// A fixed number of threads. Dropped, it waits for the tasks that run.
pub struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    runs: Runs,
    ends: Arc<dyn Ends>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_closing: bool,
}

impl Threads {
    pub fn start(count: usize, runs: Runs, ends: Arc<dyn Ends>) -> std::io::Result<Threads> {
        let shared = Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), runs, ends });
        let mut threads = Threads { shared, handles: vec![] };
        for number in 0..count {
            let shared = threads.shared.clone();
            let builder =
                std::thread::Builder::new().name(format!("dovetail-{number}")).stack_size(STACK_BYTES);
            threads.handles.push(builder.spawn(move || shared.work_until_closed())?);
        }
        Ok(threads)
    }

    pub fn push(&self, job: Job) {
        self.shared.queue.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }

    /// Tasks that no thread has begun yet.
    pub fn waiting(&self) -> Vec<(u64, OutputId)> {
        let queue = self.shared.queue.lock();
        let task = |job: &Job| match job {
            Job::Task { query, output, .. } => Some((*query, *output)),
            Job::Warm { .. } => None,
        };
        queue.jobs.iter().filter_map(task).collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.is_closing = true;
            for Job::Task { run, .. } | Job::Warm { run, .. } in queue.jobs.drain(..) {
                run.cancel();
            }
        }
        self.shared.work.notify_all();
        for handle in self.handles.drain(..) {
            // A panic of the thread itself has been reported by the panic hook.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work_until_closed(&self) {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(next) = queue.jobs.pop_front() {
                        break next;
                    }
                    if queue.is_closing {
                        return;
                    }
                    self.work.wait(&mut queue);
                }
            };
            match next {
                Job::Task { query, output, run } => {
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| run.run(output)));
                    let (stage, task, ms) =
                        (output.task.stage.0, output.task.partition, start.elapsed().as_millis());
                    tracing::debug!(query, stage, task, attempt = output.attempt.0, ms, "a task has ended");
                    // Another run of the same number may be there: nobody is told of this one's end.
                    let is_over = self.runs.lock().get(&query).is_none_or(|now| !Arc::ptr_eq(now, &run));
                    // Before the report: what it frees is free when the next task is chosen.
                    drop(run);
                    if !is_over {
                        self.ends.ended(query, output, result.unwrap_or_else(|p| Err(panicked(&*p))));
                    }
                }
                Job::Warm { stage, run } => {
                    let result = catch_unwind(AssertUnwindSafe(|| run.warm(stage)));
                    if let Err(error) = result.unwrap_or_else(|p| Err(panicked(&*p))) {
                        // Whoever needs it will meet the error again, and report it.
                        tracing::debug!(stage = stage.0, %error, "a build side could not be made in advance");
                    }
                }
            }
        }
    }
}

/// A defect must not take the process along.
fn panicked(panic: &(dyn std::any::Any + Send)) -> EngineError {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    EngineError::internal(text.unwrap_or_else(|| "a task panicked".into()))
}
