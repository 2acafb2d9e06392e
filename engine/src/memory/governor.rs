//! The governor: the handle by which memory is reserved. How it is counted is its level's.

use std::sync::Arc;

use super::level::Level;
use super::limit::LimitScope;
use super::parked::{Parked, ParkedEntry, Spillable};
use super::reservation::{Active, Reservation};
use crate::error::Result;

/// When what can spill does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpillPolicy {
    /// At the limit.
    #[default]
    AtLimit,
    /// Whenever there is something to spill, whatever the limit: so that tests with small data show that the
    /// answers stay the same.
    Always,
}

/// What a session holds of its memory, and what it has spilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub limit_bytes: u64,
    pub used_bytes: u64,
    /// The most that was held at once.
    pub peak_bytes: u64,
    /// Written to disk since the session started.
    pub spilled_bytes: u64,
    /// Spill files that exist at the moment.
    pub spill_files: usize,
}

/// The one that knows how much memory is held. Cheap to clone.
#[derive(Clone)]
pub struct Governor {
    pub(super) level: Arc<Level>,
}

impl Governor {
    /// A governor of `limit` bytes, of a process.
    pub fn new(limit_bytes: u64, policy: SpillPolicy) -> Self {
        Governor { level: Arc::new(Level::new(None, LimitScope::Process, limit_bytes, policy)) }
    }

    /// A governor that only counts.
    pub fn unlimited() -> Self {
        Governor::new(u64::MAX, SpillPolicy::AtLimit)
    }

    /// A governor of a part of this one's memory: what it reserves is counted against both limits.
    pub fn child(&self, scope: LimitScope, limit_bytes: u64) -> Governor {
        let (parent, policy) = (Some(self.level.clone()), self.policy());
        Governor { level: Arc::new(Level::new(parent, scope, limit_bytes, policy)) }
    }

    /// The one that all memory of the process is counted by.
    pub fn root(&self) -> Governor {
        let mut level = &self.level;
        while let Some(parent) = &level.parent {
            level = parent;
        }
        Governor { level: level.clone() }
    }

    /// Whether somebody else has this governor, or a child of it, or memory of it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.level) > 1
    }

    /// The limit, bytes. Those of the governors that this is a child of are not below it.
    pub fn limit_bytes(&self) -> usize {
        self.level.limit
    }

    /// Whom the limit bounds.
    pub fn scope(&self) -> LimitScope {
        self.level.scope
    }

    /// The limit, bytes, that this or a governor that it is a child of has for a scope.
    pub fn limit_of(&self, scope: LimitScope) -> Option<usize> {
        self.level.chain().find(|level| level.scope == scope).map(|level| level.limit)
    }

    /// Bytes that are held now.
    pub fn used_bytes(&self) -> usize {
        self.level.used_bytes()
    }

    /// The most bytes that were held at once.
    pub fn peak_bytes(&self) -> usize {
        self.level.peak_bytes()
    }

    /// Bytes written to disk so far.
    pub fn spilled_bytes(&self) -> u64 {
        self.level.spilled_bytes()
    }

    /// When what can spill does.
    pub fn policy(&self) -> SpillPolicy {
        self.level.policy
    }

    /// A reservation of nothing yet, for an operator of a name that a user knows.
    pub fn reserve(&self, operator: &'static str) -> Reservation {
        let active = Arc::new(Active::default());
        self.level.know_active(&active);
        Reservation::new(self.clone(), operator, active)
    }

    /// Takes care of something that waits: from now on any thread that needs memory may spill it. With
    /// [`SpillPolicy::Always`] it spills before it waits.
    pub fn park(&self, holder: &Arc<dyn Spillable>) -> Result<Parked> {
        if self.policy() == SpillPolicy::Always {
            holder.spill()?;
        }
        let entry = Arc::new(ParkedEntry::new(Arc::downgrade(holder)));
        self.level.know_parked(&entry);
        Ok(Parked::new(self.clone(), entry))
    }

    /// What one of the operators at work may hold when memory is short.
    pub fn fair_share_bytes(&self) -> usize {
        self.level.fair_share_bytes()
    }

    /// How much more may be held that cannot be spilled, if something else is possible: half of the limit is
    /// for what can.
    pub fn firm_room_bytes(&self) -> usize {
        self.level.firm_room_bytes()
    }

    /// Notes bytes that were written to disk.
    pub fn note_spilled(&self, bytes: u64) {
        self.level.note_spilled(bytes);
    }
}
