//! Optimized logical plans to physical ones.
//!
//! ```text
//! LogicalPlan ─ lowering ─▶ PhysicalPlan ─ widened, shared ─▶ common subplans once
//!                                        ─ runtime_filters ─▶ Query
//! ```
//!
//! One file per lowering. A logical node becomes an operator whose output columns are the node's schema,
//! in order; expressions lose their names and count positions. Two passes over the result follow: equal
//! subplans become one shared plan, and joins tell scans which keys can still match.
//!
//! What always holds: `schema` of an operator equals the logical schema in number, order and types of
//! columns; operator numbers are unique within the query.

mod aggregate;
mod expr;
mod grouping_sets;
mod join;
mod project;
mod recursive;
mod runtime_filters;
mod scan;
mod shared;
mod sort;
mod unnest;
mod widened;
mod window;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use datafusion_expr::LogicalPlan;

use crate::catalog::CatalogSnapshot;
use crate::error::{PlanError, Result};
use crate::optimize::cardinality::{Estimate, estimate_node};
use crate::optimize::once::{Once, once};
use crate::optimize::optimize;
use crate::physical::{Operator, PhysicalPlan, Query, Values};
use crate::stack::with_room;

/// A bound query, optimized and lowered.
pub fn plan_query(plan: LogicalPlan, catalog: &CatalogSnapshot) -> Result<Query> {
    with_room(|| lower(&optimize(plan, catalog)?, catalog))
}

/// The physical plan of an optimized logical one.
pub fn lower(plan: &LogicalPlan, catalog: &CatalogSnapshot) -> Result<Query> {
    let mut lowering = Lowering {
        catalog,
        estimates: HashMap::new(),
        subqueries: vec![],
        once: vec![],
        work_tables: vec![],
        next_work_table: 0,
    };
    let root = lowering.plan(plan)?;
    let mut query = Query { root, subqueries: lowering.subqueries, shared: lowering.once };
    widened::widen_joins(&mut query);
    shared::share(&mut query);
    runtime_filters::assign(&mut query);
    widened::share_scans(&mut query);
    number(&mut query);
    Ok(query)
}

/// The state of one query's lowering.
struct Lowering<'a> {
    catalog: &'a CatalogSnapshot,
    /// What is expected of the nodes met so far, by their address: the plan is borrowed for as long as it
    /// is lowered, so no node moves.
    estimates: HashMap<*const LogicalPlan, Estimate>,
    /// Scalar subqueries met so far, by parameter number.
    subqueries: Vec<(u32, PhysicalPlan)>,
    /// Subplans that run once, by their number; those that they read come before them.
    once: Vec<(u32, PhysicalPlan)>,
    /// Recursive queries that the walk is inside of: name and number.
    work_tables: Vec<(String, u32)>,
    next_work_table: u32,
}

impl Lowering<'_> {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<PhysicalPlan> {
        let mut lowered = self.node(plan)?;
        lowered.rows_estimate = Some(self.rows(plan).ceil() as u64);
        Ok(lowered)
    }

    /// Rows that the node is expected to hand on.
    fn rows(&mut self, plan: &LogicalPlan) -> f64 {
        self.estimate(plan).rows
    }

    fn estimate(&mut self, plan: &LogicalPlan) -> Estimate {
        if let Some(known) = self.estimates.get(&std::ptr::from_ref(plan)) {
            return known.clone();
        }
        let inputs = plan.inputs().into_iter().map(|input| self.estimate(input)).collect();
        let estimate = estimate_node(plan, inputs, self.catalog);
        self.estimates.insert(plan, estimate.clone());
        estimate
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<PhysicalPlan> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.plan(i)).collect::<Result<Vec<_>>>()?;
                let schema = plan.schema().inner();
                for input in &inputs {
                    check_types(schema, &input.schema, "UNION")?;
                }
                Ok(node(Operator::Union, inputs, schema))
            }
            LogicalPlan::SubqueryAlias(alias) => Ok(self.plan(&alias.input)?.renamed(plan.schema().inner())),
            LogicalPlan::Subquery(subquery) => {
                if !subquery.outer_ref_columns.is_empty() {
                    return Err(correlated());
                }
                self.plan(&subquery.subquery)
            }
            LogicalPlan::EmptyRelation(empty) => {
                let values = match empty.produce_one_row {
                    true if !empty.schema.fields().is_empty() => {
                        return Err(PlanError::internal("a row of unknown columns"));
                    }
                    true => Values::one_empty_row(),
                    false => Values { rows: vec![] },
                };
                Ok(node(Operator::Values(values), vec![], plan.schema().inner()))
            }
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(recursive) => self.recursive(recursive),
            // Rows come out as they went in: a repartition is the engine's own affair.
            LogicalPlan::Repartition(repartition) => self.plan(&repartition.input),
            LogicalPlan::Distinct(_) => Err(PlanError::internal("a DISTINCT that was not rewritten")),
            LogicalPlan::Extension(extension) => match once(extension.node.as_ref()) {
                Some(once) => self.once(once),
                None => Err(PlanError::internal(format!("not a query: {}", plan.display()))),
            },
            LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => {
                Err(PlanError::internal(format!("not a query: {}", plan.display())))
            }
        }
    }
}

impl Lowering<'_> {
    fn once(&mut self, once: &Once) -> Result<PhysicalPlan> {
        if !self.work_tables.is_empty() {
            return Err(PlanError::unsupported(
                "A subquery that refers to a computed row of a recursive query",
                "Join with the subquery's tables instead, or compute it after the recursion.",
            ));
        }
        let id = once.number as u32;
        if !self.once.iter().any(|(known, _)| *known == id) {
            let plan = self.plan(&once.input)?;
            self.once.push((id, plan));
        }
        Ok(node(Operator::Shared { id }, vec![], once.input.schema().inner()))
    }
}

/// An operator. Its number comes at the end, its estimate with the logical node that it is for; until then
/// it is expected to hand on as many rows as its first input.
fn node(operator: Operator, inputs: Vec<PhysicalPlan>, schema: &SchemaRef) -> PhysicalPlan {
    let rows_estimate = inputs.first().and_then(|input| input.rows_estimate);
    PhysicalPlan { operator, inputs, schema: schema.clone(), id: 0, rows_estimate }
}

impl PhysicalPlan {
    /// The same columns under other names.
    fn renamed(mut self, schema: &SchemaRef) -> Self {
        self.schema = schema.clone();
        self
    }

    /// Calls `f` on this operator and all below it, parents first.
    pub(crate) fn visit_mut(&mut self, f: &mut impl FnMut(&mut PhysicalPlan)) {
        f(self);
        for input in &mut self.inputs {
            input.visit_mut(f);
        }
    }

    /// Calls `f` on this operator and all below it, parents first.
    pub(crate) fn visit(&self, f: &mut impl FnMut(&PhysicalPlan)) {
        f(self);
        for input in &self.inputs {
            input.visit(f);
        }
    }
}

/// Every operator of the query gets a number of its own: the main plan first, parents before inputs.
fn number(query: &mut Query) {
    let mut next = 0;
    let plans = std::iter::once(&mut query.root)
        .chain(query.subqueries.iter_mut().map(|(_, p)| p))
        .chain(query.shared.iter_mut().map(|(_, p)| p));
    for plan in plans {
        plan.visit_mut(&mut |p| {
            p.id = next;
            next += 1;
        });
    }
}

fn check_types(expected: &SchemaRef, found: &SchemaRef, place: &str) -> Result<()> {
    let same = expected.fields().len() == found.fields().len()
        && expected.fields().iter().zip(found.fields()).all(|(e, f)| e.data_type() == f.data_type());
    if same {
        return Ok(());
    }
    Err(PlanError::internal(format!("{place}: columns {found:?} where {expected:?} are expected")))
}

fn correlated() -> PlanError {
    PlanError::unsupported(
        "This kind of correlated subquery",
        "Rewrite it as a join, or with a correlation by equality.",
    )
}
