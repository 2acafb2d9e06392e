//! RANGE frames with an offset: where `key ± offset` lies among the groups of peers.
//!
//! Keys and targets become integers in the direction of the sort, one a group of peers; a binary search in
//! the group's partition then finds the bound. Rows whose key is null frame each other. A target beyond
//! what its type holds lies beyond all rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Float64Array, UInt32Array};
use arrow::compute::kernels::numeric::{add, sub};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, IntervalUnit, TimeUnit};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Literal;
use dovetail_planner::physical::FrameBound;

use super::layout::Layout;
use crate::error::{EngineError, Result};
use crate::operators::sort::keys::{Codes, Key, canonical, codes};

/// For each group of peers, the group at which the bound lies: the first of the frame, or with `end`
/// the one behind the last. `groups` are the groups at which the partitions start.
pub(super) fn group_bounds(
    bound: &FrameBound,
    end: bool,
    layout: &Layout,
    groups: &[usize],
    order_key: Option<&Key>,
) -> Result<Vec<u32>> {
    let (Some(key), Some((offset, back))) = (order_key, offset_of(bound)) else {
        return Err(EngineError::Unsupported(
            "RANGE with an offset without exactly one ORDER BY key".into(),
            "Order the window by one key, or use ROWS or GROUPS".into(),
        ));
    };
    // Every group's key: that of its first row.
    let firsts = UInt32Array::from_iter_values(layout.peers[..layout.peers.len() - 1].iter().copied());
    let values = take(&key.array, &firsts, None)?;
    let subtract = back != key.descending;
    let (mut keys, mut targets) = keys_and_targets(&values, offset, subtract)?;
    if key.descending {
        keys.iter_mut().chain(&mut targets).for_each(|v| *v = !*v);
    }

    let mut bounds = Vec::with_capacity(keys.len());
    for partition in groups.windows(2) {
        let mut valid = partition[0]..partition[1];
        if values.null_count() > 0 {
            while !valid.is_empty() && values.is_null(valid.start) {
                valid.start += 1;
            }
            while !valid.is_empty() && values.is_null(valid.end - 1) {
                valid.end -= 1;
            }
        }
        let sorted = &keys[valid.clone()];
        bounds.extend((partition[0]..partition[1]).map(|group| {
            if !valid.contains(&group) {
                return group as u32 + u32::from(end);
            }
            let target = targets[group];
            let before = sorted.partition_point(|&k| k < target || end && k == target);
            (valid.start + before) as u32
        }));
    }
    Ok(bounds)
}

fn offset_of(bound: &FrameBound) -> Option<(&Literal, bool)> {
    match bound {
        FrameBound::Preceding(offset) => Some((offset, true)),
        FrameBound::Following(offset) => Some((offset, false)),
        _ => None,
    }
}

/// Keys, and keys minus or plus the offset, as integers of the keys' order.
fn keys_and_targets(values: &ArrayRef, offset: &Literal, subtract: bool) -> Result<(Vec<i128>, Vec<i128>)> {
    match (values.data_type(), &offset.0) {
        (DataType::Float16 | DataType::Float32 | DataType::Float64, _) => floats(values, offset, subtract),
        (
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _),
            interval @ (ScalarValue::IntervalMonthDayNano(Some(_))
            | ScalarValue::IntervalDayTime(Some(_))
            | ScalarValue::IntervalYearMonth(Some(_))),
        ) => moments(values, interval, subtract),
        (DataType::Time32(_) | DataType::Time64(_), ScalarValue::IntervalMonthDayNano(Some(interval))) => {
            let nanos = cast(values, &DataType::Time64(TimeUnit::Nanosecond))?;
            not_negative(interval.nanoseconds.into(), offset)?;
            Ok(shifted(integers(&nanos)?, interval.nanoseconds.into(), subtract))
        }
        (key_type, _) => {
            // Integers, decimals, intervals, and times with an offset of their own type: plain integers.
            let offset_values = canonical(&offset.0.to_array()?)?;
            if offset_values.is_null(0) {
                return Err(negative(offset));
            }
            let (keys, offset_value) = match (scale(key_type), scale(offset_values.data_type())) {
                (Some(key_scale), Some(offset_scale)) => {
                    let common = key_scale.max(offset_scale);
                    let keys = rescaled(integers(values)?, common - key_scale);
                    (keys, rescaled(integers(&offset_values)?, common - offset_scale)[0])
                }
                (Some(_), None) if offset_values.data_type().is_floating() => {
                    return floats(values, offset, subtract);
                }
                _ => (integers(values)?, integers(&cast(&offset_values, key_type)?)?[0]),
            };
            not_negative(offset_value, offset)?;
            Ok(shifted(keys, offset_value, subtract))
        }
    }
}

/// Digits behind the point of an exact number.
fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => Some(*s),
        t if t.is_integer() => Some(0),
        _ => None,
    }
}

fn rescaled(values: Vec<i128>, digits: i8) -> Vec<i128> {
    let factor = 10i128.saturating_pow(digits.unsigned_abs().into());
    if factor == 1 { values } else { values.into_iter().map(|v| v.saturating_mul(factor)).collect() }
}

fn shifted(keys: Vec<i128>, offset: i128, subtract: bool) -> (Vec<i128>, Vec<i128>) {
    let target = |key: i128| if subtract { key.saturating_sub(offset) } else { key.saturating_add(offset) };
    let targets = keys.iter().map(|&key| target(key)).collect();
    (keys, targets)
}

/// The values of a type that is stored as integers, unscaled.
fn integers(values: &ArrayRef) -> Result<Vec<i128>> {
    let wide: ArrayRef = match values.data_type() {
        DataType::Decimal128(_, _) => values.clone(),
        DataType::UInt64 => cast(values, &DataType::Decimal128(20, 0))?,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => cast(values, &DataType::Decimal128(*p, *s))?,
        t if t.is_integer() || t.is_temporal() => {
            let values = match t {
                DataType::Date32 | DataType::Time32(_) => cast(values, &DataType::Int32)?,
                _ => values.clone(),
            };
            let values = cast(&values, &DataType::Int64)?;
            return Ok(values.as_primitive::<Int64Type>().values().iter().map(|&v| v.into()).collect());
        }
        other => {
            return Err(EngineError::Unsupported(
                format!("RANGE with an offset over a key of type {other}"),
                "Order the window by a number or a time, or use ROWS or GROUPS".into(),
            ));
        }
    };
    Ok(wide.as_primitive::<Decimal128Type>().values().to_vec())
}

fn floats(values: &ArrayRef, offset: &Literal, subtract: bool) -> Result<(Vec<i128>, Vec<i128>)> {
    let Ok(ScalarValue::Float64(Some(offset_value))) = offset.0.cast_to(&DataType::Float64) else {
        return Err(negative(offset));
    };
    if offset_value.is_nan() || offset_value < 0.0 {
        return Err(negative(offset));
    }
    let keys = cast(values, &DataType::Float64)?;
    let targets: Float64Array = keys.as_primitive::<Float64Type>().unary(|key| {
        let target = if subtract { key - offset_value } else { key + offset_value };
        match (key.is_nan(), target.is_nan()) {
            (false, true) => key - 2.0 * key, // infinity less infinity: everything up to the other end
            _ => target,
        }
    });
    let ordered = |array: ArrayRef| -> Result<Vec<i128>> {
        match codes(&canonical(&array)?) {
            Codes::Narrow(codes) => Ok(codes.into_iter().map(i128::from).collect()),
            _ => Err(EngineError::internal("floats have no narrow codes")),
        }
    };
    Ok((ordered(keys)?, ordered(Arc::new(targets))?))
}

/// Dates and timestamps with an interval. Dates count as midnights, so that hours have a meaning.
fn moments(values: &ArrayRef, interval: &ScalarValue, subtract: bool) -> Result<(Vec<i128>, Vec<i128>)> {
    let interval = interval.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))?;
    if let ScalarValue::IntervalMonthDayNano(Some(v)) = &interval {
        not_negative(v.months.min(v.days).into(), &Literal(interval.clone()))?;
        not_negative(v.nanoseconds.into(), &Literal(interval.clone()))?;
    }
    let keys = match values.data_type() {
        DataType::Date32 | DataType::Date64 => {
            cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None))?
        }
        _ => values.clone(),
    };
    let interval = interval.to_scalar()?;
    let interval: &dyn Datum = &interval;
    let targets = if subtract { sub(&keys, interval)? } else { add(&keys, interval)? };
    Ok((integers(&keys)?, integers(&targets)?))
}

fn not_negative(value: i128, offset: &Literal) -> Result<()> {
    if value < 0 { Err(negative(offset)) } else { Ok(()) }
}

fn negative(offset: &Literal) -> EngineError {
    EngineError::execution(format!(
        "the offset {} of a window frame is null or negative; use PRECEDING or FOLLOWING for the direction",
        offset.0
    ))
}
