//! A partition of the window that is too large for the memory: sorted on disk, and computed as its rows come
//! back in order.
//!
//! That works for calls whose value needs little beside what was computed for the row before:
//!
//! | call | kept from row to row |
//! |---|---|
//! | row_number, rank, dense_rank | the numbers of the last row |
//! | count, sum, min, max, first_value, last_value, up to the current row or its peers | the last result |
//! | lag, lead with a constant offset | so many rows |
//!
//! Rows are taken in chunks. A chunk has the last rows that went out before its own, so that every neighbour
//! is compared within one batch; if peers share a frame, it ends where a group of peers does.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;
use arrow::datatypes::DataType;
use dovetail_planner::physical::{FrameBound, FrameUnits, Sort, SortKey, Window, WindowCall};

use super::frames::Frames;
use super::layout::Layout;
use super::navigate::{Wanted, constant_offset, picked, shifted};
use super::source::held_bytes;
use super::{aggregate, argument, extreme, keys, of_type, total};
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::memory::Reservation;
use crate::operators::collect::concat_batches;
use crate::task::Source;

/// The most rows that lag and lead look back or ahead.
const OFFSET_ROWS_MAX: i64 = 1024;

/// How a call is computed.
enum Step {
    RowNumber,
    Rank,
    DenseRank,
    /// lag and lead, which look so many rows back, or ahead if negative.
    Shifted(i64),
    /// Frames from the partition's first row on, with what is kept of them.
    Running(Running),
}

/// What an aggregate has come to in the partition of the last row.
struct Running {
    kind: Kind,
    last: Option<ArrayRef>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Least,
    Greatest,
    First,
    Last,
}

impl Step {
    /// None if the call cannot be computed from row to row.
    fn of(call: &WindowCall) -> Option<Step> {
        match call.function.as_str() {
            "row_number" if !call.aggregate => return Some(Step::RowNumber),
            "rank" if !call.aggregate => return Some(Step::Rank),
            "dense_rank" if !call.aggregate => return Some(Step::DenseRank),
            name @ ("lag" | "lead") if !call.aggregate && !call.ignore_nulls => {
                let offset = constant_offset(call)?;
                let near = (-OFFSET_ROWS_MAX..=OFFSET_ROWS_MAX).contains(&offset);
                return near.then_some(Step::Shifted(if name == "lag" { offset } else { -offset }));
            }
            _ => {}
        }
        let frame = &call.frame;
        let grows = frame.start == FrameBound::UnboundedPreceding && frame.end == FrameBound::CurrentRow;
        if !grows || call.distinct || call.filter.is_some() || call.ignore_nulls {
            return None;
        }
        let output = call.output.data_type();
        let adds_up = matches!(
            output,
            DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(_, _)
        );
        let kind = match call.function.as_str() {
            "count" if *output == DataType::Int64 => Kind::Count,
            "sum" if adds_up => Kind::Sum,
            "min" => Kind::Least,
            "max" => Kind::Greatest,
            "first_value" => Kind::First,
            "last_value" => Kind::Last,
            _ => return None,
        };
        Some(Step::Running(Running { kind, last: None }))
    }
}

/// Whether a window's calls can all be computed from row to row.
pub(super) fn is_streamable(window: &Window) -> bool {
    window.calls.iter().all(|call| Step::of(call).is_some())
}

/// The order in which a window wants its rows.
pub(super) fn order_of(window: &Window) -> Sort {
    let partition = window.partition_by.iter().map(|expr| SortKey {
        expr: expr.clone(),
        descending: false,
        nulls_first: false,
    });
    Sort { keys: partition.chain(window.order_by.iter().cloned()).collect(), fetch: None }
}

/// Rows in order with the calls' columns.
pub(super) struct Stream {
    window: Window,
    source: Box<dyn Source>,
    /// Rows that were read: the last ones that went out, then those that have not.
    rows: Vec<Batch>,
    /// Rows at the front of `rows` that went out.
    behind: usize,
    steps: Vec<Step>,
    place: Place,
    has_ended: bool,
}

/// The numbers of the last row that went out.
#[derive(Clone, Copy, Default)]
struct Place {
    row_number: u64,
    rank: u64,
    dense_rank: u64,
}

impl Stream {
    /// Over rows in the [order](order_of) of a window that is [streamable](is_streamable).
    pub(super) fn new(window: &Window, rows: Box<dyn Source>) -> Self {
        Stream {
            window: window.clone(),
            source: rows,
            rows: vec![],
            behind: 0,
            steps: window.calls.iter().filter_map(Step::of).collect(),
            place: Place::default(),
            has_ended: false,
        }
    }

    /// The next rows; none at the end. What is held meanwhile is reserved.
    pub(super) fn next(&mut self, reservation: &mut Reservation) -> Result<Option<Batch>> {
        let mut wanted = 1;
        loop {
            let mut rows: usize = self.rows.iter().map(|b| b.rows).sum();
            while !self.has_ended && rows < self.behind + wanted {
                match self.source.next()? {
                    Some(batch) => {
                        rows += batch.rows;
                        self.rows.push(batch);
                    }
                    None => self.has_ended = true,
                }
            }
            if rows == self.behind {
                self.rows.clear();
                reservation.resize_firm(0)?;
                return Ok(None);
            }
            let chunk = concat_batches(&self.rows)?;
            reservation.resize_firm(held_bytes(&chunk))?;
            let keys = keys(&self.window, &chunk)?;
            let keys: Vec<ArrayRef> = keys.into_iter().map(|key| key.array).collect();
            let layout = Layout::new(chunk.rows, &keys[..self.window.partition_by.len()], &keys)?;
            let end = if self.has_ended { chunk.rows } else { self.complete(&layout) };
            if end > self.behind {
                return self.compute(chunk, &layout, end).map(Some);
            }
            // One group of peers, so far.
            self.rows = vec![chunk];
            wanted = 2 * (rows - self.behind);
        }
    }

    /// Where the rows end for which everything is here.
    fn complete(&self, layout: &Layout) -> usize {
        let ahead = |step: &Step| if let Step::Shifted(offset) = step { (-offset).max(0) } else { 0 };
        let ahead = self.steps.iter().map(ahead).max().unwrap_or(0) as usize;
        let end = layout.rows.saturating_sub(ahead);
        let mut calls = self.steps.iter().zip(&self.window.calls);
        if calls.any(|(step, call)| matches!(step, Step::Running(_)) && call.frame.units != FrameUnits::Rows)
        {
            // The last group may go on.
            let starts = &layout.peers[..layout.peers.len() - 1];
            let groups = starts.partition_point(|&start| start as usize <= end);
            return starts[groups - 1] as usize;
        }
        end
    }

    /// The rows behind those that went out, up to `end`, with the calls' columns.
    fn compute(&mut self, chunk: Batch, layout: &Layout, end: usize) -> Result<Batch> {
        let rows = end - self.behind;
        let places = self.places(layout, end);
        let numbers = |number: fn(&Place) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(places.iter().map(number)))
        };
        let mut output = chunk.slice(self.behind, rows);
        for (step, call) in self.steps.iter_mut().zip(&self.window.calls) {
            let column = match step {
                Step::RowNumber => numbers(|place| place.row_number),
                Step::Rank => numbers(|place| place.rank),
                Step::DenseRank => numbers(|place| place.dense_rank),
                Step::Shifted(_) => shifted(call, &chunk, layout)?.slice(self.behind, rows),
                Step::Running(running) => running.next(call, &chunk, layout, self.behind..end)?,
            };
            output.columns.push(Column::new(of_type(column, call.output.data_type())?));
        }
        self.place = places.last().copied().unwrap_or_default();
        let looks_back = |step: &Step| if let Step::Shifted(offset) = step { (*offset).max(1) } else { 1 };
        let back = self.steps.iter().map(looks_back).max().unwrap_or(1) as usize;
        self.behind = back.min(end);
        let first = end - self.behind;
        self.rows = vec![chunk.slice(first, chunk.rows - first)];
        Ok(output)
    }

    /// The numbers of the rows behind those that went out, up to `end`.
    fn places(&self, layout: &Layout, end: usize) -> Vec<Place> {
        let mut place = self.place;
        let from = |starts: &[u32]| starts.partition_point(|&start| (start as usize) < self.behind);
        let (mut partition, mut group) = (from(&layout.partitions), from(&layout.peers));
        let places = (self.behind..end).map(|row| {
            let starts_group = layout.peers[group] as usize == row;
            group += usize::from(starts_group);
            if layout.partitions[partition] as usize == row {
                partition += 1;
                place = Place { row_number: 1, rank: 1, dense_rank: 1 };
            } else {
                place.row_number += 1;
                if starts_group {
                    place.rank = place.row_number;
                    place.dense_rank += 1;
                }
            }
            place
        });
        places.collect()
    }
}

impl Running {
    /// The results of a range of rows. The last result so far stands before them as if it were a row's value.
    fn next(
        &mut self,
        call: &WindowCall,
        chunk: &Batch,
        layout: &Layout,
        rows: Range<usize>,
    ) -> Result<ArrayRef> {
        let output = call.output.data_type();
        let values = match self.kind {
            Kind::Count => ones(&aggregate::counted(call, &aggregate::arguments(call, chunk)?), chunk.rows),
            _ => of_type(argument(call, 0, chunk)?, output)?,
        };
        let before = self.last.take().unwrap_or_else(|| new_null_array(output, 1));
        let values = concat(&[before.as_ref(), values.slice(rows.start, rows.len()).as_ref()])?;
        let frames = frames(call, layout, rows);
        let results = match self.kind {
            Kind::Count | Kind::Sum => total::sum(&values, &frames, output)?
                .ok_or_else(|| EngineError::internal(format!("a running sum of {output}")))?,
            Kind::Least => extreme::extreme(&values, &frames, false)?,
            Kind::Greatest => extreme::extreme(&values, &frames, true)?,
            Kind::First => picked(&values, &frames, Wanted::First, false)?,
            Kind::Last => picked(&values, &frames, Wanted::Last, false)?,
        };
        let results = of_type(results, output)?;
        self.last = Some(results.slice(results.len() - 1, 1));
        Ok(results)
    }
}

/// 1 for each row in which none of the arrays is null, else 0.
fn ones(arrays: &[ArrayRef], rows: usize) -> ArrayRef {
    let nulls =
        arrays.iter().fold(None, |all, a| NullBuffer::union(all.as_ref(), a.logical_nulls().as_ref()));
    let one = |row| i64::from(nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)));
    Arc::new(Int64Array::from_iter_values((0..rows).map(one)))
}

/// The frames of a range of rows, where row 0 stands for what was before the range, and belongs to the frames of
/// the partition that goes on.
fn frames(call: &WindowCall, layout: &Layout, rows: Range<usize>) -> Frames {
    let behind = |starts: &[u32]| starts.partition_point(|&start| start as usize <= rows.start);
    let (mut partition, mut group) = (behind(&layout.partitions), behind(&layout.peers));
    let before = |row: u32| (row as usize + 1).saturating_sub(rows.start) as u32;
    let (mut starts, mut ends) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows.clone() {
        while layout.partitions[partition] as usize <= row {
            partition += 1;
        }
        while layout.peers[group] as usize <= row {
            group += 1;
        }
        starts.push(before(layout.partitions[partition - 1]));
        ends.push(match call.frame.units {
            FrameUnits::Rows => before(row as u32 + 1),
            _ => before(layout.peers[group]),
        });
    }
    Frames::of_rows(starts, ends)
}
