//! The connection itself: a channel, the token and the session's cookie on each call, and the threads that read from
//! it. The session ends with it.

use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use dovetail_engine::EngineError;
use tokio::runtime::Runtime;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::ServerAddress;
use super::cookies::{Cookies, SessionId};
use crate::error::{Result, ServerError};
use crate::listen::chain;
use crate::security::{ClientAuth, Security};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is asked whether it is there, and has so long to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A server's message; one row may be large.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// For the server to hear that the session has ended; it ends an idle one by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A Flight SQL client that shows the token and the session's cookie.
pub type Client = FlightSqlServiceClient<InterceptedService<Cookies<Channel>, ClientAuth>>;

/// An open connection.
pub struct Connection {
    url: String,
    client: Client,
    session: SessionId,
    /// Last, so that it outlives what it drives.
    runtime: Runtime,
}

impl Connection {
    pub fn open(address: &ServerAddress, security: &Security) -> Result<Connection> {
        let url = address.to_string();
        let failed =
            |e: tonic::transport::Error| ServerError::Connect { url: url.clone(), problem: chain(&e) };
        if security.token.is_some() && !address.tls && !address.is_loopback() {
            return Err(ServerError::Flags(format!(
                "the token would cross the network in the clear to {url}. Connect to grpc+tls://{}:{}",
                address.host, address.port
            )));
        }
        let mut endpoint = Endpoint::from_shared(address.http())
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        if address.tls {
            endpoint = endpoint.tls_config(security.client_tls()?).map_err(failed)?;
        } else if security.tls.is_some() {
            return Err(ServerError::Flags(format!(
                "the certificates that are given would not be used for {url}. Connect to grpc+tls://{}:{}",
                address.host, address.port
            )));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dovetail-remote")
            .enable_all()
            .build()?;
        let channel = runtime.block_on(endpoint.connect()).map_err(failed)?;
        let session = SessionId::new();
        let calls = Cookies::new(channel, session.clone());
        let intercepted = InterceptedService::new(calls, ClientAuth::new(security)?);
        let inner = FlightServiceClient::new(intercepted).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let client = FlightSqlServiceClient::new_from_inner(inner);
        Ok(Connection { url, client, session, runtime })
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// As the user has written it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What went wrong, in the words of the server, or of the connection if it was that.
    pub fn error(&self, e: FlightError) -> EngineError {
        match e {
            FlightError::Tonic(status) => self.refused(&status),
            FlightError::Arrow(e) => e.into(),
            other => EngineError::Data { place: self.url.clone(), message: other.to_string() },
        }
    }

    fn refused(&self, status: &Status) -> EngineError {
        let said = status.message();
        let of_connection = |message: String| EngineError::Data { place: self.url.clone(), message };
        match status.code() {
            Code::Cancelled => EngineError::Cancelled,
            Code::Unauthenticated => of_connection(format!("{said}. The token is given with --token-file")),
            Code::Unavailable => of_connection(format!("the connection was lost: {said}")),
            // Not told by the server, but noticed on the way.
            _ if std::error::Error::source(status).is_some() => {
                of_connection(format!("the connection was lost: {}", chain(status)))
            }
            Code::ResourceExhausted => EngineError::Resources(said.to_owned()),
            _ => EngineError::execution(said),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.session.is_begun() {
            let mut client = self.client();
            let close = client.do_action(Action::new("CloseSession", ""));
            // Whether it is heard or not, nothing is left to do.
            let _ = self.runtime.block_on(async { tokio::time::timeout(CLOSE_TIMEOUT, close).await });
        }
    }
}
