//! The worker process: joins a scheduler, runs the tasks that it is sent, hands out their outputs.
//!
//! ```text
//! scheduler ── control stream ──▶ Worker ─▶ Host (threads, outputs)
//! other processes ── DoGet ──▶ data::serve ─▶ Host's outputs
//! ```
//!
//! What always holds: a worker belongs to one scheduler at a time; when the connection is gone, so is everything
//! that it held, because the scheduler takes it for lost; then it joins again, as a new worker.

mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dovetail_engine::catalog::Catalog;
use dovetail_engine::memory::{Governor, SpillSpace};
use dovetail_engine::{MemoryLimit, SpillDirectory, SpillPolicy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::connect::Connector;
use crate::data::MESSAGE_BYTES_MAX;
use crate::data::fetch::FlightFetcher;
use crate::data::serve::{DataServer, DataService};
use crate::error::{Result, ServerError};
use crate::host::Host;
use crate::security::{Security, ServerAuth};
use session::{Left, Reports};

/// Between two tries to join.
const REJOIN_PAUSE: Duration = Duration::from_millis(500);

/// How a worker is started.
pub struct WorkerOptions {
    /// URL of the scheduler.
    pub scheduler: String,
    /// Where outputs are handed out; port 0 picks one.
    pub listen: SocketAddr,
    /// The URL by which other processes reach `listen`, if it is not its address.
    pub advertise: Option<String>,
    /// Tasks at a time.
    pub threads: usize,
    pub memory_limit: MemoryLimit,
    pub spill_directories: Vec<SpillDirectory>,
    pub spill: SpillPolicy,
    pub security: Security,
    /// Listen where others can reach it without TLS and token.
    pub insecure: bool,
}

/// What the queries of a worker share.
pub(crate) struct Surroundings {
    pub options: WorkerOptions,
    pub address: String,
    pub memory: Governor,
    pub spill: SpillSpace,
    /// Footers of files that were read.
    pub catalog: Arc<Catalog>,
    pub fetcher: Arc<FlightFetcher>,
    pub connector: Connector,
}

/// Runs a worker until `stop` says so; then it leaves without a query noticing. `ready` is told the address.
///
/// # Errors
/// The address cannot be listened on, a directory cannot be used, or the scheduler refuses the worker.
pub async fn run(
    options: WorkerOptions,
    ready: impl FnOnce(SocketAddr),
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    options.security.allows(&options.listen, options.insecure)?;
    let listen = options.listen.to_string();
    let problem = |source| ServerError::Listen { address: listen.clone(), source };
    let listener = TcpListener::bind(options.listen).await.map_err(problem)?;
    let local = listener.local_addr().map_err(problem)?;
    let scheme = if options.security.tls.is_some() { "grpc+tls" } else { "grpc" };
    let address = options.advertise.clone().unwrap_or_else(|| format!("{scheme}://{local}"));
    let connector = Connector::new(options.security.clone())?;
    let engine = |e: dovetail_engine::EngineError| ServerError::Engine(e.to_string());
    let surroundings = Arc::new(Surroundings {
        memory: Governor::new(options.memory_limit.bytes(), options.spill),
        spill: SpillSpace::open(&options.spill_directories).map_err(engine)?,
        catalog: Arc::new(Catalog::in_memory(tokio::runtime::Handle::current())),
        fetcher: FlightFetcher::new(tokio::runtime::Handle::current(), connector.clone()),
        connector,
        address,
        options,
    });
    let reports = Arc::new(Reports::default());
    let host = Arc::new(Host::new(surroundings.options.threads, reports.clone())?);
    serve(&surroundings, host.clone(), listener)?;
    ready(local);
    loop {
        match session::join(&surroundings, &host, &reports, &mut stop).await? {
            Left::Dismissed => return Ok(()),
            Left::Lost(problem) => {
                host.end_all();
                if *stop.borrow() {
                    return Ok(());
                }
                tracing::warn!(problem, "not connected to the scheduler");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REJOIN_PAUSE) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

/// Hands out outputs, for as long as the process lives.
fn serve(surroundings: &Surroundings, host: Arc<Host>, listener: TcpListener) -> Result<()> {
    let mut server = Server::builder();
    if let Some(tls) = surroundings.options.security.server_tls()? {
        server = server.tls_config(tls).map_err(|e| ServerError::Flags(e.to_string()))?;
    }
    let service = DataService(DataServer { host, tables: None });
    let service = arrow_flight::flight_service_server::FlightServiceServer::new(service)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let auth = ServerAuth::new(&surroundings.options.security);
    let router = server
        .tcp_nodelay(true)
        .layer(tonic::service::InterceptorLayer::new(auth))
        .add_service(service);
    tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming(TcpListenerStream::new(listener)).await {
            tracing::error!(%error, "the worker's port is closed");
        }
    });
    Ok(())
}
