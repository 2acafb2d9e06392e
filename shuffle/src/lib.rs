//! Moving partitions between tasks: which partition a row belongs to, and where it waits.
//!
//! ```text
//! key columns ──partitioner──▶ partition of each row
//! rows ──output──▶ memory ──segment──▶ store (disk)       of one map task, by partition
//! rows ──spill_file──▶ store (disk)                        of one operator, in order
//! catalogue: which map outputs there are, and whether every row was read once
//! ```
//!
//! What always holds: this crate knows columns and keys, no SQL and no plan; nothing here is async, and
//! only [`store`] and [`segment`] touch the disk. What is written is counted and checksummed, and checked
//! when it is read; what is acquired is released on drop.

pub mod block;
mod bytes;
pub mod catalogue;
pub mod error;
pub mod memory;
pub mod output;
pub mod partitioner;
mod rows;
pub mod segment;
pub mod spill_file;
pub mod store;

pub use error::{Result, ShuffleError};
pub use rows::Rows;
