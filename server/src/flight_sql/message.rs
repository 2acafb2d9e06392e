//! What Dovetail's own client learns beyond Flight SQL: the line that tells what a command did, how many rows a table
//! has, and whether a result outlives the server's process. Other clients do not look at any of it.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use arrow_flight::FlightInfo;
use bytes::Bytes;

/// Before a command's message in a FlightInfo's metadata.
const COMMAND: &str = "dovetail.command:";
/// The metadata of a FlightInfo whose ticket may be shown again to a server that was started again.
const DURABLE: &str = "dovetail.durable";
/// In the metadata of a table's schema.
const ROWS: &str = "dovetail.rows";

/// A FlightInfo's metadata that tells what a command did.
pub fn command_metadata(message: &str) -> Bytes {
    format!("{COMMAND}{message}").into()
}

/// What a command did, if it was one.
pub fn command_message(info: &FlightInfo) -> Option<String> {
    Some(std::str::from_utf8(&info.app_metadata).ok()?.strip_prefix(COMMAND)?.to_owned())
}

/// A FlightInfo's metadata that tells that its query goes on if the server is started again.
pub fn durable_metadata() -> Bytes {
    DURABLE.into()
}

/// Whether the ticket is worth being shown again when the connection was lost.
pub fn is_durable(info: &FlightInfo) -> bool {
    info.app_metadata == DURABLE
}

/// A table's schema that tells how many rows there are.
pub fn with_table_rows(schema: &Schema, rows: Option<u64>) -> Schema {
    let metadata: HashMap<String, String> =
        rows.map(|n| (ROWS.to_owned(), n.to_string())).into_iter().collect();
    Schema::new_with_metadata(schema.fields().clone(), metadata)
}

/// How many rows a table has.
pub fn table_rows(schema: &Schema) -> Option<u64> {
    schema.metadata().get(ROWS)?.parse().ok()
}
