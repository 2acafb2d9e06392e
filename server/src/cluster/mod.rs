//! The scheduler process's side of a cluster: workers join, queries are driven to their end.
//!
//! ```text
//! Session ─ Cluster::run ─▶ Driver: one thread around engine's scheduler state machine
//!                             ▲ │ actions
//!  worker streams (service) ──┘ └─▶ messages to workers; in the end, to whoever asked, where the rows are
//! ```
//!
//! The scheduler's process runs no tasks. The last task of a query, at home, is to bring its rows to whoever asked, and
//! this is done by the one who reads them, on a thread of his own and as fast as he likes (`exchange::delivery` of the
//! engine). The state machine sees an attempt like any other, which ends well, or for want of an output that is lost.
//!
//! What always holds: everything that happens reaches the driver's one queue, and is decided by the state
//! machine; a worker is told where an output is before it is told to read it.
//!
//! With a state directory ([`crate::journal`]) queries whose rows a client has asked for by a ticket survive the end of
//! this process: the next one reads their logs, waits a moment for the workers to come back and say what they hold,
//! goes on with what is missing (`driver/restore`), and hands the rows to whoever shows the ticket (`results`). What
//! was only in this process does not survive: tables in memory and queries over them, queries that ran here because
//! no worker was there, tickets that were not used yet, rows that a client was fetching (it gets them again from the first
//! on: from the workers, or computed again if they had been told that all were fetched).

mod admission;
mod driver;
pub(crate) mod messages;
mod queries;
mod results;
mod service;
mod shown;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dovetail_engine::exchange::{DeliveredRows, delivery};
use dovetail_engine::scheduler::events::QueryId;
use dovetail_engine::session::cluster::{Cluster, ClusterQuery, DurableResult, TaskState, WorkerState};
use dovetail_engine::{EngineError, Result, Session};
use dovetail_planner::lower::{Parallelism, Sharing};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::audit::Audit;
use crate::connect::Connector;
use crate::control::control_server::ControlServer;
use crate::data::fetch::FlightFetcher;
use crate::data::serve::DataServer;
use crate::flight_sql::{FlightSql, Limits};
use crate::journal::{Found, Identity, Journal, StateDirectory};
use crate::security::{Security, ServerAuth};

pub use driver::Recovery;
use driver::{Beginning, Orphan};
use messages::CONTROL_BYTES_MAX;
pub use messages::PROTOCOL;
pub(crate) use results::{DurableResults, Recovered};
use service::ControlService;

/// Tasks of a scan stage for each slot of the cluster: enough that one slow task does not hold up the rest.
const TASKS_PER_SLOT: u32 = 3;

/// Hash partitions for each slot.
const PARTITIONS_PER_SLOT: u32 = 2;

/// More than this brings more messages than it saves time.
const PARTITIONS_MAX: u32 = 64;

/// Between two looks for results that nobody has asked for.
const GIVE_UP_INTERVAL: Duration = Duration::from_secs(10);

/// A scheduler's side of a cluster, started.
pub struct SchedulerSide {
    handle: ClusterHandle,
    data: DataServer,
    security: Security,
    limits: Limits,
    results: Option<Arc<DurableResults>>,
    /// Nobody else may use it meanwhile.
    _state: Option<StateDirectory>,
}

impl SchedulerSide {
    /// Starts the driver, and lets the session's queries run on workers from now on. With a state directory, the
    /// queries of the process before go on. To be called in a runtime.
    ///
    /// # Errors
    /// The operating system gives no threads; the audit cannot be written.
    pub fn start(
        session: &Session,
        security: &Security,
        recovery: Recovery,
        state: Option<StateDirectory>,
    ) -> crate::Result<SchedulerSide> {
        let runtime = tokio::runtime::Handle::current();
        let fetcher = FlightFetcher::new(runtime.clone(), Connector::new(security.clone())?);
        if let Some(state) = &state {
            session.attach_audit(Arc::new(Audit::start(state)?));
        }
        let (beginning, results) = begin(session, state.as_ref())?;
        let handle = driver::start(&runtime, fetcher, recovery, beginning)?;
        session.attach_cluster(Arc::new(handle.clone()));
        let data = DataServer { host: None, tables: Some(session.catalog()) };
        if let Some(results) = &results {
            let results = Arc::downgrade(results);
            runtime.spawn(async move {
                while let Some(results) = results.upgrade() {
                    results.give_up_old();
                    drop(results);
                    tokio::time::sleep(GIVE_UP_INTERVAL).await;
                }
            });
        }
        let (security, limits) = (security.clone(), Limits::default());
        Ok(SchedulerSide { handle, data, security, limits, results, _state: state })
    }

    /// Lets clients have other bounds than the usual ones.
    pub fn with_limits(self, limits: Limits) -> SchedulerSide {
        SchedulerSide { limits, ..self }
    }

    /// What the scheduler's port answers: clients by Flight SQL, workers that join, and those that ask for tables
    /// in memory.
    pub fn routes(&self, session: Arc<Session>) -> Routes {
        let tickets = Arc::new(self.data.clone());
        let control = ControlServer::new(ControlService::new(self.handle.clone()))
            .max_decoding_message_size(CONTROL_BYTES_MAX)
            .max_encoding_message_size(CONTROL_BYTES_MAX);
        let control = InterceptedService::new(control, ServerAuth::new(&self.security));
        let mut sql = FlightSql::new(session).with_tickets(tickets).with_limits(self.limits);
        if let Some(results) = &self.results {
            sql = sql.with_durable(results.clone());
        }
        sql.routes(&self.security).add_service(control)
    }

    /// Leaves the queries that run to the process after this one, if there is a state directory: from now on nothing
    /// ends that a client may ask for again. For the end of the process.
    pub fn leave_queries(&self) {
        self.results.iter().for_each(|results| results.leave());
    }

    /// What runs queries on the workers; the session has it already.
    pub fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(self.handle.clone())
    }

    /// Tasks that all workers together can run at a time.
    pub fn slots(&self) -> u32 {
        self.handle.slots()
    }
}

/// What a scheduler begins with, and the results that clients may ask it for. The plans in the logs are as deep as
/// their authors liked, so they are read on a stack for that.
fn begin(
    session: &Session,
    state: Option<&StateDirectory>,
) -> std::io::Result<(Beginning, Option<Arc<DurableResults>>)> {
    let Some(state) = state else {
        let identity = Identity::transient();
        return Ok((Beginning { identity, journal: None, orphans: vec![] }, None));
    };
    let journal = Arc::new(Journal::new(state));
    let results = Arc::new(DurableResults::new(journal.clone()));
    let orphan = |found: Found| match found.query {
        Ok((unfinished, log)) => {
            let durable = DurableResult {
                handle: found.handle.to_vec(),
                schema: unfinished.schema.clone(),
                sql: unfinished.sql.as_str().into(),
                user: unfinished.user.clone(),
            };
            let graph = unfinished.graph.clone();
            let resumed = session.resume(graph, unfinished.result, unfinished.operators, durable);
            let (asked, resumed) = match resumed {
                Ok(resumed) => resumed,
                Err(error) => {
                    log.remove();
                    results.expect(found.handle, Err(error.to_string()));
                    return None;
                }
            };
            let (delivery, rows) = delivery(asked.context.clone());
            let log = journal.keep(&found.handle, log);
            let recovered = Recovered::new(unfinished.schema.clone(), resumed, rows);
            results.expect(found.handle, Ok(recovered));
            Some(Orphan { unfinished, log, asked, delivery })
        }
        Err(problem) => {
            results.expect(found.handle, Err(problem));
            None
        }
    };
    let orphans = std::thread::scope(|scope| {
        let reads = || state.unfinished().into_iter().filter_map(orphan).collect::<Vec<Orphan>>();
        let reader =
            std::thread::Builder::new().stack_size(driver::STACK_BYTES).spawn_scoped(scope, reads)?;
        reader.join().map_err(|_| std::io::Error::other("the logs of queries cannot be read"))
    })?;
    let identity = state.identity().clone();
    Ok((Beginning { identity, journal: Some(journal), orphans }, Some(results)))
}

/// Workers and their queries, for a session. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterHandle {
    driver: mpsc::UnboundedSender<driver::Input>,
    /// Of all workers that are there.
    slots: Arc<AtomicU32>,
    next_query: Arc<AtomicU64>,
    journal: Option<Arc<Journal>>,
}

impl ClusterHandle {
    /// Slots of all workers that are there.
    pub fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }
}

impl Cluster for ClusterHandle {
    fn parallelism(&self) -> Option<Parallelism> {
        let slots = self.slots();
        (slots > 0).then(|| Parallelism {
            tasks: slots * TASKS_PER_SLOT,
            partitions: (slots * PARTITIONS_PER_SLOT).clamp(1, PARTITIONS_MAX),
            sharing: Sharing::Nothing,
        })
    }

    fn state(&self) -> (Vec<WorkerState>, Vec<TaskState>) {
        let (reply, answer) = std::sync::mpsc::channel();
        // A server that is shutting down has nothing to show.
        let asked = self.driver.send(driver::Input::Asked { reply });
        asked.ok().and_then(|()| answer.recv().ok()).unwrap_or_default()
    }

    fn run(&self, query: ClusterQuery) -> Result<DeliveredRows> {
        let (delivery, rows) = delivery(query.context.clone());
        let gone = || EngineError::Resources("the server is shutting down".into());
        let id = self.next_query.fetch_add(1, Ordering::Relaxed);
        let log = self.journal.as_ref().and_then(|journal| journal.begin(id, &query));
        // Who does not want the rows any more may have looked for the log before it was there.
        if let (Some(journal), Some(durable)) = (&self.journal, &query.durable)
            && query.context.check_cancelled().is_err()
        {
            journal.end(&durable.handle);
        }
        let submitted = driver::Input::Submitted { id: QueryId(id), query: Box::new(query), log, delivery };
        self.driver.send(submitted).map_err(|_| gone())?;
        Ok(rows)
    }
}
