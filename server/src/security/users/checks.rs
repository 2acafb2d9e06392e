//! Passwords that are being hashed: a few at once, and a few more that wait.
//!
//! What always holds: memory and threads for hashes are bounded, whoever asks for them; somebody who comes while
//! others are at it waits a moment and is not refused.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tonic::Status;

/// Passwords that are checked at once; each takes 19 MiB.
pub const CHECKS_MAX: usize = 4;
/// Threads that wait for a check.
const WAITING_MAX: usize = 64;
/// How long each does; a check takes a small part of a second.
const WAIT: Duration = Duration::from_secs(5);

/// Lets in a few at once.
#[derive(Default)]
pub struct Checks {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: usize,
}

/// A check under way.
pub struct Check<'a>(&'a Checks);

impl Checks {
    /// Begins a check, after a short wait if there are others. Blocks.
    pub fn begin(&self) -> Result<Check<'_>, Status> {
        let mut state = self.state.lock();
        let until = Instant::now() + WAIT;
        while state.running >= CHECKS_MAX {
            if state.waiting >= WAITING_MAX {
                return Err(too_many());
            }
            state.waiting += 1;
            let waited = self.ended.wait_until(&mut state, until);
            state.waiting -= 1;
            if waited.timed_out() && state.running >= CHECKS_MAX {
                return Err(too_many());
            }
        }
        state.running += 1;
        Ok(Check(self))
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.ended.notify_one();
    }
}

fn too_many() -> Status {
    Status::resource_exhausted("too many users sign in at the moment; try again")
}
