//! The scan of files against the scan of the same rows in memory.

mod damage;
mod data;
mod random;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use dovetail_planner::catalog::Table;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{RuntimeFilterUse, Scan};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::scan::{Experience, RuntimeFilter, RuntimeFilters, scan_factory};
use crate::task::{QueryContext, TaskContext};

/// A folder of tables, and everything that keeps it open.
struct Database {
    folder: TempDir,
    runtime: Runtime,
}

/// What a test asks of a scan.
#[derive(Default, Clone, Debug)]
struct Ask {
    filters: Vec<Expr>,
    output: Vec<usize>,
    runtime_filters: Vec<RuntimeFilterUse>,
    limit: Option<u64>,
}

#[derive(Default)]
struct Published(HashMap<u32, Arc<RuntimeFilter>>);

impl RuntimeFilters for Published {
    fn get(&self, id: u32) -> Option<Arc<RuntimeFilter>> {
        self.0.get(&id).cloned()
    }
}

impl Database {
    fn new() -> Database {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        Database { folder: TempDir::new().unwrap(), runtime }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(self.folder.path().to_str().unwrap(), self.runtime.handle().clone()).unwrap()
    }
}

/// All columns of a table under `ask`.
fn plan(table: &Table, ask: &Ask) -> Scan {
    Scan {
        table: table.name.clone(),
        data: table.data.clone(),
        table_schema: table.schema.clone(),
        columns: (0..table.schema.fields().len()).collect(),
        filters: ask.filters.clone(),
        output: ask.output.clone(),
        runtime_filters: ask.runtime_filters.clone(),
        limit: ask.limit,
    }
}

/// Runs a scan in one task; one batch of logical types.
fn run(catalog: &Catalog, table: &Table, ask: &Ask, published: Published) -> Result<RecordBatch> {
    let schema = output_schema(&table.schema, ask);
    let scan = plan(table, ask);
    let experience = Arc::new(Experience::of(&scan));
    let factory = scan_factory(&scan, catalog, catalog, Arc::new(published), experience, 0)?;
    let query = Arc::new(QueryContext::new(1));
    let task = TaskContext::new(0, 1, query.clone());
    let mut source = factory.open(&task)?;
    let mut batches = vec![];
    while let Some(batch) = source.next()? {
        assert!(batch.columns.iter().all(|c| c.len() == batch.rows));
        batches.push(batch.to_record_batch(&schema)?);
    }
    let all = concat_batches(&schema, &batches)?;
    Ok(all)
}

fn output_schema(schema: &SchemaRef, ask: &Ask) -> SchemaRef {
    let fields = ask.output.iter().map(|i| schema.field(*i).clone().with_nullable(true)).collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}

/// The rows as a table in the catalog's memory.
fn in_memory(catalog: &Catalog, schema: &SchemaRef, batch: &RecordBatch) -> Arc<Table> {
    catalog.create_table("expected", schema.clone(), vec![batch.clone().into()], true).unwrap();
    catalog.table("expected").unwrap().unwrap()
}

fn write(path: &Path, batch: &RecordBatch, properties: parquet::file::properties::WriterProperties) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    // In odd pieces, as pages end with them.
    let mut at = 0;
    while at < batch.num_rows() {
        let length = 777.min(batch.num_rows() - at);
        writer.write(&batch.slice(at, length)).unwrap();
        at += length;
    }
    writer.close().unwrap();
}
