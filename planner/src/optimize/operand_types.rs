//! Operands whose types DataFusion would bring together in the wrong way.
//!
//! A floating-point number beside a decimal makes both floating-point, as in PostgreSQL and DuckDB.
//! DataFusion coerces the other way, to DECIMAL(30, 15), in comparisons, CASE, COALESCE, lists and UNION:
//! `f < 0.5` would fail for large and be wrong for tiny values of `f`. So before types are coerced, decimals
//! that meet a float are cast to DOUBLE; constants become DOUBLE constants.
//!
//! Times of different units (a file's microseconds, a constant's nanoseconds) have no common type there; they
//! get one here. A date or time compared with a number is an error, not a comparison with the days since
//! 1970. A date and an interval with hours in it make a timestamp. What a cast does to digits is in
//! [`lossy_casts`].

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::logical_plan::{Projection, Union, Values};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, cast};

use super::lossy_casts;

/// Functions whose arguments get one common type.
const COMMON_TYPE: &[&str] = &["coalesce", "nullif", "greatest", "least", "nvl", "make_array"];

/// The plan with decimals as DOUBLE where they meet floats.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Union(union) => LogicalPlan::Union(unify_inputs(union)?),
            LogicalPlan::Values(values) => LogicalPlan::Values(unify_rows(values)?),
            other => unify_expressions(other)?,
        };
        // What is below may have changed its types.
        Ok(Transformed::yes(plan.recompute_schema()?))
    })?;
    Ok(rewritten.data)
}

fn unify_expressions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(|e| unify_operands(e, &schema))?;
        Ok(expr.update_data(|e| name.restore(e)))
    })?;
    Ok(rewritten.data)
}

/// One operator's operands.
fn unify_operands(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) => {
            if op.supports_propagation() {
                check_comparable(&[&left, &right], schema)?;
            }
            let with_time = matches!(op, Operator::Plus | Operator::Minus)
                && (add_time(&mut left, &right, schema)? || add_time(&mut right, &left, schema)?);
            if with_time {
                return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            let changed = (op.supports_propagation() || op.is_numerical_operators())
                && unify(&mut [&mut left, &mut right], schema)?;
            Ok(Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
        }
        Expr::Between(Between { mut expr, negated, mut low, mut high }) => {
            check_comparable(&[&expr, &low, &high], schema)?;
            let changed = unify(&mut [&mut expr, &mut low, &mut high], schema)?;
            Ok(Transformed::new_transformed(Expr::Between(Between { expr, negated, low, high }), changed))
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            check_comparable(&std::iter::once(&*expr).chain(&list).collect::<Vec<_>>(), schema)?;
            let mut all: Vec<&mut Expr> = std::iter::once(&mut *expr).chain(&mut list).collect();
            let changed = unify(&mut all, schema)?;
            Ok(Transformed::new_transformed(Expr::InList(InList { expr, list, negated }), changed))
        }
        Expr::InSubquery(InSubquery { mut expr, mut subquery, negated }) => {
            let other = subquery.subquery.schema().field(0).data_type().clone();
            let mine = expr.get_type(schema)?;
            if is_time(&mine) && is_time(&other) && mine != other {
                *expr = cast(*expr, NANOSECONDS);
                let column = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
                let casted = vec![cast(column, NANOSECONDS)];
                subquery.subquery =
                    Arc::new(LogicalPlan::Projection(Projection::try_new(casted, subquery.subquery)?));
                let expr = Expr::InSubquery(InSubquery { expr, subquery, negated });
                return Ok(Transformed::yes(expr));
            }
            let changed = other.is_floating() && mine.is_decimal();
            if changed {
                *expr = to_double(*expr)?;
            }
            let expr = Expr::InSubquery(InSubquery { expr, subquery, negated });
            Ok(Transformed::new_transformed(expr, changed))
        }
        Expr::Case(Case { mut expr, mut when_then_expr, mut else_expr }) => {
            let mut results: Vec<&mut Expr> =
                when_then_expr.iter_mut().map(|(_, then)| &mut **then).collect();
            results.extend(else_expr.as_deref_mut());
            let mut changed = unify(&mut results, schema)?;
            if let Some(operand) = &mut expr {
                let mut compared: Vec<&mut Expr> = vec![operand];
                compared.extend(when_then_expr.iter_mut().map(|(when, _)| &mut **when));
                changed |= unify(&mut compared, schema)?;
            }
            Ok(Transformed::new_transformed(Expr::Case(Case { expr, when_then_expr, else_expr }), changed))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if COMMON_TYPE.contains(&func.name()) => {
            let changed = unify(&mut args.iter_mut().collect::<Vec<_>>(), schema)?;
            Ok(Transformed::new_transformed(Expr::ScalarFunction(ScalarFunction { func, args }), changed))
        }
        other => lossy_casts::rewrite(other, schema),
    }
}

/// Makes a date a timestamp if an interval that may have a time part is added to it; whether it did.
fn add_time(date: &mut Expr, interval: &Expr, schema: &DFSchema) -> Result<bool> {
    if !matches!(interval.get_type(schema)?, DataType::Interval(_))
        || date.get_type(schema)? != DataType::Date32
    {
        return Ok(false);
    }
    let whole_days = match interval {
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => true,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => i.milliseconds == 0,
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) => i.nanoseconds == 0,
        Expr::Literal(value, _) => value.is_null(),
        _ => false,
    };
    if whole_days {
        return Ok(false);
    }
    *date = cast(std::mem::take(date), DataType::Timestamp(TimeUnit::Nanosecond, None));
    Ok(true)
}

/// The unit that all times fit in.
const NANOSECONDS: DataType = DataType::Time64(TimeUnit::Nanosecond);

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// Casts times to one unit if they differ; whether it did. A constant takes the unit of the column, so that
/// the scan can compare it with statistics, if it is whole in it.
fn unify_times(exprs: &mut [&mut Expr], types: &[DataType]) -> Result<bool> {
    let times: Vec<&DataType> = types.iter().filter(|t| is_time(t)).collect();
    if times.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(false);
    }
    let mut columns = exprs.iter().zip(types).filter(|(e, t)| is_time(t) && !matches!(e, Expr::Literal(..)));
    let unit = columns.next().map(|(_, t)| t.clone());
    let one_unit = unit.filter(|unit| columns.all(|(_, t)| t == unit)).filter(|unit| {
        exprs.iter().zip(types).filter(|(_, t)| is_time(t)).all(|(e, t)| match e {
            Expr::Literal(value, _) => {
                value.cast_to(unit).is_ok_and(|v| v.cast_to(t).is_ok_and(|v| v == *value))
            }
            _ => true,
        })
    });
    let target = one_unit.unwrap_or(NANOSECONDS);
    for (expr, data_type) in exprs.iter_mut().zip(types) {
        if is_time(data_type) && *data_type != target {
            **expr = match std::mem::take(*expr) {
                Expr::Literal(value, metadata) => Expr::Literal(value.cast_to(&target)?, metadata),
                other => cast(other, target.clone()),
            };
        }
    }
    Ok(true)
}

/// Casts the decimals among the expressions if there is a float, and times to one unit; whether it did.
fn unify(exprs: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    let types = exprs.iter().map(|e| e.get_type(schema)).collect::<Result<Vec<_>>>()?;
    if unify_times(exprs, &types)? {
        return Ok(true);
    }
    if !types.iter().any(DataType::is_floating) || !types.iter().any(DataType::is_decimal) {
        return Ok(false);
    }
    for (expr, data_type) in exprs.iter_mut().zip(types) {
        if data_type.is_decimal() {
            **expr = to_double(std::mem::take(*expr))?;
        }
    }
    Ok(true)
}

/// An error if a number is compared with a date or time.
fn check_comparable(exprs: &[&Expr], schema: &DFSchema) -> Result<()> {
    let types = exprs.iter().map(|e| e.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let time = |t: &&DataType| matches!(t, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    match (types.iter().find(time), types.iter().find(|t| t.is_numeric())) {
        (Some(time), Some(number)) => plan_err!("{time} cannot be compared with {number}; cast one of them"),
        _ => Ok(()),
    }
}

fn to_double(expr: Expr) -> Result<Expr> {
    match expr {
        Expr::Literal(value, metadata) => Ok(Expr::Literal(value.cast_to(&DataType::Float64)?, metadata)),
        other => Ok(cast(other, DataType::Float64)),
    }
}

fn unify_inputs(union: Union) -> Result<Union> {
    let Union { mut inputs, schema } = union;
    let width = inputs.iter().map(|i| i.schema().fields().len()).min().unwrap_or(0);
    let is = |input: &LogicalPlan, column: usize, test: fn(&DataType) -> bool| {
        test(input.schema().field(column).data_type())
    };
    let mixed: Vec<usize> = (0..width)
        .filter(|c| {
            inputs.iter().any(|i| is(i, *c, DataType::is_floating))
                && inputs.iter().any(|i| is(i, *c, DataType::is_decimal))
        })
        .collect();
    let times: Vec<usize> = (0..width)
        .filter(|c| {
            let first = inputs[0].schema().field(*c).data_type();
            is_time(first) && inputs.iter().any(|i| i.schema().field(*c).data_type() != first)
        })
        .collect();
    let other_time = |input: &LogicalPlan, column: usize| {
        let data_type = input.schema().field(column).data_type();
        is_time(data_type) && *data_type != NANOSECONDS
    };
    for input in &mut inputs {
        let casts = mixed.iter().any(|c| is(input, *c, DataType::is_decimal))
            || times.iter().any(|c| other_time(input, *c));
        if !casts {
            continue;
        }
        let exprs = input.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::from((qualifier, field)));
            let casted = match field.data_type() {
                decimal if mixed.contains(&i) && decimal.is_decimal() => to_double(column)?,
                time if times.contains(&i) && is_time(time) => cast(column, NANOSECONDS),
                _ => return Ok(column),
            };
            Ok(casted.alias_qualified(qualifier.cloned(), field.name().as_str()))
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        *input = Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, input.clone())?));
    }
    // Numbers of different types find a common one later; times have it by now.
    let schema = match times.is_empty() {
        true => schema,
        false => Union::try_new_with_loose_types(inputs.clone())?.schema,
    };
    Ok(Union { inputs, schema })
}

fn unify_rows(mut values: Values) -> Result<Values> {
    let empty = DFSchema::empty();
    for cell in values.values.iter_mut().flatten() {
        *cell = std::mem::take(cell).transform_up(|e| unify_operands(e, &empty))?.data;
    }
    for column in 0..values.schema.fields().len() {
        let mut cells: Vec<&mut Expr> =
            values.values.iter_mut().filter_map(|row| row.get_mut(column)).collect();
        unify(&mut cells, &empty)?;
    }
    Ok(values)
}
