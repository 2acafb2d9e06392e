//! CASE: conditions are filters, each run on the rows that no earlier branch took; each result is
//! evaluated only on the rows that take it. So a branch cannot fail on a row that does not reach it, and
//! costs nothing there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal64Array, new_null_array};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;

use super::CompiledExpr;
use super::compile::Compiler;
use super::decimal::{NARROW_DIGITS, NARROW_LIMIT};
use super::filter::{self, Filter};
use super::mask::Mask;
use super::node::{Kernel, Node};
use super::scatter::{Part, scatter};
use crate::batch::Batch;
use crate::error::Result;

/// A searched CASE.
pub(super) fn case(
    compiler: &Compiler,
    branches: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
    data_type: &DataType,
) -> Result<Node> {
    let branches = branches
        .iter()
        .map(|(when, then)| Ok((filter::filter(compiler, when)?, outcome(compiler, then, data_type)?)))
        .collect::<Result<Vec<_>>>()?;
    let null = Expr::literal(ScalarValue::try_from(data_type)?);
    let otherwise = outcome(compiler, otherwise.unwrap_or(&null), data_type)?;
    Ok(Node::kernel(Case { branches, otherwise, result: data_type.clone() }, data_type.clone()))
}

/// What a branch gives.
enum Outcome {
    /// One row; decimals in 64 bits if they fit.
    Constant(ArrayRef),
    Computed(CompiledExpr),
}

fn outcome(compiler: &Compiler, expr: &Expr, data_type: &DataType) -> Result<Outcome> {
    let mut compiled = compiler.detached(expr)?;
    if compiled.data_type() != data_type {
        let cast = Expr::Cast { expr: Box::new(expr.clone()), to: data_type.clone(), safe: false };
        compiled = compiler.detached(&cast)?;
    }
    Ok(match compiled.node.as_constant() {
        Some(c) => Outcome::Constant(narrow(&c.scalar).unwrap_or_else(|| c.array.clone())),
        None => Outcome::Computed(compiled),
    })
}

/// A decimal constant as Decimal64, so that it does not widen the other branches.
fn narrow(scalar: &ScalarValue) -> Option<ArrayRef> {
    let ScalarValue::Decimal128(value, precision, scale) = *scalar else { return None };
    let digits = match value {
        Some(v) if v.unsigned_abs() < NARROW_LIMIT => Some(v as i64),
        Some(_) => return None,
        None => None,
    };
    let array = Decimal64Array::from(vec![digits]);
    Some(Arc::new(array.with_precision_and_scale(precision.min(NARROW_DIGITS), scale).ok()?))
}

struct Case {
    branches: Vec<(Box<dyn Filter>, Outcome)>,
    otherwise: Outcome,
    result: DataType,
}

impl Kernel for Case {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let mut parts = vec![];
        // None: no branch has taken a row yet.
        let mut left: Option<Vec<u32>> = None;
        for (when, then) in &self.branches {
            let (taken, rest) = match left.take() {
                None => {
                    let mut mask = when.mask(batch)?;
                    let taken = mask.to_rows();
                    mask.invert();
                    (taken, mask.into_rows())
                }
                Some(rows) => {
                    let mut taken = rows.clone();
                    when.retain(batch, &mut taken)?;
                    let mut rest = Mask::from_rows(&taken, batch.rows);
                    rest.invert();
                    let rest = rows.into_iter().filter(|&r| rest.get(r as usize)).collect();
                    (taken, rest)
                }
            };
            self.add(&mut parts, batch, taken, then)?;
            let done = rest.is_empty();
            left = Some(rest);
            if done {
                break;
            }
        }
        let rest = left.unwrap_or_else(|| (0..batch.rows as u32).collect());
        self.add(&mut parts, batch, rest, &self.otherwise)?;
        if let [Part { values, constant: false, .. }] = &parts[..] {
            return Ok(values.clone());
        }
        scatter(parts, batch.rows, &self.result)
    }
}

impl Case {
    fn add(&self, parts: &mut Vec<Part>, batch: &Batch, rows: Vec<u32>, outcome: &Outcome) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (values, constant) = match outcome {
            Outcome::Constant(one) => (one.clone(), true),
            Outcome::Computed(expr) if rows.len() == batch.rows => (expr.evaluate_array(batch)?, false),
            Outcome::Computed(expr) => (expr.evaluate_rows(batch, &Arc::new(rows.clone().into()))?, false),
        };
        let values = match values.data_type() {
            DataType::Null => new_null_array(&self.result, values.len()),
            _ => values,
        };
        parts.push(Part { rows, values, constant });
        Ok(())
    }
}

/// `coalesce` and its kin as CASE: the first argument that is not null.
pub(super) fn first_not_null(args: &[Expr], data_type: &DataType) -> Expr {
    use dovetail_planner::expr::IsTest;
    let (last, firsts) = args.split_last().expect("invariant: the planner checked the number of arguments");
    let branches = firsts
        .iter()
        .map(|e| (Expr::Is { test: IsTest::NotNull, expr: Box::new(e.clone()) }, e.clone()))
        .collect();
    Expr::Case { branches, otherwise: Some(Box::new(last.clone())), data_type: data_type.clone() }
}
