//! The rows that each row's frame spans.
//!
//! Rows share frames: all rows of a partition, if both ends are unbounded; all peers, with RANGE and GROUPS.
//! A frame is then listed, and an aggregate computed, once. Frames are in the order of the rows and
//! never reach beyond their partition; an empty one has its end at its start.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Literal;
use dovetail_planner::physical::{FrameBound, FrameUnits, WindowFrame};

use super::is_unbounded;
use super::layout::{Layout, range_of_row};
use super::range::group_bounds;
use crate::error::{EngineError, Result};
use crate::operators::sort::keys::Key;

/// Frames as half-open ranges of sorted rows.
#[derive(Clone)]
pub(super) struct Frames {
    pub starts: Arc<Vec<u32>>,
    pub ends: Arc<Vec<u32>>,
    /// For every row, the number of its frame; none: frame `i` is row `i`'s.
    of_row: Option<Arc<UInt32Array>>,
}

impl Frames {
    pub fn new(frame: &WindowFrame, layout: &Layout, order_key: Option<&Key>) -> Result<Self> {
        if is_unbounded(&frame.start) && is_unbounded(&frame.end) {
            if frame.start == FrameBound::UnboundedFollowing || frame.end == FrameBound::UnboundedPreceding {
                return Err(EngineError::internal("a frame that ends before it starts"));
            }
            let (starts, ends) = layout.partition_ranges().unzip();
            return Ok(Frames::shared(starts, ends, &layout.partitions));
        }
        let (starts, mut ends): (Vec<u32>, Vec<u32>) = match frame.units {
            FrameUnits::Rows => row_frames(frame, layout)?,
            FrameUnits::Groups => peer_frames(layout, group_frames(frame, layout)?),
            FrameUnits::Range => {
                let groups = layout.groups_of_partitions();
                let bound = |bound: &FrameBound, end: bool| -> Result<Vec<u32>> {
                    match bound {
                        FrameBound::Preceding(_) | FrameBound::Following(_) => {
                            group_bounds(bound, end, layout, &groups, order_key)
                        }
                        _ => Ok(plain_group_bound(bound, end, &groups)),
                    }
                };
                peer_frames(layout, (bound(&frame.start, false)?, bound(&frame.end, true)?))
            }
        };
        ends.iter_mut().zip(&starts).for_each(|(end, &start)| *end = (*end).max(start));
        Ok(match frame.units {
            FrameUnits::Rows => Frames::of_rows(starts, ends),
            _ => Frames::shared(starts, ends, &layout.peers),
        })
    }

    /// One frame a row.
    pub fn of_rows(starts: Vec<u32>, ends: Vec<u32>) -> Self {
        Frames { starts: starts.into(), ends: ends.into(), of_row: None }
    }

    /// Frames of which each belongs to the rows of one range.
    fn shared(starts: Vec<u32>, ends: Vec<u32>, ranges: &[u32]) -> Self {
        let rows = *ranges.last().expect("invariant: ranges end with the number of rows");
        let alone = ranges.len() == rows as usize + 1;
        let of_row = (!alone).then(|| Arc::new(UInt32Array::from(range_of_row(ranges))));
        Frames { starts: starts.into(), ends: ends.into(), of_row }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// `(start, end)` of every frame.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.starts.iter().copied().zip(self.ends.iter().copied())
    }

    /// One value per frame as one value per row.
    pub fn per_row(&self, values: ArrayRef) -> Result<ArrayRef> {
        match &self.of_row {
            None => Ok(values),
            Some(of_row) => Ok(take(&values, of_row.as_ref(), None)?),
        }
    }

    /// The same frames over rows of which only some remain; `before[i]` of the first `i` rows do.
    pub fn remapped(&self, before: &[u32]) -> Self {
        let map = |bounds: &[u32]| Arc::new(bounds.iter().map(|&b| before[b as usize]).collect());
        Frames { starts: map(&self.starts), ends: map(&self.ends), of_row: self.of_row.clone() }
    }

    /// Each frame begins where the one before it began and ends no earlier, or begins no earlier than
    /// that one ended: it is computed by adding rows alone.
    pub fn only_grow(&self) -> bool {
        let mut last = (0, 0);
        self.iter().all(|(start, end)| {
            let grows = start == last.0 && end >= last.1 || start >= last.1;
            last = (start, end);
            grows
        })
    }

    /// No frame starts or ends before the one before it.
    pub fn are_monotone(&self) -> bool {
        self.starts.is_sorted() && self.ends.is_sorted()
    }

    /// Rows of all frames together.
    pub fn total_rows(&self) -> u64 {
        self.iter().map(|(start, end)| u64::from(end - start)).sum()
    }
}

/// ROWS: the offset counts rows.
fn row_frames(frame: &WindowFrame, layout: &Layout) -> Result<(Vec<u32>, Vec<u32>)> {
    let bound = |bound: &FrameBound, end: u32| -> Result<Vec<u32>> {
        let mut rows = Vec::with_capacity(layout.rows);
        for (first, last) in layout.partition_ranges() {
            match bound {
                FrameBound::UnboundedPreceding => rows.resize(last as usize, first),
                FrameBound::UnboundedFollowing => rows.resize(last as usize, last),
                FrameBound::CurrentRow => rows.extend((first..last).map(|row| row + end)),
                FrameBound::Preceding(offset) => {
                    let offset = count(offset)?;
                    rows.extend((first..last).map(|row| (row + end).saturating_sub(offset).max(first)));
                }
                FrameBound::Following(offset) => {
                    let offset = count(offset)?;
                    rows.extend((first..last).map(|row| (row + end).saturating_add(offset).min(last)));
                }
            }
        }
        Ok(rows)
    };
    Ok((bound(&frame.start, 0)?, bound(&frame.end, 1)?))
}

/// GROUPS: the offset counts groups of peers. For each group the first group of its frame, and the one
/// behind the last.
fn group_frames(frame: &WindowFrame, layout: &Layout) -> Result<(Vec<u32>, Vec<u32>)> {
    let groups = layout.groups_of_partitions();
    let bound = |bound: &FrameBound, is_end: bool| -> Result<Vec<u32>> {
        let (offset, back) = match bound {
            FrameBound::Preceding(offset) => (count(offset)?, true),
            FrameBound::Following(offset) => (count(offset)?, false),
            _ => return Ok(plain_group_bound(bound, is_end, &groups)),
        };
        let mut bounds = Vec::with_capacity(layout.peers.len());
        for partition in groups.windows(2) {
            let (first, last) = (partition[0] as u32, partition[1] as u32);
            bounds.extend((first..last).map(|group| {
                let group = group + u32::from(is_end);
                if back {
                    group.saturating_sub(offset).max(first)
                } else {
                    group.saturating_add(offset).min(last)
                }
            }));
        }
        Ok(bounds)
    };
    Ok((bound(&frame.start, false)?, bound(&frame.end, true)?))
}

/// For each group of peers, the group at which a bound without an offset lies.
fn plain_group_bound(bound: &FrameBound, end: bool, groups: &[usize]) -> Vec<u32> {
    let mut bounds = Vec::with_capacity(*groups.last().unwrap_or(&0));
    for partition in groups.windows(2) {
        let (first, last) = (partition[0] as u32, partition[1] as u32);
        match bound {
            FrameBound::UnboundedPreceding => bounds.resize(last as usize, first),
            FrameBound::UnboundedFollowing => bounds.resize(last as usize, last),
            _ => bounds.extend((first..last).map(|group| group + u32::from(end))),
        }
    }
    bounds
}

/// Bounds in groups as bounds in rows.
fn peer_frames(layout: &Layout, (starts, ends): (Vec<u32>, Vec<u32>)) -> (Vec<u32>, Vec<u32>) {
    let row = |group: u32| layout.peers[group as usize];
    (starts.into_iter().map(row).collect(), ends.into_iter().map(row).collect())
}

/// The offset of a ROWS or GROUPS bound. What exceeds 32 bits exceeds every partition too.
fn count(offset: &Literal) -> Result<u32> {
    match offset.0.cast_to(&arrow::datatypes::DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(n))) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        _ => Err(EngineError::execution(format!(
            "the offset {} of a window frame is not a number of rows; use an integer that is not negative",
            offset.0
        ))),
    }
}
