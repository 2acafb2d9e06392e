//! Names and passwords that were right a moment ago, so that a client which sends them with each call does not have them
//! hashed with each.
//!
//! What always holds: a password is not kept, but a hash of it under a key that this process alone has and that goes with
//! it; what was right is looked at anew after [`VERIFIED_FOR`]; there are never more than [`VERIFIED_MAX`]; they
//! go with the users that were read, so that a file which has changed is not answered by those of before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Names and passwords that are known to be right.
const VERIFIED_MAX: usize = 1024;
/// How long each is.
const VERIFIED_FOR: Duration = Duration::from_secs(300);

type Digest = [u8; blake3::OUT_LEN];

/// Those that are known. Who finds one has shown the password.
pub struct Verified {
    key: [u8; blake3::KEY_LEN],
    all: Mutex<HashMap<Digest, Instant>>,
}

impl Verified {
    /// None yet.
    pub fn new() -> Verified {
        let halves = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()];
        let mut key = [0; blake3::KEY_LEN];
        key.copy_from_slice(halves.as_flattened());
        Verified { key, all: Mutex::default() }
    }

    /// Whether this name and password were right a moment ago.
    pub fn knows(&self, name: &str, password: &[u8]) -> bool {
        let digest = self.digest(name, password);
        self.all.lock().get(&digest).is_some_and(|since| since.elapsed() < VERIFIED_FOR)
    }

    /// They are right.
    pub fn add(&self, name: &str, password: &[u8]) {
        let digest = self.digest(name, password);
        let mut all = self.all.lock();
        all.retain(|_, since| since.elapsed() < VERIFIED_FOR);
        if all.len() >= VERIFIED_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, since)| **since).map(|(digest, _)| *digest)
        {
            all.remove(&oldest);
        }
        all.insert(digest, Instant::now());
    }

    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // With its length, so that no two pairs are the same bytes.
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(password);
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_known_as_it_was_added_and_by_no_other_process() {
        let verified = Verified::new();
        verified.add("anna", b"password");
        assert!(verified.knows("anna", b"password"));
        for (name, password) in [("anna", "passwor"), ("ann", "apassword"), ("bert", "password"), ("", "")] {
            assert!(!verified.knows(name, password.as_bytes()), "{name}");
        }
        let another = Verified::new();
        assert_ne!(verified.digest("anna", b"password"), another.digest("anna", b"password"));
    }

    #[test]
    fn old_ones_go_and_the_oldest_for_another() {
        let verified = Verified::new();
        for number in 0..=VERIFIED_MAX {
            verified.add(&number.to_string(), b"password");
        }
        assert_eq!(verified.all.lock().len(), VERIFIED_MAX);
        assert!(!verified.knows("0", b"password") && verified.knows("1", b"password"));
        let long_ago = Instant::now().checked_sub(VERIFIED_FOR).expect("the machine has run for longer");
        verified.all.lock().values_mut().for_each(|since| *since = long_ago);
        assert!(!verified.knows("1", b"password"));
        verified.add("anna", b"password");
        assert_eq!(verified.all.lock().len(), 1);
    }
}
