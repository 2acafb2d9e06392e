//! A file's footer: parsed once, checked, and kept beside the handle that reads the file.
//!
//! Parquet's own parser trusts some of what it reads (list sizes, offsets), so the footer's structure is
//! checked before and its offsets after; what a scan later takes from a [`ParquetFile`] points into the
//! file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::catalog::schema::{logical_schema, without_metadata};
use crate::catalog::store::FileSource;
use crate::catalog::thrift;
use crate::error::{EngineError, Result};

/// Length of the footer, then `PAR1`.
const TAIL_BYTES: u64 = 8;

/// Read at once from the end of a file: nearly all footers.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// An opened file: how to read it, and what its footer says.
#[derive(Debug)]
pub struct ParquetFile {
    pub url: String,
    pub size_bytes: u64,
    pub etag: Option<String>,
    pub source: FileSource,
    /// The footer, without page indexes.
    pub metadata: Arc<ParquetMetaData>,
    /// About the memory that the footer holds.
    pub metadata_bytes: usize,
    /// The top-level columns, logical types.
    pub schema: SchemaRef,
    /// What Parquet's own reader needs to give columns in logical types.
    pub reader_metadata: ArrowReaderMetadata,
    /// For each top-level column its leaf, if it is one leaf without lists or structs around it.
    leaves: Vec<Option<usize>>,
}

/// Reads and checks the footer of a file.
pub fn read(url: &str, source: FileSource) -> Result<ParquetFile> {
    let bytes = read_footer_bytes(url, &source)?;
    let metadata = parse(url, &bytes, source.size_bytes)?;
    let (schema, reader_metadata) = guarded(url, || {
        let found = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())
            .or_else(|_| {
                // An Arrow schema in the file that does not fit its columns is only a hint.
                let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
                ArrowReaderMetadata::try_new(metadata.clone(), plain)
            })
            .map_err(|e| damaged(url, &e))?;
        let logical = Arc::new(logical_schema(found.schema()));
        let options = ArrowReaderOptions::new().with_schema(logical.clone());
        let reader = ArrowReaderMetadata::try_new(metadata.clone(), options).map_err(|e| {
            EngineError::Unsupported(
                format!("the schema of {url} ({e})"),
                "Write the file again with plain column types".into(),
            )
        })?;
        Ok((Arc::new(without_metadata(&logical)), reader))
    })?;
    if let Some(twice) = duplicate_name(&schema) {
        return Err(EngineError::Data {
            place: url.to_string(),
            message: format!("two columns are named '{twice}'; write the file again with different names"),
        });
    }
    let descriptor = metadata.file_metadata().schema_descr();
    let leaves = (0..schema.fields().len())
        .map(|root| {
            let mut own =
                (0..descriptor.num_columns()).filter(|l| descriptor.get_column_root_idx(*l) == root);
            own.next().filter(|l| descriptor.column(*l).path().parts().len() == 1 && own.next().is_none())
        })
        .collect();
    Ok(ParquetFile {
        metadata_bytes: metadata.memory_size(),
        url: url.to_string(),
        size_bytes: source.size_bytes,
        etag: source.etag.clone(),
        source,
        metadata,
        schema,
        reader_metadata,
        leaves,
    })
}

impl ParquetFile {
    /// The leaf of a flat column, by name.
    pub fn leaf(&self, column: &str) -> Option<usize> {
        self.leaves[self.schema.index_of(column).ok()?]
    }
}

/// The footer without its tail.
fn read_footer_bytes(url: &str, source: &FileSource) -> Result<Bytes> {
    let size = source.size_bytes;
    if size < TAIL_BYTES + 4 {
        return Err(not_parquet(url, format!("it has {size} bytes, too few for a Parquet file")));
    }
    let first = size.saturating_sub(FIRST_READ_BYTES);
    let bytes = source.read(first..size)?;
    let tail = &bytes[bytes.len() - TAIL_BYTES as usize..];
    if &tail[4..] == b"PARE" {
        return Err(EngineError::Unsupported(
            format!("the encrypted footer of {url}"),
            "Write the file without encryption".into(),
        ));
    }
    if &tail[4..] != b"PAR1" {
        return Err(not_parquet(url, "it does not end with a Parquet footer".into()));
    }
    let length = u32::from_le_bytes(tail[..4].try_into().expect("invariant: four bytes")) as u64;
    if length + TAIL_BYTES > size {
        return Err(not_parquet(url, format!("its footer says {length} bytes, the file has {size}")));
    }
    let (start, end) = (size - TAIL_BYTES - length, size - TAIL_BYTES);
    if start >= first {
        Ok(bytes.slice((start - first) as usize..(end - first) as usize))
    } else {
        source.read(start..end)
    }
}

fn parse(url: &str, footer: &[u8], size_bytes: u64) -> Result<Arc<ParquetMetaData>> {
    thrift::check_struct(footer).map_err(|e| damaged(url, format!("byte {} of the footer", e.at)))?;
    let metadata =
        guarded(url, || ParquetMetaDataReader::decode_metadata(footer).map_err(|e| damaged(url, e)))?;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows();
        if rows < 0 || group.num_columns() != metadata.file_metadata().schema_descr().num_columns() {
            return Err(damaged(
                url,
                format!("row group {number} says {rows} rows, {} columns", group.num_columns()),
            ));
        }
        for chunk in group.columns() {
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let length = chunk.compressed_size();
            let fits = start >= 0
                && length >= 0
                && chunk.data_page_offset() >= 0
                && chunk.num_values() >= 0
                && (start as u64).checked_add(length as u64).is_some_and(|end| end <= size_bytes);
            if !fits {
                return Err(damaged(
                    url,
                    format!("row group {number}, column '{}' lies outside of the file", chunk.column_path()),
                ));
            }
        }
    }
    Ok(Arc::new(metadata))
}

/// Runs Parquet's own code over bytes that nobody has vouched for; a panic in it is an error.
pub fn guarded<T>(url: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged(url, "its content makes no sense")))
}

fn duplicate_name(schema: &SchemaRef) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    schema.fields().iter().find(|f| !seen.insert(f.name())).map(|f| f.name().clone())
}

fn not_parquet(url: &str, what: String) -> EngineError {
    EngineError::Data {
        place: url.to_string(),
        message: format!(
            "{what}; it is truncated, still being written, or not a Parquet file. Write it again, or move it away"
        ),
    }
}

/// The error for a file whose bytes are wrong.
pub fn damaged(url: &str, what: impl std::fmt::Display) -> EngineError {
    EngineError::Data {
        place: url.to_string(),
        message: format!("the file is damaged ({what}); write it again, or move it away"),
    }
}
