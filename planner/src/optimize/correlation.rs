//! Which correlated subqueries may be decorrelated by pulling their conditions up.
//!
//! DataFusion moves a condition on an outer row from where it stands to the top of the subquery, whatever is
//! in between. That changes the meaning if a window function, the null-extended side of an outer join, an
//! OFFSET or an aggregate below an aggregate lies on the way. Such subqueries are refused.

use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{JoinType, Result, not_impl_err};
use datafusion_expr::logical_plan::{Join, SkipType};
use datafusion_expr::{Expr, LogicalPlan};

/// Checks every correlated subquery of the plan.
pub(super) fn check_all(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Subquery(subquery) = node {
            check(&subquery.subquery)?;
        }
        node.apply_expressions(|expr| {
            datafusion_common::tree_node::TreeNode::apply(expr, |e| {
                match e {
                    Expr::ScalarSubquery(subquery) => check(&subquery.subquery)?,
                    Expr::Exists(exists) => check(&exists.subquery.subquery)?,
                    Expr::InSubquery(in_subquery) => check(&in_subquery.subquery.subquery)?,
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

/// An error if a condition on an outer row cannot be pulled out of the plan without changing its meaning.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    if !correlated(plan) {
        return Ok(());
    }
    let refused = match plan {
        LogicalPlan::Window(_) => Some("a window function"),
        LogicalPlan::RecursiveQuery(_) => Some("a recursive query"),
        LogicalPlan::Join(join) if null_extended_side_is_correlated(join) => Some("an outer join"),
        LogicalPlan::Limit(limit) if !matches!(limit.get_skip_type()?, SkipType::Literal(0)) => {
            Some("OFFSET")
        }
        LogicalPlan::Aggregate(aggregate) if has_scalar_aggregate(&aggregate.input) => {
            Some("an aggregate below an aggregate")
        }
        _ => None,
    };
    if let Some(place) = refused {
        return not_impl_err!("A subquery that refers to an outer row below {place}");
    }
    plan.inputs().into_iter().try_for_each(check)
}

fn correlated(plan: &LogicalPlan) -> bool {
    !plan.all_out_ref_exprs().is_empty()
}

fn null_extended_side_is_correlated(join: &Join) -> bool {
    match join.join_type {
        JoinType::Inner => false,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            correlated(&join.right)
        }
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            correlated(&join.left)
        }
        JoinType::Full => true,
    }
}

/// An aggregate without groups has a row also where the pulled-up condition leaves none.
fn has_scalar_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(a) => a.group_expr.is_empty() && correlated(plan),
        other => other.inputs().into_iter().any(has_scalar_aggregate),
    }
}
