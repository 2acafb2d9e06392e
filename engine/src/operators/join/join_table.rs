//! What the build side of a hash join leaves for the probing tasks.

use std::sync::Arc;

use super::build_columns::BuildColumns;
use super::build_shape::BuildShape;
use super::keys::KeyCoder;
use super::table::KeyTable;
use crate::exchange::ExchangeInput;
use crate::memory::Reservation;
use crate::scan::runtime_filter::RuntimeFilter;

/// A finished build side.
pub enum BuildSide {
    Table(Arc<JoinTable>),
    Partitioned(Arc<PartitionedBuild>),
}

impl BuildSide {
    /// Whether it stays in partitions.
    pub fn is_partitioned(&self) -> bool {
        matches!(self, BuildSide::Partitioned(_))
    }

    /// The filters that the join publishes, by number.
    pub fn runtime_filters(&self) -> &[(u32, Arc<RuntimeFilter>)] {
        match self {
            BuildSide::Table(table) => table.runtime_filters(),
            BuildSide::Partitioned(build) => &build.runtime_filters,
        }
    }
}

/// A build side that does not fit in memory: kept batches in hash partitions.
pub struct PartitionedBuild {
    pub(super) shape: Arc<BuildShape>,
    pub(super) outputs: Vec<ExchangeInput>,
    /// The filters that the join publishes, by number, if they could be made.
    pub(super) runtime_filters: Vec<(u32, Arc<RuntimeFilter>)>,
}

/// The finished build side: read-only, shared by all probing tasks.
pub struct JoinTable {
    pub(super) coder: KeyCoder,
    pub(super) table: KeyTable,
    pub(super) columns: Arc<BuildColumns>,
    /// Some key of some row is null.
    pub(super) has_null_key: bool,
    /// Some row can be found by its key.
    pub(super) has_codes: bool,
    pub(super) runtime_filters: Vec<(u32, Arc<RuntimeFilter>)>,
    /// What the table holds of the query's memory.
    pub(super) memory: Option<Reservation>,
}

impl JoinTable {
    /// The table with its memory counted by `memory`, which has been enough to make it.
    pub(super) fn reserved(mut table: JoinTable, mut memory: Reservation) -> JoinTable {
        // If it is larger than was thought and nothing is left, what was thought stays reserved.
        let _ = memory.resize_firm(table.memory_bytes());
        table.memory = Some(memory);
        table
    }

    /// Build rows.
    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// The filters that the join publishes, by number. One that would drop null keys which match is left
    /// out.
    pub fn runtime_filters(&self) -> &[(u32, Arc<RuntimeFilter>)] {
        &self.runtime_filters
    }

    /// How keys find their rows: `dense`, `direct`, `bitmap`, `ranked` or `unchained`.
    pub fn index_name(&self) -> &'static str {
        self.table.index_name()
    }

    /// Memory of the table and its columns, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.coder.memory_bytes() + self.table.memory_bytes() + self.columns.memory_bytes()
    }
}
