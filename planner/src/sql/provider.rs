//! The catalog as `datafusion-sql` wants to see it: tables and views by name, functions, options.
//!
//! A table's source claims to apply every filter exactly, so that the optimizer hands all of them to the
//! scan. A view is planned from its text where it is named; views may name views, up to a depth.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, TableSource,
    TableType, WindowUDF,
};

use super::message::nearest;
use super::parameters::{self, Parameters};
use super::{bind, cast_names, parse};
use crate::catalog::{CatalogSnapshot, Table};
use crate::error::PlanError;
use crate::functions::functions;

/// How many views may stand on each other; a view that names itself reaches this.
const VIEW_DEPTH_MAX: usize = 32;

/// A table of the catalog in a logical plan.
pub struct CatalogTable {
    pub table: Arc<Table>,
}

impl fmt::Debug for CatalogTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CatalogTable({})", self.table.name)
    }
}

impl TableSource for CatalogTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema.clone()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion_common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }
}

/// What the recursive term of a recursive query sees of itself.
#[derive(Debug)]
pub struct WorkTable {
    pub name: String,
    pub schema: SchemaRef,
}

impl TableSource for WorkTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }
}

struct View {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for View {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// A snapshot of the catalog, how many views deep it is looked at, and what stands for parameters.
pub(super) struct Provider<'a> {
    catalog: &'a CatalogSnapshot,
    options: ConfigOptions,
    depth: usize,
    parameter: Option<Arc<ScalarUDF>>,
    /// Temporary tables and views are refused: the plan is of a view that others see, too.
    for_everybody: bool,
}

impl<'a> Provider<'a> {
    pub(super) fn new(catalog: &'a CatalogSnapshot, depth: usize, parameters: Parameters<'_>) -> Self {
        let mut options = ConfigOptions::default();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = true;
        options.sql_parser.collect_spans = true;
        // ORDER BY in a subquery may be dropped, as the standard has it; above LIMIT it is kept.
        options.sql_parser.enable_subquery_sort_elimination = true;
        // DuckDB's order: nulls last, whichever the direction. The conformance suite expects it.
        options.sql_parser.default_null_ordering = "nulls_last".into();
        Provider { catalog, options, depth, parameter: parameters.function(), for_everybody: false }
    }

    /// Refuses temporary tables and views from now on.
    pub(super) fn for_everybody(self) -> Self {
        Provider { for_everybody: true, ..self }
    }

    /// The catalog that the provider looks names up in.
    pub(super) fn catalog(&self) -> &'a CatalogSnapshot {
        self.catalog
    }

    fn view(&self, name: &str, sql: &str) -> Result<Arc<dyn TableSource>, PlanError> {
        if self.depth >= VIEW_DEPTH_MAX {
            return Err(PlanError::Invalid {
                message: format!("view {name} names itself, or views stand more than {VIEW_DEPTH_MAX} deep"),
                hint: Some(format!("drop it with DROP VIEW {name} and create it anew")),
            });
        }
        let statement = parse::parse_one(sql)?;
        // Temporary tables of whoever uses a shared view are not what it was made of.
        let seen = if self.catalog.is_temporary(name) { self.catalog } else { self.catalog.shared() };
        let plan = bind::query(&statement, seen, self.depth + 1).map_err(|e| match e {
            PlanError::Invalid { message, hint } => {
                PlanError::Invalid { message: format!("in view {name}: {message}"), hint }
            }
            other => other,
        })?;
        Ok(Arc::new(View { schema: plan.schema().inner().clone(), plan }))
    }
}

/// The name under which the catalog keeps what a reference names. The schemas `main` and `public` are
/// the same as none.
pub(super) fn key(name: &TableReference) -> String {
    match name.schema() {
        None | Some("main" | "public") => name.table().to_string(),
        Some(schema) => format!("{schema}.{}", name.table()),
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        let key = key(&name);
        for candidate in [key.clone(), key.to_lowercase()] {
            if self.for_everybody && self.catalog.is_temporary(&candidate) {
                let message = format!("others see the view, but not {candidate}, which is temporary");
                let hint = Some("write CREATE TEMPORARY VIEW".into());
                return Err(DataFusionError::External(Box::new(PlanError::Invalid { message, hint })));
            }
            if let Some(table) = self.catalog.tables.get(&candidate) {
                return Ok(Arc::new(CatalogTable { table: table.clone() }));
            }
            if let Some(sql) = self.catalog.views.get(&candidate) {
                return self.view(&candidate, sql).map_err(|e| DataFusionError::External(Box::new(e)));
            }
        }
        let names = self.catalog.tables.keys().chain(self.catalog.views.keys());
        let hint = match nearest(&key, names.map(String::as_str)) {
            Some(near) => Some(format!("did you mean {near}?")),
            None if self.catalog.tables.is_empty() && self.catalog.views.is_empty() => {
                Some("there are no tables; give the folder or URL of the Parquet files when Dovetail starts, or CREATE TABLE".into())
            }
            None => None,
        };
        let e = PlanError::Invalid { message: format!("there is no table or view {key}"), hint };
        Err(DataFusionError::External(Box::new(e)))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> datafusion_common::Result<Arc<dyn TableSource>> {
        Ok(Arc::new(WorkTable { name: name.to_string(), schema }))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &functions().expr_planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == cast_names::NAME {
            return Some(cast_names::function());
        }
        if name == parameters::NAME {
            return self.parameter.clone();
        }
        functions().scalar.get(&name.to_lowercase()).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        functions().higher_order.get(&name.to_lowercase()).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions().aggregate.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        functions().window.get(&name.to_lowercase()).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions().scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        functions().higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        functions().aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        functions().window.keys().cloned().collect()
    }
}

/// The catalog's table behind a table source.
pub(crate) fn catalog_table(source: &dyn TableSource) -> Option<&CatalogTable> {
    (source as &dyn Any).downcast_ref()
}

/// The work table behind a table source.
pub(crate) fn work_table(source: &dyn TableSource) -> Option<&WorkTable> {
    (source as &dyn Any).downcast_ref()
}
