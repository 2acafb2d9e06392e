//! `EXTRACT(YEAR | MONTH | DAY | HOUR | MINUTE | SECOND FROM ...)` of dates and of timestamps without a zone, by arithmetic.
//!
//! The calendar is Neri and Schneider's ("Euclidean affine functions and their application to calendar
//! algorithms", 2023): a few multiplications, no table, no branch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::compute::DatePart as ArrowPart;
use arrow::datatypes::{
    DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};

use super::node::{Kernel, Node};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// A part that this file computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

impl Part {
    fn arrow(self) -> ArrowPart {
        match self {
            Part::Year => ArrowPart::Year,
            Part::Month => ArrowPart::Month,
            Part::Day => ArrowPart::Day,
            Part::Hour => ArrowPart::Hour,
            Part::Minute => ArrowPart::Minute,
            Part::Second => ArrowPart::Second,
        }
    }
}

/// Seconds whose year fits in 32 bits by far; Arrow decides what to make of those beyond.
const SECONDS_MAX: u64 = 1 << 50;

/// `date_part(part, date)`; gives the arguments back if they are not for this kernel.
pub(super) fn date_part(mut args: Vec<Node>, result: &DataType) -> std::result::Result<Node, Vec<Node>> {
    let [name, date] = &args[..] else { return Err(args) };
    let part = name.as_constant().and_then(|c| c.scalar.try_as_str().flatten()).and_then(|name| {
        Some(match name.to_lowercase().as_str() {
            "year" => Part::Year,
            "month" => Part::Month,
            "day" => Part::Day,
            "hour" => Part::Hour,
            "minute" => Part::Minute,
            "second" => Part::Second,
            _ => return None,
        })
    });
    match (part, &date.data_type, result) {
        (Some(part), DataType::Date32 | DataType::Timestamp(_, None), DataType::Int32) => {
            let date = args.swap_remove(1);
            Ok(Node::kernel(DatePart { part, date }, DataType::Int32))
        }
        _ => Err(args),
    }
}

struct DatePart {
    part: Part,
    date: Node,
}

impl Kernel for DatePart {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let array = self.date.evaluate_logical(batch)?;
        if let Some(seconds) = array.as_primitive_opt::<TimestampSecondType>()
            && seconds.values().iter().any(|s| s.unsigned_abs() > SECONDS_MAX)
        {
            return Ok(arrow::compute::date_part(&array, self.part.arrow())?);
        }
        let values: Vec<i32> = match array.data_type() {
            DataType::Date32 => self.of_days(array.as_primitive::<Date32Type>().values()),
            DataType::Timestamp(TimeUnit::Second, _) => {
                self.of_times(array.as_primitive::<TimestampSecondType>().values(), 1)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                self.of_times(array.as_primitive::<TimestampMillisecondType>().values(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.of_times(array.as_primitive::<TimestampMicrosecondType>().values(), 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.of_times(array.as_primitive::<TimestampNanosecondType>().values(), 1_000_000_000)
            }
            other => return Err(EngineError::internal(format!("date_part of {other}"))),
        };
        Ok(Arc::new(Int32Array::new(values.into(), array.nulls().cloned())))
    }
}

impl DatePart {
    fn of_days(&self, days: &[i32]) -> Vec<i32> {
        match self.part {
            Part::Year => days.iter().map(|&d| civil(d as i64).0).collect(),
            Part::Month => days.iter().map(|&d| civil(d as i64).1).collect(),
            Part::Day => days.iter().map(|&d| civil(d as i64).2).collect(),
            Part::Hour | Part::Minute | Part::Second => vec![0; days.len()],
        }
    }

    fn of_times(&self, times: &[i64], per_second: i64) -> Vec<i32> {
        let day = per_second * 86_400;
        let civil = |t: i64| civil(t.div_euclid(day));
        let within = |t: i64, unit: i64, turn: i64| (t.div_euclid(unit)).rem_euclid(turn) as i32;
        match self.part {
            Part::Year => times.iter().map(|&t| civil(t).0).collect(),
            Part::Month => times.iter().map(|&t| civil(t).1).collect(),
            Part::Day => times.iter().map(|&t| civil(t).2).collect(),
            Part::Hour => times.iter().map(|&t| within(t, per_second * 3600, 24)).collect(),
            Part::Minute => times.iter().map(|&t| within(t, per_second * 60, 60)).collect(),
            Part::Second => times.iter().map(|&t| within(t, per_second, 60)).collect(),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
#[inline(always)]
fn civil(days: i64) -> (i32, i32, i32) {
    /// Eras of 400 years by which days are moved so that none is negative.
    const ERAS: i64 = 1 << 24;
    const ERA_DAYS: i64 = 146_097;
    // Days since the first of March of year 0: leap days end a year.
    let n = (days + 719_468 + ERAS * ERA_DAYS) as u64;
    let century = (4 * n + 3) / ERA_DAYS as u64;
    let day_of_century = (4 * n + 3) % ERA_DAYS as u64 / 4;
    let product = 2_939_745 * (4 * day_of_century + 3);
    let day_of_year = (product & u32::MAX as u64) / 2_939_745 / 4;
    let month_day = 2_141 * day_of_year + 197_913;
    let (month, day) = (month_day >> 16, (month_day & 0xffff) / 2_141);
    let next_year = day_of_year >= 306;
    let year = (100 * century + (product >> 32) + next_year as u64) as i64 - 400 * ERAS;
    (year as i32, if next_year { month as i32 - 12 } else { month as i32 }, day as i32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    fn ours(part: Part, array: ArrayRef) -> ArrayRef {
        let date =
            Node { kind: super::super::node::NodeKind::Column(0), data_type: array.data_type().clone() };
        let rows = array.len();
        DatePart { part, date }.evaluate(&Batch::from_arrays(vec![array], rows)).unwrap()
    }

    proptest! {
        #[test]
        fn parts_are_those_of_arrow(
            days in prop::collection::vec(prop::option::of(-800_000i32..800_000), 1..50),
            times in prop::collection::vec(prop::option::of(-(1i64 << 56)..1i64 << 56), 1..50),
        ) {
            let days: ArrayRef = Arc::new(Date32Array::from(days));
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times));
            for part in [Part::Year, Part::Month, Part::Day, Part::Hour, Part::Minute, Part::Second] {
                for array in [&days, &times] {
                    let arrow = arrow::compute::date_part(array, part.arrow()).unwrap();
                    prop_assert_eq!(&ours(part, array.clone()), &arrow, "{:?}", part);
                }
            }
        }
    }
}
