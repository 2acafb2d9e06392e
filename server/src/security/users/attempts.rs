//! Wrong passwords, counted for each name: after some within a minute none is tried until the minute is over.
//!
//! What always holds: names that are not there take no memory and no attempts from those that are; and they are
//! answered in the same way, so that nobody learns which there are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong passwords of one name within [`WINDOW`].
pub const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Counters that names which are not there share. Many more than the passwords that can be hashed in a minute, over
/// [`FAILURES_MAX`].
const UNKNOWN_COUNTERS: usize = 4096;

/// The wrong passwords of the last minute.
pub struct Attempts {
    /// Only of names that are there, so there are never more than users.
    known: Mutex<HashMap<String, Failures>>,
    unknown: Mutex<Vec<Option<Failures>>>,
    /// Nobody can choose names for one counter.
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// None yet.
    pub fn new() -> Attempts {
        let unknown = Mutex::new(vec![None; UNKNOWN_COUNTERS]);
        Attempts { known: Mutex::default(), unknown, hasher: RandomState::new() }
    }

    /// Whether another password of a name may be tried.
    pub fn allowed(&self, name: &str, is_known: bool) -> bool {
        let failures = match is_known {
            true => self.known.lock().get(name).copied(),
            false => self.unknown.lock()[self.counter(name)],
        };
        failures.is_none_or(|f| f.count < FAILURES_MAX || f.are_old())
    }

    /// A password was wrong.
    pub fn failed(&self, name: &str, is_known: bool) {
        if !is_known {
            let failures = &mut self.unknown.lock()[self.counter(name)];
            *failures = Some(Failures::one_more(*failures));
            return;
        }
        let mut known = self.known.lock();
        known.retain(|_, failures| !failures.are_old());
        let failures = Failures::one_more(known.get(name).copied());
        known.insert(name.to_owned(), failures);
    }

    /// A password was right.
    pub fn succeeded(&self, name: &str) {
        self.known.lock().remove(name);
    }

    fn counter(&self, name: &str) -> usize {
        (self.hasher.hash_one(name) % UNKNOWN_COUNTERS as u64) as usize
    }
}

impl Failures {
    fn one_more(before: Option<Failures>) -> Failures {
        let before = before.filter(|f| !f.are_old());
        let before = before.unwrap_or_else(|| Failures { since: Instant::now(), count: 0 });
        Failures { count: before.count + 1, ..before }
    }

    fn are_old(&self) -> bool {
        self.since.elapsed() >= WINDOW
    }
}
