//! A session on another machine: the client's side of Flight SQL, for callers that block.
//!
//! ```text
//! RemoteSession::stream ─▶ GetFlightInfo ─▶ DoGet ─▶ ResultStream, as a local session gives it
//! ```
//!
//! What always holds: a call ends when [`RemoteCancel`] says so, and the server hears of it since the stream is
//! dropped; a server that dies is waited for as long as no row was taken ([`reconnect`]); errors are those that the server told, with the same words as a local session's.

mod address;
mod connect;
mod cookies;
mod reconnect;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::IpcMessage;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandGetTables;
use bytes::Bytes;
use dovetail_engine::{EngineError, Result, ResultStream, StatementKind, TableInfo};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use crate::flight_sql::{command_message, table_rows};
use crate::security::Security;
use connect::{Client, Connection};
use reconnect::{Fetched, Notice, fetch, the_ticket};

pub use address::ServerAddress;

/// A connection to a server, used like a session. May be used from several threads at once.
pub struct RemoteSession {
    connection: Arc<Connection>,
    /// Counts the times that somebody cancelled.
    cancel: Arc<watch::Sender<u64>>,
    notice: Notice,
}

/// Stops what runs over a connection at this moment. Cheap to clone.
#[derive(Clone)]
pub struct RemoteCancel(Arc<watch::Sender<u64>>);

impl RemoteSession {
    /// Connects.
    ///
    /// # Errors
    /// Nobody is there; the other side is not who it should be; the token cannot be sent.
    pub fn connect(address: &ServerAddress, security: &Security) -> crate::Result<RemoteSession> {
        let connection = Arc::new(Connection::open(address, security)?);
        Ok(RemoteSession { connection, cancel: Arc::new(watch::Sender::new(0)), notice: Arc::new(|_| {}) })
    }

    /// Has somebody told, in one line, when a call waits for a server that is gone.
    pub fn with_notice(self, notice: impl Fn(&str) + Send + Sync + 'static) -> RemoteSession {
        RemoteSession { notice: Arc::new(notice), ..self }
    }

    /// Runs exactly one statement. The server has computed the rows when this returns; they are fetched as they
    /// are read.
    pub fn stream(&self, statement: &str) -> Result<ResultStream> {
        let statement = statement.to_owned();
        let (url, notice) = (self.connection.url().to_owned(), self.notice.clone());
        let (info, rows) = self.wait(|mut client| async move {
            let info = client.execute(statement, None).await?;
            match command_message(&info) {
                Some(_) => Ok((info, None)),
                None => {
                    let rows = fetch(&mut client, &info, &url, &notice).await?;
                    Ok((info, Some(rows)))
                }
            }
        })?;
        let kind = match command_message(&info) {
            Some(message) => StatementKind::Command { message },
            None => StatementKind::Query,
        };
        let schema: SchemaRef = Arc::new(info.try_decode_schema()?);
        let Some(rows) = rows else {
            return Ok(ResultStream::new(schema, kind, std::iter::empty()));
        };
        let Fetched { first, rest } = rows;
        let rows = Rows {
            first,
            connection: self.connection.clone(),
            cancelled: self.cancel.subscribe(),
            _cancel: self.cancel.clone(),
            rows: Some(rest),
        };
        Ok(ResultStream::new(schema, kind, rows))
    }

    /// Tables and views, by name.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let batches = self.wait(|mut client| async move {
            let command = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
            let info = client.get_tables(command).await?;
            client.do_get(the_ticket(&info)?).await?.try_collect::<Vec<RecordBatch>>().await
        })?;
        let mut tables = vec![];
        for batch in &batches {
            tables_of(batch, &mut tables)?;
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// Stops what runs over this connection, now or later, when it is told to.
    pub fn cancel_handle(&self) -> RemoteCancel {
        RemoteCancel(self.cancel.clone())
    }

    /// Waits for a call's answer, or until somebody cancels.
    fn wait<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, FlightError>>,
    {
        let mut cancelled = self.cancel.subscribe();
        let call = call(self.connection.client());
        self.connection.runtime().block_on(async {
            tokio::select! {
                biased;
                _ = cancelled.changed() => Err(EngineError::Cancelled),
                outcome = call => outcome.map_err(|e| self.connection.error(e)),
            }
        })
    }
}

impl RemoteCancel {
    /// Stops every call that waits at this moment.
    pub fn cancel(&self) {
        self.0.send_modify(|times| *times += 1);
    }
}

/// Rows as they arrive.
struct Rows {
    connection: Arc<Connection>,
    cancelled: watch::Receiver<u64>,
    /// Without a sender there is nothing to receive, which would look like a cancellation.
    _cancel: Arc<watch::Sender<u64>>,
    /// What came while there was still a way back.
    first: Option<RecordBatch>,
    /// None after the end or an error.
    rows: Option<FlightRecordBatchStream>,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let rows = self.rows.as_mut()?;
        let cancelled = &mut self.cancelled;
        let next = self.connection.runtime().block_on(async {
            tokio::select! {
                biased;
                _ = cancelled.changed() => Some(Err(EngineError::Cancelled)),
                batch = rows.next() => batch.map(|b| b.map_err(|e| self.connection.error(e))),
            }
        });
        if !matches!(next, Some(Ok(_))) {
            self.rows = None;
        }
        next
    }
}

fn tables_of(batch: &RecordBatch, tables: &mut Vec<TableInfo>) -> Result<()> {
    let malformed = || EngineError::execution("the server's list of tables is not what Flight SQL says");
    let text =
        |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(malformed);
    let (names, types) = (text("table_name")?, text("table_type")?);
    let schemas =
        batch.column_by_name("table_schema").and_then(|c| c.as_binary_opt::<i32>()).ok_or_else(malformed)?;
    for row in 0..batch.num_rows() {
        let schema = match schemas.is_null(row) {
            true => Schema::empty(),
            false => Schema::try_from(IpcMessage(Bytes::copy_from_slice(schemas.value(row))))?,
        };
        let is_view = types.value(row).eq_ignore_ascii_case("view");
        let is_temporary = types.value(row).eq_ignore_ascii_case("local temporary");
        let (name, rows) = (names.value(row).to_owned(), table_rows(&schema));
        tables.push(TableInfo { name, schema: Arc::new(schema), rows, is_view, is_temporary });
    }
    Ok(())
}
