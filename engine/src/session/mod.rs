//! The embedding API: a catalog, a scheduler, and statements in SQL.
//!
//! ```no_run
//! use dovetail_engine::{Session, SessionOptions};
//!
//! let session = Session::open("sales/", SessionOptions::default())?;
//! let result = session.execute("SELECT region, sum(amount) FROM orders GROUP BY region")?;
//! for batch in &result.batches {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok::<(), dovetail_engine::EngineError>(())
//! ```
//!
//! Many clients share one database: [`Session::connect`] gives each a session with settings and temporary tables of
//! its own.
//!
//! What always holds: a statement sees one snapshot of the catalog; its result is complete or an error;
//! statements may run from several threads at once.

mod audit;
pub mod cluster;
mod command;
mod elsewhere;
mod explain;
mod ingest;
mod options;
mod parameters;
mod run;
mod running;
mod settings;
mod statement;
mod system;
mod write;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::sql::{self, ParsedStatement};

use crate::audit::AuditSink;
use crate::catalog::warehouse::Warehouse;
use crate::catalog::{Catalog, TemporaryTables};
use crate::error::{EngineError, Result};
use crate::memory::{Governor, MemoryUse, SpillSpace};
use crate::scheduler::threads::ThreadPool;

use cluster::Cluster;
pub use elsewhere::{Elsewhere, OutputPlace};
pub use ingest::{IfExists, Ingest, IngestOptions};
pub use options::{SchedulerKind, SessionOptions};
pub use parameters::{Description, ValueRows, Values};
pub use running::CancelHandle;
use running::Running;
use settings::Settings;
pub use statement::{Cancellation, Effect, Statement};

/// The temporary tables of one session may hold this part of the memory limit: the half, so that queries go on.
const TEMPORARY_TABLES_PART: usize = 2;

/// A client's view of a database: tables, threads, and statements run over them, which it shares with the other
/// sessions of the database; temporary tables and settings, which are its own.
pub struct Session {
    catalog: Arc<Catalog>,
    options: SessionOptions,
    /// None: the synchronous scheduler.
    pool: Option<Arc<ThreadPool>>,
    running: Arc<Running>,
    memory: Governor,
    spill: SpillSpace,
    cluster: Arc<OnceLock<Arc<dyn Cluster>>>,
    audit: Arc<OnceLock<Arc<dyn AuditSink>>>,
    /// Tasks that may have to wait for readers.
    flowing: Arc<AtomicUsize>,
    temporary: Arc<TemporaryTables>,
    settings: Settings,
    /// Of the statements that run, those of one user alone.
    sees_only: Option<Arc<str>>,
    /// Does the network I/O of remote tables. Dropped last.
    _runtime: Arc<Background>,
}

/// A runtime that may be dropped anywhere, on a thread of another runtime too.
struct Background(Option<tokio::runtime::Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a statement gave.
#[derive(Debug, Clone)]
pub struct QueryResult {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    pub kind: StatementKind,
}

/// What a statement gives, batch by batch. Few rows have been computed when this is there; more come while the
/// query runs, which waits for a reader that is slow, and stops when this or the session is dropped. Ends after an
/// error.
pub struct ResultStream {
    pub schema: SchemaRef,
    pub kind: StatementKind,
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
}

impl ResultStream {
    /// What somebody else has computed, a server for instance. Every batch has the schema.
    pub fn new(
        schema: SchemaRef,
        kind: StatementKind,
        batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
    ) -> ResultStream {
        ResultStream { schema, kind, batches: Box::new(batches) }
    }
}

impl Iterator for ResultStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next()
    }
}

impl From<QueryResult> for ResultStream {
    fn from(result: QueryResult) -> Self {
        let QueryResult { schema, batches, kind } = result;
        ResultStream { schema, kind, batches: Box::new(batches.into_iter().map(Ok)) }
    }
}

/// How far a running query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that have ended, and all that are known; some become known only while the query runs.
    pub tasks_done: u64,
    pub tasks: u64,
    /// Of files, decoded.
    pub bytes_read: u64,
    /// Written to disk because memory was short.
    pub bytes_spilled: u64,
    /// Held in memory by all of the session's queries.
    pub memory_bytes: u64,
}

/// Whether a statement was a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    /// It has rows, perhaps none.
    Query,
    /// It changed something; what, in one line.
    Command { message: String },
}

/// A table, as a person lists it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    pub name: String,
    pub schema: SchemaRef,
    pub rows: Option<u64>,
    pub is_view: bool,
    /// Whether nobody but the session sees it.
    pub is_temporary: bool,
}

impl TableInfo {
    /// What SQL calls its kind.
    pub fn table_type(&self) -> &'static str {
        match (self.is_temporary, self.is_view) {
            (true, _) => "LOCAL TEMPORARY",
            (false, true) => "VIEW",
            (false, false) => "BASE TABLE",
        }
    }
}

impl Session {
    /// A session without a folder: tables are those that statements create.
    pub fn new(options: SessionOptions) -> Result<Session> {
        let runtime = runtime()?;
        let catalog = Catalog::in_memory(runtime.handle().clone());
        Self::build(catalog, options, runtime)
    }

    /// A session over a folder, a file or a URL: each Parquet file and each sub-folder with Parquet files
    /// is a table.
    ///
    /// # Errors
    /// The place does not exist, cannot be read, or holds no Parquet file.
    pub fn open(path_or_url: &str, options: SessionOptions) -> Result<Session> {
        let runtime = runtime()?;
        let catalog = Catalog::open(path_or_url, runtime.handle().clone())?;
        Self::build(catalog, options, runtime)
    }

    fn build(
        mut catalog: Catalog,
        options: SessionOptions,
        runtime: tokio::runtime::Runtime,
    ) -> Result<Session> {
        if let Some(folder) = &options.warehouse {
            catalog.attach_warehouse(Warehouse::open(folder)?)?;
        }
        let pool = match options.scheduler {
            SchedulerKind::Threads => Some(Arc::new(ThreadPool::new(options.threads)?)),
            SchedulerKind::Synchronous => None,
        };
        let limit = options.memory_limit.unwrap_or_default();
        let memory = Governor::new(limit.bytes(), options.spill);
        Ok(Session {
            temporary: temporary_tables(&catalog, &memory),
            settings: Settings::default(),
            sees_only: None,
            catalog: Arc::new(catalog),
            memory,
            spill: SpillSpace::open(&options.spill_directories)?,
            options,
            pool,
            running: Arc::default(),
            cluster: Arc::default(),
            audit: Arc::default(),
            flowing: Arc::default(),
            _runtime: Arc::new(Background(Some(runtime))),
        })
    }

    /// Another client's session over the same database, with nothing of its own yet. The last one that is dropped
    /// ends the database, and so must not be dropped on a thread of a runtime.
    pub fn connect(&self) -> Session {
        self.connect_within(self.memory.clone())
    }

    /// [`Self::connect`], for queries that may hold a part of the database's memory: `memory` is a child of
    /// [`Self::governor`].
    pub fn connect_within(&self, memory: Governor) -> Session {
        Session {
            temporary: temporary_tables(&self.catalog, &memory),
            settings: Settings::default(),
            sees_only: None,
            catalog: self.catalog.clone(),
            options: self.options.clone(),
            pool: self.pool.clone(),
            running: self.running.clone(),
            memory,
            spill: self.spill.clone(),
            cluster: self.cluster.clone(),
            audit: self.audit.clone(),
            flowing: self.flowing.clone(),
            _runtime: self._runtime.clone(),
        }
    }

    /// The session, which is shown nothing of the statements of others than this user: not their SQL in
    /// `system.queries`.
    pub fn seeing_only(self, user: &Arc<str>) -> Session {
        Session { sees_only: Some(user.clone()), ..self }
    }

    /// Drops what is the session's own: its temporary tables and views.
    pub fn drop_temporary(&self) {
        self.temporary.clear();
    }

    /// What the session's temporary tables hold of the memory that is in use.
    pub fn temporary_bytes(&self) -> u64 {
        self.temporary.bytes() as u64
    }

    /// Lets a cluster run the queries of all of the database's sessions from now on, while it has workers. Once only.
    pub fn attach_cluster(&self, cluster: Arc<dyn Cluster>) {
        let before = self.cluster.set(cluster);
        assert!(before.is_ok(), "a database has one cluster");
    }

    /// The tables and files that the session's queries read.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    /// Splits a script into its statements.
    pub fn statements(&self, script: &str) -> Result<Vec<String>> {
        Ok(sql::parse(script)?.into_iter().map(|s| s.text).collect())
    }

    /// Runs exactly one statement to its end, and gives all its rows in memory, which the memory limit does
    /// not count.
    pub fn execute(&self, statement: &str) -> Result<QueryResult> {
        let stream = self.stream(statement)?;
        let (schema, kind) = (stream.schema.clone(), stream.kind.clone());
        Ok(QueryResult { schema, kind, batches: stream.collect::<Result<_>>()? })
    }

    /// Runs exactly one statement. Its rows may be many more than fit in memory.
    pub fn stream(&self, statement: &str) -> Result<ResultStream> {
        self.run_statement(self.prepare(statement)?, &Cancellation::default())
    }

    /// Stops what runs in the database, now or later, when it is told to.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::new(self.running.clone())
    }

    /// How far the query is that has been running longest; none if none runs. May be called from any thread.
    pub fn progress(&self) -> Option<Progress> {
        let query = self.running.oldest()?;
        Some(Progress {
            tasks_done: query.tasks_done.load(Ordering::Relaxed),
            tasks: query.tasks.load(Ordering::Relaxed),
            bytes_read: query.metrics.total(|m| &m.bytes_read),
            bytes_spilled: query.metrics.total(|m| &m.bytes_spilled),
            memory_bytes: self.memory.used_bytes() as u64,
        })
    }

    /// What counts the memory of the session's queries.
    pub fn governor(&self) -> &Governor {
        &self.memory
    }

    /// What the session's queries hold at the moment, and have spilled.
    pub fn memory(&self) -> MemoryUse {
        MemoryUse {
            limit_bytes: self.memory.limit_bytes() as u64,
            used_bytes: self.memory.used_bytes() as u64,
            peak_bytes: self.memory.peak_bytes() as u64,
            spilled_bytes: self.memory.spilled_bytes(),
            spill_files: self.spill.files_alive(),
        }
    }

    /// Tables and views, by name.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let snapshot = self.snapshot()?;
        let mut all: Vec<TableInfo> = snapshot
            .tables
            .values()
            .map(|t| TableInfo {
                name: t.name.clone(),
                schema: t.schema.clone(),
                rows: t.statistics.rows,
                is_view: false,
                is_temporary: snapshot.is_temporary(&t.name),
            })
            .collect();
        all.extend(snapshot.views.keys().map(|name| TableInfo {
            name: name.clone(),
            schema: self.view_schema(name),
            rows: None,
            is_view: true,
            is_temporary: snapshot.is_temporary(name),
        }));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The columns of a view; none if what it was made of is not there any more.
    fn view_schema(&self, name: &str) -> SchemaRef {
        let select = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
        let empty = || Arc::new(arrow::datatypes::Schema::empty());
        self.prepare(&select).map_or_else(|_| empty(), |statement| statement.schema)
    }

    /// What a statement can see: with a remote folder, reading all footers for each statement would cost
    /// more than the statement, so only the tables it names are looked up when all of them are known.
    fn snapshot_for(&self, statement: &ParsedStatement) -> Result<CatalogSnapshot> {
        let (of_system, names): (Vec<_>, Vec<_>) =
            statement.tables()?.into_iter().partition(|name| system::is_system(name));
        let mut snapshot = self.snapshot_of(&names)?;
        system::add(self, &of_system, &mut snapshot)?;
        Ok(snapshot)
    }

    fn snapshot_of(&self, names: &[String]) -> Result<CatalogSnapshot> {
        let named = self.catalog.snapshot_named(names.iter().map(String::as_str))?;
        let (tables, views) = self.temporary.all();
        let all_known = names.iter().all(|n| named.tables.contains_key(n) || tables.contains_key(n));
        let shared = if all_known && named.views.is_empty() && views.is_empty() && !names.is_empty() {
            named
        } else {
            self.catalog.snapshot()?
        };
        Ok(shared.with_temporary(tables, views))
    }

    /// All that the session can see, but for the tables of the system.
    fn snapshot(&self) -> Result<CatalogSnapshot> {
        let (tables, views) = self.temporary.all();
        Ok(self.catalog.snapshot()?.with_temporary(tables, views))
    }
}

impl QueryResult {
    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }
}

/// Those of another session.
fn temporary_tables(catalog: &Catalog, memory: &Governor) -> Arc<TemporaryTables> {
    catalog.temporary(memory.limit_bytes() / TEMPORARY_TABLES_PART)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("dovetail-io")
        .enable_all()
        .build()
        .map_err(|e| EngineError::Resources(format!("cannot start the threads for network I/O: {e}")))
}
