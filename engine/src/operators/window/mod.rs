//! Window functions over one hash partition.
//!
//! ```text
//! rows ─▶ sort by PARTITION BY, ORDER BY ─▶ layout: partitions and peers ─▶ calls ─▶ rows + one column a call
//! ```
//!
//! Everything after the sort works on positions in the sorted rows, for all partitions in one go, so that
//! a million small partitions cost no more than a large one. The input's columns are not gathered:
//! they leave as they came, seen through the order. Calls gather what they read.
//!
//! A hash partition that is too large for the memory is divided on disk, and taken part by part.
//!
//! - [`source`]: reads a hash partition, or its parts;
//! - [`stream`]: computes what is too large even so from row to row, behind a sort on disk;
//! - [`layout`]: where partitions and groups of peers start;
//! - [`frames`], [`range`]: the rows that each row's frame spans;
//! - [`rank`], [`navigate`]: the window functions proper;
//! - [`aggregate`] and what it calls: aggregate functions over frames.

mod accumulate;
mod aggregate;
mod distinct;
mod extreme;
mod frames;
mod layout;
mod navigate;
mod range;
mod rank;
mod source;
mod stream;
mod total;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{FrameBound, Window, WindowCall};

use self::frames::Frames;
use self::layout::Layout;
use self::source::WindowSource;
use super::collect::concat_any;
use super::sort::argsort::sort_rows;
use super::sort::keys::Key;
use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::exchange::ExchangeReader;
use crate::expr::compile;
use crate::task::{Source, TaskContext};

/// The rows of one hash partition with the calls' columns behind their own, in the order of the
/// partitions and within them of ORDER BY.
pub fn source(
    window: &Window,
    input_schema: &SchemaRef,
    input: ExchangeReader,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    for call in &window.calls {
        check(call)?;
    }
    Ok(Box::new(WindowSource::new(window, input_schema, input, task)?))
}

/// Refuses what no function here can do, before anything runs.
fn check(call: &WindowCall) -> Result<()> {
    for expr in call.args.iter().chain(&call.filter) {
        compile(expr)?;
    }
    if !call.aggregate && (call.distinct || call.filter.is_some()) {
        let what = if call.distinct { "DISTINCT" } else { "FILTER" };
        return Err(EngineError::Unsupported(
            format!("{what} with the window function {}", call.function),
            "It has a meaning for aggregate functions only; use CASE or a subquery".into(),
        ));
    }
    Ok(())
}

/// All rows with all columns.
fn evaluate(window: &Window, width: usize, mut batches: Vec<Batch>) -> Result<Batch> {
    batches.retain(|b| b.rows > 0);
    let rows: usize = batches.iter().map(|b| b.rows).sum();
    if rows == 0 {
        return Ok(Batch { columns: vec![], rows: 0 });
    }
    if u32::try_from(rows).is_err() {
        return Err(EngineError::Resources(format!(
            "one partition of a window has {rows} rows, more than 4,294,967,295; use more partitions"
        )));
    }
    let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(batches.len()); width];
    for batch in batches {
        for (pieces, column) in pieces.iter_mut().zip(&batch.columns) {
            pieces.push(column.values()?);
        }
    }
    // Column by column, so that no more than one is in memory twice.
    let columns = pieces.into_iter().map(|pieces| concat_any(&pieces).map(Column::new));
    let batch = Batch { columns: columns.collect::<Result<_>>()?, rows };
    let mut sorted = Sorted::new(window, batch)?;
    let columns = window.calls.iter().map(|call| sorted.call(call)).collect::<Result<Vec<_>>>()?;
    let mut output = sorted.batch;
    output.columns.extend(columns.into_iter().map(Column::new));
    Ok(output)
}

/// The keys of PARTITION BY, then those of ORDER BY.
fn keys(window: &Window, batch: &Batch) -> Result<Vec<Key>> {
    let key = |expr: &Expr, descending, nulls_first| {
        Key::new(&compile(expr)?.evaluate(batch)?.values()?, descending, nulls_first)
    };
    let partition = window.partition_by.iter().map(|expr| key(expr, false, false));
    partition.chain(window.order_by.iter().map(|o| key(&o.expr, o.descending, o.nulls_first))).collect()
}

/// The rows in the order of the window, and what all calls share.
struct Sorted {
    batch: Batch,
    layout: Layout,
    /// The one ORDER BY key, sorted, if there is exactly one: frames by RANGE add to it.
    order_key: Option<Key>,
    /// Frames that some call used, by their plan.
    frames: Vec<(dovetail_planner::physical::WindowFrame, Frames)>,
}

impl Sorted {
    fn new(window: &Window, batch: Batch) -> Result<Self> {
        let mut keys = keys(window, &batch)?;
        let flat: Vec<Key> = keys.iter().map(Key::share).flat_map(Key::flat).collect();
        let order = sort_rows(&flat, batch.rows, None)?;
        let batch = if order.iter().enumerate().all(|(i, &row)| i as u32 == row) {
            batch
        } else {
            let order = std::sync::Arc::new(UInt32Array::from(order));
            for key in &mut keys {
                key.array = take(&key.array, order.as_ref(), None)?;
            }
            batch.select(&order)
        };
        let arrays: Vec<ArrayRef> = keys.iter().map(|k| k.array.clone()).collect();
        let layout = Layout::new(batch.rows, &arrays[..window.partition_by.len()], &arrays)?;
        let order_key = if window.order_by.len() == 1 { keys.pop() } else { None };
        Ok(Sorted { batch, layout, order_key, frames: vec![] })
    }

    /// The column of a call, of exactly the call's type.
    fn call(&mut self, call: &WindowCall) -> Result<ArrayRef> {
        let result = if call.aggregate {
            let frames = self.frames(call)?;
            aggregate::aggregate(call, &self.batch, &self.layout, &frames)?
        } else {
            match call.function.as_str() {
                "row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" => {
                    rank::rank(call, &self.batch, &self.layout)?
                }
                "lag" | "lead" => navigate::shifted(call, &self.batch, &self.layout)?,
                "first_value" | "last_value" | "nth_value" => {
                    let frames = self.frames(call)?;
                    let values = self.argument(call, 0)?;
                    let wanted = navigate::Wanted::of(call)?;
                    navigate::picked(&values, &frames, wanted, call.ignore_nulls)?
                }
                other => {
                    return Err(EngineError::Unsupported(
                        format!("the window function {other}"),
                        "Use row_number, rank, dense_rank, percent_rank, cume_dist, ntile, lag, lead, \
                         first_value, last_value, nth_value or an aggregate function"
                            .into(),
                    ));
                }
            }
        };
        of_type(result, call.output.data_type())
    }

    fn argument(&self, call: &WindowCall, index: usize) -> Result<ArrayRef> {
        argument(call, index, &self.batch)
    }

    /// The frames of a call; calls with the same frame share them.
    fn frames(&mut self, call: &WindowCall) -> Result<Frames> {
        if let Some((_, frames)) = self.frames.iter().find(|(plan, _)| *plan == call.frame) {
            return Ok(frames.clone());
        }
        let frames = Frames::new(&call.frame, &self.layout, self.order_key.as_ref())?;
        self.frames.push((call.frame.clone(), frames.clone()));
        Ok(frames)
    }
}

/// An argument's values, in the logical type.
fn argument(call: &WindowCall, index: usize, batch: &Batch) -> Result<ArrayRef> {
    let expr = call.args.get(index).ok_or_else(|| {
        EngineError::internal(format!("the window function {} lacks an argument", call.function))
    })?;
    compile(expr)?.evaluate(batch)?.to_logical(&expr.data_type())
}

/// A result in the type that the plan says.
fn of_type(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type { Ok(array) } else { Ok(cast(&array, data_type)?) }
}

/// A bound without an offset, or with one of zero in the other direction.
fn is_unbounded(bound: &FrameBound) -> bool {
    matches!(bound, FrameBound::UnboundedPreceding | FrameBound::UnboundedFollowing)
}

#[cfg(test)]
mod tests;
