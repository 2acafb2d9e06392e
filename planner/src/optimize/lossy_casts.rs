//! Casts that drop digits: rounded before they are cast, and safe from being undone.
//!
//! A cast of a decimal to fewer digits after the point rounds halves away from zero, one of a
//! floating-point number to an integer rounds halves to even, as in DuckDB and PostgreSQL; Arrow's casts
//! would cut a fraction off. So the fraction goes first, by a call.
//!
//! DataFusion turns `CAST(x AS t) = constant` into `x = constant`. That holds only where the cast keeps all
//! values apart: with the rounding call between, it is the rounded `x` that is compared. TRY_CAST between
//! numbers, whose NULLs would be lost in the same way, becomes a CASE around a cast.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::{Cast, TryCast};
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::{Expr, lit, when};

use crate::functions::functions;

/// One expression, its inputs rewritten before.
pub(super) fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            let inner = round(*expr, field.data_type(), schema)?;
            let changed = inner.transformed;
            let cast = Expr::Cast(Cast { expr: Box::new(inner.data), field });
            Ok(Transformed::new_transformed(cast, changed))
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let numbers = expr.get_type(schema)?.is_numeric() && field.data_type().is_numeric();
            let inner = round(*expr, field.data_type(), schema)?;
            let changed = inner.transformed;
            let inner = Box::new(inner.data);
            // A constant is folded to its value or NULL, and its cast alone to an error.
            if !numbers || !inner.any_column_refs() {
                let cast = Expr::TryCast(TryCast { expr: inner, field });
                return Ok(Transformed::new_transformed(cast, changed));
            }
            let fits = Expr::TryCast(TryCast { expr: inner.clone(), field: field.clone() }).is_not_null();
            when(fits, Expr::Cast(Cast { expr: inner, field })).end().map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    }
}

/// `expr` without the digits that `to` has no room for.
fn round(expr: Expr, to: &DataType, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let from = expr.get_type(schema)?;
    let call = |name: &str, args| {
        let function = functions().scalar(name).expect("invariant: the function library has it");
        Transformed::yes(function.call(args))
    };
    Ok(match (scale(&from), scale(to)) {
        (Some(from), Some(to)) if to < from => call("round", vec![expr, lit(i32::from(to))]),
        _ if from.is_floating() && to.is_integer() => call("rint", vec![expr]),
        _ => Transformed::no(expr),
    })
}

/// Digits after the point of an exact number.
fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        integer if integer.is_integer() => Some(0),
        _ => None,
    }
}
