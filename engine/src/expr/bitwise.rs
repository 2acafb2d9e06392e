//! `& | # << >>` on integers of one type. Shifts take the count modulo the type's width.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::kernels::bitwise::{
    bitwise_and, bitwise_or, bitwise_shift_left, bitwise_shift_right, bitwise_xor,
};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use dovetail_planner::expr::BinaryOp;

use super::cast;
use super::node::{Kernel, Node};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// `left op right`.
pub(super) fn bitwise(op: BinaryOp, left: Node, right: Node, data_type: &DataType) -> Result<Node> {
    if !left.data_type.is_integer() || left.data_type != right.data_type {
        return Err(EngineError::Unsupported(
            format!("a bit operation on {} and {}", left.data_type, right.data_type),
            "Cast both sides to BIGINT.".into(),
        ));
    }
    Ok(Node::kernel(Bitwise { op, left, right, result: data_type.clone() }, data_type.clone()))
}

struct Bitwise {
    op: BinaryOp,
    left: Node,
    right: Node,
    result: DataType,
}

impl Kernel for Bitwise {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let (l, r) = (self.left.evaluate_logical(batch)?, self.right.evaluate_logical(batch)?);
        macro_rules! run {
            ($t:ty) => {{
                let (l, r) = (l.as_primitive::<$t>(), r.as_primitive::<$t>());
                let result = match self.op {
                    BinaryOp::BitAnd => bitwise_and(l, r),
                    BinaryOp::BitOr => bitwise_or(l, r),
                    BinaryOp::BitXor => bitwise_xor(l, r),
                    BinaryOp::ShiftLeft => bitwise_shift_left(l, r),
                    BinaryOp::ShiftRight => bitwise_shift_right(l, r),
                    other => return Err(EngineError::internal(format!("{other:?} is no bit operation"))),
                };
                Arc::new(result?) as ArrayRef
            }};
        }
        let array = match l.data_type() {
            DataType::Int8 => run!(Int8Type),
            DataType::Int16 => run!(Int16Type),
            DataType::Int32 => run!(Int32Type),
            DataType::Int64 => run!(Int64Type),
            DataType::UInt8 => run!(UInt8Type),
            DataType::UInt16 => run!(UInt16Type),
            DataType::UInt32 => run!(UInt32Type),
            DataType::UInt64 => run!(UInt64Type),
            other => return Err(EngineError::internal(format!("a bit operation on {other}"))),
        };
        cast::conform(array, &self.result)
    }
}
