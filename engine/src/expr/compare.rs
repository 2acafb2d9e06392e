//! `= <> < <= > >=` and IS [NOT] DISTINCT FROM, for every type.
//!
//! Arrow's kernels do the work. Before them, the two sides are brought to one physical form: decimals
//! compare by their digits as integers, floats take -0 for 0, dictionaries stay as they are. Nested
//! values compare element by element, with nulls inside equal to each other and smaller than the rest.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, make_comparator};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{SortOptions, kernels::cmp};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal64Type, Decimal128Type};
use datafusion_common::utils::normalize_float_zero;
use dovetail_planner::expr::BinaryOp;

use super::arithmetic::plain;
use super::node::{Kernel, Node, Value};
use super::text_set::equal_short;
use crate::batch::{Batch, to_logical};
use crate::error::{EngineError, Result};

/// `left op right`.
pub(super) fn comparison(op: BinaryOp, left: Node, right: Node) -> Result<Node> {
    Ok(Node::kernel(Comparison { op: Op::try_from(op)?, left, right }, DataType::Boolean))
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Distinct,
    NotDistinct,
}

impl TryFrom<BinaryOp> for Op {
    type Error = EngineError;

    fn try_from(op: BinaryOp) -> Result<Self> {
        Ok(match op {
            BinaryOp::Eq => Op::Eq,
            BinaryOp::NotEq => Op::NotEq,
            BinaryOp::Lt => Op::Lt,
            BinaryOp::LtEq => Op::LtEq,
            BinaryOp::Gt => Op::Gt,
            BinaryOp::GtEq => Op::GtEq,
            BinaryOp::IsDistinctFrom => Op::Distinct,
            BinaryOp::IsNotDistinctFrom => Op::NotDistinct,
            other => return Err(EngineError::internal(format!("{other:?} is no comparison"))),
        })
    }
}

impl Op {
    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Op::Eq | Op::NotDistinct => ordering.is_eq(),
            Op::NotEq | Op::Distinct => ordering.is_ne(),
            Op::Lt => ordering.is_lt(),
            Op::LtEq => ordering.is_le(),
            Op::Gt => ordering.is_gt(),
            Op::GtEq => ordering.is_ge(),
        }
    }

    fn arrow(self, l: &Value, r: &Value) -> Result<BooleanArray> {
        Ok(match self {
            Op::Eq => cmp::eq(l, r),
            Op::NotEq => cmp::neq(l, r),
            Op::Lt => cmp::lt(l, r),
            Op::LtEq => cmp::lt_eq(l, r),
            Op::Gt => cmp::gt(l, r),
            Op::GtEq => cmp::gt_eq(l, r),
            Op::Distinct => cmp::distinct(l, r),
            Op::NotDistinct => cmp::not_distinct(l, r),
        }?)
    }
}

struct Comparison {
    op: Op,
    left: Node,
    right: Node,
}

impl Kernel for Comparison {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let (l, r) = (self.left.value(batch)?, self.right.value(batch)?);
        let compared = compare(self.op, &l, &self.left.data_type, &r, &self.right.data_type)?;
        Ok(Arc::new(repeat(compared, &l, &r, batch.rows)))
    }
}

/// Two constants that could not be folded compare to one row.
fn repeat(compared: BooleanArray, l: &Value, r: &Value, rows: usize) -> BooleanArray {
    if !matches!((l, r), (Value::Constant(_), Value::Constant(_))) {
        return compared;
    }
    match compared.is_valid(0) {
        true => BooleanArray::new(BooleanBuffer::collect_bool(rows, |_| compared.value(0)), None),
        false => BooleanArray::new_null(rows),
    }
}

/// `l op r`, each in any physical form of its logical type.
pub(super) fn compare(
    op: Op,
    l: &Value,
    l_type: &DataType,
    r: &Value,
    r_type: &DataType,
) -> Result<BooleanArray> {
    let (lt, rt) = (l.array().data_type(), r.array().data_type());
    if (lt.is_null() && !l_type.is_null()) || (rt.is_null() && !r_type.is_null()) {
        let logical = |v: &Value, t: &DataType| v.map(|a| to_logical(a, t));
        return compare(op, &logical(l, l_type)?, l_type, &logical(r, r_type)?, r_type);
    }
    if lt.is_decimal() && rt.is_decimal() && !matches!(lt, DataType::Decimal256(_, _)) {
        let (l, r) = same_digits(l, r)?;
        return op.arrow(&l, &r);
    }
    if lt.is_floating() {
        let zero = |v: &Value| v.map(|a| Ok(normalize_float_zero(a)));
        return op.arrow(&zero(l)?, &zero(r)?);
    }
    if lt.is_nested() || rt.is_nested() {
        return nested(op, l, r);
    }
    if let Some(equal) = equal_text(op, l, r).or_else(|| equal_text(op, r, l)) {
        return Ok(equal);
    }
    if value_type(lt) == value_type(rt) {
        return op.arrow(l, r);
    }
    let logical = |v: &Value, t: &DataType| plain(v.map(|a| to_logical(a, t))?);
    op.arrow(&logical(l, l_type)?, &logical(r, r_type)?)
}

/// Views that do or do not equal a short constant.
fn equal_text(op: Op, column: &Value, constant: &Value) -> Option<BooleanArray> {
    let (Value::Array(column), Value::Constant(_)) = (column, constant) else { return None };
    let (texts, constant) = (column.as_string_view_opt()?, constant.array().as_string_view_opt()?);
    if !matches!(op, Op::Eq | Op::NotEq) || constant.is_null(0) {
        return None;
    }
    let equal = equal_short(texts, constant.value(0))?;
    Some(BooleanArray::new(if op == Op::Eq { equal } else { !&equal }, texts.nulls().cloned()))
}

fn value_type(t: &DataType) -> &DataType {
    match t {
        DataType::Dictionary(_, v) => v,
        other => other,
    }
}

/// Decimals of one scale as integers of one width.
fn same_digits(l: &Value, r: &Value) -> Result<(Value, Value)> {
    let scale = |v: &Value| match v.array().data_type() {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => *s,
        _ => 0,
    };
    if scale(l) != scale(r) {
        return Err(EngineError::internal(format!(
            "a comparison of {} and {}",
            l.array().data_type(),
            r.array().data_type()
        )));
    }
    if let (Some(l), Some(r)) = (narrow(l)?, narrow(r)?) {
        return Ok((l, r));
    }
    let wide = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale(l));
    let widen = |v: &Value| {
        v.map(|a| match a.as_primitive_opt::<Decimal128Type>() {
            Some(d) => Ok(Arc::new(d.clone().with_data_type(wide.clone())) as ArrayRef),
            None => Ok(arrow::compute::cast(a, &wide)?),
        })
    };
    Ok((widen(l)?, widen(r)?))
}

/// The digits as i64; none if they are wider. A constant of 128 bits is narrowed if its value allows.
fn narrow(v: &Value) -> Result<Option<Value>> {
    if let Some(d) = v.array().as_primitive_opt::<Decimal64Type>() {
        let digits = Int64Array::new(d.values().clone(), d.nulls().cloned());
        return v.map(|_| Ok(Arc::new(digits) as ArrayRef)).map(Some);
    }
    if let (Value::Constant(_), Some(d)) = (v, v.array().as_primitive_opt::<Decimal128Type>()) {
        let digits = match d.is_valid(0) {
            false => Int64Array::new_null(1),
            true => match i64::try_from(d.value(0)) {
                Ok(digits) => Int64Array::from(vec![digits]),
                Err(_) => return Ok(None),
            },
        };
        return v.map(|_| Ok(Arc::new(digits) as ArrayRef)).map(Some);
    }
    Ok(None)
}

fn nested(op: Op, l: &Value, r: &Value) -> Result<BooleanArray> {
    let (l, r) = (plain(l.map(|a| Ok(a.clone()))?)?, plain(r.map(|a| Ok(a.clone()))?)?);
    let (la, ra) = (l.array(), r.array());
    let at = |v: &Value, i: usize| if matches!(v, Value::Constant(_)) { 0 } else { i };
    let rows = match (&l, &r) {
        (Value::Constant(_), _) => ra.len(),
        _ => la.len(),
    };
    let order = make_comparator(la, ra, SortOptions::default())?;
    let values = BooleanBuffer::collect_bool(rows, |i| op.accepts(order(at(&l, i), at(&r, i))));
    if matches!(op, Op::Distinct | Op::NotDistinct) {
        return Ok(BooleanArray::new(values, None));
    }
    let valid = BooleanBuffer::collect_bool(rows, |i| la.is_valid(at(&l, i)) && ra.is_valid(at(&r, i)));
    Ok(BooleanArray::new(values, Some(NullBuffer::new(valid))))
}
