//! The gRPC service itself: what arrow-flight's Flight SQL trait leaves out, in front of what it covers.
//!
//! Here are the handshake, GetSchema, PollFlightInfo, CancelFlightInfo and the session actions; everything else
//! goes on to [`Service`], but for tickets that belong to a [`TicketHandler`]. Each call is told here which session it
//! belongs to, and each answer gets the cookie that it is to set.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, Criteria, Empty, FlightData,
    FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult,
    Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Instrument;

use super::service::{Service, caller};
use super::session_options::{self, CLOSED, CloseSessionResult};
use super::sessions::{Caller, Sessions};
use super::{FlightStream, TicketHandler};
use crate::security::ServerAuth;

/// Actions that arrow-flight's trait does not know.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CLOSE_SESSION: &str = "CloseSession";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";

/// Flight SQL as a gRPC service.
#[derive(Clone)]
pub struct Front {
    sql: Service,
    sessions: Sessions,
    tickets: Option<Arc<dyn TicketHandler>>,
    auth: ServerAuth,
}

impl Front {
    pub(super) fn new(
        sql: Service,
        sessions: Sessions,
        tickets: Option<Arc<dyn TicketHandler>>,
        auth: ServerAuth,
    ) -> Front {
        Front { sql, sessions, tickets, auth }
    }

    /// Finds the session that a call belongs to, and tells the call of it.
    fn caller<T>(&self, request: &mut Request<T>) -> Result<Caller, Status> {
        let caller = self.sessions.caller(caller(request)?, request.metadata());
        request.extensions_mut().insert(caller.clone());
        Ok(caller)
    }

    async fn action(&self, request: Request<Action>, caller: &Caller) -> Result<Response<Actions>, Status> {
        let Action { r#type, body } = request.get_ref();
        match r#type.as_str() {
            CANCEL_FLIGHT_INFO => {
                let malformed =
                    |e| Status::invalid_argument(format!("CancelFlightInfo's request is malformed: {e}"));
                let asked = CancelFlightInfoRequest::decode(body.as_ref()).map_err(malformed)?;
                let Some(info) = asked.info else {
                    return Err(Status::invalid_argument("CancelFlightInfo names no FlightInfo"));
                };
                let status = self.sql.cancel(&info, &caller.identity)? as i32;
                Ok(one(CancelFlightInfoResult { status }))
            }
            SET_SESSION_OPTIONS => Ok(one(session_options::set(caller, body)?)),
            GET_SESSION_OPTIONS => Ok(one(session_options::get(caller)?)),
            // A client without one has nothing to give back.
            CLOSE_SESSION => {
                self.sql.end_session(caller);
                Ok(one(CloseSessionResult { status: CLOSED }))
            }
            _ => FlightService::do_action(&self.sql, request)
                .await
                .map(|r| r.map(|s| s as Actions))
                .map_err(blamed),
        }
    }
}

type Actions = BoxStream<'static, Result<arrow_flight::Result, Status>>;

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = Actions;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    /// Whoever comes here is known; a user gets a token to go on with.
    async fn handshake(
        &self,
        mut request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let offered = self.caller(&mut request)?;
        let mut response = Response::new(stream::iter([Ok(HandshakeResponse::default())]).boxed());
        let answer = self.auth.answer(&offered.identity, request.metadata())?;
        response.metadata_mut().insert("authorization", answer);
        offered.answered(Ok(response))
    }

    /// Nothing is listed: results are asked for by SQL.
    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn get_flight_info(
        &self,
        mut request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(&mut request)?;
        let info = self.sql.get_flight_info(request).instrument(caller.span()).await;
        caller.answered(info.map_err(blamed))
    }

    /// The whole answer at once: a query's plan is made soon, and its rows are computed when they are fetched.
    async fn poll_flight_info(
        &self,
        mut request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller(&mut request)?;
        let info = self.sql.poll(request).instrument(caller.span()).await;
        caller.answered(info.map(Response::new).map_err(blamed))
    }

    async fn get_schema(
        &self,
        mut request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(&mut request)?;
        let schema = self.sql.schema(&request).await;
        caller.answered(schema.map(|schema| Response::new(SchemaResult { schema })))
    }

    async fn do_get(&self, mut request: Request<Ticket>) -> Result<Response<FlightStream>, Status> {
        match &self.tickets {
            // Other processes have the token.
            Some(handler)
                if handler.takes(&request.get_ref().ticket) && caller(&request)?.name.is_empty() =>
            {
                Ok(Response::new(handler.do_get(request.into_inner().ticket).await?))
            }
            _ => {
                let caller = self.caller(&mut request)?;
                let rows = FlightService::do_get(&self.sql, request).instrument(caller.span()).await;
                caller.answered(rows.map(|r| r.map(|s| s as FlightStream)).map_err(blamed))
            }
        }
    }

    async fn do_put(
        &self,
        mut request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller(&mut request)?;
        let done = FlightService::do_put(&self.sql, request).instrument(caller.span()).await;
        caller.answered(done.map(|r| r.map(|s| s as Self::DoPutStream)).map_err(blamed))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange is not supported; Flight SQL does not need it"))
    }

    async fn do_action(
        &self,
        mut request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.caller(&mut request)?;
        caller.answered(self.action(request, &caller).instrument(caller.span()).await)
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = [
            ("CreatePreparedStatement", "Plans a statement, to be run later and repeatedly"),
            ("ClosePreparedStatement", "Forgets a prepared statement"),
            ("CancelQuery", "Stops a query"),
            (CANCEL_FLIGHT_INFO, "Stops a query, or forgets its result"),
            (SET_SESSION_OPTIONS, "Changes settings of the client's session"),
            (GET_SESSION_OPTIONS, "Tells the settings of the client's session"),
            (CLOSE_SESSION, "Ends the client's session, with its temporary tables"),
        ];
        let action = |(name, description): (&str, &str)| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        };
        Ok(Response::new(stream::iter(actions.map(action)).boxed()))
    }
}

/// What arrow-flight cannot decode it calls an internal error; it is the caller's.
fn blamed(status: Status) -> Status {
    match status.code() == Code::Internal && status.message().contains("Unable to decode") {
        true => Status::invalid_argument(format!("the message is malformed: {}", status.message())),
        false => status,
    }
}

fn one(message: impl Message) -> Response<BoxStream<'static, Result<arrow_flight::Result, Status>>> {
    let body = message.encode_to_vec().into();
    Response::new(stream::iter([Ok(arrow_flight::Result { body })]).into_stream().boxed())
}
