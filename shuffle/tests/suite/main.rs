//! The tests of this crate from outside, in one binary: each module is about one of the crate's.

mod block;
mod catalogue;
mod output;
mod samples;
mod segment;
mod store;
