//! The `dovetail` command: one-shot queries, the interactive shell, the demo.
//!
//! ```text
//! main ─ args ─┬─ oneshot ──┐
//!              ├─ shell ────┼─▶ engine::Session ─▶ format ─▶ stdout
//!              └─ demo ─────┘
//! ```
//!
//! What always holds: results go to stdout, everything about them to stderr; a result is complete
//! before its first byte is printed; nothing here knows how a query is executed.

pub mod allocator;
pub mod args;
pub mod demo;
pub mod format;
pub mod interrupt;
pub mod oneshot;
pub mod progress;
pub mod run;
pub mod shell;
