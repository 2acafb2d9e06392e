//! SUM of 64-bit floats.

use std::sync::Arc;

use arrow::array::types::Float64Type;
use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array};

use super::seen::Seen;
use super::{Accumulator, Rows, nulled, nulls_of};
use crate::error::Result;

/// Sums by group; a state is the sum.
#[derive(Default)]
pub(in super::super) struct FloatSum {
    sums: Vec<f64>,
    seen: Seen,
}

impl Accumulator for FloatSum {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        if self.sums.len() < rows.groups {
            self.sums.resize(rows.groups, 0.0);
        }
        let array = args[0].as_primitive::<Float64Type>();
        let (values, sums) = (array.values(), &mut self.sums);
        match (rows.ids, nulls_of(array)) {
            (None, None) => {
                self.seen.all(rows);
                if rows.rows > 0 {
                    sums[0] += sum(values);
                }
            }
            (None, Some(nulls)) => {
                self.seen.marks(rows.groups)[0] |= nulls.null_count() < nulls.len();
                sums[0] += nulls.valid_indices().map(|i| values[i]).sum::<f64>();
            }
            (Some(ids), None) => {
                self.seen.all(rows);
                ids.iter().zip(values).for_each(|(id, v)| sums[*id as usize] += v);
            }
            (Some(ids), Some(nulls)) => {
                let marks = self.seen.marks(rows.groups);
                for ((id, value), valid) in ids.iter().zip(values).zip(nulls) {
                    sums[*id as usize] += if valid { *value } else { 0.0 };
                    marks[*id as usize] |= valid;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.update(rows, states)
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let mut sums = std::mem::take(&mut self.sums);
        sums.resize(groups, 0.0);
        Ok(vec![Arc::new(Float64Array::new(sums.into(), self.seen.take(groups)))])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        _rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        Ok(Some(vec![nulled(&args[0], filter)?]))
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * 8 + self.seen.memory_bytes()
    }
}

/// In eight chains, which the processor adds side by side.
fn sum(values: &[f64]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value;
        }
    }
    sums.iter().chain(rest).sum()
}
