//! Files into a table: their schemas compared, their statistics summed.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use dovetail_planner::catalog::{FileRef, Table, TableData};

use crate::catalog::listing::ListedFile;
use crate::catalog::{Catalog, ParquetFile, statistics};
use crate::error::{EngineError, Result};

/// Reads the footers of a table's files and puts the table together.
pub fn describe(catalog: &Catalog, name: &str, listed: &[ListedFile]) -> Result<Table> {
    let mut refs = Vec::with_capacity(listed.len());
    let mut files = Vec::with_capacity(listed.len());
    for file in listed {
        let mut reference =
            FileRef { url: file.url.clone(), size_bytes: file.size_bytes, etag: file.etag.clone(), rows: 0 };
        let opened = catalog.file(&reference)?;
        reference.rows = opened.metadata.row_groups().iter().map(|g| g.num_rows() as u64).sum();
        refs.push(reference);
        files.push(opened);
    }
    let schema = common_schema(&files)?;
    let statistics = statistics::of_files(&schema, &files);
    Ok(Table { name: name.to_string(), schema, data: TableData::Parquet(refs), statistics })
}

/// The table is made of exactly these versions of these files.
pub fn same_files(table: &Table, listed: &[ListedFile]) -> bool {
    match &table.data {
        TableData::Parquet(files) => {
            files.len() == listed.len()
                && files
                    .iter()
                    .zip(listed)
                    .all(|(a, b)| a.url == b.url && a.size_bytes == b.size_bytes && a.etag == b.etag)
        }
        TableData::Memory { .. } => false,
    }
}

/// Both have the same columns, in the same order and types.
pub fn same_columns(a: &Schema, b: &Schema) -> bool {
    let same =
        |(a, b): (&FieldRef, &FieldRef)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type());
    a.fields().len() == b.fields().len() && a.fields().iter().zip(b.fields()).all(same)
}

/// The error of rows that were meant for a table that is another one by now.
pub fn replaced(name: &str) -> EngineError {
    EngineError::execution(format!(
        "table '{name}' was replaced or dropped meanwhile, and nothing was added to it; run the statement, or send \
         the rows, again"
    ))
}

/// The columns that all files have; the order is the first file's.
fn common_schema(files: &[Arc<ParquetFile>]) -> Result<SchemaRef> {
    let first = files.first().ok_or_else(|| EngineError::internal("a table without files"))?;
    let mut fields: Vec<Field> = first.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    for file in &files[1..] {
        let disagree = |column: &str, what: String| EngineError::Data {
            place: file.url.clone(),
            message: format!(
                "column '{column}' {what} in {}. Files of one table need the same columns: \
                 write one of them again, or move it to a folder of its own",
                first.url
            ),
        };
        for field in &mut fields {
            let Ok(other) = file.schema.field_with_name(field.name()) else {
                return Err(disagree(field.name(), "is missing, but is there".into()));
            };
            if !other.data_type().equals_datatype(field.data_type()) {
                let (a, b) = (other.data_type(), field.data_type());
                return Err(disagree(field.name(), format!("is {a}, but {b}")));
            }
            if other.is_nullable() && !field.is_nullable() {
                *field = field.clone().with_nullable(true);
            }
        }
        if let Some(extra) =
            file.schema.fields().iter().find(|f| first.schema.field_with_name(f.name()).is_err())
        {
            return Err(disagree(extra.name(), "is there, but not".into()));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}
