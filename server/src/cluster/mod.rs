//! The scheduler process's side of a cluster: workers join, queries are driven to their end.
//!
//! ```text
//! Session ─ Cluster::run ─▶ Driver: one thread around engine's scheduler state machine
//!                             ▲ │ actions
//!  worker streams (service) ──┘ └─▶ messages to workers, tasks for the Host at home
//! ```
//!
//! What always holds: everything that happens reaches the driver's one queue, and is decided by the state
//! machine; a worker is told where an output is before it is told to read it.

mod driver;
pub(crate) mod messages;
mod queries;
mod service;
mod shown;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_engine::exchange::KeptRows;
use dovetail_engine::session::cluster::{Cluster, ClusterQuery, TaskState, WorkerState};
use dovetail_engine::{EngineError, Result, Session};
use dovetail_planner::lower::{Parallelism, Sharing};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::connect::Connector;
use crate::control::control_server::ControlServer;
use crate::data::fetch::FlightFetcher;
use crate::data::serve::DataServer;
use crate::flight_sql::FlightSql;
use crate::security::{Security, ServerAuth};

pub use driver::Recovery;
use messages::CONTROL_BYTES_MAX;
pub use messages::PROTOCOL;
use service::ControlService;

/// Tasks of a scan stage for each slot of the cluster: enough that one slow task does not hold up the rest.
const TASKS_PER_SLOT: u32 = 3;

/// Hash partitions for each slot.
const PARTITIONS_PER_SLOT: u32 = 2;

/// More than this brings more messages than it saves time.
const PARTITIONS_MAX: u32 = 64;

/// A scheduler's side of a cluster, started.
pub struct SchedulerSide {
    handle: ClusterHandle,
    data: DataServer,
    security: Security,
}

impl SchedulerSide {
    /// Starts the driver, and lets the session's queries run on workers from now on. To be called in a runtime.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn start(session: &Session, security: &Security, recovery: Recovery) -> crate::Result<SchedulerSide> {
        let runtime = tokio::runtime::Handle::current();
        let fetcher = FlightFetcher::new(runtime.clone(), Connector::new(security.clone())?);
        let (handle, host) = driver::start(&runtime, fetcher, recovery)?;
        session.attach_cluster(Arc::new(handle.clone()));
        let data = DataServer { host, tables: Some(session.catalog()) };
        Ok(SchedulerSide { handle, data, security: security.clone() })
    }

    /// What the scheduler's port answers: clients by Flight SQL, workers that join, and those that ask for tables
    /// in memory.
    pub fn routes(&self, session: Arc<Session>) -> Routes {
        let tickets = Arc::new(self.data.clone());
        let control = ControlServer::new(ControlService::new(self.handle.clone()))
            .max_decoding_message_size(CONTROL_BYTES_MAX)
            .max_encoding_message_size(CONTROL_BYTES_MAX);
        let control = InterceptedService::new(control, ServerAuth::new(&self.security));
        FlightSql::new(session).with_tickets(tickets).routes(&self.security).add_service(control)
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

/// Workers and their queries, for a session. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterHandle {
    driver: mpsc::UnboundedSender<driver::Input>,
    /// Of all workers that are there.
    slots: Arc<AtomicU32>,
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

    fn run(&self, query: ClusterQuery) -> Result<Vec<Arc<KeptRows>>> {
        let (reply, answer) = std::sync::mpsc::channel();
        let gone = || EngineError::Resources("the server is shutting down".into());
        self.driver.send(driver::Input::Submitted { query: Box::new(query), reply }).map_err(|_| gone())?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }
}
