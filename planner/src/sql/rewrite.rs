//! Rewrites of the syntax tree into forms that `datafusion-sql` plans.
//!
//! - `FROM t` becomes `SELECT * FROM t`;
//! - an expression in the select list gets its text as its name, see `names`;
//! - `FETCH FIRST n ROWS ONLY` becomes `LIMIT n`;
//! - `ORDER BY ALL` becomes the positions of the select list, if it has no star;
//! - `(a, b) IN (SELECT c, d …)` in a condition becomes EXISTS with a comparison of each;
//! - `FROM unnest(list)` becomes the clause of that name, which the parser takes for a table function;
//! - `[a, b]` becomes `make_array(a, b)`, which may name outer columns;
//! - `SEMI JOIN` and `ANTI JOIN` keep the columns of their left side, as LEFT SEMI and LEFT ANTI JOIN do;
//! - a column of USING gets its table's name in subqueries, see `using`;
//! - `a ^ b` becomes `power(a, b)`, and a number with an exponent a DOUBLE.

use std::ops::ControlFlow;

use datafusion_sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, JoinOperator, LimitClause, ObjectName, OrderByExpr,
    OrderByKind, Query, Select, SelectFlavor, SelectItem, SetExpr, TableFactor, Value, ValueWithSpan,
    VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::names::name_columns;
use super::row_in;
use super::scopes::rename_hiding;
use super::using;

/// The statement in forms that can be planned.
pub(super) fn rewrite(statement: &mut Statement) {
    let _: ControlFlow<()> = match statement {
        Statement::Statement(s) => {
            rename_hiding(s);
            using::qualify(s);
            s.visit(&mut Rewriter)
        }
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(q) => {
                rename_hiding(q);
                using::qualify(q);
                q.visit(&mut Rewriter)
            }
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(e) => {
            rewrite(&mut e.statement);
            ControlFlow::Continue(())
        }
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        match select.flavor {
            SelectFlavor::FromFirstNoSelect => {
                select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
                select.flavor = SelectFlavor::Standard;
            }
            SelectFlavor::FromFirst => select.flavor = SelectFlavor::Standard,
            SelectFlavor::Standard => {}
        }
        for join in select.from.iter_mut().flat_map(|f| &mut f.joins) {
            let constraint = match &join.join_operator {
                JoinOperator::Semi(c) | JoinOperator::Anti(c) => c.clone(),
                _ => continue,
            };
            join.join_operator = match join.join_operator {
                JoinOperator::Semi(_) => JoinOperator::LeftSemi(constraint),
                _ => JoinOperator::LeftAnti(constraint),
            };
        }
        for condition in
            [&mut select.selection, &mut select.having, &mut select.qualify].into_iter().flatten()
        {
            row_in::rewrite(condition, false);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } = factor else {
            return ControlFlow::Continue(());
        };
        if !name.to_string().eq_ignore_ascii_case("unnest") {
            return ControlFlow::Continue(());
        }
        let lists: Option<Vec<Expr>> = arguments
            .args
            .iter()
            .map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                _ => None,
            })
            .collect();
        if let Some(array_exprs) = lists {
            *factor = TableFactor::UNNEST {
                alias: alias.take(),
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: *with_ordinality,
            };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } => {
                let whole = std::mem::replace(expr, Expr::value(Value::Null));
                if let Expr::BinaryOp { left, right, .. } = whole {
                    *expr = call("power", vec![*left, *right]);
                }
            }
            Expr::Array(array) => *expr = call("make_array", std::mem::take(&mut array.elem)),
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) if text.contains(['e', 'E']) => {
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(Expr::value(Value::SingleQuotedString(text.clone()))),
                    data_type: DataType::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        order_by_positions(query);
        name_columns(query);
        let Some(fetch) = &query.fetch else {
            return ControlFlow::Continue(());
        };
        if fetch.with_ties || fetch.percent {
            return ControlFlow::Continue(());
        }
        let one = || Expr::value(Value::Number("1".into(), false));
        let rows = fetch.quantity.clone().unwrap_or_else(one);
        match &mut query.limit_clause {
            None => {
                query.limit_clause =
                    Some(LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: vec![] });
            }
            Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(rows),
            // Both LIMIT and FETCH: left for the refusal.
            Some(_) => return ControlFlow::Continue(()),
        }
        query.fetch = None;
        ControlFlow::Continue(())
    }
}

/// ORDER BY ALL over a select list without stars, by position.
fn order_by_positions(query: &mut Query) {
    let (SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by) else {
        return;
    };
    let OrderByKind::All(options) = order_by.kind else {
        return;
    };
    let star = |i: &SelectItem| matches!(i, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if select.projection.iter().any(star) {
        return;
    }
    let key = |n: usize| OrderByExpr {
        expr: Expr::value(Value::Number(n.to_string(), false)),
        options,
        with_fill: None,
    };
    order_by.kind = OrderByKind::Expressions((1..=select.projection.len()).map(key).collect());
}

/// A plain call.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
