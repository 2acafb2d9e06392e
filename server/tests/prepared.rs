//! Prepared statements with parameters, as drivers use them: prepare always, bind by DoPut, run repeatedly.

mod served;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, LargeStringArray, ListArray, NullArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::client::PreparedStatement;
use arrow_flight::sql::{
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, DoPutPreparedStatementResult,
    DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use dovetail_server::security::ClientAuth;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use served::{Client, Served, refused};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

type Prepared = PreparedStatement<InterceptedService<Channel, ClientAuth>>;

fn prepare(served: &Served, client: &mut Client, sql: &str) -> Prepared {
    served.runtime.block_on(client.prepare(sql.to_owned(), None)).unwrap()
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let named = columns.into_iter().enumerate().map(|(i, c)| (format!("{i}"), c, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn numbers(values: impl Into<Vec<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values.into()))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// The rows that a query has with these values.
fn run(served: &Served, client: &mut Client, query: &mut Prepared, values: Vec<ArrayRef>) -> RecordBatch {
    query.set_parameters(batch(values)).unwrap();
    let info = served.runtime.block_on(query.execute()).unwrap();
    let rows = served.fetch(client, info);
    arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap()
}

#[test]
fn the_parameters_are_told_with_their_types() {
    let served = Served::new();
    let mut client = served.client();
    served.session.execute("CREATE TABLE t (a INTEGER, b VARCHAR, d DATE)").unwrap();
    let types = |prepared: &Prepared| {
        let fields = prepared.parameter_schema().unwrap().fields().clone();
        fields.iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()
    };
    let query = prepare(&served, &mut client, "SELECT b, ? AS x FROM t WHERE a = ? AND b LIKE ?");
    assert_eq!(types(&query), [DataType::Null, DataType::Int32, DataType::Utf8]);
    assert_eq!(query.dataset_schema().unwrap().fields().len(), 2);
    let insert = prepare(&served, &mut client, "INSERT INTO t VALUES ($1, $2, $3)");
    assert_eq!(types(&insert), [DataType::Int32, DataType::Utf8, DataType::Date32]);
    assert!(insert.dataset_schema().unwrap().fields().is_empty());
    assert!(types(&prepare(&served, &mut client, "SELECT 1")).is_empty());
    let mixed = served.runtime.block_on(client.prepare("SELECT ?, $1".to_owned(), None));
    assert!(mixed.err().unwrap().to_string().contains("all numbered"));
}

#[test]
fn a_query_runs_with_the_values_that_are_bound() {
    let served = Served::new();
    let mut client = served.client();
    served
        .session
        .execute("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'one'), (2, 'two')) v(a, b)")
        .unwrap();
    let mut query = prepare(&served, &mut client, "SELECT b FROM t WHERE a = ? ORDER BY b");
    for (value, expected) in [(1, "one"), (2, "two")] {
        let rows = run(&served, &mut client, &mut query, vec![numbers([value])]);
        assert_eq!(rows.column(0).as_string::<i32>().value(0), expected);
    }
    // Text is a value, whatever it looks like.
    let mut query = prepare(&served, &mut client, "SELECT count(*) FROM t WHERE b = $1 OR b = $1");
    let rows = run(&served, &mut client, &mut query, vec![texts(&[Some("x' OR 'a' = 'a")])]);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), 0);
    // Not bound, and bound to too few or too many.
    let mut query = prepare(&served, &mut client, "SELECT ? + ?");
    let unbound = refused(served.runtime.block_on(query.execute()));
    assert!(unbound.0 == Code::InvalidArgument && unbound.1.contains("2 parameters"), "{unbound:?}");
    for (values, words) in [
        (vec![numbers([1])], "2 parameters, and 1 value was given"),
        (vec![numbers([1, 2]), numbers([1, 2])], "one row of parameters, and 2 are bound"),
        (vec![numbers([]), numbers([])], "one row of parameters, and 0 are bound"),
        (vec![numbers([1]), texts(&[Some("much")])], "Int64 + Utf8View"),
    ] {
        query.set_parameters(batch(values)).unwrap();
        let outcome = served.runtime.block_on(query.execute()).and_then(|info| {
            let ticket = info.endpoint[0].ticket.clone().unwrap();
            served.runtime.block_on(async { client.do_get(ticket).await?.try_collect::<Vec<_>>().await })
        });
        let (code, message) = refused(outcome);
        assert!(code == Code::InvalidArgument && message.contains(words), "{words}: {message}");
    }
}

#[test]
fn values_of_all_types_come_back_as_they_are() {
    let served = Served::new();
    let mut client = served.client();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
    let dictionary: DictionaryArray<Int32Type> = vec!["key"].into_iter().collect();
    let values: Vec<(ArrayRef, ArrayRef)> = vec![
        (numbers([7]), numbers([7])),
        (Arc::new(Float64Array::from(vec![0.5])), Arc::new(Float64Array::from(vec![0.5]))),
        (Arc::new(BooleanArray::from(vec![true])), Arc::new(BooleanArray::from(vec![true]))),
        (texts(&[Some("text")]), texts(&[Some("text")])),
        (Arc::new(LargeStringArray::from(vec!["large"])), texts(&[Some("large")])),
        (Arc::new(StringViewArray::from(vec!["view"])), texts(&[Some("view")])),
        (Arc::new(dictionary), texts(&[Some("key")])),
        (texts(&[None]), texts(&[None])),
        (Arc::new(NullArray::new(1)), Arc::new(NullArray::new(1))),
        (Arc::new(Date32Array::from(vec![19_000])), Arc::new(Date32Array::from(vec![19_000]))),
        (Arc::new(list.clone()), Arc::new(list)),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("Europe/Berlin")),
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("Europe/Berlin")),
        ),
        (
            Arc::new(Decimal128Array::from(vec![12345]).with_precision_and_scale(38, 2).unwrap()),
            Arc::new(Decimal128Array::from(vec![12345]).with_precision_and_scale(38, 2).unwrap()),
        ),
    ];
    let mut query = prepare(&served, &mut client, "SELECT ? AS x");
    for (value, expected) in values {
        let rows = run(&served, &mut client, &mut query, vec![value.clone()]);
        assert_eq!(rows.column(0).as_ref(), expected.as_ref(), "{}", value.data_type());
    }
}

#[test]
fn an_update_runs_for_each_row_of_parameters() {
    let served = Served::new();
    let mut client = served.client();
    served.session.execute("CREATE TABLE t (a INTEGER, b VARCHAR)").unwrap();
    let count = |sql: &str| served.session.execute(sql).unwrap().rows();
    let mut insert = prepare(&served, &mut client, "INSERT INTO t VALUES (?, ?)");
    insert.set_parameters(batch(vec![numbers([1, 2, 3]), texts(&[Some("a"), None, Some("c")])])).unwrap();
    assert_eq!(served.runtime.block_on(insert.execute_update()).unwrap(), 3);
    // As a client does that calls everything a query: at once, whether or not the result is fetched.
    let info = served.runtime.block_on(insert.execute()).unwrap();
    assert_eq!(count("SELECT * FROM t"), 6);
    assert!(served.fetch(&mut client, info).is_empty());
    assert_eq!(count("SELECT * FROM t WHERE b IS NULL"), 2);
    // One value that does not fit, and nothing is inserted.
    insert.set_parameters(batch(vec![numbers([4, i64::MAX]), texts(&[None, None])])).unwrap();
    let (code, message) = refused(served.runtime.block_on(insert.execute_update()));
    assert!(code == Code::InvalidArgument && message.contains("row 2 of the parameters"), "{message}");
    insert.set_parameters(batch(vec![numbers([]), texts(&[])])).unwrap();
    assert_eq!(served.runtime.block_on(insert.execute_update()).unwrap(), 0);
    assert_eq!(count("SELECT * FROM t"), 6);
    insert.set_parameters(batch(vec![numbers([1])])).unwrap();
    assert!(refused(served.runtime.block_on(insert.execute_update())).1.contains("2 parameters"));
}

#[test]
fn rows_may_come_with_the_update_itself_and_behind_a_bare_command() {
    let served = Served::new();
    let mut client = served.client();
    served.session.execute("CREATE TABLE t (a INTEGER)").unwrap();
    let action = arrow_flight::Action::new(
        "CreatePreparedStatement",
        arrow_flight::sql::ActionCreatePreparedStatementRequest {
            query: "INSERT INTO t VALUES (?)".into(),
            transaction_id: None,
        }
        .as_any()
        .encode_to_vec(),
    );
    let answer = served.runtime.block_on(async {
        client.inner_mut().do_action(action).await.unwrap().into_inner().message().await.unwrap().unwrap()
    });
    let any = arrow_flight::sql::Any::decode(answer.body).unwrap();
    let prepared: arrow_flight::sql::ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
    assert!(prepared.dataset_schema.is_empty());
    let handle = prepared.prepared_statement_handle;
    let rows = batch(vec![numbers([1, 2])]);
    let encoded = |descriptor: Option<FlightDescriptor>| {
        let stream = FlightDataEncoderBuilder::new().with_flight_descriptor(descriptor);
        let stream =
            stream.with_schema(rows.schema()).build(stream::iter([Ok(rows.clone()), Ok(rows.clone())]));
        served.runtime.block_on(stream.try_collect::<Vec<_>>()).unwrap()
    };
    let mut put = |messages: Vec<FlightData>| -> PutResult {
        served.runtime.block_on(async {
            let mut answer = client.inner_mut().do_put(stream::iter(messages)).await.unwrap().into_inner();
            answer.next().await.unwrap().unwrap()
        })
    };
    let update = CommandPreparedStatementUpdate { prepared_statement_handle: handle.clone() };
    let update = FlightDescriptor::new_cmd(update.as_any().encode_to_vec());
    let answer = put(encoded(Some(update.clone())));
    assert_eq!(DoPutUpdateResult::decode(answer.app_metadata).unwrap().record_count, 4);
    let query = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let bare = FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd(query.as_any().encode_to_vec())),
        ..FlightData::default()
    };
    let answer = put([vec![bare], encoded(None)].concat());
    let bound = DoPutPreparedStatementResult::decode(answer.app_metadata).unwrap();
    assert_eq!(bound.prepared_statement_handle, Some(handle));
    let bare = FlightData { flight_descriptor: Some(update), ..FlightData::default() };
    let answer = put(vec![bare]);
    assert_eq!(DoPutUpdateResult::decode(answer.app_metadata).unwrap().record_count, 4);
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 8);
}

#[test]
fn hostile_parameters_are_refused() {
    let served = Served::new();
    let mut client = served.client();
    let mut query = prepare(&served, &mut client, "SELECT ? AS x");
    let ours = run(&served, &mut client, &mut query, vec![numbers([1])]);
    assert_eq!(ours.schema().fields().len(), 1);
    let command = |handle: &'static [u8]| {
        let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.into() };
        FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
    };
    let schema = Arc::new(Schema::empty());
    let stream =
        FlightDataEncoderBuilder::new().with_schema(schema).with_flight_descriptor(Some(command(b"x")));
    let messages = served.runtime.block_on(stream.build(stream::empty()).try_collect::<Vec<_>>()).unwrap();
    let mut put = |messages: Vec<FlightData>| {
        let sent = served.runtime.block_on(client.inner_mut().do_put(stream::iter(messages)));
        sent.expect_err("the call should be refused").code()
    };
    assert_eq!(put(messages), Code::NotFound);
    let garbage = FlightData {
        flight_descriptor: Some(command(b"x")),
        data_header: vec![0xff; 64].into(),
        data_body: vec![0; 64].into(),
        ..FlightData::default()
    };
    // What is sent for a statement that is not there is not looked at.
    assert_eq!(put(vec![garbage]), Code::NotFound);
}
