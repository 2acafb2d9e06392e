//! Who makes a call: shown by the client, asked for by the server.
//!
//! A server takes `authorization: Bearer TOKEN`, and `Basic USER:TOKEN` with any user, since many clients offer
//! a name and a password and nothing else. With users, it takes `Basic NAME:PASSWORD` and the bearer token that
//! the handshake has answered it with. Without a token and users everybody is let in. Between processes there is
//! the token alone.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::users::{Identity, Users};
use super::{Secret, Security};
use crate::error::{Result, ServerError};

const HEADER: &str = "authorization";

/// Refuses calls of those who are not known, and tells the others' [`Identity`] in the request's extensions.
#[derive(Debug, Clone)]
pub struct ServerAuth {
    token: Option<Secret>,
    users: Option<Arc<Users>>,
}

/// What a call shows.
enum Shown {
    Bearer(Vec<u8>),
    Basic { name: Vec<u8>, password: Vec<u8> },
}

/// Shows the token on each call.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    header: Option<MetadataValue<Ascii>>,
}

impl ServerAuth {
    /// Asks other processes for the token, if there is one.
    pub fn new(security: &Security) -> ServerAuth {
        ServerAuth { token: security.token.clone(), users: None }
    }

    /// Asks clients for the token or for a user's password, if there is either.
    pub fn for_clients(security: &Security) -> ServerAuth {
        ServerAuth { token: security.token.clone(), users: security.users.clone() }
    }

    /// Who makes a call with these headers. A password blocks the thread for the time of its hash.
    pub fn check(&self, headers: &MetadataMap) -> Result<Identity, Status> {
        if self.token.is_none() && self.users.is_none() {
            return Ok(Identity::administrator());
        }
        let Some(shown) = headers.get(HEADER) else {
            return Err(Status::unauthenticated(match &self.users {
                None => {
                    "this server asks for a token: send 'authorization: Bearer TOKEN', or the token as the password"
                }
                Some(_) => "this server asks for a name and a password, or for a token",
            }));
        };
        let shown = shown_in(shown.as_bytes());
        if let (Some(token), Some(Shown::Bearer(text) | Shown::Basic { password: text, .. })) =
            (&self.token, &shown)
            && token.matches(text)
        {
            return Ok(Identity::administrator());
        }
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        match (&self.users, shown) {
            (Some(users), Some(Shown::Bearer(token))) => users.tokens.holder(&text(token)).ok_or_else(|| {
                Status::unauthenticated(
                    "the token is not good, or not any more: sign in again with name and password",
                )
            }),
            (Some(users), Some(Shown::Basic { name, password })) => {
                let (name, password) = (text(name), Secret::new(text(password)));
                tokio::task::block_in_place(|| users.sign_in(&name, &password))
            }
            (None, _) | (_, None) => {
                Err(Status::unauthenticated("the token is not the one that this server was given"))
            }
        }
    }

    /// The header with which a client that was let in with these headers may go on. A token gives no other token, or
    /// it would never end.
    pub fn answer(&self, identity: &Identity, headers: &MetadataMap) -> Result<MetadataValue<Ascii>, Status> {
        if let Some(header) = headers.get(HEADER)
            && let Some(Shown::Bearer(_)) = shown_in(header.as_bytes())
        {
            let mut same = header.clone();
            same.set_sensitive(true);
            return Ok(same);
        }
        let token = match (&self.users, &self.token) {
            (Some(users), _) if !identity.name.is_empty() => users.tokens.issue(identity)?,
            (_, Some(token)) => token.expose().to_owned(),
            // Clients take an answer without a header for a refusal, so there is one even if nothing is asked for.
            (_, None) => "anonymous".to_owned(),
        };
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .expect("invariant: tokens are visible ASCII, checked when read");
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Interceptor for ServerAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match self.check(request.metadata()) {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Ok(request)
            }
            Err(refused) => {
                let from = request.remote_addr().map_or_else(|| "unknown".to_owned(), |a| a.to_string());
                tracing::warn!(from, "refused a call: {}", refused.message());
                Err(refused)
            }
        }
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

/// What is in a header's value.
fn shown_in(value: &[u8]) -> Option<Shown> {
    let space = value.iter().position(|&b| b == b' ')?;
    let (scheme, rest) = (&value[..space], value[space + 1..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Shown::Bearer(rest.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(rest).or_else(|_| BASE64_STANDARD_NO_PAD.decode(rest)).ok()?;
    let colon = pair.iter().position(|&b| b == b':')?;
    Some(Shown::Basic { name: pair[..colon].to_vec(), password: pair[colon + 1..].to_vec() })
}
