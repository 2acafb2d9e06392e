//! Rows that somebody sends, in the types of the table that they go to.
//!
//! An INSERT converts as SQL's assignment does, and rounds; rows that are sent have no statement that says so. What
//! always holds: what is in the table afterwards is what was sent, or nothing is. Text may be sent for any type, and
//! is read as a cast reads it.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::util::display::array_value_to_string;

use crate::catalog::as_written;
use crate::catalog::warehouse::plain;
use crate::error::{EngineError, Result};

/// Of a value in a message.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// The columns in the types of a schema.
///
/// # Errors
/// A value is none of the type, or would not come back from it as it was.
pub fn lossless(sent: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let made = as_written(sent, schema)?;
    for (i, field) in schema.fields().iter().enumerate() {
        check(sent.column(i), made.column(i), field)?;
    }
    Ok(made)
}

fn check(sent: &ArrayRef, made: &ArrayRef, field: &Field) -> Result<()> {
    let as_sent = plain(sent.data_type());
    if as_sent == plain(field.data_type()) || matches!(as_sent, DataType::Utf8 | DataType::Null) {
        return Ok(());
    }
    // Array equality compares floats by their bits.
    let sent = cast(sent, &as_sent)?;
    let back = cast(made, &as_sent)?;
    if sent.as_ref() == back.as_ref() {
        return Ok(());
    }
    let row = (0..sent.len()).find(|&i| sent.slice(i, 1).as_ref() != back.slice(i, 1).as_ref()).unwrap_or(0);
    let value: String = array_value_to_string(&sent, row)?.chars().take(SHOWN_CHARACTERS_MAX).collect();
    Err(EngineError::execution(format!(
        "column '{}': {value} of type {as_sent} would not stay what it is in the table's type {}; cast the column \
         before it is sent, or replace the table",
        field.name(),
        field.data_type()
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{Schema, TimeUnit};

    use super::*;

    fn sent_to(column: impl Array + 'static, data_type: DataType) -> Result<RecordBatch> {
        let rows =
            RecordBatch::try_from_iter_with_nullable([("c", Arc::new(column) as ArrayRef, true)]).unwrap();
        lossless(&rows, &Arc::new(Schema::new(vec![Field::new("c", data_type, true)])))
    }

    fn cents(values: Vec<i128>) -> Decimal128Array {
        Decimal128Array::from(values).with_precision_and_scale(10, 2).unwrap()
    }

    #[test]
    fn values_stay_what_they_are_or_are_refused() {
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        sent_to(Float64Array::from(vec![Some(2.0), None]), DataType::Int64).unwrap();
        sent_to(Float64Array::from(vec![f64::NAN, 0.5]), DataType::Float32).unwrap();
        sent_to(Int64Array::from(vec![1 << 53]), DataType::Float64).unwrap();
        sent_to(TimestampNanosecondArray::from(vec![3_000_000_000]), seconds.clone()).unwrap();
        sent_to(cents(vec![1200]), DataType::Decimal128(12, 0)).unwrap();
        sent_to(StringArray::from(vec!["12"]), DataType::Int64).unwrap();
        for (outcome, value) in [
            (sent_to(Float64Array::from(vec![2.0, 1.9]), DataType::Int64), "1.9"),
            (sent_to(Float64Array::from(vec![0.1]), DataType::Float32), "0.1"),
            (sent_to(Int64Array::from(vec![(1 << 53) + 1]), DataType::Float64), "9007199254740993"),
            (sent_to(TimestampNanosecondArray::from(vec![3_000_000_001]), seconds), "00:00:03.000000001"),
            (sent_to(cents(vec![1250]), DataType::Decimal128(12, 0)), "12.50"),
        ] {
            let e = outcome.unwrap_err().to_string();
            assert!(e.contains("column 'c'") && e.contains(value) && e.contains("replace the table"), "{e}");
        }
    }
}
