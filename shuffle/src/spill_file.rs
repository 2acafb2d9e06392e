//! Rows in order, on disk: a sorted run, or what an operator cannot keep in memory.
//!
//! A segment of one partition. Batches are gathered into blocks, so a writer holds a block's worth of rows
//! (about a quarter of a mebibyte) and so does each reader (at most about one).

use crate::error::Result;
use crate::rows::Rows;
use crate::segment::{BLOCK_BYTES_MIN, Segment, SegmentReader, SegmentWriter, Spilled};
use crate::store::QueryStore;

const PARTITION: usize = 0;

/// Writes a spill file. Dropped before it is finished, it deletes it.
#[derive(Debug)]
pub struct SpillFileWriter {
    segment: SegmentWriter,
    waiting: Vec<Rows>,
    waiting_bytes: usize,
    block_bytes: usize,
}

impl SpillFileWriter {
    /// A new file. `name` appears in its name.
    pub fn create(store: &QueryStore, name: &str) -> Result<SpillFileWriter> {
        let segment = SegmentWriter::create(store, name, 1)?;
        Ok(SpillFileWriter { segment, waiting: vec![], waiting_bytes: 0, block_bytes: BLOCK_BYTES_MIN })
    }

    /// With blocks of about so many bytes, for who reads many files at once with little memory; at most a
    /// quarter of a mebibyte.
    pub fn with_block_bytes(mut self, bytes: usize) -> SpillFileWriter {
        self.block_bytes = bytes.min(BLOCK_BYTES_MIN);
        self
    }

    /// Writes rows after those written before. After an error the writer is to be dropped.
    pub fn write(&mut self, rows: Rows) -> Result<()> {
        self.waiting_bytes += rows.encoded_bytes();
        self.waiting.push(rows);
        if self.waiting_bytes >= self.block_bytes { self.flush() } else { Ok(()) }
    }

    /// The file, complete.
    pub fn finish(mut self) -> Result<SpillFile> {
        self.flush()?;
        let spilled = self.segment.spilled();
        Ok(SpillFile { segment: self.segment.finish()?, spilled })
    }

    fn flush(&mut self) -> Result<()> {
        self.segment.append(PARTITION, &self.waiting)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }
}

/// A complete spill file. Cheap to clone; deleted with its last clone and reader.
#[derive(Debug, Clone)]
pub struct SpillFile {
    segment: Segment,
    spilled: Spilled,
}

impl SpillFile {
    /// Rows, blocks and bytes of the file.
    pub fn spilled(&self) -> Spilled {
        self.spilled
    }

    /// Reads the rows in the order of writing, one block at a time; may be called again.
    pub fn read(&self) -> SegmentReader {
        self.segment.read(PARTITION)
    }
}
