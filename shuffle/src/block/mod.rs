//! One block: some rows as bytes, with everything needed to read them back.
//!
//! ```text
//! offset  size
//!      0     8  checksum: XXH3-64 of all that follows
//!      8     4  magic "DVTL"
//!     12     2  version
//!     14     2  encoding: 0 plain, 1 LZ4
//!     16     8  rows
//!     24     8  stored bytes: what follows the header
//!     32     8  raw bytes: the same after decompression
//!     40     8  metadata bytes, at the end of the raw bytes
//!     48    16  zero
//!     64        stored bytes; raw they are the body (buffers, each at a multiple of 16) and the metadata
//! ```
//!
//! Numbers are little-endian. The metadata is the number of columns and, for each, its type and the few
//! lengths that do not follow from the rows (`write.rs` beside this file has the layout). It is a layout of
//! our own rather than Arrow IPC: a block costs its header and a few bytes for each column, where IPC
//! repeats a schema of names and padded messages; and Arrow's reader trusts lengths that we must not. The
//! header is as long as a cache line, so that buffers read from a file are aligned where they lie.
//!
//! LZ4 (`lz4_flex`, its safe decoder) is tried on every block and kept if it saves an eighth. The checksum is
//! XXH3 (`twox-hash`, which LZ4's frame format brings in anyway): several gigabytes a second on one core, and
//! 64 bits where a CRC has 32, because a large shuffle reads millions of blocks.
//!
//! What always holds: any bytes may be given to [`decode`]. The checksum is not trusted as a proof: every
//! length is checked against the bytes at hand, strings must be UTF-8, keys within their dictionary. Memory
//! is bounded by 256 times the block's bytes (LZ4's highest ratio) and a bitmap of [`ELEMENTS_MAX`].

mod dictionary;
mod read;
mod types;
mod write;

use std::path::Path;

use arrow::buffer::{Buffer, MutableBuffer};
use arrow::error::ArrowError;
use twox_hash::XxHash3_64;

use crate::bytes::Damage;
use crate::error::{Result, ShuffleError};
use crate::rows::Rows;

/// Bytes of a block's header.
pub const HEADER_BYTES: usize = 64;

/// The most bytes of a block before compression: Arrow's offsets have 31 bits.
pub const RAW_BYTES_MAX: usize = i32::MAX as usize;

/// The most rows of a block, and the most elements that the lists in a block may have.
pub const ELEMENTS_MAX: usize = 1 << 28;

const MAGIC: [u8; 4] = *b"DVTL";
const VERSION: u16 = 1;
const ENCODING_PLAIN: u16 = 0;
const ENCODING_LZ4: u16 = 1;

/// Buffers start at multiples of this, which is the widest alignment of Arrow's values.
const ALIGNMENT: usize = 16;

#[cfg(target_endian = "big")]
compile_error!("blocks hold Arrow's buffers as they are in memory, and are little-endian");

/// How much of a buffer an encoder keeps for the next block; one that an unusually long row needed goes.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Encodes blocks, one after the other, in buffers that it keeps: about two and a half megabytes, if blocks
/// are of one.
#[derive(Debug, Default)]
pub struct BlockEncoder {
    raw: Vec<u8>,
    packed: Vec<u8>,
    is_plain: bool,
}

impl BlockEncoder {
    /// An encoder that does not compress: for links that are faster than LZ4.
    pub fn plain() -> BlockEncoder {
        BlockEncoder { is_plain: true, ..BlockEncoder::default() }
    }

    /// The rows as one block. Writes only what the rows refer to: slices of large buffers, views and
    /// dictionaries shrink. A column that is a dictionary which does not pay comes back plain.
    ///
    /// Fails if the rows exceed [`RAW_BYTES_MAX`] or [`ELEMENTS_MAX`], and for unions, run ends and list
    /// views.
    pub fn encode(&mut self, rows: &Rows) -> Result<&[u8]> {
        for buffer in [&mut self.raw, &mut self.packed] {
            if buffer.len() > KEPT_BYTES_MAX {
                *buffer = vec![];
            }
        }
        let metadata_bytes = write_raw(rows, &mut self.raw)?;
        let raw = &self.raw[HEADER_BYTES..];
        let mut header = Header {
            encoding: ENCODING_LZ4,
            rows: rows.rows,
            stored_bytes: 0,
            raw_bytes: raw.len(),
            metadata_bytes,
        };
        if self.is_plain {
            header.encoding = ENCODING_PLAIN;
            header.stored_bytes = raw.len();
            header.write(&mut self.raw);
            return Ok(&self.raw);
        }
        let packed_max = HEADER_BYTES + lz4_flex::block::get_maximum_output_size(raw.len());
        if self.packed.len() < packed_max {
            self.packed.resize(packed_max, 0);
        }
        let packed = lz4_flex::block::compress_into(raw, &mut self.packed[HEADER_BYTES..])
            .expect("invariant: the output has LZ4's maximum size");
        let block = if packed <= raw.len() - raw.len() / 8 {
            header.stored_bytes = packed;
            &mut self.packed[..HEADER_BYTES + packed]
        } else {
            header.encoding = ENCODING_PLAIN;
            header.stored_bytes = raw.len();
            &mut self.raw[..]
        };
        header.write(block);
        Ok(block)
    }

    /// [`Self::encode`], for a caller who keeps the block: what is not compressed is not copied.
    pub fn encode_owned(&mut self, rows: &Rows) -> Result<Vec<u8>> {
        if !self.is_plain {
            return self.encode(rows).map(<[u8]>::to_vec);
        }
        let bytes = self.encode(rows)?.len();
        // The next block will be about as long.
        Ok(std::mem::replace(&mut self.raw, Vec::with_capacity(bytes)))
    }
}

/// The rows of a block. `file` and `offset` say in an error where the block is from.
///
/// The arrays are slices of one allocation of the block's raw size. Any bytes may be given; see the module.
pub fn decode(block: &Buffer, file: &Path, offset: u64) -> Result<Rows> {
    decode_damaged(block).map_err(|what| ShuffleError::corrupt(file, offset, what))
}

/// The rows without anything else that their buffers hold; see [`Rows::compacted`].
pub(crate) fn compacted(rows: &Rows) -> Result<Rows> {
    let mut raw = vec![];
    let metadata_bytes = write_raw(rows, &mut raw)?;
    let raw = Buffer::from(&raw[HEADER_BYTES..]);
    // Arrays that break Arrow's own rules, such as a null in a field that has none, are found here.
    let columns = read::read_columns(&raw, metadata_bytes, rows.rows)
        .map_err(|damage| ArrowError::InvalidArgumentError(damage.into_owned()))?;
    Ok(Rows::new(columns, rows.rows))
}

/// Room for the header, the body and the metadata, whose length is returned.
fn write_raw(rows: &Rows, raw: &mut Vec<u8>) -> Result<usize> {
    raw.clear();
    raw.resize(HEADER_BYTES, 0);
    let metadata = write::write_columns(rows, raw)?;
    raw.extend_from_slice(&metadata);
    let raw_bytes = raw.len() - HEADER_BYTES;
    if raw_bytes > RAW_BYTES_MAX {
        return Err(ShuffleError::too_large("bytes", raw_bytes, RAW_BYTES_MAX));
    }
    Ok(metadata.len())
}

fn decode_damaged(block: &Buffer) -> std::result::Result<Rows, Damage> {
    let header = Header::read(block.as_slice())?;
    let stored = block.slice(HEADER_BYTES);
    let raw = if header.encoding == ENCODING_LZ4 {
        let mut raw = MutableBuffer::from_len_zeroed(header.raw_bytes);
        let length = lz4_flex::block::decompress_into(stored.as_slice(), raw.as_slice_mut())
            .map_err(|e| format!("it does not decompress: {e}"))?;
        if length != header.raw_bytes {
            return Err("it decompresses to fewer bytes than it says".into());
        }
        raw.into()
    } else if (stored.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        stored
    } else {
        Buffer::from(stored.as_slice())
    };
    let columns = read::read_columns(&raw, header.metadata_bytes, header.rows)?;
    Ok(Rows::new(columns, header.rows))
}

/// The header's fields, checked against each other and against the checksum.
struct Header {
    encoding: u16,
    rows: usize,
    stored_bytes: usize,
    raw_bytes: usize,
    metadata_bytes: usize,
}

impl Header {
    /// Fills in the first bytes of `block`, whose stored bytes are there already.
    fn write(&self, block: &mut [u8]) {
        assert_eq!(block.len(), HEADER_BYTES + self.stored_bytes);
        block[8..12].copy_from_slice(&MAGIC);
        block[12..14].copy_from_slice(&VERSION.to_le_bytes());
        block[14..16].copy_from_slice(&self.encoding.to_le_bytes());
        let sizes = [self.rows, self.stored_bytes, self.raw_bytes, self.metadata_bytes];
        for (at, size) in (16..).step_by(8).zip(sizes) {
            block[at..at + 8].copy_from_slice(&(size as u64).to_le_bytes());
        }
        block[48..HEADER_BYTES].fill(0);
        let checksum = XxHash3_64::oneshot(&block[8..]);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
    }

    fn read(block: &[u8]) -> std::result::Result<Header, Damage> {
        if block.len() < HEADER_BYTES {
            return Err("a block is shorter than its header".into());
        }
        let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let u64_at = |at: usize| block[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        if block[8..12] != MAGIC {
            return Err("no block starts here".into());
        }
        if u16_at(12) != VERSION {
            return Err(format!("the block has version {}, not {VERSION}", u16_at(12)).into());
        }
        if XxHash3_64::oneshot(&block[8..]) != u64_at(0) {
            return Err("the checksum does not match".into());
        }
        let bounded = |at: usize, max: usize| {
            usize::try_from(u64_at(at)).ok().filter(|n| *n <= max).ok_or("the block gives an absurd size")
        };
        let header = Header {
            encoding: u16_at(14),
            rows: bounded(16, ELEMENTS_MAX)?,
            stored_bytes: bounded(24, block.len())?,
            raw_bytes: bounded(32, RAW_BYTES_MAX)?,
            metadata_bytes: bounded(40, RAW_BYTES_MAX)?,
        };
        let raw_max = match header.encoding {
            ENCODING_PLAIN => header.stored_bytes,
            ENCODING_LZ4 => header.stored_bytes.saturating_mul(256),
            other => return Err(format!("the block has an unknown encoding {other}").into()),
        };
        if header.stored_bytes != block.len() - HEADER_BYTES
            || header.raw_bytes > raw_max
            || header.encoding == ENCODING_PLAIN && header.raw_bytes != header.stored_bytes
            || header.metadata_bytes > header.raw_bytes
        {
            return Err("the block's sizes contradict each other".into());
        }
        Ok(header)
    }
}
