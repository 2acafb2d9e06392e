//! Which row groups and pages cannot hold a row that passes, by their statistics alone.
//!
//! Only what can be proved is pruned. A comparison with null is never true. Statistics leave out NaN,
//! which SQL orders above all numbers, so that floats are pruned by equality only. Missing statistics
//! prove nothing; those of strings may be cut short, but bound the values all the same.

use std::cmp::Ordering;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr, IsTest};
use parquet::file::metadata::ColumnChunkMetaData;

use crate::catalog::bounds::{self, Bound, Bounds};

/// What is known of a column in a row group or a page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub bounds: Bounds,
    /// How many values are null.
    pub nulls: Option<u64>,
    pub rows: u64,
}

impl Known {
    fn all_null(&self) -> bool {
        self.nulls == Some(self.rows)
    }
}

/// False only if the condition is true for no row. `known` tells what is known of the column at a
/// position of the expression's input.
pub fn may_be_true(condition: &Expr, known: &dyn Fn(usize) -> Known) -> bool {
    use BinaryOp::*;
    match condition {
        Expr::Literal(l) => l.0 == ScalarValue::Boolean(Some(true)),
        Expr::Binary { op: And, left, right, .. } => may_be_true(left, known) && may_be_true(right, known),
        Expr::Binary { op: Or, left, right, .. } => may_be_true(left, known) || may_be_true(right, known),
        Expr::Binary { op, left, right, .. } => match (&**left, &**right) {
            (Expr::Column { index, data_type }, Expr::Literal(l)) => {
                may_compare(*op, data_type, &known(*index), &l.0)
            }
            (Expr::Literal(l), Expr::Column { index, data_type }) => match mirrored(*op) {
                Some(op) => may_compare(op, data_type, &known(*index), &l.0),
                None => true,
            },
            _ => true,
        },
        Expr::InList { expr, list, negated: false } => match &**expr {
            Expr::Column { index, data_type } => {
                let known = known(*index);
                list.iter().any(|item| match item {
                    Expr::Literal(l) => may_compare(Eq, data_type, &known, &l.0),
                    _ => true,
                })
            }
            _ => true,
        },
        Expr::Is { test, expr } => match (&**expr, test) {
            (Expr::Column { index, .. }, IsTest::Null | IsTest::Unknown) => known(*index).nulls != Some(0),
            (Expr::Column { index, .. }, IsTest::NotNull | IsTest::NotUnknown) => !known(*index).all_null(),
            _ => true,
        },
        Expr::Like { expr, pattern, negated: false, case_insensitive: false, escape } => {
            match (&**expr, &**pattern) {
                (Expr::Column { index, .. }, Expr::Literal(l)) => match literal_text(&l.0) {
                    Some(pattern) => may_begin(&known(*index), prefix(pattern, escape.unwrap_or('\\'))),
                    None => true,
                },
                _ => true,
            }
        }
        Expr::Column { index, data_type: DataType::Boolean } => {
            known(*index).bounds.max != Some(Bound::Int(0)) && !known(*index).all_null()
        }
        _ => true,
    }
}

/// Statistics could prove the condition true for no row.
pub fn is_prunable(condition: &Expr) -> bool {
    let unknown = |_: usize| Known { rows: 1, ..Default::default() };
    let nothing = |_: usize| Known { rows: 1, nulls: Some(1), ..Default::default() };
    let no_null = |_: usize| Known { rows: 1, nulls: Some(0), ..Default::default() };
    may_be_true(condition, &unknown)
        && !(may_be_true(condition, &nothing) && may_be_true(condition, &no_null))
}

/// What the footer says of a column of a row group.
pub fn of_chunk(chunk: &ColumnChunkMetaData, logical: &DataType, rows: u64) -> Known {
    let statistics = chunk.statistics();
    let nulls = match chunk.column_descr().max_def_level() {
        0 => Some(0),
        _ => statistics.and_then(|s| s.null_count_opt()),
    };
    Known { bounds: statistics.map(|s| bounds::of_statistics(s, logical)).unwrap_or_default(), nulls, rows }
}

fn may_compare(op: BinaryOp, column: &DataType, known: &Known, literal: &ScalarValue) -> bool {
    use BinaryOp::*;
    if !matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsNotDistinctFrom) {
        return true;
    }
    if literal.is_null() {
        return op == IsNotDistinctFrom && known.nulls != Some(0);
    }
    if known.all_null() {
        return false;
    }
    if !comparable(column, &literal.data_type()) {
        return true;
    }
    let Some(value) = Bound::of_scalar(literal) else {
        return true;
    };
    let order = |bound: &Option<Bound>| bound.as_ref().and_then(|b| b.compare(&value));
    let (min, max) = (order(&known.bounds.min), order(&known.bounds.max));
    let floating = column.is_floating();
    match op {
        Eq | IsNotDistinctFrom => min != Some(Ordering::Greater) && max != Some(Ordering::Less),
        _ if floating => true,
        Lt => !matches!(min, Some(Ordering::Greater | Ordering::Equal)),
        LtEq => min != Some(Ordering::Greater),
        Gt => !matches!(max, Some(Ordering::Less | Ordering::Equal)),
        GtEq => max != Some(Ordering::Less),
        _ => true,
    }
}

/// Bounds of the column's type and this literal are in the same unit.
fn comparable(column: &DataType, literal: &DataType) -> bool {
    match (column, literal) {
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b) | DataType::Decimal64(_, b)) => a == b,
        (DataType::Timestamp(a, _), DataType::Timestamp(b, _)) => a == b,
        (DataType::Utf8View, l) => matches!(l, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        (DataType::BinaryView, l) => {
            matches!(l, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        }
        (a, b) => a == b,
    }
}

fn mirrored(op: BinaryOp) -> Option<BinaryOp> {
    use BinaryOp::*;
    Some(match op {
        Eq | NotEq | IsNotDistinctFrom => op,
        Lt => Gt,
        LtEq => GtEq,
        Gt => Lt,
        GtEq => LtEq,
        _ => return None,
    })
}

fn literal_text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(v) | ScalarValue::LargeUtf8(v) | ScalarValue::Utf8View(v) => v.as_deref(),
        _ => None,
    }
}

/// What every match of a LIKE pattern begins with.
fn prefix(pattern: &str, escape: char) -> &[u8] {
    let end = pattern.find(['%', '_', escape]).unwrap_or(pattern.len());
    &pattern.as_bytes()[..end]
}

/// Some string within the bounds may begin so.
fn may_begin(known: &Known, prefix: &[u8]) -> bool {
    if known.all_null() {
        return false;
    }
    let below = matches!(&known.bounds.max, Some(Bound::Bytes(max)) if max.as_slice() < prefix);
    let above = matches!(&known.bounds.min, Some(Bound::Bytes(min))
        if min.as_slice() > prefix && !min.starts_with(prefix));
    !below && !above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(min: i128, max: i128, nulls: u64) -> Known {
        let bounds = Bounds { min: Some(Bound::Int(min)), max: Some(Bound::Int(max)) };
        Known { bounds, nulls: Some(nulls), rows: 100 }
    }

    fn texts(min: &str, max: &str) -> Known {
        let bound = |s: &str| Some(Bound::Bytes(s.as_bytes().to_vec()));
        Known { bounds: Bounds { min: bound(min), max: bound(max) }, nulls: None, rows: 100 }
    }

    fn compare(op: BinaryOp, value: impl Into<ScalarValue>, column: DataType) -> Expr {
        Expr::Binary {
            op,
            left: Box::new(Expr::column(0, column)),
            right: Box::new(Expr::literal(value.into())),
            data_type: DataType::Boolean,
        }
    }

    #[test]
    fn comparisons_prune_what_is_outside() {
        use BinaryOp::*;
        let may = |op, value: i64| may_be_true(&compare(op, value, DataType::Int64), &|_| ints(10, 20, 0));
        assert!(!may(Eq, 9) && may(Eq, 10) && may(Eq, 20) && !may(Eq, 21));
        assert!(!may(Lt, 10) && may(LtEq, 10) && !may(LtEq, 9));
        assert!(!may(Gt, 20) && may(GtEq, 20) && !may(GtEq, 21));
        assert!(may(NotEq, 10) && may(IsDistinctFrom, 9) && !may(IsNotDistinctFrom, 9));
    }

    #[test]
    fn nulls_prune_comparisons_and_null_tests() {
        let column = || Box::new(Expr::column(0, DataType::Int64));
        let is =
            |test, known: Known| may_be_true(&Expr::Is { test, expr: column() }, &move |_| known.clone());
        assert!(!is(IsTest::Null, ints(1, 2, 0)) && is(IsTest::Null, ints(1, 2, 3)));
        assert!(!is(IsTest::NotNull, ints(1, 2, 100)) && is(IsTest::NotNull, ints(1, 2, 99)));
        assert!(is(IsTest::Null, Known { rows: 100, ..Default::default() }));
        let null = compare(BinaryOp::Eq, ScalarValue::Int64(None), DataType::Int64);
        assert!(!may_be_true(&null, &|_| ints(1, 2, 50)));
        let one = compare(BinaryOp::GtEq, 1i64, DataType::Int64);
        assert!(!may_be_true(&one, &|_| Known { nulls: Some(100), rows: 100, ..Default::default() }));
    }

    #[test]
    fn other_scales_and_floats_are_left_alone() {
        let column = DataType::Decimal128(12, 2);
        let literal = ScalarValue::Decimal128(Some(5), 12, 1);
        assert!(may_be_true(&compare(BinaryOp::Eq, literal, column.clone()), &|_| ints(10, 20, 0)));
        let literal = ScalarValue::Decimal128(Some(5), 15, 2);
        assert!(!may_be_true(&compare(BinaryOp::Eq, literal, column), &|_| ints(10, 20, 0)));
        let floats = |_| Known {
            bounds: Bounds { min: Some(Bound::Float(1.0)), max: Some(Bound::Float(2.0)) },
            nulls: Some(0),
            rows: 9,
        };
        assert!(may_be_true(&compare(BinaryOp::Gt, 5.0f64, DataType::Float64), &floats));
        assert!(!may_be_true(&compare(BinaryOp::Eq, 5.0f64, DataType::Float64), &floats));
        assert!(may_be_true(&compare(BinaryOp::Eq, f64::NAN, DataType::Float64), &floats));
    }

    #[test]
    fn prefixes() {
        let like = |pattern: &str, known: Known| {
            let like = Expr::Like {
                expr: Box::new(Expr::column(0, DataType::Utf8View)),
                pattern: Box::new(Expr::literal(ScalarValue::Utf8View(Some(pattern.into())))),
                negated: false,
                case_insensitive: false,
                escape: None,
            };
            may_be_true(&like, &move |_| known.clone())
        };
        assert!(like("ab%", texts("aa", "ac")) && like("ab%", texts("abx", "b")));
        assert!(!like("ab%", texts("ac", "b")) && !like("ab%", texts("a", "aa")));
        assert!(like("%b", texts("c", "d")) && like("a\\%", texts("a", "b")));
    }
}
