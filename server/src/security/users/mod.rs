//! Who may connect by name and password, and what they may do.
//!
//! ```text
//! `dovetail user add` ─▶ file: NAME:ROLE:HASH a line ─▶ Users::read ─▶ sign_in ─▶ Tokens::issue ─▶ Tokens::holder
//! ```
//!
//! What always holds: the file has no password, only argon2id hashes with a salt each; a name that is not there
//! takes as long as a wrong password; passwords are tried a bounded number of times and a bounded number at once;
//! a token ends; a password that was right a moment ago is not hashed again, and not kept either.

mod attempts;
mod checks;
mod file;
mod tokens;
mod verified;

use std::collections::HashMap;
use std::sync::Arc;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use dovetail_engine::Effect;
use tonic::Status;

use super::Secret;
use attempts::Attempts;
use checks::Checks;
use verified::Verified;

pub use file::{Added, add};
pub use tokens::{TOKEN_AGE, Tokens};

pub const NAME_CHARACTERS_MAX: usize = 64;
/// Longer ones are refused before they are hashed, or counted.
const PASSWORD_BYTES_MAX: usize = 1024;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Queries.
    ReadOnly,
    /// Commands too, and bulk ingestion.
    ReadWrite,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Empty for those who show the server's token, or where nothing is asked for: they may use all handles.
    pub name: Arc<str>,
    pub role: Role,
    /// Number of the handshake whose token is shown; none for whoever shows something else.
    pub sign_in: Option<u64>,
}

/// The users of a file. Read once, when the server starts.
pub struct Users {
    all: HashMap<String, User>,
    /// What the password of a name that is not there is compared with.
    decoy: String,
    attempts: Attempts,
    checks: Checks,
    verified: Verified,
    pub tokens: Tokens,
}

/// A line of the file.
#[derive(Clone)]
struct User {
    role: Role,
    hash: String,
}

impl Role {
    /// As flags and files have it.
    pub fn word(self) -> &'static str {
        match self {
            Role::ReadOnly => "read-only",
            Role::ReadWrite => "read-write",
        }
    }

    fn of_word(word: &str) -> Option<Role> {
        [Role::ReadOnly, Role::ReadWrite].into_iter().find(|r| r.word() == word)
    }
}

impl Identity {
    /// Somebody who shows the server's token, or anybody where nothing is asked for.
    pub fn administrator() -> Identity {
        Identity { name: "".into(), role: Role::ReadWrite, sign_in: None }
    }

    /// Refuses what changes more than this user may.
    pub fn may(&self, effect: Effect) -> Result<(), Status> {
        match effect {
            Effect::Nothing | Effect::Session => Ok(()),
            Effect::Database => self.may_write(),
        }
    }

    /// Refuses whom is to change nothing that others see.
    pub fn may_write(&self) -> Result<(), Status> {
        match self.role {
            Role::ReadWrite => Ok(()),
            Role::ReadOnly => {
                tracing::warn!(user = &*self.name, "refused a command of a user who may only read");
                Err(Status::permission_denied(format!(
                    "user '{}' may only read; a user of the role read-write can change something",
                    self.name
                )))
            }
        }
    }

    /// Whether a handle or token was made for this user. Its bytes behind the random ones are the owner's name.
    pub fn owns(&self, handle: &[u8], random_bytes: usize) -> bool {
        self.name.is_empty() || handle.get(random_bytes..) == Some(self.name.as_bytes())
    }
}

impl Users {
    /// Whose name and password these are. Blocks for the time of a hash, unless they were right a moment ago.
    pub fn sign_in(&self, name: &str, password: &Secret) -> Result<Identity, Status> {
        let password = password.expose().as_bytes();
        if name.chars().count() > NAME_CHARACTERS_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Err(wrong());
        }
        let user = self.all.get(name);
        if !self.attempts.allowed(name, user.is_some()) {
            return Err(Status::unauthenticated(
                "there were too many wrong passwords for this user; try again in a minute",
            ));
        }
        if let Some(user) = user.filter(|_| self.verified.knows(name, password)) {
            self.attempts.succeeded(name);
            return Ok(Identity { name: name.into(), role: user.role, sign_in: None });
        }
        let _check = self.checks.begin()?;
        let hash = user.map_or(&self.decoy, |u| &u.hash);
        let fits =
            PasswordHash::new(hash).is_ok_and(|h| Argon2::default().verify_password(password, &h).is_ok());
        match user.filter(|_| fits) {
            Some(user) => {
                self.attempts.succeeded(name);
                self.verified.add(name, password);
                Ok(Identity { name: name.into(), role: user.role, sign_in: None })
            }
            None => {
                self.attempts.failed(name, user.is_some());
                Err(wrong())
            }
        }
    }
}

fn wrong() -> Status {
    Status::unauthenticated("the name or the password is wrong")
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.all.len())
    }
}

/// The hash of a password, with a salt of its own, as argon2's own form has it.
fn hashed(password: &Secret) -> crate::Result<String> {
    let salt = argon2::password_hash::SaltString::encode_b64(uuid::Uuid::new_v4().as_bytes());
    let hash = salt.and_then(|salt| {
        Ok(Argon2::default().hash_password(password.expose().as_bytes(), &salt)?.to_string())
    });
    hash.map_err(|e| crate::ServerError::Flags(format!("the password cannot be hashed: {e}")))
}

#[cfg(test)]
mod tests;
