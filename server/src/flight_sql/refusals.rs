//! What of Flight SQL is refused, in the words that the user reads: transactions, Substrait; and requests that are
//! none.

use bytes::Bytes;
use tonic::Status;

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
