//! Prepared statements: SQL under a handle. Each run plans it anew, since the tables may have changed.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tonic::Status;

use super::operations::{Limits, random_handle};

/// The statements that clients have prepared and not closed.
pub struct PreparedStatements {
    limits: Limits,
    all: Mutex<HashMap<Bytes, Prepared>>,
}

struct Prepared {
    sql: String,
    used: Instant,
}

impl PreparedStatements {
    /// None yet.
    pub fn new(limits: Limits) -> PreparedStatements {
        PreparedStatements { limits, all: Mutex::default() }
    }

    /// Keeps a statement until it is closed or has not been used for long.
    pub fn add(&self, sql: String) -> Result<Bytes, Status> {
        let mut all = self.all.lock();
        all.retain(|_, p| p.used.elapsed() < self.limits.prepared_age);
        if all.len() >= self.limits.prepared {
            return Err(Status::resource_exhausted(format!(
                "{} statements are prepared, and the server keeps no more; close some",
                self.limits.prepared
            )));
        }
        let handle = random_handle();
        all.insert(handle.clone(), Prepared { sql, used: Instant::now() });
        Ok(handle)
    }

    /// The text of a statement.
    pub fn sql(&self, handle: &Bytes) -> Result<String, Status> {
        let mut all = self.all.lock();
        let Some(prepared) = all.get_mut(handle) else {
            return Err(Status::not_found(
                "there is no such prepared statement: it was closed, or not used for long; prepare it again",
            ));
        };
        prepared.used = Instant::now();
        Ok(prepared.sql.clone())
    }

    /// Forgets a statement. One that is not there is closed already.
    pub fn close(&self, handle: &Bytes) {
        self.all.lock().remove(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_kept_until_closed_within_a_bound() {
        let statements = PreparedStatements::new(Limits { prepared: 1, ..Limits::default() });
        let handle = statements.add("SELECT 1".into()).unwrap();
        assert_eq!(statements.add("SELECT 2".into()).unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert_eq!(statements.sql(&handle).unwrap(), "SELECT 1");
        statements.close(&handle);
        statements.close(&handle);
        assert_eq!(statements.sql(&handle).unwrap_err().code(), tonic::Code::NotFound);
        statements.add("SELECT 2".into()).unwrap();
    }
}
