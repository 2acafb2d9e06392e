//! Groups: how many, and what their aggregates hold.

use datafusion_common::Column;
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::utils::grouping_set_to_exprlist;
use datafusion_expr::{Aggregate, Distinct, Expr, GroupingSet};

use super::Estimate;
use super::column::{ColumnEstimate, Distribution};

/// GROUP BY.
pub fn aggregate(node: &Aggregate, input: &Estimate) -> Estimate {
    let schema = node.input.schema();
    let find = |c: &Column| schema.maybe_index_of_column(c);
    let exprs = grouping_set_to_exprlist(&node.group_expr).unwrap_or_default();
    let keys: Vec<ColumnEstimate> = exprs.iter().map(|e| input.expression(e, &find)).collect();
    let rows = match node.group_expr.first() {
        Some(Expr::GroupingSet(sets)) => {
            let of = |set: &[Expr]| {
                let keys: Vec<_> = set.iter().map(|e| input.expression(e, &find)).collect();
                groups(&keys, input.rows)
            };
            match sets {
                GroupingSet::GroupingSets(sets) => sets.iter().map(|s| of(s)).sum(),
                GroupingSet::Rollup(keys) => (0..=keys.len()).map(|n| of(&keys[..n])).sum(),
                // Every subset: twice the finest one for each key is plenty.
                GroupingSet::Cube(keys) => of(keys) * keys.len() as f64,
            }
        }
        _ => groups(&keys, input.rows),
    };
    let rows_per_group = (input.rows / rows.max(1.0)).max(1.0);
    let mut columns: Vec<ColumnEstimate> = keys
        .into_iter()
        .map(|mut key| {
            // What was a foreign key counts as a key now: its domain is spread over the groups.
            key.domain_rows = (key.domain_rows / rows_per_group).max(key.domain).max(rows);
            key
        })
        .collect();
    if matches!(node.group_expr.first(), Some(Expr::GroupingSet(_))) {
        columns.push(ColumnEstimate::unknown(rows));
    }
    for call in &node.aggr_expr {
        columns.push(result(call, input, &find, rows, rows_per_group));
    }
    Estimate { rows, columns }
}

/// DISTINCT.
pub fn distinct(node: &Distinct, mut input: Estimate) -> Estimate {
    let rows = match node {
        Distinct::All(_) => groups(&input.columns, input.rows),
        Distinct::On(on) => {
            let schema = on.input.schema();
            let find = |c: &Column| schema.maybe_index_of_column(c);
            let keys: Vec<_> = on.on_expr.iter().map(|e| input.expression(e, &find)).collect();
            groups(&keys, input.rows)
        }
    };
    for column in &mut input.columns {
        column.distinct = column.distinct.min(rows).max(1.0);
    }
    input.rows = rows;
    input
}

/// Groups of `rows` rows by these keys: combinations of their values, capped by the rows. Keys from one
/// table tend to depend on each other, so each further one counts less; together they have no more
/// combinations than the table has rows.
fn groups(keys: &[ColumnEstimate], rows: f64) -> f64 {
    if keys.is_empty() {
        return 1.0;
    }
    let mut total: f64 = 1.0;
    let mut done = vec![false; keys.len()];
    for first in 0..keys.len() {
        if done[first] {
            continue;
        }
        let mut values = vec![];
        let mut cap = f64::INFINITY;
        for (i, key) in keys.iter().enumerate().skip(first) {
            let table = |k: &ColumnEstimate| k.origin.as_ref().map(|o| o.table.clone());
            let together = table(key).is_some() && table(key) == table(&keys[first]);
            if i == first || (together && !done[i]) {
                done[i] = true;
                let nulls = if key.null_fraction > 0.0 { 1.0 } else { 0.0 };
                values.push(key.distinct + nulls);
                cap = cap.min(key.domain_rows.max(key.distinct) + nulls);
            }
        }
        values.sort_by(|a, b| b.total_cmp(a));
        let weights = [1.0, 0.8, 0.6, 0.4];
        let combinations: f64 =
            values.iter().enumerate().map(|(i, v)| v.powf(*weights.get(i).unwrap_or(&0.2))).product();
        total *= combinations.min(cap).max(1.0);
    }
    // Cardenas again: of many possible combinations, rows hit some twice.
    let hit = if total < 1e-3 * rows { total } else { total * (1.0 - (-rows / total).exp()) };
    hit.min(rows).max(rows.min(1.0))
}

/// The values of an aggregate: `rows_per_group` rows went into each.
fn result(
    call: &Expr,
    input: &Estimate,
    find: &dyn Fn(&Column) -> Option<usize>,
    rows: f64,
    rows_per_group: f64,
) -> ColumnEstimate {
    let Some(AggregateFunction { func, params }) = function(call) else {
        return ColumnEstimate::unknown(rows);
    };
    let mut column = ColumnEstimate::unknown(rows);
    let n = rows_per_group;
    if func.name() == "count" {
        column.distinct = (4.0 * n.sqrt()).clamp(1.0, rows.max(1.0));
        column.domain = column.distinct;
        column.step = 1.0;
        column.distribution = Some(Distribution { mean: n, deviation: n.sqrt() });
        return column;
    }
    let Some(argument) = params.args.first().map(|e| input.expression(e, find)) else { return column };
    let Some((min, max)) = argument.min.zip(argument.max) else {
        if matches!(func.name(), "min" | "max") {
            column.distinct = argument.distinct.min(rows).max(1.0);
            column.domain = argument.domain.max(column.distinct);
        }
        return column;
    };
    let (mean, variance) = ((min + max) / 2.0, (max - min).powi(2) / 12.0);
    match func.name() {
        // Both the values and the number of them vary.
        "sum" => {
            let deviation = (n * variance + n * mean * mean).sqrt();
            column.distribution = Some(Distribution { mean: n * mean, deviation });
        }
        "avg" => {
            column.distribution = Some(Distribution { mean, deviation: (variance / n).sqrt() });
        }
        "min" | "max" => {
            column = ColumnEstimate { origin: None, ..argument };
            column.distinct = column.distinct.min(rows).max(1.0);
        }
        _ => {}
    }
    column
}

fn function(call: &Expr) -> Option<&AggregateFunction> {
    match call {
        Expr::AggregateFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}
