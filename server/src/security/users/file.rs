//! The users' file: `NAME:ROLE:HASH`, a line each.
//!
//! What always holds: a file is written whole, beside the old one, and takes its place by a rename; only its owner
//! can read it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use argon2::PasswordHash;

use super::{
    Attempts, Checks, NAME_CHARACTERS_MAX, PASSWORD_BYTES_MAX, Role, Secret, TOKEN_AGE, Tokens, User, Users,
    Verified, hashed,
};
use crate::error::{Result, ServerError};

/// Larger files are not read.
const FILE_BYTES_MAX: u64 = 16 << 20;
const PASSWORD_CHARACTERS_MIN: usize = 8;

/// What [`add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    New,
    /// The user has a new password and role.
    Changed,
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or a line is not a user's.
    pub fn read(file: &Path) -> Result<Users> {
        Users::read_with(file, TOKEN_AGE)
    }

    /// [`Users::read`], with tokens of another age.
    pub fn read_with(file: &Path, token_age: Duration) -> Result<Users> {
        let all = read(file)?.into_iter().collect::<HashMap<_, _>>();
        if all.is_empty() {
            return Err(unfit(file, "there is no user in it", "Add one with `dovetail user add`."));
        }
        Ok(Users {
            all,
            decoy: hashed(&Secret::new(uuid::Uuid::new_v4().to_string()))?,
            attempts: Attempts::new(),
            checks: Checks::default(),
            verified: Verified::new(),
            tokens: Tokens::new(token_age),
        })
    }
}

/// Adds a user to a file, which is made if it is not there; or gives one another password and role.
///
/// # Errors
/// The name or the password cannot be one; the file cannot be read or written.
pub fn add(file: &Path, name: &str, role: Role, password: &Secret) -> Result<Added> {
    if !is_name(name) {
        return Err(ServerError::Flags(format!(
            "a user's name has 1 to {NAME_CHARACTERS_MAX} characters, and no colon, # or space"
        )));
    }
    let long = password.expose().len() > PASSWORD_BYTES_MAX;
    if password.expose().chars().count() < PASSWORD_CHARACTERS_MIN || long {
        return Err(ServerError::Flags(format!(
            "a password has {PASSWORD_CHARACTERS_MIN} characters or more, and {PASSWORD_BYTES_MAX} bytes at most"
        )));
    }
    let mut users = if file.exists() { read(file)? } else { vec![] };
    let user = User { role, hash: hashed(password)? };
    let added = match users.iter_mut().find(|(n, _)| n == name) {
        Some((_, known)) => {
            *known = user;
            Added::Changed
        }
        None => {
            users.push((name.to_owned(), user));
            Added::New
        }
    };
    write(file, &users)?;
    Ok(added)
}

/// Whether somebody can be called so. Without a name one would be the administrator.
fn is_name(name: &str) -> bool {
    let unusual = |c: char| c == ':' || c == '#' || c.is_whitespace() || c.is_control();
    (1..=NAME_CHARACTERS_MAX).contains(&name.chars().count()) && !name.contains(unusual)
}

fn read(file: &Path) -> Result<Vec<(String, User)>> {
    let cannot = |e: std::io::Error| {
        unfit(file, &format!("cannot be read: {e}"), "Check the path; `dovetail user add` makes such a file.")
    };
    if fs::metadata(file).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(unfit(file, "the file is far too large", "Check the path."));
    }
    let text = fs::read_to_string(file).map_err(cannot)?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let mut users: Vec<(String, User)> = vec![];
    for (number, line) in lines {
        let wrong = |what: &str| {
            let advice = "Write such lines with `dovetail user add`.";
            unfit(file, &format!("line {} {what}", number + 1), advice)
        };
        let mut parts = line.splitn(3, ':');
        let (Some(name), Some(role), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("is not NAME:ROLE:HASH"));
        };
        if !is_name(name) {
            return Err(wrong("names nobody: a name has 1 to 64 characters, and no colon, # or space"));
        }
        let role =
            Role::of_word(role).ok_or_else(|| wrong("has a role that is not read-only or read-write"))?;
        PasswordHash::new(hash).map_err(|_| wrong("has no argon2 hash"))?;
        if users.iter().any(|(n, _)| n == name) {
            return Err(wrong("names a user for the second time"));
        }
        users.push((name.to_owned(), User { role, hash: hash.to_owned() }));
    }
    Ok(users)
}

fn write(file: &Path, users: &[(String, User)]) -> Result<()> {
    let mut text = String::new();
    for (name, user) in users {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}:{}:{}", user.role.word(), user.hash);
    }
    let beside = file.with_extension("new");
    let written = || {
        let mut new =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    written().map_err(|e: std::io::Error| {
        unfit(file, &format!("cannot be written: {e}"), "Check the path, and that this user may write there.")
    })
}

fn unfit(file: &Path, problem: &str, advice: &'static str) -> ServerError {
    ServerError::SecretFile { flag: "--users", file: file.to_owned(), problem: problem.to_owned(), advice }
}
