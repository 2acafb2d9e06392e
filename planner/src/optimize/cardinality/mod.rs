//! How many rows, and how many distinct values per column, a logical plan will produce.
//!
//! Textbook estimation from [`crate::catalog::TableStatistics`]: interpolation between minimum and maximum for ranges, one
//! over the distinct count for equality, containment of keys for joins. Columns are traced by position
//! through every operator, so a group-by above five joins still knows the base column it groups by.
//! The join order asks for the inputs of a join region and combines them itself, see
//! [`super::join_order`]; both use the same formulas for keys, in [`join`].
//!
//! What always holds: estimates are finite, `rows >= 0`, `1 <= distinct <= domain`. A missing statistic
//! is replaced by a guess, never by an error. Nothing here changes a plan.
//!
//! A column has two counts. `distinct` is how many values are left in this very output. `domain` is how
//! many there were in the table before other columns' predicates took rows away: that is what two join
//! keys are compared by, so that a filter on a primary key's table reduces the foreign key's side in
//! proportion.

mod aggregate;
mod column;
mod expression;
pub mod join;
mod pattern;
pub mod selectivity;
#[cfg(test)]
mod tests;

use datafusion_common::Column;
use datafusion_expr::{Expr, FetchType, LogicalPlan, SkipType, TableScan};

use crate::catalog::CatalogSnapshot;
use crate::sql::catalog_table;
pub use column::{ColumnEstimate, Distribution, Origin, position};

/// Rows of a table about which nothing is known.
const ROWS_UNKNOWN: f64 = 100_000.0;

/// What a plan's output is expected to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    pub rows: f64,
    /// One for each column of the plan's schema.
    pub columns: Vec<ColumnEstimate>,
}

/// Estimates a plan's output, its inputs included.
pub fn estimate(plan: &LogicalPlan, catalog: &CatalogSnapshot) -> Estimate {
    let inputs = plan.inputs().into_iter().map(|input| estimate(input, catalog)).collect();
    estimate_node(plan, inputs, catalog)
}

/// Estimates one operator's output from its inputs' estimates, which are in the order of
/// [`LogicalPlan::inputs`]. For callers that walk a plan bottom-up anyway.
pub fn estimate_node(plan: &LogicalPlan, mut inputs: Vec<Estimate>, catalog: &CatalogSnapshot) -> Estimate {
    let width = plan.schema().fields().len();
    let mut result = match plan {
        LogicalPlan::TableScan(scan) => table_scan(scan, catalog),
        LogicalPlan::EmptyRelation(e) => {
            let rows = if e.produce_one_row { 1.0 } else { 0.0 };
            Estimate { rows, columns: vec![ColumnEstimate::unknown(1.0); width] }
        }
        LogicalPlan::Values(values) => {
            let rows = values.values.len() as f64;
            Estimate { rows, columns: vec![ColumnEstimate::unknown(rows); width] }
        }
        LogicalPlan::Filter(filter) => {
            let mut input = inputs.remove(0);
            let schema = filter.input.schema();
            input.filter([&filter.predicate], &|c: &Column| schema.maybe_index_of_column(c));
            input
        }
        LogicalPlan::Projection(projection) => {
            let input = inputs.remove(0);
            let schema = projection.input.schema();
            let find = |c: &Column| schema.maybe_index_of_column(c);
            let columns = projection.expr.iter().map(|e| input.expression(e, &find)).collect();
            Estimate { rows: input.rows, columns }
        }
        LogicalPlan::Aggregate(node) => aggregate::aggregate(node, &inputs.remove(0)),
        LogicalPlan::Distinct(distinct) => aggregate::distinct(distinct, inputs.remove(0)),
        LogicalPlan::Join(node) => {
            let right = inputs.remove(1);
            join::join(node, inputs.remove(0), right)
        }
        LogicalPlan::Union(_) => union(inputs, width),
        LogicalPlan::Limit(limit) => {
            let mut input = inputs.remove(0);
            if let Ok(SkipType::Literal(skip)) = limit.get_skip_type() {
                input.limit((input.rows - skip as f64).max(0.0));
            }
            if let Ok(FetchType::Literal(Some(fetch))) = limit.get_fetch_type() {
                input.limit(fetch as f64);
            }
            input
        }
        LogicalPlan::Sort(sort) => {
            let mut input = inputs.remove(0);
            if let Some(fetch) = sort.fetch {
                input.limit(fetch as f64);
            }
            input
        }
        LogicalPlan::Window(window) => {
            let mut input = inputs.remove(0);
            let rows = input.rows;
            input.columns.extend(window.window_expr.iter().map(|_| ColumnEstimate::unknown(rows)));
            input
        }
        LogicalPlan::Unnest(_) => {
            // Lists of a handful of elements, as good a guess as any.
            let rows = inputs.iter().map(|i| i.rows).fold(1.0, f64::max) * 4.0;
            Estimate { rows, columns: vec![ColumnEstimate::unknown(rows); width] }
        }
        LogicalPlan::RecursiveQuery(_) => {
            let rows = inputs.iter().map(|i| i.rows).sum::<f64>() * 4.0;
            Estimate { rows, columns: vec![ColumnEstimate::unknown(rows); width] }
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Repartition(_) | LogicalPlan::Subquery(_) => {
            inputs.pop().unwrap_or_else(|| Estimate::unknown(width))
        }
        LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_) => match inputs.pop() {
            Some(input) if input.columns.len() == width => input,
            _ => Estimate::unknown(width),
        },
    };
    result.columns.resize(width, ColumnEstimate::unknown(result.rows));
    result
}

impl Estimate {
    fn unknown(width: usize) -> Self {
        Estimate { rows: ROWS_UNKNOWN, columns: vec![ColumnEstimate::unknown(ROWS_UNKNOWN); width] }
    }

    /// Keeps what `predicates` (taken together) let pass; `find` gives a column's position.
    pub fn filter<'a>(
        &mut self,
        predicates: impl IntoIterator<Item = &'a Expr>,
        find: &dyn Fn(&Column) -> Option<usize>,
    ) {
        let before = self.rows;
        let kept = selectivity::conjunction(predicates, self, find);
        self.rows = before * kept;
        if kept < 1.0 {
            for column in &mut self.columns {
                column.thin_out(before, kept);
            }
        }
    }

    /// What an expression over this output's columns is expected to be.
    pub fn expression(&self, expr: &Expr, find: &dyn Fn(&Column) -> Option<usize>) -> ColumnEstimate {
        expression::expression(expr, self, find)
    }

    /// No more than `rows`.
    fn limit(&mut self, rows: f64) {
        if rows < self.rows {
            let before = self.rows.max(1.0);
            self.columns.iter_mut().for_each(|c| c.thin_out(before, rows / before));
            self.rows = rows;
        }
    }
}

fn table_scan(scan: &TableScan, catalog: &CatalogSnapshot) -> Estimate {
    let schema = scan.source.schema();
    let name = scan.table_name.table();
    // By its own word: of the name there may be a temporary table, which a shared view does not see.
    let known = catalog_table(scan.source.as_ref()).map(|source| &source.table);
    let of_name = || catalog.tables.get(name).or_else(|| catalog.tables.get(&name.to_lowercase()));
    let table = known.or_else(of_name);
    let mut all = match table {
        Some(table) => column::table(table, &schema),
        None => Estimate::unknown(schema.fields().len()),
    };
    if !scan.filters.is_empty() {
        all.filter(&scan.filters, &|c: &Column| schema.index_of(&c.name).ok());
    }
    if let Some(fetch) = scan.fetch {
        all.limit(fetch as f64);
    }
    match &scan.projection {
        None => all,
        Some(kept) => {
            let columns = kept.iter().filter_map(|i| all.columns.get(*i).cloned()).collect();
            Estimate { rows: all.rows, columns }
        }
    }
}

fn union(inputs: Vec<Estimate>, width: usize) -> Estimate {
    let rows = inputs.iter().map(|i| i.rows).sum();
    let columns = (0..width)
        .map(|c| {
            let parts = inputs.iter().filter_map(|i| Some((i.rows, i.columns.get(c)?)));
            parts.fold(None, |sum: Option<(f64, ColumnEstimate)>, (n, part)| match sum {
                None => Some((n, part.clone())),
                Some((m, before)) => Some((m + n, before.union(m, part, n))),
            })
        })
        .map(|sum| sum.map_or_else(|| ColumnEstimate::unknown(rows), |(_, c)| c))
        .collect();
    Estimate { rows, columns }
}
