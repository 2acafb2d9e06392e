//! What a computed column is expected to hold.

use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion_expr::{Expr, Operator};

use super::Estimate;
use super::column::{ColumnEstimate, step};

type Find<'a> = &'a dyn Fn(&Column) -> Option<usize>;

/// Estimates an expression over `input`'s columns.
pub fn expression(expr: &Expr, input: &Estimate, find: Find<'_>) -> ColumnEstimate {
    match expr {
        Expr::Column(column) => match find(column) {
            Some(at) => input.columns[at].clone(),
            None => ColumnEstimate::unknown(input.rows),
        },
        Expr::Alias(alias) => expression(&alias.expr, input, find),
        Expr::Literal(value, _) => ColumnEstimate::constant(value),
        Expr::Cast(cast) => {
            let from = expression(&cast.expr, input, find);
            // Bounds stay comparable within numbers and within dates, not between text and numbers.
            let to = step(cast.field.data_type());
            let keeps = to > 0.0 || cast.field.data_type().is_floating() || from.step == 0.0;
            ColumnEstimate {
                min: from.min.filter(|_| keeps),
                max: from.max.filter(|_| keeps),
                step: if from.step == 0.0 { 0.0 } else { to },
                ..from
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (l, r) = (expression(left, input, find), expression(right, input, find));
            binary(&l, *op, &r, input.rows)
        }
        Expr::Negative(inner) => {
            let e = expression(inner, input, find);
            let (min, max) = (e.max.map(|v| -v), e.min.map(|v| -v));
            ColumnEstimate { min, max, origin: None, distribution: None, ..e }
        }
        Expr::ScalarFunction(call) => function(call, input, find),
        Expr::Case(case) => {
            let mut branches: Vec<&Expr> = case.when_then_expr.iter().map(|(_, then)| &**then).collect();
            branches.extend(case.else_expr.as_deref());
            let values = branches.iter().map(|e| expression(e, input, find).distinct).sum();
            computed(values, input.rows)
        }
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::Not(_)
        | Expr::Like(_)
        | Expr::InList(_)
        | Expr::Between(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_) => computed(2.0, input.rows),
        Expr::ScalarSubquery(_) => computed(1.0, input.rows),
        _ => computed(values_of(expr, input, find), input.rows),
    }
}

/// A column with `distinct` values and nothing else known.
fn computed(distinct: f64, rows: f64) -> ColumnEstimate {
    let distinct = distinct.clamp(1.0, rows.max(1.0));
    ColumnEstimate { distinct, domain: distinct, ..ColumnEstimate::unknown(rows) }
}

/// As many values as the columns below have combinations.
fn values_of(expr: &Expr, input: &Estimate, find: Find<'_>) -> f64 {
    let columns = expr.column_refs();
    let values = columns.iter().filter_map(|c| find(c)).map(|at| input.columns[at].distinct);
    values.product::<f64>().clamp(1.0, input.rows.max(1.0))
}

fn binary(l: &ColumnEstimate, op: Operator, r: &ColumnEstimate, rows: f64) -> ColumnEstimate {
    let values = l.distinct * r.distinct;
    let mut result = computed(values, rows);
    result.domain =
        (l.domain * r.domain).clamp(result.distinct, l.domain_rows.max(r.domain_rows).max(result.distinct));
    result.null_fraction = 1.0 - (1.0 - l.null_fraction) * (1.0 - r.null_fraction);
    let (Some(a), Some(b), Some(c), Some(d)) = (l.min, l.max, r.min, r.max) else { return result };
    let ends = match op {
        Operator::Plus => [a + c, b + d, a + c, b + d],
        Operator::Minus => [a - d, b - c, a - d, b - c],
        Operator::Multiply => [a * c, a * d, b * c, b * d],
        Operator::Divide if c > 0.0 || d < 0.0 => [a / c, a / d, b / c, b / d],
        _ if op.is_logic_operator() || op.negate().is_some() => return computed(2.0, rows),
        _ => return result,
    };
    result.min = ends.into_iter().reduce(f64::min);
    result.max = ends.into_iter().reduce(f64::max);
    result.step = if l.step > 0.0 && r.step > 0.0 { l.step.min(r.step) } else { 0.0 };
    // A bell moved or stretched by a constant stays one.
    let scaled = |curve: &ColumnEstimate, by: &ColumnEstimate| {
        let (curve, by) = (curve.distribution?, by.min.filter(|_| by.distinct == 1.0)?);
        (op == Operator::Multiply)
            .then(|| super::Distribution { mean: curve.mean * by, deviation: curve.deviation * by.abs() })
    };
    result.distribution = scaled(l, r).or_else(|| scaled(r, l));
    result
}

fn function(call: &ScalarFunction, input: &Estimate, find: Find<'_>) -> ColumnEstimate {
    let text = |i: usize| match call.args.get(i) {
        Some(Expr::Literal(ScalarValue::Utf8(Some(s)) | ScalarValue::Utf8View(Some(s)), _)) => {
            Some(s.to_ascii_lowercase())
        }
        _ => None,
    };
    let values = call.args.iter().map(|a| expression(a, input, find).distinct).product::<f64>();
    match call.func.name() {
        "date_part" => {
            let from = call.args.get(1).map(|a| expression(a, input, find));
            date_part(text(0).as_deref(), from, input.rows)
        }
        "substr" | "left" | "right" | "substring" => {
            let length = match call.args.last() {
                Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if call.args.len() > 1 => *n,
                _ => i64::MAX,
            };
            // Ten digits or a few dozen letters for each character: about what codes use.
            let codes = if (0..6).contains(&length) { 8f64.powf(length as f64) } else { f64::INFINITY };
            computed(values.min(codes), input.rows)
        }
        "coalesce" | "nvl" => {
            let first = call.args.first().map(|a| expression(a, input, find));
            let first = first.unwrap_or_else(|| ColumnEstimate::unknown(input.rows));
            ColumnEstimate { null_fraction: 0.0, origin: None, ..first }
        }
        _ => computed(values.min(input.rows.max(1.0)), input.rows),
    }
}

/// `extract(part from …)`: years from the range, months and days by the calendar.
fn date_part(part: Option<&str>, from: Option<ColumnEstimate>, rows: f64) -> ColumnEstimate {
    const DAYS_PER_YEAR: f64 = 365.2425;
    let bounded = |min: f64, max: f64| ColumnEstimate {
        min: Some(min),
        max: Some(max),
        step: 1.0,
        ..computed(max - min + 1.0, rows)
    };
    match (part, from.and_then(|f| f.min.zip(f.max))) {
        (Some("year"), Some((min, max))) => {
            let year = |day: f64| (1970.0 + day / DAYS_PER_YEAR).floor();
            bounded(year(min), year(max))
        }
        (Some("quarter"), _) => bounded(1.0, 4.0),
        (Some("month"), _) => bounded(1.0, 12.0),
        (Some("week"), _) => bounded(1.0, 53.0),
        (Some("day"), _) => bounded(1.0, 31.0),
        (Some("dow" | "isodow"), _) => bounded(0.0, 6.0),
        (Some("hour"), _) => bounded(0.0, 23.0),
        (Some("minute" | "second"), _) => bounded(0.0, 59.0),
        _ => computed(100.0, rows),
    }
}
