//! The index at a segment's end, to bytes and back.

use twox_hash::XxHash3_64;

use super::{HEADER_BYTES, TRAILER_BYTES, TRAILER_MAGIC, VERSION};
use crate::block;
use crate::bytes::{Bytes, Damage, put_varint};

/// Where a block is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAddress {
    /// Bytes before the block.
    pub offset: u64,
    /// Bytes of the block, with its header.
    pub bytes: u64,
    pub rows: u64,
}

/// The blocks of each partition, in the order of writing.
pub(super) type Index = Vec<Vec<BlockAddress>>;

/// The index and the trailer of a file that has `offset` bytes so far.
pub(super) fn write_index(index: &Index, offset: u64) -> Vec<u8> {
    let mut out = vec![];
    for blocks in index {
        put_varint(&mut out, blocks.len() as u64);
        for block in blocks {
            put_varint(&mut out, block.offset);
            put_varint(&mut out, block.bytes);
            put_varint(&mut out, block.rows);
        }
    }
    let rows = index.iter().flatten().map(|b| b.rows).sum();
    for number in [offset, out.len() as u64, index.len() as u64, rows] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let checksum = XxHash3_64::oneshot(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&TRAILER_MAGIC);
    out
}

/// Where the index of a file of `file_bytes` starts, from its last bytes.
pub(super) fn index_offset(trailer: &[u8; TRAILER_BYTES as usize], file_bytes: u64) -> Result<u64, Damage> {
    let version = u32::from_le_bytes([trailer[40], trailer[41], trailer[42], trailer[43]]);
    if trailer[44..] != TRAILER_MAGIC {
        return Err("the file does not end as a segment does: it is cut off or something else".into());
    }
    if version != VERSION {
        return Err(format!("the segment has version {version}, not {VERSION}").into());
    }
    let (offset, bytes) = (number_at(trailer, 0), number_at(trailer, 8));
    let end = offset.checked_add(bytes).and_then(|end| end.checked_add(TRAILER_BYTES));
    if offset < HEADER_BYTES || end != Some(file_bytes) {
        return Err("the trailer's sizes contradict the file's length".into());
    }
    Ok(offset)
}

/// The index, from the bytes between `offset` and the file's end.
pub(super) fn read_index(bytes: &[u8], offset: u64) -> Result<Index, Damage> {
    let (index, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES as usize);
    let checked = bytes.len() - TRAILER_BYTES as usize + 32;
    if XxHash3_64::oneshot(&bytes[..checked]) != number_at(trailer, 32) {
        return Err("the checksum of the index does not match".into());
    }
    let (partitions, rows) = (number_at(trailer, 16), number_at(trailer, 24));
    let mut bytes = Bytes::new(index);
    if partitions > bytes.remaining() as u64 {
        return Err("the index has more partitions than bytes".into());
    }
    let mut index = vec![];
    let mut rows_found = 0u64;
    for _ in 0..partitions {
        let mut blocks = vec![];
        for _ in 0..bytes.varint()? {
            let block =
                BlockAddress { offset: bytes.varint()?, bytes: bytes.varint()?, rows: bytes.varint()? };
            let end = block.offset.checked_add(block.bytes).filter(|end| *end <= offset);
            if end.is_none() || block.offset < HEADER_BYTES || block.bytes < block::HEADER_BYTES as u64 {
                return Err("the index has a block outside of the file".into());
            }
            rows_found = rows_found.checked_add(block.rows).ok_or("the index has absurd rows")?;
            blocks.push(block);
        }
        index.push(blocks);
    }
    bytes.end()?;
    if rows_found != rows {
        return Err(format!("the index has {rows_found} rows and says {rows}").into());
    }
    Ok(index)
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let block = |offset, rows| BlockAddress { offset, bytes: 100, rows };
        vec![vec![block(16, 7), block(216, 0)], vec![], vec![block(116, 1 << 40)]]
    }

    fn read(bytes: &[u8], offset: u64) -> Result<Index, Damage> {
        let trailer = bytes.last_chunk().ok_or("short")?;
        let at = index_offset(trailer, offset + bytes.len() as u64)?;
        // A reader takes the bytes from there on.
        let Some(skip) = at.checked_sub(offset) else { return Err("the index starts earlier".into()) };
        read_index(&bytes[skip as usize..], at)
    }

    #[test]
    fn an_index_comes_back() {
        let bytes = write_index(&sample(), 316);
        assert_eq!(read(&bytes, 316).unwrap(), sample());
        assert_eq!(read(&write_index(&vec![], 16), 16).unwrap(), Index::new());
    }

    #[test]
    fn lies_with_a_right_checksum_are_found() {
        // The last block ends past the index.
        assert!(read(&write_index(&sample(), 315), 315).unwrap_err().contains("outside"));
        let mut bytes = write_index(&vec![vec![]], 16);
        let trailer = bytes.len() - TRAILER_BYTES as usize;
        bytes[trailer + 16..trailer + 24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&resealed(bytes), 16).unwrap_err().contains("more partitions than bytes"));
        // Every byte of the index and of the trailer's numbers, made any other.
        let right = write_index(&sample(), 316);
        for at in 0..right.len() - 16 {
            for value in 0..=u8::MAX {
                let mut bytes = right.clone();
                bytes[at] = value;
                let Ok(index) = read(&resealed(bytes), 316) else { continue };
                let inside = |b: &BlockAddress| b.offset >= HEADER_BYTES && b.offset + b.bytes <= 316;
                assert!(index.iter().flatten().all(inside));
            }
        }
    }

    /// The bytes with the checksum that they ought to have.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = bytes.len() - 16;
        let checksum = XxHash3_64::oneshot(&bytes[..at]);
        bytes[at..at + 8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}
