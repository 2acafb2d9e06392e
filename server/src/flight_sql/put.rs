//! Rows that a client puts: behind a DoPut's command, as a schema and record batches.
//!
//! ```text
//! message ─▶ Room: what will it take? ─▶ Arrow's decoder ─▶ Room: what will its values take? ─▶ the rows
//! ```
//!
//! What always holds: bytes that are no rows end the call with an error, also where Arrow's decoder panics on them;
//! nothing is decompressed or decoded, and no rows are handed out, before what they take is known to fit its bound
//! and the memory limit.

mod room;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use bytes::Bytes;
use dovetail_engine::memory::Reservation;
use futures::stream::Peekable;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tonic::{Request, Status, Streaming};

use room::Room;

/// The rows behind a command.
pub struct PutRows {
    batches: FlightRecordBatchStream,
    room: Arc<Mutex<Room>>,
}

impl PutRows {
    /// Passes over the command. Some clients send it alone first, or alone. `memory` is what the rows that were
    /// handed out last are counted in.
    pub async fn behind_command(request: Request<PeekableFlightDataStream>, memory: Reservation) -> PutRows {
        let mut messages: Peekable<Streaming<FlightData>> = request.into_inner().into_peekable();
        while Pin::new(&mut messages).next_if(is_bare).await.is_some() {}
        let room = Arc::new(Mutex::new(Room::new(memory)));
        let checked = room.clone();
        let messages = messages.map(move |message| {
            let message = message.and_then(|m| checked.lock().check(&m).map(|()| alone(m)));
            message.map_err(|s| FlightError::Tonic(Box::new(s)))
        });
        PutRows { batches: FlightRecordBatchStream::new_from_flight_data(messages), room }
    }

    /// The next rows, until there are no more. After an error there are none.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        let next = AssertUnwindSafe(self.batches.next()).catch_unwind().await;
        match next.map(Option::transpose) {
            Ok(Ok(None)) => {
                // A client that has broken off looks here like one that has sent all (tonic hides the reset); but then
                // the call is dropped as soon as it waits, and nothing after this happens.
                tokio::task::yield_now().await;
                Ok(None)
            }
            Ok(Ok(Some(batch))) => {
                self.room.lock().check_values(&batch)?;
                Ok(Some(batch))
            }
            Ok(Err(FlightError::Tonic(status))) => Err(*status),
            Ok(Err(other)) => Err(unreadable(&other)),
            Err(_) => Err(unreadable(&"a buffer is not where the message says it is")),
        }
    }

    /// The columns, once [`PutRows::next`] has been called; none if there was no schema.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.batches.schema()
    }
}

/// The rows hold the message that they came in, with all that the client has put beside them.
fn alone(message: FlightData) -> FlightData {
    let beside = message.app_metadata.len() + message.data_header.len();
    match beside > message.data_body.len() {
        true => FlightData { data_body: Bytes::copy_from_slice(&message.data_body), ..message },
        false => message,
    }
}

fn is_bare(message: &Result<FlightData, Status>) -> bool {
    message.as_ref().is_ok_and(|m| m.data_header.is_empty() && m.data_body.is_empty())
}

fn unreadable(problem: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the rows that were sent cannot be read: {problem}"))
}
