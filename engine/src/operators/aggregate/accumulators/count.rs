//! COUNT: rows, values, and (what a count of values is made of when rows are counted anyway) nulls.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, NullArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::{Accumulator, Rows, nulls_of, passed};
use crate::error::Result;

/// Groups up to which counts of one batch are kept in several banks, so that a row need not wait for the
/// last one of its group.
const BANKED_GROUPS_MAX: usize = 512;

/// Counts by group.
#[derive(Default)]
struct Counts(Vec<i64>);

impl Counts {
    fn reach(&mut self, groups: usize) -> &mut [i64] {
        if self.0.len() < groups {
            self.0.resize(groups, 0);
        }
        &mut self.0
    }

    fn add_all(&mut self, rows: &Rows) {
        let counts = self.reach(rows.groups);
        match rows.ids {
            None if rows.rows == 0 => {}
            None => counts[0] += rows.rows as i64,
            Some(ids) if rows.groups <= BANKED_GROUPS_MAX && ids.len() >= rows.groups => {
                let mut banks = [[0u32; 4]; BANKED_GROUPS_MAX];
                let (quads, rest) = ids.as_chunks::<4>();
                for quad in quads {
                    for (bank, id) in quad.iter().enumerate() {
                        banks[*id as usize][bank] += 1;
                    }
                }
                for id in rest {
                    banks[*id as usize][0] += 1;
                }
                for (count, banks) in counts.iter_mut().zip(&banks) {
                    *count += banks.iter().map(|b| i64::from(*b)).sum::<i64>();
                }
            }
            Some(ids) => ids.iter().for_each(|id| counts[*id as usize] += 1),
        }
    }

    /// Adds one for each row that is valid, or (`nulls`) that is not.
    fn add_where(&mut self, rows: &Rows, validity: &NullBuffer, wanted: bool) {
        let counts = self.reach(rows.groups);
        match rows.ids {
            None => {
                let nulls = validity.null_count();
                counts[0] += if wanted { rows.rows - nulls } else { nulls } as i64;
            }
            Some(ids) => {
                for (id, valid) in ids.iter().zip(validity) {
                    counts[*id as usize] += i64::from(valid == wanted);
                }
            }
        }
    }

    fn merge(&mut self, rows: &Rows, states: &ArrayRef) {
        let counts = self.reach(rows.groups);
        // A column of nothing: all zero.
        if states.data_type() == &DataType::Null {
            return;
        }
        let states = states.as_primitive::<Int64Type>().values();
        match rows.ids {
            None => counts.iter_mut().take(1).for_each(|c| *c += states.iter().sum::<i64>()),
            Some(ids) => ids.iter().zip(states).for_each(|(id, n)| counts[*id as usize] += n),
        }
    }

    fn take(&mut self, groups: usize) -> ArrayRef {
        let mut counts = std::mem::take(&mut self.0);
        counts.resize(groups, 0);
        Arc::new(Int64Array::from(counts))
    }
}

/// `count(*)`.
#[derive(Default)]
pub(in super::super) struct CountRows(Counts);

impl Accumulator for CountRows {
    fn update(&mut self, rows: &Rows, _args: &[ArrayRef]) -> Result<()> {
        self.0.add_all(rows);
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(rows, &states[0]);
        Ok(())
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.0.take(groups)])
    }

    fn row_states(
        &self,
        _args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        Ok(Some(vec![ones(filter.map(passed), rows)]))
    }

    fn memory_bytes(&self) -> usize {
        self.0.0.capacity() * 8
    }
}

/// `count(x, ...)`: rows without a null among the arguments.
#[derive(Default)]
pub(in super::super) struct CountValues(Counts);

impl Accumulator for CountValues {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        match all_valid(args) {
            None => self.0.add_all(rows),
            Some(validity) => self.0.add_where(rows, &validity, true),
        }
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(rows, &states[0]);
        Ok(())
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.0.take(groups)])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        let validity = NullBuffer::union(all_valid(args).as_ref(), filter.map(passed).as_ref());
        Ok(Some(vec![ones(validity, rows)]))
    }

    fn memory_bytes(&self) -> usize {
        self.0.0.capacity() * 8
    }
}

/// Rows with a null among the arguments. Costs nothing as long as there are none.
#[derive(Default)]
pub(in super::super) struct NullCount {
    counts: Counts,
    any: bool,
}

impl Accumulator for NullCount {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        if let Some(validity) = all_valid(args) {
            self.any = true;
            self.counts.add_where(rows, &validity, false);
        }
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        if states[0].data_type() != &DataType::Null {
            self.any = true;
            self.counts.merge(rows, &states[0]);
        }
        Ok(())
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![if std::mem::take(&mut self.any) {
            self.counts.take(groups)
        } else {
            Arc::new(NullArray::new(groups))
        }])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        let Some(validity) = all_valid(args) else {
            return Ok(Some(vec![Arc::new(NullArray::new(rows))]));
        };
        let null = NullBuffer::new(!validity.inner());
        Ok(Some(vec![ones(NullBuffer::union(Some(&null), filter.map(passed).as_ref()), rows)]))
    }

    fn memory_bytes(&self) -> usize {
        self.counts.0.capacity() * 8
    }
}

/// The rows in which no argument is null; none if that is all rows.
fn all_valid(args: &[ArrayRef]) -> Option<NullBuffer> {
    let mut validity = None;
    for arg in args {
        let logical = match arg.data_type() {
            DataType::Dictionary(_, _) | DataType::Null => arg.logical_nulls(),
            _ => nulls_of(arg).cloned(),
        };
        validity = NullBuffer::union(validity.as_ref(), logical.as_ref());
    }
    validity.filter(|v| v.null_count() > 0)
}

/// 1 for valid rows, else 0.
fn ones(validity: Option<NullBuffer>, rows: usize) -> ArrayRef {
    match validity {
        None => Arc::new(Int64Array::from(vec![1; rows])),
        Some(validity) => Arc::new(Int64Array::from_iter_values(validity.iter().map(i64::from))),
    }
}
