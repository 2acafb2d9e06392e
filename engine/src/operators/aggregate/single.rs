//! Aggregation in one phase: all rows of a group are here. For DISTINCT and ordered aggregates.

use arrow::array::{Array, ArrayRef};

use super::accumulators::{Accumulator, Rows};
use super::distinct::DistinctSets;
use super::group_table::{AfterTake, GroupTable};
use super::ordered::OrderedRows;
use super::shape::Shape;
use super::{feed, finish};
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::Result;
use crate::task::Source;

/// Rows that are aggregated at a time; larger batches are cut.
const CHUNK_ROWS: usize = 1 << 14;

/// The groups of one partition of rows. The work is done at the first call.
pub(super) struct SingleSource {
    shape: Shape,
    batches: Vec<Batch>,
    is_first_partition: bool,
    result: Option<ResultRows>,
}

impl SingleSource {
    pub(super) fn new(shape: Shape, batches: Vec<Batch>, is_first_partition: bool) -> Self {
        SingleSource { shape, batches, is_first_partition, result: None }
    }

    fn aggregate(&mut self) -> Result<ResultRows> {
        let types = self.shape.key_types();
        let mut table = if types.is_empty() { None } else { Some(GroupTable::new(&types)?) };
        let mut accumulators = self.shape.accumulators()?;
        let mut sets = DistinctSets::default();
        let mut ordered = OrderedRows::new(&self.shape);
        let mut ids = vec![];
        for batch in std::mem::take(&mut self.batches) {
            for start in (0..batch.rows).step_by(CHUNK_ROWS) {
                let rows = CHUNK_ROWS.min(batch.rows - start);
                let chunk = if rows == batch.rows { batch.clone() } else { batch.slice(start, rows) };
                let columns = self.shape.inputs.evaluate(&chunk)?;
                let groups = match &mut table {
                    None => 1,
                    Some(table) => {
                        let keys: Vec<Column> =
                            self.shape.keys.iter().map(|(slot, _)| columns[*slot].clone()).collect();
                        table.assign(&keys, rows, &mut ids)?;
                        table.len()
                    }
                };
                let ids = table.as_ref().map(|_| ids.as_slice());
                let fed = Rows { ids, groups, rows, complete: true };
                feed::update(&self.shape.units, &mut accumulators, &mut sets, &columns, &fed)?;
                ordered.keep(&columns, &fed)?;
            }
        }
        let groups = table.as_ref().map_or(1, GroupTable::len);
        ordered.feed(&self.shape, &mut accumulators, groups)?;
        ResultRows::take(&self.shape, table.as_mut(), &mut accumulators, self.is_first_partition)
    }
}

impl Source for SingleSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        if self.result.is_none() {
            self.result = Some(self.aggregate()?);
        }
        Ok(self.result.as_mut().and_then(ResultRows::next))
    }
}

/// Finished groups, handed out in batches.
pub(super) struct ResultRows {
    columns: Vec<ArrayRef>,
    rows: usize,
    next: usize,
}

impl ResultRows {
    /// No rows.
    pub(super) fn none() -> Self {
        ResultRows { columns: vec![], rows: 0, next: 0 }
    }

    /// The rows of a table and its accumulators, which are empty then. Without a table there is one row, in
    /// the first partition.
    pub(super) fn take(
        shape: &Shape,
        table: Option<&mut GroupTable>,
        accumulators: &mut [Box<dyn Accumulator>],
        is_first_partition: bool,
    ) -> Result<Self> {
        let rows = match &table {
            Some(table) => table.len(),
            None => usize::from(is_first_partition),
        };
        if rows == 0 {
            return Ok(ResultRows::none());
        }
        let mut columns = match table {
            Some(table) => table.take_keys(AfterTake::KeepLayout)?,
            None => vec![],
        };
        let mut units = Vec::with_capacity(accumulators.len());
        for accumulator in accumulators {
            units.push(accumulator.take_results(rows)?);
        }
        for call in shape.results.iter() {
            columns.push(finish::result(call, &units)?);
        }
        Ok(ResultRows { columns, rows, next: 0 })
    }

    pub(super) fn next(&mut self) -> Option<Batch> {
        let rows = BATCH_ROWS.min(self.rows - self.next);
        if rows == 0 {
            return None;
        }
        let columns = self.columns.iter().map(|c| c.slice(self.next, rows)).collect();
        self.next += rows;
        Some(Batch::from_arrays(columns, rows))
    }
}
