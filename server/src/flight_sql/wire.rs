//! Rows as they go to clients: plain types, in pieces that every client takes.
//!
//! Views, dictionaries and runs are encodings that many clients cannot read, so they are undone here, nested ones
//! too, and nowhere else; FlightInfo and DoGet both take their schema from here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use dovetail_engine::Result;

use super::type_name::{precision_and_scale, type_name};

/// Of one message's rows; below the 4 MB that many clients take, with room for what surrounds them. A single row
/// may be larger.
pub const BATCH_BYTES_MAX: usize = 2_000_000;

/// The schema of a result, for a client.
pub fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| {
            let data_type = wire_type(f.data_type());
            Field::new(f.name(), data_type, f.is_nullable()).with_metadata(column_metadata(f.data_type()))
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Rows in a client's types, cut into pieces below [`BATCH_BYTES_MAX`]. `schema` is what [`wire_schema`] gave.
pub fn wire_batches(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut pieces = vec![];
    split(batch, schema, &mut pieces)?;
    Ok(pieces)
}

/// What rows take on the wire, about.
pub fn wire_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(bytes).sum()
}

fn split(batch: &RecordBatch, schema: &SchemaRef, pieces: &mut Vec<RecordBatch>) -> Result<()> {
    let rows = batch.num_rows();
    if rows > 1 && wire_bytes(batch) > BATCH_BYTES_MAX {
        split(&batch.slice(0, rows / 2), schema, pieces)?;
        return split(&batch.slice(rows / 2, rows - rows / 2), schema, pieces);
    }
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast(column, field.data_type()),
        })
        .collect::<std::result::Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    pieces.push(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?);
    Ok(())
}

/// What an array takes on the wire, about.
fn bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8View => {
            let views = array.as_string_view().views();
            views.iter().map(|v| 4 + *v as u32 as usize).sum()
        }
        DataType::BinaryView => {
            let views = array.as_binary_view().views();
            views.iter().map(|v| 4 + *v as u32 as usize).sum()
        }
        // Repeated values are written out.
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => {
            match cast(array, &wire_type(array.data_type())) {
                Ok(plain) => bytes(&plain),
                Err(_) => array.get_array_memory_size(),
            }
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes).sum(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let (from, to) = (offsets[0] as usize, offsets[list.len()] as usize);
            4 * list.len() + bytes(&list.values().slice(from, to - from))
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// A type without the encodings that clients may not know.
pub fn wire_type(t: &DataType) -> DataType {
    match t {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        // The encoder sends large lists as plain ones, whatever the schema says.
        DataType::List(f) | DataType::ListView(f) | DataType::LargeList(f) | DataType::LargeListView(f) => {
            DataType::List(wire_field(f))
        }
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(wire_field(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

fn wire_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), field.is_nullable()))
}

/// What drivers look for beside the Arrow type.
fn column_metadata(t: &DataType) -> HashMap<String, String> {
    let mut metadata = HashMap::from([("ARROW:FLIGHT:SQL:TYPE_NAME".to_owned(), type_name(t).to_owned())]);
    if let Some((precision, scale)) = precision_and_scale(t) {
        metadata.insert("ARROW:FLIGHT:SQL:PRECISION".to_owned(), precision.to_string());
        metadata.insert("ARROW:FLIGHT:SQL:SCALE".to_owned(), scale.to_string());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryViewArray, DictionaryArray, Int32Array, LargeListArray, ListArray, ListViewArray, RunArray,
        StringViewArray, StructArray,
    };
    use arrow::buffer::{OffsetBuffer, ScalarBuffer};
    use arrow::datatypes::Int32Type;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
    }

    #[test]
    fn no_encodings_remain_however_nested() {
        let text: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a longer text than twelve")]));
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 1, 1, 3]));
        let list: ArrayRef = Arc::new(ListArray::new(item.clone(), offsets, text.clone(), None));
        let large =
            LargeListArray::new(item.clone(), OffsetBuffer::from_lengths([1, 0, 2]), text.clone(), None);
        let views = ListViewArray::new(item, vec![0, 1, 0].into(), vec![1, 1, 3].into(), text.clone(), None);
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        let runs: RunArray<Int32Type> = vec!["r", "r", "s"].into_iter().collect();
        let fields = Fields::from(vec![
            Field::new("t", DataType::Utf8View, true),
            Field::new("l", list.data_type().clone(), true),
        ]);
        let nested = StructArray::new(fields, vec![text.clone(), list.clone()], None);
        let all = batch(vec![
            ("text", text),
            ("blob", Arc::new(BinaryViewArray::from_iter_values([b"1", b"2", b"3"]))),
            ("list", list),
            ("views", Arc::new(views)),
            ("large", Arc::new(large)),
            ("dictionary", Arc::new(dictionary)),
            ("runs", Arc::new(runs)),
            ("nested", Arc::new(nested)),
            ("number", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ]);
        let schema = wire_schema(&all.schema());
        let plain = wire_batches(&all, &schema).unwrap();
        assert_eq!(plain.len(), 1);
        assert_eq!(plain[0].num_rows(), 3);
        let types = schema.fields().iter().map(|f| f.data_type().to_string()).collect::<Vec<_>>().join(" ");
        for encoding in ["View", "Dictionary", "RunEnd", "Large"] {
            assert!(!types.contains(encoding), "{types}");
        }
        assert_eq!(wire_schema(&schema), schema);
    }

    #[test]
    fn pieces_are_small_but_for_single_rows() {
        let texts = [
            "x".repeat(3_000_000),
            "y".repeat(900_000),
            "z".repeat(900_000),
            "z".repeat(900_000),
            String::new(),
        ];
        let all = batch(vec![("t", Arc::new(StringViewArray::from_iter_values(&texts)))]);
        let pieces = wire_batches(&all, &wire_schema(&all.schema())).unwrap();
        let rows: Vec<usize> = pieces.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows.iter().sum::<usize>(), 5);
        for piece in &pieces {
            assert!(piece.num_rows() == 1 || bytes(piece.column(0)) <= BATCH_BYTES_MAX, "{rows:?}");
        }
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let schema = Arc::new(Schema::empty());
        let none = RecordBatch::try_new_with_options(schema.clone(), vec![], &options).unwrap();
        assert_eq!(wire_batches(&none, &schema).unwrap()[0].num_rows(), 7);
    }
}
