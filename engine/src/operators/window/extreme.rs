//! min and max over frames: which row holds the extreme value, then one gather.
//!
//! Frames that slide keep a queue of candidates: rows of the frame of which none is behind a better one.
//! Each row enters and leaves it once. The order is the sort's: NaN is the largest number.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, UInt32Array, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::DataType;

use super::frames::Frames;
use super::total::grown;
use crate::error::{EngineError, Result};
use crate::operators::sort::keys::{Codes, canonical, codes};

/// Stands for no row.
const NONE: u32 = u32::MAX;

/// The least or the greatest value of every frame.
pub(super) fn extreme(values: &ArrayRef, frames: &Frames, greatest: bool) -> Result<ArrayRef> {
    let comparable = canonical(values)?;
    let rows = match codes(&comparable) {
        Codes::Narrow(codes) => by(frames, values, greatest, |a, b| codes[a] < codes[b]),
        Codes::Wide(codes) => by(frames, values, greatest, |a, b| codes[a] < codes[b]),
        Codes::Bytes => by_bytes(&comparable, frames, values, greatest),
        Codes::None => {
            let options = SortOptions { descending: false, nulls_first: false };
            let compare = make_comparator(&comparable, &comparable, options).map_err(|_| {
                EngineError::Unsupported(
                    format!("min or max of a value of type {}", values.data_type()),
                    "Take it of one of its parts".into(),
                )
            })?;
            by(frames, values, greatest, |a, b| compare(a, b).is_lt())
        }
    };
    let rows: UInt32Array = rows.into_iter().map(|row| (row != NONE).then_some(row)).collect();
    Ok(take(values, &rows, None)?)
}

fn by_bytes(comparable: &ArrayRef, frames: &Frames, values: &ArrayRef, greatest: bool) -> Vec<u32> {
    fn of<A: ArrayAccessor>(array: A, frames: &Frames, values: &ArrayRef, greatest: bool) -> Vec<u32>
    where
        A::Item: AsRef<[u8]>,
    {
        by(frames, values, greatest, |a, b| array.value(a).as_ref() < array.value(b).as_ref())
    }
    match comparable.data_type() {
        DataType::Utf8 => of(comparable.as_string::<i32>(), frames, values, greatest),
        DataType::LargeUtf8 => of(comparable.as_string::<i64>(), frames, values, greatest),
        DataType::Utf8View => of(comparable.as_string_view(), frames, values, greatest),
        DataType::Binary => of(comparable.as_binary::<i32>(), frames, values, greatest),
        DataType::LargeBinary => of(comparable.as_binary::<i64>(), frames, values, greatest),
        DataType::BinaryView => of(comparable.as_binary_view(), frames, values, greatest),
        _ => of(comparable.as_fixed_size_binary(), frames, values, greatest),
    }
}

fn by(frames: &Frames, values: &ArrayRef, greatest: bool, less: impl Fn(usize, usize) -> bool) -> Vec<u32> {
    let nulls = values.logical_nulls();
    if greatest {
        best_rows(frames, nulls.as_ref(), |a, b| less(b as usize, a as usize))
    } else {
        best_rows(frames, nulls.as_ref(), |a, b| less(a as usize, b as usize))
    }
}

/// The first of the best rows of every frame; `better(a, b)`: row `a` is better than row `b`.
fn best_rows(frames: &Frames, nulls: Option<&NullBuffer>, better: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let valid = |row: u32| nulls.is_none_or(|n| n.is_valid(row as usize));
    let of_two = |best: u32, row: usize| {
        let row = row as u32;
        if valid(row) && (best == NONE || better(row, best)) { row } else { best }
    };
    if frames.only_grow() {
        return grown(frames, NONE, of_two);
    }
    if !frames.are_monotone() {
        return frames.iter().map(|(start, end)| (start as usize..end as usize).fold(NONE, of_two)).collect();
    }
    let mut candidates: VecDeque<u32> = VecDeque::new();
    let mut next = 0;
    let mut best = Vec::with_capacity(frames.len());
    for (start, end) in frames.iter() {
        for row in (next.max(start)..end).filter(|&row| valid(row)) {
            while candidates.back().is_some_and(|&last| better(row, last)) {
                candidates.pop_back();
            }
            candidates.push_back(row);
        }
        next = next.max(end);
        while candidates.front().is_some_and(|&first| first < start) {
            candidates.pop_front();
        }
        best.push(candidates.front().copied().unwrap_or(NONE));
    }
    best
}
