//! The token on each call: shown by the client, asked for by the server.
//!
//! A server takes `authorization: Bearer TOKEN`, and `Basic USER:TOKEN` with any user, since many clients offer
//! a name and a password and nothing else. Without a token everybody is let in.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::{Secret, Security};
use crate::error::{Result, ServerError};

const HEADER: &str = "authorization";

/// Refuses calls that do not show the token.
#[derive(Debug, Clone)]
pub struct ServerAuth {
    token: Option<Secret>,
}

/// Shows the token on each call.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    header: Option<MetadataValue<Ascii>>,
}

impl ServerAuth {
    /// Asks for the token, if there is one.
    pub fn new(security: &Security) -> ServerAuth {
        ServerAuth { token: security.token.clone() }
    }

    /// Whether a call with these headers is let in.
    pub fn check(&self, headers: &MetadataMap) -> Result<(), Status> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let Some(shown) = headers.get(HEADER) else {
            return Err(Status::unauthenticated(
                "this server asks for a token: send 'authorization: Bearer TOKEN', or the token as the password",
            ));
        };
        match shown_token(shown.as_bytes()).is_some_and(|shown| token.matches(&shown)) {
            true => Ok(()),
            false => Err(Status::unauthenticated("the token is not the one that this server was given")),
        }
    }

    /// The header with which a client that was let in by name and password may go on.
    pub fn answer(&self) -> MetadataValue<Ascii> {
        // Clients take an answer without a header for a refusal, so there is one even if nothing is asked for.
        let text = format!("Bearer {}", self.token.as_ref().map_or("anonymous", Secret::expose));
        let mut value =
            MetadataValue::try_from(text).expect("invariant: tokens are visible ASCII, checked when read");
        value.set_sensitive(true);
        value
    }
}

impl Interceptor for ServerAuth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Err(refused) = self.check(request.metadata()) {
            let from = request.remote_addr().map_or_else(|| "unknown".to_owned(), |a| a.to_string());
            tracing::warn!(from, "refused a call without the token");
            return Err(refused);
        }
        Ok(request)
    }
}

impl ClientAuth {
    /// Shows the token, if there is one.
    pub fn new(security: &Security) -> Result<ClientAuth> {
        let header = security.token.as_ref().map(|token| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
                .try_into()
                .map_err(|_| ServerError::Flags("the token has characters that cannot be sent".into()))?;
            value.set_sensitive(true);
            Ok::<_, ServerError>(value)
        });
        Ok(ClientAuth { header: header.transpose()? })
    }
}

impl Interceptor for ClientAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert(HEADER, header.clone());
        }
        Ok(request)
    }
}

/// The token in a header's value.
fn shown_token(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|&b| b == b' ')?;
    let (scheme, rest) = (&value[..space], value[space + 1..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(rest).or_else(|_| BASE64_STANDARD_NO_PAD.decode(rest)).ok()?;
    let colon = pair.iter().position(|&b| b == b':')?;
    Some(pair[colon + 1..].to_vec())
}
