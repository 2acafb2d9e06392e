//! Takes a logical plan through planning, lowering and a scheduler to its rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_expr::LogicalPlan;
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::lower::{Lowered, Parallelism, Sharing, lower};
use dovetail_planner::physical::Query;
use dovetail_planner::plan_query;

use super::cluster::{Cluster, ClusterQuery, DurableResult};
use super::{Cancellation, RunningGuard, SchedulerKind, Session};
use crate::error::{EngineError, Result};
use crate::exchange::KeptReader;
use crate::query::{QueryRun, WorkTables};
use crate::scheduler::synchronous;
use crate::task::QueryContext;

/// Hash partitions for each thread: enough that a skewed one does not leave the other threads idle, few
/// enough that small results are not scattered.
const PARTITIONS_PER_THREAD: usize = 4;

/// A query planned down to its graph.
pub struct Planned {
    pub query: Query,
    pub lowered: Lowered,
    /// Who runs it; none is the session itself.
    cluster: Option<Arc<dyn Cluster>>,
}

/// What a query run left: its rows, and the counters of its operators. Can be cancelled until it is dropped.
pub struct Ran {
    pub schema: SchemaRef,
    pub rows: KeptReader,
    pub context: Arc<QueryContext>,
    pub(super) _running: RunningGuard,
}

impl Iterator for Ran {
    type Item = Result<RecordBatch>;

    /// The next rows, of exactly the query's schema.
    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.context.check_cancelled().and_then(|()| self.rows.next().transpose());
        batch.and_then(|b| b.map(|b| b.to_record_batch(&self.schema)).transpose()).transpose()
    }
}

impl Session {
    /// Plans a query for this session's threads.
    pub(super) fn plan(&self, plan: LogicalPlan, snapshot: &CatalogSnapshot) -> Result<Planned> {
        let query = plan_query(plan, snapshot)?;
        let cluster = self.cluster.get().and_then(|cluster| Some((cluster.clone(), cluster.parallelism()?)));
        let (cluster, parallelism) = cluster.unzip();
        let lowered = lower(&query, parallelism.unwrap_or_else(|| self.parallelism()))?;
        Ok(Planned { query, lowered, cluster })
    }

    /// Runs a planned query, until its end or until it is stopped. With a handle, a cluster may go on with it in
    /// another process if this one ends.
    pub(super) fn run(
        &self,
        planned: &Planned,
        handle: Option<Vec<u8>>,
        cancellation: &Cancellation,
    ) -> Result<Ran> {
        let Lowered { graph, result, schema } = &planned.lowered;
        let context = Arc::new(self.context(planned.query.operator_count()));
        let running = self.running.enter(context.clone());
        cancellation.attach(&context);
        if let Some(cluster) = &planned.cluster {
            let rows = cluster.run(ClusterQuery {
                graph: graph.clone(),
                result: *result,
                catalog: self.catalog.clone(),
                context: context.clone(),
                operators: planned.query.operator_count(),
                durable: handle.map(|handle| DurableResult { handle, schema: schema.clone() }),
            })?;
            let rows = KeptReader::taking(rows);
            return Ok(Ran { schema: schema.clone(), rows, context, _running: running });
        }
        let run =
            Arc::new(QueryRun::new(graph, self.catalog.clone(), context.clone(), WorkTables::default()));
        match (&self.pool, self.options.scheduler) {
            (Some(pool), SchedulerKind::Threads) => pool.run(graph, run.clone())?,
            (None, SchedulerKind::Synchronous) => synchronous::run(graph, run.as_ref())?,
            (_, kind) => return Err(EngineError::internal(format!("no driver for scheduler {kind:?}"))),
        }
        let rows = KeptReader::taking(run.kept_rows(*result));
        Ok(Ran { schema: schema.clone(), rows, context, _running: running })
    }

    /// The surroundings of a query with so many operators.
    pub(super) fn context(&self, operators: usize) -> QueryContext {
        QueryContext::bounded(operators, self.memory.clone(), self.spill.query())
    }

    fn parallelism(&self) -> Parallelism {
        let threads = self.options.threads.max(1);
        match self.options.partitions {
            Some(n) => {
                Parallelism { tasks: n.max(1) as u32, partitions: n.max(1) as u32, sharing: Sharing::Process }
            }
            None => Parallelism {
                sharing: Sharing::Process,
                tasks: threads as u32,
                partitions: if threads == 1 { 1 } else { (threads * PARTITIONS_PER_THREAD) as u32 },
            },
        }
    }
}
