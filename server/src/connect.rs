//! Connections to other processes of the cluster.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error::{Result, ServerError};
use crate::listen::chain;
use crate::remote::ServerAddress;
use crate::security::{ClientAuth, Security};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection on which nobody answers a ping for so long is cut.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be under way of one stream: more than a link holds.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// And of all streams of a connection: as much as HTTP/2 knows, so that only their own windows bound them. With less,
/// streams that are opened early and read late would keep those from moving that are waited for.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// HTTP/2 would cut a block into pieces of 16 KiB, each handled by itself at both ends.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Connects, with what protects this process's connections.
#[derive(Debug, Clone)]
pub struct Connector {
    security: Security,
    auth: ClientAuth,
}

impl Connector {
    pub fn new(security: Security) -> Result<Connector> {
        let auth = ClientAuth::new(&security)?;
        Ok(Connector { security, auth })
    }

    /// Shows the token on each call.
    pub fn auth(&self) -> ClientAuth {
        self.auth.clone()
    }

    /// A connection that is made when it is first used, and again when it was cut. To be called in a runtime.
    pub fn lazy(&self, url: &str) -> Result<Channel> {
        Ok(self.endpoint(url)?.connect_lazy())
    }

    /// A connection.
    ///
    /// # Errors
    /// [`ServerError::Connect`] if nobody is there, who may come later; anything else is for good.
    pub async fn connect(&self, url: &str) -> Result<Channel> {
        self.endpoint(url)?.connect().await.map_err(|e| connect_error(url, &e))
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let address: ServerAddress = url.parse()?;
        let problem = |problem: String| ServerError::Url { url: url.to_string(), problem };
        if self.security.token.is_some() && !address.tls && !address.is_loopback() {
            return Err(problem("the token would cross the network in the clear".into()));
        }
        let mut endpoint = Endpoint::from_shared(address.http())
            .map_err(|e| problem(e.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if address.tls {
            endpoint =
                endpoint.tls_config(self.security.client_tls()?).map_err(|e| problem(e.to_string()))?;
        }
        Ok(endpoint)
    }
}

/// An error of connecting, or of the first call, by which one side's certificate may turn out not to be accepted.
pub fn connect_error(url: &str, error: &(dyn Error + 'static)) -> ServerError {
    let (url, problem) = (url.to_string(), chain(error));
    match is_tls_failure(error) {
        true => ServerError::Tls { url, problem },
        false => ServerError::Connect { url, problem },
    }
}

/// Whether TLS has met what it does not accept, or was told so by the other side: the operating system's errors, and
/// connections that just end, are of other kinds.
fn is_tls_failure(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let in_stream = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        let io = in_stream.or_else(|| error.downcast_ref::<io::Error>());
        if io.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        next = error.source();
    }
    false
}
