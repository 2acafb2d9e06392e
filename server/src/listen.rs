//! A listening server: its port, its TLS, its start and its graceful end.
//!
//! What always holds: nobody is listened to before the address has been found to be safe; an end that is asked
//! for stops new calls at once, gives running ones a moment, and then goes.

use std::future::Future;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::error::{Result, ServerError};
use crate::security::Security;

/// For calls that run when the server is asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// For a client's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that says nothing for so long is asked whether it is there, and has so long to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at a time on one connection. A worker's every task may have a few with each other worker.
const STREAMS_PER_CONNECTION_MAX: u32 = 2048;
/// Of a call's headers.
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// A port that is open, with nobody served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    security: Security,
}

impl Listening {
    /// Opens a port: `HOST:PORT`, where port 0 picks a free one.
    ///
    /// # Errors
    /// The address is not one, or taken; or others can reach it, it is not protected, and `insecure` is not said.
    pub fn bind(address: &str, security: Security, insecure: bool) -> Result<Listening> {
        let cannot = |source| ServerError::Listen { address: address.to_owned(), source };
        let candidates: Vec<SocketAddr> = address.to_socket_addrs().map_err(cannot)?.collect();
        for candidate in &candidates {
            security.allows(candidate, insecure)?;
        }
        // What the certificate lacks is told now, not when the first client comes.
        security.server_tls()?;
        let listener = TcpListener::bind(&*candidates).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Listening { listener, address, security })
    }

    /// Where the server can be reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as clients write it.
    pub fn url(&self) -> String {
        let scheme = if self.security.tls.is_some() { "grpc+tls" } else { "grpc" };
        format!("{scheme}://{}", self.address)
    }

    /// What protects it.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Serves until `stop` is done.
    ///
    /// # Errors
    /// The certificate and the key do not fit; the port is lost.
    pub async fn serve(self, routes: Routes, stop: impl Future<Output = ()>) -> Result<()> {
        let address = self.address;
        let ended = |e: &dyn std::error::Error| ServerError::Ended { address, problem: chain(e) };
        let mut server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
        if let Some(tls) = self.security.server_tls()? {
            server = server.tls_config(tls.timeout(HANDSHAKE_TIMEOUT)).map_err(|e| {
                ServerError::Flags(format!(
                    "the certificate (--tls-cert), its key (--tls-key) or the authority (--tls-ca) cannot be used: {}",
                    chain(&e)
                ))
            })?;
        }
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let stopping = async move {
            stop.await;
            // The other end waits for as long as there is a server.
            let _ = tell.send(());
        };
        let grace = async move {
            match told.await {
                Ok(()) => tokio::time::sleep(GRACE).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = server.add_routes(routes).serve_with_incoming_shutdown(incoming, stopping) => {
                outcome.map_err(|e| ended(&e))
            }
            () = grace => Ok(()),
        }
    }
}

/// An error and what led to it, in one line.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let next = e.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_is_refused() {
        let e = Listening::bind("0.0.0.0:0", Security::default(), false).unwrap_err();
        assert!(matches!(e, ServerError::Unprotected { .. }), "{e}");
        Listening::bind("0.0.0.0:0", Security::default(), true).unwrap();
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let first = Listening::bind("127.0.0.1:0", Security::default(), false).unwrap();
        assert!(first.url().starts_with("grpc://127.0.0.1:"));
        let e = Listening::bind(&first.address().to_string(), Security::default(), false).unwrap_err();
        assert!(e.to_string().contains("--listen"), "{e}");
        assert!(Listening::bind("nonsense", Security::default(), false).is_err());
    }
}
