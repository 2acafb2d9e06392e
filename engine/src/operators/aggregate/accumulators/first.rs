//! FIRST_VALUE, LAST_VALUE and ANY_VALUE of any type, in the order in which rows are fed.
//!
//! A group's value is a place in arrays that are kept: of each batch, only the rows that became some
//! group's value. With an ORDER BY the rows come sorted, so first and last are what they should be.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;

use super::{Accumulator, Rows, nulled, passed};
use crate::batch::to_logical;
use crate::error::Result;

/// The place of a group without a value: the one null of the first array.
const UNSET: (u32, u32) = (0, 0);

/// First or last values by group. A state is the value, and whether there is one, null or not.
pub(in super::super) struct FirstValue {
    logical: DataType,
    last: bool,
    ignore_nulls: bool,
    /// By group: which of `kept`, and which row of it.
    places: Vec<(u32, u32)>,
    kept: Vec<ArrayRef>,
}

impl FirstValue {
    pub(in super::super) fn new(logical: DataType, last: bool, ignore_nulls: bool) -> Self {
        FirstValue { logical, last, ignore_nulls, places: vec![], kept: vec![] }
    }

    /// Feeds the rows for which `wanted` holds.
    fn feed(&mut self, rows: &Rows, array: &ArrayRef, wanted: impl Fn(usize) -> bool) -> Result<()> {
        if self.kept.is_empty() {
            self.kept.push(new_null_array(&self.logical, 1));
        }
        if self.places.len() < rows.groups {
            self.places.resize(rows.groups, UNSET);
        }
        let current = self.kept.len() as u32;
        let mut taken: Vec<u32> = vec![];
        for row in 0..rows.rows {
            let place = &mut self.places[rows.ids.map_or(0, |ids| ids[row] as usize)];
            let replaces = *place == UNSET || self.last;
            if !replaces || !wanted(row) {
                continue;
            }
            if place.0 == current {
                taken[place.1 as usize] = row as u32;
            } else {
                *place = (current, taken.len() as u32);
                taken.push(row as u32);
            }
        }
        if !taken.is_empty() {
            let values = take(array, &UInt32Array::from(taken), None)?;
            self.kept.push(to_logical(&values, &self.logical)?);
        }
        if self.last && self.kept.len() > 1024 {
            self.compact()?;
        }
        Ok(())
    }

    /// One array instead of many, most of whose rows may have been replaced.
    fn compact(&mut self) -> Result<()> {
        let values = self.interleaved(self.places.len())?;
        self.kept.truncate(1);
        self.kept.push(values);
        for (group, place) in self.places.iter_mut().enumerate() {
            if *place != UNSET {
                *place = (1, group as u32);
            }
        }
        Ok(())
    }

    fn interleaved(&self, groups: usize) -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = self.kept.iter().map(|a| a.as_ref()).collect();
        let places: Vec<(usize, usize)> = (0..groups)
            .map(|group| self.places.get(group).unwrap_or(&UNSET))
            .map(|(array, row)| (*array as usize, *row as usize))
            .collect();
        if arrays.is_empty() || places.is_empty() {
            return Ok(new_null_array(&self.logical, groups));
        }
        Ok(interleave(&arrays, &places)?)
    }
}

impl Accumulator for FirstValue {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        let array = &args[0];
        match array.logical_nulls().filter(|n| self.ignore_nulls && n.null_count() > 0) {
            None => self.feed(rows, array, |_| true),
            Some(nulls) => self.feed(rows, array, |row| nulls.is_valid(row)),
        }
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        let set = states[1].as_boolean();
        self.feed(rows, &states[0], |row| set.value(row))
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let values = self.interleaved(groups)?;
        let is_set = |group: usize| Some(self.places.get(group).is_some_and(|place| *place != UNSET));
        let set: BooleanArray = (0..groups).map(is_set).collect();
        self.places.clear();
        self.kept.clear();
        Ok(vec![values, Arc::new(set)])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        let values = to_logical(&args[0], &self.logical)?;
        let nulls = values.logical_nulls().filter(|_| self.ignore_nulls);
        let filter_passed = filter.map(passed);
        let set = arrow::buffer::NullBuffer::union(nulls.as_ref(), filter_passed.as_ref());
        let set: BooleanArray =
            (0..rows).map(|row| Some(set.as_ref().is_none_or(|s| s.is_valid(row)))).collect();
        Ok(Some(vec![nulled(&values, filter)?, Arc::new(set)]))
    }

    fn state_columns(&self) -> usize {
        2
    }

    fn memory_bytes(&self) -> usize {
        self.places.capacity() * 8 + self.kept.iter().map(|a| a.get_array_memory_size()).sum::<usize>()
    }
}
