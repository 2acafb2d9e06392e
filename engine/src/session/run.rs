//! Takes a logical plan through planning, lowering and a scheduler to its rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_expr::LogicalPlan;
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::lower::{Lowered, Parallelism, Sharing, lower};
use dovetail_planner::physical::Query;
use dovetail_planner::pipeline::{QueryStage, Transform};
use dovetail_planner::plan_query;

use super::cluster::{Cluster, ClusterQuery, DurableResult};
use super::running::RunningGuard;
use super::{Cancellation, SchedulerKind, Session, system};
use crate::audit::mask;
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::{KeptReader, ResultFlow};
use crate::memory::SpillPolicy;
use crate::operators::join::PARTITIONS;
use crate::query::{QueryRun, WorkTables};
use crate::scheduler::synchronous;
use crate::task::QueryContext;

/// Hash partitions for each thread: enough that a skewed one does not leave the other threads idle, few
/// enough that small results are not scattered.
const PARTITIONS_PER_THREAD: usize = 4;

/// Tasks that may wait for slow readers at a time, each on a thread of its own.
const FLOWING_TASKS_MAX: usize = 1024;

/// A query planned down to its graph.
pub struct Planned {
    pub query: Query,
    pub lowered: Lowered,
    /// Who runs it; none is the session itself.
    pub(super) cluster: Option<Arc<dyn Cluster>>,
}

/// What a query run left: its rows, and the counters of its operators. Can be cancelled until it is dropped.
pub struct Ran {
    pub schema: SchemaRef,
    pub rows: Box<dyn Iterator<Item = Result<Batch>> + Send>,
    pub context: Arc<QueryContext>,
    _running: RunningGuard,
    /// If some of the rows are elsewhere, and their reader may be slow.
    _counted: Option<Counted>,
}

impl Ran {
    /// A query that has run, and its rows.
    pub(super) fn new(
        schema: SchemaRef,
        rows: impl Iterator<Item = Result<Batch>> + Send + 'static,
        context: Arc<QueryContext>,
        running: RunningGuard,
    ) -> Ran {
        Ran { schema, rows: Box::new(rows), context, _running: running, _counted: None }
    }
}

impl Iterator for Ran {
    type Item = Result<RecordBatch>;

    /// The next rows, of exactly the query's schema.
    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.context.check_cancelled().and_then(|()| self.rows.next().transpose());
        batch.and_then(|b| b.map(|b| b.to_record_batch(&self.schema)).transpose()).transpose()
    }
}

/// The rows of a query that runs while they are read. Can be cancelled until it is dropped, which stops it.
pub struct Flowing {
    pub schema: SchemaRef,
    flow: Arc<ResultFlow>,
    context: Arc<QueryContext>,
    _running: RunningGuard,
    _counted: Counted,
}

impl Iterator for Flowing {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.context.check_cancelled().and_then(|()| self.flow.next());
        batch.and_then(|b| b.map(|b| b.to_record_batch(&self.schema)).transpose()).transpose()
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        self.context.cancel();
        self.flow.close();
        // Its tasks end with their batch; then nothing is left of it.
        self.flow.wait_for_end();
    }
}

/// Tasks of queries whose readers may be slow, counted; the way home from a cluster is one.
pub struct Counted {
    all: Arc<AtomicUsize>,
    tasks: usize,
}

impl Counted {
    pub(super) fn enter(all: &Arc<AtomicUsize>, tasks: usize) -> Option<Counted> {
        let room = |now: usize| (now + tasks <= FLOWING_TASKS_MAX).then_some(now + tasks);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Counted { all: all.clone(), tasks })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.tasks, Ordering::Relaxed);
    }
}

/// Tasks that a stage may come to have: all of them start if their reader is slow.
fn tasks_at_most(stage: &QueryStage) -> usize {
    let mut steps = stage.work.branches.iter().flat_map(|branch| &branch.steps);
    let may_be_split = steps.any(|step| matches!(step.transform, Transform::HashJoinProbe { .. }));
    (stage.tasks as usize).max(if may_be_split { PARTITIONS } else { 0 })
}

impl Session {
    /// Runs a planned query; what it gives is read while it runs, or while it is fetched from a cluster, if it is much.
    pub(super) fn rows(
        &self,
        planned: &Planned,
        handle: Option<Vec<u8>>,
        cancellation: &Cancellation,
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let Lowered { graph, result, schema } = &planned.lowered;
        if let Some(cluster) = &planned.cluster
            && let Some(counted) = Counted::enter(&self.flowing, 1)
        {
            let (context, running) = self.begin(planned, cancellation);
            let mut rows = cluster.run(self.for_cluster(planned, handle, context.clone(), cancellation))?;
            rows.wait()?;
            let ran = Ran::new(schema.clone(), rows, context, running);
            return Ok(Box::new(Ran { _counted: Some(counted), ..ran }));
        }
        let pool = match (&self.pool, &planned.cluster) {
            // Where whatever can be spilled is spilled, results are, too.
            (Some(pool), None) if self.memory.policy() != SpillPolicy::Always => pool,
            _ => return Ok(Box::new(self.run(planned, handle, cancellation)?)),
        };
        let Some(counted) = Counted::enter(&self.flowing, tasks_at_most(&graph.stages[result.0 as usize]))
        else {
            // Too many clients are slow already: what this one has not read yet waits on disk.
            return Ok(Box::new(self.run(planned, handle, cancellation)?));
        };
        let (context, running) = self.begin(planned, cancellation);
        let flow = ResultFlow::new(&self.memory);
        let run = QueryRun::new(graph, self.catalog.clone(), context.clone(), WorkTables::default())
            .with_result(*result, flow.clone());
        let end = flow.clone();
        pool.start(graph, Arc::new(run), Box::new(move |result| end.end(result)))?;
        let flowing = Flowing { schema: schema.clone(), flow, context, _running: running, _counted: counted };
        flowing.flow.wait()?;
        Ok(Box::new(flowing))
    }

    /// Plans a query for the cluster if it has workers, else for this session's threads.
    pub(super) fn plan(&self, plan: LogicalPlan, snapshot: &CatalogSnapshot) -> Result<Planned> {
        let query = plan_query(plan, snapshot)?;
        // Workers do not see the audit's files.
        let cluster = self.cluster.get().filter(|_| !system::reads_audit(snapshot));
        let cluster = cluster.and_then(|cluster| Some((cluster.clone(), cluster.parallelism()?)));
        let (cluster, parallelism) = cluster.unzip();
        let lowered = lower(&query, self.widened(parallelism.unwrap_or_else(|| self.parallelism())))?;
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
        let (context, running) = self.begin(planned, cancellation);
        if let Some(cluster) = &planned.cluster {
            let rows = cluster.run(self.for_cluster(planned, handle, context.clone(), cancellation))?;
            return Ok(Ran::new(schema.clone(), rows.wait_for_all()?, context, running));
        }
        let run =
            Arc::new(QueryRun::new(graph, self.catalog.clone(), context.clone(), WorkTables::default()));
        match (&self.pool, self.options.scheduler) {
            (Some(pool), SchedulerKind::Threads) => pool.run(graph, run.clone())?,
            (None, SchedulerKind::Synchronous) => synchronous::run(graph, run.as_ref())?,
            (_, kind) => return Err(EngineError::internal(format!("no driver for scheduler {kind:?}"))),
        }
        let rows = KeptReader::taking(run.kept_rows(*result));
        Ok(Ran::new(schema.clone(), rows, context, running))
    }

    /// A planned query as a cluster is given it.
    pub(super) fn for_cluster(
        &self,
        planned: &Planned,
        handle: Option<Vec<u8>>,
        context: Arc<QueryContext>,
        cancellation: &Cancellation,
    ) -> ClusterQuery {
        let Lowered { graph, result, schema } = &planned.lowered;
        ClusterQuery {
            graph: graph.clone(),
            result: *result,
            context,
            operators: planned.query.operator_count(),
            durable: handle.map(|handle| DurableResult {
                handle,
                schema: schema.clone(),
                sql: mask(&cancellation.sql()).into(),
                user: cancellation.user(),
            }),
            capability: None,
        }
    }

    /// The surroundings of a query with so many operators.
    pub(super) fn context(&self, operators: usize) -> QueryContext {
        QueryContext::bounded(operators, self.memory.clone(), self.spill.query())
            .with_deadline(self.deadline())
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
