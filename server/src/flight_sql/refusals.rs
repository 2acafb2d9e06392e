//! What of Flight SQL is refused, in the words that the user reads: parameters, transactions, Substrait; and
//! requests that are none.

use arrow::datatypes::Schema;
use arrow_flight::sql::server::PeekableFlightDataStream;
use bytes::Bytes;
use futures::StreamExt;
use tonic::{Request, Status};

/// Parameters come as rows behind the command.
pub async fn refuse_parameters(request: Request<PeekableFlightDataStream>) -> Result<(), Status> {
    let mut messages = request.into_inner();
    while let Some(message) = messages.next().await {
        // A bare command, or an empty schema, binds nothing.
        let message = message?;
        let columns = Schema::try_from(&message).map_or(0, |s| s.fields().len());
        if columns > 0 || !message.data_body.is_empty() {
            return Err(Status::unimplemented(
                "parameters of prepared statements are not supported. Write the values into the statement",
            ));
        }
    }
    Ok(())
}

/// A statement in a transaction would not be one.
pub fn refuse_transaction(id: &Option<Bytes>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => Err(no_transactions()),
        _ => Ok(()),
    }
}

/// There are none.
pub fn no_transactions() -> Status {
    Status::unimplemented(
        "transactions are not supported: each statement stands alone. Connect with autocommit on",
    )
}

/// Plans come as SQL.
pub fn no_substrait() -> Status {
    Status::unimplemented("Substrait plans are not supported. Send SQL")
}

/// Bytes that do not say what is wanted.
pub fn malformed(e: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the request is not one of Flight SQL's: {e}"))
}
