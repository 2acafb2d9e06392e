//! Results that clients fetch from the workers that have them: with a ticket of the server's, and not otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{CancelFlightInfoRequest, CancelStatus, FlightClient, FlightEndpoint, FlightInfo, Ticket};
use dovetail_engine::Session;
use dovetail_server::Connector;
use dovetail_server::cluster::Recovery;
use dovetail_server::control::ClientTicket;
use dovetail_server::security::users::{Role, add};
use dovetail_server::security::{Secret, Security, SecurityFiles};
use dovetail_sqllogictests::cluster::Cluster;
use futures::TryStreamExt;
use prost::Message;
use sqllogictest::harness::{Failed, Trial};
use tokio::runtime::Runtime;

use super::data::session;
use super::streaming::{LARGE, Rows};

const WORKERS: usize = 3;

/// From the last row, or a loss, until the server knows.
const KNOWN_AFTER_MAX: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("rows at workers are fetched by a client", fetched),
        Trial::test("rows at workers are given up", given_up),
        Trial::test("rows at workers are lost with one of them", lost),
    ]
}

/// A server with a user, and what she has it do.
struct World {
    cluster: Cluster,
    session: Arc<Session>,
    runtime: Runtime,
    token: String,
    _users: tempfile::TempDir,
}

impl World {
    fn start() -> Result<World, Failed> {
        let users = tempfile::tempdir()?;
        let file = users.path().join("users");
        add(&file, "anna", Role::ReadOnly, &Secret::new("a password"))?;
        let (session, security) =
            (session(), SecurityFiles { users: Some(file), ..SecurityFiles::default() });
        let mut cluster = Cluster::without_workers(&session, security, Recovery::On)?;
        for _ in 0..WORKERS {
            cluster.add(&[])?;
        }
        cluster.wait_for_slots(WORKERS as u32)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut world = World { cluster, session, runtime, token: String::new(), _users: users };
        let connector = Connector::new(Security::default())?;
        let channel = world.runtime.block_on(connector.connect(world.cluster.url()))?;
        let mut client = FlightSqlServiceClient::new(channel);
        world.runtime.block_on(client.handshake("anna", "a password"))?;
        world.token = client.token().cloned().unwrap_or_default();
        Ok(world)
    }

    /// What the server says where the rows of a query are.
    fn info(&self, sql: &str) -> Result<FlightInfo, Failed> {
        let connector = Connector::new(Security::default())?;
        let channel = self.runtime.block_on(connector.connect(self.cluster.url()))?;
        let mut client = FlightSqlServiceClient::new(channel);
        client.set_token(self.token.clone());
        Ok(self.runtime.block_on(client.execute(sql.to_owned(), None))?)
    }

    /// The result of a query whose rows stay at the workers.
    fn left(&self) -> Result<FlightInfo, Failed> {
        self.info("SET result_endpoints = 'workers'")?;
        let info = self.info(LARGE)?;
        let are_elsewhere =
            info.endpoint.iter().all(|e| e.location.len() == 1 && e.expiration_time.is_some());
        match info.endpoint.len() == WORKERS && are_elsewhere {
            true => Ok(info),
            false => Err(format!("the endpoints are {:?}", info.endpoint).into()),
        }
    }

    /// Fetches from a worker, as somebody whom it does not know.
    fn fetch(&self, endpoint: &FlightEndpoint, ticket: Ticket, rows: &mut Rows) -> Result<(), String> {
        let place = &endpoint.location[0].uri;
        self.runtime.block_on(async {
            let connector = Connector::new(Security::default()).map_err(|e| e.to_string())?;
            let channel = connector.connect(place).await.map_err(|e| e.to_string())?;
            let fetched = async {
                let mut stream = FlightClient::new(channel).do_get(ticket).await?;
                while let Some(batch) = stream.try_next().await? {
                    rows.add_plain(&batch)?;
                }
                Ok::<_, FlightError>(())
            };
            fetched.await.map_err(|e| e.to_string())
        })
    }

    /// Waits until the server has ended the query.
    fn must_end(&self) -> Result<(), Failed> {
        let start = Instant::now();
        while self.session.progress().is_some() {
            if start.elapsed() > KNOWN_AFTER_MAX {
                return Err("the query goes on".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn ticket(endpoint: &FlightEndpoint) -> Ticket {
    endpoint.ticket.clone().unwrap_or_default()
}

/// An error that says what to do.
fn must_be_gone(fetched: Result<(), String>) -> Result<(), Failed> {
    match fetched {
        Err(error) if error.contains("run the query again") => Ok(()),
        other => Err(format!("the rows should be gone: {other:?}").into()),
    }
}

fn fetched() -> Result<(), Failed> {
    let world = World::start()?;
    let usual = world.info("SELECT l_comment FROM lineitem")?;
    assert!(usual.endpoint.len() == 1 && usual.endpoint[0].location.is_empty());
    let info = world.left()?;
    let mut rows = Rows::default();
    let first = &info.endpoint[0];
    // Another secret opens nothing.
    let mut forged = ClientTicket::decode(&*ticket(first).ticket)?;
    forged.capability = [&[!forged.capability[0]], &forged.capability[1..]].concat().into();
    must_be_gone(world.fetch(first, Ticket::new(forged.encode_to_vec()), &mut rows))?;
    for endpoint in &info.endpoint {
        assert!(world.session.progress().is_some());
        let before = rows.rows;
        world.fetch(endpoint, ticket(endpoint), &mut rows)?;
        assert!(rows.rows > before, "a worker had nothing");
    }
    assert_eq!(rows, Rows::expected()?);
    world.must_end()?;
    must_be_gone(world.fetch(first, ticket(first), &mut rows))
}

fn given_up() -> Result<(), Failed> {
    let world = World::start()?;
    let info = world.left()?;
    let status = world.runtime.block_on(async {
        let channel = Connector::new(Security::default())?.connect(world.cluster.url()).await?;
        let mut client = FlightClient::new(channel);
        client.add_header("authorization", &format!("Bearer {}", world.token))?;
        let cancelled = client.cancel_flight_info(CancelFlightInfoRequest::new(info.clone())).await?;
        Ok::<_, Failed>(cancelled.status)
    })?;
    assert_eq!(status, CancelStatus::Cancelled as i32);
    world.must_end()?;
    // The server tells the workers to drop it.
    let (start, first) = (Instant::now(), &info.endpoint[0]);
    loop {
        let fetched = world.fetch(first, ticket(first), &mut Rows::default());
        if fetched.is_err() {
            return must_be_gone(fetched);
        }
        assert!(start.elapsed() < KNOWN_AFTER_MAX, "the rows are still there");
    }
}

fn lost() -> Result<(), Failed> {
    let mut world = World::start()?;
    let info = world.left()?;
    world.cluster.worker(1).kill()?;
    world.must_end()?;
    let (mut unreachable, mut told) = (0, 0);
    for endpoint in &info.endpoint {
        match world.fetch(endpoint, ticket(endpoint), &mut Rows::default()) {
            Err(error) if error.contains("run the query again") => told += 1,
            Err(_) => unreachable += 1,
            Ok(()) => return Err("a part of a result is there".into()),
        }
    }
    assert_eq!((unreachable, told), (1, WORKERS - 1));
    Ok(())
}
