//! DISTINCT in window aggregates.
//!
//! Where all frames start with their partition, a value counts at its first row in the partition and
//! nowhere else: [`first_of_each`] lists those rows and the rest is left out. Where frames slide,
//! [`sliding`] keeps how often each value is in the frame; this does for count, and for sum and avg of
//! integers and decimals. Other functions are refused there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use dovetail_planner::physical::WindowCall;

use super::frames::Frames;
use super::layout::{Layout, range_of_row};
use super::total::{Numbers, averages_of, integer_array, numbers};
use crate::error::{EngineError, Result};
use crate::operators::sort::argsort::sort_rows;
use crate::operators::sort::keys::Key;

/// The rows, ascending, that hold a combination of values for the first time in their partition.
pub(super) fn first_of_each(partitions: &ArrayRef, values: &[ArrayRef]) -> Result<UInt32Array> {
    let mut keys = vec![partitions.clone()];
    keys.extend(values.iter().cloned());
    let (order, ids) = grouped(&keys)?;
    let mut firsts: Vec<u32> = ids.windows(2).map(|range| order[range[0] as usize]).collect();
    firsts.sort_unstable();
    Ok(firsts.into())
}

/// Rows sorted by values, and where each new combination of values starts, with the end behind.
fn grouped(values: &[ArrayRef]) -> Result<(Vec<u32>, Vec<u32>)> {
    let keys = values.iter().map(|v| Key::new(v, false, false)).collect::<Result<Vec<_>>>()?;
    let rows = values[0].len();
    if rows == 0 {
        return Ok((vec![], vec![0]));
    }
    let flat: Vec<Key> = keys.iter().map(Key::share).flat_map(Key::flat).collect();
    let order = sort_rows(&flat, rows, None)?;
    let indices = UInt32Array::from(order.clone());
    let sorted = keys.iter().map(|k| Ok(take(&k.array, &indices, None)?)).collect::<Result<Vec<_>>>()?;
    let starts = Layout::new(rows, &sorted, &sorted)?.partitions;
    Ok((order, starts))
}

/// count, sum or avg of the distinct values of frames that slide, one value a frame.
pub(super) fn sliding(call: &WindowCall, name: &str, args: &[ArrayRef], frames: &Frames) -> Result<ArrayRef> {
    let refused = || {
        EngineError::Unsupported(
            format!("{name}(DISTINCT ...) over a window frame whose start moves"),
            "Start the frame at UNBOUNDED PRECEDING, or leave out DISTINCT".into(),
        )
    };
    if !frames.are_monotone() {
        return Err(refused());
    }
    let numbers = match (name, args) {
        ("count", _) => None,
        ("sum" | "avg", [values]) => match numbers(values)? {
            Some(Numbers::Floats(_)) | None => return Err(refused()),
            numbers => numbers,
        },
        _ => return Err(refused()),
    };
    let number = |row: usize| match &numbers {
        Some(Numbers::Ints(values)) => i128::from(values[row]),
        Some(Numbers::Wide(values)) => values[row],
        _ => 0,
    };

    let (order, starts) = grouped(args)?;
    let mut ids = vec![0; order.len()];
    order.iter().zip(range_of_row(&starts)).for_each(|(&row, id)| ids[row as usize] = id as usize);
    let nulls = args.iter().fold(None, |all, a| NullBuffer::union(all.as_ref(), a.logical_nulls().as_ref()));
    let counts_row = |row: &u32| nulls.as_ref().is_none_or(|n| n.is_valid(*row as usize));

    let mut times = vec![0u32; starts.len()];
    let (mut first, mut last) = (0, 0);
    let (mut count, mut sum) = (0i64, 0i128);
    let mut results = Vec::with_capacity(frames.len());
    for (start, end) in frames.iter() {
        for row in (first..start.min(last)).filter(counts_row) {
            let times = &mut times[ids[row as usize]];
            *times -= 1;
            if *times == 0 {
                count -= 1;
                sum = sum.wrapping_sub(number(row as usize));
            }
        }
        first = start;
        for row in (last.max(start)..end).filter(counts_row) {
            let times = &mut times[ids[row as usize]];
            *times += 1;
            if *times == 1 {
                count += 1;
                // Wraps only if the type's own limit, checked at the end, is far exceeded.
                sum = sum.checked_add(number(row as usize)).ok_or_else(|| super::total::overflow(name))?;
            }
        }
        last = end.max(start);
        results.push((count, sum));
    }
    let output = call.output.data_type();
    let (counts, sums): (Vec<i64>, Vec<i128>) = results.into_iter().unzip();
    match name {
        "count" => Ok(Arc::new(Int64Array::from(counts))),
        "sum" => integer_array(name, &sums, &counts, output),
        _ => averages_of(&sums, &counts, &call.args[0].data_type(), output),
    }
}
