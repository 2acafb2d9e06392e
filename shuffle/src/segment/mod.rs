//! One file for each map task: blocks of all partitions, and an index at the end that says which are whose.
//!
//! ```text
//! header   magic "DVTLSEG\0", version u32, zero u32
//! blocks   one after the other, in the order of writing; see `block`
//! index    for each partition the number of its blocks, and of each its offset, bytes and rows; varints
//! trailer  offset of the index u64, bytes of the index u64, partitions u64, rows u64,
//!          XXH3-64 of the index and the trailer so far u64, version u32, magic "DVTL"
//! ```
//!
//! Numbers are little-endian. A task that spills several times appends several times, each time partition by
//! partition, so that a partition's blocks lie together as far as its spills do.
//!
//! What always holds: every byte that is read is covered by a checksum; rows are counted when they are
//! written, in every block and in the index, and compared when they are read. A reader holds one block. A
//! finished segment has no open file: there may be thousands.

mod index;
mod reader;
mod writer;

pub use index::BlockAddress;
pub use reader::{Segment, SegmentReader};
pub(crate) use writer::BLOCK_BYTES_MIN;
pub use writer::{SegmentWriter, Spilled};

const HEADER_BYTES: u64 = 16;
const MAGIC: [u8; 8] = *b"DVTLSEG\0";
const TRAILER_BYTES: u64 = 48;
const TRAILER_MAGIC: [u8; 4] = *b"DVTL";
const VERSION: u32 = 1;
