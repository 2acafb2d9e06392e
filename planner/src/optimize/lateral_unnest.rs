//! `FROM t, unnest(t.list)`: the lists of each row beside it.
//!
//! The binder makes a join with a subquery that refers to the row outside; DataFusion decorrelates only
//! subqueries over tables. This one stands on a single empty row, so the outer rows can take that row's
//! place: they flow through the subquery's projections and its UNNEST, and no join is left.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, JoinType, NullHandling, Result, ScalarValue};
use datafusion_expr::logical_plan::{Filter, Join, Projection, SubqueryAlias, Unnest};
use datafusion_expr::{Expr, LogicalPlan};

/// The plan without lateral UNNEST.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) => match without_join(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn without_join(join: &Join) -> Result<Option<LogicalPlan>> {
    let always = match &join.filter {
        None => true,
        Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)) => true,
        Some(_) => false,
    };
    let keep_all = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        _ => return Ok(None),
    };
    let subquery = match join.right.as_ref() {
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => input.as_ref(),
        other => other,
    };
    let LogicalPlan::Subquery(subquery) = subquery else {
        return Ok(None);
    };
    if !always || !join.on.is_empty() || !stands_on_one_row(&subquery.subquery, keep_all) {
        return Ok(None);
    }

    // The outer columns travel under names that nothing inside has.
    let outer: Vec<Column> = join.left.schema().columns();
    let carried: Vec<Expr> = (0..outer.len()).map(|i| Expr::Column(carried_name(i))).collect();
    let names: HashMap<Column, Column> =
        outer.iter().enumerate().map(|(i, c)| (c.clone(), carried_name(i))).collect();
    let renamed = outer.iter().enumerate().map(|(i, c)| Expr::Column(c.clone()).alias(carried_name(i).name));
    let bottom = Projection::try_new(renamed.collect(), join.left.clone())?;
    let rows = Rows { bottom: LogicalPlan::Projection(bottom), carried, names, keep_all };
    let plan = rows.under(&subquery.subquery)?;

    let outside = join
        .schema
        .iter()
        .zip(plan_columns(&outer, &subquery.subquery))
        .map(|((q, f), column)| Expr::Column(column).alias_qualified(q.cloned(), f.name().as_str()));
    Ok(Some(LogicalPlan::Projection(Projection::try_new(outside.collect(), Arc::new(plan))?)))
}

fn carried_name(i: usize) -> Column {
    Column::from_name(format!("__outer_{i}"))
}

/// The columns above the subquery: the carried ones, then its own.
fn plan_columns(outer: &[Column], subquery: &LogicalPlan) -> Vec<Column> {
    (0..outer.len()).map(carried_name).chain(subquery.schema().columns()).collect()
}

/// Projections, filters and UNNESTs above one row without columns.
fn stands_on_one_row(plan: &LogicalPlan, keep_all: bool) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(p) => stands_on_one_row(&p.input, keep_all),
        LogicalPlan::Unnest(u) => stands_on_one_row(&u.input, keep_all),
        // A row whose list fails the filter would have to stay, with nulls.
        LogicalPlan::Filter(f) => !keep_all && stands_on_one_row(&f.input, keep_all),
        _ => false,
    }
}

/// The outer rows, to be put under a subquery.
struct Rows {
    bottom: LogicalPlan,
    carried: Vec<Expr>,
    /// By the name outside, the name inside.
    names: HashMap<Column, Column>,
    keep_all: bool,
}

impl Rows {
    fn under(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.under(&projection.input)?;
                let own = projection.expr.iter().map(|e| self.inside(e));
                let exprs = self.carried.iter().cloned().map(Ok).chain(own).collect::<Result<Vec<_>>>()?;
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.under(&filter.input)?;
                Ok(LogicalPlan::Filter(Filter::try_new(self.inside(&filter.predicate)?, Arc::new(input))?))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.under(&unnest.input)?;
                let mut options = unnest.options.clone();
                if self.keep_all {
                    options.null_handling = NullHandling::PreserveAndExpandEmpty;
                }
                let columns = unnest.exec_columns.clone();
                Ok(LogicalPlan::Unnest(Unnest::try_new(Arc::new(input), columns, options)?))
            }
            _ => Ok(self.bottom.clone()),
        }
    }

    fn inside(&self, expr: &Expr) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let inside = expr.clone().transform_up(|e| match &e {
            Expr::OuterReferenceColumn(_, column) => match self.names.get(column) {
                Some(inside) => Ok(Transformed::yes(Expr::Column(inside.clone()))),
                None => Ok(Transformed::no(e)),
            },
            _ => Ok(Transformed::no(e)),
        })?;
        match inside.transformed {
            // What was named after an outer column keeps that name.
            true => inside.data.alias_if_changed(name),
            false => Ok(inside.data),
        }
    }
}
