//! The time that a query may take: looked at where cancelling is, once a batch.

use std::time::{Duration, Instant};

use crate::error::{EngineError, Result};

/// How long a query may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    limit: Duration,
    over: Instant,
}

impl Deadline {
    /// So much time from now on; none if that is longer than clocks count.
    pub fn after(limit: Duration) -> Option<Deadline> {
        Some(Deadline { limit, over: Instant::now().checked_add(limit)? })
    }

    /// An error if the time is over.
    pub fn check(&self) -> Result<()> {
        if Instant::now() < self.over {
            return Ok(());
        }
        Err(EngineError::Resources(format!(
            "the statement took longer than statement_timeout allows, {} ms; SET statement_timeout changes it",
            self.limit.as_millis()
        )))
    }
}
