//! Arithmetic on dates and times that Arrow has no kernel for: `date - date` counts days, and
//! `time ± interval` goes round the clock. Dates and timestamps with intervals are Arrow's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray};
use arrow::compute::{binary, cast};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
};

use super::arithmetic::Op;
use super::node::{Kernel, Node};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

const DAY_MILLIS: i64 = 86_400_000;
const DAY_NANOS: i64 = 86_400_000_000_000;

/// An operation with a kernel of ours.
pub(super) enum Special {
    /// Whole days between two dates.
    DaysBetween,
    /// A time of day and an interval, of which only the part below a day counts.
    TimeInterval { subtract: bool, interval_first: bool },
}

impl Special {
    /// The special case that an operation is, if it is one.
    pub fn of(op: Op, l: &DataType, r: &DataType) -> Option<Special> {
        use DataType::*;
        match (op, l, r) {
            (Op::Subtract, Date32, Date32) | (Op::Subtract, Date64, Date64) => Some(Special::DaysBetween),
            (Op::Add | Op::Subtract, Time32(_) | Time64(_), Interval(_)) => {
                Some(Special::TimeInterval { subtract: op == Op::Subtract, interval_first: false })
            }
            (Op::Add, Interval(_), Time32(_) | Time64(_)) => {
                Some(Special::TimeInterval { subtract: false, interval_first: true })
            }
            _ => None,
        }
    }

    /// The kernel.
    pub fn kernel(self, left: Node, right: Node) -> TemporalKernel {
        TemporalKernel { special: self, left, right }
    }
}

pub(super) struct TemporalKernel {
    special: Special,
    left: Node,
    right: Node,
}

impl Kernel for TemporalKernel {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let (l, r) = (self.left.evaluate_logical(batch)?, self.right.evaluate_logical(batch)?);
        match self.special {
            Special::DaysBetween => days_between(&l, &r),
            Special::TimeInterval { subtract, interval_first: true } => around_the_clock(&r, &l, subtract),
            Special::TimeInterval { subtract, interval_first: false } => around_the_clock(&l, &r, subtract),
        }
    }
}

fn days_between(l: &ArrayRef, r: &ArrayRef) -> Result<ArrayRef> {
    let days: Int64Array = if let Some(l) = l.as_primitive_opt::<Date32Type>() {
        binary::<_, _, _, Int64Type>(l, r.as_primitive::<Date32Type>(), |a, b| a as i64 - b as i64)?
    } else {
        let (l, r) = (l.as_primitive::<Date64Type>(), r.as_primitive::<Date64Type>());
        binary::<_, _, _, Int64Type>(l, r, |a, b| a.div_euclid(DAY_MILLIS) - b.div_euclid(DAY_MILLIS))?
    };
    Ok(Arc::new(days))
}

fn around_the_clock(time: &ArrayRef, interval: &ArrayRef, subtract: bool) -> Result<ArrayRef> {
    let interval = cast(interval, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    match time.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            turn::<Time32SecondType>(time, &interval, subtract, 1_000_000_000, |v| v as i32)
        }
        DataType::Time32(_) => {
            turn::<Time32MillisecondType>(time, &interval, subtract, 1_000_000, |v| v as i32)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            turn::<Time64MicrosecondType>(time, &interval, subtract, 1_000, |v| v)
        }
        DataType::Time64(_) => turn::<Time64NanosecondType>(time, &interval, subtract, 1, |v| v),
        other => Err(EngineError::internal(format!("{other} as a time of day"))),
    }
}

/// `unit` is the time's unit in nanoseconds; the interval is rounded down to it after its sign.
fn turn<T: ArrowPrimitiveType>(
    time: &ArrayRef,
    interval: &ArrayRef,
    subtract: bool,
    unit: i64,
    narrow: impl Fn(i64) -> T::Native,
) -> Result<ArrayRef>
where
    T::Native: Into<i64>,
{
    let turned: PrimitiveArray<T> =
        binary(time.as_primitive::<T>(), interval.as_primitive::<IntervalMonthDayNanoType>(), |t, i| {
            let nanos = i.nanoseconds % DAY_NANOS;
            let units = (if subtract { -nanos } else { nanos }).div_euclid(unit);
            let t: i64 = t.into();
            narrow(t.wrapping_add(units).rem_euclid(DAY_NANOS / unit))
        })?;
    Ok(Arc::new(turned))
}
