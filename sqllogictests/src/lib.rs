//! The conformance suite: what Dovetail answers, query by query, in `slt/**/*.slt`.
//!
//! ```text
//! slt/**/*.slt ─ sqllogictest ─▶ Database ─▶ engine::Session ─▶ values as text ─▶ compared, exactly
//! ```
//!
//! Every file runs in a session of its own, under both schedulers, at 1, 2 and 7 partitions, with everything
//! spilled that can be, and on a [`cluster`] of processes. After each statement the session's memory must be at zero and its
//! spill files gone. Expected results come from DuckDB (see `generate.py`), never from the engine under
//! test. Values are compared as [`cells`] describes; nothing is rounded or trimmed on the way.

pub mod cells;
pub mod cluster;
pub mod database;
pub mod file;
