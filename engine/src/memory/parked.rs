//! What waits, and can be spilled meanwhile by whoever needs its memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::Governor;
use crate::error::Result;

/// Something in memory that nobody works on. Its methods are called by any thread, several at once.
pub trait Spillable: Send + Sync {
    /// Memory that a spill would free. Must not block.
    fn memory_bytes(&self) -> usize;

    /// Writes to disk what is in memory, lets go of it, takes it out of the governor's count, and gives the
    /// bytes written. After an error everything is as it was. Must not ask the governor for memory.
    fn spill(&self) -> Result<u64>;
}

/// Keeps a holder known to the governor; forgotten on drop.
pub struct Parked {
    governor: Governor,
    entry: Arc<ParkedEntry>,
}

pub(super) struct ParkedEntry {
    holder: Weak<dyn Spillable>,
    spilling: AtomicBool,
}

/// The right to spill a holder; one thread has it at a time.
pub(super) struct Claim(Arc<ParkedEntry>);

impl Parked {
    pub(super) fn new(governor: Governor, entry: Arc<ParkedEntry>) -> Self {
        Parked { governor, entry }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.governor.level.forget_parked(&self.entry);
    }
}

impl ParkedEntry {
    pub(super) fn new(holder: Weak<dyn Spillable>) -> Self {
        ParkedEntry { holder, spilling: AtomicBool::new(false) }
    }

    /// The holder, unless it is gone or being spilled.
    pub(super) fn holder(&self) -> Option<Arc<dyn Spillable>> {
        if self.spilling.load(Ordering::Relaxed) { None } else { self.holder.upgrade() }
    }

    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        (!self.spilling.swap(true, Ordering::Acquire)).then(|| Claim(self.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.spilling.store(false, Ordering::Release);
    }
}
