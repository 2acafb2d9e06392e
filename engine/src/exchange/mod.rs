//! Exchanges on one machine: rows by hash partition, from the tasks of one stage to those of another.
//!
//! ```text
//! sink ─ ExchangeWriter ─▶ ExchangeOutput (parked with the governor) ─ ExchangeReader ─▶ source
//! sink ─ KeptWriter ─────▶ KeptRows, in order (parked likewise) ────── KeptReader ─────▶ source, result
//! sink ─ ResultFlow ──────────────────────────────────────────────────────────────────▶ result, as it is made
//! outputs of other processes ─ Delivery ──────────────────────────── DeliveredRows ───▶ result, as it is fetched
//! ```
//!
//! With enough memory a batch that is written is the batch that is read. A writer spills when the governor
//! tells it to; a finished output is spilled by whichever thread needs its memory, before its readers come or
//! between two of their batches. All of it is the shuffle's [`MapOutput`](dovetail_shuffle::output): one
//! segment file for each spell of waiting, partition-major.
//!
//! [`parts`] divides a partition that is too large for the memory, on disk, as often as need be.
//!
//! What always holds: a partition has one reader, which takes batches out one by one, memory first, then
//! disk, block by block, so that what it has not read yet can still be spilled; at the end it compares the
//! rows that it read with those that were written, and fails the query if they differ. Columns may come back
//! from disk in another physical form than they had. The output's memory and files go with its last handle.

mod delivery;
mod held;
mod kept;
mod output;
pub(crate) mod parts;
mod reader;
mod stream;
mod writer;

pub use delivery::{DeliveredRows, Delivery, OnEnd, delivery};
pub use held::{Counted, FetchRequest, Fetcher, HeldOutput, RemoteOutputs, RowsReader};
pub use kept::{KeptInput, KeptReader, KeptRows, KeptWriter, SharedRows};
pub use output::ExchangeOutput;
pub use reader::{ExchangeInput, ExchangeReader, ExchangeSource};
pub use stream::ResultFlow;
pub use writer::ExchangeWriter;

#[cfg(test)]
mod tests;
