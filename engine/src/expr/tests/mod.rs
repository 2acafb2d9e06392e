//! Tests of whole expressions. What every test here shares: short ways to write expressions and batches,
//! and the same batch in every physical form.

mod fast_paths;
mod functions;
mod guards;
mod operators;
mod oracle;
mod tpch;

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr, IsTest};

use super::{Predicate, compile};
use crate::batch::{Batch, Column, to_logical};
use crate::error::Result;

pub(super) fn col(index: usize, data_type: DataType) -> Expr {
    Expr::column(index, data_type)
}

pub(super) fn lit(value: impl Into<ScalarValue>) -> Expr {
    Expr::literal(value.into())
}

pub(super) fn text(value: &str) -> Expr {
    lit(ScalarValue::Utf8View(Some(value.into())))
}

pub(super) fn decimal(value: i128, precision: u8, scale: i8) -> Expr {
    lit(ScalarValue::Decimal128(Some(value), precision, scale))
}

pub(super) fn date(days: i32) -> Expr {
    lit(ScalarValue::Date32(Some(days)))
}

/// A binary operator with the type that the coercion rules give it.
pub(super) fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    use BinaryOp::*;
    use datafusion_expr::Operator;
    let (l, r) = (left.data_type(), right.data_type());
    let operator = match op {
        Add => Some(Operator::Plus),
        Subtract => Some(Operator::Minus),
        Multiply => Some(Operator::Multiply),
        Divide => Some(Operator::Divide),
        Modulo => Some(Operator::Modulo),
        _ => None,
    };
    let data_type = match (operator, op) {
        (Some(o), _) => {
            let rules = datafusion_expr::binary::BinaryTypeCoercer::new(&l, &o, &r);
            assert_eq!(rules.get_input_types().unwrap(), (l.clone(), r.clone()), "not coerced");
            rules.get_result_type().unwrap()
        }
        (_, BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight | Concat) => l,
        _ => DataType::Boolean,
    };
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), data_type }
}

pub(super) fn and(left: Expr, right: Expr) -> Expr {
    binary(BinaryOp::And, left, right)
}

pub(super) fn or(left: Expr, right: Expr) -> Expr {
    binary(BinaryOp::Or, left, right)
}

pub(super) fn is(test: IsTest, expr: Expr) -> Expr {
    Expr::Is { test, expr: Box::new(expr) }
}

pub(super) fn cast_to(expr: Expr, to: DataType) -> Expr {
    Expr::Cast { expr: Box::new(expr), to, safe: false }
}

pub(super) fn case(branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>) -> Expr {
    let data_type = branches[0].1.data_type();
    Expr::Case { branches, otherwise: otherwise.map(Box::new), data_type }
}

pub(super) fn in_list(expr: Expr, list: Vec<Expr>) -> Expr {
    Expr::InList { expr: Box::new(expr), list, negated: false }
}

pub(super) fn like(expr: Expr, pattern: &str) -> Expr {
    Expr::Like {
        expr: Box::new(expr),
        pattern: Box::new(text(pattern)),
        negated: false,
        case_insensitive: false,
        escape: None,
    }
}

/// A call with the type that the function itself computes.
pub(super) fn call(function: &str, args: Vec<Expr>) -> Expr {
    let udf = crate::functions::scalar(function).unwrap();
    let fields: Vec<FieldRef> =
        args.iter().map(|a| Arc::new(Field::new("a", a.data_type(), true)) as FieldRef).collect();
    let scalars: Vec<Option<&ScalarValue>> =
        args.iter().map(|a| if let Expr::Literal(l) = a { Some(&l.0) } else { None }).collect();
    let return_field = udf
        .return_field_from_args(datafusion_expr::ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: &scalars,
        })
        .unwrap();
    Expr::Call { function: function.into(), args, return_field }
}

pub(super) fn batch(arrays: Vec<ArrayRef>) -> Batch {
    let rows = arrays[0].len();
    Batch::from_arrays(arrays, rows)
}

/// The values in the logical type.
pub(super) fn evaluate(expr: &Expr, batch: &Batch) -> Result<ArrayRef> {
    let values = compile(expr)?.evaluate(batch)?;
    assert_eq!(values.len(), batch.rows);
    values.to_logical(&expr.data_type())
}

/// The batch in other physical forms: decimals in 64 bits, strings as dictionaries, behind indices. Each
/// with the same rows.
pub(super) fn forms(batch: &Batch) -> Vec<Batch> {
    let narrow = |a: &ArrayRef| match a.data_type() {
        DataType::Decimal128(p, s) if *p <= 18 => {
            arrow::compute::cast(a, &DataType::Decimal64(*p, *s)).unwrap()
        }
        DataType::Utf8View => {
            let to = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View));
            arrow::compute::cast(a, &to).unwrap()
        }
        _ => a.clone(),
    };
    let plain: Vec<ArrayRef> = batch.columns.iter().map(|c| c.values().unwrap()).collect();
    let narrowed: Vec<ArrayRef> = plain.iter().map(narrow).collect();
    let reversed = |arrays: &[ArrayRef]| {
        let back = Arc::new(UInt32Array::from_iter_values((0..batch.rows as u32).rev()));
        let turned = arrays.iter().map(|a| arrow::compute::take(a, back.as_ref(), None).unwrap());
        let columns = turned.map(|a| Column::indexed(a, back.clone())).collect();
        Batch { columns, rows: batch.rows }
    };
    vec![
        batch.clone(),
        Batch::from_arrays(narrowed.clone(), batch.rows),
        reversed(&plain),
        reversed(&narrowed),
    ]
}

/// Evaluates over every form, also as a condition, and checks that all agree.
pub(super) fn check(expr: &Expr, batch: &Batch) -> Result<ArrayRef> {
    let mut answers = forms(batch).into_iter().map(|form| {
        let values = evaluate(expr, &form);
        if expr.data_type() == DataType::Boolean {
            check_selection(expr, &form, &values);
        }
        values
    });
    let first = answers.next().unwrap();
    for (i, other) in answers.enumerate() {
        match (&first, &other) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "form {} of {expr:?}", i + 1),
            (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string(), "form {} of {expr:?}", i + 1),
            (a, b) => panic!("form {} of {expr:?}: {a:?} and {b:?}", i + 1),
        }
    }
    first
}

/// The selection is where the value is true. A condition may answer where its value cannot be computed.
fn check_selection(expr: &Expr, batch: &Batch, values: &Result<ArrayRef>) {
    let predicate = Predicate::compile(expr).unwrap();
    let Ok(values) = values else { return };
    let expected: Vec<u32> = (0..batch.rows)
        .filter(|&i| values.is_valid(i) && values.as_boolean().value(i))
        .map(|i| i as u32)
        .collect();
    for _ in 0..2 {
        let selected = match predicate.select(batch).unwrap() {
            Some(rows) => rows.values().to_vec(),
            None => (0..batch.rows as u32).collect(),
        };
        assert_eq!(selected, expected, "{expr:?}");
    }
}

pub(super) fn logical(array: &ArrayRef, t: &DataType) -> ArrayRef {
    to_logical(array, t).unwrap()
}

/// The message of the error.
pub(super) fn error(result: Result<ArrayRef>) -> String {
    result.map(|a| format!("no error but {a:?}")).unwrap_err().to_string()
}
