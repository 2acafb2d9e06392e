//! Who makes a call, and in which session its statements run.

use std::sync::Arc;

use dovetail_engine::Session;
use parking_lot::Mutex;
use tonic::{Response, Status};

use super::cookie::{self, OFFER, SET_COOKIE};
use super::{Key, Sessions};
use crate::security::users::Identity;

/// Whose call it is. Cheap to clone; all clones are of the same call.
#[derive(Clone)]
pub struct Caller {
    pub identity: Identity,
    sessions: Sessions,
    state: Arc<Mutex<State>>,
}

struct State {
    found: Found,
    /// The cookie that the answer is to set.
    cookie: Option<String>,
    /// Where statements run that need nothing to last.
    passing: Option<Arc<Session>>,
}

/// What a call shows of a session.
pub enum Found {
    Open(Key, Arc<Session>),
    /// One that is not there any more, or another user's.
    Ended,
    /// The token of a handshake, without a session yet.
    SignedIn(u64),
    /// That the client keeps cookies, without a session yet.
    KeepsCookies,
    Nothing,
}

impl Caller {
    pub fn new(identity: Identity, found: Found, sessions: Sessions) -> Caller {
        let cookie = matches!(found, Found::Nothing).then(|| OFFER.to_owned());
        Caller { identity, sessions, state: Arc::new(Mutex::new(State { found, cookie, passing: None })) }
    }

    /// Names the user in what is logged on the way.
    pub fn span(&self) -> tracing::Span {
        tracing::warn_span!("call", user = &*self.identity.name)
    }

    /// The session of the call's statements: the client's own, or one that lasts for the call.
    ///
    /// # Errors
    /// The client shows one that has ended.
    pub fn session(&self) -> Result<Arc<Session>, Status> {
        let mut state = self.state.lock();
        match &state.found {
            Found::Open(_, session) => Ok(session.clone()),
            Found::Ended => Err(ended()),
            Found::SignedIn(_) | Found::KeepsCookies | Found::Nothing => {
                let connect = || Arc::new(self.sessions.connect(&self.identity));
                let passing = state.passing.get_or_insert_with(connect);
                Ok(passing.clone())
            }
        }
    }

    /// The client's own session, for what is to last beyond the call. It begins now if it has not yet.
    ///
    /// # Errors
    /// The client could not show it with its next call; it has ended; there are too many.
    pub fn own_session(&self) -> Result<Arc<Session>, Status> {
        let is_stranger = matches!(self.state.lock().found, Found::Nothing);
        if is_stranger {
            tracing::warn!(user = &*self.identity.name, "refused a statement that needs a session");
            return Err(Status::failed_precondition(
                "settings, temporary tables and temporary views belong to a session, and this client has none: turn on \
                 its cookies (ADBC: adbc.flight.sql.rpc.with_cookie_middleware=true; JDBC: retainCookies=true), or \
                 sign in with a name and a password of the server's users",
            ));
        }
        self.begin()
    }

    /// [`Self::own_session`], also for a client that has not shown yet that it keeps cookies.
    pub fn begin(&self) -> Result<Arc<Session>, Status> {
        let mut state = self.state.lock();
        let key = match &state.found {
            Found::Open(_, session) => return Ok(session.clone()),
            Found::Ended => return Err(ended()),
            Found::SignedIn(sign_in) => Key::SignIn(*sign_in),
            Found::KeepsCookies | Found::Nothing => Key::Cookie(uuid::Uuid::new_v4().simple().to_string()),
        };
        let session = self.sessions.begin(key.clone(), &self.identity)?;
        if let Key::Cookie(id) = &key {
            state.cookie = Some(id.clone());
        }
        state.found = Found::Open(key, session.clone());
        Ok(session)
    }

    /// Ends the client's own session; which it was, if it had one.
    pub fn end(&self) -> Option<Arc<Session>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.found, Found::Ended) {
            Found::Open(key, session) => {
                self.sessions.end(&key);
                // The client may begin another.
                state.cookie = matches!(key, Key::Cookie(_)).then(|| OFFER.to_owned());
                Some(session)
            }
            other => {
                state.found = other;
                None
            }
        }
    }

    /// An answer to the call, with the cookie that it is to set.
    pub fn answered<T>(&self, outcome: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        let Some(id) = self.state.lock().cookie.take() else {
            return outcome;
        };
        let cookie = cookie::to_set(&id);
        match outcome {
            Ok(mut response) => {
                response.metadata_mut().insert(SET_COOKIE, cookie);
                Ok(response)
            }
            Err(mut status) => {
                status.metadata_mut().insert(SET_COOKIE, cookie);
                Err(status)
            }
        }
    }
}

/// The client is to begin another session; it does not go on without what it had.
fn ended() -> Status {
    let mut status = Status::failed_precondition(
        "the session has ended: it was closed, was not used for long, or the server was started again; its settings \
         and temporary tables are gone. The next statement begins another",
    );
    status.metadata_mut().insert(SET_COOKIE, cookie::to_forget());
    status
}
