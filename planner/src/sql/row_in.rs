//! `(a, b) IN (SELECT c, d FROM …)`: rows compared with rows.
//!
//! `datafusion-sql` compares single values only. In a condition, where unknown is as good as false, a row is
//! in a subquery if EXISTS a row that equals it, and is not in it if there is none that equals it or might
//! (a comparison with a null might).

use sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, UnaryOperator, Value,
    helpers::attached_token::AttachedToken,
};

/// The name of the subquery inside of EXISTS; no user's table has it.
const ROWS: &str = "__rows";

/// Rewrites the row comparisons among the conjuncts and alternatives of a condition; `negated`: it stands
/// under NOT.
pub(super) fn rewrite(condition: &mut Expr, negated: bool) {
    match condition {
        Expr::Nested(inner) => rewrite(inner, negated),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            rewrite(left, negated);
            rewrite(right, negated);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => rewrite(expr, !negated),
        Expr::InSubquery { expr, subquery, negated: not } => {
            let Expr::Tuple(values) = expr.as_ref() else {
                return;
            };
            let found = exists(values, subquery, *not != negated);
            *condition = Expr::Exists { subquery: Box::new(found), negated: *not };
        }
        _ => {}
    }
}

/// The rows of a subquery that equal the values, or also those that might.
fn exists(values: &[Expr], subquery: &Query, or_might: bool) -> Query {
    let column = |i: usize| Ident::new(format!("__c{i}"));
    let equal = values.iter().enumerate().map(|(i, value)| Expr::BinaryOp {
        left: Box::new(Expr::CompoundIdentifier(vec![Ident::new(ROWS), column(i)])),
        op: BinaryOperator::Eq,
        right: Box::new(Expr::Nested(Box::new(value.clone()))),
    });
    let all = equal.reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    });
    let all = all.unwrap_or_else(|| Expr::value(Value::Boolean(true)));
    let condition = match or_might {
        true => Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(all)))),
        false => all,
    };
    let alias = TableAlias {
        explicit: true,
        name: Ident::new(ROWS),
        columns: (0..values.len())
            .map(|i| TableAliasColumnDef { name: column(i), data_type: None })
            .collect(),
        at: None,
    };
    let rows = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(subquery.clone()),
        alias: Some(alias),
        sample: None,
    };
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::UnnamedExpr(Expr::value(Value::Number("1".into(), false)))],
        exclude: None,
        into: None,
        from: vec![TableWithJoins { relation: rows, joins: vec![] }],
        lateral_views: vec![],
        prewhere: None,
        selection: Some(condition),
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}
