//! PollFlightInfo: long queries without a call that is held open.

mod served;

use std::time::{Duration, Instant};

use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, PollInfo,
};
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::Security;
use futures::TryStreamExt;
use prost::Message;
use served::{Client, SLOW, Served, refused};
use tonic::{Code, Status};

/// Longer than a poll takes, and shorter than a query that hangs.
const SOON: Duration = Duration::from_secs(3);
const HANGS: Duration = Duration::from_secs(120);

fn statement(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn poll(served: &Served, client: &mut Client, descriptor: FlightDescriptor) -> Result<PollInfo, Status> {
    let start = Instant::now();
    let answer = served.runtime.block_on(client.inner_mut().poll_flight_info(descriptor));
    assert!(start.elapsed() < SOON, "a poll took {:?}", start.elapsed());
    answer.map(|a| a.into_inner())
}

/// Polls until the query is complete; what progress was told on the way.
fn poll_to_the_end(served: &Served, client: &mut Client, sql: &str) -> Result<(PollInfo, Vec<f64>), Status> {
    let start = Instant::now();
    let mut answer = poll(served, client, statement(sql))?;
    let mut told = vec![];
    loop {
        told.push(answer.progress.unwrap());
        let Some(next) = answer.flight_descriptor.clone() else { return Ok((answer, told)) };
        assert!(answer.expiration_time.is_some());
        assert!(start.elapsed() < HANGS, "the query hangs at {told:?}");
        answer = poll(served, client, next)?;
    }
}

/// Takes a few seconds, in several parts of about the same size that have nothing in common.
fn in_parts() -> String {
    // The engine is many times as fast when it is optimised.
    let (values, names) = if cfg!(debug_assertions) { (8, "abcdefg") } else { (10, "abcdefgh") };
    let part = |n: usize| {
        let values = (n..n + values).map(|v| format!("({v})")).collect::<Vec<_>>().join(",");
        let tables =
            names.chars().map(|t| format!("(VALUES {values}) {t}(v)")).collect::<Vec<_>>().join(", ");
        format!("SELECT {n} AS part, sum(a.v + b.v * c.v - d.v + e.v * f.v - g.v) AS s FROM {tables}")
    };
    (0..6).map(|n| part(10 * n)).collect::<Vec<_>>().join(" UNION ALL ")
}

#[test]
fn a_query_runs_while_it_is_polled() {
    let served = Served::new();
    let mut client = served.client();
    let (answer, told) = poll_to_the_end(&served, &mut client, &in_parts()).unwrap();
    assert!(told.is_sorted() && told.iter().all(|p| (0.0..=1.0).contains(p)), "{told:?}");
    assert_eq!(told.last(), Some(&1.0));
    let between: Vec<f64> = told.into_iter().filter(|p| *p > 0.0 && *p < 1.0).collect();
    assert!(between.first() < between.last(), "progress should grow: {between:?}");
    let rows: usize = served.fetch(&mut client, answer.info.unwrap()).iter().map(|b| b.num_rows()).sum();
    assert_eq!(rows, 6);
    served.wait_until_running(false);
}

#[test]
fn what_is_ready_at_once_is_complete_at_once() {
    let served = Served::new();
    let mut client = served.client();
    let (answer, told) = poll_to_the_end(&served, &mut client, "SELECT 1 AS a").unwrap();
    assert_eq!(told, [1.0]);
    let info = answer.info.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert_eq!(served.fetch(&mut client, info)[0].num_rows(), 1);
    // The rows were there once.
    let again = FlightDescriptor::new_cmd(ticket.ticket.clone());
    assert_eq!(poll(&served, &mut client, again).unwrap_err().code(), Code::NotFound);
    assert_eq!(refused(served.runtime.block_on(client.do_get(ticket))).0, Code::NotFound);
    // A command is carried out once; a listing needs no work.
    let (answer, _) = poll_to_the_end(&served, &mut client, "CREATE TABLE t AS SELECT 1 AS a").unwrap();
    assert!(served.fetch(&mut client, answer.info.unwrap()).is_empty());
    assert_eq!(served.session.tables().unwrap().len(), 1);
    let tables = FlightDescriptor::new_cmd(CommandGetTables::default().as_any().encode_to_vec());
    let listing = poll(&served, &mut client, tables).unwrap();
    assert!(listing.flight_descriptor.is_none());
    assert_eq!(served.fetch(&mut client, listing.info.unwrap())[0].num_rows(), 1);
}

#[test]
fn a_large_result_is_complete_when_its_first_rows_are_there() {
    let served = Served::new();
    let mut client = served.client();
    let digits = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let sql = format!(
        "SELECT a.v, repeat('x', 2000) AS t FROM {digits} a(v), {digits} b(v), {digits} c(v), {digits} d(v), \
         {digits} e(v)"
    );
    let (answer, _) = poll_to_the_end(&served, &mut client, &sql).unwrap();
    // It waits for its reader.
    assert!(served.session.progress().is_some());
    let rows: usize = served.fetch(&mut client, answer.info.unwrap()).iter().map(|b| b.num_rows()).sum();
    assert_eq!(rows, 100_000);
}

#[test]
fn a_ticket_that_is_redeemed_early_waits() {
    let served = Served::new();
    let mut client = served.client();
    let answer = poll(&served, &mut client, statement(&in_parts())).unwrap();
    let next = answer.flight_descriptor.unwrap();
    let rows: usize = served.fetch(&mut client, answer.info.unwrap()).iter().map(|b| b.num_rows()).sum();
    assert_eq!(rows, 6);
    assert_eq!(poll(&served, &mut client, next).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_query_is_cancelled_between_polls() {
    let served = Served::new();
    let mut client = served.client();
    let answer = poll(&served, &mut client, statement(SLOW)).unwrap();
    served.wait_until_running(true);
    let cancel = CancelFlightInfoRequest::new(answer.info.unwrap()).encode_to_vec();
    let status = served.runtime.block_on(async {
        let results = client.do_action(Action::new("CancelFlightInfo", cancel)).await.unwrap();
        let results: Vec<_> = results.try_collect().await.unwrap();
        CancelFlightInfoResult::decode(results[0].body.as_ref()).unwrap().status()
    });
    assert_eq!(status, CancelStatus::Cancelling);
    served.wait_until_running(false);
    let next = answer.flight_descriptor.unwrap();
    assert_eq!(poll(&served, &mut client, next.clone()).unwrap_err().code(), Code::Cancelled);
    assert_eq!(poll(&served, &mut client, next).unwrap_err().code(), Code::NotFound);
}

#[test]
fn an_error_comes_with_the_poll() {
    let served = Served::new();
    let mut client = served.client();
    let sql = "SELECT 1 / (v - v) AS a FROM (VALUES (1), (2)) t(v)";
    let failed = poll_to_the_end(&served, &mut client, sql).unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::InvalidArgument, "division by zero"));
    let refused = poll(&served, &mut client, statement("SELECT nothing")).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let malformed = poll(&served, &mut client, FlightDescriptor::new_cmd(vec![0xff; 3])).unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    served.wait_until_running(false);
}

#[test]
fn a_query_that_nobody_asks_for_any_more_is_stopped() {
    let limits = Limits { unfetched_age: Duration::from_millis(500), running: 1, ..Limits::default() };
    let served = Served::with(Security::default(), limits, None);
    let mut client = served.client();
    let next = poll(&served, &mut client, statement(SLOW)).unwrap().flight_descriptor.unwrap();
    served.wait_until_running(true);
    assert_eq!(
        poll(&served, &mut client, statement("SELECT 1")).unwrap_err().code(),
        Code::ResourceExhausted
    );
    // Asking keeps it alive.
    for _ in 0..2 {
        assert!(poll(&served, &mut client, next.clone()).unwrap().flight_descriptor.is_some());
    }
    served.wait_until_running(false);
    assert_eq!(poll(&served, &mut client, next).unwrap_err().code(), Code::NotFound);
    poll(&served, &mut client, statement("SELECT 1")).unwrap();
}
