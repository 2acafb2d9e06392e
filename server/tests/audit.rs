//! The audit over Flight SQL: who has asked what, and who may see it.

mod served;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::users::{Role, Users, add};
use dovetail_server::security::{Secret, Security};
use futures::{TryStreamExt, stream};
use served::{Client, Served, refused};
use tonic::Code;

const TOKEN: &str = "a-token-that-nobody-guesses";

fn served(folder: &Path) -> Served {
    served_with(folder, Limits::default())
}

/// A server with one who may write and one who may read, whose passwords are their names, twice.
fn served_with(folder: &Path, limits: Limits) -> Served {
    let file = folder.join("users");
    for (name, role) in [("writer", Role::ReadWrite), ("reader", Role::ReadOnly)] {
        add(&file, name, role, &Secret::new(format!("{name}{name}"))).unwrap();
    }
    let users = Some(Arc::new(Users::read(&file).unwrap()));
    let security = Security { token: Some(Secret::new(TOKEN)), users, ..Security::default() };
    Served::with_state_and_limits(folder, security, limits)
}

/// A client that has signed in.
fn client(served: &Served, name: &str) -> Client {
    let mut client = served.client_without_token();
    let password = format!("{name}{name}");
    served.runtime.block_on(client.handshake(name, &password)).unwrap();
    client
}

fn run(served: &Served, client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    served.runtime.block_on(async {
        let info = client.execute(sql.to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        client.do_get(ticket).await?.try_collect().await
    })
}

/// The rows of a query, as text with commas.
fn lines(served: &Served, client: &mut Client, sql: &str) -> Vec<String> {
    let batches = run(served, client, sql).unwrap();
    let options = FormatOptions::default();
    let of_batch = |batch: &RecordBatch| -> Vec<String> {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let line =
            |row: usize| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(",");
        (0..batch.num_rows()).map(line).collect()
    };
    batches.iter().flat_map(of_batch).collect()
}

fn ingest(served: &Served, client: &mut Client, table: &str) -> i64 {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let definition = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create as i32,
        if_exists: TableExistsOption::Append as i32,
    };
    let command = CommandStatementIngest {
        table: table.to_owned(),
        table_definition_options: Some(definition),
        ..CommandStatementIngest::default()
    };
    served.runtime.block_on(client.execute_ingest(command, stream::iter([Ok(rows)]))).unwrap()
}

#[test]
fn who_has_asked_what_and_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    {
        let served = served(folder.path());
        let (mut writer, mut reader) = (client(&served, "writer"), client(&served, "reader"));
        assert_eq!(ingest(&served, &mut writer, "t"), 1000);
        run(&served, &mut writer, "CREATE TABLE m AS SELECT a FROM t WHERE a < 5").unwrap();
        assert_eq!(lines(&served, &mut reader, "SELECT count(*) FROM t"), ["1000"]);
        assert_eq!(refused(run(&served, &mut reader, "SELECT nothing FROM t")).0, Code::InvalidArgument);
        assert_eq!(refused(run(&served, &mut reader, "DROP TABLE m")).0, Code::PermissionDenied);
        assert_eq!(refused(run(&served, &mut reader, "SELECT 1 / (a - a) FROM t")).0, Code::InvalidArgument);
        let mut prepared =
            served.runtime.block_on(writer.prepare("INSERT INTO t VALUES (?)".to_owned(), None)).unwrap();
        let row: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        prepared.set_parameters(RecordBatch::try_from_iter([("a", row)]).unwrap()).unwrap();
        assert_eq!(served.runtime.block_on(prepared.execute_update()).unwrap(), 2);
    }
    // Another process, later.
    let served = served(folder.path());
    let mut administrator = served.client();
    let sql =
        "SELECT user_name, kind, sql, outcome, error_class, rows_out FROM system.audit ORDER BY statement_id";
    let expected = [
        "writer,ingest,,succeeded,,1000",
        "writer,command,CREATE TABLE m AS SELECT a FROM t WHERE a < 5,succeeded,,5",
        "reader,query,SELECT count(*) FROM t,succeeded,,1",
        "reader,unknown,SELECT nothing FROM t,failed,plan,0",
        "reader,unknown,DROP TABLE m,failed,denied,0",
        "reader,query,SELECT 1 / (a - a) FROM t,failed,execution,0",
        "writer,command,INSERT INTO t VALUES (?),succeeded,,2",
    ];
    assert_eq!(lines(&served, &mut administrator, sql), expected);
    let files = lines(
        &served,
        &mut administrator,
        "SELECT user_name, i['table_name'], i['rows_read'], i['etag'] IS NOT NULL FROM \
         (SELECT user_name, statement_id, unnest(inputs) AS i FROM system.audit WHERE sql LIKE 'SELECT count%') x",
    );
    assert_eq!(files, ["reader,t,1000,true"]);
    let outputs = lines(
        &served,
        &mut administrator,
        "SELECT o['table_name'], o['rows'], o['url'] LIKE 'file:///%/warehouse/t' FROM \
         (SELECT unnest(outputs) AS o, statement_id FROM system.audit WHERE kind = 'ingest') x",
    );
    assert_eq!(outputs, ["t,1000,true"]);
}

#[test]
fn who_may_only_read_does_not_see_what_others_have_asked() {
    let folder = tempfile::tempdir().unwrap();
    let served = served(folder.path());
    let (mut writer, mut reader) = (client(&served, "writer"), client(&served, "reader"));
    let sql = "SELECT count(*) FROM system.audit";
    let (code, message) = refused(run(&served, &mut reader, sql));
    assert!(code == Code::PermissionDenied && message.contains("read-write"), "{message}");
    assert_eq!(
        refused(run(&served, &mut reader, "EXPLAIN SELECT * FROM system.audit")).0,
        Code::PermissionDenied
    );
    assert_eq!(lines(&served, &mut writer, sql), ["2"], "both were noted");
    let tables = run(&served, &mut reader, "SELECT table_name FROM information_schema.tables").unwrap();
    let names: Vec<_> = tables.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten()).collect();
    assert!(names.contains(&"audit"), "{names:?}");
}

#[test]
fn what_limits_refuse_and_nobody_fetches_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let unfetched_age = Duration::from_millis(400);
    let served = served_with(
        folder.path(),
        Limits { running_per_user: 1, sessions_per_user: 1, unfetched_age, ..Limits::default() },
    );
    let promised = |client: &mut Client, sql: &str| {
        let info = served.runtime.block_on(client.execute(sql.to_owned(), None)).unwrap();
        info.endpoint[0].ticket.clone().unwrap()
    };
    let (mut writer, mut beside) = (client(&served, "writer"), client(&served, "writer"));
    run(&served, &mut writer, "SET partitions = 2").unwrap();
    assert_eq!(refused(run(&served, &mut beside, "SET partitions = 3")).0, Code::ResourceExhausted);
    let slow = promised(&mut writer, served::SLOW);
    let mut running = writer.clone();
    let call = served.runtime.spawn(async move { running.do_get(slow).await.map(drop) });
    served.wait_until_running(true);
    let ticket = promised(&mut writer, "SELECT 1");
    assert_eq!(refused(served.runtime.block_on(writer.do_get(ticket))).0, Code::ResourceExhausted);
    let command = refused(run(&served, &mut writer, "CREATE TABLE t AS SELECT 1 AS a"));
    assert_eq!(command.0, Code::ResourceExhausted);
    served.session.cancel_handle().cancel();
    assert!(served.runtime.block_on(call).unwrap().is_err());
    let sql = "SELECT sql, outcome, error_class FROM system.audit WHERE error_class IN ('refused', 'expired') \
        ORDER BY statement_id";
    let mut administrator = served.client();
    let refused_by_limits = ["SET partitions = 3", "SELECT 1", "CREATE TABLE t AS SELECT 1 AS a"]
        .map(|s| format!("{s},failed,refused"));
    let expected = [&refused_by_limits[..], &["SELECT 1,failed,expired".to_owned()]].concat();
    // Nobody has to ask for another result.
    let start = Instant::now();
    std::thread::sleep(2 * unfetched_age);
    loop {
        let told = lines(&served, &mut administrator, sql);
        if told == expected {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{told:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_goes_away_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let served = served(folder.path());
    let mut writer = client(&served, "writer");
    let sql = served::SLOW;
    let info = served.runtime.block_on(writer.execute(sql.to_owned(), None)).unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut going = writer.clone();
    let call = served.runtime.spawn(async move { going.do_get(ticket).await.map(|_| ()) });
    served.wait_until_running(true);
    call.abort();
    served.wait_until_running(false);
    let outcome = lines(&served, &mut writer, "SELECT user_name, outcome FROM system.audit");
    assert_eq!(outcome, ["writer,cancelled"]);
}
