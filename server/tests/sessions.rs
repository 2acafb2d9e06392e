//! Sessions of clients: which calls share one, what is each one's own, how one ends, and what each user may have.

mod served;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    CommandGetTables, CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, FlightDescriptor, FlightInfo};
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::users::{Role, Users, add};
use dovetail_server::security::{Secret, Security};
use futures::{TryStreamExt, stream};
use prost::Message;
use served::{Client, SLOW, Served, refused};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

const NAME: &str = "arrow_flight_session_id";
const TOKEN: &str = "a-token-that-nobody-guesses";

/// Short lives, so that a test sees their end.
const IDLE: Duration = Duration::from_secs(2);

fn served() -> Served {
    Served::new()
}

/// With two users, whose passwords are their names, twice.
fn served_with_users(limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    for (name, role) in [("anna", Role::ReadWrite), ("bert", Role::ReadOnly)] {
        add(&file, name, role, &Secret::new(format!("{name}{name}"))).unwrap();
    }
    let users = Some(Arc::new(Users::read(&file).unwrap()));
    let security = Security { token: Some(Secret::new(TOKEN)), users, ..Security::default() };
    Served::with(security, limits, None)
}

/// A client that keeps one cookie, as Flight's session middlewares do.
struct Browser<'a> {
    served: &'a Served,
    calls: FlightServiceClient<Channel>,
    authorization: Option<String>,
    cookie: Option<String>,
}

impl<'a> Browser<'a> {
    fn new(served: &'a Served) -> Browser<'a> {
        let endpoint = Endpoint::from_shared(served.address.to_string().replace("grpc", "http")).unwrap();
        let channel = served.runtime.block_on(endpoint.connect()).unwrap();
        Browser { served, calls: FlightServiceClient::new(channel), authorization: None, cookie: None }
    }

    /// One that shows a user's token.
    fn of_user(served: &'a Served, name: &str) -> Browser<'a> {
        let mut client = served.client_without_token();
        served.runtime.block_on(client.handshake(name, &format!("{name}{name}"))).unwrap();
        Browser { authorization: Some(format!("Bearer {}", client.token().unwrap())), ..Browser::new(served) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(cookie) = &self.cookie {
            request.metadata_mut().insert("cookie", format!("{NAME}={cookie}").parse().unwrap());
        }
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        }
        request
    }

    fn keep<T>(&mut self, outcome: Result<Response<T>, Status>) -> Result<T, Status> {
        let headers = match &outcome {
            Ok(response) => response.metadata(),
            Err(status) => status.metadata(),
        };
        if let Some(set) = headers.get("set-cookie") {
            let (pair, attributes) = set.to_str().unwrap().split_once(';').unwrap();
            let value = pair.strip_prefix(&format!("{NAME}=")).unwrap().to_owned();
            self.cookie = (!attributes.contains("Max-Age=0")).then_some(value);
        }
        outcome.map(Response::into_inner)
    }

    fn info(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let request = self.request(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let outcome = self.served.runtime.block_on(self.calls.get_flight_info(request));
        self.keep(outcome)
    }

    /// The message of a command, or the number of messages of a query's rows.
    fn run(&mut self, sql: &str) -> Result<usize, Status> {
        let info = self.info(sql)?;
        let request = self.request(info.endpoint[0].ticket.clone().unwrap());
        let outcome = self.served.runtime.block_on(self.calls.do_get(request));
        let rows = self.keep(outcome)?;
        self.served.runtime.block_on(rows.try_collect::<Vec<_>>()).map(|messages| messages.len())
    }

    fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
        let request = self.request(Action::new(name, body));
        let outcome = self.served.runtime.block_on(self.calls.do_action(request));
        let answers = self.keep(outcome)?;
        let answers = self.served.runtime.block_on(answers.try_collect::<Vec<_>>())?;
        Ok(answers.iter().flat_map(|a| a.body.to_vec()).collect())
    }
}

/// A client of arrow-flight's that shows the cookie of a browser.
fn client_of(served: &Served, browser: &Browser) -> Client {
    let mut client = served.client_without_token();
    client.set_header("cookie", format!("{NAME}={}", browser.cookie.as_ref().unwrap()));
    client
}

fn code<T>(outcome: Result<T, Status>) -> Code {
    outcome.err().map_or(Code::Ok, |status| status.code())
}

#[test]
fn two_cookies_are_two_sessions() {
    let served = served();
    served.session.execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    let (mut one, mut another) = (Browser::new(&served), Browser::new(&served));
    for browser in [&mut one, &mut another] {
        browser.run("SELECT 1").unwrap();
        assert_eq!(browser.cookie.as_deref(), Some("none"));
    }
    one.run("CREATE TEMP VIEW mine AS SELECT a + 1 AS b FROM t").unwrap();
    another.run("CREATE TEMP TABLE mine (c INTEGER, d INTEGER)").unwrap();
    assert!(one.cookie != another.cookie && one.cookie.as_deref() != Some("none"));
    assert_eq!(one.info("SELECT b FROM mine").map(drop).map_err(|e| e.code()), Ok(()));
    another.run("INSERT INTO mine VALUES (1, 2)").unwrap();
    another.run("SELECT c + d FROM mine").unwrap();
    assert_eq!(code(another.info("SELECT b FROM mine")), Code::InvalidArgument);
    // Everybody else sees neither.
    assert_eq!(code(Browser::new(&served).info("SELECT * FROM mine")), Code::InvalidArgument);
    assert_eq!(served.session.tables().unwrap().len(), 1);
    // Drivers list it as what it is.
    let mut client = client_of(&served, &another);
    let command = CommandGetTables { include_schema: false, ..CommandGetTables::default() };
    let info = served.runtime.block_on(client.get_tables(command)).unwrap();
    let tables = served.fetch(&mut client, info);
    let column = |name: &str| tables[0].column_by_name(name).unwrap().as_string::<i32>();
    let listed: Vec<_> = column("table_name").iter().zip(column("table_type")).collect();
    assert_eq!(listed, [(Some("mine"), Some("LOCAL TEMPORARY")), (Some("t"), Some("BASE TABLE"))]);
}

#[test]
fn settings_are_the_sessions() {
    let served = served();
    let (mut one, mut another) = (Browser::new(&served), Browser::new(&served));
    one.run("SELECT 1").unwrap();
    another.run("SELECT 1").unwrap();
    one.run("SET max_result_rows = 1").unwrap();
    let told = one.run("VALUES (1), (2)").unwrap_err();
    assert!(told.code() == Code::ResourceExhausted && told.message().contains("max_result_rows"), "{told}");
    another.run("VALUES (1), (2)").unwrap();
    one.run("RESET max_result_rows").unwrap();
    one.run("VALUES (1), (2)").unwrap();
    one.run("SET statement_timeout = '200ms'").unwrap();
    let told = one.run(SLOW).unwrap_err();
    assert!(told.message().contains("statement_timeout"), "{told}");
}

#[test]
fn without_a_session_nothing_is_left_or_lost() {
    let served = served();
    let mut client = served.client();
    for sql in ["SET partitions = 2", "CREATE TEMP VIEW v AS SELECT 1", "CREATE TEMP TABLE t (a INTEGER)"] {
        let (code, message) = refused(served.runtime.block_on(client.execute(sql.to_owned(), None)));
        assert!(code == Code::FailedPrecondition && message.contains("with_cookie_middleware"), "{message}");
        let update = refused(served.runtime.block_on(client.execute_update(sql.to_owned(), None)));
        assert_eq!(update.0, Code::FailedPrecondition, "{sql}");
    }
    assert_eq!(refused(ingest(&served, &mut client)).0, Code::FailedPrecondition);
    assert!(served.session.tables().unwrap().is_empty());
}

fn ingest(served: &Served, client: &mut Client) -> Result<i64, arrow_flight::error::FlightError> {
    let definition = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create as i32,
        if_exists: TableExistsOption::Append as i32,
    };
    let command = CommandStatementIngest {
        table: "mine".to_owned(),
        table_definition_options: Some(definition),
        temporary: true,
        ..CommandStatementIngest::default()
    };
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
    served.runtime.block_on(client.execute_ingest(command, stream::iter([Ok(rows)])))
}

#[test]
fn rows_are_put_into_temporary_tables() {
    let served = served();
    let mut browser = Browser::new(&served);
    browser.run("SELECT 1").unwrap();
    browser.run("SET partitions = 2").unwrap();
    let mut client = client_of(&served, &browser);
    for _ in 0..2 {
        assert_eq!(ingest(&served, &mut client).unwrap(), 2);
    }
    browser.run("SELECT a FROM mine").unwrap();
    let mut insert =
        served.runtime.block_on(client.prepare("INSERT INTO mine VALUES (?)".to_owned(), None)).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![3, 4, 5]));
    insert.set_parameters(RecordBatch::try_from_iter([("a", column)]).unwrap()).unwrap();
    assert_eq!(served.runtime.block_on(insert.execute_update()).unwrap(), 3);
    assert_eq!(
        served.query(&mut client, "SELECT a FROM mine").iter().map(|b| b.num_rows()).sum::<usize>(),
        7
    );
    assert!(served.session.tables().unwrap().is_empty() && served.session.memory().used_bytes > 0);
    served.runtime.block_on(insert.close()).unwrap();
    browser.act("CloseSession", vec![]).unwrap();
    assert_eq!(served.session.memory().used_bytes, 0);
}

#[test]
fn a_closed_session_is_gone_with_what_runs_in_it() {
    let served = served();
    let mut browser = Browser::new(&served);
    browser.run("SELECT 1").unwrap();
    browser.run("CREATE TEMP VIEW v AS SELECT 1 AS a").unwrap();
    let (old, info) = (browser.cookie.clone(), browser.info(SLOW).unwrap());
    let ticket = browser.request(info.endpoint[0].ticket.clone().unwrap());
    let mut calls = browser.calls.clone();
    let slow = served.runtime.spawn(async move {
        let rows = calls.do_get(ticket).await?.into_inner();
        rows.try_collect::<Vec<_>>().await
    });
    served.wait_until_running(true);
    // CloseSessionResult { status: CLOSED }
    assert_eq!(browser.act("CloseSession", vec![]).unwrap(), [0x08, 0x01]);
    assert_eq!(code(served.runtime.block_on(slow).unwrap()), Code::Cancelled);
    served.wait_until_running(false);
    // The client may begin another.
    assert_eq!(code(browser.run("SELECT * FROM v")), Code::InvalidArgument);
    browser.run("SET partitions = 2").unwrap();
    // The old one does not come back, and its client is not served as if it had never had one.
    let mut late = Browser { cookie: old, ..Browser::new(&served) };
    let told = late.run("SELECT 1").unwrap_err();
    assert!(told.code() == Code::FailedPrecondition && told.message().contains("ended"), "{told}");
    assert_eq!(late.cookie, None);
    late.run("SELECT 1").unwrap();
}

#[test]
fn an_idle_session_ends() {
    let served = Served::with(Security::default(), Limits { session_idle: IDLE, ..Limits::default() }, None);
    let mut browser = Browser::new(&served);
    browser.run("SELECT 1").unwrap();
    browser.run("CREATE TEMP TABLE t AS SELECT 1 AS a").unwrap();
    for _ in 0..3 {
        std::thread::sleep(IDLE / 2);
        browser.run("SELECT a FROM t").unwrap();
    }
    assert!(served.session.memory().used_bytes > 0);
    std::thread::sleep(IDLE * 3);
    // Without a call: its memory is not kept until somebody comes.
    assert_eq!(served.session.memory().used_bytes, 0);
    assert_eq!(code(browser.run("SELECT 1")), Code::FailedPrecondition);
}

#[test]
fn a_sign_in_has_a_session_of_its_own() {
    let served = served_with_users(Limits { session_idle: IDLE, ..Limits::default() });
    let (mut one, mut another) = (Browser::of_user(&served, "bert"), Browser::of_user(&served, "bert"));
    // He may not write, but what is his own is his own.
    one.run("CREATE TEMP TABLE t AS SELECT 1 AS a").unwrap();
    one.run("INSERT INTO t VALUES (2)").unwrap();
    one.run("SET partitions = 2").unwrap();
    assert_eq!(one.cookie, None);
    one.run("SELECT a FROM t").unwrap();
    assert_eq!(code(another.run("SELECT a FROM t")), Code::InvalidArgument);
    assert_eq!(code(one.run("CREATE TABLE u (a INTEGER)")), Code::PermissionDenied);
    one.run("DROP TABLE t").unwrap();
    std::thread::sleep(IDLE * 3);
    // The token goes with the session: nobody goes on without its settings unknowingly.
    assert_eq!(code(one.run("SELECT 1")), Code::Unauthenticated);
    another.run("SELECT 1").unwrap();
}

#[test]
fn a_session_is_its_users() {
    let served = served_with_users(Limits::default());
    let basic = |name: &str| {
        use base64::Engine;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{name}:{name}{name}"));
        Browser { authorization: Some(format!("Basic {pair}")), ..Browser::new(&served) }
    };
    let (mut anna, mut bert) = (basic("anna"), basic("bert"));
    anna.run("SELECT 1").unwrap();
    anna.run("CREATE TEMP VIEW v AS SELECT 1 AS a").unwrap();
    bert.cookie = anna.cookie.clone();
    assert_eq!(code(bert.run("SELECT * FROM v")), Code::FailedPrecondition);
    bert.cookie = anna.cookie.clone();
    bert.act("CloseSession", vec![]).unwrap();
    anna.run("SELECT * FROM v").unwrap();
    let administrator = Some(format!("Bearer {TOKEN}"));
    let cookie = anna.cookie.clone();
    let mut another = Browser { authorization: administrator, cookie, ..Browser::new(&served) };
    assert_eq!(code(another.run("SELECT * FROM v")), Code::FailedPrecondition);
}

#[test]
fn a_user_has_a_number_of_sessions_and_of_statements() {
    let limits = Limits { sessions_per_user: 2, sessions: 3, running_per_user: 1, ..Limits::default() };
    let served = served_with_users(limits);
    let begin = |name: &str| Browser::of_user(&served, name).run("SET partitions = 2");
    begin("anna").unwrap();
    begin("anna").unwrap();
    let told = begin("anna").unwrap_err();
    assert!(told.code() == Code::ResourceExhausted && told.message().contains("2 sessions"), "{told}");
    begin("bert").unwrap();
    let told = begin("bert").unwrap_err();
    assert!(told.code() == Code::ResourceExhausted && told.message().contains("3 sessions"), "{told}");
    let mut anna = Browser::of_user(&served, "anna");
    let info = anna.info(SLOW).unwrap();
    let ticket = anna.request(info.endpoint[0].ticket.clone().unwrap());
    let mut calls = anna.calls.clone();
    let slow = served.runtime.spawn(async move { calls.do_get(ticket).await.map(drop) });
    served.wait_until_running(true);
    let told = anna.run("SELECT 1").unwrap_err();
    assert!(told.code() == Code::ResourceExhausted && told.message().contains("of this user"), "{told}");
    let mut bert = Browser::of_user(&served, "bert");
    bert.run("SELECT 1").unwrap();
    // Who may only read does not see what others ask.
    let seen_by = |client: &mut Client| {
        let rows = served.query(client, "SELECT user_name FROM system.queries WHERE sql LIKE 'WITH d%'");
        rows.iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>().iter())
            .flatten()
            .map(str::to_owned)
            .collect()
    };
    let mut reader = served.client_without_token();
    served.runtime.block_on(reader.handshake("bert", "bertbert")).unwrap();
    let (by_reader, by_all): (Vec<String>, Vec<String>) =
        (seen_by(&mut reader), seen_by(&mut served.client()));
    assert_eq!((by_reader, by_all), (vec![], vec!["anna".to_owned()]));
    served.session.cancel_handle().cancel();
    assert_eq!(code(served.runtime.block_on(slow).unwrap()), Code::Cancelled);
}

/// `SetSessionOptionsRequest` with text values, as Flight.proto has it.
fn options(pairs: &[(&str, &str)]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let entry = |(name, text): &(&str, &str)| {
        let value = field(1, text.as_bytes());
        field(1, &[field(1, name.as_bytes()), field(2, &value)].concat())
    };
    pairs.iter().flat_map(entry).collect()
}

#[test]
fn options_are_settings() {
    let served = served();
    let mut browser = Browser::new(&served);
    // The first call of all: options begin a session.
    let none =
        browser.act("SetSessionOptions", options(&[("max_result_rows", "1"), ("catalog", "dovetail")]));
    assert_eq!((none.unwrap(), browser.cookie.as_deref() == Some("none")), (vec![], false));
    assert_eq!(code(browser.run("VALUES (1), (2)")), Code::ResourceExhausted);
    let got = browser.act("GetSessionOptions", vec![]).unwrap();
    for (name, value) in [("max_result_rows", "1"), ("catalog", "dovetail"), ("schema", "main")] {
        let entry = options(&[(name, value)]);
        assert!(got.windows(entry.len()).any(|w| w == entry), "{name}");
    }
    // Errors by name: INVALID_NAME, INVALID_VALUE.
    let problem = |name: &str, value: u8| {
        let entry = [&[0x0A, name.len() as u8], name.as_bytes(), &[0x12, 2, 0x08, value]].concat();
        [&[0x0A, entry.len() as u8], entry.as_slice()].concat()
    };
    for (name, text, value) in
        [("nothing", "1", 1), ("threads", "1", 1), ("partitions", "x", 2), ("schema", "y", 2)]
    {
        let told = browser.act("SetSessionOptions", options(&[(name, text)])).unwrap();
        assert_eq!(told, problem(name, value), "{name}");
    }
    assert_eq!(code(browser.act("SetSessionOptions", vec![0xFF])), Code::InvalidArgument);
    // Whoever names the catalog it is in already needs no session.
    let mut stranger = Browser::new(&served);
    stranger.act("SetSessionOptions", options(&[("catalog", "dovetail"), ("schema", "main")])).unwrap();
    assert_eq!(stranger.cookie.as_deref(), Some("none"));
}

#[test]
fn the_shells_connection_is_a_session() {
    let served = served();
    let (one, another) = (served.remote(), served.remote());
    one.stream("SET max_result_rows = 1").unwrap();
    one.stream("CREATE TEMP TABLE t AS SELECT 5 AS a").unwrap();
    assert_eq!(one.stream("SELECT a FROM t").unwrap().count(), 1);
    assert!(one.tables().unwrap().iter().any(|t| t.name == "t" && t.is_temporary));
    assert!(another.stream("SELECT a FROM t").is_err() && another.tables().unwrap().is_empty());
    assert!(served.session.memory().used_bytes > 0);
    drop(one);
    // The server has heard of its end.
    assert_eq!(served.session.memory().used_bytes, 0);
}
