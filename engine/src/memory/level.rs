//! A level of a tree of governors: what is held at it and below it, and who spills when that is too much.
//!
//! The process's governor is the root; a server has governors for users below it, and for sessions below those. What
//! a query reserves is counted at each level from its session's up to the root. Any of them may call for a spill, by
//! the same rules, of what it knows: all that is reserved at it and below it. Without children there is one level.
//!
//! What always holds: a level counts what the levels below it count, each byte once; what is refused at one level is
//! counted at none.

use std::iter::successors;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::governor::SpillPolicy;
use super::limit::LimitScope;
use super::parked::ParkedEntry;
use super::readable;
use super::reservation::Active;
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

pub(super) struct Level {
    pub parent: Option<Arc<Level>>,
    pub scope: LimitScope,
    /// Not above the parent's.
    pub limit: usize,
    pub policy: SpillPolicy,
    /// Above this, what can spill does.
    spill_at: usize,
    used: AtomicUsize,
    /// The part of `used` that cannot be spilled.
    firm: AtomicUsize,
    peak: AtomicUsize,
    spilled: AtomicU64,
    holders: Mutex<Holders>,
}

/// Those at this level and below it.
#[derive(Default)]
struct Holders {
    active: Vec<Arc<Active>>,
    parked: Vec<Arc<ParkedEntry>>,
}

impl Level {
    /// A level below `parent`, or the root. Its limit is not above those that it is below.
    pub fn new(parent: Option<Arc<Level>>, scope: LimitScope, limit: u64, policy: SpillPolicy) -> Level {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let limit = parent.as_ref().map_or(limit, |above| limit.min(above.limit));
        Level {
            parent,
            scope,
            limit,
            policy,
            spill_at: (limit / 100 * SPILL_AT_PERCENT).max(limit.saturating_sub(HEADROOM_BYTES_MAX)),
            used: AtomicUsize::new(0),
            firm: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            spilled: AtomicU64::new(0),
            holders: Mutex::default(),
        }
    }

    /// This level and those above it.
    pub fn chain(&self) -> impl Iterator<Item = &Level> {
        successors(Some(self), |level| level.parent.as_deref())
    }

    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    pub fn spilled_bytes(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// What one of the operators at work may hold when memory is short.
    pub fn fair_share_bytes(&self) -> usize {
        let share = |level: &Level| level.spill_at / level.holders.lock().active.len().max(1);
        self.chain().map(share).min().unwrap_or(0)
    }

    /// How much more may be held that cannot be spilled, if something else is possible.
    pub fn firm_room_bytes(&self) -> usize {
        let room = |level: &Level| (level.limit / 2).saturating_sub(level.firm.load(Ordering::Relaxed));
        self.chain().map(room).min().unwrap_or(0)
    }

    pub fn note_spilled(&self, bytes: u64) {
        self.chain().for_each(|level| {
            level.spilled.fetch_add(bytes, Ordering::Relaxed);
        });
    }

    pub fn know_active(&self, active: &Arc<Active>) {
        self.chain().for_each(|level| level.holders.lock().active.push(active.clone()));
    }

    pub fn forget_active(&self, active: &Arc<Active>) {
        self.chain().for_each(|level| level.holders.lock().active.retain(|a| !Arc::ptr_eq(a, active)));
    }

    pub fn know_parked(&self, entry: &Arc<ParkedEntry>) {
        self.chain().for_each(|level| level.holders.lock().parked.push(entry.clone()));
    }

    pub fn forget_parked(&self, entry: &Arc<ParkedEntry>) {
        self.chain().for_each(|level| level.holders.lock().parked.retain(|e| !Arc::ptr_eq(e, entry)));
    }

    pub fn add(&self, bytes: usize) {
        for level in self.chain() {
            let used = level.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if used > level.peak.load(Ordering::Relaxed) {
                level.peak.fetch_max(used, Ordering::Relaxed);
            }
        }
    }

    pub fn subtract(&self, bytes: usize) {
        self.chain().for_each(|level| level.subtract_here(bytes));
    }

    /// What the root alone is to count from now on.
    pub fn subtract_below_root(&self, bytes: usize) {
        self.chain().filter(|level| level.parent.is_some()).for_each(|level| level.subtract_here(bytes));
    }

    fn subtract_here(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "invariant: only what is held is given back");
    }

    pub fn subtract_firm(&self, bytes: usize) {
        self.chain().for_each(|level| {
            level.firm.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    fn is_over_here(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.spill_at
    }

    pub fn always_spills(&self) -> bool {
        self.policy == SpillPolicy::Always
    }

    /// Whether too much is held, and so many bytes are worth a spill.
    pub fn is_worth_a_spill(&self, bytes: usize) -> bool {
        self.chain().any(|level| level.is_over_here() && bytes >= level.spill_bytes_min())
    }

    /// The least that is worth a spill.
    fn spill_bytes_min(&self) -> usize {
        (self.limit / SPILL_SHARE).min(SPILL_BYTES_MIN)
    }

    /// Whether an operator must spill because too much is held, here or above.
    pub fn must_spill(&self, own: &Arc<Active>) -> bool {
        self.chain().any(|level| level.is_over_here() && level.must_spill_here(own))
    }

    fn must_spill_here(&self, own: &Arc<Active>) -> bool {
        self.spill_parked();
        if !self.is_over_here() {
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

    /// Counts `more` bytes of what cannot be spilled, if they fit, here and above.
    pub fn add_firm(&self, operator: &str, held: usize, more: usize) -> Result<()> {
        for level in self.chain() {
            if let Err(error) = level.add_firm_here(operator, held, more) {
                for below in self.chain().take_while(|below| !ptr::eq(*below, level)) {
                    below.firm.fetch_sub(more, Ordering::Relaxed);
                }
                return Err(error);
            }
        }
        self.add(more);
        self.chain().for_each(Level::make_room);
        Ok(())
    }

    fn add_firm_here(&self, operator: &str, held: usize, more: usize) -> Result<()> {
        let fits = |firm: usize| firm.checked_add(more).filter(|sum| *sum <= self.limit);
        let counted = self.firm.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        counted.map(drop).map_err(|firm| self.does_not_fit(operator, held + more, firm - held.min(firm)))
    }

    fn make_room(&self) {
        if self.is_over_here() {
            self.spill_parked();
        }
        if self.is_over_here() {
            let holders = self.holders.lock();
            if let Some(largest) = holders.active.iter().max_by_key(|a| a.spillable()) {
                largest.ask();
            }
        }
    }

    fn does_not_fit(&self, operator: &str, needed: usize, others: usize) -> EngineError {
        let others = match others {
            0 => String::new(),
            bytes => format!(", {} of which other operators hold that cannot spill", readable(bytes as u64)),
        };
        EngineError::Resources(format!(
            "{operator} needs {} in memory at once and cannot spill it; {} is {}{others}. Raise {}",
            readable(needed as u64),
            self.scope.name(),
            readable(self.limit as u64),
            self.scope.flag(),
        ))
    }

    /// Spills outputs that wait, the largest first, until enough is free. One that cannot be spilled (its disk
    /// is full) stays as it is: that is for its own query to notice.
    fn spill_parked(&self) {
        let mut refused: Vec<Arc<ParkedEntry>> = vec![];
        while self.is_over_here() {
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
