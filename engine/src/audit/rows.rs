//! Records as rows: the columns of `system.audit`, and of the files that keep it.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;

use super::AuditRecord;

/// The columns, which are the fields of an [`AuditRecord`].
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let input = [
            ("table_name", DataType::Utf8),
            ("url", DataType::Utf8),
            ("etag", DataType::Utf8),
            ("size_bytes", DataType::Int64),
            ("rows_total", DataType::Int64),
            ("rows_read", DataType::Int64),
            ("bytes_read", DataType::Int64),
            ("workers", list_of(DataType::Utf8)),
        ];
        let output = [("table_name", DataType::Utf8), ("url", DataType::Utf8), ("rows", DataType::Int64)];
        let worker = [("name", DataType::Utf8), ("version", DataType::Utf8), ("tasks", DataType::Int64)];
        Arc::new(Schema::new(fields([
            ("statement_id", DataType::Int64),
            ("user_name", DataType::Utf8),
            ("kind", DataType::Utf8),
            ("sql", DataType::Utf8),
            ("is_sql_cut", DataType::Boolean),
            ("started", time.clone()),
            ("ended", time),
            ("elapsed_ms", DataType::Int64),
            ("outcome", DataType::Utf8),
            ("error_class", DataType::Utf8),
            ("error", DataType::Utf8),
            ("version", DataType::Utf8),
            ("settings", DataType::Utf8),
            ("plan_fingerprint", DataType::Utf8),
            ("rows_out", DataType::Int64),
            ("bytes_out", DataType::Int64),
            ("rows_read", DataType::Int64),
            ("bytes_read", DataType::Int64),
            ("bytes_spilled", DataType::Int64),
            ("inputs", list_of(DataType::Struct(fields(input)))),
            ("inputs_total", DataType::Int64),
            ("outputs", list_of(DataType::Struct(fields(output)))),
            ("workers", list_of(DataType::Struct(fields(worker)))),
        ])))
    });
    SCHEMA.clone()
}

/// The rows of some records, in their order.
pub fn batch(records: &[AuditRecord]) -> Result<RecordBatch, ArrowError> {
    let mut decoder = ReaderBuilder::new(schema()).with_batch_size(records.len().max(1)).build_decoder()?;
    decoder.serialize(records)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema())))
}

fn fields<const N: usize>(columns: [(&str, DataType); N]) -> Fields {
    columns.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}
