//! Table scans and constant rows.
//!
//! The scan reads the projected columns and those that filters need; filters that the optimizer pushed
//! down are applied by the scan itself, each conjunct on its own, so that the engine may order them.

use datafusion_common::DFSchema;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr as LogicalExpr, TableScan, Values as LogicalValues};

use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::physical::{Operator, PhysicalPlan, Scan, Values};
use crate::sql::{catalog_table, work_table};

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<PhysicalPlan> {
        if let Some(work) = work_table(scan.source.as_ref()) {
            return self.work_table_scan(scan, &work.name);
        }
        let Some(source) = catalog_table(scan.source.as_ref()) else {
            return Err(PlanError::internal(format!("{} is no table of the catalog", scan.table_name)));
        };
        let table = &source.table;
        let schema = table.schema.clone();
        let projection: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..schema.fields().len()).collect(),
        };
        let whole = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &schema)?;
        let mut filters = vec![];
        for filter in scan.filters.iter().flat_map(|f| split_conjunction(f)) {
            filters.push(self.expr(filter, &whole)?);
        }
        let mut columns = projection.clone();
        columns.extend(filters.iter().flat_map(|f| f.columns()));
        columns.sort_unstable();
        columns.dedup();
        let position = |table_column: usize| {
            columns.binary_search(&table_column).expect("invariant: every used column was collected")
        };
        for filter in &mut filters {
            filter.remap(&position);
        }
        let operator = Operator::Scan(Scan {
            table: table.name.clone(),
            data: table.data.clone(),
            table_schema: schema,
            output: projection.iter().map(|c| position(*c)).collect(),
            columns,
            filters,
            runtime_filters: vec![],
            limit: scan.fetch.map(|n| n as u64),
        });
        Ok(node(operator, vec![], scan.projected_schema.inner()))
    }

    fn work_table_scan(&mut self, scan: &TableScan, name: &str) -> Result<PhysicalPlan> {
        let id = self.work_tables.iter().rev().find(|(n, _)| n == name).map(|(_, id)| *id);
        let Some(id) = id else {
            return Err(PlanError::internal(format!("the recursive query {name} is read outside of itself")));
        };
        let source = scan.source.schema();
        let whole = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source)?;
        let mut plan = node(Operator::WorkTable { id }, vec![], &source);
        if let Some(predicate) = datafusion_expr::utils::conjunction(scan.filters.clone()) {
            let predicate = self.expr(&predicate, &whole)?;
            plan = node(Operator::Filter { predicate }, vec![plan], &source);
        }
        if let Some(projection) = &scan.projection {
            let exprs = projection
                .iter()
                .map(|i| crate::expr::Expr::column(*i, source.field(*i).data_type().clone()))
                .collect();
            plan = node(Operator::Project { exprs }, vec![plan], scan.projected_schema.inner());
        }
        if let Some(fetch) = scan.fetch {
            let limit = crate::physical::Limit { skip: 0, fetch: Some(fetch as u64) };
            let schema = plan.schema.clone();
            plan = node(Operator::Limit(limit), vec![plan], &schema);
        }
        Ok(plan)
    }

    pub(super) fn values(&mut self, values: &LogicalValues) -> Result<PhysicalPlan> {
        let empty = DFSchema::empty();
        let mut rows = Vec::with_capacity(values.values.len());
        for row in &values.values {
            let mut cells = Vec::with_capacity(row.len());
            for (cell, field) in row.iter().zip(values.schema.fields()) {
                cells.push(self.typed(cell, &empty, field.data_type())?);
            }
            rows.push(cells);
        }
        Ok(node(Operator::Values(Values { rows }), vec![], values.schema.inner()))
    }

    /// The expression, cast to a type if it has another.
    pub(super) fn typed(
        &mut self,
        expr: &LogicalExpr,
        schema: &DFSchema,
        to: &arrow::datatypes::DataType,
    ) -> Result<crate::expr::Expr> {
        let expr = self.expr(expr, schema)?;
        if expr.data_type() == *to {
            return Ok(expr);
        }
        Ok(crate::expr::Expr::Cast { expr: Box::new(expr), to: to.clone(), safe: false })
    }
}
