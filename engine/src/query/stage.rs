//! A stage on this process: the factories that its tasks share, made from the stage's plain data.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dovetail_planner::graph::{Stage, StageId};
use dovetail_planner::pipeline::{
    Branch, Share, Sink as SinkSpec, Source as SourceSpec, StageWork, Transform,
};

use super::inputs::{StageInputs, rows_in_memory};
use super::recursive;
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeInput, ExchangeReader, ExchangeSource, HeldOutput, KeptInput, SharedRows};
use crate::operators::join::{BuildRows, BuildSide, PartitionedJoin};
use crate::operators::{
    aggregate, collect, expand, filter, join, limit, partition, project, scalar, sort, unnest, values, window,
};
use crate::scan;
use crate::task::pipeline::Pipeline;
use crate::task::{OperatorFactory, SinkFactory, Source, SourceFactory, TaskContext};

/// What all tasks of a stage share.
pub struct StageRuntime {
    branches: Vec<BranchRuntime>,
    sink: Arc<dyn SinkFactory>,
    sink_operator: u32,
}

struct BranchRuntime {
    tasks: u32,
    /// By task; none if they share evenly.
    shares: Vec<Share>,
    source: BranchSource,
    source_operator: u32,
    steps: Vec<(Arc<dyn OperatorFactory>, u32)>,
}

/// The rows that a join's build side is made of.
pub enum BuildInputs {
    /// Of this process, to be taken.
    Own(Vec<Arc<BuildRows>>),
    /// To be read as often as need be.
    Held(Vec<Arc<dyn HeldOutput>>),
}

enum BranchSource {
    Factory(Arc<dyn SourceFactory>),
    /// Made for each task from the partition that it reads.
    PerTask(SourceSpec),
}

/// Partial groups of several partitions that are merged in one go where each going asks other machines: about
/// what a cache holds.
const MERGED_AT_ONCE_ROWS: u64 = 1 << 16;

/// What errors call the build side of a nested-loop join.
const NESTED_LOOP: &str = "the inner side of a join without equal keys";

impl StageRuntime {
    /// Makes the factories. Everything that the stage reads must have finished.
    pub fn new(query: &dyn StageInputs, stage: &Stage<StageWork>) -> Result<Self> {
        let parameters = query.parameters();
        let work = stage.work.bind(&|id| parameters.get(&id).cloned());
        let sink = sink(query, stage.id, &work)?;
        let mut joins =
            Joins { branches: &work.branches, is_isolated: query.is_isolated(), factories: HashMap::new() };
        let branches =
            work.branches.iter().map(|b| branch(query, b, &mut joins)).collect::<Result<Vec<_>>>()?;
        Ok(StageRuntime { branches, sink, sink_operator: work.sink_operator })
    }

    /// Opens the pipeline of one task of the stage.
    pub fn open(&self, query: &dyn StageInputs, task: u32) -> Result<Pipeline> {
        let mut partition = task;
        for branch in &self.branches {
            if partition >= branch.tasks {
                partition -= branch.tasks;
                continue;
            }
            let context = TaskContext {
                number: task as usize,
                partition: partition as usize,
                partitions: branch.tasks as usize,
                share: branch.shares.get(partition as usize).copied(),
                operator: branch.source_operator,
                query: query.context().clone(),
            };
            let source = match &branch.source {
                BranchSource::Factory(factory) => factory.open(&context)?,
                BranchSource::PerTask(spec) => per_task_source(query, spec, &context)?,
            };
            let steps = branch
                .steps
                .iter()
                .map(|(factory, id)| Ok((factory.open(&context.for_operator(*id))?, *id)))
                .collect::<Result<Vec<_>>>()?;
            let sink = self.sink.open(&context.for_operator(self.sink_operator))?;
            let (source_operator, sink_operator) = (branch.source_operator, self.sink_operator);
            return Ok(Pipeline { source, source_operator, steps, sink, sink_operator });
        }
        Err(EngineError::internal(format!("task {task} is beyond the stage's branches")))
    }
}

/// The joins of a stage, by operator. A join above a union is a step of each of the union's branches, and
/// one that belongs to a branch is not met by the tasks of the others; what it owes from its build side is
/// owed once, after the last of the tasks that probe it.
struct Joins<'a> {
    branches: &'a [Branch],
    /// Each task has factories of its own.
    is_isolated: bool,
    factories: HashMap<u32, Arc<dyn OperatorFactory>>,
}

impl Joins<'_> {
    /// The factory of a join, made at its first mention with the number of tasks that will probe.
    fn get(
        &mut self,
        operator: u32,
        make: impl FnOnce(usize) -> Result<Arc<dyn OperatorFactory>>,
    ) -> Result<Arc<dyn OperatorFactory>> {
        if let Some(made) = self.factories.get(&operator) {
            return Ok(made.clone());
        }
        let probes = |b: &&Branch| b.steps.iter().any(|s| s.operator == operator);
        let tasks: u32 = match self.is_isolated {
            true => 1,
            false => self.branches.iter().filter(probes).map(|b| b.tasks).sum(),
        };
        let factory = make(tasks as usize)?;
        self.factories.insert(operator, factory.clone());
        Ok(factory)
    }
}

fn branch(query: &dyn StageInputs, branch: &Branch, joins: &mut Joins<'_>) -> Result<BranchRuntime> {
    let source = match &branch.source {
        SourceSpec::Scan(s) => BranchSource::Factory(scan::scan_factory(
            s,
            query.catalog(),
            query.memory_tables().as_ref(),
            query.filters(),
            query.experience(s, branch.source_operator),
            branch.source_operator,
        )?),
        SourceSpec::Values(v) => BranchSource::Factory(values::source_factory(v, &branch.source_schema)?),
        SourceSpec::Collected { stage } => {
            let kept = query.kept(*stage)?;
            BranchSource::Factory(match query.is_isolated() {
                true => Arc::new(DividedRows { outputs: kept }),
                false => Arc::new(SharedRows::new(kept)),
            })
        }
        SourceSpec::WorkTable { id } => {
            let rows = query.work_tables().get(id).cloned().ok_or_else(|| {
                EngineError::internal(format!("recursive query {id} is read outside of its own term"))
            })?;
            BranchSource::Factory(Arc::new(SharedBatches::new(rows)))
        }
        other => BranchSource::PerTask(other.clone()),
    };
    let mut schema = branch.source_schema.clone();
    let mut steps = vec![];
    for step in &branch.steps {
        let factory = match &step.transform {
            Transform::Filter { predicate } => filter::factory(predicate)?,
            Transform::Project { exprs } => project::factory(exprs)?,
            Transform::Expand { projections } => expand::factory(projections)?,
            Transform::HashJoinProbe { build, join: spec, build_schema, marks } => {
                joins.get(step.operator, |tasks| match &*query.build_side(*build)? {
                    BuildSide::Table(_) if marks.is_some() => {
                        Err(EngineError::internal("marks for a join whose build side is not partitioned"))
                    }
                    BuildSide::Table(table) => {
                        join::probe_factory(spec, &schema, build_schema, table.clone(), tasks)
                    }
                    BuildSide::Partitioned(build) => {
                        let tasks = if query.is_isolated() { branch.tasks as usize } else { tasks };
                        let marks = match marks {
                            Some(marks) => {
                                let outputs = query.exchanged_by_task(marks.stage)?;
                                marks.partitions.iter().copied().zip(outputs).collect()
                            }
                            None => vec![],
                        };
                        let join = PartitionedJoin {
                            join: spec.clone(),
                            probe_schema: schema.clone(),
                            build_schema: build_schema.clone(),
                            build: build.clone(),
                        };
                        Ok(join::partitioned_probe_factory(join, tasks, marks))
                    }
                })?
            }
            Transform::NestedLoopJoin { build, join: spec, build_schema } => {
                joins.get(step.operator, |tasks| {
                    let (rows, memory) = rows_in_memory(query, *build, NESTED_LOOP, false)?;
                    join::nested_loop_factory(spec, &schema, build_schema, rows, memory, tasks)
                })?
            }
            Transform::AtMost { rows } => limit::at_most_factory(*rows),
            Transform::Limit(l) => limit::limit_factory(l),
            Transform::Unnest(u) => unnest::factory(u, &schema)?,
        };
        steps.push((factory, step.operator));
        schema = step.schema.clone();
    }
    let shares = match &branch.source {
        SourceSpec::Exchange { shares, .. } => shares.clone(),
        _ => vec![],
    };
    Ok(BranchRuntime { tasks: branch.tasks, shares, source, source_operator: branch.source_operator, steps })
}

fn sink(query: &dyn StageInputs, stage: StageId, work: &StageWork) -> Result<Arc<dyn SinkFactory>> {
    let schema = &work.sink_schema;
    match &work.sink {
        SinkSpec::Collect => Ok(collect::sink_factory(query.result_flow(stage))),
        SinkSpec::Aggregate { aggregate: a, partitions } => {
            aggregate::partial_sink_factory(a, schema, *partitions as usize)
        }
        SinkSpec::HashPartition { keys, partitions } => partition::sink_factory(keys, *partitions as usize),
        SinkSpec::Sort(s) => sort::sink_factory(s, schema),
        SinkSpec::BuildRows { join: j } => join::build_rows_factory(j, schema),
        SinkSpec::JoinBuild { join: j, rows } => match query.build_rows(*rows)? {
            BuildInputs::Own(rows) => join::build_sink_factory(j, schema, rows),
            BuildInputs::Held(rows) => join::held_build_sink_factory(j, schema, rows),
        },
        SinkSpec::Scalar { .. } => Ok(scalar::sink_factory()),
    }
}

fn per_task_source(
    query: &dyn StageInputs,
    spec: &SourceSpec,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    let first = task.partition == 0;
    match spec {
        SourceSpec::AggregateFinal { stage, aggregate: a, input_schema } => {
            aggregate::final_source(a, input_schema, partitions_to_merge(query, *stage, task)?, first, task)
        }
        SourceSpec::AggregateSingle { stage, aggregate: a, input_schema } => {
            aggregate::single_source(a, input_schema, own_rows(query, *stage, task)?, first, task)
        }
        SourceSpec::SortMerge { stage, sort: s } => {
            sort::merge_source(s, &query.sink_schema(*stage), query.runs(*stage, task)?, task)
        }
        SourceSpec::Window { stage, window: w, input_schema } => {
            window::source(w, input_schema, own_rows(query, *stage, task)?, task)
        }
        SourceSpec::Recursive { recursive: r, seed, step } => recursive::source(query, r, seed, step),
        SourceSpec::Exchange { stage, .. } => {
            let mut reader = own_rows(query, *stage, task)?;
            // What the rows will be joined with is read first; they come meanwhile.
            reader.start()?;
            Ok(Box::new(ExchangeSource(reader)))
        }
        SourceSpec::Nothing => Ok(collect::source(vec![])),
        SourceSpec::Scan(_)
        | SourceSpec::Values(_)
        | SourceSpec::Collected { .. }
        | SourceSpec::WorkTable { .. } => {
            Err(EngineError::internal("a shared source was opened for one task"))
        }
    }
}

/// The hash partitions that belong to a task.
fn own_partitions(inputs: &[ExchangeInput], task: &TaskContext) -> Result<Range<usize>> {
    match inputs.first() {
        Some(input) => task.own_partitions(input.partitions()),
        // A stage without tasks has left nothing.
        None => Ok(0..0),
    }
}

/// The rows of the task's hash partitions of a stage's outputs.
fn own_rows(query: &dyn StageInputs, stage: StageId, task: &TaskContext) -> Result<ExchangeReader> {
    let inputs = query.exchanged(stage, task.share)?;
    let own = own_partitions(&inputs, task)?;
    Ok(ExchangeReader::of_range(stage.0.into(), inputs, own))
}

/// The task's hash partitions, to be merged one by one; few rows at once.
fn partitions_to_merge(
    query: &dyn StageInputs,
    stage: StageId,
    task: &TaskContext,
) -> Result<Vec<ExchangeReader>> {
    let inputs = query.exchanged(stage, task.share)?;
    let own = own_partitions(&inputs, task)?;
    let rows: u64 = inputs.iter().flat_map(|i| own.clone().map(|p| i.rows(p))).sum();
    if query.is_isolated() && rows <= MERGED_AT_ONCE_ROWS {
        return Ok(vec![ExchangeReader::of_range(stage.0.into(), inputs, own)]);
    }
    Ok(own.map(|p| ExchangeReader::new(stage.0.into(), inputs.clone(), p)).collect())
}

/// Kept rows of which each task reads whole outputs: what one leaves that runs again, its reader has all of.
struct DividedRows {
    outputs: Vec<KeptInput>,
}

impl SourceFactory for DividedRows {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Source>> {
        let own = self.outputs.iter().skip(task.partition).step_by(task.partitions).cloned().collect();
        Ok(Box::new(SharedRows::new(own)))
    }
}

/// Batches in memory that the tasks of a branch draw from one queue.
struct SharedBatches {
    batches: Arc<Vec<Batch>>,
    next: Arc<AtomicUsize>,
}

impl SharedBatches {
    fn new(batches: Vec<Batch>) -> Self {
        SharedBatches { batches: Arc::new(batches), next: Arc::default() }
    }
}

impl SourceFactory for SharedBatches {
    fn open(&self, _: &TaskContext) -> Result<Box<dyn Source>> {
        Ok(Box::new(SharedBatches { batches: self.batches.clone(), next: self.next.clone() }))
    }
}

impl Source for SharedBatches {
    fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.batches.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned())
    }
}
