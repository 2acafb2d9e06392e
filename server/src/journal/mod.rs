//! What survives the scheduler's process: its state directory.
//!
//! ```text
//! DIR/lock            held by the one server that uses the directory
//! DIR/identity        which workers ask for, and how often the server was started
//! DIR/queries/ID.log  one for each running query (query_log), in frames
//! DIR/audit/…         what statements have done (crate::audit)
//! ```
//!
//! A query's log is begun before its first task runs and goes when its rows have been fetched or nobody wants them
//! any more. What always holds: numbers of queries are never used twice in one directory; a log that is damaged
//! counts up to the damage; only the owner can read what is here, since a log has what it takes to ask for a result.

pub(crate) mod frames;
mod query_log;
mod unfinished;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use dovetail_engine::session::cluster::ClusterQuery;
use dovetail_planner::pipeline::reads_memory;
use parking_lot::Mutex;

use crate::cluster::messages::{PROTOCOL, encode_plan};
use crate::error::{Result, ServerError};
use crate::records::{Begun, record};

pub use query_log::QueryLog;
pub use unfinished::{Found, Unfinished};

/// Numbers of queries that each start of a server has for itself.
const QUERIES_PER_EPOCH_BITS: u32 = 32;

/// The first epoch of a lineage is random below this, so that a worker's word about a query of another scheduler is
/// not taken for one about a query here; the epochs after it have room.
const FIRST_EPOCH_MAX: u32 = 1 << 30;
/// How long records of the audit are kept, unless somebody says otherwise.
pub const AUDIT_DAYS: u32 = 90;

/// Of the file with the identity.
const IDENTITY_BYTES_MAX: u64 = 256;

/// Which scheduler this is, for workers that come back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The same for all processes that have used a state directory, one after the other.
    pub lineage: uuid::Uuid,
    /// Which of those processes this is.
    pub epoch: u32,
}

impl Identity {
    /// Of a process that leaves nothing behind.
    pub fn transient() -> Identity {
        Identity::new()
    }

    fn new() -> Identity {
        let lineage = uuid::Uuid::new_v4();
        Identity { lineage, epoch: lineage.as_u64_pair().1 as u32 % FIRST_EPOCH_MAX }
    }

    /// The number of this process's first query; the next ones follow.
    pub fn first_query(&self) -> u64 {
        u64::from(self.epoch) << QUERIES_PER_EPOCH_BITS
    }

    /// Starts of the server since the one that has given the query its number.
    pub fn starts_since(&self, query: u64) -> u32 {
        self.epoch.saturating_sub(epoch_of(query))
    }
}

fn epoch_of(query: u64) -> u32 {
    (query >> QUERIES_PER_EPOCH_BITS) as u32
}

/// A directory that this process alone uses.
#[derive(Debug)]
pub struct StateDirectory {
    identity: Identity,
    queries: PathBuf,
    audit: PathBuf,
    /// How long records of the audit are kept.
    pub audit_days: u32,
    /// Locked until nobody uses the directory any more, or the process ends, however it does.
    lock: Arc<File>,
}

impl StateDirectory {
    /// Takes a directory into use, and makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be written, or another server uses it.
    pub fn open(directory: &Path) -> Result<StateDirectory> {
        let problem = |problem: String| ServerError::State { directory: directory.to_owned(), problem };
        let cannot = |what: &str, e: io::Error| problem(format!("{what}: {e}"));
        let (queries, audit) = (directory.join("queries"), directory.join("audit"));
        for folder in [&queries, &audit] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| cannot("it cannot be made", e))?;
        }
        let lock = private_file().open(directory.join("lock"));
        let lock = lock.map_err(|e| cannot("it cannot be written", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(problem("another server uses it".into())),
            Err(TryLockError::Error(e)) => return Err(cannot("it cannot be locked", e)),
        }
        let known = read_identity(directory).map_err(|e| cannot("its identity cannot be read", e))?;
        let of_logs = logs(&queries).map_err(|e| cannot("its logs cannot be read", e))?;
        let before = known.unwrap_or_else(Identity::new);
        let epochs = of_logs.iter().map(|(query, _)| epoch_of(*query));
        let identity = Identity { epoch: epochs.fold(before.epoch, u32::max) + 1, lineage: before.lineage };
        write_identity(directory, &identity).map_err(|e| cannot("it cannot be written", e))?;
        Ok(StateDirectory { identity, queries, audit, audit_days: AUDIT_DAYS, lock: Arc::new(lock) })
    }

    /// The folder of the audit.
    pub fn audit(&self) -> &Path {
        &self.audit
    }

    /// The lock, for what uses the directory longer than this is there.
    pub fn lock(&self) -> Arc<File> {
        self.lock.clone()
    }

    /// Which scheduler this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The queries that the process before had not ended, oldest first. Called once. Plans are decoded and dropped by
    /// recursion: the caller's stack must be a large one.
    pub fn unfinished(&self) -> Vec<Found> {
        let logs = logs(&self.queries).unwrap_or_else(|error| {
            tracing::error!(path = %self.queries.display(), %error, "logs of queries cannot be read");
            vec![]
        });
        logs.iter().filter_map(|(_, path)| unfinished::find(path, &self.identity)).collect()
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn read_identity(directory: &Path) -> io::Result<Option<Identity>> {
    let mut text = String::new();
    match File::open(directory.join("identity")) {
        Ok(file) => file.take(IDENTITY_BYTES_MAX).read_to_string(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let parsed = text.trim().split_once(' ').and_then(|(lineage, epoch)| {
        Some(Identity { lineage: lineage.parse().ok()?, epoch: epoch.parse().ok()? })
    });
    if parsed.is_none() {
        tracing::warn!("the state directory's identity is damaged: what workers hold will be made again");
    }
    Ok(parsed)
}

/// By a rename, so that it is the old one or the new one.
fn write_identity(directory: &Path, identity: &Identity) -> io::Result<()> {
    let new = directory.join("identity.new");
    let mut file = private_file().open(&new)?;
    file.set_len(0)?;
    writeln!(file, "{} {}", identity.lineage, identity.epoch)?;
    file.sync_all()?;
    std::fs::rename(&new, directory.join("identity"))?;
    File::open(directory)?.sync_all()
}

/// The logs in a folder, by number.
fn logs(queries: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut logs = vec![];
    for entry in std::fs::read_dir(queries)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "log")) {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs)
}

/// The logs of the queries that run. Shared by those who begin queries and those who hand out their rows.
pub struct Journal {
    queries: PathBuf,
    /// By handle.
    open: Mutex<HashMap<Bytes, Arc<QueryLog>>>,
}

impl Journal {
    /// The journal in a directory.
    pub fn new(directory: &StateDirectory) -> Journal {
        Journal { queries: directory.queries.clone(), open: Mutex::default() }
    }

    /// Begins a query's log. None for one that will not survive: nobody could ask for its rows, it reads what is in
    /// this process's memory, or the log cannot be written.
    pub fn begin(&self, id: u64, query: &ClusterQuery) -> Option<Arc<QueryLog>> {
        let durable = query.durable.as_ref()?;
        if reads_memory(&query.graph) {
            return None;
        }
        let path = self.queries.join(format!("{id}.log"));
        let schema: std::result::Result<IpcMessage, _> =
            SchemaAsIpc::new(&durable.schema, &IpcWriteOptions::default()).try_into();
        let begun = |schema: IpcMessage| Begun {
            protocol: PROTOCOL,
            query: id,
            handle: Bytes::copy_from_slice(&durable.handle),
            schema: schema.0,
            graph: encode_plan(&query.graph),
            operators: query.operators as u32,
            result: query.result.0,
            sql: durable.sql.to_string(),
            user: durable.user.clone(),
        };
        let log = schema.map_err(io::Error::other).and_then(|schema| {
            let log = QueryLog::create(path, record::Record::Begun(begun(schema)))?;
            File::open(&self.queries)?.sync_all()?;
            Ok(log)
        });
        match log {
            Ok(log) => Some(self.keep(&durable.handle, log)),
            Err(error) => {
                tracing::warn!(query = id, %error, "a query has no log: it would not survive the server's end");
                None
            }
        }
    }

    /// Keeps the log of a query that this process goes on with.
    pub fn keep(&self, handle: &[u8], log: QueryLog) -> Arc<QueryLog> {
        let log = Arc::new(log);
        self.open.lock().insert(Bytes::copy_from_slice(handle), log.clone());
        log
    }

    /// The rows have been fetched, or nobody will: the log goes.
    pub fn end(&self, handle: &[u8]) {
        let log = self.open.lock().remove(handle);
        if let Some(log) = log {
            log.remove();
        }
    }
}

#[cfg(test)]
mod tests;
