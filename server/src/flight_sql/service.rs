//! The commands of Flight SQL, each handed to whoever does it.
//!
//! Transactions and Substrait are refused, with a way out.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::*;
use arrow_flight::{
    Action, CancelStatus, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, PollInfo, SchemaAsIpc,
    Ticket,
};
use bytes::Bytes;
use dovetail_engine::Values;
use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::endpoints::{LeftResults, handle_of};
use super::message::{command_message, command_metadata, durable_metadata};
use super::metadata::{self, Listing};
use super::operations::{HANDLE_RANDOM_BYTES, Limits, Operations, unknown};
use super::parameters::Bound;
use super::polls::Polls;
use super::prepared::{PreparedRun, PreparedStatements};
use super::refusals::{malformed, no_substrait, no_transactions, refuse_transaction};
use super::rows::stream_of_batches;
use super::sessions::Caller;
use super::statements::{Promised, Statements};
use crate::cluster::DurableResults;
use crate::security::users::Identity;

/// Flight SQL over a session.
#[derive(Clone)]
pub struct Service {
    operations: Operations,
    polls: Polls,
    left: LeftResults,
    prepared: Arc<PreparedStatements>,
    limits: Limits,
}

/// In a request's extensions: it is for a poll.
#[derive(Clone, Copy)]
struct Polled;

type DoGet = Result<Response<<Service as FlightService>::DoGetStream>, Status>;
type Info = Result<Response<FlightInfo>, Status>;

impl Service {
    pub fn new(limits: Limits, durable: Option<Arc<DurableResults>>) -> Service {
        let prepared = Arc::new(PreparedStatements::new(limits));
        let polls = Polls::new(limits.unfetched_age);
        let left = LeftResults::new(limits.unfetched_age);
        Service { operations: Operations::new(limits, durable), polls, left, prepared, limits }
    }

    /// The statements of whoever makes a call.
    fn statements_of<T>(&self, request: &Request<T>) -> Result<Statements, Status> {
        let caller = caller_of(request)?;
        let (operations, polls) = (self.operations.clone(), self.polls.clone());
        Ok(Statements { client: caller.identity.clone(), caller, operations, polls, left: None })
    }

    /// Those of a client that asks where rows are, and not for the rows, nor how far they are.
    fn statements_to_promise<T>(&self, request: &Request<T>) -> Result<Statements, Status> {
        let is_polled = request.extensions().get::<Polled>().is_some();
        let left = (!is_polled).then(|| self.left.clone());
        Ok(Statements { left, ..self.statements_of(request)? })
    }

    /// Ends the session of whoever makes a call, with all that runs in it.
    pub fn end_session(&self, caller: &Caller) {
        if let Some(session) = caller.end() {
            self.operations.end(&session);
            session.drop_temporary();
        }
    }

    /// The schema of what a command asks for, as IPC. Nothing runs.
    pub async fn schema(&self, r: &Request<FlightDescriptor>) -> Result<Bytes, Status> {
        let statements = self.statements_of(r)?;
        let any = Any::decode(r.get_ref().cmd.as_ref()).map_err(|e| malformed(&e))?;
        let schema = match Command::try_from(any).map_err(|e| malformed(&e))? {
            Command::CommandStatementQuery(c) => statements.describe(c.query).await?.schema,
            Command::CommandPreparedStatementQuery(c) => {
                let run = self.prepared.run(own(&statements.client, &c.prepared_statement_handle)?)?;
                statements.describe(run.sql).await?.schema
            }
            other => match Listing::of(other) {
                Some(listing) => listing.schema()?,
                None => return Err(Status::invalid_argument("the command has no rows and so no schema")),
            },
        };
        ipc(&schema)
    }

    /// Runs a query while its client asks now and then how far it is. A command is carried out by the first poll;
    /// what has no rows to be computed is complete at once.
    pub async fn poll(&self, mut request: Request<FlightDescriptor>) -> Result<PollInfo, Status> {
        let statements = self.statements_of(&request)?;
        if let Some(handle) = statement_handle(&request.get_ref().cmd)? {
            return statements.polls.poll(own(&statements.client, &handle)?).await;
        }
        request.extensions_mut().insert(Polled);
        let info = self.get_flight_info(request).await?.into_inner();
        let ticket =
            info.endpoint.first().and_then(|e| e.ticket.as_ref()).map(|t| statement_handle(&t.ticket));
        match ticket.transpose()?.flatten() {
            Some(handle) if command_message(&info).is_none() => {
                statements.begin(&handle, info)?;
                statements.polls.poll(&handle).await
            }
            _ => Ok(PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }),
        }
    }

    /// Stops or forgets a result.
    pub fn cancel(&self, info: &FlightInfo, client: &Identity) -> Result<CancelStatus, Status> {
        let mut status = CancelStatus::NotCancellable;
        let left = info.endpoint.iter().filter_map(|e| handle_of(&e.ticket.as_ref()?.ticket)).next();
        if let Some(handle) = left {
            return match self.left.cancel(own(client, &handle)?) {
                true => Ok(CancelStatus::Cancelled),
                false => Err(unknown()),
            };
        }
        for endpoint in &info.endpoint {
            let handle = endpoint.ticket.as_ref().map(|t| statement_handle(&t.ticket)).transpose()?;
            if let Some(handle) = handle.flatten() {
                status = self.operations.cancel(own(client, &handle)?)?;
            }
        }
        Ok(status)
    }

    async fn promise_prepared(
        &self,
        c: &CommandPreparedStatementQuery,
        statements: &Statements,
    ) -> Result<Promised, Status> {
        let handle = own(&statements.client, &c.prepared_statement_handle)?;
        let PreparedRun { sql, is_query, bound } = self.prepared.run(handle)?;
        statements.promise_bound(sql, is_query, bound).await
    }

    fn promised(&self, promised: Promised, descriptor: FlightDescriptor) -> Info {
        let mut info = FlightInfo::new().with_descriptor(descriptor);
        info.schema = ipc(&promised.schema)?;
        if !promised.endpoints.is_empty() {
            info.endpoint = promised.endpoints;
            return Ok(Response::new(info));
        }
        let ticket = TicketStatementQuery { statement_handle: promised.handle };
        let endpoint = FlightEndpoint::new()
            .with_ticket(Ticket::new(ticket.as_any().encode_to_vec()))
            .with_expiration_time(expiry(self.limits.unfetched_age));
        info = info.with_endpoint(endpoint);
        if let Some(done) = promised.command {
            info = info.with_app_metadata(command_metadata(&done.message));
        } else if self.operations.outlive_the_process() {
            info = info.with_app_metadata(durable_metadata());
        }
        Ok(Response::new(info))
    }

    /// A listing is redeemed with its own command as the ticket.
    fn listing_info(
        &self,
        command: impl ProstMessageExt + Into<Listing> + Clone,
        r: Request<FlightDescriptor>,
    ) -> Info {
        let ticket = Ticket::new(command.as_any().encode_to_vec());
        let listing: Listing = command.into();
        let endpoint = FlightEndpoint::new().with_ticket(ticket);
        let mut info = FlightInfo::new().with_descriptor(r.into_inner()).with_endpoint(endpoint);
        info.schema = ipc(&*listing.schema()?)?;
        Ok(Response::new(info))
    }

    async fn listing<T>(&self, listing: impl Into<Listing>, r: &Request<T>) -> DoGet {
        // Other listings say the same in every session, and are there also when the client's has ended.
        let session = || caller_of(r)?.session();
        let batch = metadata::rows(session, listing.into()).await?;
        Ok(Response::new(stream_of_batches(batch.schema(), vec![batch])))
    }
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Service;

    async fn get_flight_info_statement(
        &self,
        c: CommandStatementQuery,
        r: Request<FlightDescriptor>,
    ) -> Info {
        refuse_transaction(&c.transaction_id)?;
        let promised = self.statements_to_promise(&r)?.promise(c.query, Values::default()).await?;
        self.promised(promised, r.into_inner())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        c: CommandPreparedStatementQuery,
        r: Request<FlightDescriptor>,
    ) -> Info {
        let promised = self.promise_prepared(&c, &self.statements_to_promise(&r)?).await?;
        self.promised(promised, r.into_inner())
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<FlightDescriptor>,
    ) -> Info {
        Err(no_substrait())
    }

    async fn get_flight_info_catalogs(&self, c: CommandGetCatalogs, r: Request<FlightDescriptor>) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_schemas(&self, c: CommandGetDbSchemas, r: Request<FlightDescriptor>) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_tables(&self, c: CommandGetTables, r: Request<FlightDescriptor>) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_table_types(
        &self,
        c: CommandGetTableTypes,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_sql_info(&self, c: CommandGetSqlInfo, r: Request<FlightDescriptor>) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_primary_keys(
        &self,
        c: CommandGetPrimaryKeys,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_exported_keys(
        &self,
        c: CommandGetExportedKeys,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_imported_keys(
        &self,
        c: CommandGetImportedKeys,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_cross_reference(
        &self,
        c: CommandGetCrossReference,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        c: CommandGetXdbcTypeInfo,
        r: Request<FlightDescriptor>,
    ) -> Info {
        self.listing_info(c, r)
    }

    async fn get_flight_info_fallback(&self, c: Command, _: Request<FlightDescriptor>) -> Info {
        Err(Status::invalid_argument(format!("{} is not a command with rows", c.type_url())))
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, r: Request<Ticket>) -> DoGet {
        let statements = self.statements_of(&r)?;
        let handle = own(&statements.client, &ticket.statement_handle)?;
        Ok(Response::new(statements.redeem(handle).await?))
    }

    /// Some clients fetch a prepared statement without asking for its FlightInfo before.
    async fn do_get_prepared_statement(&self, c: CommandPreparedStatementQuery, r: Request<Ticket>) -> DoGet {
        let statements = self.statements_of(&r)?;
        let promised = self.promise_prepared(&c, &statements).await?;
        Ok(Response::new(statements.redeem_once(&promised.handle).await?))
    }

    async fn do_get_catalogs(&self, c: CommandGetCatalogs, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_schemas(&self, c: CommandGetDbSchemas, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_tables(&self, c: CommandGetTables, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_table_types(&self, c: CommandGetTableTypes, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_sql_info(&self, c: CommandGetSqlInfo, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_primary_keys(&self, c: CommandGetPrimaryKeys, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_exported_keys(&self, c: CommandGetExportedKeys, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_imported_keys(&self, c: CommandGetImportedKeys, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_cross_reference(&self, c: CommandGetCrossReference, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_xdbc_type_info(&self, c: CommandGetXdbcTypeInfo, r: Request<Ticket>) -> DoGet {
        self.listing(c, &r).await
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, message: Any) -> DoGet {
        Err(Status::invalid_argument(format!("{} is not a ticket", message.type_url)))
    }

    async fn do_put_statement_update(
        &self,
        c: CommandStatementUpdate,
        r: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        refuse_transaction(&c.transaction_id)?;
        count(self.statements_of(&r)?.update(c.query).await?)
    }

    async fn do_put_prepared_statement_update(
        &self,
        c: CommandPreparedStatementUpdate,
        r: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let statements = self.statements_of(&r)?;
        // Whoever may not do this sends no rows.
        let handle = own(&statements.client, &c.prepared_statement_handle)?;
        let PreparedRun { sql, bound, .. } = self.prepared.run(handle)?;
        statements.client.may(statements.describe(sql.clone()).await?.effect)?;
        let sent = Bound::receive(r, &*statements.caller.session()?).await?;
        count(statements.update_bound(sql, sent.or(bound)).await?)
    }

    /// Clients bind what they have, and that may be nothing. The parameters are kept under the handle as it is.
    async fn do_put_prepared_statement_query(
        &self,
        c: CommandPreparedStatementQuery,
        r: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let caller = caller_of(&r)?;
        let handle = own(&caller.identity, &c.prepared_statement_handle)?;
        self.prepared.run(handle)?;
        let bound = Bound::receive(r, &*caller.session()?).await?;
        self.prepared.bind(handle, bound, &caller.identity.name)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(c.prepared_statement_handle) })
    }

    async fn do_put_statement_ingest(
        &self,
        c: CommandStatementIngest,
        r: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        count(self.statements_of(&r)?.ingest(c, r).await?)
    }

    async fn do_put_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_substrait())
    }

    async fn do_put_error_callback(
        &self,
        _: Request<PeekableFlightDataStream>,
        e: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::invalid_argument(format!("DoPut does not begin with a command: {e}")))
    }

    async fn do_action_create_prepared_statement(
        &self,
        c: ActionCreatePreparedStatementRequest,
        r: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        refuse_transaction(&c.transaction_id)?;
        let described =
            self.statements_of(&r)?.describe(c.query.clone()).await.map_err(|e| match e.code() {
                // It is the statement that is not supported. Drivers would take it that preparing is not, and go on.
                Code::Unimplemented => Status::invalid_argument(e.message()),
                _ => e,
            })?;
        // No bytes at all tell drivers that the statement is an update.
        let dataset_schema = if described.is_query { ipc(&described.schema)? } else { Bytes::new() };
        let parameter_schema = ipc(&described.parameters)?;
        let prepared_statement_handle = self.prepared.add(c.query, described.is_query, &caller(&r)?.name)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle,
            dataset_schema,
            parameter_schema,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        c: ActionClosePreparedStatementRequest,
        r: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(own(&caller(&r)?, &c.prepared_statement_handle)?);
        Ok(())
    }

    async fn do_action_cancel_query(
        &self,
        c: ActionCancelQueryRequest,
        r: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(c.info).map_err(|e| malformed(&e))?;
        // The numbers mean the same in both.
        Ok(ActionCancelQueryResult { result: self.cancel(&info, &caller(&r)?)? as i32 })
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(no_transactions())
    }

    async fn do_action_end_transaction(
        &self,
        _: ActionEndTransactionRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Err(no_transactions())
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

/// The handle of the result that a ticket stands for, if it is a statement's.
fn statement_handle(ticket: &Bytes) -> Result<Option<Bytes>, Status> {
    let any = Any::decode(ticket.as_ref()).map_err(|e| malformed(&e))?;
    match Command::try_from(any) {
        Ok(Command::TicketStatementQuery(ticket)) => Ok(Some(ticket.statement_handle)),
        _ => Ok(None),
    }
}

/// When something is forgotten that is kept for so long.
pub fn expiry(age: Duration) -> prost_types::Timestamp {
    let since_epoch = (SystemTime::now() + age).duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: since_epoch.subsec_nanos() as i32,
    }
}

/// Who makes a call.
pub fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().cloned().ok_or_else(nobody)
}

/// Who makes a call, and in which session.
pub fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(nobody)
}

fn nobody() -> Status {
    Status::internal("internal error: a call of nobody; please report it")
}

/// A handle of the client's own. Another's is as good as none.
fn own<'a>(client: &Identity, handle: &'a Bytes) -> Result<&'a Bytes, Status> {
    match client.owns(handle, HANDLE_RANDOM_BYTES) {
        true => Ok(handle),
        false => {
            tracing::warn!(user = &*client.name, "refused a handle that is another's, or none");
            Err(unknown())
        }
    }
}

fn count(rows: u64) -> Result<i64, Status> {
    i64::try_from(rows).map_err(|_| Status::internal("internal error: an impossible number of rows"))
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default())
        .try_into()
        .map_err(|e| Status::internal(format!("internal error: the schema cannot be sent: {e}")))?;
    Ok(message.0)
}
