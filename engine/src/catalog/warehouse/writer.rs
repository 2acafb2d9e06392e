//! Rows into one Parquet file, which belongs to no table until it is committed.
//!
//! What always holds: no more is kept in memory than one row group, which is bounded in rows and bytes; a writer
//! that is dropped leaves nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::failed;
use crate::catalog::schema::without_metadata;
use crate::catalog::value_bytes;
use crate::error::{EngineError, Result};
use crate::memory::Reservation;

/// Rows of a row group: a morsel of a scan.
const ROW_GROUP_ROWS_MAX: usize = 1 << 17;
/// Of a row group that is being written, encoded.
const ROW_GROUP_BYTES_MAX: usize = 64 << 20;
/// Rows that are encoded before the bytes are looked at again.
const SLICE_ROWS: usize = 1 << 14;

/// Writes the rows of one commit.
pub struct TableWriter {
    folder: TempDir,
    file: PathBuf,
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    rows: u64,
    memory: Reservation,
}

/// A file that is complete and on disk, and belongs to no table yet. Dropped, it is deleted.
pub struct Written {
    folder: TempDir,
    file: PathBuf,
    pub rows: u64,
}

impl TableWriter {
    /// Begins a file in a folder of its own below `writing`.
    pub(super) fn create(writing: &Path, schema: SchemaRef, memory: Reservation) -> Result<TableWriter> {
        if let Some(field) = schema.fields().iter().find(|f| has_union(f.data_type())) {
            return Err(no_such_column(field, "a union of types"));
        }
        fs::create_dir_all(writing).map_err(|e| failed(writing, &e))?;
        let folder =
            tempfile::Builder::new().prefix("").tempdir_in(writing).map_err(|e| failed(writing, &e))?;
        // Listed in the order in which they were written.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unique = folder.path().file_name().unwrap_or_default().to_string_lossy();
        let file = folder.path().join(format!("{:012x}-{unique}.parquet", since.as_millis()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .build();
        let opened = File::create_new(&file).map_err(|e| failed(&file, &e))?;
        let writer = ArrowWriter::try_new(opened, schema.clone(), Some(properties))
            .map_err(|e| unwritable(&schema).unwrap_or_else(|| parquet_failed(&file, e)))?;
        Ok(TableWriter { folder, file, writer, schema, rows: 0, memory })
    }

    /// The columns of what is written.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows, whose columns are those of the schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for from in (0..batch.num_rows()).step_by(SLICE_ROWS) {
            let slice = batch.slice(from, SLICE_ROWS.min(batch.num_rows() - from));
            let held = self.writer.memory_size() + value_bytes(&slice);
            self.memory.resize_firm(held)?;
            self.writer.write(&slice).map_err(|e| parquet_failed(&self.file, e))?;
            if self.writer.in_progress_size() >= ROW_GROUP_BYTES_MAX {
                self.writer.flush().map_err(|e| parquet_failed(&self.file, e))?;
            }
        }
        self.rows += batch.num_rows() as u64;
        self.memory.resize_firm(self.writer.memory_size())
    }

    /// Ends the file, and waits until it is on disk.
    pub fn finish(self) -> Result<Written> {
        let TableWriter { folder, file, writer, rows, .. } = self;
        let written = writer.into_inner().map_err(|e| parquet_failed(&file, e))?;
        written.sync_all().map_err(|e| failed(&file, &e))?;
        super::sync_folder(folder.path())?;
        Ok(Written { folder, file, rows })
    }
}

impl Written {
    /// The file's folder becomes a table's.
    pub(super) fn become_folder(self, place: &Path) -> io::Result<()> {
        fs::rename(self.folder.path(), place)?;
        // There is nothing left at the old place to be deleted.
        let _ = self.folder.keep();
        Ok(())
    }

    /// The file goes to the others of a table.
    pub(super) fn join_folder(self, place: &Path) -> io::Result<()> {
        let target = place.join(self.file.file_name().unwrap_or_default());
        if target.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.file, target)
    }
}

/// The columns of a table that is made from rows of a schema: without encodings, every one nullable.
pub fn table_schema(schema: &Schema) -> SchemaRef {
    let field = |f: &FieldRef| Field::new(f.name(), plain(f.data_type()), true);
    Arc::new(without_metadata(&Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())))
}

/// A type in the form in which files have it, which every reader takes.
pub fn plain(t: &DataType) -> DataType {
    use DataType::*;
    let inner = |f: &FieldRef| Arc::new(Field::new(f.name(), plain(f.data_type()), f.is_nullable()));
    match t {
        Utf8 | LargeUtf8 | Utf8View => Utf8,
        Binary | LargeBinary | BinaryView => Binary,
        Decimal32(p, s) | Decimal64(p, s) => Decimal128(*p, *s),
        Dictionary(_, values) => plain(values),
        RunEndEncoded(_, values) => plain(values.data_type()),
        List(f) | ListView(f) => List(inner(f)),
        LargeList(f) | LargeListView(f) => LargeList(inner(f)),
        FixedSizeList(f, n) => FixedSizeList(inner(f), *n),
        Struct(fields) => Struct(fields.iter().map(inner).collect()),
        Map(entries, sorted) => Map(inner(entries), *sorted),
        other => other.clone(),
    }
}

/// The column that Parquet has no type for.
fn unwritable(schema: &Schema) -> Option<EngineError> {
    schema.fields().iter().find_map(|field| {
        let alone = Schema::new(vec![field.clone()]);
        let problem = ArrowSchemaConverter::new().convert(&alone).err()?;
        Some(no_such_column(field, &problem.to_string()))
    })
}

fn no_such_column(field: &Field, problem: &str) -> EngineError {
    EngineError::Unsupported(
        format!("a table with column '{}' of type {} ({problem})", field.name(), field.data_type()),
        "Cast it to another type first".into(),
    )
}

/// Parquet's writer does not expect one.
fn has_union(t: &DataType) -> bool {
    use DataType::*;
    match t {
        Union(..) => true,
        List(f) | LargeList(f) | FixedSizeList(f, _) | Map(f, _) => has_union(f.data_type()),
        Struct(fields) => fields.iter().any(|f| has_union(f.data_type())),
        _ => false,
    }
}

fn parquet_failed(file: &Path, e: ParquetError) -> EngineError {
    match e {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => failed(file, &io),
            Err(other) => EngineError::Data { place: file.display().to_string(), message: other.to_string() },
        },
        ParquetError::NYI(what) => EngineError::Unsupported(
            format!("writing such rows ({what})"),
            "Cast the column to another type first".into(),
        ),
        other => EngineError::Data { place: file.display().to_string(), message: other.to_string() },
    }
}
