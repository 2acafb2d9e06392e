//! Decimal arithmetic: in 64 bits where the values prove that nothing overflows, else in 128.
//!
//! Every operand brings a magnitude, a bound on the absolute value of what is in the batch: the OR of
//! all values of a column, the constant itself, or what a product's operands imply. Bounds tell before
//! the loop whether i64 suffices; then the loop is plain wrapping arithmetic and the result is
//! `Decimal64(18, scale)` even if the logical precision is larger. Otherwise the loop runs in i128,
//! unchecked if the bounds allow, else checked row by row against the result's precision.
//!
//! Types follow the plan. Division truncates to the result's scale, as DataFusion's does; a numerator
//! that needs more than 128 bits is divided in 256.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal64Array, Decimal128Array, new_null_array};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Decimal64Type, Decimal128Type, DecimalType, i256};
use datafusion_common::ScalarValue;

use super::arithmetic::Op;
use super::cast;
use super::node::{Bounded, Kernel, Node, Value};
use crate::batch::{Batch, to_logical};
use crate::error::{EngineError, Result};

/// Digits that every Decimal64 can hold.
pub(super) const NARROW_DIGITS: u8 = 18;
/// The first magnitude that does not fit in [`NARROW_DIGITS`].
pub(super) const NARROW_LIMIT: u128 = 10u128.pow(NARROW_DIGITS as u32);

/// `left op right` where all types are Decimal128.
pub(super) fn arithmetic(op: Op, left: Node, right: Node, data_type: &DataType) -> Node {
    let (_, s1) = precision_scale(&left.data_type);
    let (_, s2) = precision_scale(&right.data_type);
    let (precision, scale) = precision_scale(data_type);
    let (natural, digits) = natural(op, &left.data_type, &right.data_type, scale);
    let power = |n: i32| u32::try_from(n).ok().and_then(|n| 10i128.checked_pow(n));
    let factors = match op {
        Op::Multiply => Some((1, 1)),
        Op::Divide => {
            let up = scale as i32 - s1 as i32 + s2 as i32;
            power(up.max(0)).zip(power((-up).max(0)))
        }
        _ => power(natural as i32 - s1 as i32).zip(power(natural as i32 - s2 as i32)),
    };
    let result = data_type.clone();
    match factors {
        Some((left_factor, right_factor)) if natural == scale => Node::kernel(
            Arithmetic {
                op,
                left,
                right,
                left_factor,
                right_factor,
                precision,
                scale,
                fits: digits <= precision as i32,
            },
            result,
        ),
        _ => Node::kernel(Unusual { op, left, right, result: result.clone() }, result),
    }
}

/// Can operands of these types, all Decimal128, give what the result's type does not hold?
pub(super) fn can_overflow(op: Op, left: &DataType, right: &DataType, result: &DataType) -> bool {
    let (precision, scale) = precision_scale(result);
    let (natural, digits) = natural(op, left, right, scale);
    natural != scale || digits > precision as i32
}

/// The scale at which the operation comes out without rounding (a division's is the result's), and the
/// digits that it may need there.
fn natural(op: Op, left: &DataType, right: &DataType, result_scale: i8) -> (i8, i32) {
    let ((p1, s1), (p2, s2)) = (precision_scale(left), precision_scale(right));
    let (scale, whole1, whole2) = (s1.max(s2), p1 as i32 - s1 as i32, p2 as i32 - s2 as i32);
    match op {
        Op::Add | Op::Subtract => (scale, whole1.max(whole2) + 1 + scale as i32),
        Op::Multiply => (s1.saturating_add(s2), p1 as i32 + p2 as i32),
        Op::Modulo => (scale, whole1.min(whole2) + scale as i32),
        Op::Divide => (result_scale, whole1 + result_scale as i32 + s2 as i32),
    }
}

struct Arithmetic {
    op: Op,
    left: Node,
    right: Node,
    /// Brings the left operand's digits to the scale at which the operation runs.
    left_factor: i128,
    right_factor: i128,
    precision: u8,
    scale: i8,
    /// The result's precision suffices for any operands of the operands' precisions.
    fits: bool,
}

impl Kernel for Arithmetic {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        self.evaluate_bounded(batch).map(|b| b.array)
    }

    fn evaluate_bounded(&self, batch: &Batch) -> Result<Bounded> {
        let (Some(l), Some(r)) = (Side::load(&self.left, batch)?, Side::load(&self.right, batch)?) else {
            let narrow = DataType::Decimal64(self.precision.min(NARROW_DIGITS), self.scale);
            return Ok(Bounded { array: new_null_array(&narrow, batch.rows), magnitude: Some(0) });
        };
        let nulls = NullBuffer::union(l.nulls.as_ref(), r.nulls.as_ref());
        let (lm, rm) = (
            l.magnitude.saturating_mul(self.left_factor.unsigned_abs()),
            r.magnitude.saturating_mul(self.right_factor.unsigned_abs()),
        );
        let bound = match self.op {
            Op::Add | Op::Subtract => lm.saturating_add(rm),
            Op::Multiply => lm.saturating_mul(rm),
            Op::Divide => lm,
            Op::Modulo => lm.min(rm),
        };
        if matches!(self.op, Op::Divide | Op::Modulo) {
            r.check_divisor(nulls.as_ref(), batch.rows)?;
        }
        let allowed = 10u128.pow(self.precision as u32) - 1;
        let small = bound < NARROW_LIMIT && lm.max(rm) < NARROW_LIMIT && (self.fits || bound <= allowed);
        if small && let (Some(l), Some(r)) = (l.source.narrow(), r.source.narrow()) {
            let values = self.narrow(&l, &r, batch.rows);
            let array = Decimal64Array::new(values.into(), nulls)
                .with_precision_and_scale(self.precision.min(NARROW_DIGITS), self.scale)?;
            return Ok(Bounded { array: Arc::new(array), magnitude: Some(bound as u64) });
        }
        let (l, r) = (l.source.wide(), r.source.wide());
        let limit = i128::MAX.unsigned_abs();
        let values = if bound <= allowed && lm.max(rm) <= limit {
            self.wide(&l, &r, batch.rows)
        } else {
            self.checked(&l, &r, nulls.as_ref(), batch.rows)?
        };
        let array = Decimal128Array::new(values.into(), nulls)
            .with_precision_and_scale(self.precision, self.scale)?;
        Ok(Bounded { array: Arc::new(array), magnitude: None })
    }
}

/// The unchecked loops of one integer width. Rows that are null may hold anything, so that they wrap,
/// and a zero divisor (null, or it had been refused) gives zero.
macro_rules! unchecked {
    ($name:ident, $t:ty) => {
        fn $name(&self, l: &Source<$t>, r: &Source<$t>, rows: usize) -> Vec<$t> {
            // The bounds hold the factors below the limits of the type.
            let (lf, rf) = (self.left_factor as $t, self.right_factor as $t);
            match self.op {
                Op::Add if lf == 1 && rf == 1 => zip(l, r, rows, |a, b| a.wrapping_add(b)),
                Op::Subtract if lf == 1 && rf == 1 => zip(l, r, rows, |a, b| a.wrapping_sub(b)),
                Op::Add => zip(l, r, rows, |a, b| a.wrapping_mul(lf).wrapping_add(b.wrapping_mul(rf))),
                Op::Subtract => zip(l, r, rows, |a, b| a.wrapping_mul(lf).wrapping_sub(b.wrapping_mul(rf))),
                Op::Multiply => zip(l, r, rows, |a, b| a.wrapping_mul(b)),
                Op::Divide => zip(l, r, rows, |a, b| match b.wrapping_mul(rf) {
                    0 => 0,
                    b => a.wrapping_mul(lf).wrapping_div(b),
                }),
                Op::Modulo => zip(l, r, rows, |a, b| match b.wrapping_mul(rf) {
                    0 => 0,
                    b => a.wrapping_mul(lf).wrapping_rem(b),
                }),
            }
        }
    };
}

impl Arithmetic {
    unchecked!(narrow, i64);
    unchecked!(wide, i128);

    fn checked(
        &self,
        l: &Source<i128>,
        r: &Source<i128>,
        nulls: Option<&NullBuffer>,
        rows: usize,
    ) -> Result<Vec<i128>> {
        let allowed = 10i128.pow(self.precision as u32) - 1;
        let mut values = vec![0; rows];
        let mut each = |i: usize| {
            let (a, b) = (l.get(i), r.get(i));
            match self.one(a, b) {
                Some(v) if -allowed <= v && v <= allowed => {
                    values[i] = v;
                    Ok(())
                }
                _ => Err(self.overflow(a, b)),
            }
        };
        match nulls {
            None => (0..rows).try_for_each(&mut each)?,
            Some(nulls) => nulls.try_for_each_valid_idx(&mut each)?,
        }
        Ok(values)
    }

    /// One row; none if it needs more than 128 bits.
    fn one(&self, a: i128, b: i128) -> Option<i128> {
        let (lf, rf) = (self.left_factor, self.right_factor);
        match self.op {
            Op::Multiply => a.checked_mul(b),
            Op::Divide | Op::Modulo => {
                let numerator = i256::from_i128(a).checked_mul(i256::from_i128(lf))?;
                let denominator = i256::from_i128(b).checked_mul(i256::from_i128(rf))?;
                let result = match self.op {
                    Op::Divide => numerator.checked_div(denominator)?,
                    _ => numerator.checked_rem(denominator)?,
                };
                result.to_i128()
            }
            _ => {
                let a = i256::from_i128(a).checked_mul(i256::from_i128(lf))?;
                let b = i256::from_i128(b).checked_mul(i256::from_i128(rf))?;
                if self.op == Op::Add { a.checked_add(b)?.to_i128() } else { a.checked_sub(b)?.to_i128() }
            }
        }
    }

    fn overflow(&self, a: i128, b: i128) -> EngineError {
        let text = |v, node: &Node| {
            let (p, s) = precision_scale(&node.data_type);
            Decimal128Type::format_decimal(v, p, s)
        };
        EngineError::execution(format!(
            "arithmetic overflow: {} {} {} does not fit DECIMAL({}, {}); cast an operand to DOUBLE",
            text(a, &self.left),
            self.op.sign(),
            text(b, &self.right),
            self.precision,
            self.scale
        ))
    }
}

/// Digits of one operand: a column's, or a constant's.
enum Source<T: arrow::datatypes::ArrowNativeType> {
    Constant(T),
    Column(ScalarBuffer<T>),
}

impl<T: arrow::datatypes::ArrowNativeType> Source<T> {
    #[inline]
    fn get(&self, i: usize) -> T {
        match self {
            Source::Constant(v) => *v,
            Source::Column(c) => c[i],
        }
    }
}

#[inline(always)]
fn zip<T: arrow::datatypes::ArrowNativeType>(
    l: &Source<T>,
    r: &Source<T>,
    rows: usize,
    f: impl Fn(T, T) -> T,
) -> Vec<T> {
    match (l, r) {
        (Source::Column(l), Source::Column(r)) => l.iter().zip(r.iter()).map(|(&a, &b)| f(a, b)).collect(),
        (Source::Column(l), &Source::Constant(b)) => l.iter().map(|&a| f(a, b)).collect(),
        (&Source::Constant(a), Source::Column(r)) => r.iter().map(|&b| f(a, b)).collect(),
        (&Source::Constant(a), &Source::Constant(b)) => vec![f(a, b); rows],
    }
}

enum Digits {
    Constant(i128),
    Narrow(ScalarBuffer<i64>),
    Wide(ScalarBuffer<i128>),
}

impl Digits {
    fn narrow(&self) -> Option<Source<i64>> {
        match self {
            Digits::Constant(v) => i64::try_from(*v).ok().map(Source::Constant),
            Digits::Narrow(v) => Some(Source::Column(v.clone())),
            Digits::Wide(_) => None,
        }
    }

    fn wide(&self) -> Source<i128> {
        match self {
            Digits::Constant(v) => Source::Constant(*v),
            Digits::Narrow(v) => Source::Column(v.iter().map(|&v| v as i128).collect::<Vec<_>>().into()),
            Digits::Wide(v) => Source::Column(v.clone()),
        }
    }
}

/// An operand in one batch.
struct Side {
    source: Digits,
    nulls: Option<NullBuffer>,
    /// No value is larger in absolute terms, null rows included.
    magnitude: u128,
}

impl Side {
    /// None: a null constant.
    fn load(node: &Node, batch: &Batch) -> Result<Option<Side>> {
        if let Some(c) = node.as_constant() {
            return Ok(match c.scalar {
                ScalarValue::Decimal128(Some(v), _, _) => {
                    Some(Side { source: Digits::Constant(v), nulls: None, magnitude: v.unsigned_abs() })
                }
                _ => None,
            });
        }
        let Bounded { array, magnitude } = node.evaluate_bounded(batch)?;
        let nulls = array.nulls().cloned();
        if let Some(narrow) = array.as_primitive_opt::<Decimal64Type>() {
            let values = narrow.values().clone();
            let magnitude = magnitude.unwrap_or_else(|| self::magnitude(&values)) as u128;
            return Ok(Some(Side { source: Digits::Narrow(values), nulls, magnitude }));
        }
        let wide = to_logical(&array, &node.data_type)?;
        let values = wide.as_primitive::<Decimal128Type>().values().clone();
        let bits = values.iter().fold(0, |all, v| all | (v ^ (v >> 127)));
        let magnitude = 1u128 << (i128::BITS - bits.leading_zeros());
        Ok(Some(Side { source: Digits::Wide(values), nulls, magnitude }))
    }

    fn check_divisor(&self, nulls: Option<&NullBuffer>, rows: usize) -> Result<()> {
        let zero = match &self.source {
            Digits::Constant(v) => *v == 0 && nulls.is_none_or(|n| n.null_count() < rows),
            Digits::Narrow(v) => has_zero(v, nulls),
            Digits::Wide(v) => has_zero(v, nulls),
        };
        if zero { Err(EngineError::execution("division by zero")) } else { Ok(()) }
    }
}

fn has_zero<T: arrow::datatypes::ArrowNativeType + Default>(
    values: &[T],
    nulls: Option<&NullBuffer>,
) -> bool {
    let zero = T::default();
    values.contains(&zero)
        && match nulls {
            None => true,
            Some(nulls) => nulls.valid_indices().any(|i| values[i] == zero),
        }
}

/// A bound on the absolute values: a power of two, at most twice the largest.
pub(super) fn magnitude(values: &[i64]) -> u64 {
    let bits = values.iter().fold(0, |all, v| all | (v ^ (v >> 63)));
    1 << (i64::BITS - bits.leading_zeros())
}

/// Precision and scale of a decimal type.
pub(super) fn precision_scale(t: &DataType) -> (u8, i8) {
    match t {
        DataType::Decimal128(p, s) | DataType::Decimal64(p, s) => (*p, *s),
        other => unreachable!("invariant: decimal arithmetic was chosen for {other}"),
    }
}

/// What the type rules do not produce: Arrow's kernel, then a cast to the plan's type.
struct Unusual {
    op: Op,
    left: Node,
    right: Node,
    result: DataType,
}

impl Kernel for Unusual {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let (l, r): (Value, Value) = (self.left.logical_value(batch)?, self.right.logical_value(batch)?);
        cast::conform(self.op.arrow(&l, &r)?, &self.result)
    }
}
