//! Clients' sessions: which of them a call belongs to, how one begins, and when it ends.
//!
//! ```text
//! call ─▶ Sessions::caller ─▶ Caller ─▶ Statements, in Caller::session or, for what must last, Caller::own_session
//!                               └─▶ Caller::answered: the cookie, on the call's answer
//! ```
//!
//! A session is found by the cookie that Flight names for it, or, without one, by the bearer token that a handshake
//! was answered with. A client that has neither is offered a cookie which says nothing ([`cookie::OFFER`]): whoever
//! sends it back keeps cookies, and gets a session, and its cookie, with the first statement that needs one. The
//! statements of all others run in a session that lasts for the call; what would have to last longer is refused. Each
//! has its part of the memory ([`UserMemory`]).
//!
//! What always holds: a session is used by the user who began it and by nobody else; there are never more than a fixed
//! number, in total and of one user; one that was idle for long is ended, and its token with it; a client that shows
//! one that has ended is told so, and not served without its settings and tables.

mod caller;
mod cookie;
mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_engine::Session;
use parking_lot::Mutex;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::operations::Limits;
use super::refusals::over_limit;
use crate::security::users::{Identity, Role, Users};

pub use caller::Caller;
use caller::Found;
pub(crate) use cookie::{COOKIE, OFFER, SET_COOKIE, set_in, shown_with};
use memory::UserMemory;

/// Between two looks for sessions that are idle; less if they may be idle for less.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// All sessions of a server's clients. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    database: Arc<Session>,
    limits: Limits,
    users: Option<Arc<Users>>,
    memory: Arc<UserMemory>,
    all: Arc<Mutex<All>>,
}

#[derive(Default)]
struct All {
    open: HashMap<Key, Open>,
    /// Somebody looks for idle ones now and then.
    is_watched: bool,
}

/// By what a client shows which session is its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Random, so that nobody guesses another's.
    Cookie(String),
    /// The number of the handshake whose token it shows.
    SignIn(u64),
}

struct Open {
    owner: Arc<str>,
    session: Arc<Session>,
    used: Instant,
}

impl Sessions {
    /// None yet.
    pub fn new(database: Arc<Session>, limits: Limits, users: Option<Arc<Users>>) -> Sessions {
        let memory = Arc::new(UserMemory::new(database.governor().clone(), &limits));
        Sessions { database, limits, users, memory, all: Arc::default() }
    }

    /// Who makes a call, in which session.
    pub fn caller(&self, identity: Identity, headers: &MetadataMap) -> Caller {
        self.end_idle();
        let found = match (cookie::shown(headers), identity.sign_in) {
            (Some(id), _) if id != OFFER => self.open(Key::Cookie(id), &identity),
            (_, Some(sign_in)) => match self.open(Key::SignIn(sign_in), &identity) {
                Found::Ended => Found::SignedIn(sign_in),
                open => open,
            },
            (Some(_), None) => Found::KeepsCookies,
            (None, None) => Found::Nothing,
        };
        Caller::new(identity, found, self.clone())
    }

    /// The session of a key, if there is one and it is this user's.
    fn open(&self, key: Key, identity: &Identity) -> Found {
        let mut all = self.all.lock();
        match all.open.get_mut(&key) {
            Some(open) if open.owner == identity.name => {
                open.used = Instant::now();
                Found::Open(key, open.session.clone())
            }
            Some(_) => {
                tracing::warn!(user = &*identity.name, "refused a session that is another's");
                Found::Ended
            }
            None => Found::Ended,
        }
    }

    /// A new session of a user.
    fn begin(&self, key: Key, identity: &Identity) -> Result<Arc<Session>, Status> {
        let owner = &identity.name;
        let mut all = self.all.lock();
        // Two calls of a client may begin the session of its token.
        if let Some(open) = all.open.get(&key) {
            return Ok(open.session.clone());
        }
        let Limits { sessions, sessions_per_user, .. } = self.limits;
        if all.open.len() >= sessions {
            let message = format!("{sessions} sessions are open, and the server keeps no more; close some");
            return Err(over_limit(owner, message));
        }
        if all.open.values().filter(|open| open.owner == *owner).count() >= sessions_per_user {
            let message =
                format!("a user may have {sessions_per_user} sessions, and has as many; close some");
            return Err(over_limit(owner, message));
        }
        let session = Arc::new(self.connect(identity));
        let open = Open { owner: owner.clone(), session: session.clone(), used: Instant::now() };
        all.open.insert(key, open);
        if !std::mem::replace(&mut all.is_watched, true) {
            tokio::spawn(end_idle_now_and_then(self.clone()));
        }
        Ok(session)
    }

    /// A session of the database, within what the user may hold of its memory and may see of others.
    fn connect(&self, identity: &Identity) -> Session {
        let session = self.database.connect_within(self.memory.of_session(&identity.name));
        match identity.role {
            Role::ReadOnly => session.seeing_only(&identity.name),
            Role::ReadWrite => session,
        }
    }

    /// Ends a session, if it is there.
    fn end(&self, key: &Key) {
        self.all.lock().open.remove(key);
    }

    /// Ends those that nobody has used for long.
    fn end_idle(&self) {
        let mut ended = vec![];
        let mut all = self.all.lock();
        all.open.retain(|key, open| {
            // A statement that runs, or a result that waits, has the session too.
            if Arc::strong_count(&open.session) > 1 {
                open.used = Instant::now();
            }
            let is_idle = open.used.elapsed() >= self.limits.session_idle;
            if let (true, Key::SignIn(sign_in)) = (is_idle, key) {
                ended.push(*sign_in);
            }
            !is_idle
        });
        drop(all);
        // A token that went on without its session would go on without its settings.
        for sign_in in ended {
            self.users.iter().for_each(|users| users.tokens.end(sign_in));
        }
    }

    /// Whether there is still something to look for; if not, whoever asks is to stop.
    fn is_watched_on(&self) -> bool {
        let mut all = self.all.lock();
        all.is_watched = !all.open.is_empty();
        all.is_watched
    }
}

/// Until there are none.
async fn end_idle_now_and_then(sessions: Sessions) {
    let interval = (sessions.limits.session_idle / 4).clamp(Duration::from_millis(10), SWEEP_INTERVAL_MAX);
    loop {
        tokio::time::sleep(interval).await;
        sessions.end_idle();
        if !sessions.is_watched_on() {
            return;
        }
    }
}
