//! Where a session's queries run when there are workers: behind a trait, because this crate knows no network.

use std::sync::Arc;

use dovetail_planner::graph::StageId;
use dovetail_planner::lower::Parallelism;
use dovetail_planner::pipeline::QueryGraph;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::exchange::KeptRows;
use crate::task::QueryContext;

/// Runs queries on other processes.
pub trait Cluster: Send + Sync {
    /// How wide a query is to be planned; none if there is no worker now, and the session runs it itself.
    fn parallelism(&self) -> Option<Parallelism>;

    /// Who is there and what runs, at this moment.
    fn state(&self) -> (Vec<WorkerState>, Vec<TaskState>);

    /// Runs a query to its end; the calling thread waits. Stops when the context is cancelled.
    fn run(&self, query: ClusterQuery) -> Result<Vec<Arc<KeptRows>>>;
}

/// A query for a cluster, planned with its [`Cluster::parallelism`].
pub struct ClusterQuery {
    pub graph: QueryGraph,
    /// The stage, at home, that keeps the query's rows.
    pub result: StageId,
    pub catalog: Arc<Catalog>,
    pub context: Arc<QueryContext>,
    /// Number of the plan's operators.
    pub operators: usize,
}

/// A worker, for people to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerState {
    pub id: u32,
    /// Where its outputs are fetched.
    pub address: String,
    /// Tasks at a time, and those that it runs.
    pub slots: u32,
    pub running: u32,
    pub is_leaving: bool,
    pub memory_limit_bytes: u64,
    /// As it has said last.
    pub memory_used_bytes: u64,
    pub spilled_bytes: u64,
}

/// An attempt of a task that runs, for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    pub worker: u32,
    /// The cluster's number of the query.
    pub query: u64,
    pub stage: u32,
    pub task: u32,
    pub attempt: u32,
    pub elapsed_ms: u64,
}
