//! A session's statements, told to its audit.

use std::sync::Arc;

use super::run::Planned;
use super::running::RunningGuard;
use super::{Cancellation, Session};
use crate::audit::{AuditSink, Audited, Entry, Reading, StatementClass, class_of, note_refusal};
use crate::catalog::Place;
use crate::error::{EngineError, Result};
use crate::task::QueryContext;

impl Session {
    /// Has every statement from now on be noted. Once only.
    pub fn attach_audit(&self, sink: Arc<dyn AuditSink>) {
        let before = self.audit.set(sink);
        assert!(before.is_ok(), "a session has one audit");
    }

    /// Notes a statement that is refused before it runs; `class` is a word for the reason.
    pub fn note_refusal(&self, user: &str, sql: &str, class: &str, message: &str) {
        if let Some(sink) = self.audit.get() {
            note_refusal(sink, user, sql, class, message);
        }
    }

    /// [`Session::note_refusal`] because of an error of the engine.
    pub fn refused(&self, user: &str, sql: &str, error: EngineError) -> EngineError {
        self.note_refusal(user, sql, class_of(&error), &error.to_string());
        error
    }

    /// A statement is about to begin. What its queries do is noted through the cancellation that they share.
    pub(super) fn audit(
        &self,
        kind: StatementClass,
        sql: &str,
        cancellation: &Cancellation,
    ) -> Result<Audited> {
        let entry = self.audit_entry(kind, sql, &cancellation.user())?;
        cancellation.note_in(entry.clone());
        Ok(Audited::new(entry))
    }

    /// The entry of a statement in the audit, if there is one.
    pub(super) fn audit_entry(
        &self,
        kind: StatementClass,
        sql: &str,
        user: &str,
    ) -> Result<Option<Arc<Entry>>> {
        let Some(sink) = self.audit.get() else { return Ok(None) };
        let settings = self.settings();
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Entry::begin(sink, user, kind, sql, settings.join("; ")).map(Some)
    }

    /// A query begins: until the guard is dropped it is seen and can be stopped; then what it has read is noted.
    pub(super) fn begin(
        &self,
        planned: &Planned,
        cancellation: &Cancellation,
    ) -> (Arc<QueryContext>, RunningGuard) {
        let context = Arc::new(self.context(planned.query.operator_count()));
        let (sql, user) = (cancellation.sql(), cancellation.user().into());
        let running = self.running.enter(sql, user, context.clone());
        cancellation.attach(&context);
        let reading = |entry| Reading::of(entry, &planned.query, context.clone());
        let running = running.with_reading(cancellation.entry().map(reading));
        (context, running)
    }

    /// A command has written rows to a table.
    pub(super) fn note_written(
        &self,
        table: &str,
        is_temporary: bool,
        rows: u64,
        cancellation: &Cancellation,
    ) {
        if let Some(entry) = cancellation.entry() {
            let in_memory =
                is_temporary || !matches!(self.catalog.place_of(table), Ok(Some(Place::Warehouse)));
            entry.writes(table, self.url_of(table, in_memory), rows);
        }
    }

    /// Where a table's rows are.
    pub(super) fn url_of(&self, table: &str, in_memory: bool) -> String {
        match self.catalog.warehouse() {
            Ok(warehouse) if !in_memory => warehouse.url_of(table),
            _ => format!("memory:{table}"),
        }
    }
}
