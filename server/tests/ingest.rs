//! Bulk ingestion: into the warehouse and into memory, whole or not at all.

mod served;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use served::{Client, Served, refused};
use tempfile::TempDir;
use tonic::Code;

fn command(table: &str, create: TableNotExistOption, exists: TableExistsOption) -> CommandStatementIngest {
    let options = TableDefinitionOptions { if_not_exist: create as i32, if_exists: exists as i32 };
    CommandStatementIngest {
        table: table.to_owned(),
        table_definition_options: Some(options),
        ..CommandStatementIngest::default()
    }
}

fn create(table: &str) -> CommandStatementIngest {
    command(table, TableNotExistOption::Create, TableExistsOption::Fail)
}

fn batch(from: i64, to: i64) -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((from..to).map(|i| format!("row {i}"))));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("text", text, true)]).unwrap()
}

fn ingest(
    served: &Served,
    client: &mut Client,
    command: CommandStatementIngest,
    batches: Vec<RecordBatch>,
) -> Result<i64, FlightError> {
    served.runtime.block_on(client.execute_ingest(command, stream::iter(batches.into_iter().map(Ok))))
}

/// Parquet files below a folder, committed or not.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .map(
            |p| {
                if p.is_dir() {
                    files(&p)
                } else {
                    usize::from(p.extension().is_some_and(|e| e == "parquet"))
                }
            },
        )
        .sum()
}

#[test]
fn rows_are_a_table_at_once() {
    let folder = TempDir::new().unwrap();
    let served = Served::with_warehouse(folder.path());
    let mut client = served.client();
    let batches: Vec<RecordBatch> = (0..10).map(|i| batch(i * 1000, (i + 1) * 1000)).collect();
    assert_eq!(ingest(&served, &mut client, create("events"), batches.clone()).unwrap(), 10_000);
    let count = |client: &mut Client, sql: &str| {
        served.query(client, sql)[0].column(0).as_primitive::<Int64Type>().value(0)
    };
    assert_eq!(count(&mut client, "SELECT count(*) FROM events WHERE text = 'row ' || id"), 10_000);
    let (code, message) = refused(ingest(&served, &mut client, create("events"), batches.clone()));
    assert!(code == Code::InvalidArgument && message.contains("exists already"), "{message}");
    let append = command("events", TableNotExistOption::Fail, TableExistsOption::Append);
    assert_eq!(ingest(&served, &mut client, append.clone(), batches).unwrap(), 10_000);
    assert_eq!(count(&mut client, "SELECT count(*) FROM events"), 20_000);
    let replace = command("events", TableNotExistOption::Create, TableExistsOption::Replace);
    assert_eq!(ingest(&served, &mut client, replace, vec![batch(0, 5)]).unwrap(), 5);
    assert_eq!(count(&mut client, "SELECT sum(id) FROM events"), 10);
    assert_eq!(files(folder.path()), 1);
    let missing = CommandStatementIngest { table: "nowhere".into(), ..append };
    assert!(
        refused(ingest(&served, &mut client, missing, vec![batch(0, 5)])).1.contains("no table 'nowhere'")
    );
    served.query(&mut client, "DROP TABLE events");
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn a_stream_that_is_cut_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let served = Served::with_warehouse(folder.path());
    let client = served.client();
    let descriptor = FlightDescriptor::new_cmd(create("cut").as_any().encode_to_vec());
    let schema = batch(0, 0).schema();
    let encoded =
        FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).with_schema(schema);
    let batches = stream::iter((0..3).map(|i| Ok(batch(i * 1000, (i + 1) * 1000))));
    let messages: Vec<FlightData> = served.runtime.block_on(encoded.build(batches).try_collect()).unwrap();
    // Begun, and never ended: the client goes away.
    let call = served.runtime.spawn(async move {
        let mut client = client;
        let unending = stream::iter(messages).chain(stream::pending());
        client.inner_mut().do_put(unending).await.map(|_| ())
    });
    let wait_for = |there: bool| {
        let start = Instant::now();
        while (files(folder.path()) > 0) != there {
            assert!(start.elapsed() < Duration::from_secs(20), "files should be there: {there}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(true);
    assert!(served.session.tables().unwrap().is_empty());
    call.abort();
    wait_for(false);
    assert!(served.session.tables().unwrap().is_empty());
    // The name is free.
    assert_eq!(ingest(&served, &mut served.client(), create("cut"), vec![batch(0, 1)]).unwrap(), 1);
}

#[test]
fn rows_that_cannot_be_read_leave_nothing() {
    let folder = TempDir::new().unwrap();
    let served = Served::with_warehouse(folder.path());
    let mut client = served.client();
    let descriptor = FlightDescriptor::new_cmd(create("bad").as_any().encode_to_vec());
    let encoded = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor));
    let mut messages: Vec<FlightData> = served
        .runtime
        .block_on(encoded.build(stream::iter([Ok(batch(0, 100)), Ok(batch(0, 100))])).try_collect())
        .unwrap();
    let last = messages.last_mut().unwrap();
    last.data_body = last.data_body.slice(..last.data_body.len() / 2);
    let sent = served.runtime.block_on(client.inner_mut().do_put(stream::iter(messages)));
    assert_eq!(sent.err().unwrap().code(), Code::InvalidArgument);
    assert_eq!(files(folder.path()), 0);
    let command_alone = FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd(create("bad").as_any().encode_to_vec())),
        ..FlightData::default()
    };
    let sent = served.runtime.block_on(client.inner_mut().do_put(stream::iter([command_alone])));
    assert!(sent.err().unwrap().message().contains("no rows were sent"));
}

#[test]
fn what_is_not_meant_is_refused() {
    let folder = TempDir::new().unwrap();
    let served = Served::with_warehouse(folder.path());
    let mut client = served.client();
    let good = create("t");
    for (asked, words) in [
        (CommandStatementIngest { table: "../t".into(), ..good.clone() }, "cannot be the name"),
        (CommandStatementIngest { catalog: Some("other".into()), ..good.clone() }, "no catalog 'other'"),
        (CommandStatementIngest { schema: Some("other".into()), ..good.clone() }, "no schema 'other'"),
        (CommandStatementIngest { transaction_id: Some(b"1"[..].into()), ..good.clone() }, "transactions"),
        (CommandStatementIngest { table_definition_options: None, ..good.clone() }, "must say"),
        (command("t", TableNotExistOption::Unspecified, TableExistsOption::Fail), "must say"),
        (
            CommandStatementIngest { options: [("o".to_owned(), "v".to_owned())].into(), ..good.clone() },
            "no option 'o'",
        ),
    ] {
        let (_, message) = refused(ingest(&served, &mut client, asked, vec![batch(0, 1)]));
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(files(folder.path()), 0);
    let named =
        CommandStatementIngest { catalog: Some("dovetail".into()), schema: Some("main".into()), ..good };
    assert_eq!(ingest(&served, &mut client, named, vec![batch(0, 1)]).unwrap(), 1);
}

#[test]
fn without_a_warehouse_temporary_tables_are_in_memory() {
    let served = Served::new();
    let mut client = served.client();
    client.set_header("cookie", "arrow_flight_session_id=none");
    let (code, message) = refused(ingest(&served, &mut client, create("t"), vec![batch(0, 1)]));
    assert!(code == Code::Unimplemented && message.contains("--warehouse"), "{message}");
    let temporary = CommandStatementIngest { temporary: true, ..create("t") };
    assert_eq!(ingest(&served, &mut client, temporary, vec![batch(0, 5)]).unwrap(), 5);
    // In the session that the answer has named, and nowhere else.
    assert!(served.session.tables().unwrap().is_empty() && served.session.memory().used_bytes > 0);
}
