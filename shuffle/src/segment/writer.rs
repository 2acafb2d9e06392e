//! Batches to the blocks of a segment.

use super::index::{BlockAddress, Index, write_index};
use super::reader::Segment;
use super::{HEADER_BYTES, MAGIC, VERSION};
use crate::block::{BlockEncoder, ELEMENTS_MAX};
use crate::error::Result;
use crate::rows::Rows;
use crate::store::{FileWriter, QueryStore};

/// Batches smaller than this are joined: a block costs a read, and compresses by itself.
pub(crate) const BLOCK_BYTES_MIN: usize = 256 << 10;

/// Batches larger than this are split: a reader holds one block of each file that it reads.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// What was written to disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spilled {
    pub rows: u64,
    pub blocks: u64,
    /// Bytes after compression.
    pub bytes: u64,
}

/// Writes a segment. Dropped before it is finished, it deletes its file.
#[derive(Debug)]
pub struct SegmentWriter {
    file: FileWriter,
    encoder: BlockEncoder,
    index: Index,
    spilled: Spilled,
}

impl SegmentWriter {
    /// A new file for rows of `partitions` partitions.
    pub fn create(store: &QueryStore, name: &str, partitions: usize) -> Result<SegmentWriter> {
        let mut file = store.create(name)?;
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        file.append(&header)?;
        let encoder = BlockEncoder::default();
        Ok(SegmentWriter { file, encoder, index: vec![vec![]; partitions], spilled: Spilled::default() })
    }

    /// Appends batches to a partition, in their order; may be called any number of times for a partition.
    /// Small neighbours of the same types share a block, so hand over many at a time. After an error some of
    /// them may be there.
    pub fn append(&mut self, partition: usize, batches: &[Rows]) -> Result<()> {
        let mut start = 0;
        while start < batches.len() {
            let mut bytes = batches[start].encoded_bytes();
            let mut end = start + 1;
            while bytes < BLOCK_BYTES_MIN && end < batches.len() && batches[end].same_types(&batches[start]) {
                bytes += batches[end].encoded_bytes();
                end += 1;
            }
            match Rows::joined(&batches[start..end]) {
                Some(rows) => self.split(partition, &rows)?,
                None => batches[start..end].iter().try_for_each(|rows| self.split(partition, rows))?,
            }
            start = end;
        }
        Ok(())
    }

    /// Appends to each partition in turn, or, if that fails, to none: then the batches may be appended again.
    pub fn append_all<'a>(&mut self, partitions: impl IntoIterator<Item = &'a [Rows]>) -> Result<()> {
        let blocks_before: Vec<usize> = self.index.iter().map(Vec::len).collect();
        let spilled_before = self.spilled;
        let mut partitions = partitions.into_iter().enumerate();
        let appended = partitions.try_for_each(|(partition, batches)| self.append(partition, batches));
        if appended.is_err() {
            // What was written stays in the file, where no index names it.
            self.index.iter_mut().zip(blocks_before).for_each(|(blocks, before)| blocks.truncate(before));
            self.spilled = spilled_before;
        }
        appended
    }

    /// What was appended so far.
    pub fn spilled(&self) -> Spilled {
        self.spilled
    }

    /// Writes the index; nothing can be appended any more.
    pub fn finish(mut self) -> Result<Segment> {
        let index = write_index(&self.index, self.file.position());
        self.file.append(&index)?;
        Ok(Segment::sealed(self.file.seal()?, self.index))
    }

    /// Writes rows as one block, or half of them and then the other half.
    fn split(&mut self, partition: usize, rows: &Rows) -> Result<()> {
        if rows.rows == 0 {
            return Ok(());
        }
        if rows.rows > 1 && (rows.encoded_bytes() > BLOCK_BYTES_MAX || rows.rows > ELEMENTS_MAX) {
            let half = rows.rows / 2;
            self.split(partition, &rows.slice(0, half))?;
            return self.split(partition, &rows.slice(half, rows.rows - half));
        }
        let offset = self.file.position();
        let block = self.encoder.encode(rows)?;
        self.file.append(block)?;
        let address = BlockAddress { offset, bytes: block.len() as u64, rows: rows.rows as u64 };
        self.index[partition].push(address);
        self.spilled.rows += address.rows;
        self.spilled.blocks += 1;
        self.spilled.bytes += address.bytes;
        Ok(())
    }
}
