//! Columns of JOIN … USING in subqueries.
//!
//! `datafusion-sql` takes a name that two tables have for the outer query's, before it asks whether USING has
//! made one column of the two: in `(SELECT count(*) FROM u JOIN v USING (k) WHERE k = 1)` over a table with a
//! column k of its own, it would compare the outer one. So such a name is given its table, here in the syntax
//! tree: the left one's, the right one's for a right join, the first that is not null for a full join.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, SelectItem, TableFactor, VisitMut,
    VisitorMut,
};

use super::rewrite::call;

/// Gives the columns of USING their tables in every query inside of another.
pub(super) fn qualify(statement: &mut impl VisitMut) {
    let _: ControlFlow<()> = statement.visit(&mut Selects { depth: 0 });
}

struct Selects {
    depth: usize,
}

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.depth > 1 {
            let columns: Vec<_> = select.from.iter().flat_map(|f| merged(&f.relation, &f.joins)).collect();
            if !columns.is_empty() {
                let mut names = Names { columns, depth: 0 };
                for item in &mut select.projection {
                    // The column keeps its name, whatever it is.
                    if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
                        && let Some(is) = names.find(ident)
                    {
                        let (expr, alias) = (is.clone(), ident.clone());
                        *item = SelectItem::ExprWithAlias { expr, alias };
                    }
                }
                let _ = select.visit(&mut names);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The columns that USING has merged, and what each of them is.
fn merged(first: &TableFactor, joins: &[Join]) -> Vec<(String, Expr)> {
    let mut merged: Vec<(String, Expr)> = vec![];
    let mut only = name(first);
    for Join { relation, join_operator, .. } in joins {
        let right = name(relation);
        use JoinOperator as J;
        if let J::Join(c)
        | J::Inner(c)
        | J::Left(c)
        | J::LeftOuter(c)
        | J::Right(c)
        | J::RightOuter(c)
        | J::FullOuter(c) = join_operator
            && let JoinConstraint::Using(columns) = c
            && let Some(right) = &right
        {
            for column in columns.iter().filter_map(|c| c.0.first()?.as_ident()) {
                let of = |table: &Ident| Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
                let known = merged.iter().position(|(n, _)| *n == column.value.to_lowercase());
                let left = match (known, &only) {
                    (Some(i), _) => merged.swap_remove(i).1,
                    (None, Some(table)) => of(table),
                    // One of several tables: which one is for the binder to find.
                    (None, None) => continue,
                };
                let is = match join_operator {
                    J::Right(_) | J::RightOuter(_) => of(right),
                    J::FullOuter(_) => call("coalesce", vec![left, of(right)]),
                    _ => left,
                };
                merged.push((column.value.to_lowercase(), is));
            }
        }
        only = None;
    }
    merged
}

fn name(relation: &TableFactor) -> Option<Ident> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, args: None, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// Replaces the names of one query, not of those inside of it.
struct Names {
    columns: Vec<(String, Expr)>,
    depth: usize,
}

impl Names {
    fn find(&self, ident: &Ident) -> Option<&Expr> {
        let name = ident.value.to_lowercase();
        self.columns.iter().find(|(column, _)| *column == name).map(|(_, is)| is)
    }
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && self.depth == 0
            && let Some(is) = self.find(ident)
        {
            *expr = is.clone();
        }
        ControlFlow::Continue(())
    }
}
