//! Wrong passwords, counted for each name: after some within a minute none is tried until the minute is over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong passwords of one name within [`WINDOW`].
pub const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Names with wrong passwords that are remembered; beyond it all wait until some are forgotten.
const NAMES_MAX: usize = 10_000;

/// The wrong passwords of the last minute.
#[derive(Default)]
pub struct Attempts {
    failures: Mutex<HashMap<String, (Instant, u32)>>,
}

impl Attempts {
    /// Whether another password of a name may be tried.
    pub fn allowed(&self, name: &str) -> bool {
        let mut failures = self.failures.lock();
        match failures.get(name) {
            Some((since, count)) => *count < FAILURES_MAX || since.elapsed() >= WINDOW,
            None if failures.len() < NAMES_MAX => true,
            None => {
                failures.retain(|_, (since, _)| since.elapsed() < WINDOW);
                failures.len() < NAMES_MAX
            }
        }
    }

    /// A password was wrong.
    pub fn failed(&self, name: &str) {
        let mut failures = self.failures.lock();
        let entry = failures.entry(name.to_owned()).or_insert_with(|| (Instant::now(), 0));
        if entry.0.elapsed() >= WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
    }

    /// A password was right.
    pub fn succeeded(&self, name: &str) {
        self.failures.lock().remove(name);
    }
}
