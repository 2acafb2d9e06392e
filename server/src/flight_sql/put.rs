//! Rows that a client puts: behind a DoPut's command, as a schema and record batches.
//!
//! What always holds: bytes that are no rows end the call with an error, also where Arrow's decoder panics on them.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::stream::Peekable;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tonic::{Request, Status, Streaming};

/// The rows behind a command.
pub struct PutRows(FlightRecordBatchStream);

impl PutRows {
    /// Passes over the command. Some clients send it alone first, or alone.
    pub async fn behind_command(request: Request<PeekableFlightDataStream>) -> PutRows {
        let mut messages: Peekable<Streaming<FlightData>> = request.into_inner().into_peekable();
        while Pin::new(&mut messages).next_if(is_bare).await.is_some() {}
        let messages = messages.map_err(|s| FlightError::Tonic(Box::new(s)));
        PutRows(FlightRecordBatchStream::new_from_flight_data(messages))
    }

    /// The next rows, until there are no more. After an error there are none.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        let next = AssertUnwindSafe(self.0.next()).catch_unwind().await;
        match next.map(Option::transpose) {
            Ok(Ok(None)) => {
                // A client that has broken off looks here like one that has sent all (tonic hides the reset); but then
                // the call is dropped as soon as it waits, and nothing after this happens.
                tokio::task::yield_now().await;
                Ok(None)
            }
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(FlightError::Tonic(status))) => Err(*status),
            Ok(Err(other)) => Err(unreadable(&other)),
            Err(_) => Err(unreadable(&"a buffer is not where the message says it is")),
        }
    }

    /// The columns, once [`PutRows::next`] has been called; none if there was no schema.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.0.schema()
    }
}

fn is_bare(message: &Result<FlightData, Status>) -> bool {
    message.as_ref().is_ok_and(|m| m.data_header.is_empty() && m.data_body.is_empty())
}

fn unreadable(problem: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the rows that were sent cannot be read: {problem}"))
}
