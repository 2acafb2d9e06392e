//! What all connections share: TLS, and a bearer token; and the users of a server.
//!
//! ```text
//! flags ─▶ SecurityFiles::read ─▶ Security ─┬─▶ a server's TLS settings, and ServerAuth on each call
//!                                           └─▶ a client's TLS settings, and ClientAuth on each call
//! ```
//!
//! The same files serve both ends. What always holds: a secret is printed by nobody, not by Debug either; a
//! token is compared in constant time; an address that others can reach is not listened on without TLS and
//! token, unless the user insists.

mod auth;
mod files;
#[cfg(test)]
mod tests;
pub mod users;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::error::{Result, ServerError};

pub use auth::{ClientAuth, ServerAuth};
pub use files::SecurityFiles;
use users::Users;

/// What protects a process's connections; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Security {
    pub tls: Option<Tls>,
    /// What a client shows and a server asks for.
    pub token: Option<Secret>,
    /// Who else may connect to a server, each with a password.
    pub users: Option<Arc<Users>>,
}

/// Certificates and keys, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// What this process shows of itself, and the key to it. A server must have one.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// Who must have signed what the other side shows. A server with it refuses clients that show nothing.
    pub authority: Option<Vec<u8>>,
}

/// Text that nobody prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Security {
    /// A server's side of TLS; none if connections are in the clear.
    ///
    /// # Errors
    /// There is an authority, but no certificate to show.
    pub fn server_tls(&self) -> Result<Option<ServerTlsConfig>> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let Some((certificate, key)) = &tls.identity else {
            return Err(ServerError::Flags(
                "a server with --tls-ca must show a certificate of its own: give --tls-cert and --tls-key"
                    .into(),
            ));
        };
        let mut config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key.expose()));
        if let Some(authority) = &tls.authority {
            config = config.client_ca_root(Certificate::from_pem(authority));
        }
        Ok(Some(config))
    }

    /// A client's side of TLS.
    ///
    /// # Errors
    /// It is not known whom to trust.
    pub fn client_tls(&self) -> Result<ClientTlsConfig> {
        let Some(Tls { identity, authority: Some(authority) }) = &self.tls else {
            return Err(ServerError::Flags(
                "a connection with TLS needs --tls-ca, the certificate of the authority that signed the server's".into(),
            ));
        };
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        Ok(match identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key.expose())),
            None => config,
        })
    }

    /// Refuses an address that other machines can reach while connections to it are not protected.
    pub fn allows(&self, address: &SocketAddr, insecure: bool) -> Result<()> {
        let missing = match (&self.tls, &self.token) {
            (Some(_), Some(_)) => return Ok(()),
            (None, None) => "TLS and a token are",
            (None, Some(_)) => "TLS is",
            (Some(_), None) => "a token is",
        };
        match address.ip().to_canonical().is_loopback() || insecure {
            true => Ok(()),
            false => Err(ServerError::Unprotected { address: address.to_string(), missing }),
        }
    }
}

impl Secret {
    /// Takes the text as a secret from now on.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever has to send or use it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether somebody knows the secret. Takes the same time wherever the two differ.
    pub fn matches(&self, shown: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("identity", &self.identity.is_some())
            .field("authority", &self.authority.is_some())
            .finish()
    }
}
