//! Bounded memory: one governor per process, with one limit, and what everybody holds of it.
//!
//! ```text
//! active operator ── Reservation: "I hold so much now" ──▶ Governor ── "spill yourself" ──▶ back, as the answer
//! finished output ── park(Spillable) ───────────────────▶ Governor ── spill() ───────────▶ whoever needs room
//! ```
//!
//! Policy. Below the limit, less some headroom, a reservation is a few atomic additions and nobody is asked for
//! anything. Above that:
//!
//! 1. Finished outputs that wait for a reader spill, the largest first, on the thread that needs the room:
//!    nobody works on them at the moment.
//! 2. If that is not enough, an active operator that can spill is told so as the answer to its own report,
//!    once a batch, if it is the largest of them or holds more than its fair share (the limit by the number
//!    of them); otherwise the largest is told at its next report. Nobody waits for anybody: no deadlock.
//! 3. What cannot be spilled (a join table, a result) may take the whole limit. Beyond that its
//!    query fails with an error that names the operator, the sizes, the limit and the setting.
//!
//! A part of the limit may be one user's, or one session's: a governor has children, with limits of their own. What a
//! child reserves is counted by it and by those above it, and each of them calls for spills by the same policy.
//!
//! Margin: 256 MB. What the process holds may exceed the limit by what is not reported: its code (70 MB), for
//! each thread the batches on their way through a pipeline, one batch that a reader of an output has in its
//! hands, and the blocks under way of a spill (a few megabytes); by what an operator that was told to spill
//! holds until its next batch; and by free memory that the allocator cannot give back. Scans report the
//! chunks in hand and the footers. Holders too small to matter ([`Governor`]'s least spill, 1/64 of the limit
//! and at most 1 MiB) are not asked. Plans are not counted.
//!
//! What always holds: everything is given back on drop; a report never blocks on another operator.

mod governor;
mod held;
mod level;
mod limit;
mod parked;
mod reservation;
mod spill;

pub use governor::{Governor, MemoryUse, SpillPolicy};
pub use held::{HeldBatches, KeptBatches};
pub use limit::{LimitScope, MEMORY_LIMIT_BYTES_MIN, MemoryLimit};
pub use parked::{Parked, Spillable};
pub use reservation::{Charge, Reservation};
pub use spill::{QuerySpill, SpillSpace, parse_spill_directory};

/// Bytes as a person reads them, in powers of 1024: `1.5 MiB`.
pub fn readable(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    format!("{:.1} {}", bytes as f64 / 1024f64.powi(power as i32), UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests;
