//! `rint(x)`: a floating-point number rounded to a whole one, halves to the even neighbour, as IEEE 754
//! rounds by default. What DuckDB and PostgreSQL do when they cast such a number to an integer.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

/// REAL to REAL, DOUBLE to DOUBLE.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Rint {
    signature: Signature,
}

impl Rint {
    pub(super) fn new() -> Self {
        let exact = |t: DataType| TypeSignature::Exact(vec![t]);
        let types = vec![exact(DataType::Float32), exact(DataType::Float64)];
        Rint { signature: Signature::one_of(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Rint {
    fn name(&self) -> &str {
        "rint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let array = args.args[0].to_array(if scalar { 1 } else { args.number_rows })?;
        let rounded: arrow::array::ArrayRef = match array.data_type() {
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
            }
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            other => return exec_err!("rint takes REAL or DOUBLE, not {other}"),
        };
        Ok(match scalar {
            true => ColumnarValue::Scalar(datafusion_common::ScalarValue::try_from_array(&rounded, 0)?),
            false => ColumnarValue::Array(rounded),
        })
    }
}
