//! Tables that describe the database itself: `information_schema`, as the SQL standard has it, and `system`.
//!
//! They are views over rows that are put together when a statement that names them is planned; nothing is kept up
//! to date for those that nobody asks for. What always holds: a statement sees one moment; no secret is among the
//! rows.

mod information_schema;
mod rows;
mod running;

use dovetail_planner::catalog::CatalogSnapshot;

use super::Session;
use crate::error::Result;
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

/// Adds those that a statement names to what it can see; of a name that is none, all, for the message.
pub(super) fn add(session: &Session, names: &[String], snapshot: &mut CatalogSnapshot) -> Result<()> {
    let named = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    let all_known =
        names.iter().filter(|n| is_system(n)).all(|n| TABLES.iter().any(|(t, _)| n.eq_ignore_ascii_case(t)));
    for (name, make) in TABLES {
        if named(name) || !all_known {
            snapshot.views.insert(name.to_string(), make(session)?.select());
        }
    }
    Ok(())
}
