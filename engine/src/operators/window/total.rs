//! count, sum and avg over frames.
//!
//! Sums of integers and decimals are exact 128-bit integers (256-bit where the values are so large that
//! 128 bits might not do), and fail if they exceed the result's type. Sums of floats are added up frame by
//! frame, never as a difference of larger sums, which would carry errors and infinities along.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal32Array, Decimal64Array, Decimal128Array, Decimal256Array, Float64Array,
    Int64Array, PrimitiveArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Float64Type, Int64Type, i256,
};

use super::frames::Frames;
use super::navigate::counts;
use crate::error::{EngineError, Result};

/// Rows of each frame in which no argument is null.
pub(super) fn count(args: &[ArrayRef], frames: &Frames) -> ArrayRef {
    let nulls = args.iter().fold(None, |all, a| NullBuffer::union(all.as_ref(), a.logical_nulls().as_ref()));
    Arc::new(Int64Array::from(frame_counts(nulls.as_ref(), frames)))
}

fn frame_counts(nulls: Option<&NullBuffer>, frames: &Frames) -> Vec<i64> {
    match nulls.filter(|n| n.null_count() > 0) {
        None => frames.iter().map(|(start, end)| i64::from(end - start)).collect(),
        Some(nulls) => {
            let before = counts(nulls);
            frames.iter().map(|(s, e)| i64::from(before[e as usize] - before[s as usize])).collect()
        }
    }
}

/// Sums in the type of the result; none if this file cannot add up the type.
pub(super) fn sum(values: &ArrayRef, frames: &Frames, output: &DataType) -> Result<Option<ArrayRef>> {
    let Some(numbers) = numbers(values)? else { return Ok(None) };
    let counts = frame_counts(values.logical_nulls().as_ref(), frames);
    Ok(Some(match numbers {
        Numbers::Floats(values) if *output == DataType::Float64 => {
            let sums = float_sums(&values, frames);
            let sums = sums.iter().zip(&counts).map(|(&sum, &count)| (count > 0).then_some(sum));
            Arc::new(sums.collect::<Float64Array>())
        }
        Numbers::Floats(_) => return Ok(None),
        numbers => integer_array("sum", &integer_sums("sum", &numbers, frames)?, &counts, output)?,
    }))
}

/// Averages in the type of the result; none if this file cannot add up the type. `logical` is the type
/// of the values.
pub(super) fn average(
    values: &ArrayRef,
    logical: &DataType,
    frames: &Frames,
    output: &DataType,
) -> Result<Option<ArrayRef>> {
    let Some(numbers) = numbers(values)? else { return Ok(None) };
    let counts = frame_counts(values.logical_nulls().as_ref(), frames);
    match numbers {
        Numbers::Floats(values) if *output == DataType::Float64 => {
            let sums = float_sums(&values, frames);
            let sums = sums.iter().zip(&counts);
            let averages = sums.map(|(&sum, &count)| (count > 0).then(|| sum / count as f64));
            Ok(Some(Arc::new(averages.collect::<Float64Array>())))
        }
        Numbers::Floats(_) => Ok(None),
        numbers => averages_of(&integer_sums("avg", &numbers, frames)?, &counts, logical, output).map(Some),
    }
}

/// Values to be added up, with zeros for nulls.
pub(super) enum Numbers {
    Ints(Vec<i64>),
    Wide(Vec<i128>),
    Floats(Vec<f64>),
}

/// The values as numbers; decimals without their point. None for types that are none of these.
pub(super) fn numbers(values: &ArrayRef) -> Result<Option<Numbers>> {
    fn zeroed<T: ArrowPrimitiveType>(values: &ArrayRef) -> Vec<T::Native> {
        let values = values.as_primitive::<T>();
        let mut numbers = values.values().to_vec();
        if let Some(nulls) = values.nulls().filter(|n| n.null_count() > 0) {
            (0..numbers.len())
                .filter(|&row| nulls.is_null(row))
                .for_each(|row| numbers[row] = T::default_value());
        }
        numbers
    }
    Ok(Some(match values.data_type() {
        DataType::Decimal32(_, _) => {
            Numbers::Ints(zeroed::<Decimal32Type>(values).into_iter().map(i64::from).collect())
        }
        DataType::Decimal64(_, _) => Numbers::Ints(zeroed::<Decimal64Type>(values)),
        DataType::Decimal128(_, _) => Numbers::Wide(zeroed::<Decimal128Type>(values)),
        DataType::UInt64 => {
            Numbers::Wide(zeroed::<Decimal128Type>(&cast(values, &DataType::Decimal128(20, 0))?))
        }
        DataType::Duration(_) => Numbers::Ints(zeroed::<Int64Type>(&cast(values, &DataType::Int64)?)),
        t if t.is_integer() => Numbers::Ints(zeroed::<Int64Type>(&cast(values, &DataType::Int64)?)),
        t if t.is_floating() => Numbers::Floats(zeroed::<Float64Type>(&cast(values, &DataType::Float64)?)),
        _ => return Ok(None),
    }))
}

/// The error of a sum that does not fit.
pub(super) fn overflow(name: &str) -> EngineError {
    EngineError::execution(format!(
        "arithmetic overflow: {name} exceeds the range of its type; cast the argument to a wider type, e.g. \
         DECIMAL(38, s) or DOUBLE"
    ))
}

fn integer_sums(name: &str, numbers: &Numbers, frames: &Frames) -> Result<Vec<i128>> {
    match numbers {
        // 2^32 rows of 64 bits stay within 96 bits.
        Numbers::Ints(values) => Ok(sums_of(values.len(), |row| i128::from(values[row]), frames)),
        Numbers::Wide(values) => {
            let largest = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
            let fits = largest.checked_mul(values.len() as u128).is_some_and(|sum| sum <= i128::MAX as u128);
            if fits {
                return Ok(sums_of(values.len(), |row| values[row], frames));
            }
            let sums = sums_of(values.len(), |row| i256::from_i128(values[row]), frames);
            sums.into_iter().map(|sum| sum.to_i128().ok_or_else(|| overflow(name))).collect()
        }
        Numbers::Floats(_) => Err(EngineError::internal("floats are not added up as integers")),
    }
}

/// Sums whose type is wide enough for the sum of all rows.
fn sums_of<S>(rows: usize, value: impl Fn(usize) -> S, frames: &Frames) -> Vec<S>
where
    S: Copy + Default + std::ops::Add<Output = S> + std::ops::Sub<Output = S>,
{
    if frames.only_grow() {
        return grown(frames, S::default(), |sum, row| sum + value(row));
    }
    let mut before = Vec::with_capacity(rows + 1);
    let mut sum = S::default();
    before.push(sum);
    before.extend((0..rows).map(|row| {
        sum = sum + value(row);
        sum
    }));
    frames.iter().map(|(start, end)| before[end as usize] - before[start as usize]).collect()
}

/// One result per frame, for frames that only grow: each row is added once.
pub(super) fn grown<S: Copy>(frames: &Frames, empty: S, add: impl Fn(S, usize) -> S) -> Vec<S> {
    let mut state = empty;
    let (mut first, mut last) = (0, 0);
    let step = |(start, end): (u32, u32)| {
        if start != first || start >= last {
            state = empty;
            last = start;
        }
        first = start;
        state = (last as usize..end as usize).fold(state, &add);
        last = end;
        state
    };
    frames.iter().map(step).collect()
}

fn float_sums(values: &[f64], frames: &Frames) -> Vec<f64> {
    if frames.only_grow() {
        return grown(frames, 0.0, |sum, row| sum + values[row]);
    }
    if frames.total_rows() <= 16 * frames.len() as u64 {
        return frames.iter().map(|(start, end)| values[start as usize..end as usize].iter().sum()).collect();
    }
    let tree = SumTree::new(values);
    frames.iter().map(|(start, end)| tree.sum(start as usize, end as usize)).collect()
}

/// Node `i` is the sum of nodes `2i` and `2i + 1`; the leaves are at the end.
struct SumTree {
    nodes: Vec<f64>,
    leaves: usize,
}

impl SumTree {
    fn new(values: &[f64]) -> Self {
        let leaves = values.len();
        let mut nodes = vec![0.0; leaves];
        nodes.extend_from_slice(values);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
        }
        SumTree { nodes, leaves }
    }

    fn sum(&self, start: usize, end: usize) -> f64 {
        let (mut left, mut right) = (start + self.leaves, end + self.leaves);
        let mut sum = 0.0;
        while left < right {
            if left % 2 == 1 {
                sum += self.nodes[left];
                left += 1;
            }
            if right % 2 == 1 {
                right -= 1;
                sum += self.nodes[right];
            }
            left /= 2;
            right /= 2;
        }
        sum
    }
}

/// Exact results as an array; null where nothing was added. Fails if one does not fit.
pub(super) fn integer_array(
    name: &str,
    sums: &[i128],
    counts: &[i64],
    output: &DataType,
) -> Result<ArrayRef> {
    fn array<T: ArrowPrimitiveType>(
        name: &str,
        sums: &[i128],
        counts: &[i64],
        convert: impl Fn(i128) -> Option<T::Native>,
    ) -> Result<PrimitiveArray<T>> {
        let value = |(&sum, &count): (&i128, &i64)| match count {
            0 => Ok(None),
            _ => convert(sum).map(Some).ok_or_else(|| overflow(name)),
        };
        sums.iter().zip(counts).map(value).collect()
    }
    let digits = |precision: u8| move |sum: i128| sum.unsigned_abs() < 10u128.pow(precision.into());
    Ok(match *output {
        DataType::UInt64 => {
            let array: UInt64Array = array(name, sums, counts, |sum| sum.try_into().ok())?;
            Arc::new(array)
        }
        DataType::Decimal32(p, s) => {
            let array: Decimal32Array =
                array(name, sums, counts, |v| Some(v).filter(|&v| digits(p)(v))?.try_into().ok())?;
            Arc::new(array.with_precision_and_scale(p, s)?)
        }
        DataType::Decimal64(p, s) => {
            let array: Decimal64Array =
                array(name, sums, counts, |v| Some(v).filter(|&v| digits(p)(v))?.try_into().ok())?;
            Arc::new(array.with_precision_and_scale(p, s)?)
        }
        DataType::Decimal128(p, s) => {
            let array: Decimal128Array = array(name, sums, counts, |v| digits(p)(v).then_some(v))?;
            Arc::new(array.with_precision_and_scale(p, s)?)
        }
        DataType::Decimal256(p, s) => {
            let array: Decimal256Array = array(name, sums, counts, |v| Some(i256::from_i128(v)))?;
            Arc::new(array.with_precision_and_scale(p, s)?)
        }
        _ => {
            let array: Int64Array = array(name, sums, counts, |sum| sum.try_into().ok())?;
            cast(&array, output)?
        }
    })
}

/// Averages of exact sums of values of a type.
pub(super) fn averages_of(
    sums: &[i128],
    counts: &[i64],
    logical: &DataType,
    output: &DataType,
) -> Result<ArrayRef> {
    let scale = |t: &DataType| match t {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => Some(*s),
        DataType::Decimal256(_, s) => Some(*s),
        _ => None,
    };
    if *output == DataType::Float64 {
        let unit = 10f64.powi(scale(logical).unwrap_or(0).into());
        let averages = sums.iter().zip(counts);
        let averages = averages.map(|(&sum, &count)| (count > 0).then(|| sum as f64 / unit / count as f64));
        return Ok(Arc::new(averages.collect::<Float64Array>()));
    }
    let more_digits = i32::from(scale(output).unwrap_or(0)) - i32::from(scale(logical).unwrap_or(0));
    let factor = u32::try_from(more_digits)
        .ok()
        .and_then(|digits| 10i128.checked_pow(digits))
        .ok_or_else(|| EngineError::internal(format!("avg of {logical} as {output}")))?;
    let averages = sums
        .iter()
        .zip(counts)
        .map(|(&sum, &count)| match count {
            0 => Ok(0),
            _ => quotient(sum, factor, count.into()).ok_or_else(|| overflow("avg")),
        })
        .collect::<Result<Vec<i128>>>()?;
    integer_array("avg", &averages, counts, output)
}

/// `sum * factor / count`, towards zero, as DataFusion's average of decimals.
fn quotient(sum: i128, factor: i128, count: i128) -> Option<i128> {
    match sum.checked_mul(factor) {
        Some(product) => Some(product / count),
        None => {
            let product = i256::from_i128(sum).checked_mul(i256::from_i128(factor))?;
            product.checked_div(i256::from_i128(count))?.to_i128()
        }
    }
}
