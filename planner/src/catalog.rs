//! What the planner is told of tables: a snapshot, taken before planning, that names every table's
//! schema, data and statistics. The planner never goes to look for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::expr::Literal;

/// The tables a query may name, by lower-case name.
#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
    pub tables: BTreeMap<String, Arc<Table>>,
    /// Views, by lower-case name: the SQL of their query.
    pub views: BTreeMap<String, String>,
    /// None if nothing is temporary.
    pub temporary: Option<Arc<Temporary>>,
}

/// What of a snapshot belongs to one session and is seen by nobody else.
#[derive(Debug, Clone)]
pub struct Temporary {
    /// Tables and views, which hide shared ones of the same names.
    pub names: BTreeSet<String>,
    /// The snapshot without them, which is what a shared view sees.
    pub without: CatalogSnapshot,
}

impl CatalogSnapshot {
    /// Adds a session's temporary tables and views, in front of what is shared.
    pub fn with_temporary(
        self,
        tables: BTreeMap<String, Arc<Table>>,
        views: BTreeMap<String, String>,
    ) -> CatalogSnapshot {
        if tables.is_empty() && views.is_empty() {
            return self;
        }
        let names: BTreeSet<String> = tables.keys().chain(views.keys()).cloned().collect();
        let mut all = self.clone();
        all.tables.retain(|name, _| !names.contains(name));
        all.views.retain(|name, _| !names.contains(name));
        all.tables.extend(tables);
        all.views.extend(views);
        all.temporary = Some(Arc::new(Temporary { names, without: self }));
        all
    }

    /// Whether a name, in lower case, is one of a temporary table or view.
    pub fn is_temporary(&self, name: &str) -> bool {
        self.temporary.as_ref().is_some_and(|t| t.names.contains(name))
    }

    /// What everybody sees.
    pub fn shared(&self) -> &CatalogSnapshot {
        self.temporary.as_ref().map_or(self, |t| &t.without)
    }
}

/// A table as the planner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    /// Logical types; strings are Utf8View, so that the scan need not copy them.
    pub schema: SchemaRef,
    pub data: TableData,
    pub statistics: TableStatistics,
}

/// Where a table's rows are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TableData {
    /// Parquet files, each with the same columns.
    Parquet(Vec<FileRef>),
    /// A table in the memory of the session, by number; `version` changes with every write.
    Memory { id: u64, version: u64 },
}

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRef {
    /// A URL: `file:///…` or `s3://…`. Never with credentials in it.
    pub url: String,
    pub size_bytes: u64,
    /// What the store gave as the version of the content, to tell a change between plan and read.
    pub etag: Option<String>,
    /// Rows, from the footer.
    pub rows: u64,
}

/// What is known of a table's content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableStatistics {
    pub rows: Option<u64>,
    /// One for each column of the schema, or empty.
    pub columns: Vec<ColumnStatistics>,
}

/// What is known of one column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnStatistics {
    pub min: Option<Literal>,
    pub max: Option<Literal>,
    pub nulls: Option<u64>,
    /// Distinct values: from dictionary sizes or sampling, an estimate.
    pub distinct: Option<u64>,
    /// Mean width of a value, bytes.
    pub bytes_per_value: Option<f64>,
}
