//! Aggregate functions over frames.
//!
//! FILTER and DISTINCT are settled first, by leaving rows out: the remaining rows move together and the
//! frames' bounds with them, so that nothing behind this file knows of either. Then count, sum, avg, min,
//! max and the first and last values have loops of their own over all frames at once; every other
//! function runs through its accumulator.
//!
//! | | frames that only grow | frames that slide |
//! |---|---|---|
//! | count | prefix counts | prefix counts |
//! | sum, avg of integers and decimals | one pass | prefix sums |
//! | sum, avg of floats | one pass | tree of sums: log(frame) a row, no error carried along |
//! | min, max | one pass | queue of candidates: one pass |
//! | others | one pass | retraction where the function has it; else each frame anew: frame length a row |

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::WindowCall;

use super::frames::Frames;
use super::layout::{Layout, range_of_row};
use super::navigate::{Wanted, picked};
use super::{accumulate, distinct, extreme, total};
use crate::batch::Batch;
use crate::error::Result;
use crate::expr::{Predicate, compile};
use crate::functions;

/// The column of an aggregate function, one value a row.
pub(super) fn aggregate(
    call: &WindowCall,
    batch: &Batch,
    layout: &Layout,
    frames: &Frames,
) -> Result<ArrayRef> {
    let function = functions::aggregate(&call.function)?;
    let mut args = arguments(call, batch)?;
    let mut frames = frames.clone();
    let mut kept: Option<UInt32Array> = None;
    if let Some(filter) = &call.filter
        && let Some(selection) = Predicate::compile(filter)?.select(batch)?
    {
        leave_out(&selection, layout.rows, &mut args, &mut frames)?;
        kept = Some(selection.as_ref().clone());
    }
    let name = function.name();
    // More of the same value changes nothing for these.
    let mut distinct = call.distinct && !matches!(name, "min" | "max" | "bool_and" | "bool_or");
    if distinct && !args.is_empty() && starts_are_partitions(&frames, layout, kept.as_ref()) {
        let mut partitions: ArrayRef = Arc::new(UInt32Array::from(range_of_row(&layout.partitions)));
        if let Some(kept) = &kept {
            partitions = take(&partitions, kept, None)?;
        }
        let firsts = distinct::first_of_each(&partitions, &args)?;
        leave_out(&firsts, partitions.len(), &mut args, &mut frames)?;
        distinct = false;
    }
    let output = call.output.data_type();
    let values = match (name, &args[..]) {
        (_, [_, ..]) if distinct => distinct::sliding(call, name, &args, &frames)?,
        ("count", _) => total::count(&counted(call, &args), &frames),
        ("sum", [values]) => match total::sum(values, &frames, output)? {
            Some(sums) => sums,
            None => accumulate::accumulate(call, &function, &args, &frames)?,
        },
        ("avg", [values]) => match total::average(values, &call.args[0].data_type(), &frames, output)? {
            Some(averages) => averages,
            None => accumulate::accumulate(call, &function, &args, &frames)?,
        },
        ("min", [values]) => extreme::extreme(values, &frames, false)?,
        ("max", [values]) => extreme::extreme(values, &frames, true)?,
        ("first_value", [values]) => return picked(values, &frames, Wanted::First, call.ignore_nulls),
        ("last_value", [values]) => return picked(values, &frames, Wanted::Last, call.ignore_nulls),
        ("nth_value", [values, _]) => return picked(values, &frames, Wanted::of(call)?, call.ignore_nulls),
        _ => accumulate::accumulate(call, &function, &args, &frames)?,
    };
    frames.per_row(values)
}

/// All arguments' values, in the logical types.
pub(super) fn arguments(call: &WindowCall, batch: &Batch) -> Result<Vec<ArrayRef>> {
    call.args.iter().map(|arg| compile(arg)?.evaluate(batch)?.to_logical(&arg.data_type())).collect()
}

/// The arguments of count that can be null: not the `1` that stands for `*`.
pub(super) fn counted(call: &WindowCall, args: &[ArrayRef]) -> Vec<ArrayRef> {
    let constant = |arg: &Expr| matches!(arg, Expr::Literal(l) if !l.0.is_null());
    let pairs = call.args.iter().zip(args).filter(|(arg, _)| !constant(arg));
    pairs.map(|(_, values)| values.clone()).collect()
}

/// Keeps the rows in `kept` (ascending) of `rows` rows, and moves the frames' bounds.
fn leave_out(kept: &UInt32Array, rows: usize, args: &mut [ArrayRef], frames: &mut Frames) -> Result<()> {
    let mut before = Vec::with_capacity(rows + 1);
    for (count, &row) in kept.values().iter().enumerate() {
        before.resize(row as usize + 1, count as u32);
    }
    before.resize(rows + 1, kept.len() as u32);
    for values in args {
        *values = take(values, kept, None)?;
    }
    *frames = frames.remapped(&before);
    Ok(())
}

/// Every frame starts where its partition does, among the rows that are kept.
fn starts_are_partitions(frames: &Frames, layout: &Layout, kept: Option<&UInt32Array>) -> bool {
    let row = |partition: u32| match kept {
        None => partition,
        Some(kept) => kept.values().partition_point(|&k| k < partition) as u32,
    };
    let starts: Vec<u32> = layout.partitions.iter().map(|&p| row(p)).collect();
    let mut at = 0;
    frames.iter().all(|(start, end)| {
        while at < starts.len() && starts[at] < start {
            at += 1;
        }
        start == end || starts.get(at) == Some(&start)
    })
}
