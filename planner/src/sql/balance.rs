//! Long chains as flat trees.
//!
//! The parser makes `a OR b OR c …` a tree that is as deep as the chain is long, and everything that looks at
//! it later is recursive. AND, OR, `||`, UNION and UNION ALL may be put in other parentheses without changing
//! what comes out, so their chains become balanced trees directly after parsing. Other chains (`1 + 1 + …`)
//! keep their order; they may be so long and no longer.
//!
//! What always holds: after this pass no expression and no set operation nests more than [`DEPTH_MAX`] deep.

use std::ops::ControlFlow;

use datafusion_sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{
    BinaryOperator, Expr, Query, SetExpr, SetOperator, SetQuantifier, Value, Values, VisitMut, VisitorMut,
};

use crate::error::{PlanError, Result};

/// How deep operators may nest.
pub(super) const DEPTH_MAX: usize = 500;

/// Flattens the statement's chains; an error if what is left is too deep.
pub(super) fn balance(statement: &mut Statement) -> Result<()> {
    let mut balancer = Balancer { depth: 0 };
    let flow = match statement {
        Statement::Statement(s) => s.visit(&mut balancer),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(q) => q.visit(&mut balancer),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(e) => return balance(&mut e.statement),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Balancer {
    depth: usize,
}

impl VisitorMut for Balancer {
    type Break = PlanError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        self.depth += 1;
        if let Expr::BinaryOp { op, .. } = expr
            && let BinaryOperator::And | BinaryOperator::Or | BinaryOperator::StringConcat = op
        {
            let op = op.clone();
            *expr = balanced_operation(operands(expr, &op), &op);
        }
        if self.depth > DEPTH_MAX || is_too_deep(expr) {
            take_apart(expr);
            return ControlFlow::Break(PlanError::Invalid {
                message: format!("an expression has more than {DEPTH_MAX} operators one upon the other"),
                hint: Some(
                    "compute parts of it in a subquery or a WITH query; for a long sum, put the numbers into \
                     rows: SELECT sum(x) FROM (VALUES (1), (2), …) v(x)"
                        .into(),
                ),
            });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<PlanError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<PlanError> {
        let body = query.body.as_mut();
        if let SetExpr::SetOperation { op: op @ SetOperator::Union, set_quantifier, .. } = body
            && let SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None = set_quantifier
        {
            let (op, quantifier) = (*op, *set_quantifier);
            *body = balanced_set(branches(body, op, quantifier), op, quantifier);
        }
        let mut depth = 0;
        let mut left = &*body;
        while let SetExpr::SetOperation { left: next, .. } = left {
            depth += 1;
            left = next;
        }
        if depth > DEPTH_MAX {
            let mut rest = std::mem::replace(body, nothing());
            while let SetExpr::SetOperation { left, .. } = rest {
                rest = *left;
            }
            return ControlFlow::Break(PlanError::Invalid {
                message: format!("more than {DEPTH_MAX} set operations of different kinds in one query"),
                hint: Some("combine some of them in WITH queries".into()),
            });
        }
        ControlFlow::Continue(())
    }
}

/// The operands of a chain, in order.
fn operands(expr: &mut Expr, op: &BinaryOperator) -> Vec<Expr> {
    let mut reversed = vec![];
    let mut rest = std::mem::replace(expr, Expr::value(Value::Null));
    loop {
        match rest {
            Expr::BinaryOp { left, op: o, right } if o == *op => {
                reversed.push(*right);
                rest = *left;
            }
            first => {
                reversed.push(first);
                reversed.reverse();
                return reversed;
            }
        }
    }
}

fn balanced_operation(mut operands: Vec<Expr>, op: &BinaryOperator) -> Expr {
    match operands.len() {
        // Short chains stay as they were written.
        n @ 1..=8 => {
            let mut operands = operands.drain(..n);
            let first = operands.next().unwrap_or_else(|| Expr::value(Value::Null));
            operands.fold(first, |left, right| binary(left, op, right))
        }
        n => {
            let right = operands.split_off(n / 2);
            binary(balanced_operation(operands, op), op, balanced_operation(right, op))
        }
    }
}

fn binary(left: Expr, op: &BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }
}

/// The branches of a chain of one set operation, in order.
fn branches(body: &mut SetExpr, op: SetOperator, quantifier: SetQuantifier) -> Vec<SetExpr> {
    let mut reversed = vec![];
    let mut rest = std::mem::replace(body, nothing());
    loop {
        match rest {
            SetExpr::SetOperation { op: o, set_quantifier: q, left, right } if o == op && q == quantifier => {
                reversed.push(*right);
                rest = *left;
            }
            first => {
                reversed.push(first);
                reversed.reverse();
                return reversed;
            }
        }
    }
}

fn balanced_set(mut branches: Vec<SetExpr>, op: SetOperator, quantifier: SetQuantifier) -> SetExpr {
    let operation = |left, right| SetExpr::SetOperation {
        op,
        set_quantifier: quantifier,
        left: Box::new(left),
        right: Box::new(right),
    };
    match branches.len() {
        n @ 1..=8 => {
            let mut branches = branches.drain(..n);
            let first = branches.next().unwrap_or_else(nothing);
            branches.fold(first, operation)
        }
        n => {
            let right = branches.split_off(n / 2);
            operation(balanced_set(branches, op, quantifier), balanced_set(right, op, quantifier))
        }
    }
}

fn nothing() -> SetExpr {
    SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] })
}

/// What the parser nests in a loop: the operand on the left.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { left: expr, .. }
        | Expr::Cast { expr, .. }
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsDistinctFrom(expr, _)
        | Expr::IsNotDistinctFrom(expr, _)
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::AtTimeZone { timestamp: expr, .. }
        | Expr::Collate { expr, .. } => Some(expr),
        _ => None,
    }
}

fn is_too_deep(expr: &mut Expr) -> bool {
    let mut depth = 0;
    let mut rest = expr;
    while let Some(next) = first_operand(rest) {
        depth += 1;
        rest = next;
    }
    depth > DEPTH_MAX
}

/// Drops an expression without recursion.
fn take_apart(expr: &mut Expr) {
    let mut rest = std::mem::replace(expr, Expr::value(Value::Null));
    while let Some(next) = first_operand(&mut rest) {
        let next = std::mem::replace(next, Expr::value(Value::Null));
        rest = next;
    }
}
