//! The worker process: joins a scheduler, runs the tasks that it is sent, hands out their outputs.
//!
//! ```text
//! scheduler ── control stream ──▶ Worker ─▶ Host (threads, outputs)
//! other processes, clients ── DoGet ──▶ data::serve ─▶ Host's outputs
//! ```
//!
//! What always holds: a worker belongs to one scheduler at a time. When the connection is gone, the scheduler takes the
//! worker for lost, or is gone itself: the worker goes on with what it runs, keeps what it has for [`KEEP_MAX`], and
//! joins again, as a new worker that says what it has. A scheduler that knows the queries from its log goes on with
//! it; any other has it dropped.

mod held;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use dovetail_engine::catalog::Catalog;
use dovetail_engine::memory::{Governor, SpillSpace};
use dovetail_engine::{MemoryLimit, SpillDirectory, SpillPolicy};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::connect::Connector;
use crate::data::MESSAGE_BYTES_MAX;
use crate::data::fetch::FlightFetcher;
use crate::data::serve::{DataServer, DataService};
use crate::error::{Result, ServerError};
use crate::host::Host;
use crate::listen::Listening;
use crate::security::{Security, ServerAuth};
use session::{Left, Reports};

/// Between two tries to join.
const REJOIN_PAUSE: Duration = Duration::from_millis(250);

/// How long a worker without a scheduler keeps what it has.
const KEEP_MAX: Duration = Duration::from_secs(60);

/// How a worker is started.
pub struct WorkerOptions {
    /// URL of the scheduler.
    pub scheduler: String,
    /// The URL by which other processes reach `listen`, if it is not its address.
    pub advertise: Option<String>,
    /// Tasks at a time.
    pub threads: usize,
    pub memory_limit: MemoryLimit,
    pub spill_directories: Vec<SpillDirectory>,
    pub spill: SpillPolicy,
}

/// What the queries of a worker share.
pub(crate) struct Surroundings {
    pub options: WorkerOptions,
    pub security: Security,
    pub address: String,
    pub memory: Governor,
    pub spill: SpillSpace,
    /// Footers of files that were read.
    pub catalog: Arc<Catalog>,
    pub fetcher: Arc<FlightFetcher>,
    pub connector: Connector,
}

/// Runs a worker, which hands out outputs at `listening`, until `stop` says so; then it leaves without a query
/// noticing.
///
/// # Errors
/// A directory cannot be used, or the scheduler refuses the worker.
pub async fn run(
    options: WorkerOptions,
    listening: Listening,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let security = listening.security().clone();
    if listening.address().ip().is_unspecified() && options.advertise.is_none() {
        return Err(ServerError::Flags(format!(
            "{} is an address to listen on, not one by which others can reach this worker: give --advertise \
             grpc://HOST:{} as well",
            listening.address(),
            listening.address().port()
        )));
    }
    let address = options.advertise.clone().unwrap_or_else(|| listening.url());
    let connector = Connector::new(security.clone())?;
    let engine = |e: dovetail_engine::EngineError| ServerError::Engine(e.to_string());
    let surroundings = Arc::new(Surroundings {
        memory: Governor::new(options.memory_limit.bytes(), options.spill),
        spill: SpillSpace::open(&options.spill_directories).map_err(engine)?,
        catalog: Arc::new(Catalog::in_memory(tokio::runtime::Handle::current())),
        fetcher: FlightFetcher::new(tokio::runtime::Handle::current(), connector.clone()),
        connector,
        address,
        security,
        options,
    });
    let reports = Arc::new(Reports::default());
    let host = Arc::new(Host::new(surroundings.options.threads, reports.clone())?);
    serve(&surroundings, host.clone(), listening);
    let mut alone_since = Instant::now();
    loop {
        match session::join(&surroundings, &host, &reports, &mut stop).await? {
            Left::Dismissed => return Ok(()),
            Left::Lost { problem, was_there } => {
                if *stop.borrow() {
                    return Ok(());
                }
                if was_there {
                    alone_since = Instant::now();
                }
                tracing::warn!(problem, "not connected to the scheduler");
                if alone_since.elapsed() >= KEEP_MAX {
                    let queries = host.end_all();
                    if queries > 0 {
                        tracing::warn!(queries, "no scheduler has come back: what was kept is dropped");
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REJOIN_PAUSE) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

/// Hands out outputs, for as long as the process lives.
fn serve(surroundings: &Surroundings, host: Arc<Host>, listening: Listening) {
    let data = DataServer { host: Some(host), tables: None };
    let service = DataService { data, auth: ServerAuth::new(&surroundings.security) };
    let service = FlightServiceServer::new(service).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Routes::new(service);
    tokio::spawn(async move {
        if let Err(error) = listening.serve(routes, std::future::pending()).await {
            tracing::error!(%error, "the worker's port is closed");
        }
    });
}
