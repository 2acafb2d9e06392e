//! Answers a fetch: reads the outputs that are here and sends them block by block.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use dovetail_engine::EngineError;
use dovetail_engine::catalog::MemoryTables;
use dovetail_engine::exchange::RowsReader;
use dovetail_engine::scheduler::events::{Attempt, OutputId};
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_shuffle::Rows;
use dovetail_shuffle::block::BlockEncoder;
use futures::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status, Streaming};

use super::{BLOCK_BYTES, BLOCKS_AHEAD, SMALL_BYTES, direct};
use crate::control::{BlockHeader, Fetch};
use crate::flight_sql::{FlightStream, TicketHandler};
use crate::host::Host;
use crate::security::ServerAuth;

/// What a process has for others.
#[derive(Clone)]
pub struct DataServer {
    /// The outputs of its tasks; only workers have some.
    pub host: Option<Arc<Host>>,
    /// Tables in memory; only the scheduler has some.
    pub tables: Option<Arc<dyn MemoryTables>>,
}

pub(super) type Blocks = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;
type Sender = mpsc::Sender<Result<FlightData, Status>>;

impl DataServer {
    /// The rows that a ticket asks for. `is_near` says that the link is faster than compression.
    pub fn get(&self, ticket: &[u8], is_near: bool) -> Result<Blocks, Status> {
        let fetch = Fetch::decode(ticket)
            .map_err(|_| Status::invalid_argument("the ticket is not one that this server has given"))?;
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        let server = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut encoder = if is_near { BlockEncoder::plain() } else { BlockEncoder::default() };
            if let Err(status) = server.send_all(&fetch, &mut encoder, &sender) {
                // The receiver may be gone, which is why it ended then.
                let _ = sender.blocking_send(Err(status));
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    fn send_all(&self, fetch: &Fetch, encoder: &mut BlockEncoder, sender: &Sender) -> Result<(), Status> {
        if let Some(table) = &fetch.table {
            let tables = self.tables.as_ref().ok_or_else(|| Status::not_found("no tables are here"))?;
            let data = tables.memory(table.id, table.version).map_err(|e| status(&e))?;
            let batches = data.batches.iter().map(|batch| {
                let columns =
                    batch.columns.iter().map(|c| c.values()).collect::<dovetail_engine::Result<_>>()?;
                Ok(Rows::new(columns, batch.rows))
            });
            let rows: Vec<_> = batches.collect();
            return send(0, Box::new(rows.into_iter()), encoder, sender);
        }
        let host = self.host.as_ref().ok_or_else(|| Status::not_found("no outputs are here"))?;
        let partitions = fetch.partitions.map(|p| p.start as usize..p.end as usize);
        for (number, wanted) in fetch.outputs.iter().enumerate() {
            let task = TaskId { stage: StageId(fetch.stage), partition: wanted.partition };
            let output = OutputId { task, attempt: Attempt(wanted.attempt) };
            let rows = host.read(fetch.query, output, partitions.clone()).map_err(|e| status(&e))?;
            send(number as u32, rows, encoder, sender)?;
        }
        Ok(())
    }
}

/// Sends the rows of one output, and then how many they were.
fn send(output: u32, rows: RowsReader, encoder: &mut BlockEncoder, sender: &Sender) -> Result<(), Status> {
    let mut sent = 0;
    let mut small: Vec<Rows> = vec![];
    let mut small_bytes = 0;
    for rows in rows {
        let rows = rows.map_err(|e| status(&e))?;
        sent += rows.rows as u64;
        let bytes = rows.encoded_bytes();
        if small_bytes + bytes > BLOCK_BYTES || small.first().is_some_and(|s| !s.same_types(&rows)) {
            send_joined(output, std::mem::take(&mut small), encoder, sender)?;
            small_bytes = 0;
        }
        small_bytes += bytes;
        small.push(rows);
        if small_bytes >= SMALL_BYTES {
            send_joined(output, std::mem::take(&mut small), encoder, sender)?;
            small_bytes = 0;
        }
    }
    send_joined(output, small, encoder, sender)?;
    put(sender, BlockHeader { output, end_rows: Some(sent) }, Bytes::new())
}

/// Batches of the same types as one block, if that can be.
fn send_joined(
    output: u32,
    batches: Vec<Rows>,
    encoder: &mut BlockEncoder,
    sender: &Sender,
) -> Result<(), Status> {
    let blocks = match Rows::joined(&batches) {
        Some(one) => vec![one],
        None => batches,
    };
    for rows in blocks {
        let pieces = rows.encoded_bytes().div_ceil(BLOCK_BYTES).clamp(1, rows.rows.max(1));
        let piece = rows.rows.div_ceil(pieces).max(1);
        for start in (0..rows.rows).step_by(piece) {
            let part = rows.slice(start, piece.min(rows.rows - start));
            let block = encoder.encode_owned(&part).map_err(|e| status(&e.into()))?;
            put(sender, BlockHeader { output, end_rows: None }, block.into())?;
        }
    }
    Ok(())
}

fn put(sender: &Sender, header: BlockHeader, block: Bytes) -> Result<(), Status> {
    let data = FlightData::new().with_app_metadata(header.encode_to_vec()).with_data_body(block);
    sender.blocking_send(Ok(data)).map_err(|_| Status::cancelled("the reader is gone"))
}

/// An error's class as a status.
pub(super) fn status(error: &EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::Lost { .. } => Status::not_found(message),
        EngineError::Cancelled => Status::cancelled(message),
        EngineError::Shuffle(e) if e.is_loss() => Status::data_loss(message),
        _ => Status::internal(message),
    }
}

/// The scheduler's tables in memory, behind the same port as Flight SQL.
#[tonic::async_trait]
impl TicketHandler for DataServer {
    fn takes(&self, ticket: &[u8]) -> bool {
        // No field of a Fetch has this tag.
        const FLIGHT_SQL: u8 = 10;
        ticket.first().is_some_and(|first| *first != FLIGHT_SQL)
    }

    async fn do_get(&self, ticket: Bytes) -> Result<FlightStream, Status> {
        self.get(&ticket, false)
    }
}

/// A Flight service that does nothing but to hand out outputs: to other processes, which have the cluster's token, and
/// to clients that show what opens the result of a query.
#[derive(Clone)]
pub struct DataService {
    pub data: DataServer,
    pub auth: ServerAuth,
}

type Nothing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn only_outputs<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "this is a worker: it hands out results to whoever has a ticket for them; connect to the scheduler",
    ))
}

#[tonic::async_trait]
impl FlightService for DataService {
    type HandshakeStream = Nothing<HandshakeResponse>;
    type ListFlightsStream = Nothing<FlightInfo>;
    type DoGetStream = Blocks;
    type DoPutStream = Nothing<PutResult>;
    type DoActionStream = Nothing<arrow_flight::Result>;
    type ListActionsStream = Nothing<ActionType>;
    type DoExchangeStream = Nothing<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Blocks>, Status> {
        if direct::takes(&request.get_ref().ticket) {
            return self.data.get_direct(&request.get_ref().ticket).map(Response::new);
        }
        let is_near = request.remote_addr().is_some_and(|a| a.ip().to_canonical().is_loopback());
        let known = self.auth.clone().call(Request::from_parts(
            request.metadata().clone(),
            request.extensions().clone(),
            (),
        ));
        known?;
        self.data.get(&request.into_inner().ticket, is_near).map(Response::new)
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        only_outputs()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        only_outputs()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        only_outputs()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        only_outputs()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        only_outputs()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        only_outputs()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        only_outputs()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        only_outputs()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        only_outputs()
    }
}
