//! Names of output columns: what the user wrote.
//!
//! `datafusion-sql` names an expression by its own notation (`Int64(1) + t.a`) and refuses two columns of
//! one name. Here an expression without an alias gets its SQL text as one, and a repeated one a number
//! behind it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, Visit, Visitor};

/// Gives the query's output columns names.
pub(super) fn name_columns(query: &mut Query) {
    let sorted = query.order_by.is_some();
    let Some(select) = leftmost_select(&mut query.body) else {
        return;
    };
    // ORDER BY must find the expressions of a DISTINCT again, and does not look behind aliases.
    if select.distinct.is_some() && sorted {
        return;
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        if !column && expands(expr) {
            continue;
        }
        let text = expr.to_string();
        let earlier = seen.entry(text.to_lowercase()).or_default();
        *earlier += 1;
        let name = match (*earlier, column) {
            (1, true) => continue,
            (1, false) => text,
            (n, _) => format!("{text}_{}", n - 1),
        };
        let expr = std::mem::replace(expr, Expr::Identifier(Ident::new("")));
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
    }
}

/// The SELECT whose names a set operation takes.
fn leftmost_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => leftmost_select(left),
        _ => None,
    }
}

/// The expression may become several columns.
fn expands(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) if f.name.to_string().to_lowercase().starts_with("unnest") => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder).is_break()
}
