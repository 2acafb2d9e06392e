//! The distinct bindings of a subquery: the outer columns that it refers to, under names of their own.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result, TableReference};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

/// The relation D of a dependent join.
pub(super) struct Bindings {
    /// Columns of the outer rows that the subquery refers to.
    pub outer: Vec<Column>,
    /// For each, D's column.
    pub inner: Vec<Column>,
    /// D itself: distinct rows of the columns `inner`; one empty row if there are none.
    pub plan: LogicalPlan,
}

impl Bindings {
    /// What `plan` refers to of `rows`; D's columns have names with a prefix.
    pub fn of(rows: &LogicalPlan, plan: &LogicalPlan, prefix: &str) -> Result<Bindings> {
        let mut outer: Vec<Column> = vec![];
        for reference in plan.all_out_ref_exprs() {
            if let Expr::OuterReferenceColumn(_, column) = &reference
                && is_reference_to(&reference, rows.schema())
                && !outer.contains(column)
            {
                outer.push(column.clone());
            }
        }
        let inner: Vec<Column> =
            (0..outer.len()).map(|i| Column::from_name(format!("{prefix}_{i}"))).collect();
        if outer.is_empty() {
            let plan = LogicalPlanBuilder::empty(true).build()?;
            return Ok(Bindings { outer, inner, plan });
        }
        let columns = outer.iter().zip(&inner).map(|(o, i)| Expr::Column(o.clone()).alias(&i.name));
        let plan = LogicalPlanBuilder::from(rows.clone()).project(columns)?.distinct()?.build()?;
        Ok(Bindings { outer, inner, plan })
    }

    /// D's columns, to be projected under names with another prefix.
    pub fn renamed(&self, prefix: &str) -> Vec<Expr> {
        let names = self.outside_names(prefix);
        self.inner.iter().zip(names).map(|(i, o)| Expr::Column(i.clone()).alias(o.name)).collect()
    }

    /// The names that [`Bindings::renamed`] gives.
    pub fn outside_names(&self, prefix: &str) -> Vec<Column> {
        (0..self.inner.len()).map(|i| Column::from_name(format!("{prefix}_of_{i}"))).collect()
    }

    /// D's columns as expressions.
    pub fn columns(&self) -> Vec<Expr> {
        self.inner.iter().cloned().map(Expr::Column).collect()
    }

    /// Does the plan refer to the outer rows?
    pub fn bind(&self, plan: &LogicalPlan) -> bool {
        plan.all_out_ref_exprs().iter().any(|e| self.column(e).is_some())
    }

    /// D's column for an outer reference.
    pub fn column(&self, expr: &Expr) -> Option<&Column> {
        let Expr::OuterReferenceColumn(_, column) = expr else {
            return None;
        };
        self.outer.iter().position(|o| o == column).map(|i| &self.inner[i])
    }

    /// The expression over D's columns.
    pub fn inside(&self, expr: Expr) -> Result<Expr> {
        let inside = expr.transform_up(|e| match self.column(&e) {
            Some(inner) => Ok(Transformed::yes(Expr::Column(inner.clone()))),
            None => Ok(Transformed::no(e)),
        })?;
        Ok(inside.data)
    }

    /// The expression over D's columns, under the name that it had.
    pub fn named(&self, expr: Expr, qualifier: Option<&TableReference>, name: &str) -> Result<Expr> {
        let expr = self.inside(expr)?;
        let (have, have_name) = expr.qualified_name();
        match have.as_ref() == qualifier && have_name == name {
            true => Ok(expr),
            false => Ok(expr.unalias().alias_qualified(qualifier.cloned(), name)),
        }
    }

    /// The plan's rows for every binding: D's columns, then the plan's.
    pub fn cross(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if let LogicalPlan::EmptyRelation(empty) = plan
            && empty.produce_one_row
        {
            return Ok(self.plan.clone());
        }
        if self.outer.is_empty() {
            return Ok(plan.clone());
        }
        LogicalPlanBuilder::from(self.plan.clone()).cross_join(plan.clone())?.build()
    }
}

/// Is it an outer reference to a column of this schema?
pub(super) fn is_reference_to(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr, Expr::OuterReferenceColumn(_, column) if schema.has_column(column))
}

/// The expression over columns of the outer rows, to stand inside of a subquery.
pub(super) fn as_references(expr: Expr, outer: &DFSchema) -> Result<Expr> {
    let inside = expr.transform_up(|e| match e {
        Expr::Column(column) => {
            let (qualifier, field) = outer.qualified_field_from_column(&column)?;
            let column = Column::from((qualifier, field));
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(inside.data)
}
