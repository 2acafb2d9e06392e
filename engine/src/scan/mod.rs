//! The scan: row groups of Parquet files, or tables in memory, into batches of the columns that go on.
//!
//! ```text
//! planner::physical::Scan ─ scan_factory ─▶ one shared queue of morsels (row groups)
//!     task ─ claims a morsel ─▶ prune by statistics ─▶ filter columns ─▶ surviving rows of the others
//! ```
//!
//! What always holds: each row group is read by exactly one task of the stage; a row goes on only if all
//! conjuncts are true for it; runtime filters drop only rows that cannot match; whatever a file holds,
//! it ends in rows or in an error that names the file.

mod bloom;
mod column;
mod conjunct;
mod experience;
mod filter_step;
mod group;
mod io;
mod key_values;
pub mod mask;
mod memory;
mod morsel;
mod page_index;
mod parquet_scan;
mod pruning;
pub mod runtime_filter;
mod selection;

use std::sync::Arc;

use dovetail_planner::catalog::TableData;
use dovetail_planner::physical::Scan;

use crate::catalog::{Catalog, MemoryTables};
use crate::error::Result;
use crate::task::SourceFactory;

pub use experience::Experience;
pub use runtime_filter::{RuntimeFilter, RuntimeFilters};

/// The sources of a scan: every task of the stage on this machine opens one, and all of them share one
/// queue. Parameters in the filters must have been bound. `operator_id` is where metrics are counted; `experience` is
/// that of the same scan, or of none.
///
/// # Errors
/// A file is gone or has changed, a column is not in it, or a filter cannot be compiled.
pub fn scan_factory(
    scan: &Scan,
    catalog: &Catalog,
    memory: &dyn MemoryTables,
    runtime_filters: Arc<dyn RuntimeFilters>,
    experience: Arc<Experience>,
    operator_id: u32,
) -> Result<Arc<dyn SourceFactory>> {
    let steps = conjunct::Steps::compile(scan, runtime_filters, experience)?;
    Ok(match &scan.data {
        TableData::Parquet(files) => {
            Arc::new(parquet_scan::ParquetScan::new(scan, files, catalog, steps, operator_id)?)
        }
        TableData::Memory { id, version } => {
            let data = memory.memory(*id, *version)?;
            Arc::new(memory::MemoryScan::new(scan, data, steps, operator_id))
        }
    })
}

#[cfg(test)]
mod tests;
