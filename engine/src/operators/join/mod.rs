//! Joins.
//!
//! ```text
//! build side ─▶ build rows ─▶ build ─▶ JoinTable ─┐ shared by all probing tasks
//! probe side ───────────────────────▶ probe ◀─────┘ ─▶ rows of both sides, seen through indices
//! ```
//!
//! A build side that does not fit in memory stays in hash [`partitioned`] form on disk, and so do the probe
//! rows then: one table a partition. For keys that are too many for that there are [`blocks`].
//!
//! The keys of both sides become 64-bit codes ([`keys`]), which a table maps to build rows ([`table`]).
//! What the join hands on are the inputs' columns behind row numbers: it gathers no values but keys and
//! what the residual condition reads. [`nested_loop`] is for joins without equal keys; both kinds hand
//! their candidate pairs to [`pairs`], which knows the join kinds.
//!
//! What always holds: rows of the build side are numbered by `u32`; all build columns of a batch share
//! one index array; no row order is promised.

mod blocks;
mod build;
mod build_columns;
mod build_rows;
mod build_shape;
mod coalesce;
mod concat;
mod condition;
mod join_table;
mod keys;
mod layout;
mod marked;
mod matched;
mod merge_dictionaries;
mod nested_loop;
mod pairs;
mod partitioned;
mod probe;
mod table;
#[cfg(test)]
mod tests;

pub use build::{build_sink_factory, held_build_side, held_build_side_again, held_build_sink_factory};
pub use build_rows::{BuildRows, PARTITIONS, build_rows_factory};
pub use join_table::{BuildSide, JoinTable, PartitionedBuild};
pub use nested_loop::nested_loop_factory;
pub use partitioned::{PartitionedJoin, partitioned_probe_factory};
pub use probe::probe_factory;
