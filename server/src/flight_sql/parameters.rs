//! Parameters of prepared statements: received, and handed to the runs.
//!
//! ```text
//! DoPut ─ batches ─▶ Bound ─┬─ query:   exactly one row ─▶ its values
//!                           └─ command: once for each row
//! ```
//!
//! What always holds: no more is kept of a client's parameters than [`PARAMETER_BYTES_MAX`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::sql::server::PeekableFlightDataStream;
use dovetail_engine::catalog::value_bytes;
use dovetail_engine::memory::Charge;
use dovetail_engine::{Description, Effect, Result as EngineResult, Session, ValueRows, Values};
use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use tonic::{Request, Status};

use super::operations::Promise;
use super::put::PutRows;
use super::statements::{Done, Promised, Statements, blocking};
use super::status::status;

/// Of the rows that one statement is bound to.
const PARAMETER_BYTES_MAX: usize = 64 << 20;

/// The rows that a prepared statement is bound to. Cheap to clone.
#[derive(Clone)]
pub struct Bound {
    batches: Arc<Vec<RecordBatch>>,
    /// What they hold, or their values take, if that is more.
    pub bytes: usize,
    /// Counts them, so that many clients together keep to the memory limit.
    _memory: Arc<Charge>,
}

impl Bound {
    /// What a client sends behind its command; none if that is the command alone, or a schema without columns.
    pub async fn receive(
        request: Request<PeekableFlightDataStream>,
        session: &Session,
    ) -> Result<Option<Bound>, Status> {
        let mut rows = PutRows::behind_command(request, session.reserve_for_rows()).await;
        let mut memory = session.reserve_for_rows();
        // Few rows may hold a long message, whose bytes they are in.
        let (mut batches, mut values, mut held, mut bytes) = (vec![], 0, HeldMemory::default(), 0);
        while let Some(batch) = rows.next().await? {
            values += value_bytes(&batch);
            held.add(&Rows::new(batch.columns().to_vec(), batch.num_rows()));
            bytes = values.max(held.bytes());
            if bytes > PARAMETER_BYTES_MAX {
                return Err(Status::resource_exhausted(format!(
                    "the parameters take more than {} MiB: bind them in smaller parts, or ingest them as a table",
                    PARAMETER_BYTES_MAX >> 20
                )));
            }
            memory.resize_firm(bytes).map_err(|e| status(&e))?;
            batches.push(batch);
        }
        let columns = rows.schema().map_or(0, |s| s.fields().len());
        let charge = Arc::new(Charge::of(memory.governor(), bytes));
        Ok((columns > 0).then(|| Bound { batches: Arc::new(batches), bytes, _memory: charge }))
    }

    /// A row of values for each run.
    fn values(&self) -> impl Iterator<Item = EngineResult<Values>> {
        self.batches.iter().flat_map(|batch| {
            let (rows, error) = match ValueRows::of(batch) {
                Ok(rows) => (Some(rows), None),
                Err(e) => (None, Some(Err(e))),
            };
            rows.into_iter().flatten().chain(error)
        })
    }

    /// The one row of values with which a query runs.
    fn of_query(&self) -> Result<Values, Status> {
        match self.batches.iter().map(RecordBatch::num_rows).sum() {
            1 => self.values().next().transpose().map_err(|e| status(&e)).map(Option::unwrap_or_default),
            rows => Err(Status::invalid_argument(format!(
                "a query takes one row of parameters, and {rows} are bound: run it once for each row, or ingest \
                 the rows as a table and join it"
            ))),
        }
    }
}

impl Statements {
    /// Plans a query with what it is bound to, or carries out a command, once for each row that it is bound to.
    pub async fn promise_bound(
        &self,
        sql: String,
        is_query: bool,
        bound: Option<Bound>,
    ) -> Result<Promised, Status> {
        match bound {
            None => self.promise(sql, Values::default()).await,
            Some(bound) if is_query => self.promise(sql, bound.of_query()?).await,
            Some(bound) => {
                // Before the command, so that it is not carried out and then refused.
                let handle = self.keep(Promise::Done, &sql)?;
                match self.update_bound(sql, Some(bound)).await {
                    Ok(rows) => {
                        let message = format!("changed {rows} rows");
                        let command = Some(Done { message, rows });
                        let schema = Arc::new(Schema::empty());
                        Ok(Promised { handle, schema, command, endpoints: vec![] })
                    }
                    Err(e) => {
                        // The promise may have become old in the meantime.
                        let _ = self.operations.cancel(&handle);
                        Err(e)
                    }
                }
            }
        }
    }

    /// Carries out a command once for each row that it is bound to; the number of rows that it changed in all.
    pub async fn update_bound(&self, sql: String, bound: Option<Bound>) -> Result<u64, Status> {
        let Some(bound) = bound else {
            return self.update(sql).await;
        };
        let Description { effect, reads_audit, .. } = self.describe(sql.clone()).await?;
        self.may(effect, &sql)?;
        self.may_see(reads_audit, &sql)?;
        let session = match effect {
            Effect::Session => self.noted(self.caller.own_session(), &sql)?,
            Effect::Nothing | Effect::Database => self.caller.session()?,
        };
        let running = self.noted(self.operations.start(&self.client.name, &session), &sql)?;
        let cancellation = running.cancellation.clone();
        cancellation.for_user(&self.client.name);
        blocking(move || session.run_each(&sql, bound.values(), &cancellation)).await
    }
}
