//! Puts tiny output batches together.
//!
//! What every operator downstream spends on a batch, however small, soon outweighs gathering a few rows.
//! Larger batches go on untouched.

use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::datatypes::DataType;

use super::concat::concat;
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::Result;
use crate::task::{Downstream, Flow};

/// Batches of fewer rows are held back.
const TINY: usize = BATCH_ROWS / 16;
const ROWS_HELD_MAX: usize = BATCH_ROWS / 2;
/// Each holds on to the arrays that its columns point into.
const BATCHES_HELD_MAX: usize = 64;

/// What a task has held back.
pub struct Coalescer {
    /// Logical types of the columns.
    types: Vec<DataType>,
    held: Vec<Batch>,
    rows: usize,
}

impl Coalescer {
    pub fn new(types: Vec<DataType>) -> Self {
        Coalescer { types, held: vec![], rows: 0 }
    }

    /// Hands on the batch, or holds it back.
    pub fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        if batch.rows >= TINY {
            if self.flush(out)? == Flow::Done {
                return Ok(Flow::Done);
            }
            return out.push(batch);
        }
        self.rows += batch.rows;
        self.held.push(batch);
        if self.rows >= ROWS_HELD_MAX || self.held.len() >= BATCHES_HELD_MAX {
            return self.flush(out);
        }
        Ok(Flow::Continue)
    }

    /// Hands on what was held back.
    pub fn flush(&mut self, out: &mut dyn Downstream) -> Result<Flow> {
        let rows = std::mem::take(&mut self.rows);
        let mut held = std::mem::take(&mut self.held);
        match held.len() {
            0 => Ok(Flow::Continue),
            1 => out.push(held.remove(0)),
            _ => out.push(merge(&held, rows, &self.types)?),
        }
    }
}

fn merge(batches: &[Batch], rows: usize, types: &[DataType]) -> Result<Batch> {
    // Index lists merged already, by where their parts are.
    let mut merged: Vec<(Vec<*const UInt32Array>, Arc<UInt32Array>)> = vec![];
    let mut columns = vec![];
    for (i, logical) in types.iter().enumerate() {
        let pieces: Vec<Column> = batches.iter().map(|b| b.columns[i].clone()).collect();
        let Some(parts) = indices_into_one(&pieces) else {
            columns.push(Column::new(concat(&pieces, logical)?));
            continue;
        };
        let key: Vec<*const UInt32Array> = parts.iter().map(|p| Arc::as_ptr(p)).collect();
        let indices = match merged.iter().find(|(k, _)| *k == key) {
            Some((_, indices)) => indices.clone(),
            None => {
                let indices = Arc::new(join_indices(&parts, rows));
                merged.push((key, indices.clone()));
                indices
            }
        };
        columns.push(Column::indexed(pieces[0].base().clone(), indices));
    }
    Ok(Batch { columns, rows })
}

/// The pieces' indices, if all point into one array.
fn indices_into_one(pieces: &[Column]) -> Option<Vec<&Arc<UInt32Array>>> {
    let base = Arc::as_ptr(pieces[0].base());
    let same = pieces.iter().all(|p| std::ptr::addr_eq(Arc::as_ptr(p.base()), base));
    pieces.iter().map(|p| p.indices().filter(|_| same)).collect()
}

fn join_indices(parts: &[&Arc<UInt32Array>], rows: usize) -> UInt32Array {
    if parts.iter().any(|p| p.null_count() > 0) {
        return parts.iter().flat_map(|p| p.iter()).collect();
    }
    let mut all = Vec::with_capacity(rows);
    parts.iter().for_each(|p| all.extend_from_slice(p.values()));
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    struct Sizes(Vec<usize>, Vec<i64>);

    impl Downstream for Sizes {
        fn push(&mut self, batch: Batch) -> Result<Flow> {
            self.0.push(batch.rows);
            for column in &batch.columns {
                let values = column.values()?;
                let values = values.as_any().downcast_ref::<Int64Array>().unwrap();
                self.1.extend(values.iter().map(|v| v.unwrap_or(-1)));
            }
            Ok(Flow::Continue)
        }
    }

    #[test]
    fn tiny_batches_wait_for_each_other_and_order_is_kept() {
        let mut coalescer = Coalescer::new(vec![DataType::Int64]);
        let mut out = Sizes(vec![], vec![]);
        let batch = |values: Vec<i64>| {
            let rows = values.len();
            Batch::from_arrays(vec![Arc::new(Int64Array::from(values)) as ArrayRef], rows)
        };
        coalescer.push(batch(vec![1, 2]), &mut out).unwrap();
        coalescer.push(batch(vec![3]), &mut out).unwrap();
        coalescer.push(batch(vec![4; 5000]), &mut out).unwrap();
        coalescer.push(batch(vec![5]), &mut out).unwrap();
        assert_eq!(out.0, [3, 5000]);
        coalescer.flush(&mut out).unwrap();
        assert_eq!(out.0, [3, 5000, 1]);
        assert_eq!(out.1[..4], [1, 2, 3, 4]);
    }

    #[test]
    fn columns_over_one_array_stay_lazy_and_share_indices() {
        let base: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12]));
        let piece = |indices: Vec<Option<u32>>| {
            let rows = indices.len();
            let indices = Arc::new(UInt32Array::from(indices));
            let column = || Column::indexed(base.clone(), indices.clone());
            Batch { columns: vec![column(), column()], rows }
        };
        let batches = [piece(vec![Some(2), None]), piece(vec![Some(0)])];
        let merged = merge(&batches, 3, &[DataType::Int64, DataType::Int64]).unwrap();
        assert!(Arc::ptr_eq(merged.columns[0].indices().unwrap(), merged.columns[1].indices().unwrap()));
        let values = merged.columns[1].values().unwrap();
        assert_eq!(values.as_ref(), &Int64Array::from(vec![Some(12), None, Some(10)]) as &dyn Array);
    }
}
