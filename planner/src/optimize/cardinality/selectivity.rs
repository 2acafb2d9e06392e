//! The share of rows that a predicate keeps.
//!
//! Ranges interpolate between the column's bounds, equality keeps one value of those there are, and a
//! conjunct that speaks about one column narrows that column's estimate, so that the next conjunct on it
//! (the other end of a range) starts from there. Conjuncts on different columns are combined with
//! exponential back-off: columns that people filter together are seldom independent.

use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::{Between, BinaryExpr, InList, Like};
use datafusion_expr::{Expr, Operator, utils::split_conjunction};

use super::column::{ColumnEstimate, Distribution};
use super::pattern::like_selectivity;
use super::{Estimate, position};

/// A predicate of which nothing is known.
const UNKNOWN: f64 = 1.0 / 3.0;
/// A comparison of two columns of which nothing is known.
const UNKNOWN_EQUAL: f64 = 0.1;
/// The least share that a conjunction is believed to keep.
const LEAST: f64 = 1e-9;

type Find<'a> = &'a dyn Fn(&Column) -> Option<usize>;

/// The share of rows that all `predicates` together keep. Narrows the columns that they speak about.
pub fn conjunction<'a>(
    predicates: impl IntoIterator<Item = &'a Expr>,
    input: &mut Estimate,
    find: Find<'_>,
) -> f64 {
    // Per restricted column the product of its conjuncts; others stand alone.
    let mut shares: Vec<(Option<usize>, f64)> = vec![];
    for predicate in predicates.into_iter().flat_map(split_conjunction) {
        let (column, kept) = narrow(predicate, input, find);
        match shares.iter_mut().find(|(c, _)| column.is_some() && *c == column) {
            Some((_, share)) => *share *= kept,
            None => shares.push((column, kept)),
        }
    }
    back_off(shares.iter().map(|(_, kept)| *kept)).max(LEAST)
}

/// The share that a predicate keeps of `input`, which stays as it is.
pub fn selectivity(predicate: &Expr, input: &Estimate, find: Find<'_>) -> f64 {
    conjunction([predicate], &mut input.clone(), find)
}

/// Combines shares of conjuncts: the strongest counts fully, the next ones less and less.
pub fn back_off(shares: impl Iterator<Item = f64>) -> f64 {
    let mut shares: Vec<f64> = shares.map(|s| s.clamp(0.0, 1.0)).collect();
    shares.sort_by(f64::total_cmp);
    let weights = [1.0, 0.75, 0.5, 0.25];
    shares.iter().enumerate().map(|(i, s)| s.powf(*weights.get(i).unwrap_or(&0.125))).product()
}

/// One conjunct: the column it restricts, if it is about one, and the share it keeps.
fn narrow(predicate: &Expr, input: &mut Estimate, find: Find<'_>) -> (Option<usize>, f64) {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => (None, conjunction([predicate], input, find)),
            Operator::Or => disjunction(left, right, input, find),
            _ => comparison(left, *op, right, input, find),
        },
        Expr::Between(Between { expr, negated, low, high }) => {
            let (column, above) = comparison(expr, Operator::GtEq, low, input, find);
            let (_, below) = comparison(expr, Operator::LtEq, high, input, find);
            let kept = if column.is_some() { above * below } else { UNKNOWN * UNKNOWN };
            (column.filter(|_| !negated), if *negated { 1.0 - kept } else { kept })
        }
        Expr::InList(InList { expr, list, negated }) => in_list(expr, list, *negated, input, find),
        Expr::Like(like) => (None, pattern(like, input, find)),
        Expr::SimilarTo(like) => (None, if like.negated { 0.9 } else { 0.1 }),
        Expr::Not(inner) => (None, 1.0 - selectivity(inner, input, find)),
        Expr::IsNull(inner) => {
            (None, input.expression(inner, find).null_fraction.max(1.0 / input.rows.max(1.0)))
        }
        Expr::IsNotNull(inner) => {
            let share = 1.0 - input.expression(inner, find).null_fraction;
            let column = column_of(inner, find);
            if let Some(at) = column {
                input.columns[at].null_fraction = 0.0;
            }
            (column, share)
        }
        Expr::IsTrue(inner) => (None, selectivity(inner, input, find)),
        Expr::IsNotTrue(inner) | Expr::IsFalse(inner) => (None, 1.0 - selectivity(inner, input, find)),
        Expr::Alias(alias) => narrow(&alias.expr, input, find),
        Expr::Literal(ScalarValue::Boolean(Some(true)), _) => (None, 1.0),
        Expr::Literal(_, _) => (None, 0.0),
        Expr::Column(column) => {
            let known = find(column).and_then(|at| input.columns[at].distribution);
            (None, known.map_or(0.5, |share| share.mean))
        }
        _ => (None, UNKNOWN),
    }
}

fn disjunction(left: &Expr, right: &Expr, input: &mut Estimate, find: Find<'_>) -> (Option<usize>, f64) {
    let mut branches = vec![];
    for side in [left, right] {
        flatten_or(side, &mut branches);
    }
    let (mut neither, mut sum) = (1.0, 0.0);
    // The one column that all branches speak about, if there is one.
    let mut common = None;
    let mut narrowed: Vec<Estimate> = vec![];
    for (i, branch) in branches.iter().enumerate() {
        let mut copy = input.clone();
        let (column, kept) = narrow(branch, &mut copy, find);
        common = if i == 0 || common == column { column } else { None };
        neither *= 1.0 - kept.clamp(0.0, 1.0);
        sum += kept;
        narrowed.push(copy);
    }
    for (at, column) in input.columns.iter_mut().enumerate() {
        widen(column, narrowed.iter().map(|branch| &branch.columns[at]));
    }
    // Alternatives for one column exclude each other, so their shares add up.
    (common, if common.is_some() { sum.min(1.0) } else { 1.0 - neither })
}

/// What is left of a column that each branch of a disjunction narrowed: the values of all branches.
fn widen<'a>(column: &mut ColumnEstimate, branches: impl Iterator<Item = &'a ColumnEstimate> + Clone) {
    let values: f64 = branches.clone().map(|b| b.distinct).sum();
    if branches.clone().any(|b| b.distinct >= column.distinct) || values >= column.distinct {
        return;
    }
    let bound = |of: fn(&ColumnEstimate) -> Option<f64>, pick: fn(f64, f64) -> f64| {
        branches.clone().map(of).reduce(|a, b| Some(pick(a?, b?))).flatten()
    };
    let (min, max) = (bound(|b| b.min, f64::min), bound(|b| b.max, f64::max));
    column.narrow(min, max, values / column.distinct);
}

fn flatten_or<'a>(expr: &'a Expr, branches: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            flatten_or(left, branches);
            flatten_or(right, branches);
        }
        _ => branches.push(expr),
    }
}

fn comparison(
    left: &Expr,
    op: Operator,
    right: &Expr,
    input: &mut Estimate,
    find: Find<'_>,
) -> (Option<usize>, f64) {
    let (left, op, right) = match (literal(left), op.swap()) {
        (Some(_), Some(swapped)) if literal(right).is_none() => (right, swapped, left),
        _ => (left, op, right),
    };
    let Some(value) = literal(right) else {
        return (None, two_sides(left, op, right, input, find));
    };
    let column = column_of(left, find);
    let estimate = match column {
        Some(at) => input.columns[at].clone(),
        None => input.expression(left, find),
    };
    let not_null = 1.0 - estimate.null_fraction;
    let at = position(value);
    let kept = match op {
        Operator::Eq | Operator::IsNotDistinctFrom => {
            let outside = at.zip(estimate.min).is_some_and(|(v, min)| v < min)
                || at.zip(estimate.max).is_some_and(|(v, max)| v > max);
            if let Some(column) = column {
                input.columns[column].narrow(at, at, 1.0 / estimate.distinct.max(1.0));
                input.columns[column].guessed = false;
            }
            if outside { 1.0 / input.rows.max(1.0) } else { not_null / estimate.values() }
        }
        Operator::NotEq | Operator::IsDistinctFrom => not_null * (1.0 - 1.0 / estimate.values().max(2.0)),
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
            let share = range_share(&estimate, op, at);
            if let Some(column) = column {
                match op {
                    Operator::Lt | Operator::LtEq => input.columns[column].narrow(None, at, share),
                    _ => input.columns[column].narrow(at, None, share),
                }
            }
            not_null * share
        }
        Operator::RegexMatch | Operator::RegexIMatch => 0.05,
        Operator::RegexNotMatch | Operator::RegexNotIMatch => 0.95,
        Operator::LikeMatch | Operator::ILikeMatch => 0.05,
        Operator::NotLikeMatch | Operator::NotILikeMatch => 0.95,
        _ => UNKNOWN,
    };
    let restricts = !matches!(op, Operator::NotEq | Operator::IsDistinctFrom);
    (column.filter(|_| restricts), kept)
}

/// The share of a column's values on one side of `at`.
fn range_share(column: &ColumnEstimate, op: Operator, at: Option<f64>) -> f64 {
    let below = matches!(op, Operator::Lt | Operator::LtEq);
    if let (Some(curve), Some(at)) = (column.distribution, at) {
        let share = curve.below(at);
        // Groups differ more than chance explains, so the tails are not quite empty.
        return if below { share } else { 1.0 - share }.clamp(5e-4, 1.0);
    }
    let (Some(min), Some(max), Some(at)) = (column.min, column.max, at) else { return UNKNOWN };
    // Integers and dates: [min, max] holds one value more than the difference says.
    let step = column.step;
    let width = max - min + step;
    if width <= 0.0 {
        let kept = match op {
            Operator::Lt => min < at,
            Operator::LtEq => min <= at,
            Operator::Gt => min > at,
            _ => min >= at,
        };
        return if kept { 1.0 } else { 0.0 };
    }
    let share = match op {
        Operator::Lt => (at - min) / width,
        Operator::LtEq => (at - min + step) / width,
        Operator::Gt => (max - at) / width,
        _ => (max - at + step) / width,
    };
    // Bounds may be stale by a row, so nothing is quite impossible.
    share.clamp(1.0 / column.domain_rows.max(1.0), 1.0)
}

/// A comparison of two expressions, neither of them constant.
fn two_sides(left: &Expr, op: Operator, right: &Expr, input: &Estimate, find: Find<'_>) -> f64 {
    let subquery = |e: &Expr| e.contains_scalar_subquery();
    let (l, r) = (input.expression(left, find), input.expression(right, find));
    let distinct = match (subquery(left), subquery(right)) {
        (false, true) => l.distinct,
        (true, false) => r.distinct,
        _ => l.distinct.max(r.distinct),
    };
    match op {
        Operator::Eq | Operator::IsNotDistinctFrom => (1.0 / distinct.max(1.0)).min(UNKNOWN_EQUAL),
        Operator::NotEq | Operator::IsDistinctFrom => 1.0 - (1.0 / distinct.max(2.0)),
        Operator::Lt | Operator::LtEq => below_share(&l, &r),
        Operator::Gt | Operator::GtEq => below_share(&r, &l),
        _ => UNKNOWN,
    }
}

/// The share of pairs with `l` below `r`, both even between their bounds.
fn below_share(l: &ColumnEstimate, r: &ColumnEstimate) -> f64 {
    let (Some(a), Some(b), Some(c), Some(d)) = (l.min, l.max, r.min, r.max) else { return UNKNOWN };
    if b <= a || d <= c {
        return UNKNOWN;
    }
    // The mean over l of the share of [c, d] above it, by the midpoint of eight slices.
    let slices = 8;
    let at = |i: i32| a + (b - a) * (f64::from(i) + 0.5) / f64::from(slices);
    let share: f64 = (0..slices).map(|i| ((d - at(i)) / (d - c)).clamp(0.0, 1.0)).sum();
    (share / f64::from(slices)).clamp(0.01, 1.0)
}

fn in_list(
    expr: &Expr,
    list: &[Expr],
    negated: bool,
    input: &mut Estimate,
    find: Find<'_>,
) -> (Option<usize>, f64) {
    let column = column_of(expr, find);
    let estimate = input.expression(expr, find);
    let values = list.len() as f64;
    let share = (values / estimate.values()).min(1.0);
    let not_null = 1.0 - estimate.null_fraction;
    if negated {
        return (None, not_null * (1.0 - share).max(1.0 / estimate.distinct.max(2.0)));
    }
    if let Some(at) = column {
        let positions: Option<Vec<f64>> = list.iter().map(|e| literal(e).and_then(position)).collect();
        let bound = |f: fn(f64, f64) -> f64| positions.as_ref().and_then(|p| p.iter().copied().reduce(f));
        let left = (values / estimate.distinct).min(1.0);
        input.columns[at].narrow(bound(f64::min), bound(f64::max), left);
        input.columns[at].guessed = false;
    }
    (column, not_null * share)
}

fn pattern(like: &Like, input: &Estimate, find: Find<'_>) -> f64 {
    let estimate = input.expression(&like.expr, find);
    let kept = match literal(&like.pattern) {
        Some(
            ScalarValue::Utf8(Some(p)) | ScalarValue::Utf8View(Some(p)) | ScalarValue::LargeUtf8(Some(p)),
        ) => like_selectivity(p, like.escape_char, if estimate.guessed { 1e6 } else { estimate.distinct }),
        _ => 0.05,
    };
    (1.0 - estimate.null_fraction) * if like.negated { 1.0 - kept } else { kept }
}

/// The constant that an expression is, through casts and aliases.
fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => literal(&cast.expr),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// The column that an expression is, through casts and aliases.
fn column_of(expr: &Expr, find: Find<'_>) -> Option<usize> {
    match expr {
        Expr::Column(column) => find(column),
        Expr::Cast(cast) => column_of(&cast.expr, find),
        Expr::Alias(alias) => column_of(&alias.expr, find),
        _ => None,
    }
}

impl Distribution {
    /// The share of values below `at`. The normal distribution's tail by Abramowitz and Stegun, 26.2.17.
    fn below(self, at: f64) -> f64 {
        if self.deviation <= 0.0 {
            return if self.mean < at { 1.0 } else { 0.0 };
        }
        let z = (at - self.mean) / self.deviation;
        let t = 1.0 / (1.0 + 0.2316419 * z.abs());
        let polynomial =
            t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
        let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial;
        if z > 0.0 { 1.0 - tail } else { tail }
    }
}
