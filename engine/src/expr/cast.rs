//! Conversions between types: DataFusion's rules, with shortcuts for decimals.
//!
//! An integer or a decimal that becomes a decimal stays in 64 bits while its values fit, and costs
//! nothing at all where only the precision changes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal64Array};
use arrow::compute::CastOptions;
use arrow::datatypes::{
    DataType, Decimal64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use datafusion_common::format::DEFAULT_FORMAT_OPTIONS;
use datafusion_expr::ColumnarValue;

use super::decimal::{NARROW_DIGITS, NARROW_LIMIT, magnitude, precision_scale};
use super::node::{Bounded, Kernel, Node};
use crate::batch::{Batch, to_logical};
use crate::error::{EngineError, Result};

/// `node` as `to`; with `safe`, what cannot be converted is null instead of an error.
pub(super) fn cast(node: Node, to: &DataType, safe: bool) -> Result<Node> {
    if node.data_type == *to {
        return Ok(node);
    }
    Ok(Node::kernel(Cast { node, to: to.clone(), safe }, to.clone()))
}

/// A kernel's result in the type that the plan says, should the two differ.
pub(super) fn conform(array: ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to || array.data_type().equals_datatype(to) {
        return to_logical(&array, to);
    }
    convert(array, to, false)
}

struct Cast {
    node: Node,
    to: DataType,
    safe: bool,
}

impl Kernel for Cast {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        self.evaluate_bounded(batch).map(|b| b.array)
    }

    fn evaluate_bounded(&self, batch: &Batch) -> Result<Bounded> {
        let from = self.node.evaluate_bounded(batch)?;
        if let DataType::Decimal128(p, s) = self.to
            && let Some(narrow) = narrow_decimal(&from, p, s)?
        {
            return Ok(narrow);
        }
        // Arrow reads the digits of a Decimal64 alike, and most others it cannot read at all.
        let direct = from.array.data_type().is_decimal() && self.to == DataType::Float64;
        let array = if direct { from.array } else { to_logical(&from.array, &self.node.data_type)? };
        Ok(Bounded { array: convert(array, &self.to, self.safe)?, magnitude: None })
    }
}

fn convert(array: ArrayRef, to: &DataType, safe: bool) -> Result<ArrayRef> {
    let options = CastOptions { safe, format_options: DEFAULT_FORMAT_OPTIONS };
    match ColumnarValue::Array(array).cast_to(to, Some(&options))? {
        ColumnarValue::Array(array) => Ok(array),
        ColumnarValue::Scalar(_) => Err(EngineError::internal("a cast of an array gave a scalar")),
    }
}

/// Decimals and integers as Decimal64, where neither their size nor their type stands against it.
fn narrow_decimal(from: &Bounded, precision: u8, scale: i8) -> Result<Option<Bounded>> {
    let digits = precision.min(NARROW_DIGITS);
    let (values, from_scale, from_precision) = match from.array.data_type() {
        DataType::Decimal64(p, s) => (from.array.as_primitive::<Decimal64Type>().values().clone(), *s, *p),
        DataType::Int64 => (from.array.as_primitive::<Int64Type>().values().clone(), 0, u8::MAX),
        DataType::Int32 => (widen::<Int32Type>(&from.array), 0, 10),
        DataType::Int16 => (widen::<Int16Type>(&from.array), 0, 5),
        DataType::Int8 => (widen::<Int8Type>(&from.array), 0, 3),
        DataType::UInt32 => (widen::<UInt32Type>(&from.array), 0, 10),
        DataType::UInt16 => (widen::<UInt16Type>(&from.array), 0, 5),
        DataType::UInt8 => (widen::<UInt8Type>(&from.array), 0, 3),
        _ => return Ok(None),
    };
    let Ok(up) = u32::try_from(scale as i32 - from_scale as i32) else { return Ok(None) };
    let Some(factor) = 10u128.checked_pow(up) else { return Ok(None) };
    let bound = from.magnitude.unwrap_or_else(|| magnitude(&values)) as u128 * factor.min(NARROW_LIMIT);
    // What fits by its type fits, whatever the bound says of the next power of two.
    let fits = from_precision as u32 + up <= digits as u32 || bound < 10u128.pow(digits as u32);
    if !fits || bound > i64::MAX as u128 {
        return Ok(None);
    }
    let values = match factor as i64 {
        1 => values,
        factor => values.iter().map(|v| v.wrapping_mul(factor)).collect::<Vec<_>>().into(),
    };
    let array =
        Decimal64Array::new(values, from.array.nulls().cloned()).with_precision_and_scale(digits, scale)?;
    Ok(Some(Bounded { array: Arc::new(array), magnitude: Some(bound as u64) }))
}

fn widen<T: ArrowPrimitiveType>(array: &ArrayRef) -> arrow::buffer::ScalarBuffer<i64>
where
    T::Native: Into<i64>,
{
    array.as_primitive::<T>().values().iter().map(|&v| v.into()).collect::<Vec<i64>>().into()
}

/// Whether a cast keeps every value's digits as they are: an integer in a wider type, a decimal with more
/// room before the point.
pub(super) fn keeps_digits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Decimal128(_, _), DataType::Decimal128(_, _)) => {
            let ((p, s), (q, t)) = (precision_scale(from), precision_scale(to));
            s == t && p <= q
        }
        (f, t) if f.is_signed_integer() && t.is_signed_integer() => {
            f.primitive_width() <= t.primitive_width()
        }
        (f, t) if f.is_unsigned_integer() && t.is_unsigned_integer() => {
            f.primitive_width() <= t.primitive_width()
        }
        (f, t) if f.is_unsigned_integer() && t.is_signed_integer() => {
            f.primitive_width() < t.primitive_width()
        }
        _ => false,
    }
}
