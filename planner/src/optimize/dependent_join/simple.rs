//! The correlated subqueries that DataFusion turns into joins by itself, and rightly.
//!
//! It pulls the conditions on outer rows up to the top of the subquery, whatever is in between. That is right
//! where they stand in one filter, below nothing but projections, and for a scalar subquery one aggregate
//! over equalities. Then it saves the bindings: the outer rows join the inner ones directly.

use datafusion_common::JoinType;
use datafusion_common::tree_node::TreeNode;
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use super::bindings::is_reference_to;

/// Is this correlated subquery of the node one of them?
pub(super) fn is_simple(node: &LogicalPlan, subquery: &Expr) -> bool {
    let [input] = node.inputs()[..] else {
        return false;
    };
    let (plan, place) = match subquery {
        Expr::ScalarSubquery(s) => {
            (&s.subquery, matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_)))
        }
        Expr::Exists(Exists { subquery: s, .. }) | Expr::InSubquery(InSubquery { subquery: s, .. }) => {
            (&s.subquery, matches!(node, LogicalPlan::Filter(_)))
        }
        _ => return false,
    };
    let here = plan.all_out_ref_exprs().iter().all(|r| is_reference_to(r, input.schema()));
    place
        && here
        && match subquery {
            Expr::ScalarSubquery(_) => is_aggregate_over_equalities(plan),
            _ => is_filter_below_projections(plan),
        }
}

/// Is the right side of this join one of them?
pub(super) fn is_lateral(join: &Join, right: &LogicalPlan) -> bool {
    let inner = match right {
        LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
        other => other,
    };
    let here = inner.all_out_ref_exprs().iter().all(|r| is_reference_to(r, join.left.schema()));
    join.join_type == JoinType::Inner && here && is_filter_below_projections(inner)
}

fn is_filter_below_projections(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => !p.expr.iter().any(refers) && is_filter_below_projections(&p.input),
        LogicalPlan::Filter(f) => {
            f.input.all_out_ref_exprs().is_empty()
                && !split_conjunction(&f.predicate).into_iter().any(|c| refers(c) && has_subquery(c))
        }
        _ => false,
    }
}

fn is_aggregate_over_equalities(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => !p.expr.iter().any(refers) && is_aggregate_over_equalities(&p.input),
        LogicalPlan::Aggregate(a) => {
            let LogicalPlan::Filter(filter) = a.input.as_ref() else {
                return false;
            };
            a.group_expr.is_empty()
                && !a.aggr_expr.iter().any(refers)
                && filter.input.all_out_ref_exprs().is_empty()
                && are_equalities(&filter.predicate)
        }
        _ => false,
    }
}

/// Every conjunct that refers to the outer row is an equality of one of its columns, each column once, with
/// something of the inner row.
fn are_equalities(predicate: &Expr) -> bool {
    let mut seen = vec![];
    for conjunct in split_conjunction(predicate).into_iter().filter(|c| refers(c)) {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else {
            return false;
        };
        let (outer, inner) = if refers(left) { (left, right) } else { (right, left) };
        let Expr::OuterReferenceColumn(_, column) = outer.as_ref() else {
            return false;
        };
        if refers(inner) || !inner.any_column_refs() || has_subquery(inner) || seen.contains(&column) {
            return false;
        }
        seen.push(column);
    }
    true
}

fn refers(expr: &Expr) -> bool {
    expr.contains_outer()
}

fn has_subquery(expr: &Expr) -> bool {
    let subquery = |e: &Expr| {
        matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
    };
    expr.exists(|e| Ok(subquery(e))).unwrap_or(true)
}
