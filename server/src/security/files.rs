//! Certificates, keys and tokens from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::users::Users;
use super::{Secret, Security, Tls};
use crate::error::{Result, ServerError};

/// No certificate, key or token is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A shorter token is guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// Where the secrets are; each may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityFiles {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub authority: Option<PathBuf>,
    pub token: Option<PathBuf>,
    pub users: Option<PathBuf>,
}

impl SecurityFiles {
    /// Reads the files that are given.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be; a certificate without its key, or the other way round.
    pub fn read(&self) -> Result<Security> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((certificate("--tls-cert", cert)?, private_key(key)?)),
            (None, None) => None,
            (Some(_), None) => return Err(ServerError::Flags("--tls-cert needs --tls-key beside it".into())),
            (None, Some(_)) => return Err(ServerError::Flags("--tls-key needs --tls-cert beside it".into())),
        };
        let authority = self.authority.as_deref().map(|file| certificate("--tls-ca", file)).transpose()?;
        let tls = (identity.is_some() || authority.is_some()).then_some(Tls { identity, authority });
        let users = self.users.as_deref().map(Users::read).transpose()?.map(Arc::new);
        Ok(Security { tls, token: self.token.as_deref().map(token).transpose()?, users })
    }
}

fn certificate(flag: &'static str, file: &Path) -> Result<Vec<u8>> {
    let text = read(flag, file)?;
    match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(text.into_bytes()),
        false => Err(unfit(flag, file, "there is no certificate in it", "Give a certificate in PEM form.")),
    }
}

fn private_key(file: &Path) -> Result<Secret> {
    let text = read("--tls-key", file)?;
    match text.contains("PRIVATE KEY-----") {
        true => Ok(Secret::new(text)),
        false => {
            let advice = "Give the certificate's key in PEM form, without a passphrase.";
            Err(unfit("--tls-key", file, "there is no private key in it", advice))
        }
    }
}

fn token(file: &Path) -> Result<Secret> {
    const ADVICE: &str =
        "Write one line of at least 16 letters and digits, e.g. with `openssl rand -hex 32`.";
    let text = read("--token-file", file)?;
    let token = text.trim();
    if token.len() < TOKEN_CHARACTERS_MIN {
        return Err(unfit("--token-file", file, "the token is too short", ADVICE));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unfit("--token-file", file, "the token has spaces or unusual characters", ADVICE));
    }
    Ok(Secret::new(token))
}

fn read(flag: &'static str, file: &Path) -> Result<String> {
    const ADVICE: &str = "Check the path, and that this user may read the file.";
    let cannot = |e: std::io::Error| unfit(flag, file, &format!("cannot be read: {e}"), ADVICE);
    if std::fs::metadata(file).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(unfit(flag, file, "the file is far too large", ADVICE));
    }
    std::fs::read_to_string(file).map_err(cannot)
}

fn unfit(flag: &'static str, file: &Path, problem: &str, advice: &'static str) -> ServerError {
    ServerError::SecretFile { flag, file: file.to_owned(), problem: problem.to_owned(), advice }
}
