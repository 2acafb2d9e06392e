//! Keys of rows from different runs, comparable.
//!
//! A row's keys are one byte string in the order that the sort wants: 64-bit codes if there is one key of a
//! narrow type, else Arrow's row format. Its first 16 bytes are compared as a number. That decides most
//! comparisons without a look at the rest, and all of them if no row has more bytes.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Decimal64Type, Decimal128Type};
use arrow::row::{RowConverter, Rows, SortField};
use dovetail_planner::physical::SortKey;
use std::sync::Arc;

use super::argsort::unsortable;
use super::keys::{Codes, Key, codes};
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::expr::{CompiledExpr, compile};

/// Digits that 64 bits hold.
const NARROW_PRECISION: u8 = 18;

/// Computes the keys of batches.
pub(super) struct MergeKeys {
    keys: Vec<(CompiledExpr, SortKey)>,
    /// Made with the first batch, when the types of the comparable forms are known.
    converter: Option<RowConverter>,
}

/// The keys of a batch's rows.
pub(super) struct ComparableKeys {
    prefixes: Vec<u128>,
    /// The whole keys, if some do not end within their prefix.
    whole: Option<Rows>,
}

impl MergeKeys {
    pub(super) fn new(keys: &[SortKey]) -> Result<Self> {
        let keys = keys.iter().map(|k| Ok((compile(&k.expr)?, k.clone()))).collect::<Result<_>>()?;
        Ok(MergeKeys { keys, converter: None })
    }

    /// The keys of a batch, which has the columns of the sort's input.
    pub(super) fn of(&mut self, batch: &Batch) -> Result<ComparableKeys> {
        let mut keys = vec![];
        for (expr, key) in &self.keys {
            let values = narrowed(&expr.evaluate(batch)?, &key.expr.data_type())?;
            keys.extend(Key::new(&values, key.descending, key.nulls_first)?.flat());
        }
        if let [key] = &keys[..]
            && let Codes::Narrow(codes) = codes(&key.array)
        {
            return Ok(ComparableKeys { prefixes: number_prefixes(key, codes), whole: None });
        }
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => {
                let field = |k: &Key| {
                    let options = SortOptions { descending: k.descending, nulls_first: k.nulls_first };
                    SortField::new_with_options(k.array.data_type().clone(), options)
                };
                let converter = RowConverter::new(keys.iter().map(field).collect());
                none.insert(converter.map_err(|_| unsortable(&keys[0]))?)
            }
        };
        let arrays: Vec<ArrayRef> = keys.iter().map(|k| k.array.clone()).collect();
        let rows = converter.convert_columns(&arrays)?;
        let mut longest = 0;
        let prefix = |row: &[u8]| {
            longest = longest.max(row.len());
            match row.first_chunk() {
                Some(chunk) => u128::from_be_bytes(*chunk),
                None => {
                    let mut padded = [0; size_of::<u128>()];
                    padded[..row.len()].copy_from_slice(row);
                    u128::from_be_bytes(padded)
                }
            }
        };
        let prefixes = rows.iter().map(|row| row.data()).map(prefix).collect();
        Ok(ComparableKeys { prefixes, whole: (longest > size_of::<u128>()).then_some(rows) })
    }
}

impl ComparableKeys {
    /// The first bytes of a row's key, as a number.
    pub(super) fn prefix(&self, row: usize) -> u128 {
        self.prefixes[row]
    }

    /// Compares keys whose prefixes are equal. No key goes on where another of the same columns ends, so one
    /// without a rest is equal to all that start as it does.
    pub(super) fn compare_rest(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        match (&self.whole, &other.whole) {
            (Some(own), Some(other)) => own.row(row).cmp(&other.row(other_row)),
            _ => Ordering::Equal,
        }
    }

    /// Compares two keys.
    pub(super) fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        let prefixes = self.prefixes[row].cmp(&other.prefixes[other_row]);
        prefixes.then_with(|| self.compare_rest(row, other, other_row))
    }

    /// Memory of the keys.
    pub(super) fn memory_bytes(&self) -> usize {
        self.prefixes.len() * size_of::<u128>() + self.whole.as_ref().map_or(0, Rows::size)
    }
}

/// A key's values in the logical type, or in 64 bits if they are decimals that fit.
fn narrowed(values: &Column, logical: &DataType) -> Result<ArrayRef> {
    match logical {
        DataType::Decimal128(precision, scale) if *precision <= NARROW_PRECISION => {
            let values = values.values()?;
            if matches!(values.data_type(), DataType::Decimal64(_, s) if s == scale) {
                return Ok(values);
            }
            let values = crate::batch::to_logical(&values, logical)?;
            let narrow = values.as_primitive::<Decimal128Type>().unary::<_, Decimal64Type>(|v| v as i64);
            Ok(Arc::new(narrow.with_precision_and_scale(*precision, *scale)?))
        }
        _ => values.to_logical(logical),
    }
}

/// Codes of one key with the nulls in their place.
fn number_prefixes(key: &Key, codes: Vec<u64>) -> Vec<u128> {
    let flip = if key.descending { u64::MAX } else { 0 };
    let code = |flag: bool, code: u64| u128::from(flag) << 64 | u128::from(code);
    match key.nulls() {
        None => codes.into_iter().map(|c| code(key.nulls_first, c ^ flip)).collect(),
        Some(nulls) => codes
            .into_iter()
            .zip(nulls.iter())
            .map(|(c, valid)| if valid { code(key.nulls_first, c ^ flip) } else { code(!key.nulls_first, 0) })
            .collect(),
    }
}
