//! Flight SQL as drivers use it: statements, prepared statements, listings, refusals.

mod served;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use futures::TryStreamExt;
use served::{Served, refused};
use tonic::Code;

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[test]
fn a_query_has_the_schema_that_was_told_and_plain_types() {
    let served = Served::new();
    let mut client = served.client();
    let batches = served.query(
        &mut client,
        "SELECT a, b, [b] AS list, {'x': b} AS s, DATE '2024-02-29' AS d, CAST(1.5 AS DECIMAL(10, 2)) AS n, \
         INTERVAL '1' DAY AS i, arrow_cast(b, 'Dictionary(Int32, Utf8)') AS dict \
         FROM (VALUES (1, 'x'), (2, NULL)) t(a, b) ORDER BY a",
    );
    assert_eq!(rows(&batches), 2);
    let schema = batches[0].schema();
    let types: Vec<String> = schema.fields().iter().map(|f| f.data_type().to_string()).collect();
    assert!(!types.iter().any(|t| t.contains("View") || t.contains("Dictionary")), "{types:?}");
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(batches[0].column(1).as_string::<i32>().value(0), "x");
    assert_eq!(schema.field(5).metadata()["ARROW:FLIGHT:SQL:SCALE"], "2");
    assert_eq!(schema.field(5).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "DECIMAL");
}

#[test]
fn no_rows_still_have_a_schema() {
    let served = Served::new();
    let mut client = served.client();
    assert_eq!(rows(&served.query(&mut client, "SELECT 1 AS a WHERE 1 = 2")), 0);
    assert_eq!(rows(&served.query(&mut client, "SHOW TABLES")), 0);
    assert!(rows(&served.query(&mut client, "EXPLAIN SELECT 1")) > 0);
}

#[test]
fn large_results_come_in_small_messages() {
    let served = Served::new();
    let mut client = served.client();
    let digits = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let sql = format!(
        "SELECT a.v + b.v * 10 + c.v * 100 + d.v * 1000 AS n, repeat('x', 1000) AS t \
         FROM {digits} a(v), {digits} b(v), {digits} c(v), {digits} d(v)"
    );
    let info = served.runtime.block_on(client.execute(sql, None)).unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let messages: Vec<FlightData> = served.runtime.block_on(async {
        let inner = client.inner_mut();
        inner.do_get(ticket).await.unwrap().into_inner().try_collect().await.unwrap()
    });
    assert!(messages.len() > 5);
    assert!(messages.iter().all(|m| m.data_body.len() < 2_100_000));
}

#[test]
fn a_command_runs_once_whether_or_not_its_result_is_fetched() {
    let served = Served::new();
    let mut client = served.client();
    let run = |client: &mut served::Client, sql: &str| {
        served.runtime.block_on(client.execute(sql.to_owned(), None)).unwrap()
    };
    run(&mut client, "CREATE TABLE t AS SELECT 1 AS a");
    let info = run(&mut client, "INSERT INTO t VALUES (2)");
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 2);
    assert_eq!(rows(&served.fetch(&mut client, info)), 0);
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 2);
    let inserted = client.execute_update("INSERT INTO t VALUES (3), (4)".to_owned(), None);
    assert_eq!(served.runtime.block_on(inserted).unwrap(), 2);
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 4);
    let query = served.runtime.block_on(client.execute_update("SELECT 1".to_owned(), None));
    assert_eq!(refused(query).0, Code::InvalidArgument);
}

#[test]
fn prepared_statements() {
    let served = Served::new();
    let mut client = served.client();
    served.session.execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    let mut query = served.runtime.block_on(client.prepare("SELECT a FROM t".to_owned(), None)).unwrap();
    assert_eq!(query.dataset_schema().unwrap().fields().len(), 1);
    let mut insert =
        served.runtime.block_on(client.prepare("INSERT INTO t VALUES (2)".to_owned(), None)).unwrap();
    assert!(insert.dataset_schema().unwrap().fields().is_empty());
    for times in 1..3 {
        assert_eq!(served.runtime.block_on(insert.execute_update()).unwrap(), 1);
        let info = served.runtime.block_on(query.execute()).unwrap();
        assert_eq!(rows(&served.fetch(&mut client, info)), 1 + times);
    }
    served.runtime.block_on(insert.clone().close()).unwrap();
    assert_eq!(refused(served.runtime.block_on(insert.execute_update())).0, Code::NotFound);
}

#[test]
fn listings() {
    let served = Served::new();
    let mut client = served.client();
    served.session.execute("CREATE TABLE alpha AS SELECT 1 AS a, 'x' AS b").unwrap();
    served.session.execute("CREATE VIEW beta AS SELECT a FROM alpha").unwrap();
    let mut list = |command: CommandGetTables| {
        let info = served.runtime.block_on(client.get_tables(command)).unwrap();
        served.fetch(&mut client, info).pop().unwrap()
    };
    let all = list(CommandGetTables::default());
    assert_eq!((all.num_rows(), all.num_columns()), (2, 4));
    let pattern = Some("%ph_".to_owned());
    let some = list(CommandGetTables { table_name_filter_pattern: pattern, ..Default::default() });
    assert_eq!(some.column_by_name("table_name").unwrap().as_string::<i32>().value(0), "alpha");
    assert_eq!(some.num_rows(), 1);
    let views = list(CommandGetTables {
        table_types: vec!["VIEW".to_owned()],
        include_schema: true,
        ..Default::default()
    });
    assert_eq!((views.num_rows(), views.num_columns()), (1, 5));
    let tables = list(CommandGetTables { table_types: vec!["TABLE".to_owned()], ..Default::default() });
    assert_eq!(tables.num_rows(), 1);
    let catalogs = served.runtime.block_on(client.get_catalogs()).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, catalogs)), 1);
    let schemas = served.runtime.block_on(client.get_db_schemas(CommandGetDbSchemas::default())).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, schemas)), 1);
    let types = served.runtime.block_on(client.get_table_types()).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, types)), 3);
    let infos = served.runtime.block_on(client.get_sql_info(vec![])).unwrap();
    assert!(rows(&served.fetch(&mut client, infos)) >= 30);
    let name = served.runtime.block_on(client.get_sql_info(vec![SqlInfo::FlightSqlServerName])).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, name)), 1);
    let types =
        served.runtime.block_on(client.get_xdbc_type_info(CommandGetXdbcTypeInfo::default())).unwrap();
    assert!(rows(&served.fetch(&mut client, types)) >= 15);
    let keys = served.runtime.block_on(client.get_primary_keys(Default::default())).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, keys)), 0);
    let keys = served.runtime.block_on(client.get_exported_keys(Default::default())).unwrap();
    assert_eq!(rows(&served.fetch(&mut client, keys)), 0);
    // The names that were listed are names that SQL takes.
    assert_eq!(rows(&served.query(&mut client, "SELECT * FROM \"dovetail\".\"main\".\"beta\"")), 1);
}

#[test]
fn errors_have_a_class_and_the_users_paragraph() {
    let served = Served::new();
    let mut client = served.client();
    for (sql, code, words) in [
        ("SELEC 1", Code::InvalidArgument, "line 1"),
        ("SELECT a FROM nowhere", Code::InvalidArgument, "nowhere"),
        ("SELECT 1; SELECT 2", Code::InvalidArgument, "one statement"),
        ("COPY (SELECT 1) TO 'x'", Code::Unimplemented, "COPY"),
        ("DROP TABLE nowhere", Code::InvalidArgument, "nowhere"),
    ] {
        let (got, message) = refused(served.runtime.block_on(client.execute(sql.to_owned(), None)));
        assert!(got == code && message.contains(words), "{sql}: {got:?} {message}");
    }
    // At run time, when the rows are asked for.
    let info = served.runtime.block_on(client.execute("SELECT 1 / (1 - 1) AS x".to_owned(), None));
    if let Ok(info) = info {
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let (code, message) = refused(served.runtime.block_on(client.do_get(ticket)));
        assert_eq!((code, message.as_str()), (Code::InvalidArgument, "division by zero"));
    }
    let transaction = served.runtime.block_on(client.begin_transaction());
    assert!(transaction.unwrap_err().to_string().contains("transactions"));
}

#[test]
fn garbage_is_refused_and_the_server_goes_on() {
    let served = Served::new();
    let mut client = served.client();
    let runtime = &served.runtime;
    for garbage in [&b""[..], b"garbage", &[0xff; 1000], &[0x0a, 0x05, b'x']] {
        let ticket = Ticket::new(garbage.to_vec());
        refused(runtime.block_on(client.do_get(ticket)));
        let inner: &mut FlightServiceClient<_> = client.inner_mut();
        let descriptor = FlightDescriptor::new_cmd(garbage.to_vec());
        runtime.block_on(inner.get_flight_info(descriptor.clone())).unwrap_err();
        runtime.block_on(inner.get_schema(descriptor.clone())).unwrap_err();
        runtime.block_on(inner.poll_flight_info(descriptor.clone())).unwrap_err();
        let data = FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() };
        runtime.block_on(inner.do_put(futures::stream::iter([data]))).unwrap_err();
        for action in ["CancelFlightInfo", "CreatePreparedStatement", "CancelQuery", "NoSuchAction"] {
            let action = Action::new(action, garbage.to_vec());
            runtime.block_on(inner.do_action(action)).unwrap_err();
        }
    }
    let nothing = futures::stream::iter(Vec::<FlightData>::new());
    runtime.block_on(client.inner_mut().do_put(nothing)).unwrap_err();
    let long = format!("SELECT '{}'", "x".repeat(20 << 20));
    refused(runtime.block_on(client.execute(long, None)));
    assert_eq!(rows(&served.query(&mut client, "SELECT 1")), 1);
}

#[test]
fn a_schema_without_running_and_a_poll() {
    use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
    use prost::Message;
    let served = Served::new();
    let mut client = served.client();
    let command = |query: &str| {
        let command = CommandStatementQuery { query: query.to_owned(), transaction_id: None };
        FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
    };
    let inner = client.inner_mut();
    let schema = served.runtime.block_on(inner.get_schema(command("SELECT 1 AS a, 'x' AS b"))).unwrap();
    let schema = arrow::datatypes::Schema::try_from(schema.into_inner()).unwrap();
    assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
    served.runtime.block_on(inner.get_schema(command("CREATE TABLE t (a INTEGER)"))).unwrap();
    assert!(served.session.tables().unwrap().is_empty());
    let polled =
        served.runtime.block_on(inner.poll_flight_info(command("SELECT 1 AS a"))).unwrap().into_inner();
    assert_eq!((polled.flight_descriptor, polled.progress), (None, Some(1.0)));
    assert_eq!(rows(&served.fetch(&mut client, polled.info.unwrap())), 1);
}
