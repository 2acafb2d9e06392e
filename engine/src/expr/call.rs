//! Scalar functions of the library.
//!
//! Arguments arrive in their logical types, constants as scalars, so that functions take their fast
//! paths. Functions that evaluate their arguments lazily (coalesce) become CASE; a few hot ones have
//! kernels of ours.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, FieldRef};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use dovetail_planner::expr::{Expr, IsTest};

use super::compile::Compiler;
use super::node::{Kernel, Node};
use super::{case, cast, date_part};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::functions;

static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(Arc::default);

/// `function(args)`.
pub(super) fn call(
    compiler: &Compiler,
    function: &str,
    args: &[Expr],
    return_field: &FieldRef,
) -> Result<Node> {
    let udf = functions::scalar(function)?;
    let data_type = return_field.data_type();
    match (udf.name(), args) {
        ("coalesce" | "nvl", [_, ..]) => return compiler.node(&case::first_not_null(args, data_type)),
        ("nvl2", [test, then, otherwise]) => {
            let when = Expr::Is { test: IsTest::NotNull, expr: Box::new(test.clone()) };
            return compiler.node(&Expr::Case {
                branches: vec![(when, then.clone())],
                otherwise: Some(Box::new(otherwise.clone())),
                data_type: data_type.clone(),
            });
        }
        _ => {}
    }
    let args = args.iter().map(|e| compiler.node(e)).collect::<Result<Vec<_>>>()?;
    let args = match udf.name() {
        "date_part" => match date_part::date_part(args, data_type) {
            Ok(node) => return Ok(node),
            Err(args) => args,
        },
        _ => args,
    };
    let arg_fields = args
        .iter()
        .enumerate()
        .map(|(i, a)| Arc::new(Field::new(format!("arg{i}"), a.data_type.clone(), true)))
        .collect();
    let call = Call { function: udf, args, arg_fields, return_field: return_field.clone() };
    Ok(Node::kernel(call, data_type.clone()))
}

struct Call {
    function: Arc<ScalarUDF>,
    args: Vec<Node>,
    arg_fields: Vec<FieldRef>,
    return_field: FieldRef,
}

impl Kernel for Call {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let args = self
            .args
            .iter()
            .map(|a| match a.as_constant() {
                Some(c) => Ok(ColumnarValue::Scalar(c.scalar.clone())),
                None => a.evaluate_logical(batch).map(ColumnarValue::Array),
            })
            .collect::<Result<Vec<_>>>()?;
        let constant = !args.is_empty() && args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let result = self.function.invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields: self.arg_fields.clone(),
            number_rows: batch.rows,
            return_field: self.return_field.clone(),
            config_options: OPTIONS.clone(),
        })?;
        let array = match result {
            ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(batch.rows)?,
            ColumnarValue::Array(a) if a.len() == batch.rows => a,
            // Some functions answer constants with one row.
            ColumnarValue::Array(a) if a.len() == 1 && constant => {
                ScalarValue::try_from_array(&a, 0)?.to_array_of_size(batch.rows)?
            }
            ColumnarValue::Array(a) => {
                return Err(EngineError::internal(format!(
                    "{} gave {} rows for {}",
                    self.function.name(),
                    a.len(),
                    batch.rows
                )));
            }
        };
        cast::conform(array, self.return_field.data_type())
    }
}
