//! What people see of a cluster: `system.workers` and `system.tasks`.

use dovetail_engine::scheduler::state::Scheduler;
use dovetail_engine::session::cluster::{TaskState, WorkerState};

use super::workers::{Worker, Workers};

/// Who is there and what runs.
pub fn state(workers: &Workers, scheduler: &Scheduler) -> (Vec<WorkerState>, Vec<TaskState>) {
    let worker = |id: u32, w: &Worker| WorkerState {
        id,
        address: w.hello.address.clone(),
        slots: w.hello.slots,
        running: w.running,
        is_leaving: w.is_leaving,
        memory_limit_bytes: w.hello.memory_limit_bytes,
        memory_used_bytes: w.heartbeat.memory_used_bytes,
        spilled_bytes: w.heartbeat.spilled_bytes,
    };
    let tasks = scheduler.running().map(|(query, output, on, elapsed_ms)| TaskState {
        worker: on.0,
        query: query.0,
        stage: output.task.stage.0,
        task: output.task.partition,
        attempt: output.attempt.0,
        elapsed_ms,
    });
    (workers.iter().map(|(id, w)| worker(id.0, w)).collect(), tasks.collect())
}
