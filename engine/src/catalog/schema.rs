//! Parquet's types as the logical types of a plan.
//!
//! Strings are Utf8View and binaries BinaryView, so that the scan can point into pages; decimals up to
//! 38 digits are Decimal128, whatever they are stored as; a dictionary is a matter of storage and no
//! type. Everything else stays what the Arrow schema in the file, or Parquet's own, says.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};

/// The columns in logical types. Field metadata stays, as Parquet's reader wants it back.
pub fn logical_schema(file: &Schema) -> Schema {
    Schema::new(file.fields().iter().map(logical_field).collect::<Vec<_>>())
}

/// The schema without metadata of the fields, at any depth: what a plan sees.
pub fn without_metadata(schema: &Schema) -> Schema {
    fn strip(field: &FieldRef) -> FieldRef {
        use DataType::*;
        let data_type = match field.data_type() {
            List(f) => List(strip(f)),
            LargeList(f) => LargeList(strip(f)),
            FixedSizeList(f, n) => FixedSizeList(strip(f), *n),
            Struct(fields) => Struct(fields.iter().map(strip).collect()),
            Map(f, sorted) => Map(strip(f), *sorted),
            other => other.clone(),
        };
        Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
    }
    Schema::new(schema.fields().iter().map(strip).collect::<Vec<_>>())
}

fn logical_field(field: &FieldRef) -> FieldRef {
    let logical = Field::new(field.name(), logical_type(field.data_type()), field.is_nullable());
    Arc::new(logical.with_metadata(field.metadata().clone()))
}

fn logical_type(t: &DataType) -> DataType {
    use DataType::*;
    match t {
        Utf8 | LargeUtf8 | Utf8View => Utf8View,
        Binary | LargeBinary | BinaryView => BinaryView,
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) => Decimal128(*p, *s),
        Dictionary(_, value) => logical_type(value),
        RunEndEncoded(_, values) => logical_type(values.data_type()),
        List(f) => List(logical_field(f)),
        LargeList(f) => LargeList(logical_field(f)),
        FixedSizeList(f, n) => FixedSizeList(logical_field(f), *n),
        Struct(fields) => Struct(fields.iter().map(logical_field).collect()),
        Map(f, sorted) => Map(logical_field(f), *sorted),
        other => other.clone(),
    }
}
