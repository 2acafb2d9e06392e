//! Physical plan to task graph: the tree is cut at its pipeline breakers.
//!
//! Everything between two cuts becomes one branch of a stage; a breaker becomes the sink of one stage
//! and the source of a later one. Stages are numbered in the order of a depth-first walk that visits a
//! join's build side before its probe side: that is the order in which the scheduler starts them, so a
//! build's runtime filters are there before the scans that use them begin.
//!
//! A UNION ALL is no cut: the operators above it are repeated in a branch for each input, all with the
//! same sink. An operator that must see the rows of all branches in one task (a limit after a union)
//! gathers them first.

mod distinct_sets;

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;

use crate::catalog::TableData;
use crate::expr::Expr;
use crate::graph::{Edge, EdgeKind, Place, Stage, StageId, TaskGraph};
use crate::physical::{Operator, PhysicalPlan, Query, Scan, Sort, Window};
use crate::pipeline::{
    Branch, NO_OPERATOR, QueryGraph, Sink, Source, StageWork, Step, Transform, hold_build_rows,
};
use crate::{PlanError, Result};

/// How wide the graph is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallelism {
    /// Tasks of a scan stage, and of stages that read what such a stage kept.
    pub tasks: u32,
    /// Hash partitions of an exchange.
    pub partitions: u32,
    pub sharing: Sharing,
}

/// What the tasks of a stage have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// They are in one process, and share queues and tables.
    Process,
    /// Nothing: they may be in several processes, and run again. What must be known of all of them together is
    /// left to one task, and the last stage brings the rows home.
    Nothing,
}

/// With less rows than this, a scan's task is not worth its start.
const ROWS_PER_TASK_MIN: u64 = 100_000;

/// A query's graph, with the stages of interest named.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    pub graph: QueryGraph,
    /// The stage whose tasks' outputs, in task order, are the query's rows.
    pub result: StageId,
    pub schema: SchemaRef,
}

/// Lowers a query to its task graph.
pub fn lower(query: &Query, parallelism: Parallelism) -> Result<Lowered> {
    let mut lowering = Lowering {
        parallelism,
        stages: vec![],
        shared_plans: query.shared.iter().map(|(id, plan)| (*id, plan)).collect(),
        shared_stages: HashMap::new(),
        subquery_plans: query.subqueries.iter().map(|(id, plan)| (*id, plan)).collect(),
        parameter_stages: HashMap::new(),
        publishers: HashMap::new(),
        builds: HashMap::new(),
        building: vec![],
        in_progress: vec![],
    };
    let others = query.subqueries.iter().chain(&query.shared).map(|(_, plan)| plan);
    for plan in std::iter::once(&query.root).chain(others) {
        note_publishers(plan, &mut lowering.publishers);
    }
    let open = lowering.plan(&query.root)?;
    let mut result = lowering.collect(open, query.root.id)?;
    if parallelism.sharing == Sharing::Nothing {
        let delivered = lowering.collected(result, query.root.schema.clone(), NO_OPERATOR, 1);
        result = lowering.collect(delivered, NO_OPERATOR)?;
        lowering.stages[result.0 as usize].place = Place::Home;
        let sinks: Vec<Sink> = lowering.stages.iter().map(|s| s.work.sink.clone()).collect();
        lowering.stages.iter_mut().for_each(|s| hold_build_rows(s, |b| sinks.get(b.0 as usize)));
    }
    let graph = TaskGraph { stages: lowering.stages, results: vec![result] };
    graph.validate().map_err(PlanError::Internal)?;
    Ok(Lowered { graph, result, schema: query.root.schema.clone() })
}

struct Lowering<'a> {
    parallelism: Parallelism,
    stages: Vec<Stage<StageWork>>,
    shared_plans: HashMap<u32, &'a PhysicalPlan>,
    shared_stages: HashMap<u32, StageId>,
    subquery_plans: HashMap<u32, &'a PhysicalPlan>,
    parameter_stages: HashMap<u32, StageId>,
    /// Runtime filter number to the join that publishes it.
    publishers: HashMap<u32, &'a PhysicalPlan>,
    /// Number of a join to the stage that builds its table, with the rows' schema.
    builds: HashMap<u32, (StageId, SchemaRef)>,
    /// Joins whose builds are being lowered.
    building: Vec<u32>,
    /// Shared plans and subqueries being lowered, to refuse a cycle instead of recursing for ever.
    in_progress: Vec<u32>,
}

/// A pipeline that is not closed by a sink yet.
struct Open {
    branches: Vec<Branch>,
    edges: Vec<Edge>,
    schema: SchemaRef,
}

impl Open {
    fn tasks(&self) -> u32 {
        self.branches.iter().map(|b| b.tasks).sum()
    }

    fn push(&mut self, transform: Transform, schema: &SchemaRef, operator: u32) {
        for branch in &mut self.branches {
            branch.steps.push(Step { transform: transform.clone(), schema: schema.clone(), operator });
        }
        self.schema = schema.clone();
    }
}

impl Lowering<'_> {
    fn plan(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        match &plan.operator {
            Operator::Scan(scan) => self.scan(plan, scan),
            Operator::Values(values) => {
                let mut open = self.source(Source::Values(values.clone()), plan, 1, vec![]);
                self.need_parameters(&mut open, values.rows.iter().flatten())?;
                Ok(open)
            }
            Operator::WorkTable { id } => Ok(self.source(Source::WorkTable { id: *id }, plan, 1, vec![])),
            Operator::Shared { id } => self.shared(plan, *id),
            Operator::Filter { predicate } => {
                let mut open = self.plan(&plan.inputs[0])?;
                self.need_parameters(&mut open, [predicate])?;
                open.push(Transform::Filter { predicate: predicate.clone() }, &plan.schema, plan.id);
                Ok(open)
            }
            Operator::Project { exprs } => {
                let mut open = self.plan(&plan.inputs[0])?;
                self.need_parameters(&mut open, exprs)?;
                open.push(Transform::Project { exprs: exprs.clone() }, &plan.schema, plan.id);
                Ok(open)
            }
            Operator::Expand { projections } => {
                let mut open = self.plan(&plan.inputs[0])?;
                self.need_parameters(&mut open, projections.iter().flatten())?;
                open.push(Transform::Expand { projections: projections.clone() }, &plan.schema, plan.id);
                Ok(open)
            }
            Operator::Unnest(unnest) => {
                let mut open = self.plan(&plan.inputs[0])?;
                open.push(Transform::Unnest(unnest.clone()), &plan.schema, plan.id);
                Ok(open)
            }
            Operator::Union => self.union(plan),
            Operator::Aggregate(_) => self.aggregate(plan),
            Operator::HashJoin(_) => self.hash_join(plan),
            Operator::NestedLoopJoin(_) => self.nested_loop_join(plan),
            Operator::Sort(sort) => self.sort(plan, sort),
            Operator::Limit(limit) => {
                let mut open = self.plan(&plan.inputs[0])?;
                if open.tasks() != 1 || open.branches.len() != 1 {
                    if let Some(fetch) = limit.fetch {
                        let rows = limit.skip.saturating_add(fetch);
                        let schema = open.schema.clone();
                        open.push(Transform::AtMost { rows }, &schema, plan.id);
                    }
                    open = self.gather(open, plan.id)?;
                }
                open.push(Transform::Limit(limit.clone()), &plan.schema, plan.id);
                Ok(open)
            }
            Operator::Window(window) => self.window(plan, window),
            Operator::Recursive(recursive) => {
                let seed = self.nested(&plan.inputs[0])?;
                let step = self.nested(&plan.inputs[1])?;
                let (seed, step) = (Box::new(seed), Box::new(step));
                let source = Source::Recursive { recursive: recursive.clone(), seed, step };
                Ok(self.source(source, plan, 1, vec![]))
            }
        }
    }

    fn source(&self, source: Source, plan: &PhysicalPlan, tasks: u32, edges: Vec<Edge>) -> Open {
        let branch = Branch {
            tasks,
            source,
            source_schema: plan.schema.clone(),
            source_operator: plan.id,
            steps: vec![],
        };
        Open { branches: vec![branch], edges, schema: plan.schema.clone() }
    }

    fn scan(&mut self, plan: &PhysicalPlan, scan: &Scan) -> Result<Open> {
        // The scan waits for the builds whose filters it uses. They are lowered here if the walk has not
        // come to them yet, and the filter is left out where its build itself waits for this scan.
        let mut scan = scan.clone();
        let mut edges = vec![];
        let mut used = vec![];
        for filter in std::mem::take(&mut scan.runtime_filters) {
            let join = *self.publishers.get(&filter.id).ok_or_else(|| {
                PlanError::internal(format!("no join publishes the runtime filter {}", filter.id))
            })?;
            if !self.building.contains(&join.id) {
                push_edge(&mut edges, self.build(join)?.0, EdgeKind::Broadcast);
                used.push(filter);
            }
        }
        scan.runtime_filters = used;
        let filters = scan.filters.clone();
        let tasks = self.scan_tasks(&scan);
        let mut open = self.source(Source::Scan(scan), plan, tasks, edges);
        self.need_parameters(&mut open, &filters)?;
        Ok(open)
    }

    /// In one process idle tasks cost nothing; elsewhere each has to be sent.
    fn scan_tasks(&self, scan: &Scan) -> u32 {
        let TableData::Parquet(files) = &scan.data else { return self.parallelism.tasks };
        let rows = files.iter().map(|f| f.rows).sum::<u64>();
        match self.parallelism.sharing {
            Sharing::Process => self.parallelism.tasks,
            Sharing::Nothing => self.parallelism.tasks.min(rows.div_ceil(ROWS_PER_TASK_MIN).max(1) as u32),
        }
    }

    fn shared(&mut self, plan: &PhysicalPlan, id: u32) -> Result<Open> {
        let stage = match self.shared_stages.get(&id) {
            Some(stage) => *stage,
            None => {
                let shared = self.once(id, self.shared_plans.get(&id).copied(), "shared plan")?;
                let open = self.plan(shared)?;
                let stage = self.collect(open, shared.id)?;
                self.in_progress.pop();
                self.shared_stages.insert(id, stage);
                stage
            }
        };
        let tasks = match self.parallelism.sharing {
            Sharing::Process => self.parallelism.tasks,
            // Each reads whole outputs.
            Sharing::Nothing => self.parallelism.tasks.min(self.stages[stage.0 as usize].tasks),
        };
        Ok(self.collected(stage, plan.schema.clone(), plan.id, tasks))
    }

    fn once<'b>(&mut self, id: u32, plan: Option<&'b PhysicalPlan>, what: &str) -> Result<&'b PhysicalPlan> {
        let plan = plan.ok_or_else(|| PlanError::internal(format!("{what} {id} does not exist")))?;
        if self.in_progress.contains(&plan.id) {
            return Err(PlanError::internal(format!("{what} {id} depends on itself")));
        }
        self.in_progress.push(plan.id);
        Ok(plan)
    }

    /// Adds the stages of the scalar subqueries whose values `exprs` take, and edges to them.
    fn need_parameters<'e>(
        &mut self,
        open: &mut Open,
        exprs: impl IntoIterator<Item = &'e Expr>,
    ) -> Result<()> {
        let mut needed = vec![];
        for expr in exprs {
            expr.visit(&mut |e| {
                if let Expr::Parameter { id, .. } = e {
                    needed.push(*id);
                }
            });
        }
        for id in needed {
            let stage = match self.parameter_stages.get(&id) {
                Some(stage) => *stage,
                None => {
                    let plan = self.once(id, self.subquery_plans.get(&id).copied(), "scalar subquery")?;
                    let sub = self.plan(plan)?;
                    let sub = if sub.tasks() == 1 { sub } else { self.gather(sub, plan.id)? };
                    let stage = self.close(sub, Sink::Scalar { parameter: id }, plan.id);
                    self.in_progress.pop();
                    self.parameter_stages.insert(id, stage);
                    stage
                }
            };
            push_edge(&mut open.edges, stage, EdgeKind::Broadcast);
        }
        Ok(())
    }

    fn union(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        let mut all = Open { branches: vec![], edges: vec![], schema: plan.schema.clone() };
        for input in &plan.inputs {
            let open = self.plan(input)?;
            for edge in open.edges {
                push_edge(&mut all.edges, edge.from, edge.kind);
            }
            all.branches.extend(open.branches);
        }
        Ok(all)
    }

    fn aggregate(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        let Operator::Aggregate(aggregate) = &plan.operator else {
            return Err(PlanError::internal("not an aggregate"));
        };
        if let Some(open) = self.distinct_sets(plan, aggregate)? {
            return Ok(open);
        }
        let mut input = self.plan(&plan.inputs[0])?;
        let calls = aggregate
            .calls
            .iter()
            .flat_map(|c| c.args.iter().chain(&c.filter).chain(c.order_by.iter().map(|k| &k.expr)));
        self.need_parameters(&mut input, aggregate.group_by.iter().chain(calls))?;
        let parameter_edges: Vec<Edge> = input.edges.clone();
        let input_schema = input.schema.clone();
        let partitions = if aggregate.group_by.is_empty() { 1 } else { self.parallelism.partitions };
        let (sink, mergeable) = if aggregate.is_mergeable() {
            (Sink::Aggregate { aggregate: aggregate.clone(), partitions }, true)
        } else {
            (Sink::HashPartition { keys: aggregate.group_by.clone(), partitions }, false)
        };
        let stage = self.close(input, sink, plan.id);
        let aggregate = aggregate.clone();
        let source = if mergeable {
            Source::AggregateFinal { stage, aggregate, input_schema }
        } else {
            Source::AggregateSingle { stage, aggregate, input_schema }
        };
        let mut edges = vec![Edge { from: stage, kind: EdgeKind::Hash }];
        // The final stage compiles the same expressions, so it needs the same parameters.
        for edge in parameter_edges {
            if self.parameter_stages.values().any(|s| *s == edge.from) {
                push_edge(&mut edges, edge.from, edge.kind);
            }
        }
        Ok(self.source(source, plan, partitions, edges))
    }

    fn hash_join(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        let Operator::HashJoin(join) = &plan.operator else {
            return Err(PlanError::internal("not a hash join"));
        };
        let (stage, build_schema) = self.build(plan)?;
        let mut open = self.plan(&plan.inputs[0])?;
        self.need_parameters(&mut open, join.keys.iter().map(|(p, _)| p).chain(&join.residual))?;
        push_edge(&mut open.edges, stage, EdgeKind::Broadcast);
        let transform =
            Transform::HashJoinProbe { build: stage, join: join.clone(), build_schema, marks: None };
        open.push(transform, &plan.schema, plan.id);
        Ok(open)
    }

    /// The stage that builds a join's table, lowered at the first call, with the schema of its rows.
    fn build(&mut self, plan: &PhysicalPlan) -> Result<(StageId, SchemaRef)> {
        if let Some(done) = self.builds.get(&plan.id) {
            return Ok(done.clone());
        }
        let (Operator::HashJoin(join), [_, build]) = (&plan.operator, &plan.inputs[..]) else {
            return Err(PlanError::internal("a hash join has two inputs"));
        };
        self.building.push(plan.id);
        let mut rows = self.plan(build)?;
        self.building.pop();
        let schema = rows.schema.clone();
        self.need_parameters(&mut rows, join.keys.iter().map(|(_, b)| b))?;
        let rows = self.close(rows, Sink::BuildRows { join: join.clone() }, plan.id);
        let branch = Branch {
            tasks: 1,
            source: Source::Nothing,
            source_schema: schema.clone(),
            source_operator: NO_OPERATOR,
            steps: vec![],
        };
        let edges = vec![Edge { from: rows, kind: EdgeKind::Gather }];
        let table = Open { branches: vec![branch], edges, schema: schema.clone() };
        let stage = self.close(table, Sink::JoinBuild { join: join.clone(), rows }, plan.id);
        self.builds.insert(plan.id, (stage, schema.clone()));
        Ok((stage, schema))
    }

    fn nested_loop_join(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        let Operator::NestedLoopJoin(join) = &plan.operator else {
            return Err(PlanError::internal("not a nested loop join"));
        };
        let build = self.plan(&plan.inputs[1])?;
        let build_schema = build.schema.clone();
        let stage = self.collect(build, plan.inputs[1].id)?;
        let mut open = self.plan(&plan.inputs[0])?;
        if self.parallelism.sharing == Sharing::Nothing && join.kind.emits_build_at_end() && open.tasks() > 1
        {
            // Only one task that has met all probe rows knows what is owed from the other side.
            open = self.gather(open, NO_OPERATOR)?;
        }
        self.need_parameters(&mut open, &join.condition)?;
        push_edge(&mut open.edges, stage, EdgeKind::Broadcast);
        let transform = Transform::NestedLoopJoin { build: stage, join: join.clone(), build_schema };
        open.push(transform, &plan.schema, plan.id);
        Ok(open)
    }

    fn sort(&mut self, plan: &PhysicalPlan, sort: &Sort) -> Result<Open> {
        let mut open = self.plan(&plan.inputs[0])?;
        self.need_parameters(&mut open, sort.keys.iter().map(|k| &k.expr))?;
        let parameters: Vec<Edge> = open.edges.clone();
        let stage = self.close(open, Sink::Sort(sort.clone()), plan.id);
        let mut edges = vec![Edge { from: stage, kind: EdgeKind::Merge }];
        for edge in parameters {
            if self.parameter_stages.values().any(|s| *s == edge.from) {
                push_edge(&mut edges, edge.from, edge.kind);
            }
        }
        Ok(self.source(Source::SortMerge { stage, sort: sort.clone() }, plan, 1, edges))
    }

    fn window(&mut self, plan: &PhysicalPlan, window: &Window) -> Result<Open> {
        let mut open = self.plan(&plan.inputs[0])?;
        let calls = window.calls.iter().flat_map(|c| c.args.iter().chain(&c.filter));
        let exprs = window.partition_by.iter().chain(window.order_by.iter().map(|k| &k.expr)).chain(calls);
        self.need_parameters(&mut open, exprs)?;
        let parameters: Vec<Edge> = open.edges.clone();
        let input_schema = open.schema.clone();
        let partitions = if window.partition_by.is_empty() { 1 } else { self.parallelism.partitions };
        let sink = Sink::HashPartition { keys: window.partition_by.clone(), partitions };
        let stage = self.close(open, sink, plan.id);
        let mut edges = vec![Edge { from: stage, kind: EdgeKind::Hash }];
        for edge in parameters {
            if self.parameter_stages.values().any(|s| *s == edge.from) {
                push_edge(&mut edges, edge.from, edge.kind);
            }
        }
        let source = Source::Window { stage, window: window.clone(), input_schema };
        Ok(self.source(source, plan, partitions, edges))
    }

    /// The graph of one term of a recursive query. It is run as a whole, many times, so nothing outside
    /// of it may be shared into it but parameters, which the caller has lowered before.
    fn nested(&mut self, plan: &PhysicalPlan) -> Result<QueryGraph> {
        let mut inner = Lowering {
            parallelism: Parallelism { tasks: 1, partitions: 1, sharing: Sharing::Process },
            stages: vec![],
            shared_plans: self.shared_plans.clone(),
            shared_stages: HashMap::new(),
            subquery_plans: self.subquery_plans.clone(),
            parameter_stages: HashMap::new(),
            publishers: HashMap::new(),
            builds: HashMap::new(),
            building: vec![],
            in_progress: self.in_progress.clone(),
        };
        note_publishers(plan, &mut inner.publishers);
        let open = inner.plan(plan)?;
        let result = inner.collect(open, plan.id)?;
        Ok(TaskGraph { stages: inner.stages, results: vec![result] })
    }

    /// Closes a pipeline and opens one of a single task that reads all its rows.
    fn gather(&mut self, open: Open, operator: u32) -> Result<Open> {
        let schema = open.schema.clone();
        let stage = self.collect(open, operator)?;
        let mut gathered = self.collected(stage, schema, NO_OPERATOR, 1);
        gathered.edges = vec![Edge { from: stage, kind: EdgeKind::Gather }];
        Ok(gathered)
    }

    fn collect(&mut self, open: Open, operator: u32) -> Result<StageId> {
        Ok(self.close(open, Sink::Collect, operator))
    }

    fn collected(&self, stage: StageId, schema: SchemaRef, operator: u32, tasks: u32) -> Open {
        let branch = Branch {
            tasks,
            source: Source::Collected { stage },
            source_schema: schema.clone(),
            source_operator: operator,
            steps: vec![],
        };
        let edges = vec![Edge { from: stage, kind: EdgeKind::Broadcast }];
        Open { branches: vec![branch], edges, schema }
    }

    fn close(&mut self, open: Open, sink: Sink, sink_operator: u32) -> StageId {
        let id = StageId(self.stages.len() as u32);
        let tasks = open.tasks();
        let work = StageWork { branches: open.branches, sink, sink_schema: open.schema, sink_operator };
        let replayable = work.is_replayable();
        self.stages.push(Stage { id, tasks, inputs: open.edges, place: Place::Anywhere, replayable, work });
        id
    }
}

/// Notes which join publishes which filter. Terms of recursive queries have filters of their own.
fn note_publishers<'a>(plan: &'a PhysicalPlan, publishers: &mut HashMap<u32, &'a PhysicalPlan>) {
    if let Operator::HashJoin(join) = &plan.operator {
        publishers.extend(join.runtime_filters.iter().map(|(id, _)| (*id, plan)));
    }
    for input in &plan.inputs {
        note_publishers(input, publishers);
    }
}

fn push_edge(edges: &mut Vec<Edge>, from: StageId, kind: EdgeKind) {
    let edge = Edge { from, kind };
    if !edges.contains(&edge) {
        edges.push(edge);
    }
}
