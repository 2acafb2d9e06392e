//! The cookie by which a server knows the client's session: taken from its answers, shown with each call.
//!
//! What always holds: the first call already says that cookies are kept, so that any statement may begin the session.

use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};

use crate::flight_sql::{COOKIE, OFFER, SET_COOKIE, set_in, shown_with};

/// A channel whose calls all show the same cookie. Cheap to clone; all clones show the same.
#[derive(Clone)]
pub struct Cookies<S> {
    calls: S,
    id: SessionId,
}

/// The value of the cookie.
#[derive(Clone)]
pub struct SessionId(Arc<Mutex<String>>);

impl SessionId {
    /// No session yet.
    pub fn new() -> SessionId {
        SessionId(Arc::new(Mutex::new(OFFER.to_owned())))
    }

    /// Whether the server has begun a session.
    pub fn is_begun(&self) -> bool {
        *self.0.lock() != OFFER
    }

    fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&shown_with(&self.0.lock())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn take_from<B>(&self, response: &Response<B>) {
        let set = response.headers().get_all(SET_COOKIE).iter().filter_map(set_in).next_back();
        if let Some(id) = set {
            *self.0.lock() = if id.is_empty() { OFFER.to_owned() } else { id };
        }
    }
}

impl<S> Cookies<S> {
    pub fn new(calls: S, id: SessionId) -> Cookies<S> {
        Cookies { calls, id }
    }
}

impl<S, A, B> Service<Request<A>> for Cookies<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        if let Some(value) = self.id.header() {
            request.headers_mut().insert(COOKIE, value);
        }
        let (answer, id) = (self.calls.call(request), self.id.clone());
        Box::pin(async move {
            let response = answer.await?;
            id.take_from(&response);
            Ok(response)
        })
    }
}
