//! A session as the `sqllogictest` crate wants a database to be.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use dovetail_engine::{SchedulerKind, Session, SessionOptions, SpillPolicy, StatementKind};
use sqllogictest::{DB, DBOutput, DefaultColumnType};

use crate::cells::{column_texts, column_type};
use crate::cluster::Cluster;

/// One way to run the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    pub driver: Driver,
    pub partitions: usize,
    /// Whatever can be spilled is spilled, however much memory there is.
    pub spills: bool,
}

/// What runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Threads,
    Synchronous,
    /// So many workers, as processes, of one thread each.
    Cluster {
        workers: usize,
    },
}

/// Every way in which the answers must be the same.
pub const CONFIGURATIONS: [Configuration; 10] = [
    Configuration { driver: Driver::Threads, partitions: 1, spills: false },
    Configuration { driver: Driver::Threads, partitions: 2, spills: false },
    Configuration { driver: Driver::Threads, partitions: 7, spills: false },
    Configuration { driver: Driver::Synchronous, partitions: 1, spills: false },
    Configuration { driver: Driver::Synchronous, partitions: 2, spills: false },
    Configuration { driver: Driver::Synchronous, partitions: 7, spills: false },
    Configuration { driver: Driver::Threads, partitions: 7, spills: true },
    Configuration { driver: Driver::Synchronous, partitions: 2, spills: true },
    Configuration { driver: Driver::Cluster { workers: 2 }, partitions: 4, spills: false },
    Configuration { driver: Driver::Cluster { workers: 2 }, partitions: 4, spills: true },
];

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spills = if self.spills { ", spilling" } else { "" };
        match self.driver {
            Driver::Threads => write!(f, "threads, {} partitions{spills}", self.partitions),
            Driver::Synchronous => write!(f, "synchronous, {} partitions{spills}", self.partitions),
            Driver::Cluster { workers } => write!(f, "cluster, {workers} workers{spills}"),
        }
    }
}

/// A session under test.
pub struct Database {
    // Before the session, whose queries they run.
    _cluster: Option<Cluster>,
    session: Arc<Session>,
    /// Every query that has rows must have spilled.
    spills: bool,
}

impl Database {
    /// An empty catalog, or the tables in `folder`.
    pub fn open(configuration: Configuration, folder: Option<&str>) -> Result<Database> {
        let mut options = SessionOptions::default();
        let Configuration { driver, partitions, spills } = configuration;
        // More threads than a small machine has cores, so that tasks meet in every order.
        options.threads = 4;
        if driver == Driver::Synchronous {
            options.scheduler = SchedulerKind::Synchronous;
        }
        options.partitions = Some(partitions);
        if spills {
            options.spill = SpillPolicy::Always;
        }
        let session = match folder {
            Some(folder) => Session::open(folder, options)?,
            None => Session::new(options)?,
        };
        let session = Arc::new(session);
        let cluster = match driver {
            Driver::Threads | Driver::Synchronous => None,
            Driver::Cluster { workers } => {
                Some(Cluster::start(&session, workers, if spills { &["--spill-always"] } else { &[] })?)
            }
        };
        // What workers spill is not counted here.
        let spills = spills && cluster.is_none();
        Ok(Database { _cluster: cluster, session, spills })
    }

    /// Between two statements no memory is reserved but that of temporary tables, and no file is there, however the
    /// last one ended. A panic,
    /// so that a statement that is expected to fail does not hide it.
    fn check_nothing_is_left(&self) {
        let memory = self.session.memory();
        let expected = (self.session.temporary_bytes(), 0);
        assert_eq!((memory.used_bytes, memory.spill_files), expected, "reserved bytes, spill files");
    }

    fn answer(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let before = self.session.memory().spilled_bytes;
        let result = self.session.execute(sql);
        self.check_nothing_is_left();
        let result = result?;
        let is_run = ["select", "with", "values"].iter().any(|word| starts_with(sql, word));
        if self.spills && is_run && result.rows() > 0 {
            assert!(self.session.memory().spilled_bytes > before, "nothing was spilled: {sql}");
        }
        if result.kind != StatementKind::Query {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = result.schema.fields().iter().map(|f| column_type(f.data_type())).collect();
        let mut rows = vec![];
        for batch in &result.batches {
            let columns = batch.columns().iter().map(|c| column_texts(c)).collect::<Result<Vec<_>>>()?;
            // A row is one text, as it stands in the file, so that a mismatch is shown as the file has it.
            let line = |row: usize| columns.iter().map(|c| c[row].as_str()).collect::<Vec<_>>().join("\t");
            rows.extend((0..batch.num_rows()).map(|row| vec![line(row)]));
        }
        Ok(DBOutput::Rows { types, rows })
    }
}

/// Whether a statement starts with a word, in any case.
fn starts_with(sql: &str, word: &str) -> bool {
    sql.trim_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

impl DB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        self.answer(sql).map_err(|e| Failure(format!("{e:#}")))
    }
}

/// An error of the engine, as text.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failure {}
