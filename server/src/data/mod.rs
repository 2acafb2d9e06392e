//! Rows between processes: outputs served and fetched over Arrow Flight.
//!
//! ```text
//! task ─ engine's Fetcher ─▶ fetch ── DoGet, ticket Fetch ──▶ serve ─▶ Host's outputs
//!                              ◀── blocks of the shuffle, counted ──
//! client ────────────── DoGet, ticket ClientTicket ──▶ serve ─▶ direct ─▶ Host's outputs
//!      ◀── record batches ──────────────────────────────────────────┘
//! ```
//!
//! What always holds: a block is checked when it is decoded; the rows of each output are counted by the sender
//! and by the receiver; either side stops as soon as the other is gone; no more than a few blocks of a stream
//! wait anywhere.

pub mod direct;
pub mod fetch;
pub mod serve;

/// Blocks of a stream that wait at either end.
const BLOCKS_AHEAD: usize = 4;

/// Rows are cut into blocks of about so many bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// Rows of a partition come in batches of a thousand or so. They are joined until a block has so many bytes: a
/// message costs more than the copy.
const SMALL_BYTES: usize = 256 << 10;

/// The largest message: a block of one very long row.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;
