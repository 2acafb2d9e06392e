//! The gRPC service itself: what arrow-flight's Flight SQL trait leaves out, in front of what it covers.
//!
//! Here are the handshake, GetSchema, PollFlightInfo, CancelFlightInfo and the session actions; everything else
//! goes on to [`Service`], but for tickets that belong to a [`TicketHandler`].

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

use super::service::{Service, caller};
use super::{FlightStream, TicketHandler};
use crate::security::ServerAuth;

/// Actions that arrow-flight's trait does not know.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CLOSE_SESSION: &str = "CloseSession";

/// Flight SQL as a gRPC service.
#[derive(Clone)]
pub struct Front {
    sql: Service,
    tickets: Option<Arc<dyn TicketHandler>>,
    auth: ServerAuth,
}

impl Front {
    pub(super) fn new(sql: Service, tickets: Option<Arc<dyn TicketHandler>>, auth: ServerAuth) -> Front {
        Front { sql, tickets, auth }
    }
}

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    /// Whoever comes here is known; a user gets a token to go on with.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let mut response = Response::new(stream::iter([Ok(HandshakeResponse::default())]).boxed());
        response.metadata_mut().insert("authorization", self.auth.answer(&caller(&request)?)?);
        Ok(response)
    }

    /// Nothing is listed: results are asked for by SQL.
    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.sql.get_flight_info(request).await.map_err(blamed)
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        self.sql.poll(request).await.map(Response::new).map_err(blamed)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let schema = self.sql.schema(&request.get_ref().cmd, &caller(&request)?).await?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<FlightStream>, Status> {
        match &self.tickets {
            // Other processes have the token.
            Some(handler)
                if handler.takes(&request.get_ref().ticket) && caller(&request)?.name.is_empty() =>
            {
                Ok(Response::new(handler.do_get(request.into_inner().ticket).await?))
            }
            _ => FlightService::do_get(&self.sql, request)
                .await
                .map(|r| r.map(|s| s as FlightStream))
                .map_err(blamed),
        }
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        FlightService::do_put(&self.sql, request)
            .await
            .map(|r| r.map(|s| s as Self::DoPutStream))
            .map_err(blamed)
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange is not supported; Flight SQL does not need it"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let Action { r#type, body } = request.get_ref();
        match r#type.as_str() {
            CANCEL_FLIGHT_INFO => {
                let malformed =
                    |e| Status::invalid_argument(format!("CancelFlightInfo's request is malformed: {e}"));
                let asked = CancelFlightInfoRequest::decode(body.as_ref()).map_err(malformed)?;
                let Some(info) = asked.info else {
                    return Err(Status::invalid_argument("CancelFlightInfo names no FlightInfo"));
                };
                let status = self.sql.cancel(&info, &caller(&request)?)? as i32;
                Ok(one(CancelFlightInfoResult { status }))
            }
            // A session holds nothing, so there is nothing to give back. CloseSessionResult { status: CLOSED }
            CLOSE_SESSION => Ok(Response::new(
                stream::iter([Ok(arrow_flight::Result { body: vec![0x08, 0x01].into() })]).boxed(),
            )),
            "SetSessionOptions" | "GetSessionOptions" => Err(Status::unimplemented(
                "sessions have no options; settings are given when the server starts, see `dovetail server --help`",
            )),
            _ => FlightService::do_action(&self.sql, request)
                .await
                .map(|r| r.map(|s| s as Self::DoActionStream))
                .map_err(blamed),
        }
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = [
            ("CreatePreparedStatement", "Plans a statement, to be run later and repeatedly"),
            ("ClosePreparedStatement", "Forgets a prepared statement"),
            ("CancelQuery", "Stops a query"),
            (CANCEL_FLIGHT_INFO, "Stops a query, or forgets its result"),
            (CLOSE_SESSION, "Ends a session"),
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
