//! DISTINCT inside aggregates: which rows bring a combination of arguments that their group has not had.
//!
//! A set is a group table over the group number and the arguments. Units over the same arguments under
//! the same filter (`count(DISTINCT x)`, `sum(DISTINCT x)`) share one.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::DataType;

use super::group_table::GroupTable;
use super::shape::Unit;
use crate::batch::Column;
use crate::error::Result;

/// The sets of an aggregation, made when first asked for.
#[derive(Default)]
pub(super) struct DistinctSets {
    sets: Vec<DistinctSet>,
}

struct DistinctSet {
    args: Vec<usize>,
    filter: Option<usize>,
    table: GroupTable,
    found: Vec<u32>,
}

impl DistinctSets {
    /// Memory of all sets, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.sets.iter().map(|s| s.table.memory_bytes() + s.found.capacity() * size_of::<u32>()).sum()
    }

    /// The rows, in order, that are the first with their group and arguments, in this batch and all
    /// before it.
    pub(super) fn first_rows(
        &mut self,
        unit: &Unit,
        ids: Option<&[u32]>,
        args: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<u32>> {
        let known = self.sets.iter().position(|s| s.args == unit.args && s.filter == unit.filter);
        let position = match known {
            Some(position) => position,
            None => {
                let group = ids.map(|_| DataType::UInt32);
                let types: Vec<DataType> = group.into_iter().chain(unit.arg_types.iter().cloned()).collect();
                let table = GroupTable::new(&types)?;
                let found = vec![];
                self.sets.push(DistinctSet { args: unit.args.clone(), filter: unit.filter, table, found });
                self.sets.len() - 1
            }
        };
        let set = &mut self.sets[position];
        let group = ids.map(|ids| Column::new(Arc::new(UInt32Array::from(ids.to_vec()))));
        let keys: Vec<Column> = group.into_iter().chain(args.iter().cloned().map(Column::new)).collect();
        let mut next = set.table.len() as u32;
        set.table.assign(&keys, rows, &mut set.found)?;
        // New combinations are numbered in the order of their first rows.
        let mut first = vec![];
        for (row, id) in set.found.iter().enumerate() {
            if *id == next {
                first.push(row as u32);
                next += 1;
            }
        }
        Ok(first)
    }
}
