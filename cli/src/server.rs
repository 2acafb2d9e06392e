//! `dovetail server`: a session on the network until Ctrl-C or SIGTERM.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dovetail_engine::Session;
use dovetail_server::Listening;
use dovetail_server::cluster::{Recovery, SchedulerSide};
use dovetail_server::flight_sql::Limits;
use dovetail_server::journal::StateDirectory;
use dovetail_server::security::SecurityFiles;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::allocator::keep_freed_memory;
use crate::args::ServerArgs;
use crate::worker::{LocalWorkers, Shares};

/// Threads that read from and write to connections; queries have their own.
const NETWORK_THREADS: usize = 2;
/// Threads that wait for queries, or read what others fetch: one for each statement and each stream at most.
const WAITING_THREADS_MAX: usize = 4096;
/// For statements that were cancelled when the server ends.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Serves until it is told to end.
pub fn run(args: &ServerArgs) -> Result<()> {
    if args.engine.memory_limit.is_none() {
        keep_freed_memory();
    }
    // Flags first: what is wrong with them is known before a large folder has been looked at.
    let security = SecurityFiles { users: args.users.clone(), ..args.security.files() }.read()?;
    let listening = Listening::bind(&args.listen, security, args.insecure)?;
    let mut state = args.state_dir.as_deref().map(StateDirectory::open).transpose()?;
    state.iter_mut().for_each(|state| state.audit_days = args.audit_days);
    let mut options = args.engine.session_options();
    let shares = Shares::of(args, &options);
    options.memory_limit = Some(shares.memory_limit);
    let limits = args.limits.limits(shares.memory_limit.bytes())?;
    options.warehouse = args.warehouse.clone();
    options.max_result_rows = args.max_result_rows.map(|rows| rows as u64);
    let session = Arc::new(match &args.place {
        Some(place) => Session::open(place, options)?,
        None => Session::new(options)?,
    });
    let runtime = network()?;
    let workers = |url: &str| LocalWorkers::start(url, args, &shares);
    let outcome = runtime.block_on(serve(listening, session.clone(), limits, state, workers));
    // With a state directory they go on in the next process, and nobody is told that they were stopped.
    if args.state_dir.is_none() {
        session.cancel_handle().cancel();
    }
    // Before the session, which must not be dropped on one of the runtime's threads.
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

async fn serve(
    listening: Listening,
    session: Arc<Session>,
    limits: Limits,
    state: Option<StateDirectory>,
    workers: impl FnOnce(&str) -> Result<LocalWorkers>,
) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let scheduler =
        SchedulerSide::start(&session, listening.security(), Recovery::On, state)?.with_limits(limits);
    let (url, routes) = (listening.url(), scheduler.routes(session));
    let serving = listening.serve(routes, stop);
    // They join as soon as they are answered; they end with this.
    let _workers = workers(&url)?;
    writeln!(io::stderr(), "listening on {url}")?;
    let served = serving.await;
    scheduler.leave_queries();
    Ok(served?)
}

/// Threads that read from and write to connections.
pub fn network() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .max_blocking_threads(WAITING_THREADS_MAX)
        .thread_name("dovetail-network")
        .enable_all()
        .build()
}
