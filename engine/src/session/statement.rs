//! A statement between its planning and its run, and the way to stop it alone.
//!
//! A server tells a client the schema of a result before it runs the query: [`Session::prepare`] and
//! [`Session::run_statement`] are the two halves of [`Session::stream`].
//!
//! What always holds: a prepared statement sees the catalog as it was when it was prepared, and runs once; a
//! [`Cancellation`] stops the statement that was started with it and no other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arrow::datatypes::{Schema, SchemaRef};
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::sql::{self, Bound, ParsedStatement};
use parking_lot::Mutex;

use super::parameters::Values;
use super::run::Planned;
use super::{ResultStream, Session, StatementKind, command, system, write};
use crate::audit::{Entry, StatementClass};
use crate::error::{EngineError, Result};
use crate::task::QueryContext;

/// A statement that is ready to run, once.
pub struct Statement {
    /// Of its rows; without columns if it is a command.
    pub schema: SchemaRef,
    /// Whether it has rows, rather than changing something.
    pub is_query: bool,
    /// What it changes.
    pub effect: Effect,
    /// Whether it reads what others have asked.
    pub reads_audit: bool,
    pub(super) text: Arc<str>,
    pub(super) work: Work,
    handle: Option<Vec<u8>>,
    snapshot: CatalogSnapshot,
}

/// Whom a statement concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing.
    Nothing,
    /// It changes what is the session's own: a setting, or temporary tables and views.
    Session,
    /// It changes what others see.
    Database,
}

pub(super) enum Work {
    Query(Box<Planned>),
    Other(Box<Bound>),
}

/// Stops one statement, or keeps it from starting. Cheap to clone, may be used from any thread.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Mutex<Attached>>);

#[derive(Default)]
struct Attached {
    cancelled: bool,
    queries: Vec<Weak<QueryContext>>,
    /// The statement that was started with it.
    sql: Option<Arc<str>>,
    user: String,
    /// Where what the statement does is noted.
    entry: Option<Arc<Entry>>,
}

impl Session {
    /// Parses, binds and plans exactly one statement, which has no parameters. Nothing runs yet.
    pub fn prepare(&self, statement: &str) -> Result<Statement> {
        self.prepare_with(statement, &Values::default())
    }

    /// [`Session::prepare`], with a value for each of the statement's parameters.
    pub fn prepare_with(&self, statement: &str, values: &Values) -> Result<Statement> {
        let one = one_statement(statement)?;
        let snapshot = self.snapshot_for(&one)?;
        let text: Arc<str> = one.text.as_str().into();
        let reads_audit = system::reads_audit(&snapshot);
        match sql::bind_values(&one, &snapshot, &values.0)? {
            Bound::Query(plan) => {
                let planned = self.plan(plan, &snapshot)?;
                let schema = planned.lowered.schema.clone();
                let work = Work::Query(Box::new(planned));
                let effect = Effect::Nothing;
                Ok(Statement {
                    schema,
                    is_query: true,
                    effect,
                    reads_audit,
                    text,
                    work,
                    handle: None,
                    snapshot,
                })
            }
            other => {
                let (schema, is_query) = rows_schema(&other);
                let effect = write::effect(&other, &snapshot);
                let work = Work::Other(Box::new(other));
                Ok(Statement { schema, is_query, effect, reads_audit, text, work, handle: None, snapshot })
            }
        }
    }

    /// Runs a prepared statement. Its rows may be many more than fit in memory: those of a large result come while
    /// it runs.
    pub fn run_statement(&self, statement: Statement, cancellation: &Cancellation) -> Result<ResultStream> {
        cancellation.check()?;
        let class = if statement.is_query { StatementClass::Query } else { StatementClass::Command };
        let mut audited = self.audit(class, &statement.text, cancellation)?;
        cancellation.note_statement(statement.text);
        let begun = match statement.work {
            Work::Query(planned) => {
                let (schema, kind) = (planned.lowered.schema.clone(), StatementKind::Query);
                let rows = self.rows(&planned, statement.handle, cancellation);
                rows.map(|batches| self.bounded(ResultStream { schema, kind, batches }))
            }
            Work::Other(bound) => command::execute(self, *bound, &statement.snapshot, cancellation),
        };
        match begun {
            Ok(ResultStream { schema, kind: StatementKind::Query, batches }) => {
                Ok(ResultStream { schema, kind: StatementKind::Query, batches: audited.rows(batches) })
            }
            ended => audited.end(ended),
        }
    }
}

impl Statement {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names the result, so that a cluster that outlives this process can be asked for it. The name is as good as a
    /// secret: nobody must be able to guess it.
    pub fn with_handle(self, handle: Vec<u8>) -> Statement {
        Statement { handle: Some(handle), ..self }
    }
}

/// Parses what must be exactly one statement.
pub(super) fn one_statement(text: &str) -> Result<ParsedStatement> {
    let mut parsed = sql::parse(text)?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(EngineError::execution(
            "expected exactly one statement; split a script with Session::statements",
        )),
    }
}

/// The schema of a statement other than a query, and whether it has rows.
pub(super) fn rows_schema(bound: &Bound) -> (SchemaRef, bool) {
    match command::schema(bound) {
        Some(schema) => (schema, true),
        None => (Arc::new(Schema::empty()), false),
    }
}

impl Cancellation {
    /// Stops the statement, now or as soon as it starts.
    pub fn cancel(&self) {
        let mut attached = self.0.lock();
        attached.cancelled = true;
        for query in attached.queries.drain(..) {
            if let Some(query) = query.upgrade() {
                query.cancel();
            }
        }
    }

    /// Whether somebody has asked the statement to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.lock().cancelled
    }

    /// Tasks of its queries that have ended, and all that are known.
    pub fn tasks(&self) -> (u64, u64) {
        let attached = self.0.lock();
        let queries = attached.queries.iter().filter_map(Weak::upgrade);
        queries.fold((0, 0), |(done, tasks), query| {
            let of_query = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (done + of_query(&query.tasks_done), tasks + of_query(&query.tasks))
        })
    }

    /// For whom the statement runs, by name.
    pub fn for_user(&self, name: &str) {
        name.clone_into(&mut self.0.lock().user);
    }

    pub(super) fn user(&self) -> String {
        self.0.lock().user.clone()
    }

    pub(super) fn note_statement(&self, sql: Arc<str>) {
        self.0.lock().sql = Some(sql);
    }

    pub(super) fn note_in(&self, entry: Option<Arc<Entry>>) {
        self.0.lock().entry = entry;
    }

    pub(super) fn entry(&self) -> Option<Arc<Entry>> {
        self.0.lock().entry.clone()
    }

    /// The statement, or nothing.
    pub(super) fn sql(&self) -> Arc<str> {
        self.0.lock().sql.clone().unwrap_or_default()
    }

    /// A query runs for the statement.
    pub(super) fn attach(&self, query: &Arc<QueryContext>) {
        let mut attached = self.0.lock();
        match attached.cancelled {
            true => query.cancel(),
            false => attached.queries.push(Arc::downgrade(query)),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionOptions;

    fn session() -> Session {
        Session::new(SessionOptions::default()).unwrap()
    }

    #[test]
    fn the_schema_is_known_before_the_run() {
        let session = session();
        for sql in [
            "SELECT 1 AS a, 'x' AS b",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "DESCRIBE SELECT 1",
            "SHOW threads",
        ] {
            let statement = session.prepare(sql).unwrap();
            assert!(statement.is_query, "{sql}");
            let told = statement.schema.clone();
            let result = session.run_statement(statement, &Cancellation::default()).unwrap();
            assert_eq!((told, StatementKind::Query), (result.schema.clone(), result.kind.clone()), "{sql}");
        }
    }

    #[test]
    fn preparing_a_command_does_not_run_it() {
        let session = session();
        let statement = session.prepare("CREATE TABLE t AS SELECT 1 AS a").unwrap();
        assert!(!statement.is_query && statement.schema.fields().is_empty());
        assert!(session.tables().unwrap().is_empty());
        session.run_statement(statement, &Cancellation::default()).unwrap();
        assert_eq!(session.tables().unwrap().len(), 1);
    }

    #[test]
    fn a_cancellation_hits_its_own_statement_only() {
        let session = session();
        let (mine, other) = (Cancellation::default(), Cancellation::default());
        let first = session.prepare("SELECT 1").unwrap();
        let second = session.prepare("SELECT 2").unwrap();
        let mut running = session.run_statement(first, &mine).unwrap();
        let mut beside = session.run_statement(second, &other).unwrap();
        mine.cancel();
        assert!(matches!(running.next(), Some(Err(EngineError::Cancelled))));
        assert!(matches!(beside.next(), Some(Ok(_))));
        let late = session.prepare("SELECT 3").unwrap();
        assert!(matches!(session.run_statement(late, &mine), Err(EngineError::Cancelled)));
    }
}
