//! The catalog: a folder, a bucket or a prefix in it as tables, those of the warehouse, and the tables in the
//! session's memory.
//!
//! Every `X.parquet` directly in the folder is the table `x`; every sub-folder that holds Parquet files,
//! at any depth, is one table. The catalog lists ([`listing`]), reads footers once per version of a file
//! ([`footer`]), maps types ([`schema`]) and sums up statistics ([`statistics`]). The planner gets all of
//! it as a [`CatalogSnapshot`]; the scan asks for files by the [`FileRef`]s that the plan carries.
//!
//! What always holds:
//! - a local folder is listed anew for every snapshot, a remote one only by [`Catalog::refresh`];
//! - a table that cannot be read never hides the others: it is missing from the snapshot, and
//!   [`Catalog::table`] says why;
//! - what is kept of files and tables is forgotten when they are gone ([`relist`]);
//! - all files of a table have the same columns (by name and logical type), in any order.

pub mod bounds;
pub mod footer;
mod listing;
mod memory;
mod relist;
mod schema;
pub mod statistics;
pub mod store;
mod table;
mod temporary;
pub mod thrift;
mod value_bytes;
pub mod warehouse;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use dovetail_planner::catalog::{CatalogSnapshot, FileRef, Table};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Charge, Governor};

pub use footer::ParquetFile;
pub use memory::MemoryData;
pub use schema::logical_schema;
pub use store::FileSource;
pub use table::{replaced, same_columns};
pub use temporary::{TEMPORARY_MAX, TemporaryTables};
pub use value_bytes::value_bytes;

use listing::{ListedTable, Listing};
use memory::Memory;
use store::{Location, Stores};
use temporary::TemporarySessions;
use warehouse::{Warehouse, Written};

/// Where the rows of a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Memory,
    /// They are computed from its query.
    View,
    /// The folder or URL that is only read.
    Served,
    Warehouse,
}

/// Tables by name: those of one folder or URL, and those in memory. Shared by a session's queries.
pub struct Catalog {
    stores: Stores,
    root: Option<Location>,
    /// What the last listing found below the root,
    listing: RwLock<Listing>,
    /// and in the warehouse.
    written: RwLock<Listing>,
    warehouse: Option<Warehouse>,
    files: Mutex<HashMap<String, Arc<ParquetFile>>>,
    tables: Mutex<HashMap<String, Arc<Table>>>,
    memory: RwLock<Memory>,
    temporary: Arc<TemporarySessions>,
}

impl Catalog {
    /// The tables of a folder, of one file, or of an `s3://` prefix. `runtime` does the network I/O.
    ///
    /// # Errors
    /// The place does not exist, cannot be listed, or holds no Parquet file.
    pub fn open(location: &str, runtime: Handle) -> Result<Catalog> {
        let mut catalog = Catalog::in_memory(runtime);
        let root = Location::parse(location)?;
        let listing = listing::list(&catalog.stores, &root)?;
        if listing.tables.is_empty() {
            return Err(EngineError::Data {
                place: location.to_string(),
                message:
                    "there is no Parquet file here. Each file X.parquet in the folder is a table named x, \
                          each sub-folder with Parquet files is one table; give the folder that holds them"
                        .into(),
            });
        }
        catalog.root = Some(root);
        *catalog.listing.get_mut() = listing;
        Ok(catalog)
    }

    /// A catalog without a folder: tables come from CREATE TABLE and from URLs in FROM.
    pub fn in_memory(runtime: Handle) -> Catalog {
        Catalog {
            stores: Stores::new(runtime),
            root: None,
            listing: RwLock::default(),
            written: RwLock::default(),
            warehouse: None,
            files: Mutex::default(),
            tables: Mutex::default(),
            memory: RwLock::default(),
            temporary: Arc::default(),
        }
    }

    /// Temporary tables and views for another session, which may hold so much.
    pub fn temporary(&self, bytes_max: usize) -> Arc<TemporaryTables> {
        self.temporary.begin(bytes_max)
    }

    /// All tables that can be read, and all views. Footers are read at the first call and when a file
    /// has changed.
    pub fn snapshot(&self) -> Result<CatalogSnapshot> {
        self.relist_if_local()?;
        let mut names: Vec<String> = self.listing.read().tables.keys().cloned().collect();
        names.extend(self.written.read().tables.keys().cloned());
        self.snapshot_of(names.iter().map(String::as_str), true)
    }

    /// As [`Catalog::snapshot`], with only those of the named tables (lower case) that there are. For
    /// folders with many tables, whose footers a query does not need. A named table that cannot be read
    /// is an error.
    pub fn snapshot_named<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<CatalogSnapshot> {
        self.relist_if_local()?;
        self.snapshot_of(names, false)
    }

    /// One table of the folder or in memory, by lower-case name; none if there is none of that name.
    ///
    /// # Errors
    /// A file of the table is unreadable, or its files disagree.
    pub fn table(&self, name: &str) -> Result<Option<Arc<Table>>> {
        if let Some(table) = self.memory.read().table(name) {
            return Ok(Some(table));
        }
        let Some(listed) = self.listed(name) else {
            return Ok(None);
        };
        if let Some(problem) = &listed.problem {
            return Err(EngineError::Data { place: listed.place, message: problem.clone() });
        }
        let cached = self.tables.lock().get(name).cloned();
        if let Some(table) = cached
            && table::same_files(&table, &listed.files)
        {
            return Ok(Some(table));
        }
        let table = Arc::new(table::describe(self, name, &listed.files)?);
        self.tables.lock().insert(name.to_string(), table.clone());
        Ok(Some(table))
    }

    /// The table of a path or URL in FROM: a file, a folder, or a pattern with `*` in its last part.
    pub fn table_at(&self, location: &str) -> Result<Arc<Table>> {
        let files = listing::files_at(&self.stores, &Location::parse(location)?)?;
        if files.is_empty() {
            return Err(EngineError::Data {
                place: location.to_string(),
                message: "no Parquet file is there; check the path, or the pattern".into(),
            });
        }
        self.forget_unlisted();
        Ok(Arc::new(table::describe(self, location, &files)?))
    }

    /// A table of local files.
    pub fn table_of_files(&self, name: &str, files: &[PathBuf]) -> Result<Arc<Table>> {
        let listed = files.iter().map(|f| listing::files_at(&self.stores, &Location::Local(f.clone())));
        let listed: Vec<_> = listed.collect::<Result<Vec<_>>>()?.concat();
        Ok(Arc::new(table::describe(self, name, &listed)?))
    }

    /// A file of a plan, with its footer: from the cache, or read now.
    ///
    /// # Errors
    /// The file is gone, malformed, or not the version that was planned with.
    pub fn file(&self, file: &FileRef) -> Result<Arc<ParquetFile>> {
        let cached = self.files.lock().get(&file.url).cloned();
        if let Some(cached) = cached
            && cached.size_bytes == file.size_bytes
            && cached.etag == file.etag
        {
            return Ok(cached);
        }
        let source = self.stores.source(&file.url, file.size_bytes, file.etag.clone())?;
        let opened = Arc::new(footer::read(&file.url, source)?);
        self.files.lock().insert(file.url.clone(), opened.clone());
        Ok(opened)
    }

    /// Creates a table in memory. `replace` drops one of that name first; without it, a table or view of
    /// that name is an error. Batches may have any physical form of the schema's types.
    pub fn create_table(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: Vec<Batch>,
        replace: bool,
    ) -> Result<()> {
        if !replace && self.listed(name).is_some() {
            return Err(memory::exists(name));
        }
        self.memory.write().create(name, schema, batches, replace)
    }

    /// Counts memory for as long as a table in memory is there.
    pub fn charge(&self, name: &str, charge: Charge) {
        self.memory.write().charge(name, charge);
    }

    /// Where a table or view of a lower-case name is, if there is one.
    pub fn place_of(&self, name: &str) -> Result<Option<Place>> {
        {
            let memory = self.memory.read();
            if memory.has_table(name) {
                return Ok(Some(Place::Memory));
            }
            if memory.has_view(name) {
                return Ok(Some(Place::View));
            }
        }
        self.relist_if_local()?;
        if self.listing.read().tables.contains_key(name) {
            return Ok(Some(Place::Served));
        }
        Ok(self.written.read().tables.contains_key(name).then_some(Place::Warehouse))
    }

    /// Where tables are written to.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn warehouse(&self) -> Result<&Warehouse> {
        self.warehouse.as_ref().ok_or_else(|| {
            EngineError::Unsupported(
                "keeping tables".into(),
                "Start the server with --warehouse DIR to have a folder for them; temporary tables, in memory, need none".into(),
            )
        })
    }

    /// Has tables be written to a folder from now on, and lists those that are there.
    pub fn attach_warehouse(&mut self, warehouse: Warehouse) -> Result<()> {
        // Served as well: its tables are the warehouse's.
        if self.root.as_ref() == Some(&warehouse.location()) {
            self.root = None;
            *self.listing.get_mut() = Listing::default();
        }
        self.warehouse = Some(warehouse);
        self.refresh_warehouse()
    }

    /// Adds rows to a table in memory or in the warehouse, as it was when they were planned; returns how many.
    /// `memory` is what writing may hold.
    ///
    /// # Errors
    /// The table is another one by now; it takes no rows, or not these.
    pub fn insert(&self, planned: &Table, batches: Vec<Batch>, memory: &Governor) -> Result<u64> {
        match self.place_of(&planned.name)? {
            Some(Place::Warehouse) => self.append(planned, batches, memory),
            Some(Place::Served) => Err(EngineError::Unsupported(
                format!("writing to the files of table '{}'", planned.name),
                "Only tables made by CREATE TABLE and those of the warehouse take INSERT".into(),
            )),
            Some(Place::Memory | Place::View) | None => self.memory.write().insert(planned, batches),
        }
    }

    /// Adds a file to a table of the warehouse, whose columns are those of the table that it was written for.
    ///
    /// # Errors
    /// The table has other columns by now; the folder cannot be written to.
    pub fn append_written(&self, planned: &Table, written: Written) -> Result<()> {
        self.warehouse()?.append(&planned.name, written, |folder| {
            let files = listing::files_at(&self.stores, &Location::Local(folder.to_owned()))?;
            match table::describe(self, &planned.name, &files)? {
                now if table::same_columns(&now.schema, &planned.schema) => Ok(()),
                _ => Err(table::replaced(&planned.name)),
            }
        })
    }

    /// Drops a table in memory or in the warehouse; false if there is none of that name.
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        if self.memory.write().drop_table(name) {
            return Ok(true);
        }
        match self.place_of(name)? {
            Some(Place::Warehouse) => self.warehouse()?.drop_table(name),
            Some(Place::Served) => Err(EngineError::Unsupported(
                format!("dropping the files of table '{name}'"),
                "Delete the files where they are; only tables made by CREATE TABLE and those of the warehouse can \
                 be dropped"
                    .into(),
            )),
            Some(Place::Memory | Place::View) | None => Ok(false),
        }
    }

    /// Creates a view from the SQL text of its query.
    pub fn create_view(&self, name: &str, sql: &str, replace: bool) -> Result<()> {
        if self.listed(name).is_some() {
            return Err(memory::exists(name));
        }
        self.memory.write().create_view(name, sql, replace)
    }

    /// Drops a view; false if there is none of that name.
    pub fn drop_view(&self, name: &str) -> bool {
        self.memory.write().drop_view(name)
    }

    /// The tables of `location` in a store that stands for `base`, e.g. `s3://bucket`.
    #[cfg(test)]
    pub fn with_store(
        base: &str,
        store: Arc<dyn object_store::ObjectStore>,
        location: &str,
        runtime: Handle,
    ) -> Result<Catalog> {
        let mut catalog = Catalog::in_memory(runtime);
        catalog.stores.register(base, store);
        catalog.root = Some(Location::parse(location)?);
        catalog.refresh()?;
        Ok(catalog)
    }

    /// The files of a table that is not in memory.
    fn listed(&self, name: &str) -> Option<ListedTable> {
        let (served, written) = (self.listing.read(), self.written.read());
        match (served.tables.get(name), written.tables.get(name)) {
            (Some(served), Some(written)) => {
                let problem = format!(
                    "two sources would both be table '{name}': this and {}; rename one of them",
                    written.place
                );
                Some(ListedTable { problem: Some(problem), ..served.clone() })
            }
            (one, other) => one.or(other).cloned(),
        }
    }

    fn append(&self, planned: &Table, batches: Vec<Batch>, memory: &Governor) -> Result<u64> {
        let schema = warehouse::table_schema(&planned.schema);
        let mut writer = self.warehouse()?.write(schema.clone(), memory.reserve("Insert"))?;
        for batch in batches {
            writer.write(&as_written(&batch.to_record_batch(&planned.schema)?, &schema)?)?;
        }
        let written = writer.finish()?;
        let rows = written.rows;
        if rows > 0 {
            self.append_written(planned, written)?;
        }
        Ok(rows)
    }

    fn snapshot_of<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        leave_out_unreadable: bool,
    ) -> Result<CatalogSnapshot> {
        let mut tables = BTreeMap::new();
        for name in names {
            match self.table(name) {
                Ok(Some(table)) => {
                    tables.insert(name.to_string(), table);
                }
                Ok(None) => {}
                Err(e) if leave_out_unreadable => tracing::warn!("table {name} is left out: {e}"),
                Err(e) => return Err(e),
            }
        }
        let memory = self.memory.read();
        // A table in memory comes before a file of the same name: it was made later, on purpose.
        tables.extend(memory.tables());
        Ok(CatalogSnapshot { tables, views: memory.views(), temporary: None })
    }
}

/// Rows in the types of a file.
pub fn as_written(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        cast_with_options(column, field.data_type(), &strict)
            .map_err(|e| EngineError::execution(format!("column '{}': {e}", field.name())))
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?)
}

/// Where the rows of tables in memory are.
pub trait MemoryTables: Send + Sync {
    /// The rows of a table as they were at `version`.
    fn memory(&self, id: u64, version: u64) -> Result<MemoryData>;
}

impl MemoryTables for Catalog {
    fn memory(&self, id: u64, version: u64) -> Result<MemoryData> {
        self.temporary.data(id, version).unwrap_or_else(|| self.memory.read().data(id, version))
    }
}

#[cfg(test)]
mod tests;
