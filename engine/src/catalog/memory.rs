//! Tables and views in the memory of the session.
//!
//! A table only grows: version `v` is the first batches of it, so a query that was planned before an
//! INSERT reads what was there then. CREATE OR REPLACE makes a new table with a new number.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use dovetail_planner::catalog::{Table, TableData};

use crate::batch::{Batch, Column};
use crate::catalog::{replaced, statistics};
use crate::error::{EngineError, Result};
use crate::memory::Charge;

/// The rows of a table in memory at one version.
#[derive(Debug, Clone)]
pub struct MemoryData {
    pub schema: SchemaRef,
    /// In logical types, without indices.
    pub batches: Arc<Vec<Batch>>,
}

/// All tables and views in memory, by lower-case name.
#[derive(Default)]
pub struct Memory {
    tables: BTreeMap<String, MemoryTable>,
    views: BTreeMap<String, String>,
    last_id: u64,
}

struct MemoryTable {
    id: u64,
    table: Arc<Table>,
    batches: Arc<Vec<Batch>>,
    /// Version `v` is the first `versions[v]` batches.
    versions: Vec<usize>,
    /// What is counted of its memory.
    charges: Vec<Charge>,
}

impl Memory {
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.get(name).map(|t| t.table.clone())
    }

    pub fn has_table(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }

    pub fn has_view(&self, name: &str) -> bool {
        self.views.contains_key(name)
    }

    /// Counts memory until the table is dropped. If it has been meanwhile, there is nothing to count.
    pub fn charge(&mut self, name: &str, charge: Charge) {
        if let Some(table) = self.tables.get_mut(name) {
            table.charges.push(charge);
        }
    }

    pub fn tables(&self) -> impl Iterator<Item = (String, Arc<Table>)> {
        self.tables.iter().map(|(name, t)| (name.clone(), t.table.clone()))
    }

    pub fn views(&self) -> BTreeMap<String, String> {
        self.views.clone()
    }

    pub fn data(&self, id: u64, version: u64) -> Result<MemoryData> {
        let found = self.tables.values().find(|t| t.id == id);
        let (Some(table), Some(&length)) =
            (found, found.and_then(|t| t.versions.get(usize::try_from(version).ok()?)))
        else {
            return Err(EngineError::execution(
                "a table was dropped or replaced after the query was planned; run the query again",
            ));
        };
        let batches = if length == table.batches.len() {
            table.batches.clone()
        } else {
            Arc::new(table.batches[..length].to_vec())
        };
        Ok(MemoryData { schema: table.table.schema.clone(), batches })
    }

    pub fn create(
        &mut self,
        name: &str,
        schema: SchemaRef,
        batches: Vec<Batch>,
        replace: bool,
    ) -> Result<()> {
        if !replace && (self.tables.contains_key(name) || self.views.contains_key(name)) {
            return Err(exists(name));
        }
        let batches = logical(&schema, batches)?;
        self.last_id += 1;
        let id = self.last_id;
        let versions = vec![batches.len()];
        let table = describe(name, id, 0, schema, &batches);
        self.views.remove(name);
        let (batches, charges) = (Arc::new(batches), vec![]);
        self.tables.insert(name.to_string(), MemoryTable { id, table, batches, versions, charges });
        Ok(())
    }

    /// Adds rows to the table that they were planned for, if it is still there.
    pub fn insert(&mut self, planned: &Table, batches: Vec<Batch>) -> Result<u64> {
        let name = &planned.name;
        let table = match (self.tables.get_mut(name), &planned.data) {
            (Some(table), TableData::Memory { id, .. }) if table.id == *id => table,
            (None, TableData::Parquet(_)) => {
                return Err(EngineError::execution(format!(
                    "there is no table '{name}' to insert into; CREATE TABLE makes one"
                )));
            }
            _ => return Err(replaced(name)),
        };
        let added = logical(&table.table.schema, batches)?;
        let rows = added.iter().map(|b| b.rows as u64).sum();
        if !added.is_empty() {
            Arc::make_mut(&mut table.batches).extend(added);
            table.versions.push(table.batches.len());
            let version = table.versions.len() as u64 - 1;
            table.table = describe(name, table.id, version, table.table.schema.clone(), &table.batches);
        }
        Ok(rows)
    }

    pub fn drop_table(&mut self, name: &str) -> bool {
        self.tables.remove(name).is_some()
    }

    pub fn create_view(&mut self, name: &str, sql: &str, replace: bool) -> Result<()> {
        if self.tables.contains_key(name) || (!replace && self.views.contains_key(name)) {
            return Err(exists(name));
        }
        self.views.insert(name.to_string(), sql.to_string());
        Ok(())
    }

    pub fn drop_view(&mut self, name: &str) -> bool {
        self.views.remove(name).is_some()
    }
}

/// The error of a second CREATE.
pub fn exists(name: &str) -> EngineError {
    EngineError::execution(format!(
        "'{name}' exists already; drop it first, or use CREATE OR REPLACE or IF NOT EXISTS"
    ))
}

fn describe(name: &str, id: u64, version: u64, schema: SchemaRef, batches: &[Batch]) -> Arc<Table> {
    let statistics = statistics::of_batches(&schema, batches);
    Arc::new(Table { name: name.to_string(), schema, data: TableData::Memory { id, version }, statistics })
}

/// The batches with rows, every column gathered and of its logical type.
fn logical(schema: &SchemaRef, batches: Vec<Batch>) -> Result<Vec<Batch>> {
    batches
        .into_iter()
        .filter(|b| b.rows > 0)
        .map(|batch| {
            if batch.columns.len() != schema.fields().len() {
                return Err(EngineError::execution(format!(
                    "{} columns of rows for a table of {}",
                    batch.columns.len(),
                    schema.fields().len()
                )));
            }
            let columns = batch
                .columns
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| {
                    let array = column.to_logical(field.data_type())?;
                    if !field.is_nullable() && array.null_count() > 0 {
                        return Err(EngineError::execution(format!(
                            "a null in column '{}', which is NOT NULL",
                            field.name()
                        )));
                    }
                    Ok(Column::new(array))
                })
                .collect::<Result<Vec<_>>>()?;
            Ok(Batch { columns, rows: batch.rows })
        })
        .collect()
}
