//! The expressions that an aggregation evaluates, each once per batch.
//!
//! Group keys, arguments, filters and sort keys register here and get a slot. Equal expressions share one.
//! A sub-expression that several expressions contain becomes a column of its own, which they read (TPC-H
//! q1 has `extendedprice * (1 - discount)` twice). What may not run for every row (branches of CASE, the
//! later operands of AND and OR) is never pulled out, nor is what need not give the same value twice.

use std::sync::Arc;

use datafusion_expr::Volatility;
use dovetail_planner::expr::{BinaryOp, Expr};

use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::expr::{CompiledExpr, compile};
use crate::functions;

/// Collects expressions and hands out their slots.
pub(super) struct InputsBuilder {
    width: usize,
    exprs: Vec<Expr>,
}

/// Compiled expressions, by slot.
#[derive(Clone)]
pub(super) struct Inputs {
    /// Evaluated first, one after the other, and appended to the batch's columns.
    shared: Arc<[CompiledExpr]>,
    slots: Arc<[CompiledExpr]>,
}

impl InputsBuilder {
    /// For batches of `width` columns.
    pub(super) fn new(width: usize) -> Self {
        InputsBuilder { width, exprs: vec![] }
    }

    /// The slot of an expression.
    pub(super) fn slot(&mut self, expr: &Expr) -> usize {
        if is_repeatable(expr)
            && let Some(slot) = self.exprs.iter().position(|e| e == expr)
        {
            return slot;
        }
        self.exprs.push(expr.clone());
        self.exprs.len() - 1
    }

    pub(super) fn build(mut self) -> Result<Inputs> {
        let mut shared = vec![];
        while let Some(common) = self.largest_common() {
            let column = Expr::column(self.width + shared.len(), common.data_type());
            for expr in self.exprs.iter_mut().chain(&mut shared) {
                replace(expr, &common, &column);
            }
            shared.push(common);
        }
        // Later ones are parts of earlier ones or have nothing to do with them: columns that are read
        // must be there first.
        let order = reading_order(self.width, &mut shared, &mut self.exprs);
        let compile_all = |exprs: &[Expr]| exprs.iter().map(compile).collect::<Result<Vec<_>>>();
        Ok(Inputs { shared: compile_all(&order)?.into(), slots: compile_all(&self.exprs)?.into() })
    }

    /// The largest computed expression that occurs at least twice.
    fn largest_common(&self) -> Option<Expr> {
        let mut found: Vec<(&Expr, usize, usize)> = vec![];
        for expr in &self.exprs {
            visit_certain(expr, &mut |e| {
                if is_computed(e) && is_repeatable(e) {
                    match found.iter_mut().find(|(known, _, _)| *known == e) {
                        Some((_, count, _)) => *count += 1,
                        None => found.push((e, 1, size(e))),
                    }
                }
            });
        }
        found
            .into_iter()
            .filter(|(_, n, _)| *n > 1)
            .max_by_key(|(_, _, size)| *size)
            .map(|(e, _, _)| e.clone())
    }
}

impl Inputs {
    /// The values of all slots.
    pub(super) fn evaluate(&self, batch: &Batch) -> Result<Vec<Column>> {
        if self.shared.is_empty() {
            return self.slots.iter().map(|e| e.evaluate(batch)).collect();
        }
        let mut batch = batch.clone();
        for expr in self.shared.iter() {
            let column = expr.evaluate(&batch)?;
            batch.columns.push(column);
        }
        self.slots.iter().map(|e| e.evaluate(&batch)).collect()
    }
}

fn is_computed(expr: &Expr) -> bool {
    !matches!(expr, Expr::Column { .. } | Expr::Literal(_) | Expr::Parameter { .. })
}

fn size(expr: &Expr) -> usize {
    let mut nodes = 0;
    expr.visit(&mut |_| nodes += 1);
    nodes
}

/// Gives the same value every time.
fn is_repeatable(expr: &Expr) -> bool {
    let mut repeatable = true;
    expr.visit(&mut |e| {
        if let Expr::Call { function, .. } = e {
            repeatable &=
                functions::scalar(function).is_ok_and(|f| f.signature().volatility != Volatility::Volatile);
        }
    });
    repeatable
}

/// Visits the sub-expressions that are evaluated for every row.
fn visit_certain<'a>(expr: &'a Expr, f: &mut impl FnMut(&'a Expr)) {
    f(expr);
    match expr {
        Expr::Case { .. } => {}
        Expr::Binary { op: BinaryOp::And | BinaryOp::Or, left, .. } => visit_certain(left, f),
        _ => expr.children().into_iter().for_each(|child| visit_certain(child, f)),
    }
}

fn replace(expr: &mut Expr, from: &Expr, to: &Expr) {
    expr.visit_mut(&mut |e| {
        if e == from {
            *e = to.clone();
        }
    });
}

/// The shared expressions so that each reads only columns before its own; column numbers follow.
fn reading_order(width: usize, shared: &mut [Expr], exprs: &mut [Expr]) -> Vec<Expr> {
    let mut order: Vec<usize> = vec![];
    while order.len() < shared.len() {
        let ready = |i: &usize| {
            !order.contains(i)
                && shared[*i].columns().iter().all(|c| *c < width || order.contains(&(c - width)))
        };
        let next = (0..shared.len()).find(ready).expect("invariant: an expression is no part of itself");
        order.push(next);
    }
    let map = |column: usize| match column.checked_sub(width) {
        None => column,
        Some(old) => width + order.iter().position(|i| *i == old).expect("invariant: all are ordered"),
    };
    exprs.iter_mut().for_each(|e| e.remap(&map));
    shared.iter_mut().for_each(|e| e.remap(&map));
    order.iter().map(|i| shared[*i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;

    fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
        Expr::Binary { op, left: Box::new(left), right: Box::new(right), data_type: DataType::Int64 }
    }

    #[test]
    fn common_parts_are_evaluated_once_and_right() {
        let column = |i| Expr::column(i, DataType::Int64);
        let one = Expr::literal(ScalarValue::Int64(Some(1)));
        let sum = binary(BinaryOp::Add, column(0), column(1));
        let product = binary(BinaryOp::Multiply, sum.clone(), one.clone());
        let both = binary(BinaryOp::Subtract, product.clone(), sum.clone());
        let mut builder = InputsBuilder::new(2);
        assert_eq!(builder.slot(&product), 0);
        assert_eq!(builder.slot(&both), 1);
        assert_eq!(builder.slot(&sum), 2);
        assert_eq!(builder.slot(&product), 0);
        let inputs = builder.build().unwrap();
        assert_eq!(inputs.shared.len(), 2);
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let found = inputs.evaluate(&Batch::from_arrays(vec![array.clone(), array], 2)).unwrap();
        let ints = |i: usize| found[i].to_logical(&DataType::Int64).unwrap();
        assert_eq!(ints(0).as_ref(), &Int64Array::from(vec![2, 4]) as &dyn Array);
        assert_eq!(ints(1).as_ref(), &Int64Array::from(vec![0, 0]) as &dyn Array);
        assert_eq!(ints(2).as_ref(), &Int64Array::from(vec![2, 4]) as &dyn Array);
    }
}
