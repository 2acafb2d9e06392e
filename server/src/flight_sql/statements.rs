//! Statements from the network, run by the session on threads that may block.
//!
//! ```text
//! GetFlightInfo ─▶ promise ─┬─ query:   planned, promised
//!                           ├─ query whose rows are to stay at workers (endpoints): run at once, where they are is told
//!                           └─ command: run at once, its message told, an empty result promised
//! DoGet ─────────▶ redeem ──── query:   run, its rows are streamed
//! ```

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightEndpoint;
use bytes::Bytes;
use dovetail_engine::{
    Cancellation, Description, Effect, ResultStream, Session, Statement, StatementKind, Values,
};
use tonic::Status;

use super::endpoints::LeftResults;
use super::operations::{Operations, Promise, Running};
use super::polls::Polls;
use super::rows::{stream_of, stream_of_batches};
use super::sessions::Caller;
use super::status::{lost, status};
use super::wire::wire_schema;
use super::{FlightStream, SQL_BYTES_MAX};
use crate::security::users::{Identity, Role};

/// What the audit calls it if somebody may not do something.
const DENIED: &str = "denied";
/// And if there is no session or no room for it, for this user or for all together.
const REFUSED: &str = "refused";

/// Runs statements of a client.
#[derive(Clone)]
pub struct Statements {
    pub operations: Operations,
    pub polls: Polls,
    pub client: Identity,
    /// The client's session.
    pub caller: Caller,
    /// Where results are noted that stay at workers; none if the call is for the rows themselves.
    pub left: Option<LeftResults>,
}

/// What a client is told of a statement before it fetches the rows.
pub struct Promised {
    pub handle: Bytes,
    pub schema: SchemaRef,
    /// What it did and how many rows it changed, if it was a command.
    pub command: Option<Done>,
    /// Where the rows are, if not here.
    pub endpoints: Vec<FlightEndpoint>,
}

/// What a command did.
pub struct Done {
    pub message: String,
    pub rows: u64,
}

impl Statements {
    /// What a statement takes and gives, in types of the wire. Nothing runs.
    pub async fn describe(&self, sql: String) -> Result<Description, Status> {
        check_length(&sql)?;
        let (session, user) = (self.caller.session()?, self.client.name.clone());
        let described =
            blocking(move || session.describe(&sql).map_err(|e| session.refused(&user, &sql, e))).await?;
        let (schema, parameters) = (wire_schema(&described.schema), wire_schema(&described.parameters));
        Ok(Description { schema, parameters, ..described })
    }

    /// Plans a query, or carries out a command.
    pub async fn promise(&self, sql: String, values: Values) -> Result<Promised, Status> {
        let (statement, session) = self.prepare(sql, values).await?;
        if statement.is_query {
            if let Some(left) = &self.left
                && session.leaves_rows(&statement)
            {
                return self.leave(left, statement, session).await;
            }
            let schema = wire_schema(&statement.schema);
            let sql = statement.text().to_owned();
            let promise = Promise::Query(Box::new(statement), session);
            let handle = self.keep(promise, &sql)?;
            return Ok(Promised { handle, schema, command: None, endpoints: vec![] });
        }
        self.may(statement.effect, statement.text())?;
        // Before the command, so that it is not carried out and then refused.
        let handle = self.keep(Promise::Done, statement.text())?;
        match self.carry_out(statement, session).await {
            Ok(done) => {
                let (schema, command) = (Arc::new(Schema::empty()), Some(done));
                Ok(Promised { handle, schema, command, endpoints: vec![] })
            }
            Err(e) => {
                // The promise may have become old in the meantime.
                let _ = self.operations.cancel(&handle);
                Err(e)
            }
        }
    }

    /// Carries out a command; the number of rows that it changed.
    pub async fn update(&self, sql: String) -> Result<u64, Status> {
        let (statement, session) = self.prepare(sql, Values::default()).await?;
        if statement.is_query {
            return Err(Status::invalid_argument(
                "this statement has rows and changes nothing: run it as a query, not as an update",
            ));
        }
        Ok(self.carry_out(statement, session).await?.rows)
    }

    /// Runs what was promised, and gives its rows.
    pub async fn redeem(&self, handle: &Bytes) -> Result<FlightStream, Status> {
        self.fetch(handle, true).await
    }

    /// [`Self::redeem`] for a client that has no ticket to show again.
    pub async fn redeem_once(&self, handle: &Bytes) -> Result<FlightStream, Status> {
        self.fetch(handle, false).await
    }

    async fn fetch(&self, handle: &Bytes, may_come_back: bool) -> Result<FlightStream, Status> {
        if let Some((result, running)) = self.take_polled(handle).await {
            let result = result?;
            let schema = wire_schema(&result.schema);
            return Ok(stream_of(result, schema, running));
        }
        let (promise, running) = self.redeem_promise(handle)?;
        match promise {
            Promise::Done => Ok(stream_of_batches(Arc::new(Schema::empty()), vec![])),
            Promise::Query(statement, session) if may_come_back => {
                self.rows(statement.with_handle(handle.to_vec()), session, running).await
            }
            Promise::Query(statement, session) => self.rows(*statement, session, running).await,
            Promise::Recovered(recovered) => {
                let (schema, cancellation) = (wire_schema(&recovered.schema), running.cancellation.clone());
                let result = blocking(move || recovered.wait(&cancellation)).await?;
                Ok(stream_of(result, schema, running))
            }
        }
    }

    async fn rows(
        &self,
        statement: Statement,
        session: Arc<Session>,
        running: Running,
    ) -> Result<FlightStream, Status> {
        let schema = wire_schema(&statement.schema);
        let result = self.run(statement, session, &running.cancellation).await?;
        Ok(stream_of(result, schema, running))
    }

    async fn carry_out(&self, statement: Statement, session: Arc<Session>) -> Result<Done, Status> {
        self.may(statement.effect, statement.text())?;
        let running = self.noted(self.operations.start(&self.client.name, &session), statement.text())?;
        let result = self.run(statement, session, &running.cancellation).await?;
        let StatementKind::Command { message } = result.kind.clone() else {
            return Err(Status::internal("internal error: a command had rows; please report it"));
        };
        Ok(Done { message, rows: changed(result) })
    }

    /// A planned statement, and the session to run it in: the client's own if it changes what is the session's.
    async fn prepare(&self, sql: String, values: Values) -> Result<(Statement, Arc<Session>), Status> {
        check_length(&sql)?;
        let session = self.caller.session()?;
        let statement = self.plan(&session, sql.clone(), values.clone()).await?;
        self.may_see(statement.reads_audit, statement.text())?;
        if statement.effect != Effect::Session {
            return Ok((statement, session));
        }
        let own = self.noted(self.caller.own_session(), statement.text())?;
        if Arc::ptr_eq(&own, &session) {
            return Ok((statement, session));
        }
        Ok((self.plan(&own, sql, values).await?, own))
    }

    async fn plan(&self, session: &Arc<Session>, sql: String, values: Values) -> Result<Statement, Status> {
        let (session, user) = (session.clone(), self.client.name.clone());
        blocking(move || session.prepare_with(&sql, &values).map_err(|e| session.refused(&user, &sql, e)))
            .await
    }

    /// Keeps a statement's result for the client.
    pub fn keep(&self, promise: Promise, sql: &str) -> Result<Bytes, Status> {
        let handle = self.noted(self.operations.promise(promise, &self.client.name), sql)?;
        self.operations.watch();
        Ok(handle)
    }

    /// What a handle stands for, to be run.
    pub fn redeem_promise(&self, handle: &Bytes) -> Result<(Promise, Running), Status> {
        self.operations.redeem(handle, &self.client.name).inspect_err(|refused| {
            // It is still there if there are too many statements.
            if let Some(sql) = self.operations.promised_sql(handle) {
                self.note_refusal(&sql, REFUSED, refused);
            }
        })
    }

    /// What is given to the client for a statement; the audit has it if it is refused.
    pub fn noted<T>(&self, outcome: Result<T, Status>, sql: &str) -> Result<T, Status> {
        outcome.inspect_err(|refused| self.note_refusal(sql, REFUSED, refused))
    }

    /// Refuses what changes more than the client may.
    pub fn may(&self, effect: Effect, sql: &str) -> Result<(), Status> {
        self.client.may(effect).inspect_err(|refused| self.note_refusal(sql, DENIED, refused))
    }

    /// Refuses to show what others have asked to whom may only read.
    pub fn may_see(&self, reads_audit: bool, sql: &str) -> Result<(), Status> {
        match self.client.role {
            Role::ReadOnly if reads_audit => {
                tracing::warn!(user = &*self.client.name, "refused the audit to a user who may only read");
                let refused = Status::permission_denied(
                    "system.audit shows what others have asked: only a user of the role read-write may read it",
                );
                self.note_refusal(sql, DENIED, &refused);
                Err(refused)
            }
            Role::ReadOnly | Role::ReadWrite => Ok(()),
        }
    }

    fn note_refusal(&self, sql: &str, class: &str, refused: &Status) {
        if let Ok(session) = self.caller.session() {
            session.note_refusal(&self.client.name, sql, class, refused.message());
        }
    }

    /// Runs a statement for the client, in its session or a passing one.
    pub async fn run(
        &self,
        statement: Statement,
        session: Arc<Session>,
        cancellation: &Cancellation,
    ) -> Result<ResultStream, Status> {
        let cancellation = cancellation.clone();
        cancellation.for_user(&self.client.name);
        blocking(move || session.run_statement(statement, &cancellation)).await
    }
}

fn check_length(sql: &str) -> Result<(), Status> {
    match sql.len() > SQL_BYTES_MAX {
        true => Err(Status::invalid_argument(format!(
            "the statement is longer than {} MiB; bind its values as parameters, or ingest them as a table",
            SQL_BYTES_MAX >> 20
        ))),
        false => Ok(()),
    }
}

/// Calls the engine where a thread may block.
pub async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> dovetail_engine::Result<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(status(&e)),
        Err(e) => Err(lost(&e)),
    }
}

/// A command that changes rows tells how many in its one row.
fn changed(mut result: ResultStream) -> u64 {
    let Some(Ok(batch)) = result.next() else {
        return 0;
    };
    let counts = batch.columns().first().and_then(|c| c.as_any().downcast_ref::<arrow::array::UInt64Array>());
    counts.map_or(0, |c| c.iter().flatten().sum())
}
