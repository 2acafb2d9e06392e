//! Results of the calls from the states of their units.

use std::sync::Arc;

use arrow::array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal64Array, Decimal128Array, Float64Array, Int64Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, DecimalType};

use super::accumulators::wide_values;
use super::shape::{CallResult, Formula};
use crate::error::{EngineError, Result};

/// Digits that every 64-bit decimal has.
const NARROW_DIGITS: u8 = 18;

/// One call's results, in a physical form of its type; `units` are what the units' accumulators gave.
pub(super) fn result(call: &CallResult, units: &[Vec<ArrayRef>]) -> Result<ArrayRef> {
    let array = match call.formula {
        Formula::Unit(unit) => units[unit][0].clone(),
        Formula::IntSum(unit) => {
            let sums = &units[unit][0];
            match (&call.logical, sums.data_type()) {
                (DataType::Int64, DataType::Int64) => sums.clone(),
                (DataType::Decimal128(p, s), DataType::Int64) if *p >= NARROW_DIGITS && is_narrow(sums) => {
                    let sums = sums.as_primitive::<Int64Type>();
                    let array = Decimal64Array::new(sums.values().clone(), sums.nulls().cloned());
                    Arc::new(array.with_data_type(DataType::Decimal64(NARROW_DIGITS, *s)))
                }
                _ => {
                    let (sums, nulls) = wide_values(sums);
                    integers(sums, nulls, &call.logical, "sum")?
                }
            }
        }
        Formula::Values { rows, nulls } => {
            let counts = value_counts(&units[rows][0], &units[nulls][0]);
            Arc::new(Int64Array::from(counts))
        }
        Formula::DecimalAverage { sum, scale, rows, nulls } => {
            let counts = value_counts(&units[rows][0], &units[nulls][0]);
            decimal_averages(&units[sum][0], &counts, scale, &call.logical)?
        }
        Formula::FloatAverage { sum, rows, nulls } => {
            let counts = value_counts(&units[rows][0], &units[nulls][0]);
            let sums = units[sum][0].as_primitive::<Float64Type>();
            let averages = sums.values().iter().zip(counts).map(|(sum, n)| sum / n as f64);
            Arc::new(Float64Array::new(averages.collect(), sums.nulls().cloned()))
        }
    };
    if is_form_of(array.data_type(), &call.logical) { Ok(array) } else { Ok(cast(&array, &call.logical)?) }
}

/// All numbers have at most [`NARROW_DIGITS`] digits.
fn is_narrow(sums: &ArrayRef) -> bool {
    let limit = 10u64.pow(NARROW_DIGITS.into());
    sums.as_primitive::<Int64Type>().values().iter().all(|v| v.unsigned_abs() < limit)
}

fn is_form_of(physical: &DataType, logical: &DataType) -> bool {
    match (physical, logical) {
        (DataType::Decimal64(_, s), DataType::Decimal128(_, t)) => s == t,
        (DataType::Dictionary(_, v), l) => physical == l || v.as_ref() == l,
        (p, l) => p == l,
    }
}

/// Rows less nulls.
fn value_counts(rows: &ArrayRef, nulls: &ArrayRef) -> Vec<i64> {
    let rows = rows.as_primitive::<Int64Type>().values();
    if nulls.data_type() == &DataType::Null {
        return rows.to_vec();
    }
    let nulls = nulls.as_primitive::<Int64Type>().values();
    rows.iter().zip(nulls).map(|(rows, nulls)| rows - nulls).collect()
}

fn decimal_averages(sums: &ArrayRef, counts: &[i64], scale: i8, logical: &DataType) -> Result<ArrayRef> {
    let (DataType::Decimal64(_, target) | DataType::Decimal128(_, target)) = logical else {
        return Err(EngineError::internal(format!("a decimal average of type {logical}")));
    };
    let (mut sums, nulls) = wide_values(sums);
    let factor = u32::try_from(i16::from(*target) - i16::from(scale))
        .ok()
        .and_then(|more| 10i128.checked_pow(more))
        .ok_or_else(|| EngineError::internal(format!("an average of scale {scale} as {logical}")))?;
    for (sum, count) in sums.iter_mut().zip(counts) {
        // A group without values is null, whatever is computed for it.
        let scaled = sum.checked_mul(factor).ok_or_else(|| out_of_range("average", logical))?;
        *sum = scaled / i128::from(*count.max(&1));
    }
    integers(sums, nulls, logical, "average")
}

/// Whole numbers as an array of a logical type, or of its narrow form if they allow.
fn integers(
    values: Vec<i128>,
    nulls: Option<NullBuffer>,
    logical: &DataType,
    what: &str,
) -> Result<ArrayRef> {
    let error = || out_of_range(what, logical);
    let mut limit = 0u128;
    for (i, value) in values.iter().enumerate() {
        if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
            limit = limit.max(value.unsigned_abs());
        }
    }
    match logical {
        DataType::Int64 => {
            let narrow = |v: i128| i64::try_from(v).map_err(|_| error());
            let values = valid_or_zero(values, &nulls).map(narrow).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(Int64Array::new(values.into(), nulls)))
        }
        DataType::UInt64 => {
            let narrow = |v: i128| u64::try_from(v).map_err(|_| error());
            let values = valid_or_zero(values, &nulls).map(narrow).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(UInt64Array::new(values.into(), nulls)))
        }
        DataType::Decimal64(precision, scale) | DataType::Decimal128(precision, scale) => {
            if limit >= 10u128.pow((*precision).min(Decimal128Type::MAX_PRECISION).into()) {
                return Err(error());
            }
            if limit < 10u128.pow(NARROW_DIGITS.into()) {
                let digits = (*precision).min(NARROW_DIGITS);
                let values: Vec<i64> = values.into_iter().map(|v| v as i64).collect();
                let array = Decimal64Array::new(values.into(), nulls);
                return Ok(Arc::new(array.with_data_type(DataType::Decimal64(digits, *scale))));
            }
            Ok(Arc::new(Decimal128Array::new(values.into(), nulls).with_data_type(logical.clone())))
        }
        other => Err(EngineError::internal(format!("a {what} of type {other}"))),
    }
}

fn valid_or_zero(values: Vec<i128>, nulls: &Option<NullBuffer>) -> impl Iterator<Item = i128> {
    values
        .into_iter()
        .enumerate()
        .map(|(i, v)| if nulls.as_ref().is_none_or(|n| n.is_valid(i)) { v } else { 0 })
}

fn out_of_range(what: &str, logical: &DataType) -> EngineError {
    let wider = match logical {
        DataType::Int64 | DataType::UInt64 => "DECIMAL(38, 0)",
        _ => "DOUBLE",
    };
    EngineError::execution(format!("a {what} is out of the range of {logical}; cast its argument to {wider}"))
}
