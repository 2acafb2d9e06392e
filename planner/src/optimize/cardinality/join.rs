//! Joins: which share of the pairs of rows match, and which rows of one side have a match at all.
//!
//! Keys are compared by their domains (containment: the smaller set of values lies within the larger),
//! so a foreign key joined with its primary key yields the foreign key's rows times the share of the
//! primary key's table that its filters left. Two corrections to that: ranges that overlap only partly
//! (a calendar of 200 years against sales of five), and keys of several columns, whose combinations are
//! fewer than the product of their values.

use datafusion_common::{Column, JoinType, ScalarValue};
use datafusion_expr::{Expr, Join};

use super::Estimate;
use super::column::{ColumnEstimate, Distribution};
use super::selectivity::selectivity;

/// One equality between the two sides.
#[derive(Debug, Clone, Copy)]
pub struct KeyPair<'a> {
    pub left: &'a ColumnEstimate,
    pub right: &'a ColumnEstimate,
}

/// The share of all pairs of rows that match in every key. `rows` are those of the left and right side.
pub fn key_selectivity(pairs: &[KeyPair<'_>], rows: (f64, f64)) -> f64 {
    let mut done = vec![false; pairs.len()];
    let mut share = 1.0;
    for first in 0..pairs.len() {
        if done[first] {
            continue;
        }
        // Keys between the same two tables are one key of several columns.
        let mut composite = vec![pairs[first]];
        for (i, pair) in pairs.iter().enumerate().skip(first + 1) {
            if !done[i] && tables(pair).is_some() && tables(pair) == tables(&pairs[first]) {
                done[i] = true;
                composite.push(*pair);
            }
        }
        share *= composite_selectivity(&composite, rows);
    }
    share
}

/// The two tables that a pair's keys are from.
fn tables<'a>(pair: &KeyPair<'a>) -> Option<(&'a str, &'a str)> {
    let table = |column: &'a ColumnEstimate| column.origin.as_ref().map(|o| &*o.table);
    Some((table(pair.left)?, table(pair.right)?))
}

/// The share of pairs that match in one key, perhaps of several columns, between two relations.
pub fn composite_selectivity(pairs: &[KeyPair<'_>], rows: (f64, f64)) -> f64 {
    let (mut values_left, mut values_right, mut within) = (1.0, 1.0, 1.0);
    let (mut rows_left, mut rows_right) = (f64::INFINITY, f64::INFINITY);
    for pair in pairs {
        let (l, r) = (pair.left, pair.right);
        let (overlap_left, overlap_right) = overlaps(l, r);
        values_left *= (l.domain * overlap_left).max(1.0);
        values_right *= (r.domain * overlap_right).max(1.0);
        rows_left = f64::min(rows_left, l.domain_rows);
        rows_right = f64::min(rows_right, r.domain_rows);
        within *= within_range(l, overlap_left, rows.0) * within_range(r, overlap_right, rows.1);
        within *= (1.0 - l.null_fraction) * (1.0 - r.null_fraction);
    }
    // Both sides look unique, but one only because nothing better is known: it is the foreign key, with
    // gaps in its range.
    let foreign =
        |p: &KeyPair<'_>| (p.left.guessed || p.right.guessed) && p.left.is_unique() && p.right.is_unique();
    let combinations = if let [pair] = pairs {
        if foreign(pair) { values_left.min(values_right) } else { values_left.max(values_right) }
    } else {
        // The side whose columns have more values is the one that has each combination once; when
        // they are about equal, the one with fewer rows.
        let (left, right) = (values_left.min(rows_left), values_right.min(rows_right));
        if values_left > 1.25 * values_right {
            left
        } else if values_right > 1.25 * values_left {
            right
        } else {
            left.min(right)
        }
    };
    within / combinations.max(1.0)
}

/// The share of a side's rows whose key is in the range of both sides. Rows that a filter picked from a
/// table by its primary key are taken to lie where the other side has values at all: nobody asks for the
/// sales of the year 1900.
fn within_range(key: &ColumnEstimate, overlap: f64, rows: f64) -> f64 {
    if key.is_unique() { (key.domain_rows * overlap / rows.max(1.0)).min(1.0) } else { overlap }
}

/// Of each side's range, the share that the other's covers.
fn overlaps(l: &ColumnEstimate, r: &ColumnEstimate) -> (f64, f64) {
    let (Some((a, b)), Some((c, d))) = (l.range(), r.range()) else { return (1.0, 1.0) };
    let (low, high) = (a.max(c), b.min(d));
    let share = |min: f64, max: f64, step: f64| {
        if high < low { 1e-4 } else { ((high - low + step) / (max - min + step)).clamp(1e-4, 1.0) }
    };
    (share(a, b, l.step), share(c, d, r.step))
}

/// The share of the left side's rows that have at least one match on the right. `residual` is the share
/// of key matches that a further condition keeps.
pub fn semi_share(pairs: &[KeyPair<'_>], rows: (f64, f64), residual: f64) -> f64 {
    if pairs.is_empty() {
        let matches = rows.1 * residual;
        return (1.0 - (-matches).exp()).clamp(0.0, 1.0);
    }
    // Each key of the right side covers as many of the left's values as one row would.
    let covered = |pairs: &[KeyPair<'_>]| {
        let distinct = pairs.iter().map(|p| p.right.distinct).product::<f64>().min(rows.1).max(1.0);
        (key_selectivity(pairs, rows) * distinct).min(1.0)
    };
    let distinct = pairs.iter().map(|p| p.right.distinct).product::<f64>().min(rows.1).max(1.0);
    // The parts of a key depend on each other (a price that equals the least price of its part), so each
    // further one is believed to keep a tenth at least.
    let apart: f64 = pairs.iter().map(|p| covered(&[*p])).product();
    let covered = covered(pairs).max(apart * 0.1f64.powi(pairs.len() as i32 - 1));
    let per_key = (rows.1 / distinct).max(1.0);
    let passes = 1.0 - (1.0 - residual.clamp(0.0, 1.0)).powf(per_key);
    (covered * passes).clamp(1e-9, 1.0)
}

/// A join's output.
pub fn join(node: &Join, left: Estimate, right: Estimate) -> Estimate {
    let (left_schema, right_schema) = (node.left.schema(), node.right.schema());
    let keys: Vec<(ColumnEstimate, ColumnEstimate)> = node
        .on
        .iter()
        .map(|(l, r)| {
            let l = left.expression(l, &|c: &Column| left_schema.maybe_index_of_column(c));
            let r = right.expression(r, &|c: &Column| right_schema.maybe_index_of_column(c));
            (l, r)
        })
        .collect();
    let pairs: Vec<KeyPair<'_>> = keys.iter().map(|(left, right)| KeyPair { left, right }).collect();
    let rows = (left.rows, right.rows);
    let key_share = key_selectivity(&pairs, rows);
    let residual = node.filter.as_ref().map_or(1.0, |filter| {
        let width = left.columns.len();
        let find = |c: &Column| {
            let right = || right_schema.maybe_index_of_column(c).map(|i| i + width);
            left_schema.maybe_index_of_column(c).or_else(right)
        };
        let columns = left.columns.iter().chain(&right.columns).cloned().collect();
        selectivity(filter, &Estimate { rows: rows.0 * rows.1 * key_share, columns }, &find)
    });
    let matches = rows.0 * rows.1 * key_share * residual;
    let swapped: Vec<KeyPair<'_>> = pairs.iter().map(|p| KeyPair { left: p.right, right: p.left }).collect();
    // The share of each side's rows that have a match.
    let matched = (semi_share(&pairs, rows, residual), semi_share(&swapped, (rows.1, rows.0), residual));
    let (mut left, mut right) = (left, right);
    match node.join_type {
        JoinType::Inner => {
            left.keep_share(matched.0);
            right.keep_share(matched.1);
            both(node, left, right, matches)
        }
        JoinType::Left => {
            let lonely = rows.0 * (1.0 - matched.0);
            right.keep_share(matched.1);
            right.add_nulls(lonely / (matches + lonely));
            both(node, left, right, (matches + lonely).max(rows.0))
        }
        JoinType::Right => {
            let lonely = rows.1 * (1.0 - matched.1);
            left.keep_share(matched.0);
            left.add_nulls(lonely / (matches + lonely));
            both(node, left, right, (matches + lonely).max(rows.1))
        }
        JoinType::Full => {
            let lonely = (rows.0 * (1.0 - matched.0), rows.1 * (1.0 - matched.1));
            let all = matches + lonely.0 + lonely.1;
            left.add_nulls(lonely.1 / all);
            right.add_nulls(lonely.0 / all);
            both(node, left, right, all)
        }
        JoinType::LeftSemi => left.some(matched.0),
        JoinType::LeftAnti => left.some((1.0 - matched.0).max(0.01)),
        JoinType::RightSemi => right.some(matched.1),
        JoinType::RightAnti => right.some((1.0 - matched.1).max(0.01)),
        JoinType::LeftMark => left.marked(matched.0),
        JoinType::RightMark => right.marked(matched.1),
    }
}

/// Both sides' columns over `rows` rows.
fn both(node: &Join, left: Estimate, right: Estimate, rows: f64) -> Estimate {
    let width = left.columns.len();
    let mut columns = left.columns;
    columns.extend(right.columns);
    columns.iter_mut().for_each(|c| c.distinct = c.distinct.min(rows).max(1.0));
    // Equal columns have the values that both sides have.
    if node.join_type == JoinType::Inner {
        for (l, r) in &node.on {
            let (Expr::Column(l), Expr::Column(r)) = (l, r) else { continue };
            let l = node.left.schema().maybe_index_of_column(l);
            let r = node.right.schema().maybe_index_of_column(r).map(|i| i + width);
            if let (Some(l), Some(r)) = (l, r) {
                equate(&mut columns, l, r);
            }
        }
    }
    Estimate { rows, columns }
}

fn equate(columns: &mut [ColumnEstimate], l: usize, r: usize) {
    let tighter = |f: fn(f64, f64) -> f64, a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => Some(f(a, b)),
        _ => a.or(b),
    };
    let (a, b) = (&columns[l], &columns[r]);
    let min = tighter(f64::max, a.min, b.min);
    let max = tighter(f64::min, a.max, b.max);
    let distinct = a.distinct.min(b.distinct);
    let domain = a.domain.min(b.domain);
    for at in [l, r] {
        let column = &mut columns[at];
        (column.min, column.max) = (min, max);
        column.distinct = distinct;
        column.domain = domain.max(distinct);
        column.null_fraction = 0.0;
    }
}

impl Estimate {
    /// Values of rows without a match are gone; how many rows there are is up to the join.
    fn keep_share(&mut self, kept: f64) {
        let rows = self.rows;
        self.columns.iter_mut().for_each(|c| c.thin_out(rows, kept));
    }

    /// The share `kept` of the rows.
    fn some(mut self, kept: f64) -> Estimate {
        self.keep_share(kept);
        self.rows *= kept;
        self
    }

    /// The optional side of an outer join, in whose result it is absent from the share `absent` of rows.
    pub fn add_nulls(&mut self, absent: f64) {
        let absent = if absent.is_finite() { absent.clamp(0.0, 1.0) } else { 0.0 };
        for column in &mut self.columns {
            column.null_fraction = 1.0 - (1.0 - column.null_fraction) * (1.0 - absent);
        }
    }

    /// One more column, true for the share `matched` of the rows.
    pub fn marked(mut self, matched: f64) -> Estimate {
        let mut mark = ColumnEstimate::constant(&ScalarValue::Boolean(Some(true)));
        (mark.distinct, mark.domain) = (2.0, 2.0);
        mark.distribution = Some(Distribution { mean: matched, deviation: 0.0 });
        self.columns.push(mark);
        self
    }
}
