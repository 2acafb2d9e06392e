//! What can go wrong around the network, each written for the person who starts a server or connects to one.
//!
//! What always holds: no message shows a secret.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// The server's result.
pub type Result<T, E = ServerError> = std::result::Result<T, E>;

/// An error of setting up a connection or a server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A certificate, a key or a token that cannot be used; `advice` is a sentence.
    #[error("{flag} {}: {problem}. {advice}", file.display())]
    SecretFile { flag: &'static str, file: PathBuf, problem: String, advice: &'static str },
    /// Flags that need each other.
    #[error("{0}")]
    Flags(String),
    /// Everybody could connect.
    #[error(
        "{address} can be reached from other machines, and {missing} not given: whoever reaches the port could \
         read all data and run queries. Give --tls-cert, --tls-key and --token-file; or listen on 127.0.0.1; or \
         say --insecure if the network is closed to others"
    )]
    Unprotected { address: String, missing: &'static str },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}. Choose another address or port with --listen")]
    Listen { address: String, source: std::io::Error },
    /// An URL that is not one of ours.
    #[error(
        "'{url}' is not the address of a server: {problem}. Write grpc://HOST:PORT or grpc+tls://HOST:PORT"
    )]
    Url { url: String, problem: String },
    /// Nobody there, or nobody who speaks our language.
    #[error("cannot connect to {url}: {problem}")]
    Connect { url: String, problem: String },
    /// Another try would end the same way.
    #[error(
        "TLS has failed with {url}: {problem}. Check that --tls-ca names the authority that has signed the other \
         side's certificate, on both sides, and that both have TLS"
    )]
    Tls { url: String, problem: String },
    /// The server ended, not because it was asked to.
    #[error("the server at {address} ended: {problem}")]
    Ended { address: SocketAddr, problem: String },
    /// The directory for what survives the server cannot be used.
    #[error(
        "cannot use {} as the state directory: {problem}. Give a directory of its own with --state-dir, or leave \
         the flag out: queries then end with the server",
        directory.display()
    )]
    State { directory: PathBuf, problem: String },
    /// What the engine says of its settings.
    #[error("{0}")]
    Engine(String),
    /// The operating system does not give what a server needs.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}
