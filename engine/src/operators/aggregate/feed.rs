//! Feeds a batch of rows, whose groups are known, to accumulators.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter, prep_null_mask_filter, take};
use arrow::datatypes::DataType;

use super::accumulators::{Accumulator, Rows};
use super::distinct::DistinctSets;
use super::shape::Unit;
use crate::batch::{Column, to_logical};
use crate::error::Result;

/// Some rows of a batch, picked once for all units that want the same.
struct Picked {
    filter: Option<usize>,
    distinct: Option<Vec<usize>>,
    ids: Option<Vec<u32>>,
    rows: usize,
    mask: Option<BooleanArray>,
    first_rows: Option<UInt32Array>,
}

/// Feeds the units that need no order. `ids` is none if all rows are of group 0.
pub(super) fn update(
    units: &[Unit],
    accumulators: &mut [Box<dyn Accumulator>],
    sets: &mut DistinctSets,
    columns: &[Column],
    rows: &Rows,
) -> Result<()> {
    let mut picks: Vec<Picked> = vec![];
    for (unit, accumulator) in units.iter().zip(accumulators) {
        if !unit.order.is_empty() {
            continue;
        }
        if unit.filter.is_none() && !unit.distinct {
            accumulator.update(rows, &arguments(unit, columns)?)?;
            continue;
        }
        let wanted = (unit.filter, unit.distinct.then_some(&unit.args));
        let known = picks.iter().position(|p| (p.filter, p.distinct.as_ref()) == wanted);
        let position = match known {
            Some(position) => position,
            None => {
                picks.push(pick(unit, sets, columns, rows)?);
                picks.len() - 1
            }
        };
        let picked = &picks[position];
        let args = arguments(unit, columns)?.iter().map(|a| picked.apply(a)).collect::<Result<Vec<_>>>()?;
        let ids = picked.ids.as_deref();
        let picked_rows = Rows { ids, groups: rows.groups, rows: picked.rows, complete: false };
        accumulator.update(&picked_rows, &args)?;
    }
    Ok(())
}

/// A unit's arguments in the form in which its accumulator takes them.
pub(super) fn arguments(unit: &Unit, columns: &[Column]) -> Result<Vec<ArrayRef>> {
    unit.args
        .iter()
        .map(|slot| {
            let array = columns[*slot].values()?;
            match array.data_type() {
                DataType::Dictionary(_, value) if !unit.kind.takes_dictionaries() => {
                    to_logical(&array, value)
                }
                _ => Ok(array),
            }
        })
        .collect()
}

/// A filter's rows that are true; null is not.
pub(super) fn mask(column: &Column) -> Result<BooleanArray> {
    let values = column.to_logical(&DataType::Boolean)?;
    let mask = values.as_boolean();
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

fn pick(unit: &Unit, sets: &mut DistinctSets, columns: &[Column], rows: &Rows) -> Result<Picked> {
    let mut picked = Picked {
        filter: unit.filter,
        distinct: unit.distinct.then(|| unit.args.clone()),
        ids: rows.ids.map(|ids| ids.to_vec()),
        rows: rows.rows,
        mask: None,
        first_rows: None,
    };
    if let Some(slot) = unit.filter {
        let mask = mask(&columns[slot])?;
        picked.rows = mask.true_count();
        if let Some(ids) = &mut picked.ids {
            *ids = mask.values().set_indices().map(|row| ids[row]).collect();
        }
        picked.mask = Some(mask);
    }
    if unit.distinct {
        let args: Vec<ArrayRef> =
            unit.args.iter().map(|slot| picked.apply(&columns[*slot].values()?)).collect::<Result<_>>()?;
        let first = sets.first_rows(unit, picked.ids.as_deref(), &args, picked.rows)?;
        if let Some(ids) = &mut picked.ids {
            *ids = first.iter().map(|row| ids[*row as usize]).collect();
        }
        picked.rows = first.len();
        picked.first_rows = Some(UInt32Array::from(first));
    }
    Ok(picked)
}

impl Picked {
    /// The picked rows of an array of the batch.
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let mut array = array.clone();
        if let Some(mask) = &self.mask {
            array = filter(&array, mask)?;
        }
        if let Some(rows) = &self.first_rows {
            array = take(&array, rows, None)?;
        }
        Ok(array)
    }
}
