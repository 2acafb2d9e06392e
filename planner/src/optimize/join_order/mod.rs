//! Join order by cost.
//!
//! Each maximal region of joins in a logical plan is taken apart ([`region`]), becomes a hypergraph
//! ([`graph`]), is searched for the cheapest tree ([`dphyp`], or [`greedy`] where there are too many),
//! and put together again ([`build`]). Row counts of sets of relations come from [`sets`], costs from
//! [`cost`].
//!
//! What always holds of the result: same schema, same rows. The left input of a join is its probe side,
//! the right one its build side; so a semi join whose left side is the smaller one becomes a right semi
//! join, and likewise for left and anti joins. Equalities stand in `on`, every other condition at the
//! lowest join that has its columns. Bushy trees are allowed; cross products only where nothing connects
//! the parts.
//!
//! Semi joins need no rewrite of their own: being attachments, they are applied where they pay best, so
//! they sink onto the one relation they filter when they are selective, and rise above the joins that
//! leave fewer rows to test when they are not. Reducing the input of a group-by by the keys of the other
//! side of its join (TPC-H q17, q20) is left to the filters that finished builds publish: the cost model
//! makes the small side the build side, and the filter on the group key reaches the scan below the
//! group-by at run time, without a second copy of the small side in the plan.

mod build;
mod cost;
mod dphyp;
#[cfg(test)]
pub(crate) mod fixture;
mod graph;
mod greedy;
mod region;
mod relation_set;
mod search;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, Filter, LogicalPlan, Projection};

use self::build::Builder;
use self::graph::Graph;
use self::region::Region;
use self::relation_set::RelationSet;
use self::search::Search;
use self::sets::Sets;
use crate::catalog::CatalogSnapshot;
use crate::error::{PlanError, Result};

/// Steps of the exact search before it is given up: a few milliseconds. Twelve relations of a snowflake
/// stay below it.
const STEPS_MAX: usize = 20_000;

/// Reorders the joins of a plan, its subqueries included, by estimated cost.
pub fn reorder_joins(plan: LogicalPlan, catalog: &CatalogSnapshot) -> Result<LogicalPlan> {
    if starts_region(&plan)
        && let Some(reordered) = reorder_region(&plan, catalog, STEPS_MAX)?
    {
        return reordered.with_schema_of(&plan);
    }
    let by_name = takes_any_order(&plan);
    let reordered = plan.map_children(|child| {
        if by_name
            && starts_region(&child)
            && let Some(reordered) = reorder_region(&child, catalog, STEPS_MAX).map_err(external)?
        {
            let keeps_names = reordered.output == child.schema().columns();
            let plan = if keeps_names { Ok(reordered.plan) } else { reordered.with_schema_of(&child) };
            return Ok(Transformed::yes(plan.map_err(external)?));
        }
        Ok(Transformed::yes(reorder_joins(child, catalog).map_err(external)?))
    });
    let plan = reordered.map_err(internal)?.data;
    let subqueries =
        plan.map_subqueries(|query| Ok(Transformed::yes(reorder_joins(query, catalog).map_err(external)?)));
    Ok(subqueries.map_err(internal)?.data)
}

/// Does the node find its input's columns by name, and each name mean one column only?
fn takes_any_order(plan: &LogicalPlan) -> bool {
    let input = match plan {
        LogicalPlan::Projection(projection) => &projection.input,
        LogicalPlan::Aggregate(aggregate) => &aggregate.input,
        _ => return false,
    };
    let vague =
        |c: &Column| c.relation.is_none() && input.schema().fields_with_unqualified_name(&c.name).len() > 1;
    !plan.expressions().iter().any(|e| e.column_refs().into_iter().any(vague))
}

/// Reorders the joins of the subqueries in an expression.
fn reorder_in_expr(expr: Expr, catalog: &CatalogSnapshot) -> Result<Expr> {
    let reordered = expr.transform(|e| match e {
        Expr::ScalarSubquery(subquery) => {
            let plan = subquery.subquery.as_ref().clone();
            let plan = reorder_joins(plan, catalog).map_err(external)?;
            Ok(Transformed::yes(Expr::ScalarSubquery(subquery.with_plan(Arc::new(plan)))))
        }
        e => Ok(Transformed::no(e)),
    });
    Ok(reordered.map_err(internal)?.data)
}

/// A region begins at a join, or at a filter above one.
fn starts_region(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(_) | LogicalPlan::Filter(_)) && region::is_inside_region(plan)
}

/// A region's new plan.
struct Reordered {
    plan: LogicalPlan,
    /// For each column of the old schema, the column of `plan` that it is.
    output: Vec<Column>,
}

/// Reorders one region, with so many steps of exact search. None if it has too many relations.
fn reorder_region(
    plan: &LogicalPlan,
    catalog: &CatalogSnapshot,
    steps_max: usize,
) -> Result<Option<Reordered>> {
    let Some((mut region, output)) = Region::take_apart(plan, catalog)? else { return Ok(None) };
    let graph = Graph::new(&mut region);
    let sets = Sets::new(&region, &graph, catalog);
    let mut search = Search::new(&graph, sets);
    let all = RelationSet::up_to(graph.relations - 1);
    let complete = dphyp::dphyp(&mut search, steps_max) && search.best.contains_key(&all);
    if !complete && !greedy::greedy(&mut search) {
        return Err(internal("no order was found for a region of joins"));
    }
    let needed: HashSet<Column> = output.iter().cloned().collect();
    let builder = Builder { region: &region, graph: &graph, best: &search.best };
    let mut plan = builder.build(all, &needed)?;
    if let Some(constant) = conjunction(region.constants.iter().cloned()) {
        plan = LogicalPlan::Filter(Filter::try_new(constant, Arc::new(plan)).map_err(internal)?);
    }
    Ok(Some(Reordered { plan, output }))
}

impl Reordered {
    /// The plan with a projection above it, if it takes one to have the schema of `before`.
    fn with_schema_of(self, before: &LogicalPlan) -> Result<LogicalPlan> {
        let wanted = before.schema().columns();
        if self.plan.schema().columns() == wanted {
            return Ok(self.plan);
        }
        let exprs = self.output.into_iter().zip(wanted).map(|(column, wanted)| {
            if column == wanted {
                Expr::Column(column)
            } else {
                Expr::Column(column).alias_qualified(wanted.relation, wanted.name)
            }
        });
        let projection = Projection::try_new(exprs.collect(), Arc::new(self.plan));
        Ok(LogicalPlan::Projection(projection.map_err(internal)?))
    }
}

/// What DataFusion found wrong with a plan that we built.
fn internal(error: impl Display) -> PlanError {
    PlanError::internal(format!("join order: {error}"))
}

/// Our error on its way through DataFusion's tree walks.
fn external(error: PlanError) -> datafusion_common::DataFusionError {
    datafusion_common::DataFusionError::External(Box::new(error))
}
