//! Grouping and aggregate functions. Grouping sets are in `grouping_sets`.

use datafusion_common::DFSchema;
use datafusion_expr::Expr as LogicalExpr;
use datafusion_expr::expr::{AggregateFunction, NullTreatment};
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::logical_plan::Aggregate as LogicalAggregate;

use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::physical::{Aggregate, AggregateCall, Operator, PhysicalPlan};

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &LogicalAggregate) -> Result<PhysicalPlan> {
        let input = self.plan(&aggregate.input)?;
        let input_schema = aggregate.input.schema();
        let calls = aggregate
            .aggr_expr
            .iter()
            .map(|e| self.aggregate_call(e, input_schema))
            .collect::<Result<Vec<_>>>()?;
        let schema = aggregate.schema.inner();
        if let [LogicalExpr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(sets, calls, input, input_schema, schema);
        }
        let group_by =
            aggregate.group_expr.iter().map(|e| self.expr(e, input_schema)).collect::<Result<Vec<_>>>()?;
        Ok(node(Operator::Aggregate(Aggregate { group_by, calls }), vec![input], schema))
    }

    fn aggregate_call(&mut self, expr: &LogicalExpr, schema: &DFSchema) -> Result<AggregateCall> {
        match expr {
            LogicalExpr::Alias(alias) => {
                let mut call = self.aggregate_call(&alias.expr, schema)?;
                call.output = call.output.as_ref().clone().with_name(&alias.name).into();
                Ok(call)
            }
            LogicalExpr::AggregateFunction(AggregateFunction { func, params }) => {
                let (_, output) = expr.to_field(schema)?;
                Ok(AggregateCall {
                    function: func.name().to_string(),
                    args: params.args.iter().map(|a| self.expr(a, schema)).collect::<Result<Vec<_>>>()?,
                    distinct: params.distinct,
                    filter: params.filter.as_ref().map(|f| self.expr(f, schema)).transpose()?,
                    order_by: self.sort_keys(&params.order_by, schema)?,
                    ignore_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
                    output,
                })
            }
            other => {
                Err(PlanError::internal(format!("{} where an aggregate is expected", other.schema_name())))
            }
        }
    }
}
