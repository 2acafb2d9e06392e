//! Moving partitions between tasks: which partition a row belongs to, and (to come) where it waits.
//!
//! What always holds: this crate knows record batches and keys, no SQL and no plan.

pub mod partitioner;
