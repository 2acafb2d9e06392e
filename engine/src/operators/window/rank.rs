//! Functions of a row's place in its partition: row_number, rank, dense_rank, percent_rank, cume_dist,
//! ntile. One loop over partitions or groups of peers each.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt64Type};
use dovetail_planner::physical::WindowCall;

use super::argument;
use super::layout::Layout;
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// The column of one of the functions above.
pub(super) fn rank(call: &WindowCall, batch: &Batch, layout: &Layout) -> Result<ArrayRef> {
    Ok(match call.function.as_str() {
        "row_number" => {
            let ranges = layout.partition_ranges();
            whole(layout, ranges.flat_map(|(start, end)| 1..=u64::from(end - start)))
        }
        "rank" => by_peers(layout, |peers| peers.before + 1),
        "dense_rank" => by_peers(layout, |peers| peers.groups_before + 1),
        "percent_rank" => fractions(layout, |peers| match peers.rows {
            1 => 0.0,
            rows => peers.before as f64 / (rows - 1) as f64,
        }),
        "cume_dist" => fractions(layout, |peers| (peers.before + peers.len) as f64 / peers.rows as f64),
        "ntile" => tiles(call, batch, layout)?,
        other => return Err(EngineError::internal(format!("{other} is no ranking function"))),
    })
}

/// A group of peers in its partition; all numbers count rows but `groups_before`.
struct Peers {
    /// Rows of the partition before the group.
    before: u64,
    /// Groups of the partition before the group.
    groups_before: u64,
    /// Rows of the group.
    len: u64,
    /// Rows of the partition.
    rows: u64,
}

/// Calls `f` for every group of peers, in order.
fn for_each_group(layout: &Layout, mut f: impl FnMut(Peers)) {
    let mut partitions = layout.partition_ranges();
    let (mut first, mut last) = (0, 0);
    let mut groups_before = 0;
    for (start, end) in layout.peer_ranges() {
        if start == last {
            (first, last) = partitions.next().expect("invariant: a group of peers lies in a partition");
            groups_before = 0;
        }
        f(Peers {
            before: u64::from(start - first),
            groups_before,
            len: u64::from(end - start),
            rows: u64::from(last - first),
        });
        groups_before += 1;
    }
}

fn by_peers(layout: &Layout, value: impl Fn(&Peers) -> u64) -> ArrayRef {
    let mut values: Vec<u64> = Vec::with_capacity(layout.rows);
    for_each_group(layout, |peers| values.resize(values.len() + peers.len as usize, value(&peers)));
    Arc::new(UInt64Array::from(values))
}

fn fractions(layout: &Layout, value: impl Fn(&Peers) -> f64) -> ArrayRef {
    let mut values: Vec<f64> = Vec::with_capacity(layout.rows);
    for_each_group(layout, |peers| values.resize(values.len() + peers.len as usize, value(&peers)));
    Arc::new(Float64Array::from(values))
}

fn whole(layout: &Layout, numbers: impl Iterator<Item = u64>) -> ArrayRef {
    let mut values = Vec::with_capacity(layout.rows);
    values.extend(numbers);
    Arc::new(UInt64Array::from(values))
}

/// ntile(n): the partition's rows in `n` parts, the first ones larger by one row where it does not come
/// out even. `n` is taken from the partition's first row.
fn tiles(call: &WindowCall, batch: &Batch, layout: &Layout) -> Result<ArrayRef> {
    let parts = cast(&argument(call, 0, batch)?, &DataType::Int64)?;
    let parts = cast(&parts, &DataType::UInt64).map_err(|_| not_positive())?;
    let parts = parts.as_primitive::<UInt64Type>();
    let mut values = Vec::with_capacity(layout.rows);
    for (start, end) in layout.partition_ranges() {
        if parts.is_null(start as usize) || parts.value(start as usize) == 0 {
            return Err(not_positive());
        }
        let (rows, parts) = (u64::from(end - start), parts.value(start as usize));
        let (size, larger) = (rows / parts, rows % parts);
        for part in 0..parts.min(rows) {
            let size = size + u64::from(part < larger);
            values.resize(values.len() + size as usize, part + 1);
        }
    }
    Ok(Arc::new(UInt64Array::from(values)))
}

fn not_positive() -> EngineError {
    EngineError::execution("ntile needs a number of parts; give it an integer above zero")
}
