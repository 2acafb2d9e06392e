//! Names of subqueries that two of their own tables have.
//!
//! `datafusion-sql` looks such a name up in the outer query before it finds it ambiguous: in
//! `(SELECT a FROM x, y)` over a table with a column `a` of its own, it would give the outer one. A plan does
//! not tell whether a name was written with its table, so this takes both: names that the text has without
//! a table inside of subqueries, and outer columns where the plan's own inputs have the name twice.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, plan_datafusion_err};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, LogicalPlan};
use sqlparser::ast::{self, Ident, Query, Visit, Visitor};

/// The names that stand without a table inside of subqueries.
pub(super) fn bare_names(statement: &impl Visit) -> HashSet<String> {
    let mut names = Names::default();
    let _: ControlFlow<()> = statement.visit(&mut names);
    names.found
}

#[derive(Default)]
struct Names {
    depth: usize,
    found: HashSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let (ast::Expr::Identifier(Ident { value, .. }), true) = (expr, self.depth > 1) {
            self.found.insert(value.to_lowercase());
        }
        ControlFlow::Continue(())
    }
}

/// An error if one of the names was taken for an outer column although it is ambiguous.
pub(super) fn check(plan: LogicalPlan, bare: &HashSet<String>) -> Result<LogicalPlan> {
    if bare.is_empty() {
        return Ok(plan);
    }
    plan.apply_with_subqueries(|node| {
        let own = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|e| match e {
                Expr::OuterReferenceColumn(_, column)
                    if bare.contains(&column.name.to_lowercase())
                        && own.fields().iter().filter(|f| *f.name() == column.name).count() > 1 =>
                {
                    let name = &column.name;
                    Err(plan_datafusion_err!(
                        "the column name {name} is ambiguous in a subquery: several of its tables have it, and \
                         so has the query around it; write it with its table, as in t.{name}"
                    ))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(plan)
}
