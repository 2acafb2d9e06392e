//! SUM of integers and decimals, exact whatever the order of the rows.
//!
//! Sums are 64 bits wide as long as a bound on all of them (the largest magnitude of each batch times its
//! rows, added up) says that none can overflow; then adding needs no check. When the bound is passed they
//! become 128 bits wide. Whether a sum fits the type of the result is asked at the end.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::seen::Seen;
use super::{Accumulator, Rows, nulled, nulls_of};
use crate::error::{EngineError, Result};

/// Groups up to which sums of one batch are kept in several banks, so that a row need not wait for the
/// last one of its group.
const BANKED_GROUPS_MAX: usize = 256;

/// Sums by group. States are Int64, or Decimal128(38, 0) where one does not fit, both without regard to
/// the scale of a decimal.
pub(in super::super) struct IntSum {
    sums: Sums,
    seen: Seen,
}

enum Sums {
    /// No absolute value is above `bound`.
    Narrow {
        sums: Vec<i64>,
        bound: u64,
    },
    Wide(Vec<i128>),
}

impl IntSum {
    pub(in super::super) fn new() -> Self {
        IntSum { sums: Sums::Narrow { sums: vec![], bound: 0 }, seen: Seen::default() }
    }

    fn add_narrow(&mut self, rows: &Rows, values: &[i64], nulls: Option<&NullBuffer>) -> Result<()> {
        let magnitude = magnitude(values);
        let batch_bound = u64::try_from(u128::from(magnitude) * values.len() as u128)
            .ok()
            .filter(|bound| *bound < i64::MAX as u64);
        let within = match (&self.sums, batch_bound) {
            (Sums::Narrow { bound, .. }, Some(batch)) => {
                bound.checked_add(batch).filter(|b| *b < i64::MAX as u64)
            }
            _ => None,
        };
        let wide = match (&mut self.sums, within) {
            (Sums::Narrow { sums, bound }, Some(new_bound)) => {
                *bound = new_bound;
                grow(sums, rows.groups);
                match banked(rows, values, nulls) {
                    Some(batch) => sums.iter_mut().zip(&batch).for_each(|(sum, b)| *sum += b),
                    None => add(sums, rows.ids, values, nulls, |sum, v| *sum += v),
                }
                return Ok(());
            }
            _ => self.widen(rows.groups),
        };
        let batch = batch_bound.and_then(|_| banked(rows, values, nulls));
        match batch {
            Some(batch) => wide.iter_mut().zip(&batch).try_for_each(|(sum, b)| checked(sum, (*b).into())),
            None => {
                // 2^63 values of 64 bits fit: no check.
                add(wide, rows.ids, values, nulls, |sum, v| *sum = sum.wrapping_add(v.into()));
                Ok(())
            }
        }
    }

    fn add_wide(&mut self, rows: &Rows, values: &[i128], nulls: Option<&NullBuffer>) -> Result<()> {
        let narrow: Vec<i64> = values.iter().map(|v| *v as i64).collect();
        let fits = values.iter().zip(&narrow).fold(true, |fits, (v, n)| fits & (*v == i128::from(*n)));
        if fits {
            return self.add_narrow(rows, &narrow, nulls);
        }
        let wide = self.widen(rows.groups);
        let mut overflow = false;
        add(wide, rows.ids, values, nulls, |sum, v| {
            let (new, over) = sum.overflowing_add(v);
            *sum = new;
            overflow |= over;
        });
        if overflow { Err(overflow_error()) } else { Ok(()) }
    }

    fn widen(&mut self, groups: usize) -> &mut Vec<i128> {
        if let Sums::Narrow { sums, .. } = &self.sums {
            self.sums = Sums::Wide(sums.iter().map(|s| i128::from(*s)).collect());
        }
        let Sums::Wide(sums) = &mut self.sums else { unreachable!("invariant: just widened") };
        grow(sums, groups);
        sums
    }
}

impl Accumulator for IntSum {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        let array = &args[0];
        let nulls = nulls_of(array);
        match nulls {
            None => self.seen.all(rows),
            Some(nulls) => match rows.ids {
                None => self.seen.marks(rows.groups)[0] |= nulls.null_count() < nulls.len(),
                Some(ids) => {
                    let marks = self.seen.marks(rows.groups);
                    ids.iter().zip(nulls).for_each(|(id, valid)| marks[*id as usize] |= valid);
                }
            },
        }
        match array.data_type() {
            DataType::Int64 => self.add_narrow(rows, array.as_primitive::<Int64Type>().values(), nulls),
            DataType::Decimal64(_, _) => {
                self.add_narrow(rows, array.as_primitive::<Decimal64Type>().values(), nulls)
            }
            DataType::Decimal128(_, _) => {
                self.add_wide(rows, array.as_primitive::<Decimal128Type>().values(), nulls)
            }
            DataType::Null => Ok(()),
            DataType::UInt64 => {
                let values = array.as_primitive::<UInt64Type>().values();
                if magnitude_unsigned(values) <= i64::MAX as u64 {
                    let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
                    self.add_narrow(rows, &values, nulls)
                } else {
                    let values: Vec<i128> = values.iter().map(|v| i128::from(*v)).collect();
                    self.add_wide(rows, &values, nulls)
                }
            }
            other => Err(EngineError::internal(format!("an integer sum of {other}"))),
        }
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.update(rows, states)
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let nulls = self.seen.take(groups);
        let taken = std::mem::replace(&mut self.sums, Sums::Narrow { sums: vec![], bound: 0 });
        Ok(vec![match taken {
            Sums::Narrow { mut sums, .. } => {
                sums.resize(groups, 0);
                Arc::new(Int64Array::new(sums.into(), nulls))
            }
            Sums::Wide(mut sums) => {
                sums.resize(groups, 0);
                Arc::new(Decimal128Array::new(sums.into(), nulls))
            }
        }])
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
        self.seen.memory_bytes()
            + match &self.sums {
                Sums::Narrow { sums, .. } => sums.capacity() * 8,
                Sums::Wide(sums) => sums.capacity() * 16,
            }
    }
}

fn grow<T: Copy + Default>(sums: &mut Vec<T>, groups: usize) {
    if sums.len() < groups {
        sums.resize(groups, T::default());
    }
}

/// An upper bound of the absolute values, less than twice the greatest.
fn magnitude(values: &[i64]) -> u64 {
    let bits = values.iter().fold(0i64, |bits, v| bits | (v ^ (v >> 63)));
    // |v| is at most the complement plus one.
    if bits == 0 { 1 } else { (u64::MAX >> (bits as u64).leading_zeros()) + 1 }
}

fn magnitude_unsigned(values: &[u64]) -> u64 {
    values.iter().fold(0, |bits, v| bits | v)
}

/// Sums of this batch alone, if there are so few groups that banks pay. The caller knows that no sum
/// overflows.
fn banked(rows: &Rows, values: &[i64], nulls: Option<&NullBuffer>) -> Option<Vec<i64>> {
    let Some(ids) = rows.ids else {
        let sum = match nulls {
            None => values.iter().sum(),
            Some(nulls) => values.iter().zip(nulls).map(|(v, valid)| v & -i64::from(valid)).sum(),
        };
        return Some(vec![sum]);
    };
    if rows.groups > BANKED_GROUPS_MAX || ids.len() < rows.groups * 4 {
        return None;
    }
    let mut banks = [[0i64; 4]; BANKED_GROUPS_MAX];
    match nulls {
        None => {
            let (id_quads, id_rest) = ids.as_chunks::<4>();
            let (value_quads, value_rest) = values.as_chunks::<4>();
            for (ids, values) in id_quads.iter().zip(value_quads) {
                for bank in 0..4 {
                    banks[ids[bank] as usize][bank] += values[bank];
                }
            }
            for (id, value) in id_rest.iter().zip(value_rest) {
                banks[*id as usize][0] += value;
            }
        }
        Some(nulls) => {
            for (i, ((id, value), valid)) in ids.iter().zip(values).zip(nulls).enumerate() {
                banks[*id as usize][i % 4] += value & -i64::from(valid);
            }
        }
    }
    Some(banks[..rows.groups].iter().map(|banks| banks.iter().sum()).collect())
}

#[inline(always)]
fn add<S, V: Copy + Default>(
    sums: &mut [S],
    ids: Option<&[u32]>,
    values: &[V],
    nulls: Option<&NullBuffer>,
    mut add: impl FnMut(&mut S, V),
) {
    match (ids, nulls) {
        (None, None) => values.iter().for_each(|v| add(&mut sums[0], *v)),
        (None, Some(nulls)) => nulls.valid_indices().for_each(|i| add(&mut sums[0], values[i])),
        (Some(ids), None) => ids.iter().zip(values).for_each(|(id, v)| add(&mut sums[*id as usize], *v)),
        (Some(ids), Some(nulls)) => {
            for ((id, value), valid) in ids.iter().zip(values).zip(nulls) {
                add(&mut sums[*id as usize], if valid { *value } else { V::default() });
            }
        }
    }
}

fn checked(sum: &mut i128, more: i128) -> Result<()> {
    *sum = sum.checked_add(more).ok_or_else(overflow_error)?;
    Ok(())
}

fn overflow_error() -> EngineError {
    EngineError::execution("a sum has more than 38 digits; cast its argument to DOUBLE")
}

/// Sums as they leave an [`IntSum`], 128 bits wide, with their nulls.
pub(in super::super) fn wide_values(sums: &ArrayRef) -> (Vec<i128>, Option<NullBuffer>) {
    let values = match sums.data_type() {
        DataType::Int64 => sums.as_primitive::<Int64Type>().values().iter().map(|v| i128::from(*v)).collect(),
        _ => sums.as_primitive::<Decimal128Type>().values().to_vec(),
    };
    (values, nulls_of(sums).cloned())
}
