//! What of Flight SQL is refused, in the words that the user reads: transactions, Substrait; requests that are none;
//! more than somebody may have.

use bytes::Bytes;
use tonic::Status;

/// A statement in a transaction would not be one.
pub fn refuse_transaction(id: &Option<Bytes>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => Err(no_transactions()),
        _ => Ok(()),
    }
}

/// More than a user, or all together, may have. The log has it too.
pub fn over_limit(user: &str, message: String) -> Status {
    tracing::warn!(user, "refused: {message}");
    Status::resource_exhausted(message)
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
