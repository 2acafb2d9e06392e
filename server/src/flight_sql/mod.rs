//! Flight SQL over a session: what ADBC, JDBC and ODBC drivers, and `dovetail --connect`, talk to.
//!
//! ```text
//! call ─▶ ServerAuth ─▶ front (FlightService) ─┬─ ticket of another's ─▶ TicketHandler
//!                                              ├─ sessions: which one is the client's
//!                                              ├─ schema, poll, cancel, session options
//!                                              └─▶ service (FlightSqlService) ─┬─▶ statements ─▶ engine::Session
//!                                                                              ├─▶ parameters, ingest: rows put
//!                                                                              └─▶ metadata
//! ```
//!
//! A query is planned when its FlightInfo is asked for and runs when its ticket is redeemed, or when it is polled
//! first; a command runs at once, since many clients never redeem the ticket of one. Session's calls block, so they run on threads of
//! their own; no thread waits for a slow client.
//!
//! What always holds: the schema of a FlightInfo is that of its rows; a ticket is redeemed once, and once more if the
//! server has ended meanwhile and has a state directory; a client that goes away takes its query with it; what
//! clients can make the server keep is bounded in number and age.

mod endpoints;
mod front;
mod ingest;
mod message;
mod metadata;
mod operations;
mod parameters;
mod polls;
mod prepared;
mod put;
mod refusals;
mod rows;
mod service;
mod session_options;
mod sessions;
mod statements;
mod status;
mod type_name;
mod wire;

use std::sync::Arc;

use arrow_flight::FlightData;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use dovetail_engine::Session;
use futures::stream::BoxStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::cluster::DurableResults;
use crate::security::{Security, ServerAuth};
use front::Front;
use service::Service;
use sessions::Sessions;

pub(crate) use message::{command_message, is_durable, table_rows};
pub use operations::Limits;
pub(crate) use sessions::{COOKIE, OFFER, SET_COOKIE, set_in, shown_with};
pub(crate) use wire::{wire_batches, wire_schema};

/// Larger messages of a client are refused before they are read. Some send all rows of an ingest in one.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Longer SQL is refused before it is parsed.
pub const SQL_BYTES_MAX: usize = 16 << 20;

/// Redeems tickets that are not Flight SQL's.
#[tonic::async_trait]
pub trait TicketHandler: Send + Sync + 'static {
    /// Whether a ticket is one of its own. A Flight SQL ticket is a `google.protobuf.Any`, whose first byte is 10.
    fn takes(&self, ticket: &[u8]) -> bool;

    /// Its rows. Called once for each DoGet, on a thread of the runtime that must not be blocked. The stream is
    /// dropped when the client has gone away.
    async fn do_get(&self, ticket: Bytes) -> Result<FlightStream, Status>;
}

/// Messages of a DoGet.
pub type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

/// A service for tonic's router, which lets in who shows the token.
pub type FlightServer = InterceptedService<FlightServiceServer<Front>, ServerAuth>;

/// A Flight SQL service that is being put together.
pub struct FlightSql {
    session: Arc<Session>,
    tickets: Option<Arc<dyn TicketHandler>>,
    durable: Option<Arc<DurableResults>>,
    limits: Limits,
}

impl FlightSql {
    /// Flight SQL over a session.
    pub fn new(session: Arc<Session>) -> FlightSql {
        FlightSql { session, tickets: None, durable: None, limits: Limits::default() }
    }

    /// Has somebody else redeem the tickets that are not Flight SQL's.
    pub fn with_tickets(self, handler: Arc<dyn TicketHandler>) -> FlightSql {
        FlightSql { tickets: Some(handler), ..self }
    }

    /// Lets tickets outlive this process, if they are being redeemed when it ends.
    pub(crate) fn with_durable(self, durable: Arc<DurableResults>) -> FlightSql {
        FlightSql { durable: Some(durable), ..self }
    }

    /// Other bounds than the usual ones.
    pub fn with_limits(self, limits: Limits) -> FlightSql {
        FlightSql { limits, ..self }
    }

    /// The service as all that a server has.
    pub fn routes(self, security: &Security) -> Routes {
        Routes::new(self.server(security))
    }

    /// The service, behind the token, to be put beside others.
    pub fn server(self, security: &Security) -> FlightServer {
        let auth = ServerAuth::for_clients(security);
        let service = Service::new(self.limits, self.durable);
        let sessions = Sessions::new(self.session, self.limits, security.users.clone());
        let front = Front::new(service, sessions, self.tickets, auth.clone());
        let server = FlightServiceServer::new(front).max_decoding_message_size(REQUEST_BYTES_MAX);
        InterceptedService::new(server, auth)
    }
}
