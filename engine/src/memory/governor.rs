//! The governor: how much is held, and who spills when that is too much. See the module's policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::parked::{Parked, ParkedEntry, Spillable};
use super::readable;
use super::reservation::{Active, Reservation};
use crate::error::{EngineError, Result};

/// Holders with less than this, or than a share of a small limit, are not asked to spill.
const SPILL_BYTES_MIN: usize = 1 << 20;
/// The part of the limit that is worth a spill.
const SPILL_SHARE: usize = 64;

/// Spilling starts below the limit, because an operator reports what it holds only after it has grown (a hash
/// table doubles), and needs some memory to spill: at this part of the limit, in percent,
const SPILL_AT_PERCENT: usize = 70;
/// but no more than so many bytes below it.
const HEADROOM_BYTES_MAX: usize = 1 << 30;

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
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    limit: usize,
    /// Above this, what can spill does.
    spill_at: usize,
    policy: SpillPolicy,
    used: AtomicUsize,
    /// The part of `used` that cannot be spilled.
    firm: AtomicUsize,
    peak: AtomicUsize,
    spilled: AtomicU64,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    active: Vec<Arc<Active>>,
    parked: Vec<Arc<ParkedEntry>>,
}

impl Governor {
    /// A governor of `limit` bytes.
    pub fn new(limit_bytes: u64, policy: SpillPolicy) -> Self {
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let inner = Inner {
            limit,
            spill_at: (limit / 100 * SPILL_AT_PERCENT).max(limit.saturating_sub(HEADROOM_BYTES_MAX)),
            policy,
            used: AtomicUsize::new(0),
            firm: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            spilled: AtomicU64::new(0),
            holders: Mutex::default(),
        };
        Governor { inner: Arc::new(inner) }
    }

    /// A governor that only counts.
    pub fn unlimited() -> Self {
        Governor::new(u64::MAX, SpillPolicy::AtLimit)
    }

    /// The limit, bytes.
    pub fn limit_bytes(&self) -> usize {
        self.inner.limit
    }

    /// Bytes that are held now.
    pub fn used_bytes(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at once.
    pub fn peak_bytes(&self) -> usize {
        self.inner.peak.load(Ordering::Relaxed)
    }

    /// Bytes written to disk so far.
    pub fn spilled_bytes(&self) -> u64 {
        self.inner.spilled.load(Ordering::Relaxed)
    }

    /// When what can spill does.
    pub fn policy(&self) -> SpillPolicy {
        self.inner.policy
    }

    /// A reservation of nothing yet, for an operator of a name that a user knows.
    pub fn reserve(&self, operator: &'static str) -> Reservation {
        let active = Arc::new(Active::default());
        self.inner.holders.lock().active.push(active.clone());
        Reservation::new(self.clone(), operator, active)
    }

    /// Takes care of something that waits: from now on any thread that needs memory may spill it. With
    /// [`SpillPolicy::Always`] it spills before it waits.
    pub fn park(&self, holder: &Arc<dyn Spillable>) -> Result<Parked> {
        if self.inner.policy == SpillPolicy::Always {
            holder.spill()?;
        }
        let entry = Arc::new(ParkedEntry::new(Arc::downgrade(holder)));
        self.inner.holders.lock().parked.push(entry.clone());
        Ok(Parked::new(self.clone(), entry))
    }

    /// What one of the operators at work may hold when memory is short.
    pub fn fair_share_bytes(&self) -> usize {
        self.inner.spill_at / self.inner.holders.lock().active.len().max(1)
    }

    /// How much more may be held that cannot be spilled, if something else is possible: half of the limit is
    /// for what can.
    pub fn firm_room_bytes(&self) -> usize {
        (self.inner.limit / 2).saturating_sub(self.inner.firm.load(Ordering::Relaxed))
    }

    /// Notes bytes that were written to disk.
    pub fn note_spilled(&self, bytes: u64) {
        self.inner.spilled.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn forget_active(&self, active: &Arc<Active>) {
        self.inner.holders.lock().active.retain(|a| !Arc::ptr_eq(a, active));
    }

    pub(super) fn forget_parked(&self, entry: &Arc<ParkedEntry>) {
        self.inner.holders.lock().parked.retain(|e| !Arc::ptr_eq(e, entry));
    }
}

impl Inner {
    pub(super) fn add(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    pub(super) fn subtract(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "invariant: only what is held is given back");
    }

    pub(super) fn subtract_firm(&self, bytes: usize) {
        self.firm.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.spill_at
    }

    pub(super) fn always_spills(&self) -> bool {
        self.policy == SpillPolicy::Always
    }

    /// The least that is worth a spill.
    pub(super) fn spill_bytes_min(&self) -> usize {
        (self.limit / SPILL_SHARE).min(SPILL_BYTES_MIN)
    }

    /// Whether an operator must spill because too much is held. Called above the limit only.
    pub(super) fn must_spill(&self, own: &Arc<Active>) -> bool {
        self.spill_parked();
        if !self.is_over() {
            return false;
        }
        let held = own.spillable();
        let holders = self.holders.lock();
        let share = self.spill_at / holders.active.len().max(1);
        let largest = holders.active.iter().max_by_key(|a| a.spillable());
        let is_largest = largest.is_none_or(|a| Arc::ptr_eq(a, own) || a.spillable() <= held);
        if held >= self.spill_bytes_min() && (is_largest || held > share) {
            return true;
        }
        if let Some(other) = largest
            && !is_largest
        {
            other.ask();
        }
        false
    }

    /// Counts `more` bytes of what cannot be spilled, if they fit.
    pub(super) fn add_firm(&self, operator: &str, held: usize, more: usize) -> Result<()> {
        let fits = |firm: usize| firm.checked_add(more).filter(|sum| *sum <= self.limit);
        if let Err(firm) = self.firm.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            return Err(self.does_not_fit(operator, held + more, firm - held.min(firm)));
        }
        self.add(more);
        if self.is_over() {
            self.spill_parked();
        }
        if self.is_over() {
            let holders = self.holders.lock();
            if let Some(largest) = holders.active.iter().max_by_key(|a| a.spillable()) {
                largest.ask();
            }
        }
        Ok(())
    }

    fn does_not_fit(&self, operator: &str, needed: usize, others: usize) -> EngineError {
        let others = match others {
            0 => String::new(),
            bytes => format!(", {} of which other operators hold that cannot spill", readable(bytes as u64)),
        };
        EngineError::Resources(format!(
            "{operator} needs {} in memory at once and cannot spill it; the limit is {}{others}. Raise \
             --memory-limit",
            readable(needed as u64),
            readable(self.limit as u64),
        ))
    }

    /// Spills outputs that wait, the largest first, until enough is free. One that cannot be spilled (its disk
    /// is full) stays as it is: that is for its own query to notice.
    fn spill_parked(&self) {
        let mut refused: Vec<Arc<ParkedEntry>> = vec![];
        while self.is_over() {
            let next = {
                let holders = self.holders.lock();
                let candidates = holders.parked.iter().filter(|e| !refused.iter().any(|r| Arc::ptr_eq(r, e)));
                // Another thread's claim is as good as ours: it makes room, and we go on.
                let largest = candidates
                    .filter_map(|e| e.holder().map(|h| (h.memory_bytes(), e, h)))
                    .filter(|(bytes, _, _)| *bytes > 0)
                    .max_by_key(|(bytes, _, _)| *bytes);
                largest.and_then(|(_, entry, holder)| Some((entry.clone(), entry.claim()?, holder)))
            };
            let Some((entry, _claim, holder)) = next else { return };
            if let Err(error) = holder.spill() {
                tracing::warn!(%error, "an output that waits could not be spilled");
            }
            if holder.memory_bytes() > 0 {
                refused.push(entry);
            }
        }
    }
}
