//! Threads that run tasks, in the order in which they were asked for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use dovetail_engine::EngineError;
use dovetail_engine::query::placed::PlacedRun;
use dovetail_engine::scheduler::events::OutputId;
use parking_lot::{Condvar, Mutex};

use super::Ends;

/// Stack of a task's thread: deeply nested expressions are evaluated by recursion.
const STACK_BYTES: usize = 16 << 20;

/// A fixed number of threads. Dropped, it waits for the tasks that run.
pub struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    ends: Arc<dyn Ends>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<(u64, OutputId, Arc<PlacedRun>)>,
    is_closing: bool,
}

impl Threads {
    pub fn start(count: usize, ends: Arc<dyn Ends>) -> std::io::Result<Threads> {
        let shared = Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), ends });
        let mut threads = Threads { shared, handles: vec![] };
        for number in 0..count {
            let shared = threads.shared.clone();
            let builder =
                std::thread::Builder::new().name(format!("dovetail-{number}")).stack_size(STACK_BYTES);
            threads.handles.push(builder.spawn(move || shared.work_until_closed())?);
        }
        Ok(threads)
    }

    pub fn push(&self, query: u64, output: OutputId, run: Arc<PlacedRun>) {
        self.shared.queue.lock().tasks.push_back((query, output, run));
        self.shared.work.notify_one();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.is_closing = true;
            queue.tasks.drain(..).for_each(|(_, _, run)| run.cancel());
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
                    if let Some(next) = queue.tasks.pop_front() {
                        break next;
                    }
                    if queue.is_closing {
                        return;
                    }
                    self.work.wait(&mut queue);
                }
            };
            let (query, output, run) = next;
            let result =
                catch_unwind(AssertUnwindSafe(|| run.run(output))).unwrap_or_else(|p| Err(panicked(&*p)));
            // Before the report: what it frees is free when the next task is chosen.
            drop(run);
            self.ends.ended(query, output, result);
        }
    }
}

/// A defect must not take the process along.
fn panicked(panic: &(dyn std::any::Any + Send)) -> EngineError {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    EngineError::internal(text.unwrap_or_else(|| "a task panicked".into()))
}
