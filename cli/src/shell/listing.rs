//! The tables that `.tables` and `.schema` print.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use dovetail_engine::TableInfo;

use crate::format::type_name;

/// A row for each table.
pub fn tables(tables: &[TableInfo]) -> Result<RecordBatch> {
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let columns: Vec<u64> = tables.iter().map(|t| t.schema.fields().len() as u64).collect();
    let rows: Vec<Option<u64>> = tables.iter().map(|t| t.rows).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("table", Arc::new(StringArray::from(names))),
        ("columns", Arc::new(UInt64Array::from(columns))),
        ("rows", Arc::new(UInt64Array::from(rows))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A row for each column of each table.
pub fn columns(tables: &[TableInfo]) -> Result<RecordBatch> {
    let (mut owners, mut names, mut types) = (vec![], vec![], vec![]);
    for table in tables {
        for field in table.schema.fields() {
            owners.push(table.name.as_str());
            names.push(field.name().as_str());
            types.push(type_name(field.data_type()));
        }
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("table", Arc::new(StringArray::from(owners))),
        ("column", Arc::new(StringArray::from(names))),
        ("type", Arc::new(StringArray::from(types))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn a_row_for_each() {
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)];
        let table = TableInfo {
            name: "t".to_owned(),
            schema: Arc::new(Schema::new(fields)),
            rows: Some(7),
            is_view: false,
            is_temporary: false,
        };
        assert_eq!(columns(&[table.clone(), table.clone()]).unwrap().num_rows(), 4);
        assert_eq!(tables(&[table]).unwrap().num_rows(), 1);
        assert_eq!((tables(&[]).unwrap().num_rows(), columns(&[]).unwrap().num_columns()), (0, 3));
    }
}
