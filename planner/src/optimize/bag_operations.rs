//! INTERSECT ALL and EXCEPT ALL, which count how often a row occurs.
//!
//! DataFusion plans them as a semi or anti join, so a row that occurs twice on the left and once on the
//! right would come out twice, or not at all. Here each side numbers the copies of a row, and the join
//! compares the number too: the third copy on the left needs a third copy on the right.

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, JoinType, NullEquality, Result};
use datafusion_expr::expr::WindowFunction;
use datafusion_expr::logical_plan::Join;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition};
use datafusion_functions_window::row_number::row_number_udwf;

/// The columns that number the copies of a row; no user's column has these names.
const LEFT_COPY: &str = "__left_copy";
const RIGHT_COPY: &str = "__right_copy";

/// The plan with exact INTERSECT ALL and EXCEPT ALL.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) if is_bag_operation(&join) => Ok(Transformed::yes(count_copies(join)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// Fresh from the binder, only set operations join on equal nulls. Without ALL the left side is distinct,
/// and whether the user or the binder made it so, no copies need counting.
fn is_bag_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn count_copies(mut join: Join) -> Result<LogicalPlan> {
    let output: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    join.left = Arc::new(numbered(Arc::unwrap_or_clone(join.left), LEFT_COPY)?);
    join.right = Arc::new(numbered(Arc::unwrap_or_clone(join.right), RIGHT_COPY)?);
    let column = |name: &str| Expr::Column(Column::from_name(name));
    join.on.push((column(LEFT_COPY), column(RIGHT_COPY)));
    let join = Join::try_new(
        join.left,
        join.right,
        join.on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(join)).project(output)?.build()
}

fn numbered(plan: LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let mut number =
        WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::<Expr>::new());
    number.params.partition_by = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = Expr::WindowFunction(Box::new(number)).alias(name);
    LogicalPlanBuilder::from(plan).window(vec![number])?.build()
}
