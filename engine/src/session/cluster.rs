//! Where a session's queries run when there are workers: behind a trait, because this crate knows no network. A cluster
//! may outlive the process that has begun a query: another session goes on with it ([`Session::resume`]).

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dovetail_planner::graph::StageId;
use dovetail_planner::lower::Parallelism;
use dovetail_planner::pipeline::QueryGraph;

use super::run::Ran;
use super::running::RunningGuard;
use super::{Cancellation, ResultStream, Session, StatementKind};
use crate::audit::{Audited, Reading, StatementClass};
use crate::error::Result;
use crate::exchange::DeliveredRows;
use crate::task::QueryContext;

/// Runs queries on other processes.
pub trait Cluster: Send + Sync {
    /// How wide a query is to be planned; none if there is no worker now, and the session runs it itself.
    fn parallelism(&self) -> Option<Parallelism>;

    /// Who is there and what runs, at this moment.
    fn state(&self) -> (Vec<WorkerState>, Vec<TaskState>);

    /// Begins to run a query, whose rows are read from what this gives. Stops when the context is cancelled, which it
    /// is when the rows are dropped before their end.
    ///
    /// # Errors
    /// The cluster is shutting down.
    fn run(&self, query: ClusterQuery) -> Result<DeliveredRows>;
}

/// A query for a cluster, planned with its [`Cluster::parallelism`].
pub struct ClusterQuery {
    pub graph: QueryGraph,
    /// The stage, at home, that brings the query's rows.
    pub result: StageId,
    pub context: Arc<QueryContext>,
    /// Number of the plan's operators.
    pub operators: usize,
    /// Whose result it is, if somebody could ask for it again after this process has ended.
    pub durable: Option<DurableResult>,
    /// What clients show to workers that may fetch its rows there; nobody guesses it.
    pub capability: Option<Vec<u8>>,
}

/// What it takes to hand out a query's rows later.
#[derive(Debug, Clone)]
pub struct DurableResult {
    /// By which they are asked for; nobody guesses it.
    pub handle: Vec<u8>,
    /// Of the rows.
    pub schema: SchemaRef,
    /// What was asked, and by whom, for the audit.
    pub sql: Arc<str>,
    pub user: String,
}

/// A query that another process has begun, and that this session goes on with. Can be cancelled until it is
/// dropped.
pub struct Resumed {
    pub(super) schema: SchemaRef,
    pub(super) context: Arc<QueryContext>,
    pub(super) running: RunningGuard,
    audited: Audited,
}

impl Session {
    /// Takes a query over. The graph, the stage of its rows and the number of operators are those that the cluster
    /// was given then; the rest is this session's own. In the audit it is a statement of its own: of the process
    /// before there is one that was interrupted.
    ///
    /// # Errors
    /// The query cannot be noted in the audit.
    pub fn resume(
        &self,
        graph: QueryGraph,
        result: StageId,
        operators: usize,
        durable: DurableResult,
    ) -> Result<(ClusterQuery, Resumed)> {
        let entry = self.audit_entry(StatementClass::Query, &durable.sql, &durable.user)?;
        let context = Arc::new(self.context(operators));
        let reading = entry.clone().map(|entry| Reading::of_graph(entry, &graph, context.clone()));
        let (sql, user) = (durable.sql.clone(), durable.user.as_str().into());
        let running = self.running.enter(sql, user, context.clone()).with_reading(reading);
        let (schema, audited) = (durable.schema.clone(), Audited::new(entry));
        let resumed = Resumed { schema, context: context.clone(), running, audited };
        Ok((
            ClusterQuery { graph, result, context, operators, durable: Some(durable), capability: None },
            resumed,
        ))
    }
}

impl Resumed {
    /// Lets a cancellation stop the query from now on.
    pub fn stop_with(&self, cancellation: &Cancellation) {
        cancellation.attach(&self.context);
    }

    /// Stops the query.
    pub fn cancel(&self) {
        self.context.cancel();
    }

    /// Waits until the cluster has computed its rows, and gives them.
    pub fn into_stream(self, mut rows: DeliveredRows) -> Result<ResultStream> {
        let Resumed { schema, context, running, mut audited } = self;
        if let Err(e) = rows.wait() {
            // What was read is noted first.
            drop(running);
            return audited.end(Err(e));
        }
        let rows = Ran::new(schema.clone(), rows, context, running);
        let kind = StatementKind::Query;
        Ok(ResultStream { schema, kind, batches: audited.rows(Box::new(rows)) })
    }
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
