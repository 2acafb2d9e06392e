//! Rows that come from outside, batch by batch, into a table of the warehouse or in memory.
//!
//! ```text
//! Session::ingest ─▶ Ingest::write, for each batch ─▶ Ingest::commit: the rows are in the table, all at once
//! ```
//!
//! What always holds: an ingest that is dropped before its commit leaves nothing; memory is bounded, by a row group
//! for files and by the memory limit for tables in memory; values stay what they are.

mod lossless;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use dovetail_planner::catalog::Table;
use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;

use super::Session;
use crate::audit::{Audited, StatementClass};
use crate::batch::Batch;
use crate::catalog::warehouse::{TableWriter, check_name, table_schema};
use crate::catalog::{Catalog, Place, TemporaryTables, logical_schema, replaced, value_bytes};
use crate::error::{EngineError, Result};
use crate::memory::Reservation;
use lossless::lossless;

/// Of a string view.
const VIEW_BYTES: usize = 16;

/// Which table rows go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestOptions {
    pub table: String,
    /// Make the table if there is none of that name; else that is an error.
    pub create: bool,
    pub if_exists: IfExists,
    /// A temporary table of the session's own, in memory.
    pub temporary: bool,
}

/// What becomes of a table of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    Fail,
    Append,
    Replace,
}

/// An ingest under way.
pub struct Ingest {
    catalog: Arc<Catalog>,
    name: String,
    commit: Commit,
    target: Target,
    /// For each column of the table, where it is in the rows that come.
    columns: Vec<usize>,
    url: String,
    audited: Audited,
}

enum Commit {
    Create,
    /// To the table as it was when the ingest began.
    Append(Arc<Table>),
    Replace,
}

enum Target {
    Files(Box<TableWriter>),
    Memory(InMemory),
    Temporary(InMemory, Arc<TemporaryTables>),
}

/// Rows for a table in memory.
struct InMemory {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// What the batches hold: the messages that they came in, however few of their bytes they need.
    held: HeldMemory,
    memory: Reservation,
}

impl Session {
    /// Memory for rows that are on their way here.
    pub fn reserve_for_rows(&self) -> Reservation {
        self.memory.reserve("Receive")
    }

    /// Begins to take rows with the columns of `schema`.
    ///
    /// # Errors
    /// The options do not fit what is there; the name or the columns cannot be a table's; there is no warehouse.
    pub fn ingest(&self, options: &IngestOptions, schema: &Schema) -> Result<Ingest> {
        self.ingest_for("", options, schema)
    }

    /// [`Session::ingest`], for a user.
    pub fn ingest_for(&self, user: &str, options: &IngestOptions, schema: &Schema) -> Result<Ingest> {
        let entry = self.audit_entry(StatementClass::Ingest, "", user)?;
        let mut audited = Audited::new(entry);
        match self.begin_ingest(options, schema) {
            Ok(ingest) => {
                if let Some(entry) = audited.entry() {
                    entry.writes(&ingest.name, ingest.url.clone(), 0);
                }
                Ok(Ingest { audited, ..ingest })
            }
            refused => audited.end(refused),
        }
    }

    fn begin_ingest(&self, options: &IngestOptions, schema: &Schema) -> Result<Ingest> {
        let name = options.table.to_lowercase();
        let is_own = self.temporary.table(&name).is_some();
        // Rows are added where the name's rows are.
        let temporary = options.temporary || (is_own && options.if_exists == IfExists::Append);
        let place = match temporary {
            true if self.temporary.has_view(&name) => Some(Place::View),
            true => is_own.then_some(Place::Memory),
            false => self.catalog.place_of(&name)?,
        };
        let commit = match (place, options.if_exists) {
            (None, _) if options.create => Commit::Create,
            (None, _) => {
                return Err(EngineError::execution(format!(
                    "there is no table '{name}' to add rows to; create it first, or ask for it to be created"
                )));
            }
            (Some(_), IfExists::Fail) => {
                return Err(EngineError::execution(format!(
                    "'{name}' exists already; drop it first, or append to it or replace it"
                )));
            }
            (Some(_), IfExists::Append) => {
                let table =
                    if temporary { self.temporary.table(&name) } else { self.catalog.table(&name)? };
                Commit::Append(table.ok_or_else(|| replaced(&name))?)
            }
            (Some(_), IfExists::Replace) => Commit::Replace,
        };
        let in_memory = match place {
            None => temporary,
            Some(Place::Memory) => true,
            Some(Place::Warehouse) => false,
            Some(Place::View | Place::Served) => {
                return Err(EngineError::Unsupported(
                    format!("writing to '{name}', which is a view or files that are only read"),
                    "Give the table another name".into(),
                ));
            }
        };
        check_columns(schema)?;
        let (table, columns) = match &commit {
            Commit::Create | Commit::Replace => (table_schema(schema), (0..schema.fields().len()).collect()),
            Commit::Append(table) => (table.schema.clone(), matched(&name, &table.schema, schema)?),
        };
        let target = if in_memory {
            let schema = Arc::new(logical_schema(&table));
            let (held, memory) = (HeldMemory::default(), self.memory.reserve("Ingest"));
            let rows = InMemory { schema, batches: vec![], held, memory };
            match temporary {
                true => Target::Temporary(rows, self.temporary.clone()),
                false => Target::Memory(rows),
            }
        } else {
            check_name(&name)?;
            let warehouse = self.catalog.warehouse()?;
            Target::Files(Box::new(warehouse.write(table_schema(&table), self.memory.reserve("Ingest"))?))
        };
        let (url, catalog) = (self.url_of(&name, in_memory), self.catalog.clone());
        Ok(Ingest { catalog, name, commit, target, columns, url, audited: Audited::default() })
    }
}

impl Ingest {
    /// Takes rows. After an error the ingest is to be dropped.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self.take(batch) {
            Ok(()) => Ok(()),
            failed => self.audited.end(failed),
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = batch.project(&self.columns)?;
        match &mut self.target {
            Target::Files(writer) => {
                let rows = lossless(&batch, writer.schema())?;
                writer.write(&rows)
            }
            Target::Memory(InMemory { schema, batches, held, memory })
            | Target::Temporary(InMemory { schema, batches, held, memory }, _) => {
                // The values as they came, and a view of each where they are text, until it is known.
                let views = VIEW_BYTES * batch.num_rows() * batch.num_columns();
                memory.resize_firm(memory.firm_bytes() + value_bytes(&batch) + views)?;
                let rows = lossless(&batch, schema)?;
                held.add(&Rows::new(rows.columns().to_vec(), rows.num_rows()));
                memory.resize_firm(held.bytes())?;
                batches.push(rows);
                Ok(())
            }
        }
    }

    /// Puts all rows into the table; how many there were.
    pub fn commit(self) -> Result<u64> {
        let Ingest { catalog, name, commit, target, url, mut audited, .. } = self;
        let committed = commit_to(&catalog, &name, commit, target);
        if let (Some(entry), Ok(rows)) = (audited.entry(), &committed) {
            entry.writes(&name, url, *rows);
        }
        audited.end(committed)
    }
}

/// Puts the rows that a target has into a table.
fn commit_to(catalog: &Catalog, name: &str, commit: Commit, target: Target) -> Result<u64> {
    match target {
        Target::Files(writer) => {
            let written = writer.finish()?;
            let (rows, warehouse) = (written.rows, catalog.warehouse()?);
            match commit {
                Commit::Create => warehouse.create(name, written)?,
                Commit::Append(_) if rows == 0 => {}
                Commit::Append(planned) => catalog.append_written(&planned, written)?,
                Commit::Replace => warehouse.replace(name, written)?,
            }
            Ok(rows)
        }
        Target::Memory(rows) => {
            let (InMemory { schema, memory, .. }, batches, count) = rows.gathered();
            match commit {
                Commit::Create => catalog.create_table(name, schema, batches, false)?,
                Commit::Replace => catalog.create_table(name, schema, batches, true)?,
                Commit::Append(planned) => {
                    catalog.insert(&planned, batches, memory.governor())?;
                }
            }
            // What was reserved while the rows came is counted for as long as the table is there, which is
            // everybody's.
            catalog.charge(name, memory.into_charge().into_process());
            Ok(count)
        }
        Target::Temporary(rows, tables) => {
            let (InMemory { schema, memory, .. }, batches, count) = rows.gathered();
            let charge = memory.into_charge();
            match commit {
                Commit::Create => tables.create_table(name, schema, batches, false, charge)?,
                Commit::Replace => tables.create_table(name, schema, batches, true, charge)?,
                Commit::Append(planned) => {
                    tables.insert(&planned, batches, charge)?;
                }
            }
            Ok(count)
        }
    }
}

impl InMemory {
    /// The rows, and how many there are.
    fn gathered(mut self) -> (InMemory, Vec<Batch>, u64) {
        let batches: Vec<Batch> = std::mem::take(&mut self.batches).into_iter().map(Batch::from).collect();
        let count = batches.iter().map(|b| b.rows as u64).sum();
        (self, batches, count)
    }
}

/// Rows without columns, or with two that SQL could not tell apart, make no table.
fn check_columns(schema: &Schema) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(EngineError::execution("the rows have no columns; a table needs at least one"));
    }
    for (i, field) in schema.fields().iter().enumerate() {
        if field.name().is_empty() {
            return Err(EngineError::execution(format!("column {} has no name; give it one", i + 1)));
        }
        if schema.fields()[..i].iter().any(|f| f.name() == field.name()) {
            return Err(EngineError::execution(format!(
                "two columns are named '{}'; rename one of them",
                field.name()
            )));
        }
    }
    Ok(())
}

/// For each column of the table, which of the given ones it is: that of its name, or one that differs in case alone
/// and is no other column's. None is used twice, and none is left over.
fn matched(name: &str, table: &Schema, given: &Schema) -> Result<Vec<usize>> {
    let (given, table) = (given.fields(), table.fields());
    let exact = |t: &Arc<Field>| given.iter().position(|g| g.name() == t.name());
    let mut found: Vec<Option<usize>> = table.iter().map(exact).collect();
    for (i, t) in table.iter().enumerate() {
        let free = |g: &usize| !found.contains(&Some(*g)) && given[*g].name().eq_ignore_ascii_case(t.name());
        if found[i].is_none() {
            found[i] = (0..given.len()).find(free);
        }
    }
    if let Some(extra) = (0..given.len()).find(|g| !found.contains(&Some(*g))) {
        return Err(EngineError::execution(format!(
            "table '{name}' has no column '{}'",
            given[extra].name()
        )));
    }
    let missing = |t: &Arc<Field>| {
        EngineError::execution(format!("the rows have no column '{}', which table '{name}' has", t.name()))
    };
    found.into_iter().zip(table).map(|(place, t)| place.ok_or_else(|| missing(t))).collect()
}

#[cfg(test)]
mod tests;
