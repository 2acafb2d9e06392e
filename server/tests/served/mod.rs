//! A real server on a free port of this machine, for one test.

// Each suite uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use dovetail_engine::{Session, SessionOptions};
use dovetail_server::Listening;
use dovetail_server::cluster::{Recovery, SchedulerSide};
use dovetail_server::flight_sql::{FlightSql, Limits, TicketHandler};
use dovetail_server::journal::StateDirectory;
use dovetail_server::remote::{RemoteSession, ServerAddress};
use dovetail_server::security::{ClientAuth, Security};
use futures::TryStreamExt;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

pub type Client = FlightSqlServiceClient<InterceptedService<Channel, ClientAuth>>;

/// A query that takes minutes.
pub const SLOW: &str = "WITH d AS (SELECT v FROM (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) t(v)) \
    SELECT sum(a.v + b.v * c.v - d.v + e.v * f.v - g.v + h.v * i.v - j.v) \
    FROM d a, d b, d c, d d, d e, d f, d g, d h, d i, d j";

/// A running server; stops when it is dropped.
pub struct Served {
    pub session: Arc<Session>,
    pub address: ServerAddress,
    pub security: Security,
    pub runtime: tokio::runtime::Runtime,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new() -> Served {
        Served::with(Security::default(), Limits::default(), None)
    }

    /// With a folder that clients' tables are written to.
    pub fn with_warehouse(folder: &std::path::Path) -> Served {
        let warehouse = Some(folder.to_path_buf());
        let options = SessionOptions { threads: 2, warehouse, ..SessionOptions::default() };
        Served::over(options, Security::default(), Limits::default(), None)
    }

    /// With a state directory, and a folder that clients' tables are written to beside it.
    pub fn with_state(folder: &std::path::Path, security: Security) -> Served {
        Served::with_state_and_limits(folder, security, Limits::default())
    }

    /// [`Self::with_state`], and limits of what clients may have.
    pub fn with_state_and_limits(folder: &std::path::Path, security: Security, limits: Limits) -> Served {
        let warehouse = Some(folder.join("warehouse"));
        let options = SessionOptions { threads: 2, warehouse, ..SessionOptions::default() };
        let session = Arc::new(Session::new(options).unwrap());
        let listening = Listening::bind("127.0.0.1:0", security, false).unwrap();
        let state = StateDirectory::open(&folder.join("state")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let start = async { SchedulerSide::start(&session, listening.security(), Recovery::On, Some(state)) };
        let scheduler = runtime.block_on(start).unwrap().with_limits(limits);
        let routes = scheduler.routes(session.clone());
        Served::serving(session, listening, routes, (runtime, scheduler))
    }

    pub fn with(security: Security, limits: Limits, tickets: Option<Arc<dyn TicketHandler>>) -> Served {
        let options = SessionOptions { threads: 2, ..SessionOptions::default() };
        Served::over(options, security, limits, tickets)
    }

    pub fn over(
        options: SessionOptions,
        security: Security,
        limits: Limits,
        tickets: Option<Arc<dyn TicketHandler>>,
    ) -> Served {
        let session = Arc::new(Session::new(options).unwrap());
        let listening = Listening::bind("127.0.0.1:0", security, false).unwrap();
        let mut flight = FlightSql::new(session.clone()).with_limits(limits);
        if let Some(tickets) = tickets {
            flight = flight.with_tickets(tickets);
        }
        let routes = flight.routes(listening.security());
        Served::serving(session, listening, routes, ())
    }

    /// Serves until it is dropped, and keeps `beside` until then.
    fn serving(
        session: Arc<Session>,
        listening: Listening,
        routes: Routes,
        beside: impl Send + 'static,
    ) -> Served {
        let security = listening.security().clone();
        // The certificates of the tests are for the name.
        let address = listening.url().replace("127.0.0.1", "localhost").parse().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let stopped = async { stopped.await.unwrap_or_default() };
            runtime.block_on(listening.serve(routes, stopped)).unwrap();
            runtime.shutdown_timeout(Duration::from_secs(5));
            drop(beside);
        });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Served { session, address, security, runtime, stop: Some(stop), thread: Some(thread) }
    }

    /// As `dovetail --connect` has it.
    pub fn remote(&self) -> RemoteSession {
        RemoteSession::connect(&self.address, &self.security).unwrap()
    }

    /// As other programs have it.
    pub fn client(&self) -> Client {
        self.client_with(&self.security)
    }

    /// As somebody has it who does not know the token.
    pub fn client_without_token(&self) -> Client {
        self.client_with(&Security::default())
    }

    fn client_with(&self, security: &Security) -> Client {
        let endpoint = Endpoint::from_shared(self.address.to_string().replace("grpc", "http")).unwrap();
        let channel = self.runtime.block_on(endpoint.connect()).unwrap();
        let intercepted = InterceptedService::new(channel, ClientAuth::new(security).unwrap());
        FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(intercepted))
    }

    /// The rows of a FlightInfo, after a look at whether both schemas are the same.
    pub fn fetch(&self, client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let told: SchemaRef = Arc::new(Schema::try_from(info).unwrap());
        let (schema, batches) = self
            .runtime
            .block_on(async {
                let mut stream = client.do_get(ticket).await?;
                let mut batches = vec![];
                while let Some(batch) = stream.try_next().await? {
                    batches.push(batch);
                }
                Ok::<_, FlightError>((stream.schema().cloned(), batches))
            })
            .unwrap();
        assert_eq!(schema, Some(told));
        batches
    }

    pub fn query(&self, client: &mut Client, sql: &str) -> Vec<RecordBatch> {
        let info = self.runtime.block_on(client.execute(sql.to_owned(), None)).unwrap();
        self.fetch(client, info)
    }

    /// Waits until a query is running, or until none is.
    pub fn wait_until_running(&self, running: bool) {
        let start = Instant::now();
        while self.session.progress().is_some() != running {
            assert!(start.elapsed() < Duration::from_secs(20), "a query should be running: {running}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.session.cancel_handle().cancel();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// The class and the words of an error.
pub fn refused<T>(outcome: Result<T, FlightError>) -> (tonic::Code, String) {
    match outcome.err().expect("the call should be refused") {
        FlightError::Tonic(status) => (status.code(), status.message().to_owned()),
        other => panic!("not a status: {other}"),
    }
}
