//! How a file stores a column, and which of our decoders reads that.

use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::parquet_to_arrow_schema_by_columns;
use parquet::basic::Type;

use crate::catalog::{ParquetFile, logical_schema};
use crate::scan::column::fixed::{Stored, physical_type};

/// How a column is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// Numbers, read as arrays of a physical type.
    Fixed { stored: Stored, physical: DataType },
    /// Strings, or binaries.
    Bytes { utf8: bool },
    /// Booleans.
    Bits,
    /// Something that Parquet's own reader has to read: nested, or a type without a decoder here.
    Other,
}

/// The storage of a top-level column of a file.
pub fn storage(file: &ParquetFile, column: usize) -> Storage {
    let field = file.schema.field(column);
    let Some(leaf) = file.leaf(field.name()) else {
        return Storage::Other;
    };
    let descriptor = file.metadata.file_metadata().schema_descr();
    let column = descriptor.column(leaf);
    let logical = field.data_type();
    if column.max_rep_level() > 0 || column.max_def_level() > 1 || !is_own_type(file, leaf, logical) {
        return Storage::Other;
    }
    let stored = match column.physical_type() {
        Type::BOOLEAN if *logical == DataType::Boolean => return Storage::Bits,
        Type::BYTE_ARRAY if *logical == DataType::Utf8View => return Storage::Bytes { utf8: true },
        Type::BYTE_ARRAY if *logical == DataType::BinaryView => return Storage::Bytes { utf8: false },
        Type::INT32 | Type::FLOAT => Stored::Bytes4,
        Type::INT64 | Type::DOUBLE => Stored::Bytes8,
        Type::INT96 => Stored::Int96,
        Type::FIXED_LEN_BYTE_ARRAY => Stored::BigEndian(usize::try_from(column.type_length()).unwrap_or(0)),
        Type::BOOLEAN | Type::BYTE_ARRAY => return Storage::Other,
    };
    match physical_type(logical, stored) {
        Some(physical) => Storage::Fixed { stored, physical },
        None => Storage::Other,
    }
}

/// The logical type is what Parquet's schema says, not a conversion that the Arrow schema in the file
/// asks for. Time zones do not change what is stored.
fn is_own_type(file: &ParquetFile, leaf: usize, logical: &DataType) -> bool {
    let descriptor = file.metadata.file_metadata().schema_descr();
    let mask = ProjectionMask::leaves(descriptor, [leaf]);
    let Ok(own) = parquet_to_arrow_schema_by_columns(descriptor, mask, None) else {
        return false;
    };
    match (logical_schema(&own).field(0).data_type(), logical) {
        (DataType::Timestamp(a, _), DataType::Timestamp(b, _)) => a == b,
        (own, logical) => own == logical,
    }
}
