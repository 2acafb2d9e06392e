//! A column of integers, dates, times or decimals within constant bounds: the filter that decides scans.
//!
//! All six comparisons, and BETWEEN, are one test, `lo <= v <= hi`, done as one unsigned comparison of
//! `v - lo` with `hi - lo`. Bounds are kept as i128 and cut to the width that the column turns out to
//! have, so the same filter reads Decimal64 and Decimal128.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr};

use super::cast::keeps_digits;
use super::filter::Filter;
use super::mask::Mask;
use crate::batch::{Batch, Column, to_logical};
use crate::error::{EngineError, Result};

/// `column` lies within bounds, or, negated, does not. Null does neither.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    pub column: usize,
    pub data_type: DataType,
    pub lo: i128,
    /// Below `lo` if nothing lies within.
    pub hi: i128,
    pub negated: bool,
}

impl Range {
    /// The range that a comparison of a column with a constant stands for.
    pub fn of(expr: &Expr) -> Option<Range> {
        let Expr::Binary { op, left, right, .. } = expr else { return None };
        let (op, column, literal) = match (&**left, &**right) {
            (column, Expr::Literal(l)) => (*op, column, &l.0),
            (Expr::Literal(l), column) => (flipped(*op)?, column, &l.0),
            _ => return None,
        };
        let column_type = column.data_type();
        let (index, data_type) = bare_column(column)?;
        if literal.data_type() != column_type || !is_integer_like(&data_type) {
            return None;
        }
        let c = digits(literal)?;
        let (lo, hi, negated) = match op {
            BinaryOp::Eq => (c, c, false),
            BinaryOp::NotEq => (c, c, true),
            BinaryOp::Lt => (i128::MIN, c.checked_sub(1)?, false),
            BinaryOp::LtEq => (i128::MIN, c, false),
            BinaryOp::Gt => (c.checked_add(1)?, i128::MAX, false),
            BinaryOp::GtEq => (c, i128::MAX, false),
            _ => return None,
        };
        Some(Range { column: index, data_type, lo, hi, negated })
    }

    /// Both ranges at once, if that is one.
    pub fn and(&self, other: &Range) -> Option<Range> {
        let one = self.column == other.column && !self.negated && !other.negated;
        one.then(|| Range { lo: self.lo.max(other.lo), hi: self.hi.min(other.hi), ..self.clone() })
    }
}

/// The column below casts that change no digit.
fn bare_column(expr: &Expr) -> Option<(usize, DataType)> {
    match expr {
        Expr::Column { index, data_type } => Some((*index, data_type.clone())),
        Expr::Cast { expr, to, .. } if keeps_digits(&expr.data_type(), to) => bare_column(expr),
        _ => None,
    }
}

fn flipped(op: BinaryOp) -> Option<BinaryOp> {
    Some(match op {
        BinaryOp::Eq | BinaryOp::NotEq => op,
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::LtEq => BinaryOp::GtEq,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::GtEq => BinaryOp::LtEq,
        _ => return None,
    })
}

fn is_integer_like(t: &DataType) -> bool {
    use DataType::*;
    t.is_integer()
        || matches!(t, Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(_, _) | Duration(_))
        || matches!(t, Decimal128(_, _) | Decimal64(_, _) | Decimal32(_, _))
}

/// The integer that stands for the constant in a column of its type.
pub(super) fn digits(scalar: &ScalarValue) -> Option<i128> {
    use ScalarValue::*;
    match scalar {
        Decimal128(v, _, _) => *v,
        Decimal64(v, _, _) => v.map(i128::from),
        Decimal32(v, _, _) => v.map(i128::from),
        Int8(v) => v.map(i128::from),
        Int16(v) => v.map(i128::from),
        Int32(v) | Date32(v) | Time32Second(v) | Time32Millisecond(v) => v.map(i128::from),
        Int64(v) | Date64(v) | Time64Microsecond(v) | Time64Nanosecond(v) => v.map(i128::from),
        TimestampSecond(v, _)
        | TimestampMillisecond(v, _)
        | TimestampMicrosecond(v, _)
        | TimestampNanosecond(v, _) => v.map(i128::from),
        DurationSecond(v) | DurationMillisecond(v) | DurationMicrosecond(v) | DurationNanosecond(v) => {
            v.map(i128::from)
        }
        UInt8(v) => v.map(i128::from),
        UInt16(v) => v.map(i128::from),
        UInt32(v) => v.map(i128::from),
        UInt64(v) => v.map(i128::from),
        _ => None,
    }
}

/// Calls `$body` with the values of an array whose type [`is_integer_like`] as a slice.
macro_rules! with_integers {
    ($array:expr, $values:ident => $body:expr, else $other:expr) => {{
        let array = &$array;
        macro_rules! arm {
            ($t:ty) => {{
                let $values: &[<$t as ArrowPrimitiveType>::Native] = array.as_primitive::<$t>().values();
                $body
            }};
        }
        match array.data_type() {
            DataType::Int8 => arm!(Int8Type),
            DataType::Int16 => arm!(Int16Type),
            DataType::Int32 => arm!(Int32Type),
            DataType::Int64 => arm!(Int64Type),
            DataType::UInt8 => arm!(UInt8Type),
            DataType::UInt16 => arm!(UInt16Type),
            DataType::UInt32 => arm!(UInt32Type),
            DataType::UInt64 => arm!(UInt64Type),
            DataType::Date32 => arm!(Date32Type),
            DataType::Date64 => arm!(Date64Type),
            DataType::Time32(TimeUnit::Second) => arm!(Time32SecondType),
            DataType::Time32(_) => arm!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => arm!(Time64MicrosecondType),
            DataType::Time64(_) => arm!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => arm!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => arm!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => arm!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => arm!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => arm!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => arm!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => arm!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => arm!(DurationNanosecondType),
            DataType::Decimal32(_, _) => arm!(Decimal32Type),
            DataType::Decimal64(_, _) => arm!(Decimal64Type),
            DataType::Decimal128(_, _) => arm!(Decimal128Type),
            _ => $other,
        }
    }};
}
pub(super) use with_integers;

/// An integer with the one-comparison range test.
pub(super) trait Bounded: Copy {
    /// Bounds cut to the type; none if no value lies within.
    fn cut(lo: i128, hi: i128) -> Option<(Self, Self)>;
    fn within(self, lo: Self, hi: Self) -> bool;
}

macro_rules! bounded {
    ($($t:ty as $u:ty),*) => {$(
        impl Bounded for $t {
            fn cut(lo: i128, hi: i128) -> Option<(Self, Self)> {
                let (lo, hi) = (lo.max(<$t>::MIN as i128), hi.min(<$t>::MAX as i128));
                (lo <= hi).then_some((lo as $t, hi as $t))
            }
            #[inline(always)]
            fn within(self, lo: Self, hi: Self) -> bool {
                self.wrapping_sub(lo) as $u <= hi.wrapping_sub(lo) as $u
            }
        }
    )*};
}
bounded!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);
bounded!(u8 as u8, u16 as u16, u32 as u32, u64 as u64);

impl Filter for Range {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        let column = &batch.columns[self.column];
        let (base, indices) = self.physical(column)?;
        let mut mask = match indices {
            None => with_integers!(base, values => self.dense(values), else return self.mismatch(&base)),
            Some(indices) => {
                with_integers!(base, values => self.gathered(values, indices), else return self.mismatch(&base))
            }
        };
        match (indices, base.nulls()) {
            (None, nulls) => mask.and_valid(nulls),
            (Some(_), None) => {}
            (Some(indices), Some(nulls)) => {
                mask.and(&Mask::collect(batch.rows, |i| nulls.is_valid(indices[i] as usize)))
            }
        }
        Ok(mask)
    }

    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        let column = &batch.columns[self.column];
        let (base, indices) = self.physical(column)?;
        let nulls = base.nulls();
        match indices {
            None => {
                with_integers!(base, values => self.keep(values, |r| r, nulls, rows), else return self.mismatch(&base))
            }
            Some(ix) => {
                with_integers!(base, values => self.keep(values, |r| ix[r as usize], nulls, rows), else return self.mismatch(&base))
            }
        }
        Ok(())
    }

    fn fails(&self) -> bool {
        false
    }

    fn cost(&self) -> u32 {
        1
    }
}

impl Range {
    /// The column's values, and the indices through which to read them; gathered if an index is null.
    fn physical<'a>(&self, column: &'a Column) -> Result<(ArrayRef, Option<&'a [u32]>)> {
        match column.indices() {
            Some(indices) if indices.null_count() == 0 && !column.data_type().is_null() => {
                Ok((column.base().clone(), Some(indices.values())))
            }
            _ => {
                let values = column.values()?;
                let known = is_integer_like(values.data_type());
                Ok((if known { values } else { to_logical(&values, &self.data_type)? }, None))
            }
        }
    }

    fn mismatch<T>(&self, array: &ArrayRef) -> Result<T> {
        Err(EngineError::internal(format!(
            "a column of {} where {} was planned",
            array.data_type(),
            self.data_type
        )))
    }

    fn dense<T: Bounded>(&self, values: &[T]) -> Mask {
        match T::cut(self.lo, self.hi) {
            None if self.negated => Mask::all(values.len()),
            None => Mask::none(values.len()),
            Some((lo, hi)) => within(values, lo, hi, self.negated),
        }
    }

    fn gathered<T: Bounded>(&self, values: &[T], indices: &[u32]) -> Mask {
        match T::cut(self.lo, self.hi) {
            None if self.negated => Mask::all(indices.len()),
            None => Mask::none(indices.len()),
            Some((lo, hi)) => {
                let negated = self.negated;
                Mask::collect_slice(indices, |i| values[i as usize].within(lo, hi) != negated)
            }
        }
    }

    fn keep<T: Bounded>(
        &self,
        values: &[T],
        at: impl Fn(u32) -> u32,
        nulls: Option<&NullBuffer>,
        rows: &mut Vec<u32>,
    ) {
        if let Some(nulls) = nulls {
            rows.retain(|&r| nulls.is_valid(at(r) as usize));
        }
        let Some((lo, hi)) = T::cut(self.lo, self.hi) else {
            if !self.negated {
                rows.clear();
            }
            return;
        };
        let mut kept = 0;
        for i in 0..rows.len() {
            let row = rows[i];
            rows[kept] = row;
            kept += (values[at(row) as usize].within(lo, hi) != self.negated) as usize;
        }
        rows.truncate(kept);
    }
}

/// The rows of a slice within bounds, with the widest vectors that the machine has.
fn within<T: Bounded>(values: &[T], lo: T, hi: T, negated: bool) -> Mask {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<T: Bounded>(values: &[T], lo: T, hi: T, negated: bool) -> Mask {
            Mask::collect_slice(values, |v| v.within(lo, hi) != negated)
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature that the function needs has just been detected.
            return unsafe { avx2(values, lo, hi, negated) };
        }
    }
    Mask::collect_slice(values, |v| v.within(lo, hi) != negated)
}
