//! Expressions over one string column, evaluated once per dictionary value instead of once per row.
//!
//! Any deterministic expression whose only column is a string is lifted, whole: a dictionary's values go
//! through it with a null behind them (for rows that are null), and rows look their result up by code.
//! Strings come out as a dictionary again, with equal results merged, so that codes and values stay one
//! to one. Results are remembered by dictionary, since a scan's batches share theirs.
//!
//! A value that no row uses may make the expression fail; then the rows themselves are evaluated, and
//! raise the error only if it is theirs. The same happens with dictionaries much larger than the batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, UInt32Type};
use dovetail_planner::expr::Expr;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::boolean::boolean;
use super::compile::Compiler;
use super::fallible::can_fail;
use super::filter::{self, Filter};
use super::mask::Mask;
use super::node::{Kernel, Node};
use crate::batch::{Batch, Column, to_logical};
use crate::error::Result;

/// A dictionary with more values than this many times the batch's rows is not worth evaluating.
const VALUES_PER_ROW: usize = 4;
/// Dictionaries that are remembered by one expression.
const REMEMBERED: usize = 16;

/// May a column of this logical type arrive as a dictionary?
pub(super) fn is_dictionary_candidate(t: &DataType) -> bool {
    matches!(
        t,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}

/// An expression whose only column is the string column `column`.
pub(super) fn lift(expr: &Expr, column: usize) -> Result<Node> {
    let (inner, column_type) = alone(expr);
    let node = Compiler { plain: true }.node(&inner)?;
    let data_type = node.data_type.clone();
    Ok(Node::kernel(Lifted { column, column_type, inner: node, known: Remembered::default() }, data_type))
}

/// The expression with its one column at position 0, and the column's type.
fn alone(expr: &Expr) -> (Expr, DataType) {
    let mut inner = expr.clone();
    inner.remap(&|_| 0);
    let mut column_type = DataType::Null;
    inner.visit(&mut |e| {
        if let Expr::Column { data_type, .. } = e {
            column_type = data_type.clone();
        }
    });
    (inner, column_type)
}

struct Lifted {
    column: usize,
    column_type: DataType,
    inner: Node,
    known: Remembered<Results>,
}

/// Results by code; the null's result is behind the last code's.
#[derive(Clone)]
enum Results {
    Values(ArrayRef),
    /// Results are strings: distinct values, and their code by code. No codes: they are the same.
    Strings {
        values: ArrayRef,
        codes: Option<UInt32Array>,
        null: Option<u32>,
    },
}

impl Kernel for Lifted {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let column = &batch.columns[self.column];
        let values = column.values()?;
        if let Some(dictionary) = values.as_dictionary_opt::<UInt32Type>()
            && let Some(results) =
                self.known.get(dictionary.values(), batch.rows, |values| self.results(values))
        {
            return results.by_keys(dictionary.keys());
        }
        self.inner.evaluate(&plain_batch(&values, &self.column_type)?)
    }
}

/// A batch of the one column, which is no dictionary.
fn plain_batch(values: &ArrayRef, logical: &DataType) -> Result<Batch> {
    Ok(Batch { columns: vec![Column::new(to_logical(values, logical)?)], rows: values.len() })
}

/// A dictionary's values, then a null.
fn with_null(values: &ArrayRef, logical: &DataType) -> Result<Batch> {
    let values = to_logical(values, logical)?;
    let all = concat(&[values.as_ref(), new_null_array(logical, 1).as_ref()])?;
    Ok(Batch { rows: all.len(), columns: vec![Column::new(all)] })
}

impl Lifted {
    fn results(&self, values: &ArrayRef) -> Result<Results> {
        let results = self.inner.evaluate(&with_null(values, &self.column_type)?)?;
        match results.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => distinct(&results),
            _ => Ok(Results::Values(results)),
        }
    }
}

/// Strings with equal ones merged.
fn distinct(results: &ArrayRef) -> Result<Results> {
    let texts: Vec<Option<&str>> = match results.data_type() {
        DataType::Utf8 => results.as_string::<i32>().iter().collect(),
        DataType::LargeUtf8 => results.as_string::<i64>().iter().collect(),
        _ => results.as_string_view().iter().collect(),
    };
    let mut seen: HashMap<&str, u32, ahash::RandomState> = HashMap::default();
    let mut kept = vec![];
    let codes: Vec<Option<u32>> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| {
            text.map(|text| {
                *seen.entry(text).or_insert_with(|| {
                    kept.push(i as u32);
                    kept.len() as u32 - 1
                })
            })
        })
        .collect();
    let (null, codes) = codes.split_last().expect("invariant: a null is behind the values");
    let same = codes.iter().enumerate().all(|(i, code)| *code == Some(i as u32));
    let values = take(results, &UInt32Array::from(kept), None)?;
    let codes = (!same).then(|| UInt32Array::from(codes.to_vec()));
    Ok(Results::Strings { values, codes, null: *null })
}

impl Results {
    fn by_keys(&self, keys: &UInt32Array) -> Result<ArrayRef> {
        match self {
            Results::Values(values) => {
                let null = values.len() as u32 - 1;
                Ok(take(values, &replace_null(keys, Some(null)), None)?)
            }
            Results::Strings { values, codes, null } => {
                let keys = match codes {
                    None => replace_null(keys, *null),
                    Some(codes) => recode(keys, codes, *null),
                };
                Ok(Arc::new(DictionaryArray::try_new(keys, values.clone())?))
            }
        }
    }
}

/// The codes' new codes. A row may be null itself, or its result may be.
fn recode(keys: &UInt32Array, codes: &UInt32Array, null: Option<u32>) -> UInt32Array {
    if keys.null_count() == 0 && codes.null_count() == 0 {
        let codes = codes.values();
        return UInt32Array::from_iter_values(keys.values().iter().map(|&k| codes[k as usize]));
    }
    keys.iter()
        .map(|key| match key {
            Some(key) => codes.is_valid(key as usize).then(|| codes.value(key as usize)),
            None => null,
        })
        .collect()
}

/// The codes with `null` where they are null.
fn replace_null(keys: &UInt32Array, null: Option<u32>) -> UInt32Array {
    match (keys.nulls(), null) {
        (Some(nulls), Some(null)) if nulls.null_count() > 0 => {
            let values = keys.values().iter().zip(nulls).map(|(&k, valid)| if valid { k } else { null });
            UInt32Array::from_iter_values(values)
        }
        _ => keys.clone(),
    }
}

/// What expressions found out about dictionaries, by the dictionary's identity.
struct Remembered<T> {
    entries: Mutex<Vec<(ArrayRef, Option<T>)>>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Remembered { entries: Mutex::default() }
    }
}

impl<T: Clone> Remembered<T> {
    /// What is known of a dictionary; none if it is not worth knowing, or if finding out failed.
    fn get(&self, values: &ArrayRef, rows: usize, find: impl FnOnce(&ArrayRef) -> Result<T>) -> Option<T> {
        // The entry keeps the array alive, so that no other can have its address.
        let address = |a: &ArrayRef| Arc::as_ptr(a) as *const ();
        if let Some((_, known)) = self.entries.lock().iter().find(|(v, _)| address(v) == address(values)) {
            return known.clone();
        }
        if values.len() > rows.saturating_mul(VALUES_PER_ROW) {
            return None;
        }
        let found = find(values).ok();
        let mut entries = self.entries.lock();
        if entries.len() >= REMEMBERED {
            entries.remove(0);
        }
        entries.push((values.clone(), found.clone()));
        found
    }
}

/// A condition over one string column: a table of truth by code.
pub(super) struct CodeTable {
    column: usize,
    column_type: DataType,
    truth: Node,
    /// For columns that are no dictionaries.
    plain: Box<dyn Filter>,
    fails: bool,
    known: Remembered<Table>,
}

#[derive(Clone)]
struct Table {
    /// By code: 1 if true; the null's is behind the last code's.
    truth: Arc<[u8]>,
    /// All of them are this.
    uniform: Option<bool>,
}

impl CodeTable {
    /// A condition whose only column is the string column `column`.
    pub fn new(expr: &Expr, column: usize) -> Result<Self> {
        let (inner, column_type) = alone(expr);
        let compiler = Compiler { plain: true };
        Ok(CodeTable {
            column,
            column_type,
            truth: compiler.node(&inner)?,
            plain: filter::filter(&compiler, &inner)?,
            fails: can_fail(expr),
            known: Remembered::default(),
        })
    }

    fn table(&self, column: &Column, rows: usize) -> Option<Table> {
        let dictionary = column.base().as_dictionary_opt::<UInt32Type>()?;
        self.known.get(dictionary.values(), rows, |values| {
            let truth = boolean(self.truth.evaluate(&with_null(values, &self.column_type)?)?)?;
            let truth: Arc<[u8]> = truth.iter().map(|t| (t == Some(true)) as u8).collect();
            let uniform = truth.iter().all(|t| *t == truth[0]).then(|| truth[0] == 1);
            Ok(Table { truth, uniform })
        })
    }
}

/// The rows' codes, straight or through indices. A null row's code is the one behind the last.
macro_rules! with_codes {
    ($column:expr, $null:expr, $code:ident => $body:expr) => {{
        let keys = $column.base().as_dictionary::<UInt32Type>().keys();
        let (codes, nulls) = (keys.values(), keys.nulls().filter(|n| n.null_count() > 0));
        let base = |i: usize| match nulls {
            Some(nulls) if nulls.is_null(i) => $null,
            _ => codes[i] as usize,
        };
        match ($column.indices(), nulls) {
            (None, None) => {
                let $code = |i: usize| codes[i] as usize;
                $body
            }
            (None, Some(_)) => {
                let $code = base;
                $body
            }
            (Some(indices), None) if indices.null_count() == 0 => {
                let $code = |i: usize| codes[indices.value(i) as usize] as usize;
                $body
            }
            (Some(indices), _) => {
                let $code =
                    |i: usize| if indices.is_null(i) { $null } else { base(indices.value(i) as usize) };
                $body
            }
        }
    }};
}

impl Filter for CodeTable {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        let column = &batch.columns[self.column];
        let Some(Table { truth, uniform }) = self.table(column, batch.rows) else {
            return self.plain.mask(&plain_batch(&column.values()?, &self.column_type)?);
        };
        match uniform {
            Some(true) => return Ok(Mask::all(batch.rows)),
            Some(false) => return Ok(Mask::none(batch.rows)),
            None => {}
        }
        let null = truth.len() - 1;
        with_codes!(column, null, code => Ok(Mask::collect(batch.rows, |i| truth[code(i)] != 0)))
    }

    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        let column = &batch.columns[self.column];
        let Some(Table { truth, uniform }) = self.table(column, rows.len()) else {
            let listed: UInt32Array = std::mem::take(rows).into();
            let one = Batch { columns: vec![column.clone()], rows: batch.rows };
            let listed = Arc::new(listed);
            let values = one.select(&listed).columns[0].values()?;
            let hits = self.plain.mask(&plain_batch(&values, &self.column_type)?)?;
            *rows = hits.into_rows().into_iter().map(|i| listed.value(i as usize)).collect();
            return Ok(());
        };
        match uniform {
            Some(true) => return Ok(()),
            Some(false) => {
                rows.clear();
                return Ok(());
            }
            None => {}
        }
        let null = truth.len() - 1;
        with_codes!(column, null, code => {
            let mut kept = 0;
            for i in 0..rows.len() {
                let row = rows[i];
                rows[kept] = row;
                kept += (truth[code(row as usize)] != 0) as usize;
            }
            rows.truncate(kept);
        });
        Ok(())
    }

    fn fails(&self) -> bool {
        self.fails
    }

    fn cost(&self) -> u32 {
        2
    }
}
