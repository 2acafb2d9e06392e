//! The governor by itself: who is asked, who fails, and that nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::{EngineError, Result};

mod tree;

/// Something of a size that is gone when it is spilled, unless it refuses.
struct Waiting {
    charge: Charge,
    spills: AtomicUsize,
    refuses: bool,
}

impl Spillable for Waiting {
    fn memory_bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn spill(&self) -> Result<u64> {
        if self.refuses {
            return Err(EngineError::Resources("no room".into()));
        }
        self.spills.fetch_add(1, Ordering::Relaxed);
        let bytes = self.charge.bytes();
        self.charge.set(0);
        Ok(bytes as u64)
    }
}

fn waiting(governor: &Governor, bytes: usize, refuses: bool) -> (Arc<Waiting>, Parked) {
    let charge = Charge::new(governor);
    charge.set(bytes);
    let waiting = Arc::new(Waiting { charge, spills: AtomicUsize::new(0), refuses });
    let holder: Arc<dyn Spillable> = waiting.clone();
    let parked = governor.park(&holder).unwrap();
    (waiting, parked)
}

#[test]
fn the_largest_that_waits_spills_first() {
    // Spilling starts at 1400.
    let governor = Governor::new(2000, SpillPolicy::AtLimit);
    let small = waiting(&governor, 100, false);
    let large = waiting(&governor, 900, false);
    let refusing = waiting(&governor, 300, true);
    let mut operator = governor.reserve("test");
    assert!(!operator.resize(100));
    assert!(!operator.resize(200));
    assert_eq!((small.0.spills.load(Ordering::Relaxed), large.0.spills.load(Ordering::Relaxed)), (0, 1));
    assert!(!operator.resize(1100));
    assert_eq!(small.0.spills.load(Ordering::Relaxed), 1);
    assert!(operator.resize(1101), "only what refuses is left, and the operator is the largest");
    drop((small, large, refusing, operator));
    assert_eq!((governor.used_bytes(), governor.peak_bytes()), (0, 1500));
}

#[test]
fn the_largest_operator_is_asked_and_a_tiny_one_is_not() {
    // Spilling starts at 44 800.
    let governor = Governor::new(64_000, SpillPolicy::AtLimit);
    let (mut large, mut small) = (governor.reserve("large"), governor.reserve("small"));
    assert!(!large.resize(30_000));
    assert!(!small.resize(10_000));
    assert!(!small.resize(20_000), "the other is larger, and this within its share");
    assert!(large.resize(30_000), "it was asked");
    large.shrink(0);
    assert!(!large.resize(10));
    let mut firm = governor.reserve("firm");
    firm.resize_firm(64_000).unwrap();
    assert!(!large.resize(999), "less than a 64th of the limit");
    assert!(small.resize(20_000));
    drop((large, small, firm));
    assert_eq!(governor.used_bytes(), 0);
}

#[test]
fn what_cannot_spill_fails_alone_with_sizes() {
    let governor = Governor::new(10 << 20, SpillPolicy::AtLimit);
    let (mut one, mut other) = (governor.reserve("a join"), governor.reserve("a sort"));
    one.resize_firm(6 << 20).unwrap();
    let error = other.resize_firm(5 << 20).unwrap_err().to_string();
    assert_eq!(
        error,
        "a sort needs 5.0 MiB in memory at once and cannot spill it; the limit is 10.0 MiB, 6.0 MiB of which \
         other operators hold that cannot spill. Raise --memory-limit"
    );
    assert_eq!((one.bytes(), other.bytes()), (6 << 20, 0));
    drop(one);
    other.resize_firm(10 << 20).unwrap();
    other.resize_firm(1).unwrap();
    drop(other);
    assert_eq!(governor.used_bytes(), 0);
}

/// An operator that grows, spills when it is told to, and leaves outputs that wait.
fn grow_and_spill(governor: &Governor, thread: usize) {
    let mut operator = governor.reserve("test");
    let mut held = 0;
    let mut outputs = vec![];
    for step in 0..2000usize {
        held += 1 + (step * 7919 + thread * 104_729) % 40_000;
        if operator.resize(held) {
            held = 0;
            operator.shrink(0);
        }
        if step % 50 == 0 {
            outputs.push(waiting(governor, 10_000, false));
        }
        if step % 400 == 0 {
            outputs.clear();
        }
    }
}

#[test]
fn many_threads_end_at_zero_and_within_the_limit() {
    const LIMIT: usize = 1 << 20;
    let governor = Governor::new(LIMIT as u64, SpillPolicy::AtLimit);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let governor = governor.clone();
            scope.spawn(move || grow_and_spill(&governor, thread));
        }
    });
    assert_eq!(governor.used_bytes(), 0);
    // Each of the threads may be one step beyond what it may hold, and one more before it is asked.
    assert!(governor.peak_bytes() < 2 * LIMIT, "{}", governor.peak_bytes());
}

#[test]
fn limits_as_they_are_written() {
    let parse = |text: &str| text.parse::<MemoryLimit>();
    assert_eq!(parse("512MB").unwrap(), MemoryLimit::Bytes(512_000_000));
    assert_eq!(parse("1.5 GiB").unwrap(), MemoryLimit::Bytes(3 << 29));
    assert_eq!(parse("80%").unwrap(), MemoryLimit::Percent(80));
    assert!(MemoryLimit::default().bytes() > MEMORY_LIMIT_BYTES_MIN);
    let refused = |text| parse(text).unwrap_err().to_string();
    assert_eq!(refused("1MB"), "a memory limit of 1MB is too low: 32.0 MiB is the least");
    assert_eq!(refused("512"), "'512' is no size: write a number and a unit, such as 512MB or 2GiB");
    assert_eq!(refused("0%"), "'0%' is no share of the memory: write 1% to 100%");
    for text in ["", "MB", "-5GB", "1e3GB", "99999999999999999999TB", "nan GB"] {
        assert!(parse(text).is_err(), "{text}");
    }
}
