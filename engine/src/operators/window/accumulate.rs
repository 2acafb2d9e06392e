//! Any aggregate function over frames, through its accumulator.
//!
//! Frames that only grow feed one accumulator, which is asked after each. Frames that slide are retracted
//! from where the function can do so exactly enough and it pays; else every frame is computed anew, at
//! the cost of its length. All calls take slices of the argument arrays, not rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::WindowCall;

use super::frames::Frames;
use crate::error::Result;

/// Below this many rows a frame on average, computing frames anew is cheaper than retraction.
const SHORT_FRAME_ROWS: u64 = 16;

/// The same for functions whose retraction carries rounding errors along: they avoid it longer.
const SHORT_FRAME_ROWS_INEXACT: u64 = 4096;

/// One value a frame.
pub(super) fn accumulate(
    call: &WindowCall,
    function: &AggregateUDF,
    args: &[ArrayRef],
    frames: &Frames,
) -> Result<ArrayRef> {
    let maker = Maker::new(call, function, args);
    let mut results: Vec<ScalarValue> = Vec::with_capacity(frames.len());
    if frames.only_grow() {
        grow(&maker, args, frames, &mut results)?;
    } else {
        let mut sliding = maker.make(true)?;
        let inexact =
            ["var", "stddev", "covar", "corr", "regr"].iter().any(|f| function.name().starts_with(f));
        let short = if inexact { SHORT_FRAME_ROWS_INEXACT } else { SHORT_FRAME_ROWS };
        let pays = frames.total_rows() > short * frames.len() as u64;
        if pays && frames.are_monotone() && sliding.supports_retract_batch() {
            slide(sliding.as_mut(), args, frames, &mut results)?;
        } else {
            anew(&maker, args, frames, &mut results)?;
        }
    }
    if results.is_empty() {
        return Ok(new_empty_array(call.output.data_type()));
    }
    Ok(ScalarValue::iter_to_array(results)?)
}

fn grow(maker: &Maker, args: &[ArrayRef], frames: &Frames, results: &mut Vec<ScalarValue>) -> Result<()> {
    let mut accumulator = maker.make(false)?;
    let (mut first, mut last) = (0, 0);
    for (start, end) in frames.iter() {
        if start != first || start >= last {
            if last > first {
                accumulator = maker.make(false)?;
            }
            last = start;
        }
        first = start;
        if end > last {
            accumulator.update_batch(&slices(args, last, end))?;
        }
        last = end;
        results.push(accumulator.evaluate()?);
    }
    Ok(())
}

fn slide(
    accumulator: &mut dyn Accumulator,
    args: &[ArrayRef],
    frames: &Frames,
    results: &mut Vec<ScalarValue>,
) -> Result<()> {
    // The accumulator holds the rows `first..last`.
    let (mut first, mut last) = (0, 0);
    for (start, end) in frames.iter() {
        if start > first && last > first {
            accumulator.retract_batch(&slices(args, first, start.min(last)))?;
        }
        first = start;
        last = last.max(start);
        if end > last {
            accumulator.update_batch(&slices(args, last, end))?;
            last = end;
        }
        results.push(accumulator.evaluate()?);
    }
    Ok(())
}

fn anew(maker: &Maker, args: &[ArrayRef], frames: &Frames, results: &mut Vec<ScalarValue>) -> Result<()> {
    let mut last: Option<(u32, u32)> = None;
    for (start, end) in frames.iter() {
        // Neighbours often share a frame, e.g. at the end of a partition.
        let result = match (last, results.last()) {
            (Some(last), Some(result)) if last == (start, end) => result.clone(),
            _ => {
                let mut accumulator = maker.make(false)?;
                if end > start {
                    accumulator.update_batch(&slices(args, start, end))?;
                }
                accumulator.evaluate()?
            }
        };
        last = Some((start, end));
        results.push(result);
    }
    Ok(())
}

fn slices(args: &[ArrayRef], start: u32, end: u32) -> Vec<ArrayRef> {
    args.iter().map(|a| a.slice(start as usize, (end - start) as usize)).collect()
}

/// Makes accumulators of one call.
struct Maker<'a> {
    call: &'a WindowCall,
    function: &'a AggregateUDF,
    schema: Schema,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    fields: Vec<FieldRef>,
}

impl<'a> Maker<'a> {
    fn new(call: &'a WindowCall, function: &'a AggregateUDF, args: &[ArrayRef]) -> Self {
        let fields: Vec<FieldRef> = args
            .iter()
            .enumerate()
            .map(|(i, a)| Arc::new(Field::new(format!("{i}"), a.data_type().clone(), true)))
            .collect();
        // Some functions read constants from the expressions: a percentile, a separator.
        let expr = |(i, arg): (usize, &Expr)| -> Arc<dyn PhysicalExpr> {
            match arg {
                Expr::Literal(l) => Arc::new(Literal::new(l.0.clone())),
                _ => Arc::new(Column::new(&format!("{i}"), i)),
            }
        };
        let exprs = call.args.iter().enumerate().map(expr).collect();
        Maker { call, function, schema: Schema::new(fields.clone()), exprs, fields }
    }

    fn make(&self, sliding: bool) -> Result<Box<dyn Accumulator>> {
        let args = AccumulatorArgs {
            return_field: self.call.output.clone(),
            schema: &self.schema,
            ignore_nulls: self.call.ignore_nulls,
            order_bys: &[],
            is_reversed: false,
            name: self.function.name(),
            // Settled by leaving rows out.
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.fields,
        };
        Ok(if sliding {
            self.function.create_sliding_accumulator(args)?
        } else {
            self.function.accumulator(args)?
        })
    }
}
