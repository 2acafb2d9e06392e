//! Planning, and nothing but planning: SQL text and a snapshot of the catalog go in, a
//! [`physical::PhysicalPlan`] and a [`graph::TaskGraph`] come out.
//!
//! ```text
//! SQL text ─ sql ─▶ LogicalPlan ─ optimize ─▶ LogicalPlan ─ physical ─▶ PhysicalPlan ─ lower ─▶ TaskGraph
//! ```
//!
//! What always holds: no I/O, no async, no threads, no clock. Whatever the planner needs to know of
//! tables (schemas, files, statistics) it is handed as a [`catalog::CatalogSnapshot`]. Everything that
//! leaves this crate is plain data: it serialises, compares, prints, and carries no handle.

pub mod catalog;
pub mod error;
pub mod explain;
pub mod expr;
pub mod functions;
pub mod graph;
pub mod lower;
pub mod optimize;
pub mod physical;
pub mod physical_planner;
pub mod pipeline;
pub mod sql;
mod stack;
#[cfg(test)]
mod testing;

pub use error::{PlanError, Result};
pub use physical_planner::plan_query;
