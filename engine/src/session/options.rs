//! How a session runs its queries.

/// Settings of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that run tasks; at least one.
    pub threads: usize,
    /// Hash partitions of an exchange, and tasks of a stage; none: chosen from `threads`.
    pub partitions: Option<usize>,
    pub scheduler: SchedulerKind,
}

/// Which driver runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulerKind {
    /// A pool of threads.
    #[default]
    Threads,
    /// The calling thread, one task after the other, in a fixed order.
    Synchronous,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        SessionOptions { threads, partitions: None, scheduler: SchedulerKind::Threads }
    }
}
