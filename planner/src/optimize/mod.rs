//! Logical optimization: a bound plan into an equivalent one that is cheaper to run.
//!
//! DataFusion's analyzer coerces types; its rules simplify, decorrelate, push filters and projections
//! down. Rules of ours come before, where DataFusion's would lose meaning or know no way, and after: the
//! join order. Uncorrelated scalar subqueries stay in the expressions, as
//! `Expr::ScalarSubquery`; the physical planner turns them into parameters.
//!
//! What always holds: the plan's output (names, types, rows) is what it was before; a rule that fails
//! fails the query, because a rule that is skipped hides a defect.

mod bag_operations;
pub mod cardinality;
mod dependent_join;
mod distinct_on;
pub mod join_order;
mod lateral_unnest;
mod lossy_casts;
mod null_safe_joins;
pub(crate) mod once;
mod operand_types;
mod signed_ranks;
mod subquery_predicates;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::{AnalyzerRule, Optimizer, OptimizerContext};

use crate::catalog::CatalogSnapshot;
use crate::error::Result;

/// The optimized plan. Subqueries inside expressions are optimized too.
pub fn optimize(plan: LogicalPlan, catalog: &CatalogSnapshot) -> Result<LogicalPlan> {
    let options = Arc::new(options());
    // Names first: our rules hand all columns of a node on, and this one takes a column away.
    let plan = ResolveGroupingFunction::new().analyze(plan, &options)?;
    let plan = lateral_unnest::rewrite(plan)?;
    let plan = distinct_on::rewrite(bag_operations::rewrite(plan)?)?;
    let plan = operand_types::rewrite(signed_ranks::rewrite(plan)?)?;
    // Before types are coerced: that rule refuses some places of subqueries.
    let plan = dependent_join::rewrite(plan)?;
    let plan = TypeCoercion::new().analyze(plan, &options)?;
    let context = OptimizerContext::new_with_config_options(options);
    let plan = null_safe_joins::optimizer().optimize(plan, &context, |_, _| {})?;
    // After the filters have arrived where they belong.
    let plan = join_order::reorder_joins(plan, catalog)?;
    // The new join order has projections of its own; unneeded columns go once more.
    let last = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
    Ok(last.optimize(plan, &context, |_, _| {})?)
}

fn options() -> ConfigOptions {
    let mut options = ConfigOptions::default();
    options.optimizer.skip_failed_rules = false;
    // A scalar subquery without correlation runs once, before the stages that need its value.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = true;
    options
}
