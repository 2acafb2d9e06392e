//! Queries that end before their time: clients that go away, cancel, or never fetch.

mod served;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::{ActionCancelQueryRequest, ProstMessageExt};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightInfo, Ticket,
};
use bytes::Bytes;
use dovetail_engine::EngineError;
use dovetail_server::flight_sql::{FlightStream, Limits, TicketHandler};
use dovetail_server::security::Security;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use served::{Client, SLOW, Served, refused};
use tonic::{Code, Status};

fn promised(served: &Served, client: &mut Client, sql: &str) -> (FlightInfo, Ticket) {
    let info = served.runtime.block_on(client.execute(sql.to_owned(), None)).unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    (info, ticket)
}

#[test]
fn a_client_that_goes_away_takes_its_query_with_it_and_no_other() {
    let served = Served::new();
    let (mut going, mut staying) = (served.client(), served.client());
    // The connection stays; only the call ends.
    let _open = going.clone();
    let (_, ticket) = promised(&served, &mut going, SLOW);
    let call = served.runtime.spawn(async move { going.do_get(ticket).await.map(|_| ()) });
    served.wait_until_running(true);
    assert_eq!(served.query(&mut staying, "SELECT 1").len(), 1);
    call.abort();
    served.wait_until_running(false);
    assert_eq!(served.query(&mut staying, "SELECT 1").len(), 1);
}

#[test]
fn a_command_ends_with_its_call() {
    let served = Served::new();
    let mut client = served.client();
    let sql = format!("CREATE TABLE t AS {SLOW}");
    let call = served.runtime.spawn(async move { client.execute(sql, None).await.map(|_| ()) });
    served.wait_until_running(true);
    call.abort();
    served.wait_until_running(false);
    assert!(served.session.tables().unwrap().is_empty());
}

#[test]
fn cancel_flight_info_stops_a_query() {
    let served = Served::new();
    let (mut client, mut other) = (served.client(), served.client());
    let (info, ticket) = promised(&served, &mut client, SLOW);
    let call = served.runtime.spawn(async move { client.do_get(ticket).await.map(|_| ()) });
    served.wait_until_running(true);
    let cancel = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
    let status = served.runtime.block_on(async {
        let results = other.do_action(cancel).await.unwrap();
        let results: Vec<_> = results.try_collect().await.unwrap();
        CancelFlightInfoResult::decode(results[0].body.as_ref()).unwrap().status()
    });
    assert!(matches!(status, CancelStatus::Cancelled | CancelStatus::Cancelling));
    assert_eq!(refused(served.runtime.block_on(call).unwrap()).0, Code::Cancelled);
    served.wait_until_running(false);
}

#[test]
fn a_result_is_fetched_once_and_can_be_given_up() {
    let served = Served::new();
    let mut client = served.client();
    let (info, ticket) = promised(&served, &mut client, "SELECT 1 AS a");
    assert_eq!(served.fetch(&mut client, info).len(), 1);
    assert_eq!(refused(served.runtime.block_on(client.do_get(ticket))).0, Code::NotFound);
    let (info, ticket) = promised(&served, &mut client, "SELECT 1 AS a");
    let cancel = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let cancel = || Action::new("CancelQuery", cancel.as_any().encode_to_vec());
    served.runtime.block_on(client.do_action(cancel())).unwrap();
    assert_eq!(refused(served.runtime.block_on(client.do_get(ticket))).0, Code::NotFound);
    assert_eq!(refused(served.runtime.block_on(client.do_action(cancel()))).0, Code::NotFound);
}

#[test]
fn results_that_nobody_fetches_expire_and_are_few() {
    let limits = Limits { unfetched: 3, unfetched_age: Duration::from_millis(300), ..Limits::default() };
    let served = Served::with(Security::default(), limits, None);
    let mut client = served.client();
    let (_, ticket) = promised(&served, &mut client, "SELECT 1");
    promised(&served, &mut client, "SELECT 1");
    promised(&served, &mut client, "SELECT 1");
    // A command that cannot have its result kept is not carried out.
    for sql in ["SELECT 1", "CREATE TABLE t (a INTEGER)"] {
        assert_eq!(
            refused(served.runtime.block_on(client.execute(sql.to_owned(), None))).0,
            Code::ResourceExhausted
        );
    }
    assert!(served.session.tables().unwrap().is_empty());
    std::thread::sleep(limits.unfetched_age);
    assert_eq!(refused(served.runtime.block_on(client.do_get(ticket))).0, Code::NotFound);
    promised(&served, &mut client, "SELECT 1");
}

#[test]
fn a_stream_that_is_left_half_read_lets_go() {
    let served = Served::new();
    let mut client = served.client();
    let digits = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let sql = format!(
        "SELECT a.v, repeat('x', 1000) AS t FROM {digits} a(v), {digits} b(v), {digits} c(v), {digits} d(v), {digits} e(v)"
    );
    let (_, ticket) = promised(&served, &mut client, &sql);
    let first = served.runtime.block_on(async {
        let mut rows = client.do_get(ticket).await.unwrap();
        rows.next().await.unwrap().unwrap().num_rows()
    });
    assert!(first > 0);
    served.wait_until_running(false);
}

#[test]
fn a_remote_session_is_cancelled_and_goes_on() {
    let served = Served::new();
    let remote = Arc::new(served.remote());
    let cancel = remote.cancel_handle();
    let slow = std::thread::spawn({
        let remote = remote.clone();
        move || remote.stream(SLOW).err()
    });
    served.wait_until_running(true);
    cancel.cancel();
    assert!(matches!(slow.join().unwrap(), Some(EngineError::Cancelled)));
    served.wait_until_running(false);
    let rows: Vec<_> = remote.stream("SELECT 1").unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows[0].num_rows(), 1);
}

#[test]
fn tickets_of_others_go_to_them() {
    struct Echo;
    #[tonic::async_trait]
    impl TicketHandler for Echo {
        fn takes(&self, ticket: &[u8]) -> bool {
            ticket.starts_with(b"echo:")
        }

        async fn do_get(&self, ticket: Bytes) -> Result<FlightStream, Status> {
            let message = FlightData::new().with_data_body(ticket);
            Ok(stream::iter([Ok(message)]).boxed())
        }
    }
    let served = Served::with(Security::default(), Limits::default(), Some(Arc::new(Echo)));
    let mut client = served.client();
    let echoed = served.runtime.block_on(async {
        let answer = client.inner_mut().do_get(Ticket::new(&b"echo:1"[..])).await.unwrap();
        answer.into_inner().try_collect::<Vec<_>>().await.unwrap()
    });
    assert_eq!(&echoed[0].data_body[..], b"echo:1");
    assert_eq!(served.query(&mut client, "SELECT 1").len(), 1);
}
