//! Tables that describe the database itself: `information_schema`, as the SQL standard has it, and `system`.
//!
//! They are views over rows that are put together when a statement that names them is planned; nothing is kept up
//! to date for those that nobody asks for. What always holds: a statement sees one moment; no secret is among the
//! rows.

mod information_schema;
mod rows;
mod running;

use std::sync::Arc;

use dovetail_planner::catalog::{CatalogSnapshot, Table};

use super::Session;
use crate::error::{EngineError, Result};
use rows::SystemTable;

/// The name that SQL has for the one catalog, and for the schema of its tables.
pub const CATALOG: &str = "dovetail";
pub const SCHEMA: &str = "main";

/// Schemas of the tables here.
const SCHEMAS: [&str; 2] = ["information_schema", "system"];

type Make = fn(&Session) -> Result<SystemTable>;

/// All of them, by name.
const TABLES: [(&str, Make); 8] = [
    ("information_schema.columns", information_schema::columns),
    ("information_schema.schemata", information_schema::schemata),
    ("information_schema.tables", information_schema::tables),
    ("information_schema.views", information_schema::views),
    ("system.queries", running::queries),
    ("system.settings", running::settings),
    ("system.tasks", running::tasks),
    ("system.workers", running::workers),
];

/// Whether a name is in one of the schemas here, whether or not there is such a table.
pub(super) fn is_system(name: &str) -> bool {
    let schema = name.split_once('.').map(|(schema, _)| schema.to_lowercase());
    schema.is_some_and(|s| SCHEMAS.contains(&s.as_str()))
}

/// The records of the audit. Not made of rows here, but the files that keep them.
const AUDIT: &str = "system.audit";

/// Adds those that a statement names to what it can see; of a name that is none, all, for the message.
pub(super) fn add(session: &Session, names: &[String], snapshot: &mut CatalogSnapshot) -> Result<()> {
    let named = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    let is_known =
        |n: &String| n.eq_ignore_ascii_case(AUDIT) || TABLES.iter().any(|(t, _)| n.eq_ignore_ascii_case(t));
    let all_known = names.iter().filter(|n| is_system(n)).all(is_known);
    for (name, make) in TABLES {
        if named(name) || !all_known {
            snapshot.views.insert(name.to_string(), make(session)?.select());
        }
    }
    if named(AUDIT) {
        snapshot.tables.insert(AUDIT.to_owned(), audit(session)?);
    }
    Ok(())
}

/// Whether what a statement can see has the audit.
pub(super) fn reads_audit(snapshot: &CatalogSnapshot) -> bool {
    snapshot.tables.contains_key(AUDIT)
}

fn audit(session: &Session) -> Result<Arc<Table>> {
    let sink = session.audit.get().ok_or_else(|| {
        EngineError::Unsupported(
            format!("{AUDIT} without a place that keeps it"),
            "Start the server with --state-dir DIR: it keeps a record of every statement from then on".into(),
        )
    })?;
    session.catalog.table_of_files(AUDIT, &sink.files()?)
}
