//! The scheduler alone: a graph of a million tasks with dependencies through the state machine.
//!
//! `cargo bench -p dovetail-engine --bench scheduler` prints microseconds and bytes a task. The tasks do
//! nothing; each is started, ended and its dependants found. Bytes are what the allocator handed out at
//! the peak, with the graph's shape included.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dovetail_engine::scheduler::events::{Action, Event, GraphShape, QueryId, StageShape, WorkerId};
use dovetail_engine::scheduler::state::Scheduler;
use dovetail_planner::graph::{Edge, EdgeKind, Place, StageId};

struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged; only counters are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    println!("{:<44}{:>10}{:>12}{:>12}", "graph", "tasks", "us/task", "bytes/task");
    run("one stage chain of forward edges, 10 deep", 1, chain(10, 100_000, EdgeKind::Forward));
    run("1000 stages of 1000 tasks, hash edges", 1, chain(1_000, 1_000, EdgeKind::Hash));
    run("the same on 200 workers", 200, chain(1_000, 1_000, EdgeKind::Hash));
    run("forward edges on 200 workers", 200, chain(10, 100_000, EdgeKind::Forward));
    run("a million stages of one task", 1, chain(1_000_000, 1, EdgeKind::Gather));
}

fn chain(stages: u32, tasks: u32, kind: EdgeKind) -> impl Fn() -> GraphShape {
    move || GraphShape {
        stages: (0..stages)
            .map(|s| StageShape {
                tasks,
                inputs: s.checked_sub(1).map(|p| Edge { from: StageId(p), kind }).into_iter().collect(),
                place: Place::Anywhere,
                replayable: true,
            })
            .collect(),
        results: vec![StageId(stages - 1)],
    }
}

/// With one worker it is home, as in a process alone.
fn run(name: &str, workers: u32, make: impl Fn() -> GraphShape) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let shape = make();
    let total: u64 = shape.stages.iter().map(|s| u64::from(s.tasks)).sum();
    let query = QueryId(0);
    let start = Instant::now();
    let mut scheduler = Scheduler::new();
    let mut actions = vec![];
    for worker in (0..workers).map(WorkerId) {
        let home = workers == 1;
        scheduler.handle(Event::WorkerJoined { worker, slots: 64, home }, &mut actions);
    }
    scheduler.handle(Event::GraphSubmitted { query, shape }, &mut actions);
    let mut running = VecDeque::new();
    let mut ended = 0u64;
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Run { output, worker, .. } => running.push_back((output, worker)),
                Action::Release { .. } | Action::Answer { .. } | Action::Finish { .. } => {}
                Action::Stop { .. }
                | Action::Abandon { .. }
                | Action::Cancel { .. }
                | Action::Discard { .. }
                | Action::Dismiss { .. }
                | Action::Disconnect { .. } => panic!("nothing failed"),
            }
        }
        let Some((output, worker)) = running.pop_front() else { break };
        ended += 1;
        scheduler.handle(Event::TaskFinished { query, output, worker }, &mut actions);
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(ended, total, "every task ran");
    let bytes = PEAK.load(Ordering::Relaxed) - before;
    println!(
        "{name:<44}{total:>10}{:>12.3}{:>12.1}",
        seconds * 1e6 / total as f64,
        bytes as f64 / total as f64
    );
}
