//! What statements are sent to: a session in this process, or one behind a connection.
//!
//! What always holds: the shell and the scripts do not know which it is, and print the same for both.

use std::io::{self, Write};

use anyhow::{Result, bail};
use dovetail_engine::{CancelHandle, Progress, ResultStream, Session, TableInfo};
use dovetail_planner::sql;
use dovetail_server::remote::{RemoteCancel, RemoteSession};

use crate::args::Args;

/// A session, here or elsewhere.
pub enum Database {
    Local(Box<Session>),
    Remote(RemoteSession),
}

/// Stops what runs in a database. May be used from any thread.
pub enum Cancel {
    Local(CancelHandle),
    Remote(RemoteCancel),
}

impl Database {
    /// What the command line names.
    pub fn open(args: &Args) -> Result<Database> {
        if let Some(address) = &args.connect {
            let security = args.security.files().read()?;
            let session = RemoteSession::connect(address, &security)?;
            // A standard error that is closed hears nothing.
            let session = session.with_notice(|text| drop(writeln!(io::stderr(), "{text}")));
            return Ok(Database::Remote(session));
        }
        if let Some(flag) = args.security.first_given() {
            bail!("{flag} is for connections: give --connect too, or leave it out");
        }
        let options = args.engine.session_options();
        Ok(Database::Local(Box::new(match &args.place {
            Some(place) => Session::open(place, options)?,
            None => Session::new(options)?,
        })))
    }

    /// Splits a script into its statements.
    pub fn statements(&self, script: &str) -> dovetail_engine::Result<Vec<String>> {
        Ok(sql::parse(script)?.into_iter().map(|s| s.text).collect())
    }

    /// Runs exactly one statement to its end.
    pub fn stream(&self, statement: &str) -> dovetail_engine::Result<ResultStream> {
        match self {
            Database::Local(session) => session.stream(statement),
            Database::Remote(session) => session.stream(statement),
        }
    }

    /// Tables and views, by name.
    pub fn tables(&self) -> dovetail_engine::Result<Vec<TableInfo>> {
        match self {
            Database::Local(session) => session.tables(),
            Database::Remote(session) => session.tables(),
        }
    }

    /// How far the running query is, where that is known.
    pub fn progress(&self) -> Option<Progress> {
        match self {
            Database::Local(session) => session.progress(),
            Database::Remote(_) => None,
        }
    }

    /// Stops what runs, now or later, when it is told to.
    pub fn cancel_handle(&self) -> Cancel {
        match self {
            Database::Local(session) => Cancel::Local(session.cancel_handle()),
            Database::Remote(session) => Cancel::Remote(session.cancel_handle()),
        }
    }
}

impl Cancel {
    /// Stops what runs at this moment.
    pub fn cancel(&self) {
        match self {
            Cancel::Local(handle) => handle.cancel(),
            Cancel::Remote(handle) => handle.cancel(),
        }
    }
}
