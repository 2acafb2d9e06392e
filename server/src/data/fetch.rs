//! Fetches outputs from other processes, for tasks that wait on a thread of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use dovetail_engine::batch::Batch;
use dovetail_engine::catalog::{MemoryData, MemoryTables};
use dovetail_engine::exchange::{FetchRequest, Fetcher};
use dovetail_engine::{EngineError, Result};
use dovetail_shuffle::Rows;
use dovetail_shuffle::block;
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{BLOCKS_AHEAD, MESSAGE_BYTES_MAX};
use crate::connect::Connector;
use crate::control::{BlockHeader, Fetch, MemoryTable, OutputAttempt, PartitionRange};

/// Times that a process is asked before it counts as gone, and the pause between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// A process that sends nothing for so long is taken for dead, if its lease has not ended before.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// Fetches over Flight. Connections are kept.
pub struct FlightFetcher {
    runtime: Handle,
    connector: Connector,
    channels: Mutex<HashMap<String, Channel>>,
}

impl FlightFetcher {
    pub fn new(runtime: Handle, connector: Connector) -> Arc<Self> {
        Arc::new(FlightFetcher { runtime, connector, channels: Mutex::default() })
    }

    fn channel(&self, place: &str) -> Result<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(place) {
            return Ok(channel.clone());
        }
        // A channel connects by itself, in the runtime that it was made in.
        let _in_runtime = self.runtime.enter();
        let channel = self.connector.lazy(place).map_err(|e| EngineError::internal(e.to_string()))?;
        channels.insert(place.to_string(), channel.clone());
        Ok(channel)
    }

    /// Starts to fetch.
    fn begin(&self, place: &str, fetch: Fetch) -> Result<FetchedRows> {
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        let outputs = fetch.outputs.len().max(1);
        let ticket = Ticket::new(fetch.encode_to_vec());
        let client = FlightServiceClient::with_interceptor(self.channel(place)?, self.connector.auth())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.runtime.spawn(async move {
            if let Err(status) = pump(client, ticket, &sender).await {
                // The task may have stopped.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(FetchedRows { receiver, rows: vec![0; outputs], ended: 0, is_done: false })
    }
}

type Client = FlightServiceClient<
    tonic::service::interceptor::InterceptedService<Channel, crate::security::ClientAuth>,
>;

/// Moves messages from the connection to the task, for as long as it listens.
async fn pump(
    mut client: Client,
    ticket: Ticket,
    sender: &mpsc::Sender<Result<FlightData, Status>>,
) -> Result<(), Status> {
    let silent = |_| Status::deadline_exceeded(format!("nothing has come for {} s", SILENCE_MAX.as_secs()));
    let mut tries = 1;
    let mut stream = loop {
        let asked = tokio::time::timeout(SILENCE_MAX, client.do_get(ticket.clone())).await.map_err(silent)?;
        match asked {
            Ok(response) => break response.into_inner(),
            Err(status) if status.code() == Code::Unavailable && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(status),
        }
    };
    while let Some(data) = tokio::time::timeout(SILENCE_MAX, stream.message()).await.map_err(silent)?? {
        // Room first: time that the task takes is not the other side's silence.
        if sender.send(Ok(data)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Fetcher for FlightFetcher {
    fn fetch(&self, request: FetchRequest) -> Result<Box<dyn Iterator<Item = Result<Rows, String>> + Send>> {
        let output = |o: &dovetail_engine::scheduler::events::OutputId| OutputAttempt {
            partition: o.task.partition,
            attempt: o.attempt.0,
        };
        let fetch = Fetch {
            query: request.query,
            stage: request.stage.0,
            outputs: request.outputs.iter().map(output).collect(),
            partitions: Some(PartitionRange {
                start: request.partitions.start as u32,
                end: request.partitions.end as u32,
            }),
            table: None,
        };
        Ok(Box::new(self.begin(&request.place, fetch)?))
    }
}

/// Rows as they come, counted against what the sender says at the end of each output.
struct FetchedRows {
    receiver: mpsc::Receiver<Result<FlightData, Status>>,
    /// By output.
    rows: Vec<u64>,
    ended: usize,
    is_done: bool,
}

impl FetchedRows {
    fn read(&mut self) -> Result<Option<Rows>, String> {
        loop {
            let Some(data) = self.receiver.blocking_recv() else {
                return match self.ended == self.rows.len() {
                    true => Ok(None),
                    false => Err("the connection ended before the rows did".into()),
                };
            };
            let data = data.map_err(|s| s.message().to_string())?;
            let header = BlockHeader::decode(data.app_metadata).map_err(|e| e.to_string())?;
            let rows = self
                .rows
                .get_mut(header.output as usize)
                .ok_or("rows of an output that was not asked for")?;
            if let Some(sent) = header.end_rows {
                if sent != *rows {
                    return Err(format!("{sent} rows were sent and {rows} came"));
                }
                self.ended += 1;
                continue;
            }
            let block = aligned(data.data_body);
            let decoded = block::decode(&block, "(fetched)".as_ref(), 0).map_err(|e| e.to_string())?;
            *rows += decoded.rows as u64;
            return Ok(Some(decoded));
        }
    }
}

/// A block whose buffers lie where Arrow's may.
fn aligned(body: bytes::Bytes) -> Buffer {
    const ALIGNMENT: usize = 64;
    match body.as_ptr().align_offset(ALIGNMENT) {
        0 => Buffer::from(body),
        _ => Buffer::from_slice_ref(&body[..]),
    }
}

impl Iterator for FetchedRows {
    type Item = Result<Rows, String>;

    fn next(&mut self) -> Option<Result<Rows, String>> {
        if self.is_done {
            return None;
        }
        let next = self.read().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The tables in the scheduler's memory, for the tasks of one query: each is fetched once.
pub struct RemoteTables {
    pub fetcher: Arc<FlightFetcher>,
    pub scheduler: String,
    pub tables: Mutex<HashMap<(u64, u64), MemoryData>>,
}

impl MemoryTables for RemoteTables {
    fn memory(&self, id: u64, version: u64) -> Result<MemoryData> {
        let mut tables = self.tables.lock();
        if let Some(table) = tables.get(&(id, version)) {
            return Ok(table.clone());
        }
        let fetch = Fetch { table: Some(MemoryTable { id, version }), ..Fetch::default() };
        let mut batches = vec![];
        for rows in self.fetcher.begin(&self.scheduler, fetch)? {
            let rows = rows.map_err(|e| EngineError::Data {
                place: self.scheduler.clone(),
                message: format!("a table in memory could not be fetched: {e}"),
            })?;
            batches.push(Batch::from_arrays(rows.columns, rows.rows));
        }
        // The scan knows the columns' names; their types are those of the arrays.
        let fields = batches.first().map_or(vec![], |b: &Batch| {
            let types = b.columns.iter().map(|c| c.data_type().clone());
            types.map(|t| Field::new("", t, true)).collect()
        });
        let data = MemoryData { schema: Arc::new(Schema::new(fields)), batches: Arc::new(batches) };
        tables.insert((id, version), data.clone());
        Ok(data)
    }
}
