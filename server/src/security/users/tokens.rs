//! Bearer tokens that users get for their password, so that it is not sent and hashed with each call.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Status;

use super::Identity;

/// How long a token is good for.
pub const TOKEN_AGE: Duration = Duration::from_secs(12 * 3600);
/// Tokens that are good at once.
const TOKENS_MAX: usize = 100_000;
/// Of one user. One more, and the oldest of them is good no longer.
pub const TOKENS_OF_USER_MAX: usize = 1000;

/// All tokens that are good. Each is random, so that looking one up tells nothing about another.
pub struct Tokens {
    age: Duration,
    all: Mutex<Good>,
}

#[derive(Default)]
struct Good {
    /// Of sign-ins so far.
    last: u64,
    tokens: HashMap<String, (Instant, Identity)>,
}

impl Tokens {
    /// None yet.
    pub fn new(age: Duration) -> Tokens {
        Tokens { age, all: Mutex::default() }
    }

    /// A new token of a user.
    pub fn issue(&self, identity: &Identity) -> Result<String, Status> {
        let mut all = self.all.lock();
        // Whoever comes here has shown the password of a user, and a look at all of them is short.
        all.tokens.retain(|_, (since, _)| since.elapsed() < self.age);
        let own = all.tokens.iter().filter(|(_, (_, holder))| holder.name == identity.name);
        let oldest = own.clone().min_by_key(|(_, (since, _))| *since).map(|(token, _)| token.clone());
        if own.count() >= TOKENS_OF_USER_MAX
            && let Some(oldest) = oldest
        {
            all.tokens.remove(&oldest);
        }
        if all.tokens.len() >= TOKENS_MAX {
            tracing::warn!(user = &*identity.name, "refused a token: too many are good already");
            return Err(Status::resource_exhausted("too many users are signed in; try again later"));
        }
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        all.last += 1;
        let identity = Identity { sign_in: Some(all.last), ..identity.clone() };
        all.tokens.insert(token.clone(), (Instant::now(), identity));
        Ok(token)
    }

    /// Whose token this is, while it is good.
    pub fn holder(&self, token: &str) -> Option<Identity> {
        let mut all = self.all.lock();
        let (since, identity) = all.tokens.get(token)?;
        if since.elapsed() < self.age {
            return Some(identity.clone());
        }
        all.tokens.remove(token);
        None
    }

    /// Has the token of a sign-in be good no more.
    pub fn end(&self, sign_in: u64) {
        self.all.lock().tokens.retain(|_, (_, identity)| identity.sign_in != Some(sign_in));
    }
}
