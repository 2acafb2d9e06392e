//! Prepared statements: SQL under a handle, and the parameters it is bound to. Each run plans it anew, since the
//! tables may have changed.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tonic::Status;

use super::operations::{Limits, random_handle};
use super::parameters::Bound;

/// Of the parameters that all statements together are bound to.
const BOUND_BYTES_MAX: usize = 256 << 20;
/// Of the SQL of all statements together.
const TEXTS_BYTES_MAX: usize = 256 << 20;

/// The statements that clients have prepared and not closed.
pub struct PreparedStatements {
    limits: Limits,
    all: Mutex<HashMap<Bytes, Prepared>>,
}

struct Prepared {
    run: PreparedRun,
    used: Instant,
}

/// What a run of a prepared statement needs.
#[derive(Clone)]
pub struct PreparedRun {
    pub sql: String,
    /// Whether it has rows, rather than changing something.
    pub is_query: bool,
    /// None until parameters are bound.
    pub bound: Option<Bound>,
}

impl PreparedStatements {
    /// None yet.
    pub fn new(limits: Limits) -> PreparedStatements {
        PreparedStatements { limits, all: Mutex::default() }
    }

    /// Keeps a statement until it is closed or has not been used for long.
    pub fn add(&self, sql: String, is_query: bool, owner: &str) -> Result<Bytes, Status> {
        let mut all = self.all.lock();
        all.retain(|_, p| p.used.elapsed() < self.limits.prepared_age);
        if all.len() >= self.limits.prepared {
            return Err(Status::resource_exhausted(format!(
                "{} statements are prepared, and the server keeps no more; close some",
                self.limits.prepared
            )));
        }
        let texts: usize = all.values().map(|p| p.run.sql.len()).sum();
        if texts + sql.len() > TEXTS_BYTES_MAX {
            return Err(Status::resource_exhausted(
                "the server keeps no more SQL of prepared statements; close some, or bind long values as parameters",
            ));
        }
        let handle = random_handle(owner);
        let run = PreparedRun { sql, is_query, bound: None };
        all.insert(handle.clone(), Prepared { run, used: Instant::now() });
        Ok(handle)
    }

    /// What a run of the statement needs.
    pub fn run(&self, handle: &Bytes) -> Result<PreparedRun, Status> {
        let mut all = self.all.lock();
        let prepared = all.get_mut(handle).ok_or_else(unknown)?;
        prepared.used = Instant::now();
        Ok(prepared.run.clone())
    }

    /// Binds a statement to parameters, or to none, in the place of those before.
    pub fn bind(&self, handle: &Bytes, bound: Option<Bound>) -> Result<(), Status> {
        let mut all = self.all.lock();
        let others = all.iter().filter(|(other, _)| *other != handle);
        let bytes: usize = others.filter_map(|(_, p)| Some(p.run.bound.as_ref()?.bytes)).sum();
        let prepared = all.get_mut(handle).ok_or_else(unknown)?;
        prepared.used = Instant::now();
        if bytes + bound.as_ref().map_or(0, |b| b.bytes) > BOUND_BYTES_MAX {
            return Err(Status::resource_exhausted(
                "the server keeps no more parameters of prepared statements; close some statements",
            ));
        }
        prepared.run.bound = bound;
        Ok(())
    }

    /// Forgets a statement. One that is not there is closed already.
    pub fn close(&self, handle: &Bytes) {
        self.all.lock().remove(handle);
    }
}

fn unknown() -> Status {
    Status::not_found(
        "there is no such prepared statement: it was closed, or not used for long; prepare it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_kept_until_closed_within_a_bound() {
        let statements = PreparedStatements::new(Limits { prepared: 1, ..Limits::default() });
        let handle = statements.add("SELECT 1".into(), true, "").unwrap();
        assert_eq!(
            statements.add("SELECT 2".into(), true, "").unwrap_err().code(),
            tonic::Code::ResourceExhausted
        );
        assert_eq!(statements.run(&handle).unwrap().sql, "SELECT 1");
        statements.close(&handle);
        statements.close(&handle);
        assert_eq!(statements.run(&handle).err().unwrap().code(), tonic::Code::NotFound);
        statements.add("SELECT 2".into(), true, "").unwrap();
    }

    #[test]
    fn all_texts_together_are_bounded() {
        let statements = PreparedStatements::new(Limits::default());
        let long = || "x".repeat(TEXTS_BYTES_MAX / 4);
        let handles: Vec<Bytes> = (0..4).map(|_| statements.add(long(), true, "").unwrap()).collect();
        assert_eq!(
            statements.add("SELECT 1".into(), true, "").unwrap_err().code(),
            tonic::Code::ResourceExhausted
        );
        statements.close(&handles[0]);
        statements.add(long(), true, "").unwrap();
    }
}
