//! Ranks and row numbers are BIGINT, as everywhere else in SQL.
//!
//! DataFusion's `row_number`, `rank`, `dense_rank` and `ntile` are unsigned, and unsigned with signed
//! arithmetic becomes a decimal: `rn - 1` would be one, and so would a join on it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::Projection;
use datafusion_expr::{Expr, LogicalPlan, cast};

/// The plan with unsigned window functions cast to BIGINT where they are computed.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        // What is below may have changed its types.
        let plan = plan.recompute_schema()?;
        let LogicalPlan::Window(window) = &plan else {
            return Ok(Transformed::yes(plan));
        };
        let computed = window.input.schema().fields().len();
        let unsigned = |i: usize, t: &DataType| i >= computed && *t == DataType::UInt64;
        if !plan.schema().fields().iter().enumerate().any(|(i, f)| unsigned(i, f.data_type())) {
            return Ok(Transformed::yes(plan));
        }
        let exprs = plan
            .schema()
            .iter()
            .enumerate()
            .map(|(i, (qualifier, field))| {
                let column = Expr::Column(Column::from((qualifier, field)));
                match unsigned(i, field.data_type()) {
                    true => cast(column, DataType::Int64)
                        .alias_qualified(qualifier.cloned(), field.name().as_str()),
                    false => column,
                }
            })
            .collect();
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?)))
    })?;
    Ok(rewritten.data)
}
