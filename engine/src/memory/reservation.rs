//! What one operator of one task holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Governor, LimitScope};
use crate::error::Result;

/// An operator's part of the memory; given back on drop. Used by one thread.
///
/// An operator that can spill reports with [`Reservation::resize`] once a batch, and spills if it is told to.
/// What it cannot spill, now or at all, it reports with [`Reservation::resize_firm`] before it allocates it.
pub struct Reservation {
    governor: Governor,
    operator: &'static str,
    active: Arc<Active>,
    firm: usize,
}

/// What something that waits holds: counted, but asked nothing; given back on drop.
pub struct Charge {
    governor: Governor,
    bytes: AtomicUsize,
}

impl Charge {
    /// A charge of nothing yet.
    pub fn new(governor: &Governor) -> Self {
        Charge { governor: governor.clone(), bytes: AtomicUsize::new(0) }
    }

    /// A charge of so many bytes.
    pub fn of(governor: &Governor, bytes: usize) -> Self {
        let charge = Charge::new(governor);
        charge.set(bytes);
        charge
    }

    /// Goes on as the process's alone: for what outlives the user and the session that it came from.
    pub fn into_process(mut self) -> Charge {
        self.governor.level.subtract_below_root(self.bytes());
        self.governor = self.governor.root();
        self
    }

    /// Whom the limit bounds that this is counted against first.
    pub fn scope(&self) -> LimitScope {
        self.governor.scope()
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Says how much is held now. By one thread at a time.
    pub fn set(&self, bytes: usize) {
        if bytes == self.bytes() {
            return;
        }
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let level = &self.governor.level;
        if bytes >= before { level.add(bytes - before) } else { level.subtract(before - bytes) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What the governor sees of a reservation.
#[derive(Default)]
pub(super) struct Active {
    spillable: AtomicUsize,
    asked: AtomicBool,
}

impl Active {
    pub(super) fn spillable(&self) -> usize {
        self.spillable.load(Ordering::Relaxed)
    }

    /// It is to spill at its next report.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

impl Reservation {
    pub(super) fn new(governor: Governor, operator: &'static str, active: Arc<Active>) -> Self {
        Reservation { governor, operator, active, firm: 0 }
    }

    /// The operator's name.
    pub fn operator(&self) -> &'static str {
        self.operator
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.active.spillable() + self.firm
    }

    /// Bytes that are held and cannot be spilled.
    pub fn firm_bytes(&self) -> usize {
        self.firm
    }

    /// Says how much can be spilled now. The answer is whether it must be, before there is more of it; that
    /// done, say how much is left.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        let level = &self.governor.level;
        let before = self.active.spillable.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            level.add(bytes - before);
        } else {
            level.subtract(before - bytes);
        }
        if level.always_spills() {
            return bytes > 0;
        }
        let asked = self.active.asked.load(Ordering::Relaxed) && {
            self.active.asked.store(false, Ordering::Relaxed);
            level.is_worth_a_spill(bytes)
        };
        asked || level.must_spill(&self.active)
    }

    /// [`Self::resize`] after a spill, and where something shrinks: there is nothing to be done about it.
    pub fn shrink(&mut self, bytes: usize) {
        let before = self.active.spillable.swap(bytes, Ordering::Relaxed);
        let level = &self.governor.level;
        if bytes >= before { level.add(bytes - before) } else { level.subtract(before - bytes) }
    }

    /// Says how much is held that cannot be spilled.
    ///
    /// # Errors
    /// All of its kind together do not fit the limit; then the reservation is as it was.
    pub fn resize_firm(&mut self, bytes: usize) -> Result<()> {
        let level = &self.governor.level;
        if bytes > self.firm {
            level.add_firm(self.operator, self.firm, bytes - self.firm)?;
        } else {
            level.subtract_firm(self.firm - bytes);
            level.subtract(self.firm - bytes);
        }
        self.firm = bytes;
        Ok(())
    }

    /// What cannot be spilled goes on being counted, by somebody who waits.
    pub fn into_charge(self) -> Charge {
        let (governor, bytes) = (self.governor.clone(), self.firm);
        drop(self);
        Charge::of(&governor, bytes)
    }

    /// The governor that this is a part of.
    pub fn governor(&self) -> &Governor {
        &self.governor
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let level = &self.governor.level;
        level.forget_active(&self.active);
        level.subtract(self.active.spillable() + self.firm);
        level.subtract_firm(self.firm);
    }
}
