//! Joins against a reference that compares every pair of rows, value by value.
//!
//! Inputs are random, cut into random batches in random physical forms, and probed by several tasks.

mod boundaries;
mod data;
mod harness;
mod hash;
mod nested;
mod reference;
