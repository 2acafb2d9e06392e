//! Answers a client that fetches rows of a result from the worker that has them, in Arrow's own format.
//!
//! What always holds: whoever shows a query's capability may fetch the outputs of its result that are here, and nothing
//! else; the capability is all that is asked for, since a worker knows no users; a worker tells the scheduler of each
//! output that was sent as a whole.

use arrow::array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use dovetail_engine::batch::Batch;
use dovetail_engine::scheduler::events::{Attempt, OutputId};
use dovetail_planner::graph::TaskId;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::BLOCKS_AHEAD;
use super::serve::{Blocks, DataServer, status};
use crate::control::ClientTicket;
use crate::flight_sql::{wire_batches, wire_schema};
use crate::host::{Host, Readable};

/// Clients that fetch at a time. Each takes a thread for as long as it likes, and other processes fetch here, too.
const CLIENTS_MAX: usize = 128;
static CLIENTS: Semaphore = Semaphore::const_new(CLIENTS_MAX);

/// Outputs of one ticket.
const OUTPUTS_MAX: usize = 1 << 16;

type Sender = mpsc::Sender<Result<RecordBatch, FlightError>>;

/// Whether a ticket is a [`ClientTicket`], by its first byte: the tag of its first field, which no `Fetch` has.
pub fn takes(ticket: &[u8]) -> bool {
    const CAPABILITY: u8 = 13 << 3 | 2;
    ticket.first() == Some(&CAPABILITY)
}

impl DataServer {
    /// The rows that a client's ticket opens.
    pub fn get_direct(&self, ticket: &[u8]) -> Result<Blocks, Status> {
        let malformed = |_| Status::invalid_argument("the ticket is not one that this cluster has given");
        let ticket = ClientTicket::decode(ticket).map_err(malformed)?;
        if ticket.outputs.len() > OUTPUTS_MAX {
            return Err(Status::invalid_argument(format!("a ticket for more than {OUTPUTS_MAX} outputs")));
        }
        let host = self.host.clone().ok_or_else(gone)?;
        let Some(readable) = host.readable(ticket.query, &ticket.capability) else {
            tracing::warn!(
                query = ticket.query,
                "refused a client's ticket: its result is gone, or was never here"
            );
            return Err(gone());
        };
        let Ok(permit) = CLIENTS.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{CLIENTS_MAX} clients are fetching rows from this worker, and it serves no more at a time; try again later"
            )));
        };
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        let schema = wire_schema(&readable.schema);
        let encoder = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            // The pieces are cut already, by what they really take.
            .with_max_flight_data_size(usize::MAX);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(status) = send_all(&host, &readable, &ticket, &sender) {
                // The client may be gone, which is why it ended then.
                let _ = sender.blocking_send(Err(status.into()));
            }
        });
        let messages = encoder.build(ReceiverStream::new(receiver)).map_err(Status::from);
        Ok(messages.boxed())
    }
}

fn send_all(host: &Host, readable: &Readable, ticket: &ClientTicket, sender: &Sender) -> Result<(), Status> {
    let schema = wire_schema(&readable.schema);
    for wanted in &ticket.outputs {
        let task = TaskId { stage: readable.stage, partition: wanted.partition };
        let output = OutputId { task, attempt: Attempt(wanted.attempt) };
        for rows in host.read(ticket.query, output, None).map_err(|_| gone())? {
            let rows = rows.map_err(|e| status(&e))?;
            let batch = Batch::from_arrays(rows.columns, rows.rows).to_record_batch(&readable.schema);
            let pieces = batch.and_then(|batch| wire_batches(&batch, &schema)).map_err(|e| status(&e))?;
            for piece in pieces {
                sender.blocking_send(Ok(piece)).map_err(|_| Status::cancelled("the client is gone"))?;
            }
        }
        host.fetched(ticket.query, output);
    }
    Ok(())
}

fn gone() -> Status {
    Status::not_found(
        "there is no such result here: it was fetched, cancelled or not fetched in time, or a worker that had a part of \
         it was lost; run the query again, with result_endpoints = 'server' if it must survive the loss of workers",
    )
}
