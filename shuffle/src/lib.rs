//! Moving partitions between tasks: which partition a row belongs to, and where it waits.
//!
//! What always holds: this crate knows record batches and keys, no SQL and no plan.

pub mod block;
mod bytes;
pub mod error;
pub mod partitioner;
pub mod rows;
pub mod segment;
pub mod store;

pub use error::{Result, ShuffleError};
pub use rows::Rows;
