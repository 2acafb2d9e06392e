//! The correlated subqueries that DataFusion turns into joins by itself, and rightly.
//!
//! It pulls the conditions on outer rows up to the top of the subquery, whatever is in between. That is right
//! where they stand in one filter, below nothing but projections, and for a scalar subquery one aggregate
//! over equalities. Then it saves the bindings: the outer rows join the inner ones directly.

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, JoinType};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

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
            // It would name two columns alike if it has to cast the values that it compares.
            Expr::InSubquery(i) => {
                let value = i.expr.get_type(input.schema());
                value.is_ok_and(|t| t == *plan.schema().field(0).data_type())
                    && is_filter_below_projections(plan)
            }
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
    // What it pulls up must not have the name of a column that is there already.
    let mut apart = true;
    let _ = inner.apply(|node| {
        if let LogicalPlan::Filter(f) = node {
            split_conjunction(&f.predicate).into_iter().filter(|c| refers(c)).for_each(|c| {
                let known = |c: &&Column| right.schema().has_column_with_unqualified_name(&c.name);
                apart &= !c.column_refs().iter().any(known);
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    join.join_type == JoinType::Inner && here && apart && is_filter_below_projections(inner)
}

fn is_filter_below_projections(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => !p.expr.iter().any(refers) && is_filter_below_projections(&p.input),
        _ => are_filters(plan, &mut |c| !has_subquery(c)),
    }
}

fn is_aggregate_over_equalities(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => !p.expr.iter().any(refers) && is_aggregate_over_equalities(&p.input),
        LogicalPlan::Aggregate(a) => {
            let mut seen = vec![];
            a.group_expr.is_empty()
                && !a.aggr_expr.iter().any(refers)
                && are_filters(&a.input, &mut |c| is_equality(c, &mut seen))
        }
        _ => false,
    }
}

/// Filters, with nothing but choices of columns between them, above a plan that does not refer to the outer
/// row; each conjunct that does passes the check.
fn are_filters(plan: &LogicalPlan, check: &mut impl FnMut(&Expr) -> bool) -> bool {
    if plan.all_out_ref_exprs().is_empty() {
        return true;
    }
    match plan {
        LogicalPlan::Projection(p) => {
            let choice = |e: &Expr| match e {
                Expr::Alias(alias) => matches!(*alias.expr, Expr::Literal(..)),
                e => matches!(e, Expr::Column(_) | Expr::Literal(..)),
            };
            p.expr.iter().all(choice) && are_filters(&p.input, check)
        }
        LogicalPlan::Filter(f) => {
            split_conjunction(&f.predicate).into_iter().filter(|c| refers(c)).all(&mut *check)
                && are_filters(&f.input, check)
        }
        _ => false,
    }
}

/// An equality of an outer column, each column once, with something of the inner row.
fn is_equality(conjunct: &Expr, seen: &mut Vec<Column>) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else {
        return false;
    };
    let (outer, inner) = if refers(left) { (left, right) } else { (right, left) };
    let Expr::OuterReferenceColumn(_, column) = outer.as_ref() else {
        return false;
    };
    if refers(inner) || !inner.any_column_refs() || has_subquery(inner) || seen.contains(column) {
        return false;
    }
    seen.push(column.clone());
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
