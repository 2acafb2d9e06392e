//! The one physical form in which a key column is encoded, whatever form it arrives in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::integers::is_integer_like;
use crate::batch::to_logical;
use crate::error::{EngineError, Result};

/// How a key column is read.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyType {
    /// See [`super::integers`]; the logical type.
    Integer(DataType),
    /// Strings and binary: as views.
    Bytes,
    /// Anything else, of this logical type: as binary views of Arrow's row encoding.
    Encoded(DataType),
}

impl KeyType {
    /// The key type for a pair of logical types, which must be the same but for how strings are stored.
    pub fn of_pair(probe: &DataType, build: &DataType) -> Result<Self> {
        use DataType::*;
        if let (Dictionary(_, p), b) | (b, Dictionary(_, p)) = (probe, build) {
            return Self::of_pair(p, b);
        }
        let same = match (probe, build) {
            (p, b) if is_string(p) && is_string(b) || is_binary(p) && is_binary(b) => true,
            (Timestamp(p, _), Timestamp(b, _)) => p == b,
            (Decimal128(p, s), Decimal128(q, t)) => s == t && (p == q || *p.max(q) <= 18),
            (p, b) => p == b,
        };
        if !same {
            return Err(EngineError::internal(format!("a join compares {probe} with {build}")));
        }
        if is_string(probe) || is_binary(probe) {
            return Ok(KeyType::Bytes);
        }
        if is_integer_like(probe) {
            return Ok(KeyType::Integer(probe.clone()));
        }
        if probe.is_nested() && contains_float(probe) {
            // The row encoding keeps -0.0 and 0.0 apart, SQL does not.
            return Err(EngineError::Unsupported(
                format!("a join on a key of type {probe}, which contains floats,"),
                "Join on its elements, or cast them to DECIMAL".into(),
            ));
        }
        Ok(KeyType::Encoded(probe.clone()))
    }

    /// The array in the form that this key type is read in.
    pub fn normalise(&self, array: &ArrayRef) -> Result<ArrayRef> {
        use DataType::*;
        match (self, array.data_type()) {
            (KeyType::Integer(Decimal128(_, s)), Decimal64(_, t) | Decimal128(_, t)) if s == t => {
                Ok(array.clone())
            }
            (KeyType::Integer(Timestamp(u, _)), Timestamp(v, _)) if u == v => Ok(array.clone()),
            (KeyType::Integer(_), Null) => Ok(array.clone()),
            (KeyType::Integer(logical), _) => to_logical(array, logical),
            (KeyType::Bytes, Utf8View | BinaryView) => Ok(array.clone()),
            (KeyType::Bytes, Utf8 | LargeUtf8) => Ok(cast(array, &Utf8View)?),
            (KeyType::Bytes, Binary | LargeBinary) => Ok(cast(array, &BinaryView)?),
            (KeyType::Bytes, Null) => Ok(arrow::array::new_null_array(&Utf8View, array.len())),
            (KeyType::Bytes, Dictionary(_, values)) => self.normalise(&cast(array, values)?),
            (KeyType::Bytes, other) => {
                Err(EngineError::internal(format!("a string join key arrived as {other}")))
            }
            (KeyType::Encoded(logical), _) => encode_rows(&to_logical(array, logical)?),
        }
    }
}

fn encode_rows(array: &ArrayRef) -> Result<ArrayRef> {
    let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(array))?;
    let nulls = array.logical_nulls();
    let mut encoded = BinaryViewBuilder::with_capacity(array.len());
    for (i, row) in rows.iter().enumerate() {
        if nulls.as_ref().is_some_and(|n| n.is_null(i)) {
            encoded.append_null();
        } else {
            encoded.append_value(row.as_ref());
        }
    }
    Ok(Arc::new(encoded.finish()))
}

fn is_string(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn contains_float(t: &DataType) -> bool {
    use DataType::*;
    match t {
        Float16 | Float32 | Float64 => true,
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) | Map(f, _) => {
            contains_float(f.data_type())
        }
        Struct(fields) => fields.iter().any(|f| contains_float(f.data_type())),
        Union(fields, _) => fields.iter().any(|(_, f)| contains_float(f.data_type())),
        Dictionary(_, v) => contains_float(v),
        RunEndEncoded(_, f) => contains_float(f.data_type()),
        _ => false,
    }
}
