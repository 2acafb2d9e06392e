//! Aggregates with an ORDER BY of their own: their rows are kept, sorted, and fed in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::{SortColumn, filter, lexsort_to_indices, take};
use arrow::datatypes::DataType;
use dovetail_shuffle::Rows as HeldRows;
use dovetail_shuffle::memory::HeldMemory;

use super::accumulators::{Accumulator, Rows};
use super::distinct::DistinctSets;
use super::feed;
use super::shape::{Shape, Unit};
use crate::batch::{Column, concat_arrays};
use crate::error::Result;

/// Rows of the ordered units.
pub(super) struct OrderedRows {
    units: Vec<KeptRows>,
    held: HeldMemory,
}

struct KeptRows {
    /// The unit's position in the shape.
    position: usize,
    unit: Unit,
    ids: Vec<u32>,
    rows: usize,
    /// By argument, then by sort key: pieces of the column.
    pieces: Vec<Vec<ArrayRef>>,
}

impl OrderedRows {
    pub(super) fn new(shape: &Shape) -> Self {
        let ordered = shape.units.iter().enumerate().filter(|(_, unit)| !unit.order.is_empty());
        let units = ordered
            .map(|(position, unit)| KeptRows {
                position,
                unit: unit.clone(),
                ids: vec![],
                rows: 0,
                pieces: vec![vec![]; unit.args.len() + unit.order.len()],
            })
            .collect();
        OrderedRows { units, held: HeldMemory::default() }
    }

    /// Memory of what is kept, and of the copies that sorting will make of it, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let ids: usize = self.units.iter().map(|u| u.ids.capacity() * size_of::<u32>()).sum();
        2 * (self.held.bytes() + ids)
    }

    /// Keeps what the units need of a batch.
    pub(super) fn keep(&mut self, columns: &[Column], rows: &Rows) -> Result<()> {
        for kept in &mut self.units {
            let mask = kept.unit.filter.map(|slot| feed::mask(&columns[slot])).transpose()?;
            let mut held = vec![];
            let slots = kept.unit.args.iter().copied().chain(kept.unit.order.iter().map(|k| k.slot));
            for (slot, pieces) in slots.zip(&mut kept.pieces) {
                let values = columns[slot].values()?;
                let piece = match &mask {
                    None => values,
                    Some(mask) => filter(&values, mask)?,
                };
                held.push(piece.clone());
                pieces.push(piece);
            }
            let held_rows = held.first().map_or(0, |a| a.len());
            self.held.add(&HeldRows::new(held, held_rows));
            let passed: Option<Vec<usize>> = mask.as_ref().map(|m| m.values().set_indices().collect());
            kept.rows += passed.as_ref().map_or(rows.rows, Vec::len);
            match (rows.ids, passed) {
                (None, _) => {}
                (Some(ids), None) => kept.ids.extend_from_slice(ids),
                (Some(ids), Some(passed)) => kept.ids.extend(passed.into_iter().map(|row| ids[row])),
            }
        }
        Ok(())
    }

    /// Feeds every unit its rows, sorted.
    pub(super) fn feed(
        self,
        shape: &Shape,
        accumulators: &mut [Box<dyn Accumulator>],
        groups: usize,
    ) -> Result<()> {
        let grouped = !shape.keys.is_empty();
        for kept in self.units {
            let unit = &kept.unit;
            let types = unit.arg_types.iter().chain(unit.order.iter().map(|k| &k.logical));
            let columns = kept
                .pieces
                .iter()
                .zip(types)
                .map(|(pieces, logical)| concat_arrays(pieces, plain(logical)))
                .collect::<Result<Vec<_>>>()?;
            let (args, keys) = columns.split_at(unit.args.len());
            let order = order_of(grouped.then_some(&kept.ids), keys, unit, kept.rows)?;
            let mut args = args.iter().map(|a| Ok(take(a, &order, None)?)).collect::<Result<Vec<_>>>()?;
            let mut ids = grouped.then(|| permuted(&kept.ids, &order));
            let mut rows = kept.rows;
            if unit.distinct {
                // Not shared: every ordered unit sees its rows in an order of its own.
                let first = DistinctSets::default().first_rows(unit, ids.as_deref(), &args, rows)?;
                rows = first.len();
                let first = UInt32Array::from(first);
                args = args.iter().map(|a| Ok(take(a, &first, None)?)).collect::<Result<Vec<_>>>()?;
                ids = ids.map(|ids| permuted(&ids, &first));
            }
            let rows = Rows { ids: ids.as_deref(), groups, rows, complete: false };
            accumulators[kept.position].update(&rows, &args)?;
        }
        Ok(())
    }
}

fn plain(logical: &DataType) -> &DataType {
    match logical {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

/// The rows by group, then by sort keys, then as they came.
fn order_of(ids: Option<&Vec<u32>>, keys: &[ArrayRef], unit: &Unit, rows: usize) -> Result<UInt32Array> {
    let mut columns: Vec<SortColumn> = vec![];
    if let Some(ids) = ids {
        columns.push(SortColumn { values: Arc::new(UInt32Array::from(ids.clone())), options: None });
    }
    for (key, array) in unit.order.iter().zip(keys) {
        columns.push(SortColumn { values: array.clone(), options: Some(key.options) });
    }
    let arrival = UInt64Array::from_iter_values(0..rows as u64);
    columns.push(SortColumn { values: Arc::new(arrival), options: None });
    Ok(lexsort_to_indices(&columns, None)?)
}

fn permuted(ids: &[u32], order: &UInt32Array) -> Vec<u32> {
    order.values().iter().map(|row| ids[*row as usize]).collect()
}
