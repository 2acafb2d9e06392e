//! Accumulators: the state of one aggregate over many groups, column by column.
//!
//! An accumulator holds a vector of states indexed by group number and is fed whole batches. Ours are
//! compiled for each type of value; every other function of the library runs as DataFusion's own
//! accumulator (`library`). In two-phase aggregation states leave as columns ([`Accumulator::take_states`])
//! and are merged elsewhere; their physical types are between the accumulators of one kind alone.
//!
//! What always holds: group numbers are below `Rows::groups`; an accumulator that was never fed has the
//! state of no rows for every group.

mod count;
mod first;
mod float_sum;
mod int_sum;
mod library;
mod min_max;
mod min_max_text;
mod seen;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

pub(super) use self::count::{CountRows, CountValues, NullCount};
pub(super) use self::first::FirstValue;
pub(super) use self::float_sum::FloatSum;
pub(super) use self::int_sum::{IntSum, wide_values};
pub(super) use self::library::{LibraryAccumulator, LibraryCall};
pub(super) use self::min_max::new_min_max;
pub(super) use self::min_max_text::MinMaxText;
use crate::error::Result;

/// The rows that are fed: how many, and the group of each.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// By row; none if all rows are of group 0.
    pub ids: Option<&'a [u32]>,
    /// Groups there are by now.
    pub groups: usize,
    pub rows: usize,
    /// Every group that has come up since the last feed has a row in this one: no filter took it.
    pub complete: bool,
}

/// The states of one aggregate.
pub(super) trait Accumulator: Send {
    /// Feeds rows of arguments.
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()>;

    /// Feeds rows of states of the same kind.
    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()>;

    /// The states of groups `0..groups` as columns, always the same number of them; nothing is left.
    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>>;

    /// What results are computed from: the states unless they are more than that. Nothing is left.
    fn take_results(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        self.take_states(groups)
    }

    /// Each row's own state, as if it were a group; rows that the filter does not pass have the state of no
    /// rows. None if that is not worth while: the rows must be fed.
    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>>;

    /// Number of state columns.
    fn state_columns(&self) -> usize {
        1
    }

    /// Memory for `groups` groups, bytes, about.
    fn memory_bytes(&self) -> usize;
}

/// An array's nulls, if there is one.
fn nulls_of(array: &dyn Array) -> Option<&NullBuffer> {
    array.nulls().filter(|n| n.null_count() > 0)
}

/// The rows that a filter passes: true, not null.
fn passed(filter: &BooleanArray) -> NullBuffer {
    let values = filter.values().clone();
    NullBuffer::new(match nulls_of(filter) {
        Some(nulls) => &values & nulls.inner(),
        None => values,
    })
}

/// The array with nulls where the filter does not pass.
fn nulled(array: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
    let Some(filter) = filter else { return Ok(array.clone()) };
    if array.data_type() == &DataType::Null {
        return Ok(array.clone());
    }
    let nulls = NullBuffer::union(Some(&passed(filter)), array.logical_nulls().as_ref());
    match array.data_type() {
        DataType::Dictionary(_, value) => nulled(&arrow::compute::cast(array, value)?, Some(filter)),
        _ => Ok(arrow::array::make_array(array.to_data().into_builder().nulls(nulls).build()?)),
    }
}
