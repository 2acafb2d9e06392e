//! Functions that pick the value of another row: lag, lead, first_value, last_value, nth_value.
//!
//! Each computes one row number per row (or per frame) and gathers once. IGNORE NULLS counts in the list of
//! rows that have a value.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Int64Type};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::WindowCall;

use super::frames::Frames;
use super::layout::Layout;
use super::{argument, of_type};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::expr::compile;

/// Rows that have a value.
struct Present {
    /// Their numbers.
    rows: Vec<u32>,
    /// How many of the first `i` rows have one.
    before: Vec<u32>,
}

impl Present {
    /// None if all have one, or if nulls count too.
    fn of(values: &ArrayRef, ignore_nulls: bool) -> Option<Self> {
        let nulls = values.logical_nulls().filter(|n| ignore_nulls && n.null_count() > 0)?;
        Some(Present { rows: nulls.valid_indices().map(|row| row as u32).collect(), before: counts(&nulls) })
    }
}

/// For `i` from 0 to the number of rows: how many of the first `i` rows are valid.
pub(super) fn counts(nulls: &NullBuffer) -> Vec<u32> {
    let mut counts = Vec::with_capacity(nulls.len() + 1);
    let mut count = 0;
    counts.push(0);
    counts.extend(nulls.iter().map(|valid| {
        count += u32::from(valid);
        count
    }));
    counts
}

/// lag and lead: `(value, offset = 1, default = null)`.
pub(super) fn shifted(call: &WindowCall, batch: &Batch, layout: &Layout) -> Result<ArrayRef> {
    let values = of_type(argument(call, 0, batch)?, call.output.data_type())?;
    let forward = call.function == "lead";
    let present = Present::of(&values, call.ignore_nulls);
    let target = |row: u32, (first, last): (u32, u32), offset: i64| -> Option<u32> {
        let step = if forward { offset } else { offset.checked_neg()? };
        let Some(present) = &present else {
            let target = i64::from(row).checked_add(step)?;
            return (i64::from(first) <= target && target < i64::from(last)).then_some(target as u32);
        };
        let before = |row: u32| i64::from(present.before[row as usize]);
        // Position in the list of present rows: behind those up to this row, or before it.
        let position = match step {
            0 => return Some(row),
            1.. => before(row + 1).checked_add(step - 1)?,
            _ => before(row).checked_add(step)?,
        };
        (before(first) <= position && position < before(last)).then(|| present.rows[position as usize])
    };
    let offsets = offsets(call, batch)?;
    let mut targets: Vec<Option<u32>> = Vec::with_capacity(layout.rows);
    // A null offset gives null, not the default.
    let mut unknown = vec![];
    for range in layout.partition_ranges() {
        match &offsets {
            Offsets::One(Some(offset)) => {
                targets.extend((range.0..range.1).map(|row| target(row, range, *offset)));
            }
            Offsets::One(None) => unknown.extend(range.0..range.1),
            Offsets::Each(array) => {
                let offsets = array.as_primitive::<Int64Type>();
                for row in range.0..range.1 {
                    if offsets.is_null(row as usize) {
                        unknown.push(row);
                        targets.push(None);
                    } else {
                        targets.push(target(row, range, offsets.value(row as usize)));
                    }
                }
            }
        }
    }
    if matches!(offsets, Offsets::One(None)) {
        return Ok(arrow::array::new_null_array(values.data_type(), layout.rows));
    }
    match call.args.get(2) {
        None => Ok(take(&values, &UInt32Array::from(targets), None)?),
        Some(default) => {
            let defaults = compile(default)?.evaluate(batch)?.to_logical(&default.data_type())?;
            let defaults = of_type(defaults, values.data_type())?;
            let nothing = arrow::array::new_null_array(values.data_type(), 1);
            let mut picks: Vec<(usize, usize)> = targets
                .into_iter()
                .enumerate()
                .map(|(row, target)| target.map_or((1, row), |target| (0, target as usize)))
                .collect();
            unknown.into_iter().for_each(|row| picks[row as usize] = (2, 0));
            Ok(interleave(&[values.as_ref(), defaults.as_ref(), nothing.as_ref()], &picks)?)
        }
    }
}

enum Offsets {
    One(Option<i64>),
    Each(ArrayRef),
}

fn offsets(call: &WindowCall, batch: &Batch) -> Result<Offsets> {
    match call.args.get(1) {
        None => Ok(Offsets::One(Some(1))),
        Some(Expr::Literal(literal)) => Ok(Offsets::One(integer(&literal.0, call)?)),
        Some(_) => Ok(Offsets::Each(cast(&argument(call, 1, batch)?, &DataType::Int64)?)),
    }
}

/// The offset of lag or lead, if it is the same for all rows.
pub(super) fn constant_offset(call: &WindowCall) -> Option<i64> {
    match call.args.get(1) {
        None => Some(1),
        Some(Expr::Literal(literal)) => integer(&literal.0, call).ok().flatten(),
        Some(_) => None,
    }
}

fn integer(value: &datafusion_common::ScalarValue, call: &WindowCall) -> Result<Option<i64>> {
    use datafusion_common::ScalarValue::Int64;
    match value.cast_to(&DataType::Int64) {
        Ok(Int64(value)) => Ok(value),
        _ => Err(EngineError::execution(format!("{} needs an integer where it has {value}", call.function))),
    }
}

/// Which row of a frame is wanted.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    First,
    Last,
    /// Counted from 1, from the end if negative; 0 is no row.
    Nth(i64),
    Nothing,
}

impl Wanted {
    /// What a call of first_value, last_value or nth_value wants.
    pub fn of(call: &WindowCall) -> Result<Self> {
        match call.function.as_str() {
            "first_value" => Ok(Wanted::First),
            "last_value" => Ok(Wanted::Last),
            _ => match call.args.get(1) {
                Some(Expr::Literal(n)) => Ok(integer(&n.0, call)?.map_or(Wanted::Nothing, Wanted::Nth)),
                _ => Err(EngineError::Unsupported(
                    "nth_value with an n that is not a constant".into(),
                    "Give it an integer literal".into(),
                )),
            },
        }
    }
}

/// The wanted row's value of every frame, for every row.
pub(super) fn picked(
    values: &ArrayRef,
    frames: &Frames,
    wanted: Wanted,
    ignore_nulls: bool,
) -> Result<ArrayRef> {
    let present = Present::of(values, ignore_nulls);
    let pick = |start: u32, end: u32| -> Option<u32> {
        let position = match wanted {
            Wanted::First => i64::from(start),
            Wanted::Last => i64::from(end) - 1,
            Wanted::Nth(0) | Wanted::Nothing => return None,
            Wanted::Nth(n @ 1..) => i64::from(start).checked_add(n - 1)?,
            Wanted::Nth(n) => i64::from(end).checked_add(n)?,
        };
        (i64::from(start) <= position && position < i64::from(end)).then_some(position as u32)
    };
    let rows: UInt32Array = match &present {
        None => frames.iter().map(|(start, end)| pick(start, end)).collect(),
        Some(present) => {
            let among = |row: u32| present.before[row as usize];
            frames
                .iter()
                .map(|(start, end)| pick(among(start), among(end)).map(|p| present.rows[p as usize]))
                .collect()
        }
    };
    frames.per_row(take(values, &rows, None)?)
}
