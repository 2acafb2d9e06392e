//! What is expected of one column: where it comes from, how many values, between which bounds.
//!
//! Bounds live on one number line per family of types: numbers as they are, dates and timestamps in
//! days, strings by their first six bytes. Only estimates come from it, so rounding is harmless.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;

use super::{Estimate, ROWS_UNKNOWN};
use crate::catalog::{ColumnStatistics, Table, TableStatistics};

/// Different values of a column that holds categories.
const CATEGORIES: f64 = 25.0;

/// What is expected of one output column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnEstimate {
    /// Distinct values left in this output.
    pub distinct: f64,
    /// Distinct values before predicates on other columns took rows away.
    pub domain: f64,
    /// Rows in which `domain` was counted: the table's, or a group-by's.
    pub domain_rows: f64,
    /// Bounds, see [`position`].
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Distance of neighbouring values: 1 for integers and dates, 0 for what is not counted in steps.
    pub step: f64,
    pub null_fraction: f64,
    /// `distinct` is no more than a guess; see [`ColumnEstimate::values`].
    pub guessed: bool,
    /// The base column that the values are from, if they are unchanged.
    pub origin: Option<Origin>,
    /// For computed values (sums, counts) that are bell-shaped rather than even between bounds.
    pub distribution: Option<Distribution>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub table: Arc<str>,
    /// Position in the table's schema.
    pub column: usize,
}

/// A bell curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    pub mean: f64,
    pub deviation: f64,
}

impl ColumnEstimate {
    /// A column of `rows` rows of which nothing is known: every tenth value is new.
    pub fn unknown(rows: f64) -> Self {
        let distinct = (rows / 10.0).max(rows.min(200.0)).max(1.0);
        ColumnEstimate {
            distinct,
            domain: distinct,
            domain_rows: rows.max(1.0),
            min: None,
            max: None,
            step: 0.0,
            null_fraction: 0.0,
            guessed: true,
            origin: None,
            distribution: None,
        }
    }

    /// The same value in every row.
    pub fn constant(value: &ScalarValue) -> Self {
        let at = position(value);
        let null_fraction = if value.is_null() { 1.0 } else { 0.0 };
        let step = step(&value.data_type());
        let single = ColumnEstimate { min: at, max: at, step, null_fraction, ..Self::unknown(1.0) };
        ColumnEstimate { distinct: 1.0, domain: 1.0, guessed: false, ..single }
    }

    /// One over the share of rows that have a value which a query names. Where nothing is known of a
    /// column, queries name a status or a category more often than one row of many.
    pub fn values(&self) -> f64 {
        let category = self.guessed && self.step != 1.0;
        if category { self.distinct.clamp(1.0, CATEGORIES) } else { self.distinct.max(1.0) }
    }

    /// Other columns' predicates kept the share `kept` of `rows` rows: some values are gone
    /// (Cardenas' formula).
    pub fn thin_out(&mut self, rows: f64, kept: f64) {
        let values = self.distinct.max(1.0);
        let rows_per_value = (rows * (1.0 - self.null_fraction) / values).max(1.0);
        let left = values * (1.0 - (1.0 - kept.clamp(0.0, 1.0)).powf(rows_per_value));
        self.distinct = left.min(rows * kept).clamp(1.0, values);
    }

    /// Only the values in a range are left, the share `kept` of them.
    pub fn narrow(&mut self, min: Option<f64>, max: Option<f64>, kept: f64) {
        self.min = min.or(self.min);
        self.max = max.or(self.max);
        self.distinct = (self.distinct * kept).max(1.0);
        self.domain = (self.domain * kept).max(self.distinct);
        self.domain_rows = (self.domain_rows * kept).max(self.domain);
        self.null_fraction = 0.0;
        self.distribution = None;
    }

    /// Only `values` values are left.
    pub fn restrict_to(&mut self, values: f64) {
        let kept = (values / self.distinct.max(1.0)).min(1.0);
        self.narrow(None, None, kept);
    }

    /// Bounds that can be compared with another column's, number by number.
    pub fn range(&self) -> Option<(f64, f64)> {
        match (self.min, self.max) {
            (Some(min), Some(max)) if self.step > 0.0 && min <= max => Some((min, max)),
            _ => None,
        }
    }

    /// Has every row of the table, filters aside, a value of its own?
    pub fn is_unique(&self) -> bool {
        self.domain >= 0.9 * self.domain_rows
    }

    /// The column of `rows` rows above `other`'s of `other_rows`.
    pub(super) fn union(&self, rows: f64, other: &Self, other_rows: f64) -> Self {
        let both = |f: fn(f64, f64) -> f64, a: Option<f64>, b: Option<f64>| Some(f(a?, b?));
        let total = (rows + other_rows).max(1.0);
        // The same base column twice has the same values; otherwise some overlap.
        let same = self.origin.is_some() && self.origin == other.origin;
        let add = |a: f64, b: f64| if same { a.max(b) } else { a.max(b) + 0.5 * a.min(b) };
        ColumnEstimate {
            distinct: add(self.distinct, other.distinct).min(total).max(1.0),
            domain: add(self.domain, other.domain),
            domain_rows: self.domain_rows + other.domain_rows,
            min: both(f64::min, self.min, other.min),
            max: both(f64::max, self.max, other.max),
            step: self.step.min(other.step),
            null_fraction: (self.null_fraction * rows + other.null_fraction * other_rows) / total,
            guessed: self.guessed || other.guessed,
            origin: if same { self.origin.clone() } else { None },
            distribution: None,
        }
    }
}

/// A table's rows and columns, before any filter.
pub(super) fn table(table: &Table, schema: &SchemaRef) -> Estimate {
    let TableStatistics { rows, columns } = &table.statistics;
    let counted = || match &table.data {
        crate::catalog::TableData::Parquet(files) => Some(files.iter().map(|f| f.rows).sum()),
        crate::catalog::TableData::Memory { .. } => None,
    };
    let rows = rows.or_else(counted).map_or(ROWS_UNKNOWN, |r| r as f64);
    let name: Arc<str> = table.name.as_str().into();
    let none = ColumnStatistics::default();
    let columns = schema.fields().iter().enumerate().map(|(i, field)| {
        let origin = Origin { table: name.clone(), column: i };
        base_column(columns.get(i).unwrap_or(&none), field.data_type(), rows, origin)
    });
    Estimate { rows, columns: columns.collect() }
}

fn base_column(known: &ColumnStatistics, data_type: &DataType, rows: f64, origin: Origin) -> ColumnEstimate {
    let bound = |l: &Option<crate::expr::Literal>| l.as_ref().and_then(|l| position(&l.0));
    let (min, max, step) = (bound(&known.min), bound(&known.max), step(data_type));
    let null_fraction = known.nulls.map_or(0.0, |n| n as f64 / rows.max(1.0)).clamp(0.0, 1.0);
    let filled = (rows * (1.0 - null_fraction)).max(1.0);
    let (distinct, guessed) = match known.distinct {
        Some(n) => (counted(n as f64, filled, min.zip(max), step), false),
        None => {
            let guess = distinct_guess(data_type, filled, min.zip(max), step);
            // A narrow range of integers says how many there are; a wide one says nothing.
            (guess, step != 1.0 || guess >= filled)
        }
    };
    let distinct = distinct.clamp(1.0, filled);
    // Of an integer of which nothing is known, the worst is assumed for predicates, and for joins that it
    // is a key.
    let unknown_key = guessed && data_type.is_integer() && min.is_none();
    let domain = if unknown_key { filled } else { distinct };
    ColumnEstimate {
        distinct,
        domain,
        domain_rows: rows.max(1.0),
        min,
        max,
        step,
        null_fraction,
        guessed,
        origin: Some(origin),
        distribution: None,
    }
}

/// Distinct values of a column for which a count is known, itself an estimate. Where the column looks like a
/// key (as many values as rows) or like a small enumeration, it is taken to be one.
fn counted(known: f64, rows: f64, range: Option<(f64, f64)>, step: f64) -> f64 {
    let span = match range {
        Some((min, max)) if step == 1.0 => max - min + 1.0,
        _ => f64::INFINITY,
    };
    let key = (span - rows).abs() <= 0.01 * rows || rows <= 50.0;
    if key && known >= 0.6 * rows {
        rows
    } else if span <= 64.0 && span <= 2.0 * known {
        span
    } else {
        known
    }
}

/// Distinct values of a column for which only rows and bounds are known.
fn distinct_guess(data_type: &DataType, rows: f64, range: Option<(f64, f64)>, step: f64) -> f64 {
    match (data_type, range) {
        (DataType::Boolean, _) => 2.0,
        (_, Some((min, max))) if min == max && data_type.is_primitive() => 1.0,
        // The smallest tables list names, each once; larger ones have categories.
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => {
            if rows <= 50.0 {
                rows
            } else {
                rows.sqrt().clamp(25.0, 200.0)
            }
        }
        (t, Some((min, max))) if t.is_decimal() => {
            // Prices use the hundredths, quantities do not; small ranges do.
            rows.min((max - min + 1.0).max(((max - min) / step + 1.0).min(100.0)))
        }
        (_, Some((min, max))) if step > 0.0 => rows.min((max - min) / step + 1.0),
        _ => (rows / 10.0).max(rows.min(200.0)),
    }
}

/// Distance of neighbouring values of a type.
pub(super) fn step(data_type: &DataType) -> f64 {
    match data_type {
        t if t.is_integer() => 1.0,
        DataType::Date32 | DataType::Date64 => 1.0,
        DataType::Decimal32(_, s)
        | DataType::Decimal64(_, s)
        | DataType::Decimal128(_, s)
        | DataType::Decimal256(_, s) => 10f64.powi(-i32::from(*s)),
        _ => 0.0,
    }
}

/// Where a value stands on its family's number line.
pub fn position(value: &ScalarValue) -> Option<f64> {
    const DAY_S: f64 = 86_400.0;
    let at = match value {
        ScalarValue::Boolean(v) => f64::from(u8::from((*v)?)),
        ScalarValue::Int8(v) => (*v)? as f64,
        ScalarValue::Int16(v) => (*v)? as f64,
        ScalarValue::Int32(v) => (*v)? as f64,
        ScalarValue::Int64(v) => (*v)? as f64,
        ScalarValue::UInt8(v) => (*v)? as f64,
        ScalarValue::UInt16(v) => (*v)? as f64,
        ScalarValue::UInt32(v) => (*v)? as f64,
        ScalarValue::UInt64(v) => (*v)? as f64,
        ScalarValue::Float32(v) => f64::from((*v)?),
        ScalarValue::Float64(v) => (*v)?,
        ScalarValue::Decimal32(v, _, s) => f64::from((*v)?) * 10f64.powi(-i32::from(*s)),
        ScalarValue::Decimal64(v, _, s) => (*v)? as f64 * 10f64.powi(-i32::from(*s)),
        ScalarValue::Decimal128(v, _, s) => (*v)? as f64 * 10f64.powi(-i32::from(*s)),
        ScalarValue::Date32(v) => f64::from((*v)?),
        ScalarValue::Date64(v) => (*v)? as f64 / (1e3 * DAY_S),
        ScalarValue::TimestampSecond(v, _) => (*v)? as f64 / DAY_S,
        ScalarValue::TimestampMillisecond(v, _) => (*v)? as f64 / (1e3 * DAY_S),
        ScalarValue::TimestampMicrosecond(v, _) => (*v)? as f64 / (1e6 * DAY_S),
        ScalarValue::TimestampNanosecond(v, _) => (*v)? as f64 / (1e9 * DAY_S),
        ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => {
            (0..6).fold(0.0, |sum, i| sum * 256.0 + f64::from(s.as_bytes().get(i).copied().unwrap_or(0)))
        }
        ScalarValue::Dictionary(_, inner) => return position(inner),
        _ => return None,
    };
    at.is_finite().then_some(at)
}
