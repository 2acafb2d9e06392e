//! Join keys as 64-bit codes: equal keys, equal codes; whatever the types, and however many columns.
//!
//! The coder is made from the build side's keys, and afterwards gives probe keys the same codes, or
//! [`NO_CODE`] to those that cannot match. With all keys as codes the tables need to know one type only.
//!
//! | key column | code |
//! |---|---|
//! | integer-like (see [`integers`]) | the value minus the build's minimum |
//! | strings | number of the string among the build's ([`interner`]) |
//! | any other | likewise, of its row encoding |
//!
//! Several columns are one code in mixed radix. If that needs more than 64 bits, columns with wide ranges
//! are numbered by occurrence first, and what has been combined so far is, too. The product of the
//! columns' ranges is the `domain`: all codes are below it.

pub mod integers;
pub mod interner;
pub mod normal;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, UInt32Type};

use super::table::unchained::{Candidates, Unchained};
use super::table::{NO_CODE, huge};
use crate::error::{EngineError, Result};
use interner::{Interner, Strings};
pub use normal::KeyType;

/// Gives codes to the keys of one join.
pub struct KeyCoder {
    columns: Vec<ColumnCoder>,
    /// How each column after the first is combined with the code of those before it.
    folds: Vec<Fold>,
    domain: u64,
}

struct ColumnCoder {
    key_type: KeyType,
    kind: ColumnKind,
    /// The code of null, if nulls match each other.
    null: Option<u64>,
    /// Codes are below it.
    radix: u128,
}

enum ColumnKind {
    /// `value - min`, at most `span`.
    Range { min: i64, span: u64 },
    /// Numbers of the values that occur.
    Sparse(Unchained),
    /// Numbers of the byte strings that occur.
    Bytes(Interner),
}

struct Fold {
    /// Numbers of what has been combined before, if its range is too wide.
    left: Option<Unchained>,
    radix: u64,
}

/// Memory of one probing task.
#[derive(Default)]
pub struct CodeScratch {
    column: Vec<u64>,
    candidates: Candidates,
    dictionaries: Vec<Option<Translation>>,
}

/// Codes of the values of a dictionary that was met lately.
struct Translation {
    dictionary: ArrayRef,
    /// Its values as views.
    values: ArrayRef,
    codes: Vec<u64>,
}

/// A place in a [`Translation`] that is not filled yet. No string has this number.
const UNKNOWN: u64 = u64::MAX - 1;

impl KeyCoder {
    /// The coder for the build side's key columns, and the codes of its rows.
    pub fn build(
        arrays: &[ArrayRef],
        types: &[KeyType],
        rows: usize,
        null_equal: bool,
    ) -> Result<(KeyCoder, Vec<u64>)> {
        let mut columns = vec![];
        let mut folds = vec![];
        // No key column: one code, all rows.
        let mut domain = 1u128;
        let mut codes = vec![0; rows];
        for (i, (array, key_type)) in arrays.iter().zip(types).enumerate() {
            let array = key_type.normalise(array)?;
            let (mut column, mut new) = ColumnCoder::build(&array, key_type, null_equal, false)?;
            if domain * column.radix > u64::MAX as u128 && column.radix > rows as u128 + 1 {
                (column, new) = ColumnCoder::build(&array, key_type, null_equal, true)?;
            }
            if i == 0 {
                (codes, domain) = (new, column.radix);
            } else {
                let mut left = None;
                if domain * column.radix > u64::MAX as u128 {
                    let mut index = Unchained::build(&codes, |row| codes[row] != NO_CODE).0;
                    index.number();
                    index.translate(&mut codes, NO_CODE, &mut Candidates::default());
                    domain = index.len() as u128;
                    left = Some(index);
                }
                let fold = Fold { left, radix: column.radix as u64 };
                fold.combine(&mut codes, &new);
                domain *= column.radix;
                folds.push(fold);
            }
            if domain > u64::MAX as u128 {
                return Err(EngineError::Resources(
                    "a join has more combinations of keys than fit in 64 bits; join on fewer columns".into(),
                ));
            }
            columns.push(column);
        }
        Ok((KeyCoder { columns, folds, domain: domain as u64 }, codes))
    }

    /// Codes are below this, or [`NO_CODE`].
    pub fn domain(&self) -> u64 {
        self.domain
    }

    /// Codes of probe rows. Codes of keys that the build does not have may be anything that it does not
    /// have either.
    pub fn encode(
        &self,
        arrays: &[ArrayRef],
        rows: usize,
        scratch: &mut CodeScratch,
        codes: &mut Vec<u64>,
    ) -> Result<()> {
        scratch.dictionaries.resize_with(self.columns.len(), || None);
        let Some(first) = self.columns.first() else {
            codes.clear();
            codes.resize(rows, 0);
            return Ok(());
        };
        let alone = self.columns.len() == 1;
        let CodeScratch { column, candidates, dictionaries } = scratch;
        first.encode(&arrays[0], alone, candidates, &mut dictionaries[0], codes)?;
        for (i, fold) in (1..).zip(&self.folds) {
            self.columns[i].encode(&arrays[i], false, candidates, &mut dictionaries[i], column)?;
            if let Some(left) = &fold.left {
                left.translate(codes, NO_CODE, candidates);
            }
            fold.combine(codes, column);
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|c| match &c.kind {
            ColumnKind::Range { .. } => 0,
            ColumnKind::Sparse(index) => index.memory_bytes(),
            ColumnKind::Bytes(interner) => interner.memory_bytes(),
        });
        let folds = self.folds.iter().flat_map(|f| &f.left).map(|index| index.memory_bytes());
        columns.chain(folds).sum()
    }
}

impl Fold {
    /// `left * radix + right`; a miss on either side is a miss.
    fn combine(&self, left: &mut [u64], right: &[u64]) {
        for (left, &right) in left.iter_mut().zip(right) {
            let both = left.wrapping_mul(self.radix).wrapping_add(right);
            *left = if *left == NO_CODE || right == NO_CODE { NO_CODE } else { both };
        }
    }
}

impl ColumnCoder {
    /// `sparse`: give consecutive numbers also to integers.
    fn build(
        array: &ArrayRef,
        key_type: &KeyType,
        null_equal: bool,
        sparse: bool,
    ) -> Result<(Self, Vec<u64>)> {
        let mut codes = huge::with_capacity(array.len());
        let nulls = array.logical_nulls().filter(|n| n.null_count() > 0);
        let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let (kind, distinct) = if let KeyType::Bytes | KeyType::Encoded(_) = key_type {
            let mut interner = Interner::default();
            interner.intern(array, &mut codes)?;
            interner.finish();
            let distinct = interner.len() as u128;
            (ColumnKind::Bytes(interner), distinct)
        } else {
            integers::read(array, 0, &mut codes)?;
            let grow = |(min, max): (i64, i64), v: u64| (min.min(v as i64), max.max(v as i64));
            let nothing = (i64::MAX, i64::MIN);
            let (min, max) = match &nulls {
                None => codes.iter().fold(nothing, |range, &v| grow(range, v)),
                Some(n) => n.valid_indices().fold(nothing, |range, row| grow(range, codes[row])),
            };
            let span = if min <= max { max.wrapping_sub(min) as u64 } else { 0 };
            if sparse || span >= u64::MAX - 1 {
                let mut index = Unchained::build(&codes, valid).0;
                index.number();
                index.translate(&mut codes, NO_CODE, &mut Candidates::default());
                let distinct = index.len() as u128;
                (ColumnKind::Sparse(index), distinct)
            } else {
                codes.iter_mut().for_each(|v| *v = v.wrapping_sub(min as u64));
                (ColumnKind::Range { min, span }, span as u128 + 1)
            }
        };
        let null = null_equal.then_some(distinct as u64);
        if let Some(nulls) = &nulls {
            let null = null.unwrap_or(NO_CODE);
            codes.iter_mut().zip(nulls.iter()).for_each(|(c, valid)| *c = if valid { *c } else { null });
        }
        let radix = distinct + null_equal as u128;
        Ok((ColumnCoder { key_type: key_type.clone(), kind, null, radix }, codes))
    }

    /// Codes of probe keys. The only column of a join need not be tested for its range: what is outside
    /// is outside of the table's domain, too.
    fn encode(
        &self,
        array: &ArrayRef,
        alone: bool,
        candidates: &mut Candidates,
        dictionary: &mut Option<Translation>,
        codes: &mut Vec<u64>,
    ) -> Result<()> {
        if let (ColumnKind::Bytes(interner), DataType::Dictionary(key, _)) = (&self.kind, array.data_type())
            && **key == DataType::UInt32
        {
            return self.encode_dictionary(interner, array, dictionary, codes);
        }
        let array = self.key_type.normalise(array)?;
        match &self.kind {
            ColumnKind::Range { min, span } => {
                integers::read(&array, *min, codes)?;
                if !alone || self.null.is_some() {
                    codes.iter_mut().for_each(|c| *c = if *c > *span { NO_CODE } else { *c });
                }
            }
            ColumnKind::Sparse(index) => {
                integers::read(&array, 0, codes)?;
                index.translate(codes, NO_CODE, candidates);
            }
            ColumnKind::Bytes(interner) => interner.lookup(&array, NO_CODE, codes)?,
        }
        if let Some(nulls) = array.logical_nulls().filter(|n| n.null_count() > 0) {
            let null = self.null.unwrap_or(NO_CODE);
            codes.iter_mut().zip(nulls.iter()).for_each(|(c, valid)| *c = if valid { *c } else { null });
        }
        Ok(())
    }

    /// Looks strings up once per dictionary value; the dictionary of the last batch is remembered.
    fn encode_dictionary(
        &self,
        interner: &Interner,
        array: &ArrayRef,
        dictionary: &mut Option<Translation>,
        codes: &mut Vec<u64>,
    ) -> Result<()> {
        let array = array.as_dictionary::<UInt32Type>();
        let null = self.null.unwrap_or(NO_CODE);
        let same =
            |t: &Translation| std::ptr::addr_eq(Arc::as_ptr(&t.dictionary), Arc::as_ptr(array.values()));
        if !dictionary.as_ref().is_some_and(same) {
            let values = self.key_type.normalise(array.values())?;
            let codes = vec![UNKNOWN; values.len()];
            *dictionary = Some(Translation { dictionary: array.values().clone(), values, codes });
        }
        let Translation { values, codes: translated, .. } =
            dictionary.as_mut().expect("invariant: made just now, or there before");
        let strings = Strings::of(values)?;
        let code_of = |key: usize, translated: &mut [u64]| {
            if translated[key] == UNKNOWN {
                translated[key] = match values.is_null(key) {
                    true => null,
                    false => interner.lookup_row(&strings, key, NO_CODE),
                };
            }
            translated[key]
        };
        let keys = array.keys();
        codes.clear();
        match keys.nulls() {
            None => codes.extend(keys.values().iter().map(|&k| code_of(k as usize, translated))),
            Some(nulls) => codes.extend(
                keys.values()
                    .iter()
                    .zip(nulls.iter())
                    .map(|(&k, valid)| if valid { code_of(k as usize, translated) } else { null }),
            ),
        }
        Ok(())
    }
}
