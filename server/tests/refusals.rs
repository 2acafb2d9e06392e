//! What is refused is logged: once, with the user's name where there is one, and without what was shown as a secret.

mod served;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow_flight::Ticket;
use arrow_flight::error::FlightError;
use dovetail_engine::SessionOptions;
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::users::{Role, Users, add};
use dovetail_server::security::{Secret, Security};
use futures::TryStreamExt;
use served::{Client, SLOW, Served};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// More in one value than a user may hold.
const LARGE: &str = "SELECT string_agg(repeat(a.v, 10000), '' ORDER BY b.v) \
    FROM (VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g'), ('h'), ('i'), ('j')) a(v), \
    (VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g'), ('h'), ('i'), ('j'), ('k'), ('l')) b(v)";

static LINES: Mutex<Vec<String>> = Mutex::new(vec![]);

/// Keeps the warnings of our crates.
struct Log;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("dovetail") && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    for (name, role) in [("anna", Role::ReadWrite), ("bert", Role::ReadOnly)] {
        add(&file, name, role, &Secret::new(format!("secret of {name}"))).unwrap();
    }
    let users = Some(Arc::new(Users::read(&file).unwrap()));
    let token = Some(Secret::new("a-secret-that-nobody-guesses"));
    let memory_per_user = Some(1 << 20);
    let limits = Limits { running_per_user: 1, sessions_per_user: 1, memory_per_user, ..Limits::default() };
    let options = SessionOptions { threads: 2, max_result_rows: Some(2), ..SessionOptions::default() };
    Served::over(options, Security { token, users, ..Security::default() }, limits, None)
}

fn sign_in(served: &Served, name: &str) -> Client {
    let mut client = served.client_without_token();
    served.runtime.block_on(client.handshake(name, &format!("secret of {name}"))).unwrap();
    client
}

fn ticket(served: &Served, client: &mut Client, sql: &str) -> Result<Ticket, FlightError> {
    let info = served.runtime.block_on(client.execute(sql.to_owned(), None))?;
    Ok(info.endpoint[0].ticket.clone().unwrap())
}

fn fetch(served: &Served, client: &mut Client, ticket: Ticket) -> Result<usize, FlightError> {
    served.runtime.block_on(async {
        let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    })
}

/// A call is refused, and one line says so, with these words.
fn logged<T>(words: &[&str], outcome: impl FnOnce() -> Result<T, FlightError>) {
    LINES.lock().unwrap().clear();
    assert!(outcome().is_err(), "{words:?}");
    let lines = LINES.lock().unwrap();
    assert_eq!(lines.len(), 1, "{words:?}: {lines:?}");
    for word in words {
        assert!(lines[0].contains(word), "{word}: {lines:?}");
    }
    assert!(!lines[0].contains("secret"), "{lines:?}");
}

#[test]
fn what_is_refused_is_logged_once() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let served = &served();
    let mut stranger = served.client_without_token();
    let sign_in_wrongly = |name: &str| {
        let mut client = served.client_without_token();
        served.runtime.block_on(client.handshake(name, "another secret"))
    };
    logged(&["user=\"anna\"", "password is wrong"], || sign_in_wrongly("anna"));
    logged(&["user=\"nobody\""], || sign_in_wrongly("nobody"));
    logged(&["name and a password"], || ticket(served, &mut stranger, "SELECT 1"));
    stranger.set_token("a secret token".to_owned());
    logged(&["the token is not good"], || ticket(served, &mut stranger, "SELECT 1"));
    let (mut anna, mut bert) = (sign_in(served, "anna"), sign_in(served, "bert"));
    logged(&["user=\"bert\"", "only read"], || ticket(served, &mut bert, "CREATE TABLE t AS SELECT 1 AS a"));
    let hers = ticket(served, &mut anna, "SELECT 1").unwrap();
    logged(&["user=\"bert\"", "another's"], || fetch(served, &mut bert, hers));
    let long = ticket(served, &mut anna, "VALUES (1), (2), (3)").unwrap();
    logged(&["max_result_rows"], || fetch(served, &mut anna, long));
    let large = ticket(served, &mut anna, LARGE).unwrap();
    logged(&["aggregation", "--memory-per-user"], || fetch(served, &mut anna, large));
    ticket(served, &mut anna, "SET partitions = 2").unwrap();
    let mut again = sign_in(served, "anna");
    logged(&["user=\"anna\"", "1 sessions"], || ticket(served, &mut again, "SET partitions = 2"));
    let slow = ticket(served, &mut anna, SLOW).unwrap();
    let mut beside = sign_in(served, "anna");
    let running = served.runtime.spawn(async move { beside.do_get(slow).await.map(drop) });
    served.wait_until_running(true);
    let quick = ticket(served, &mut anna, "SELECT 1").unwrap();
    logged(&["user=\"anna\"", "of this user"], || fetch(served, &mut anna, quick));
    served.session.cancel_handle().cancel();
    assert!(served.runtime.block_on(running).unwrap().is_err());
    let mut keeper = served.client_without_token();
    let basic = |name: &str| {
        use base64::Engine;
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{name}:secret of {name}")))
    };
    keeper.set_header("authorization", basic("bert"));
    logged(&["user=\"bert\"", "needs a session"], || ticket(served, &mut keeper, "SET partitions = 2"));
}
