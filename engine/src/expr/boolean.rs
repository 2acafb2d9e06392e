//! AND, OR, NOT and the IS tests, in three-valued logic.
//!
//! AND and OR take all operands of a chain at once. What is settled by the operands so far (false for
//! AND, true for OR) is not evaluated further if the next operand can fail, or if few rows are left.
//! Operands that cannot fail go first: SQL leaves the order open, and this one guards the most.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::boolean::{and_kleene, not as not_kernel, or_kleene};
use arrow::datatypes::DataType;
use dovetail_planner::expr::{BinaryOp, Expr, IsTest};

use super::compile::Compiler;
use super::fallible::can_fail;
use super::mask::Mask;
use super::node::{Kernel, Node};
use super::{CompiledExpr, cast};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// A chain of AND or of OR.
pub(super) fn connective(compiler: &Compiler, expr: &Expr, op: BinaryOp) -> Result<Node> {
    let mut operands = vec![];
    flatten(expr, op, &mut operands);
    operands.sort_by_key(|e| can_fail(e));
    let operands = operands
        .into_iter()
        .map(|e| Ok(Operand { fails: can_fail(e), expr: compiler.detached(e)? }))
        .collect::<Result<Vec<_>>>()?;
    Ok(Node::kernel(Connective { and: op == BinaryOp::And, operands }, DataType::Boolean))
}

/// `NOT operand`.
pub(super) fn not(operand: Node) -> Result<Node> {
    Ok(Node::kernel(Not(cast::cast(operand, &DataType::Boolean, false)?), DataType::Boolean))
}

/// `operand IS test`.
pub(super) fn is(test: IsTest, operand: Node) -> Result<Node> {
    Ok(Node::kernel(Is { test, operand }, DataType::Boolean))
}

/// The operands of a chain of `op`, in the order of the text.
pub(super) fn flatten<'a>(expr: &'a Expr, op: BinaryOp, into: &mut Vec<&'a Expr>) {
    // Chains grow to the left, and may be thousands long.
    let mut rest = expr;
    let start = into.len();
    while let Expr::Binary { op: o, left, right, .. } = rest
        && *o == op
    {
        let at = into.len();
        flatten(right, op, into);
        into[at..].reverse();
        rest = left;
    }
    into.push(rest);
    into[start..].reverse();
}

struct Operand {
    expr: CompiledExpr,
    fails: bool,
}

struct Connective {
    and: bool,
    operands: Vec<Operand>,
}

impl Kernel for Connective {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let mut operands = self.operands.iter();
        let first = operands.next().expect("invariant: a chain has operands");
        let mut result = boolean(first.expr.evaluate_array(batch)?)?;
        for operand in operands {
            // AND is open where it is not false, OR where it is not true.
            let mut settled =
                Mask::from_boolean(&if self.and { not_kernel(&result)? } else { result.clone() });
            let open = batch.rows - settled.count();
            if open == 0 {
                break;
            }
            let next = if open < batch.rows && (operand.fails || open < batch.rows / 4) {
                settled.invert();
                let rows = settled.into_rows();
                let values = boolean(operand.expr.evaluate_rows(batch, &Arc::new(rows.clone().into()))?)?;
                spread(&values, &rows, batch.rows, self.and)
            } else {
                boolean(operand.expr.evaluate_array(batch)?)?
            };
            result = if self.and { and_kleene(&result, &next) } else { or_kleene(&result, &next) }?;
        }
        Ok(Arc::new(result))
    }
}

/// Any array that stands for booleans; NULL's own type does too.
pub(super) fn boolean(array: ArrayRef) -> Result<BooleanArray> {
    match array.data_type() {
        DataType::Boolean => Ok(array.as_boolean().clone()),
        DataType::Null => Ok(BooleanArray::new_null(array.len())),
        other => Err(EngineError::internal(format!("a condition of type {other}"))),
    }
}

/// Values of some rows in an array of all rows; the others hold `default`.
fn spread(values: &BooleanArray, rows: &[u32], len: usize, default: bool) -> BooleanArray {
    let mut bits = BooleanBufferBuilder::new(len);
    bits.append_n(len, default);
    let mut valid = values.nulls().map(|_| {
        let mut valid = BooleanBufferBuilder::new(len);
        valid.append_n(len, true);
        valid
    });
    for (i, &row) in rows.iter().enumerate() {
        bits.set_bit(row as usize, values.value(i));
        if let Some(valid) = &mut valid {
            valid.set_bit(row as usize, values.is_valid(i));
        }
    }
    BooleanArray::new(bits.finish(), valid.map(|mut v| NullBuffer::new(v.finish())))
}

struct Not(Node);

impl Kernel for Not {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        Ok(Arc::new(not_kernel(&boolean(self.0.evaluate(batch)?)?)?))
    }
}

struct Is {
    test: IsTest,
    operand: Node,
}

impl Kernel for Is {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let array = self.operand.evaluate(batch)?;
        let valid = match array.logical_nulls() {
            Some(nulls) => nulls.into_inner(),
            None => BooleanBuffer::new_set(array.len()),
        };
        let truth = || boolean(array.clone()).map(|b| b.values().clone());
        let result = match self.test {
            IsTest::Null | IsTest::Unknown => !&valid,
            IsTest::NotNull | IsTest::NotUnknown => valid,
            IsTest::True => &valid & &truth()?,
            IsTest::NotTrue => !&(&valid & &truth()?),
            IsTest::False => &valid & &!&truth()?,
            IsTest::NotFalse => !&(&valid & &!&truth()?),
        };
        Ok(Arc::new(BooleanArray::new(result, None)))
    }
}
