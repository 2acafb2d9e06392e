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
