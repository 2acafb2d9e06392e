//! Key columns that are rows of one table: the build side of a join, seen through the same row numbers.
//!
//! Grouping by an item's id, name, category and price is grouping by rows of the item table. Each row of
//! it is looked up once, in a group table of its own; from then on its number stands for all of its columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::{AfterTake, GroupTable};
use crate::batch::Column;
use crate::error::Result;

const UNKNOWN: u32 = u32::MAX;
/// Looked up in the current batch.
const PENDING: u32 = u32::MAX - 1;
/// Larger tables are not worth an array of codes.
const ROWS_MAX: usize = 1 << 24;

/// Several key columns held as one code per distinct combination.
pub(super) struct Composite {
    table: GroupTable,
    /// The columns that `known` has codes for, by row.
    bases: Vec<ArrayRef>,
    known: Vec<u32>,
    /// Codes of the current batch.
    pub(super) codes: Vec<u32>,
}

/// Whether columns are rows of one table that is small enough.
pub(super) fn is_one_table(columns: &[&Column]) -> bool {
    let Some(indices) = columns[0].indices() else { return false };
    columns.iter().all(|c| c.indices().is_some_and(|i| Arc::ptr_eq(i, indices)))
        && columns.iter().all(|c| c.base().len() == columns[0].base().len())
        && columns[0].base().len() <= ROWS_MAX
}

impl Composite {
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Composite { table: GroupTable::new(types)?, bases: vec![], known: vec![], codes: vec![] })
    }

    /// Distinct combinations so far; codes are below.
    pub(super) fn distinct(&self) -> usize {
        self.table.len()
    }

    /// Memory that is read for every row, bytes.
    pub(super) fn hot_bytes(&self) -> usize {
        self.known.len() * 4
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.known.capacity() * 4
    }

    /// Fills `codes` with the codes of a batch's columns.
    pub(super) fn encode(&mut self, columns: &[&Column], rows: usize) -> Result<()> {
        self.codes.clear();
        if !is_one_table(columns) {
            let columns: Vec<Column> = columns.iter().map(|c| (*c).clone()).collect();
            return self.table.assign(&columns, rows, &mut self.codes);
        }
        let same = self.bases.len() == columns.len()
            && self.bases.iter().zip(columns).all(|(base, column)| Arc::ptr_eq(base, column.base()));
        if !same {
            self.bases = columns.iter().map(|c| c.base().clone()).collect();
            self.known.clear();
            self.known.resize(self.bases[0].len(), UNKNOWN);
        }
        let indices = columns[0].indices().expect("invariant: one table is seen through indices").clone();
        self.look_up_new(&indices)?;
        let null = if indices.null_count() > 0 { self.code_of_nulls()? } else { 0 };
        let known = &self.known;
        match indices.nulls().filter(|n| n.null_count() > 0) {
            None => self.codes.extend(indices.values().iter().map(|row| known[*row as usize])),
            Some(nulls) => {
                let codes = indices.values().iter().zip(nulls);
                self.codes.extend(codes.map(|(row, valid)| if valid { known[*row as usize] } else { null }));
            }
        }
        Ok(())
    }

    /// Finds codes for the rows of the table that come for the first time.
    fn look_up_new(&mut self, indices: &UInt32Array) -> Result<()> {
        let mut new = vec![];
        let mut note = |row: u32| {
            if self.known[row as usize] == UNKNOWN {
                self.known[row as usize] = PENDING;
                new.push(row);
            }
        };
        match indices.nulls().filter(|n| n.null_count() > 0) {
            None => indices.values().iter().for_each(|row| note(*row)),
            Some(nulls) => nulls.valid_indices().for_each(|i| note(indices.value(i))),
        }
        if new.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(new);
        let columns = self
            .bases
            .iter()
            .map(|base| Ok(Column::new(take(base, &rows, None)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut found = vec![];
        self.table.assign(&columns, rows.len(), &mut found)?;
        for (row, code) in rows.values().iter().zip(found) {
            self.known[*row as usize] = code;
        }
        Ok(())
    }

    /// The code of rows that an outer join filled with nulls.
    fn code_of_nulls(&mut self) -> Result<u32> {
        let columns: Vec<Column> = self
            .bases
            .iter()
            .map(|base| Column::new(arrow::array::new_null_array(base.data_type(), 1)))
            .collect();
        let mut found = vec![];
        self.table.assign(&columns, 1, &mut found)?;
        Ok(found[0])
    }

    /// The columns of the codes, one row for each group; nothing is known then.
    pub(super) fn take(&mut self, codes: Vec<u32>, then: AfterTake) -> Result<Vec<ArrayRef>> {
        self.known.fill(UNKNOWN);
        let columns = self.table.take_keys(then)?;
        if codes.iter().zip(0u32..).all(|(code, row)| *code == row) {
            return Ok(columns.iter().map(|c| c.slice(0, codes.len())).collect());
        }
        let rows = UInt32Array::from(codes);
        columns.iter().map(|c| Ok(take(c, &rows, None)?)).collect()
    }
}
