//! Joins.
//!
//! ```text
//! build side ─▶ build ─▶ JoinTable ─┐ shared by all probing tasks
//! probe side ─────────▶ probe ◀─────┘ ─▶ rows of both sides, seen through indices
//! ```
//!
//! The keys of both sides become 64-bit codes ([`keys`]), which a table maps to build rows ([`table`]).
//! What the join hands on are the inputs' columns behind row numbers: it gathers no values but keys and
//! what the residual condition reads. [`nested_loop`] is for joins without equal keys; both kinds hand
//! their candidate pairs to [`pairs`], which knows the join kinds.
//!
//! What always holds: rows of the build side are numbered by `u32`; all build columns of a batch share
//! one index array; no row order is promised.

mod build;
mod build_columns;
mod coalesce;
mod concat;
mod condition;
mod join_table;
mod keys;
mod layout;
mod matched;
mod merge_dictionaries;
mod nested_loop;
mod pairs;
mod probe;
mod table;
#[cfg(test)]
mod tests;

pub use build::build_sink_factory;
pub use join_table::JoinTable;
pub use nested_loop::nested_loop_factory;
pub use probe::probe_factory;
