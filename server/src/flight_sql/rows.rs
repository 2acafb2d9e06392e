//! Rows as a stream of Flight messages.
//!
//! A thread fetches a few batches ahead, and gives itself back while the client is slow: nobody waits on it.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use dovetail_engine::ResultStream;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;
use tracing::Instrument;

use super::FlightStream;
use super::operations::Running;
use super::status::{lost, status};
use super::wire::{wire_batches, wire_bytes};

/// Batches that wait for a slow client.
const BATCHES_AHEAD: usize = 2;

/// What is fetched at a time.
const MESSAGE_BYTES: usize = 1_000_000;

/// The rows of a statement. `running` ends with the stream, however that ends.
pub fn stream_of(result: ResultStream, schema: SchemaRef, running: Running) -> FlightStream {
    let (send, receive) = mpsc::channel(BATCHES_AHEAD);
    tokio::spawn(fetch(result, schema.clone(), send).in_current_span());
    let batches = stream::unfold(Some((receive, running)), |open| async move {
        let (mut receive, running) = open?;
        match receive.recv().await {
            Some(Ok(Some(batch))) => Some((Ok(batch), Some((receive, running)))),
            Some(Ok(None)) => None,
            Some(Err(status)) => Some((Err(status), None)),
            // Rows that just stop coming are not all rows.
            None => Some((Err(Status::unavailable("the server is shutting down")), None)),
        }
    });
    encoded(schema, batches)
}

/// Rows that are there already.
pub fn stream_of_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> FlightStream {
    encoded(schema, stream::iter(batches.into_iter().map(Ok)))
}

/// Ends when all is fetched, which is the batch that is none, after an error, or when nobody wants more.
async fn fetch(
    mut result: ResultStream,
    schema: SchemaRef,
    send: mpsc::Sender<Result<Option<RecordBatch>, Status>>,
) {
    let mut is_wanted = true;
    while is_wanted {
        let schema = schema.clone();
        let next = tokio::task::spawn_blocking(move || (some_batches(&mut result, &schema), result));
        let (batches, end) = match next.await {
            Ok((next, rest)) => {
                result = rest;
                next
            }
            Err(e) => {
                // Nobody wants it if the client is gone; so it is below.
                let _ = send.send(Err(lost(&e))).await;
                return;
            }
        };
        let end = end.map(|end| end.map(|()| None).map_err(|e| status(&e)));
        is_wanted = end.is_none();
        for message in batches.into_iter().map(|batch| Ok(Some(batch))).chain(end) {
            if send.send(message).await.is_err() {
                is_wanted = false;
                break;
            }
        }
    }
    // Its tasks are waited for, and its files deleted: not on a thread of the runtime.
    tokio::task::spawn_blocking(move || drop(result));
}

/// About a message's worth of rows, in a client's types, and how the result has ended if it has. Small batches are
/// joined: a message costs more than the copy.
fn some_batches(
    result: &mut ResultStream,
    schema: &SchemaRef,
) -> (Vec<RecordBatch>, Option<dovetail_engine::Result<()>>) {
    let (mut batches, mut bytes) = (vec![], 0);
    let end = loop {
        match result.next() {
            Some(Ok(batch)) => {
                bytes += wire_bytes(&batch);
                batches.push(batch);
            }
            Some(Err(e)) => break Some(Err(e)),
            None => break Some(Ok(())),
        }
        if bytes >= MESSAGE_BYTES {
            break None;
        }
    };
    let Some(first) = batches.first() else { return (vec![], end) };
    let joined = concat_batches(first.schema_ref(), &batches).map_err(Into::into);
    match joined.and_then(|rows| wire_batches(&rows, schema)) {
        Ok(pieces) => (pieces, end),
        Err(e) => (vec![], Some(Err(e))),
    }
}

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> FlightStream {
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The pieces have been cut already, by what they really take.
        .with_max_flight_data_size(usize::MAX)
        .build(batches.map(|b| b.map_err(FlightError::from)))
        .map(|message| message.map_err(Status::from))
        .boxed()
}
