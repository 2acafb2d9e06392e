//! IN, EXISTS, ANY and ALL over subqueries, exactly in SQL's three-valued logic, in every place.
//!
//! DataFusion turns such predicates in WHERE into semi, anti and mark joins. It answers "false" where a
//! null among the subquery's values makes the answer "unknown", which matters under NOT and outside of
//! WHERE, and it knows them in WHERE alone. So before its rules run:
//!
//! - in a condition, where unknown counts as false, a NOT IN over values that may be null says what has to
//!   hold of those nulls; what can stay a semi or anti join does;
//! - a correlated NOT IN becomes NOT EXISTS, because nulls count per outer row;
//! - `= ANY` is IN, `<> ALL` is NOT IN, other comparisons are (NOT) EXISTS;
//! - an uncorrelated EXISTS counts to one, once, as a scalar subquery;
//! - in any other place a predicate is a CASE over counts, which are scalar subqueries too.
//!
//! `x IN (S)` is true if a value of S equals x; else false if S is empty; else unknown if x is null or S
//! has a null; else false.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::logical_plan::Filter;
use datafusion_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion_expr::{
    BinaryExpr, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, exists,
    lit, not_exists, scalar_subquery, when,
};
use datafusion_functions_aggregate::expr_fn::count;

/// The node with its subquery predicates in forms that can be decorrelated without loss. What its subqueries
/// have inside of them is in such forms already.
pub(super) fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut found = false;
    for expr in plan.expressions() {
        found |= has_predicate(&expr)?;
    }
    if !found {
        return Ok(Transformed::no(plan));
    }
    match plan {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => filter(predicate, input),
        // The condition of an inner join is a filter above it.
        LogicalPlan::Join(mut join) if join.join_type == JoinType::Inner => {
            let mut kept = vec![];
            let mut above = vec![];
            for conjunct in join.filter.take().into_iter().flat_map(split_conjunction_owned) {
                if has_predicate(&conjunct)? { above.push(conjunct) } else { kept.push(conjunct) }
            }
            join.filter = conjunction(kept);
            let join = Arc::new(LogicalPlan::Join(join));
            match conjunction(above) {
                Some(predicate) => filter(predicate, join),
                None => Ok(Transformed::no(Arc::unwrap_or_clone(join))),
            }
        }
        other => {
            let schema = merge_schema(&other.inputs());
            let names = NamePreserver::new(&other);
            other.map_expressions(|expr| {
                if !has_predicate(&expr)? {
                    return Ok(Transformed::no(expr));
                }
                let name = names.save(&expr);
                let expr = Rewriter { schema: &schema, joins: false }.value(expr)?;
                Ok(Transformed::yes(name.restore(expr)))
            })
        }
    }
}

fn filter(predicate: Expr, input: Arc<LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
    let predicate = Rewriter { schema: input.schema(), joins: true }.condition(predicate, true)?;
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
}

fn has_predicate(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(matches!(e, Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))))
}

struct Rewriter<'a> {
    /// Columns that the expression may name.
    schema: &'a DFSchema,
    /// In a filter, where EXISTS becomes a join; elsewhere rows are counted.
    joins: bool,
}

impl Rewriter<'_> {
    /// An expression for which unknown is as good as false. `top`: it is a conjunct of the filter.
    fn condition(&self, expr: Expr, top: bool) -> Result<Expr> {
        if !has_predicate(&expr)? {
            return Ok(expr);
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let top = top && op == Operator::And;
                Ok(binary_expr(self.condition(*left, top)?, op, self.condition(*right, top)?))
            }
            Expr::Not(inner) => self.not_condition(*inner, top),
            // A constant has no column to join on.
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) if !expr.any_column_refs() => {
                let equal = self.compared(*expr, Operator::Eq, &subquery)?;
                self.exists(with_filter(&subquery, equal)?, false)
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => {
                Ok(Expr::InSubquery(InSubquery { expr, subquery, negated: false }))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated: true }) => {
                self.not_in_condition(*expr, subquery, top)
            }
            Expr::Exists(Exists { subquery, negated }) => self.exists(subquery.subquery, negated),
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                match (quantifier, op) {
                    (SetQuantifier::Any, Operator::Eq) => {
                        self.condition(in_subquery(expr, subquery, false), top)
                    }
                    (SetQuantifier::All, Operator::NotEq) => {
                        self.condition(in_subquery(expr, subquery, true), top)
                    }
                    (SetQuantifier::Any, op) => {
                        let compared = self.compared(*expr, op, &subquery)?;
                        self.exists(with_filter(&subquery, compared)?, false)
                    }
                    // True of all: there is none for which it is false or unknown.
                    (SetQuantifier::All, op) => {
                        let compared = self.compared(*expr, op, &subquery)?;
                        self.exists(with_filter(&subquery, compared.is_not_true())?, true)
                    }
                }
            }
            other => self.value(other),
        }
    }

    /// NOT of an expression, for which unknown is as good as false.
    fn not_condition(&self, inner: Expr, top: bool) -> Result<Expr> {
        match inner {
            Expr::Not(inner) => self.condition(*inner, top),
            Expr::InSubquery(i) => {
                self.condition(Expr::InSubquery(InSubquery { negated: !i.negated, ..i }), top)
            }
            Expr::Exists(e) => self.condition(Expr::Exists(Exists { negated: !e.negated, ..e }), top),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.condition((!*left).or(!*right), top)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                self.condition((!*left).and(!*right), top)
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => match op.negate() {
                Some(op) => {
                    let quantifier = match quantifier {
                        SetQuantifier::Any => SetQuantifier::All,
                        SetQuantifier::All => SetQuantifier::Any,
                    };
                    let negated = SetComparison { expr, subquery, op, quantifier };
                    self.condition(Expr::SetComparison(negated), top)
                }
                None => self.value(!Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })),
            },
            other => self.value(!other),
        }
    }

    fn not_in_condition(&self, expr: Expr, subquery: Subquery, top: bool) -> Result<Expr> {
        let uncorrelated = subquery.subquery.all_out_ref_exprs().is_empty();
        let nullable = expr.nullable(self.schema)? || subquery.subquery.schema().field(0).is_nullable();
        // Without nulls, NOT IN is the opposite of IN; as a conjunct it is a null-aware anti join, if there is
        // a column to join on.
        let joins = expr.any_column_refs();
        if joins && (!nullable || (top && uncorrelated)) {
            return Ok(in_subquery(Box::new(expr), subquery, true));
        }
        let equal = self.compared(expr.clone(), Operator::Eq, &subquery)?;
        if !uncorrelated {
            return self.exists(with_filter(&subquery, equal.is_not_false())?, true);
        }
        let no_match = self.exists(with_filter(&subquery, equal)?, true)?;
        let no_null = self.exists(with_filter(&subquery, first_column(&subquery).is_null())?, true)?;
        let empty = self.exists(subquery.subquery.clone(), true)?;
        Ok(no_match.and(expr.is_not_null().and(no_null).or(empty)))
    }

    /// An expression whose unknown must stay unknown.
    fn value(&self, expr: Expr) -> Result<Expr> {
        let rewritten = expr.transform_up(|e| match e {
            Expr::Exists(Exists { subquery, negated }) => {
                Ok(Transformed::yes(self.exists(subquery.subquery, negated)?))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Ok(Transformed::yes(self.in_value(*expr, &subquery, negated)?))
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                Ok(Transformed::yes(self.comparison_value(*expr, &subquery, op, quantifier)?))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }

    fn in_value(&self, expr: Expr, subquery: &Subquery, negated: bool) -> Result<Expr> {
        let equal = self.compared(expr.clone(), Operator::Eq, subquery)?;
        let matched = self.exists(with_filter(subquery, equal)?, false)?;
        let (yes, no) = (lit(!negated), lit(negated));
        let y = first_column(subquery);
        let (x_nullable, y_nullable) =
            (expr.nullable(self.schema)?, subquery.subquery.schema().field(0).is_nullable());
        if !x_nullable && !y_nullable {
            return Ok(if negated { !matched } else { matched });
        }
        let empty = self.exists(subquery.subquery.clone(), true)?;
        let has_null = self.exists(with_filter(subquery, y.is_null())?, false)?;
        when(matched, yes)
            .when(empty, no.clone())
            .when(expr.is_null().or(has_null), lit(ScalarValue::Boolean(None)))
            .otherwise(no)
    }

    fn comparison_value(
        &self,
        expr: Expr,
        subquery: &Subquery,
        op: Operator,
        quantifier: SetQuantifier,
    ) -> Result<Expr> {
        match (quantifier, op) {
            (SetQuantifier::Any, Operator::Eq) => return self.in_value(expr, subquery, false),
            (SetQuantifier::All, Operator::NotEq) => return self.in_value(expr, subquery, true),
            _ => {}
        }
        let compared = self.compared(expr, op, subquery)?;
        let any = quantifier == SetQuantifier::Any;
        let deciding = if any { compared.clone().is_true() } else { compared.clone().is_false() };
        let decided = self.exists(with_filter(subquery, deciding)?, false)?;
        let unknown = self.exists(with_filter(subquery, compared.is_null())?, false)?;
        when(decided, lit(any)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!any))
    }

    /// Whether the plan has rows, or has none.
    fn exists(&self, plan: Arc<LogicalPlan>, negated: bool) -> Result<Expr> {
        let correlated = !plan.all_out_ref_exprs().is_empty();
        if correlated && self.joins {
            return Ok(if negated { not_exists(plan) } else { exists(plan) });
        }
        let mut rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(plan));
        if !correlated {
            rows = rows.limit(0, Some(1))?;
        }
        let counted = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])?.build()?;
        let count = scalar_subquery(Arc::new(counted));
        Ok(if negated { count.eq(lit(0i64)) } else { count.gt(lit(0i64)) })
    }

    /// `expr op y`, where `y` is the subquery's column, to stand inside of the subquery.
    fn compared(&self, expr: Expr, op: Operator, subquery: &Subquery) -> Result<Expr> {
        let outer = expr.transform_up(|e| match e {
            Expr::Column(column) => {
                let field = self.schema.field_from_column(&column)?.clone();
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(binary_expr(outer.data, op, first_column(subquery)))
    }
}

fn in_subquery(expr: Box<Expr>, subquery: Subquery, negated: bool) -> Expr {
    Expr::InSubquery(InSubquery { expr, subquery, negated })
}

fn first_column(subquery: &Subquery) -> Expr {
    Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)))
}

fn with_filter(subquery: &Subquery, predicate: Expr) -> Result<Arc<LogicalPlan>> {
    let plan = subquery.subquery.as_ref().clone();
    Ok(Arc::new(LogicalPlanBuilder::from(plan).filter(predicate)?.build()?))
}
