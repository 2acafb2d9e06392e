//! `dovetail user`: the file of those who may connect to a server.
//!
//! What always holds: a password comes from the terminal, unseen, or from standard input; never from an argument,
//! which other users of the machine can read.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use dovetail_server::security::Secret;
use dovetail_server::security::users::{self, Added};

use crate::args::UserCommands;

/// Does what the command line asks for.
pub fn run(command: &UserCommands) -> Result<()> {
    let UserCommands::Add { name, users: file, role } = command;
    let password = if io::stdin().is_terminal() { typed(name)? } else { line()? };
    let word = match users::add(file, name, (*role).into(), &password)? {
        Added::New => "added",
        Added::Changed => "changed",
    };
    writeln!(
        io::stderr(),
        "{word} user {name}; a server that is running learns of it when it is started again"
    )?;
    Ok(())
}

/// Twice, since nobody sees it.
fn typed(name: &str) -> Result<Secret> {
    let ask = |prompt: String| rpassword::prompt_password(prompt).context("cannot read the password");
    let password = ask(format!("password of {name}: "))?;
    if ask("the same again: ".to_owned())? != password {
        bail!("the two are not the same; nothing was changed");
    }
    Ok(Secret::new(password))
}

fn line() -> Result<Secret> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read the password from standard input")?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}
