//! Messages that no client of good will sends: tickets, handles, descriptors and actions that were damaged,
//! invented or taken from somebody else. Each is refused or answered; the server goes on, and keeps nothing of them.
//!
//! The damage is random with a fixed seed, so a failure comes again.

mod served;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch, RunArray};
use arrow::ipc::{self, CompressionType, writer::IpcWriteOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, Any, CommandGetTables, CommandPreparedStatementQuery,
    CommandStatementIngest, CommandStatementQuery, ProstMessageExt, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption, TicketStatementQuery,
};
use arrow_flight::{Action, Criteria, FlightData, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use served::{Client, Served};
use tonic::{Code, Status};

const ROUNDS: usize = 400;

/// A few lines of xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Bytes of the original, some of them changed, left out, doubled or followed by others.
    fn damaged(&mut self, original: &[u8]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.below(4) {
            let at = if bytes.is_empty() { 0 } else { self.below(bytes.len()) };
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes.truncate(at),
                2 => bytes.extend((0..self.below(64)).map(|_| self.next() as u8).collect::<Vec<u8>>()),
                3 if !bytes.is_empty() => bytes[at] = 0xff,
                _ => bytes.extend_from_slice(original),
            }
        }
        bytes
    }
}

/// Valid messages of every kind, to be damaged.
fn originals() -> Vec<Vec<u8>> {
    let handle: Vec<u8> = (0..16).collect();
    let commands: Vec<Any> = vec![
        CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None }.as_any(),
        CommandPreparedStatementQuery { prepared_statement_handle: handle.clone().into() }.as_any(),
        TicketStatementQuery { statement_handle: handle.clone().into() }.as_any(),
        CommandGetTables { include_schema: true, ..CommandGetTables::default() }.as_any(),
        CommandStatementIngest { table: "../../etc/passwd".into(), ..CommandStatementIngest::default() }
            .as_any(),
        ActionClosePreparedStatementRequest { prepared_statement_handle: handle.into() }.as_any(),
    ];
    let mut all: Vec<Vec<u8>> = commands.iter().map(Message::encode_to_vec).collect();
    all.push(vec![]);
    all.push(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    all
}

/// An answer, or a refusal that blames the caller; nothing else.
fn is_well(outcome: Result<(), Status>, context: &str) {
    if let Err(status) = outcome {
        let internal = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
        // A stream that is broken off is told by the transport in its own words.
        assert!(!internal || status.message().contains("h2 protocol"), "{context}: {status:?}");
    }
}

fn send(served: &Served, client: &mut Client, kind: usize, bytes: Vec<u8>) {
    let context = format!("kind {kind}: {bytes:?}");
    let outcome = served.runtime.block_on(async {
        let inner = client.inner_mut();
        match kind {
            0 => {
                let mut rows = inner.do_get(Ticket::new(bytes)).await?.into_inner();
                while rows.try_next().await?.is_some() {}
            }
            1 => drop(inner.get_flight_info(FlightDescriptor::new_cmd(bytes)).await?),
            2 => drop(inner.get_schema(FlightDescriptor::new_cmd(bytes)).await?),
            3 => drop(inner.poll_flight_info(FlightDescriptor::new_cmd(bytes)).await?),
            4 => {
                let kinds = [
                    "CreatePreparedStatement",
                    "ClosePreparedStatement",
                    "CancelFlightInfo",
                    "CancelQuery",
                    "BeginTransaction",
                    "SetSessionOptions",
                    "RenewFlightEndpoint",
                    "Nonsense",
                ];
                let action = Action { r#type: kinds[bytes.len() % kinds.len()].into(), body: bytes.into() };
                let mut results = inner.do_action(action).await?.into_inner();
                while results.try_next().await?.is_some() {}
            }
            5 => {
                let message = FlightData::new()
                    .with_descriptor(FlightDescriptor::new_cmd(bytes.clone()))
                    .with_data_header(bytes.clone())
                    .with_data_body(bytes);
                let mut results = inner.do_put(futures::stream::iter([message])).await?.into_inner();
                while results.try_next().await?.is_some() {}
            }
            6 => {
                let message = FlightData::new().with_data_header(bytes);
                let mut results = inner.do_exchange(futures::stream::iter([message])).await?.into_inner();
                while results.try_next().await?.is_some() {}
            }
            _ => {
                let mut flights =
                    inner.list_flights(Criteria { expression: bytes.into() }).await?.into_inner();
                while flights.next().await.transpose()?.is_some() {}
            }
        }
        Ok(())
    });
    is_well(outcome, &context);
}

#[test]
fn damaged_messages_are_refused_and_the_server_goes_on() {
    let served = Served::new();
    let mut client = served.client();
    let originals = originals();
    let mut random = Random(0xD07E_7A11);
    for round in 0..ROUNDS {
        let original = &originals[random.below(originals.len())];
        let bytes = random.damaged(original);
        send(&served, &mut client, random.below(8), bytes);
        if round % 50 == 0 {
            assert_eq!(served.query(&mut client, "SELECT 1")[0].num_rows(), 1);
        }
    }
    assert!(served.session.tables().unwrap().is_empty());
    assert_eq!(served.session.progress(), None);
    assert_eq!(served.session.memory().used_bytes, 0);
}

#[test]
fn nobody_reads_what_was_promised_to_another_without_its_handle() {
    let served = Served::new();
    let (mut owner, mut thief) = (served.client(), served.client());
    let info = served.runtime.block_on(owner.execute("SELECT 42 AS secret".to_owned(), None)).unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut random = Random(7);
    for _ in 0..ROUNDS {
        let mut bytes = ticket.ticket.to_vec();
        // Another handle of the same form.
        let at = bytes.len() - 1 - random.below(16);
        bytes[at] ^= 1 + (random.next() % 255) as u8;
        let fetched = served.runtime.block_on(async {
            let stream = thief.inner_mut().do_get(Ticket::new(bytes)).await?.into_inner();
            stream.try_collect::<Vec<FlightData>>().await
        });
        assert_eq!(fetched.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(served.fetch(&mut owner, info)[0].num_rows(), 1);
}

#[test]
fn a_message_beyond_the_bound_is_refused_before_it_is_read() {
    let served = Served::new();
    let mut client = served.client();
    let huge = "x".repeat(dovetail_server::flight_sql::REQUEST_BYTES_MAX + 1);
    let outcome = served.runtime.block_on(client.execute(huge, None));
    assert!(outcome.is_err());
    assert_eq!(served.query(&mut client, "SELECT 1")[0].num_rows(), 1);
}

/// An ingest of a column, which is sent as arrow has it, or compressed.
fn ingest_of(served: &Served, column: ArrayRef, compression: Option<CompressionType>) -> Vec<FlightData> {
    let definition = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create as i32,
        if_exists: TableExistsOption::Append as i32,
    };
    let command = CommandStatementIngest {
        table: "t".into(),
        temporary: true,
        table_definition_options: Some(definition),
        ..CommandStatementIngest::default()
    };
    let rows = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap();
    let encoded = FlightDataEncoderBuilder::new()
        .with_options(IpcWriteOptions::default().try_with_compression(compression).unwrap())
        .with_max_flight_data_size(usize::MAX)
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .build(futures::stream::iter([Ok(rows)]));
    served.runtime.block_on(encoded.try_collect()).unwrap()
}

/// A message whose buffers say that they become so long when they are decompressed.
fn inflated(message: &FlightData, told_bytes: i64) -> FlightData {
    let header = ipc::root_as_message(&message.data_header).unwrap();
    let mut body = message.data_body.to_vec();
    for buffer in header.header_as_record_batch().unwrap().buffers().unwrap() {
        let from = buffer.offset() as usize;
        if buffer.length() > 0 {
            body[from..from + 8].copy_from_slice(&told_bytes.to_le_bytes());
        }
    }
    FlightData { data_body: body.into(), ..message.clone() }
}

#[test]
fn few_bytes_that_stand_for_many_are_refused_before_they_are_many() {
    let served = Served::new();
    let mut client = served.client();
    let mut put = |messages: Vec<FlightData>| {
        let sent = served.runtime.block_on(client.inner_mut().do_put(futures::stream::iter(messages)));
        sent.map(|_| ()).map_err(|refused| (refused.code(), refused.message().to_owned()))
    };
    let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0; 1000]));
    for kind in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let mut messages = ingest_of(&served, zeros.clone(), Some(kind));
        assert_eq!(put(messages.clone()), Ok(()));
        for told_bytes in [1 << 62, 1 << 40] {
            let last = messages.last_mut().unwrap();
            *last = inflated(last, told_bytes);
            let (code, message) = put(messages.clone()).unwrap_err();
            assert!(code == Code::ResourceExhausted && message.contains("fewer rows"), "{message}");
        }
    }
    let run = RunArray::try_new(&Int64Array::from(vec![1 << 40]), &Int64Array::from(vec![7])).unwrap();
    for column in [Arc::new(run) as ArrayRef, Arc::new(NullArray::new(1 << 40))] {
        let (code, message) = put(ingest_of(&served, column, None)).unwrap_err();
        assert!(code == Code::ResourceExhausted && message.contains("fewer rows"), "{message}");
    }
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 2000);
}
