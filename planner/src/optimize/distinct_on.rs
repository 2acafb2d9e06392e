//! SELECT DISTINCT ON: of each group of rows with equal keys the first, in the order of ORDER BY.
//!
//! Rows are numbered within their group and the first ones kept, so that all columns of an output row come
//! from one input row, also where ORDER BY leaves ties.

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result};
use datafusion_expr::expr::WindowFunction;
use datafusion_expr::logical_plan::{Distinct, DistinctOn};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, lit};
use datafusion_functions_window::row_number::row_number_udwf;

/// The column that numbers the rows of a group; no user's column has this name.
const NUMBER: &str = "__distinct_on";

/// The plan without DISTINCT ON.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(on)) => Ok(Transformed::yes(first_of_each(on)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn first_of_each(on: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = on;
    let sort_expr = sort_expr.unwrap_or_default();
    let mut number =
        WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::<Expr>::new());
    number.params.partition_by = on_expr;
    number.params.order_by = sort_expr.clone();
    let number = Expr::WindowFunction(Box::new(number)).alias(NUMBER);
    let mut plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input))
        .window(vec![number])?
        .filter(Expr::Column(Column::from_name(NUMBER)).eq(lit(1u64)))?;
    if !sort_expr.is_empty() {
        plan = plan.sort(sort_expr)?;
    }
    plan.project(select_expr)?.build()
}
