//! The `dovetail` command: one-shot queries, the interactive shell, the demo, the server.
//!
//! ```text
//! main ─ args ─┬─ oneshot ─┬─▶ database ─┬─▶ engine::Session ──────┬─▶ format ─▶ stdout
//!              ├─ shell ───┘             └─▶ server::remote ───────┤
//!              ├─ demo ────────────────────▶ engine::Session ──────┘
//!              └─ server ──────────────────▶ server::flight_sql
//! ```
//!
//! What always holds: results go to stdout, everything about them to stderr; a result is complete
//! before its first byte is printed; nothing here knows how a query is executed.

pub mod allocator;
pub mod args;
pub mod database;
pub mod demo;
pub mod format;
pub mod interrupt;
pub mod oneshot;
pub mod progress;
pub mod run;
pub mod server;
pub mod shell;
pub mod user;
pub mod worker;
