//! Tables and views made, filled and dropped: the shared ones of the catalog, or the session's own.
//!
//! What always holds: which of the two a name is was decided when the statement was prepared, and is not decided
//! anew; the rows of temporary tables are reserved of the memory limit.

use arrow::datatypes::SchemaRef;
use dovetail_planner::catalog::{CatalogSnapshot, Table};
use dovetail_planner::sql::{Bound, Create, DropKind};

use super::{Effect, Session};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Charge, KeptBatches};

/// What its memory is reserved for, in messages.
const TEMPORARY_TABLE: &str = "Temporary table";

/// What a statement is about to change, of what its names stand for in the snapshot.
pub fn effect(bound: &Bound, snapshot: &CatalogSnapshot) -> Effect {
    let of_session = match bound {
        Bound::Query(_)
        | Bound::Explain { .. }
        | Bound::Show { .. }
        | Bound::ShowTables
        | Bound::Describe { .. } => return Effect::Nothing,
        Bound::Set { .. } | Bound::Reset { .. } => true,
        Bound::CreateTableAs { options, .. }
        | Bound::CreateTable { options, .. }
        | Bound::CreateView { options, .. } => options.temporary,
        Bound::Insert { table, .. } => snapshot.is_temporary(table),
        Bound::Drop { names, temporary, .. } => *temporary || names.iter().all(|n| snapshot.is_temporary(n)),
        Bound::Copy { .. } => false,
    };
    if of_session { Effect::Session } else { Effect::Database }
}

/// Whether CREATE … IF NOT EXISTS has nothing to do.
pub fn is_there(name: &str, options: Create, snapshot: &CatalogSnapshot) -> bool {
    let shared = snapshot.shared();
    options.if_not_exists
        && match options.temporary {
            true => snapshot.is_temporary(name),
            false => shared.tables.contains_key(name) || shared.views.contains_key(name),
        }
}

impl Session {
    pub(super) fn create_table(
        &self,
        name: &str,
        schema: SchemaRef,
        rows: Vec<Batch>,
        options: Create,
    ) -> Result<()> {
        match options.temporary {
            true => {
                let (rows, charge) = self.reserved(rows)?;
                self.temporary.create_table(name, schema, rows, options.or_replace, charge)
            }
            false => self.catalog.create_table(name, schema, rows, options.or_replace),
        }
    }

    pub(super) fn create_view(&self, name: &str, sql: &str, options: Create) -> Result<()> {
        match options.temporary {
            true => self.temporary.create_view(name, sql, options.or_replace),
            false => self.catalog.create_view(name, sql, options.or_replace),
        }
    }

    /// Adds rows to the table that they were planned for; how many.
    pub(super) fn insert(&self, table: &Table, is_temporary: bool, rows: Vec<Batch>) -> Result<u64> {
        match is_temporary {
            true => {
                let (rows, charge) = self.reserved(rows)?;
                self.temporary.insert(table, rows, charge)
            }
            false => self.catalog.insert(table, rows, &self.memory),
        }
    }

    /// Drops a table or view; false if there is none of that name.
    pub(super) fn drop(&self, kind: DropKind, name: &str, is_temporary: bool) -> Result<bool> {
        match (kind, is_temporary) {
            (DropKind::Table, true) => Ok(self.temporary.drop_table(name)),
            (DropKind::View, true) => Ok(self.temporary.drop_view(name)),
            (DropKind::Table, false) => self.catalog.drop_table(name),
            (DropKind::View, false) => Ok(self.catalog.drop_view(name)),
        }
    }

    fn reserved(&self, rows: Vec<Batch>) -> Result<(Vec<Batch>, Charge)> {
        let mut kept = KeptBatches::default();
        rows.iter().try_for_each(|batch| kept.push(batch))?;
        let mut memory = self.memory.reserve(TEMPORARY_TABLE);
        memory.resize_firm(kept.bytes())?;
        Ok((kept.take(), memory.into_charge()))
    }
}

/// The error of dropping what is not there.
pub fn nothing_to_drop(kind: DropKind, name: &str) -> EngineError {
    let word = match kind {
        DropKind::Table => "table",
        DropKind::View => "view",
    };
    EngineError::execution(format!(
        "there is no {word} named '{name}' to drop; DROP {} IF EXISTS is silent then",
        word.to_uppercase()
    ))
}
