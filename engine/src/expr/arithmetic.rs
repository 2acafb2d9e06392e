//! `+ - * / %` and unary minus.
//!
//! Decimals go to `decimal`, dates and times to `temporal`. Integers have a loop that detects overflow
//! for the whole batch at once; floats and everything else run Arrow's checked kernels.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowNativeTypeOp, DataType, Int32Type, Int64Type};
use dovetail_planner::expr::BinaryOp;

use super::node::{Bounded, Kernel, Node, Value};
use super::{cast, decimal, temporal};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// `left op right` with a result of `data_type`.
pub(super) fn arithmetic(op: BinaryOp, left: Node, right: Node, data_type: &DataType) -> Result<Node> {
    let op = Op::try_from(op)?;
    let (l, r) = (&left.data_type, &right.data_type);
    if let (DataType::Decimal128(_, _), DataType::Decimal128(_, _), DataType::Decimal128(_, _)) =
        (l, r, data_type)
    {
        return Ok(decimal::arithmetic(op, left, right, data_type));
    }
    if let Some(special) = temporal::Special::of(op, l, r) {
        return Ok(Node::kernel(special.kernel(left, right), data_type.clone()));
    }
    Ok(Node::kernel(Arithmetic { op, left, right, result: data_type.clone() }, data_type.clone()))
}

/// `-operand`.
pub(super) fn negate(operand: Node) -> Result<Node> {
    let data_type = operand.data_type.clone();
    Ok(Node::kernel(Negate(operand), data_type))
}

/// An arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl TryFrom<BinaryOp> for Op {
    type Error = EngineError;

    fn try_from(op: BinaryOp) -> Result<Self> {
        match op {
            BinaryOp::Add => Ok(Op::Add),
            BinaryOp::Subtract => Ok(Op::Subtract),
            BinaryOp::Multiply => Ok(Op::Multiply),
            BinaryOp::Divide => Ok(Op::Divide),
            BinaryOp::Modulo => Ok(Op::Modulo),
            other => Err(EngineError::internal(format!("{other:?} is not arithmetic"))),
        }
    }
}

impl Op {
    /// The operator as SQL writes it.
    pub fn sign(self) -> char {
        match self {
            Op::Add => '+',
            Op::Subtract => '-',
            Op::Multiply => '*',
            Op::Divide => '/',
            Op::Modulo => '%',
        }
    }

    /// Arrow's checked kernel.
    pub fn arrow(self, l: &Value, r: &Value) -> Result<ArrayRef> {
        Ok(match self {
            Op::Add => numeric::add(l, r),
            Op::Subtract => numeric::sub(l, r),
            Op::Multiply => numeric::mul(l, r),
            Op::Divide => numeric::div(l, r),
            Op::Modulo => numeric::rem(l, r),
        }?)
    }
}

struct Arithmetic {
    op: Op,
    left: Node,
    right: Node,
    result: DataType,
}

impl Kernel for Arithmetic {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let l = plain(self.left.logical_value(batch)?)?;
        let r = plain(self.right.logical_value(batch)?)?;
        let fast = match (l.array().data_type(), r.array().data_type()) {
            (DataType::Int64, DataType::Int64) => integers::<Int64Type>(self.op, &l, &r),
            (DataType::Int32, DataType::Int32) => integers::<Int32Type>(self.op, &l, &r),
            _ => None,
        };
        let array = match fast {
            Some(array) => array,
            None => self.op.arrow(&l, &r)?,
        };
        cast::conform(array, &self.result)
    }
}

/// A dictionary as the values it stands for: arithmetic kernels know none.
pub(super) fn plain(value: Value) -> Result<Value> {
    match value.array().data_type().clone() {
        DataType::Dictionary(_, v) => value.map(|a| Ok(arrow::compute::cast(a, &v)?)),
        _ => Ok(value),
    }
}

/// Whole-batch integer arithmetic. None where there is nothing to gain, and where some row overflows:
/// Arrow's kernel then says which, or finds that the row is null.
fn integers<T: ArrowPrimitiveType>(op: Op, l: &Value, r: &Value) -> Option<ArrayRef>
where
    T::Native: OverflowingOp,
{
    match op {
        Op::Add => overflowing::<T>(l, r, T::Native::adding),
        Op::Subtract => overflowing::<T>(l, r, T::Native::subtracting),
        Op::Multiply => overflowing::<T>(l, r, T::Native::multiplying),
        Op::Divide | Op::Modulo => None,
    }
}

trait OverflowingOp: ArrowNativeTypeOp {
    fn adding(self, other: Self) -> (Self, bool);
    fn subtracting(self, other: Self) -> (Self, bool);
    fn multiplying(self, other: Self) -> (Self, bool);
}

macro_rules! overflowing_op {
    ($($t:ty),*) => {$(
        impl OverflowingOp for $t {
            #[inline(always)]
            fn adding(self, other: Self) -> (Self, bool) {
                self.overflowing_add(other)
            }
            #[inline(always)]
            fn subtracting(self, other: Self) -> (Self, bool) {
                self.overflowing_sub(other)
            }
            #[inline(always)]
            fn multiplying(self, other: Self) -> (Self, bool) {
                self.overflowing_mul(other)
            }
        }
    )*};
}
overflowing_op!(i32, i64);

#[inline(always)]
fn overflowing<T: ArrowPrimitiveType>(
    l: &Value,
    r: &Value,
    f: impl Fn(T::Native, T::Native) -> (T::Native, bool),
) -> Option<ArrayRef> {
    let mut overflow = false;
    let mut each = |a, b| {
        let (value, over) = f(a, b);
        overflow |= over;
        value
    };
    let (la, ra) = (l.array().as_primitive_opt::<T>()?, r.array().as_primitive_opt::<T>()?);
    let (values, nulls): (Vec<T::Native>, _) = match (l, r) {
        (Value::Array(_), Value::Array(_)) => (
            la.values().iter().zip(ra.values()).map(|(&a, &b)| each(a, b)).collect(),
            NullBuffer::union(la.nulls(), ra.nulls()),
        ),
        (Value::Array(_), Value::Constant(_)) if ra.is_valid(0) => {
            let b = ra.value(0);
            (la.values().iter().map(|&a| each(a, b)).collect(), la.nulls().cloned())
        }
        (Value::Constant(_), Value::Array(_)) if la.is_valid(0) => {
            let a = la.value(0);
            (ra.values().iter().map(|&b| each(a, b)).collect(), ra.nulls().cloned())
        }
        _ => return None,
    };
    (!overflow).then(|| Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)) as ArrayRef)
}

struct Negate(Node);

impl Kernel for Negate {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        self.evaluate_bounded(batch).map(|b| b.array)
    }

    fn evaluate_bounded(&self, batch: &Batch) -> Result<Bounded> {
        let Bounded { array, magnitude } = self.0.evaluate_bounded(batch)?;
        let array = match array.data_type().clone() {
            DataType::Dictionary(_, v) => arrow::compute::cast(&array, &v)?,
            _ => array,
        };
        Ok(Bounded { array: numeric::neg(&array)?, magnitude })
    }
}
