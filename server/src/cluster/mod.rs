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
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_engine::exchange::KeptRows;
use dovetail_engine::session::cluster::{Cluster, ClusterQuery};
use dovetail_engine::{EngineError, Result};
use dovetail_planner::lower::{Parallelism, Sharing};
use tokio::sync::mpsc;

pub use driver::start;
pub use service::ControlService;

/// Tasks of a scan stage for each slot of the cluster: enough that one slow task does not hold up the rest.
const TASKS_PER_SLOT: u32 = 3;

/// Hash partitions for each slot.
const PARTITIONS_PER_SLOT: u32 = 2;

/// More than this brings more messages than it saves time.
const PARTITIONS_MAX: u32 = 64;

/// Workers and their queries, for a session. Cheap to clone.
#[derive(Clone)]
pub struct ClusterHandle {
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

    fn run(&self, query: ClusterQuery) -> Result<Vec<Arc<KeptRows>>> {
        let (reply, answer) = std::sync::mpsc::channel();
        let gone = || EngineError::Resources("the server is shutting down".into());
        self.driver.send(driver::Input::Submitted { query: Box::new(query), reply }).map_err(|_| gone())?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }
}
