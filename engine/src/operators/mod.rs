//! The physical operators: one folder or file each.
//!
//! Every operator offers factories for [`crate::task`]'s traits, made from the plan's plain structs. A
//! pipeline breaker offers two: the sink that ends one stage and the source that starts a later one.

pub mod aggregate;
pub mod collect;
pub mod expand;
pub mod filter;
pub mod join;
pub mod limit;
pub mod partition;
pub mod project;
pub mod scalar;
pub mod sort;
pub mod unnest;
pub mod values;
pub mod window;

#[cfg(test)]
mod harness;
