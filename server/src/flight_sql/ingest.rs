//! Bulk ingestion: a stream of batches into a table.
//!
//! What always holds: a batch is taken from the network when the one before it has been written; a stream that is
//! cut leaves nothing.

use arrow::array::RecordBatch;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use dovetail_engine::{Effect, IfExists, Ingest, IngestOptions};
use tonic::{Request, Status};

use super::metadata::{CATALOG, SCHEMA};
use super::put::PutRows;
use super::refusals::refuse_transaction;
use super::statements::{Statements, blocking};

impl Statements {
    /// Puts all rows of a stream into a table; how many there were.
    pub async fn ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<u64, Status> {
        let options = options(command)?;
        let session = if options.temporary {
            self.noted(self.caller.own_session(), "")?
        } else {
            self.may(Effect::Database, "")?;
            self.caller.session()?
        };
        let _running = self.noted(self.operations.start(&self.client.name, &session), "")?;
        let mut rows = PutRows::behind_command(request, session.reserve_for_rows()).await;
        let mut next = rows.next().await?;
        let Some(schema) = rows.schema().cloned() else {
            return Err(Status::invalid_argument("no rows were sent to ingest, and no schema"));
        };
        let user = self.client.name.clone();
        let mut ingest = blocking(move || session.ingest_for(&user, &options, &schema)).await?;
        while let Some(batch) = next {
            ingest = write(ingest, batch).await?;
            next = rows.next().await?;
        }
        blocking(move || ingest.commit()).await
    }
}

async fn write(mut ingest: Ingest, batch: RecordBatch) -> Result<Ingest, Status> {
    blocking(move || {
        ingest.write(&batch)?;
        Ok(ingest)
    })
    .await
}

fn options(command: CommandStatementIngest) -> Result<IngestOptions, Status> {
    refuse_transaction(&command.transaction_id)?;
    let elsewhere = |name: &Option<String>, known: &[&str]| {
        let name = name.as_deref().filter(|n| !n.is_empty())?;
        (!known.iter().any(|k| name.eq_ignore_ascii_case(k))).then(|| name.to_owned())
    };
    if let Some(catalog) = elsewhere(&command.catalog, &[CATALOG]) {
        return Err(Status::not_found(format!(
            "there is no catalog '{catalog}'; leave it out, or say {CATALOG}"
        )));
    }
    if let Some(schema) = elsewhere(&command.schema, &[SCHEMA, "public"]) {
        return Err(Status::not_found(format!(
            "there is no schema '{schema}'; leave it out, or say {SCHEMA}"
        )));
    }
    if let Some(option) = command.options.keys().min() {
        return Err(Status::invalid_argument(format!(
            "there is no option '{option}' of an ingest; leave it out"
        )));
    }
    let unclear = || {
        Status::invalid_argument("an ingest must say what to do if the table exists, and what if it does not")
    };
    let definition = command.table_definition_options.ok_or_else(unclear)?;
    let (create, if_exists) = (definition.if_not_exist(), definition.if_exists());
    Ok(IngestOptions {
        table: command.table,
        create: match create {
            TableNotExistOption::Create => true,
            TableNotExistOption::Fail => false,
            TableNotExistOption::Unspecified => return Err(unclear()),
        },
        if_exists: match if_exists {
            TableExistsOption::Fail => IfExists::Fail,
            TableExistsOption::Append => IfExists::Append,
            TableExistsOption::Replace => IfExists::Replace,
            TableExistsOption::Unspecified => return Err(unclear()),
        },
        temporary: command.temporary,
    })
}
