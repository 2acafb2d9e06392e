//! Window functions: those that share PARTITION BY and ORDER BY go into one operator, one operator on top
//! of the other; the columns are put into the asked order at the end.

use arrow::datatypes::{DataType, Fields, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::expr::{NullTreatment, WindowFunction};
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::logical_plan::Window as LogicalWindow;
use datafusion_expr::window_frame::{WindowFrame as LogicalFrame, WindowFrameBound, WindowFrameUnits};
use datafusion_expr::{Expr as LogicalExpr, WindowFunctionDefinition};
use std::sync::Arc;

use super::project::project;
use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::expr::{Expr, Literal};
use crate::physical::{
    FrameBound, FrameUnits, Operator, PhysicalPlan, SortKey, Window, WindowCall, WindowFrame,
};

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &LogicalWindow) -> Result<PhysicalPlan> {
        let mut plan = self.plan(&window.input)?;
        let input_schema = window.input.schema();
        let input_len = input_schema.fields().len();

        // (PARTITION BY, ORDER BY), and what is asked of it: position in the node, call.
        type Spec = (Vec<Expr>, Vec<SortKey>);
        let mut specs: Vec<(Spec, Vec<(usize, WindowCall)>)> = vec![];
        for (position, expr) in window.window_expr.iter().enumerate() {
            let (spec, call) = self.window_call(expr, input_schema)?;
            match specs.iter_mut().find(|(known, _)| *known == spec) {
                Some((_, calls)) => calls.push((position, call)),
                None => specs.push((spec, vec![(position, call)])),
            }
        }
        // Longer PARTITION BY lists last: rows that are sorted for the longer are sorted for the shorter.
        specs.sort_by_key(|((partition_by, _), _)| partition_by.len());

        // Where each asked column stands after all operators.
        let mut order = vec![];
        for ((partition_by, order_by), calls) in specs {
            let (positions, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
            order.extend(positions);
            let fields: Fields = plan
                .schema
                .fields()
                .iter()
                .cloned()
                .chain(calls.iter().map(|c: &WindowCall| c.output.clone()))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            let operator = Operator::Window(Window { partition_by, order_by, calls });
            plan = node(operator, vec![plan], &schema);
        }
        let schema = window.schema.inner();
        let exprs = (0..schema.fields().len())
            .map(|i| {
                let from = match i.checked_sub(input_len) {
                    None => i,
                    Some(asked) => {
                        let at = order.iter().position(|o| *o == asked);
                        input_len + at.expect("invariant: every call is in one operator")
                    }
                };
                Expr::column(from, schema.field(i).data_type().clone())
            })
            .collect();
        Ok(project(plan, exprs, schema))
    }

    #[expect(clippy::type_complexity)]
    fn window_call(
        &mut self,
        expr: &LogicalExpr,
        schema: &DFSchema,
    ) -> Result<((Vec<Expr>, Vec<SortKey>), WindowCall)> {
        let window = match expr {
            LogicalExpr::Alias(alias) => {
                let (spec, mut call) = self.window_call(&alias.expr, schema)?;
                call.output = call.output.as_ref().clone().with_name(&alias.name).into();
                return Ok((spec, call));
            }
            LogicalExpr::WindowFunction(window) => window,
            other => {
                let name = other.schema_name();
                return Err(PlanError::internal(format!("{name} where a window function is expected")));
            }
        };
        let WindowFunction { fun, params } = window.as_ref();
        let partition_by =
            params.partition_by.iter().map(|e| self.expr(e, schema)).collect::<Result<Vec<_>>>()?;
        let order_by = self.sort_keys(&params.order_by, schema)?;
        let (_, output) = expr.to_field(schema)?;
        let call = WindowCall {
            function: fun.name().to_string(),
            aggregate: matches!(fun, WindowFunctionDefinition::AggregateUDF(_)),
            args: params.args.iter().map(|e| self.expr(e, schema)).collect::<Result<Vec<_>>>()?,
            frame: frame(&params.window_frame, &order_by)?,
            distinct: params.distinct,
            filter: params.filter.as_ref().map(|e| self.expr(e, schema)).transpose()?,
            ignore_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
            output,
        };
        Ok(((partition_by, order_by), call))
    }
}

fn frame(frame: &LogicalFrame, order_by: &[SortKey]) -> Result<WindowFrame> {
    let units = match frame.units {
        WindowFrameUnits::Rows => FrameUnits::Rows,
        WindowFrameUnits::Range => FrameUnits::Range,
        WindowFrameUnits::Groups => FrameUnits::Groups,
    };
    let bound = |bound: &WindowFrameBound| -> Result<FrameBound> {
        let offset = |value: &datafusion_common::ScalarValue| -> Result<Literal> {
            match units {
                FrameUnits::Range => Ok(Literal(value.clone())),
                FrameUnits::Rows | FrameUnits::Groups => {
                    Ok(Literal(value.cast_to(&DataType::UInt64).map_err(|_| {
                        PlanError::invalid(format!("{value} is no number of rows for a window frame"))
                    })?))
                }
            }
        };
        Ok(match bound {
            WindowFrameBound::Preceding(v) if v.is_null() => FrameBound::UnboundedPreceding,
            WindowFrameBound::Preceding(v) => FrameBound::Preceding(offset(v)?),
            WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
            WindowFrameBound::Following(v) if v.is_null() => FrameBound::UnboundedFollowing,
            WindowFrameBound::Following(v) => FrameBound::Following(offset(v)?),
        })
    };
    let frame = WindowFrame { units, start: bound(&frame.start_bound)?, end: bound(&frame.end_bound)? };
    check_frame(&frame, order_by)?;
    Ok(frame)
}

/// A frame must begin before it ends, and distances need one key to be measured on.
fn check_frame(frame: &WindowFrame, order_by: &[SortKey]) -> Result<()> {
    let place = |bound: &FrameBound| match bound {
        FrameBound::UnboundedPreceding => 0,
        FrameBound::Preceding(_) => 1,
        FrameBound::CurrentRow => 2,
        FrameBound::Following(_) => 3,
        FrameBound::UnboundedFollowing => 4,
    };
    if place(&frame.start) > place(&frame.end) {
        return Err(PlanError::invalid("a window frame must start before it ends"));
    }
    let distance = |bound: &FrameBound| matches!(bound, FrameBound::Preceding(_) | FrameBound::Following(_));
    if frame.units == FrameUnits::Range && (distance(&frame.start) || distance(&frame.end)) {
        let [key] = order_by else {
            return Err(PlanError::invalid("RANGE with a distance needs exactly one ORDER BY key"));
        };
        let data_type = key.expr.data_type();
        if !data_type.is_numeric() && !data_type.is_temporal() {
            return Err(PlanError::Invalid {
                message: format!(
                    "RANGE with a distance needs a number or a time to order by, not {data_type}"
                ),
                hint: Some("count rows instead: ROWS BETWEEN …".into()),
            });
        }
    }
    Ok(())
}
