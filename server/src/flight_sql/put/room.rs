//! What the rows of a message take, found out before anything is made of them.
//!
//! A small message may stand for much: its header says how long its buffers are once they are decompressed, and
//! Arrow's decoder allocates that before it looks at them; buffers may lie over each other and be copied each; the
//! rows may be runs, or keys of a dictionary.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::ipc::{self, MessageHeader};
use arrow_flight::FlightData;
use dovetail_engine::catalog::value_bytes;
use dovetail_engine::memory::Reservation;
use tonic::Status;

use super::super::REQUEST_BYTES_MAX;
use super::super::status::status;
use super::unreadable;

/// Of a message's buffers, decompressed.
const BUFFERS_BYTES_MAX: usize = 4 * REQUEST_BYTES_MAX;
/// Of the dictionaries of a stream, decompressed.
const DICTIONARIES_BYTES_MAX: usize = BUFFERS_BYTES_MAX;
/// Of the values of a message's rows, without encodings.
const VALUES_BYTES_MAX: usize = 16 * REQUEST_BYTES_MAX;
/// In front of a compressed buffer: how long it is decompressed.
const LENGTH_BYTES: usize = 8;

/// Memory for one stream of rows: for its dictionaries, and for the message that came last.
pub struct Room {
    memory: Reservation,
    /// By their id.
    dictionaries: HashMap<i64, usize>,
    message: usize,
}

impl Room {
    /// For a stream that begins.
    pub fn new(memory: Reservation) -> Room {
        Room { memory, dictionaries: HashMap::new(), message: 0 }
    }

    /// Makes room for what the decoder will make of a message.
    pub fn check(&mut self, message: &FlightData) -> Result<(), Status> {
        let header = ipc::root_as_message(&message.data_header).map_err(|e| unreadable(&e))?;
        self.message = 0;
        match header.header_type() {
            MessageHeader::RecordBatch => {
                let batch = header.header_as_record_batch();
                self.message = batch.map_or(0, |b| buffers_bytes(&b, &message.data_body));
            }
            MessageHeader::DictionaryBatch => {
                if let Some(dictionary) = header.header_as_dictionary_batch() {
                    let bytes = dictionary.data().map_or(0, |b| buffers_bytes(&b, &message.data_body));
                    let before = self.dictionaries.entry(dictionary.id()).or_default();
                    *before = if dictionary.isDelta() { before.saturating_add(bytes) } else { bytes };
                    // The new one is made while the one before is there.
                    self.message = *before;
                }
            }
            // Anything else is for the decoder to refuse.
            _ => {}
        }
        if self.message > BUFFERS_BYTES_MAX {
            return Err(too_much("decompressed", BUFFERS_BYTES_MAX));
        }
        if self.dictionaries_bytes() > DICTIONARIES_BYTES_MAX {
            return Err(too_much("dictionaries", DICTIONARIES_BYTES_MAX));
        }
        self.hold(0)
    }

    /// Makes room for what will be made of the rows of the message.
    pub fn check_values(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        let values = value_bytes(batch);
        if values > VALUES_BYTES_MAX {
            return Err(too_much("without encodings", VALUES_BYTES_MAX));
        }
        self.hold(values)
    }

    fn hold(&mut self, values: usize) -> Result<(), Status> {
        let bytes = self.dictionaries_bytes() + self.message + values;
        self.memory.resize_firm(bytes).map_err(|e| status(&e))
    }

    fn dictionaries_bytes(&self) -> usize {
        self.dictionaries.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// What the buffers of a batch take once they are copied or decompressed.
fn buffers_bytes(batch: &ipc::RecordBatch<'_>, body: &[u8]) -> usize {
    let compressed = batch.compression().is_some();
    let bytes = |buffer: &ipc::Buffer| {
        let length = usize::try_from(buffer.length()).unwrap_or(0);
        let decompressed = usize::try_from(buffer.offset())
            .ok()
            .and_then(|from| body.get(from..)?.first_chunk::<LENGTH_BYTES>())
            // Negative: it is not compressed after all.
            .and_then(|told| usize::try_from(i64::from_le_bytes(*told)).ok())
            .filter(|_| compressed && length > 0);
        decompressed.unwrap_or(length)
    };
    batch.buffers().map_or(0, |all| all.iter().fold(0, |sum, b| sum.saturating_add(bytes(b))))
}

fn too_much(what: &str, max: usize) -> Status {
    Status::resource_exhausted(format!(
        "the rows of a message take more than {} MiB ({what}): send fewer rows in each message",
        max >> 20
    ))
}
