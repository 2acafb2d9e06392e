//! Connections to other processes of the cluster.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error::{Result, ServerError};
use crate::security::{ClientAuth, Security};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection on which nobody answers a ping for so long is cut.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be under way of one stream, and of all streams of a connection: more than a link holds.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

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
    pub async fn connect(&self, url: &str) -> Result<Channel> {
        let connected = self.endpoint(url)?.connect().await;
        connected.map_err(|e| ServerError::Connect { url: url.to_string(), problem: chain(&e) })
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let (address, is_tls) = address(url)?;
        let problem = |problem: String| ServerError::Url { url: url.to_string(), problem };
        let mut endpoint = Endpoint::from_shared(address)
            .map_err(|e| problem(e.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if is_tls {
            endpoint =
                endpoint.tls_config(self.security.client_tls()?).map_err(|e| problem(e.to_string()))?;
        }
        Ok(endpoint)
    }
}

/// The HTTP address of one of our URLs, and whether it is protected by TLS.
fn address(url: &str) -> Result<(String, bool)> {
    for (scheme, http, is_tls) in [
        ("grpc+tls://", "https://", true),
        ("grpc+tcp://", "http://", false),
        ("grpc://", "http://", false),
    ] {
        if let Some(rest) = url.strip_prefix(scheme)
            && !rest.is_empty()
        {
            return Ok((format!("{http}{rest}"), is_tls));
        }
    }
    Err(ServerError::Url { url: url.to_string(), problem: "it does not begin with grpc:// or grpc+tls://".into() })
}

/// An error with its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_ours() {
        assert_eq!(address("grpc://a:1").unwrap(), ("http://a:1".into(), false));
        assert_eq!(address("grpc+tls://a:1").unwrap(), ("https://a:1".into(), true));
        for url in ["http://a:1", "a:1", "grpc://", ""] {
            assert!(address(url).unwrap_err().to_string().contains("grpc://HOST:PORT"), "{url}");
        }
    }
}
