//! Users with a name and a password: who is let in, what each may do, and that nobody uses another's handles.

mod served;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery, CommandStatementIngest,
    ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, CancelFlightInfoRequest, HandshakeRequest, Ticket};
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::users::{Role, Users, add};
use dovetail_server::security::{Secret, Security};
use futures::{TryStreamExt, stream};
use prost::Message;
use served::{Client, Served, refused};
use tonic::{Code, Request};

const TOKEN: &str = "a-token-that-nobody-guesses";
const AGE: Duration = Duration::from_secs(60);

/// A server with two who may write and one who may read, whose passwords are their names, twice.
fn served_with(token_age: Duration) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    for (name, role) in
        [("writer", Role::ReadWrite), ("another", Role::ReadWrite), ("reader", Role::ReadOnly)]
    {
        add(&file, name, role, &Secret::new(format!("{name}{name}"))).unwrap();
    }
    let users = Some(Arc::new(Users::read_with(&file, token_age).unwrap()));
    let security = Security { token: Some(Secret::new(TOKEN)), users, ..Security::default() };
    Served::with(security, Limits::default(), None)
}

/// A client that has signed in.
fn client(served: &Served, name: &str) -> Client {
    let mut client = served.client_without_token();
    let password = format!("{name}{name}");
    served.runtime.block_on(client.handshake(name, &password)).unwrap();
    client
}

fn run(served: &Served, client: &mut Client, sql: &str) -> Result<usize, FlightError> {
    served.runtime.block_on(async {
        let info = client.execute(sql.to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    })
}

#[test]
fn a_password_gives_a_token() {
    let served = served_with(AGE);
    let mut writer = client(&served, "writer");
    assert_ne!(writer.token().unwrap(), TOKEN);
    run(&served, &mut writer, "CREATE TABLE t AS SELECT 1 AS a").unwrap();
    assert_eq!(run(&served, &mut writer, "SELECT * FROM t").unwrap(), 1);
    for (name, password) in [("writer", "wrong"), ("nobody", "writerwriter"), ("", ""), ("reader", TOKEN)] {
        let mut client = served.client_without_token();
        let outcome = served.runtime.block_on(client.handshake(name, password));
        assert_eq!(outcome.is_ok(), password == TOKEN, "{name}");
    }
    let mut unknown = served.client_without_token();
    assert_eq!(refused(run(&served, &mut unknown, "SELECT 1")).0, Code::Unauthenticated);
    unknown.set_token("0123456789abcdef0123456789abcdef".to_owned());
    assert_eq!(refused(run(&served, &mut unknown, "SELECT 1")).0, Code::Unauthenticated);
    // Whoever has the token may do everything.
    run(&served, &mut served.client(), "DROP TABLE t").unwrap();
}

#[test]
fn a_token_gives_no_other_token() {
    let served = served_with(AGE);
    let mut writer = client(&served, "writer");
    let token = writer.token().unwrap().clone();
    let handshake = |client: &mut Client| {
        let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let answer = served.runtime.block_on(client.inner_mut().handshake(request)).unwrap();
        answer.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(handshake(&mut served.client_without_token()), format!("Bearer {token}"));
    assert_eq!(handshake(&mut writer), format!("Bearer {token}"));
}

#[test]
fn a_token_ends() {
    let served = served_with(Duration::ZERO);
    let mut writer = client(&served, "writer");
    let (code, message) = refused(run(&served, &mut writer, "SELECT 1"));
    assert!(code == Code::Unauthenticated && message.contains("sign in again"), "{message}");
}

#[test]
fn who_may_read_changes_nothing() {
    let served = served_with(AGE);
    served.session.execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    let mut reader = client(&served, "reader");
    assert_eq!(run(&served, &mut reader, "SELECT * FROM t").unwrap(), 1);
    run(&served, &mut reader, "SHOW TABLES").unwrap();
    for sql in [
        "CREATE TABLE u (a INTEGER)",
        "INSERT INTO t VALUES (2)",
        "DROP TABLE t",
        "CREATE VIEW v AS SELECT 1",
    ] {
        assert_eq!(refused(run(&served, &mut reader, sql)).0, Code::PermissionDenied, "{sql}");
        let update = served.runtime.block_on(reader.execute_update(sql.to_owned(), None));
        assert_eq!(refused(update).0, Code::PermissionDenied, "{sql}");
        let mut prepared = served.runtime.block_on(reader.prepare(sql.to_owned(), None)).unwrap();
        let update = served.runtime.block_on(prepared.execute_update());
        assert_eq!(refused(update).0, Code::PermissionDenied, "{sql}");
        assert_eq!(refused(served.runtime.block_on(prepared.execute())).0, Code::PermissionDenied, "{sql}");
    }
    let column: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let mut insert =
        served.runtime.block_on(reader.prepare("INSERT INTO t VALUES (?)".to_owned(), None)).unwrap();
    insert.set_parameters(rows.clone()).unwrap();
    assert_eq!(refused(served.runtime.block_on(insert.execute_update())).0, Code::PermissionDenied);
    assert_eq!(refused(served.runtime.block_on(insert.execute())).0, Code::PermissionDenied);
    let definition = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create as i32,
        if_exists: TableExistsOption::Append as i32,
    };
    let ingest = CommandStatementIngest {
        table: "t".to_owned(),
        table_definition_options: Some(definition),
        temporary: true,
        ..CommandStatementIngest::default()
    };
    let ingested = served.runtime.block_on(reader.execute_ingest(ingest, stream::iter([Ok(rows)])));
    assert_eq!(refused(ingested).0, Code::PermissionDenied);
    assert_eq!(served.session.execute("SELECT * FROM t").unwrap().rows(), 1);
    assert_eq!(served.session.tables().unwrap().len(), 1);
}

#[test]
fn nobody_uses_anothers_handles() {
    let served = served_with(AGE);
    let (mut writer, mut another) = (client(&served, "writer"), client(&served, "another"));
    let info = served.runtime.block_on(writer.execute("SELECT 1 AS a".to_owned(), None)).unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert_eq!(refused(served.runtime.block_on(another.do_get(ticket.clone()))).0, Code::NotFound);
    let cancel = CancelFlightInfoRequest { info: Some(info.clone()) };
    let cancel = Action::new("CancelFlightInfo", cancel.encode_to_vec());
    let cancelled = served.runtime.block_on(another.do_action(cancel));
    assert_eq!(refused(cancelled).0, Code::NotFound);
    assert_eq!(served.fetch(&mut writer, info).len(), 1);
    let request =
        ActionCreatePreparedStatementRequest { query: "SELECT 1 AS a".into(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let answer = served
        .runtime
        .block_on(async { writer.do_action(action).await.unwrap().message().await.unwrap().unwrap() });
    let prepared: ActionCreatePreparedStatementResult =
        Any::decode(answer.body).unwrap().unpack().unwrap().unwrap();
    let handle = prepared.prepared_statement_handle;
    let query = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let ticket = Ticket::new(query.as_any().encode_to_vec());
    assert_eq!(refused(served.runtime.block_on(another.do_get(ticket.clone()))).0, Code::NotFound);
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    let close = || Action::new("ClosePreparedStatement", close.as_any().encode_to_vec());
    assert_eq!(refused(served.runtime.block_on(another.do_action(close()))).0, Code::NotFound);
    served.runtime.block_on(writer.do_get(ticket)).unwrap();
    served.runtime.block_on(writer.do_action(close())).unwrap();
}
