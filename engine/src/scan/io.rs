//! The bytes of a row group's columns: read from a local file when they are wanted, fetched ahead from a
//! remote one.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::catalog::FileSource;
use crate::catalog::store::Fetch;
use crate::error::Result;
use crate::task::QueryContext;

/// What has been read of a file, and what is on its way.
pub struct GroupBytes {
    source: FileSource,
    arrived: Vec<(Range<u64>, Bytes)>,
    fetching: Vec<(Vec<Range<u64>>, Fetch)>,
    bytes_read: u64,
    /// For which they are read.
    query: Arc<QueryContext>,
}

impl GroupBytes {
    /// Nothing read yet.
    pub fn new(source: FileSource, query: Arc<QueryContext>) -> GroupBytes {
        GroupBytes { source, arrived: vec![], fetching: vec![], bytes_read: 0, query }
    }

    /// Starts to fetch ranges of a remote file. Local files are read when they are asked for.
    pub fn prefetch(&mut self, mut ranges: Vec<Range<u64>>) -> Result<()> {
        ranges.retain(|r| !self.arrived.iter().any(|(a, _)| a == r));
        ranges.retain(|r| !self.fetching.iter().any(|(f, _)| f.contains(r)));
        if !self.source.is_local() && !ranges.is_empty() {
            let fetch = self.source.fetch(ranges.clone())?;
            self.fetching.push((ranges, fetch));
        }
        Ok(())
    }

    /// The bytes of a range. What comes from elsewhere is not waited for when the query is stopped.
    pub fn read(&mut self, range: Range<u64>) -> Result<Bytes> {
        self.prefetch(vec![range.clone()])?;
        if let Some(at) = self.fetching.iter().position(|(ranges, _)| ranges.contains(&range)) {
            let (ranges, fetch) = self.fetching.swap_remove(at);
            let bytes = fetch.wait_for(&self.query)?;
            self.bytes_read += bytes.iter().map(|b| b.len() as u64).sum::<u64>();
            self.arrived.extend(ranges.into_iter().zip(bytes));
        }
        if let Some((_, bytes)) = self.arrived.iter().find(|(r, _)| *r == range) {
            return Ok(bytes.clone());
        }
        self.bytes_read += range.end - range.start;
        self.source.read(range)
    }

    /// Bytes read since the last call.
    pub fn take_bytes_read(&mut self) -> u64 {
        std::mem::take(&mut self.bytes_read)
    }
}

/// A file of which some ranges have been read, as Parquet's own code wants it.
#[derive(Clone)]
pub struct ReadRanges {
    size_bytes: u64,
    /// By where they start.
    ranges: Arc<[(u64, Bytes)]>,
}

impl ReadRanges {
    /// Ranges of a file, each with the offset of its first byte.
    pub fn new(size_bytes: u64, ranges: Vec<(u64, Bytes)>) -> ReadRanges {
        ReadRanges { size_bytes, ranges: ranges.into() }
    }

    /// All bytes from `start` on that are at hand.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        // Where two ranges meet, it is the later one that begins there.
        self.ranges
            .iter()
            .filter(|(first, bytes)| (*first..=*first + bytes.len() as u64).contains(&start))
            .max_by_key(|(first, _)| *first)
            .map(|(first, bytes)| bytes.slice((start - first) as usize..))
            .ok_or_else(|| ParquetError::EOF(format!("byte {start} is outside of the column chunk")))
    }
}

impl Length for ReadRanges {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for ReadRanges {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} go beyond the column chunk")));
        }
        Ok(bytes.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_read_from_their_beginnings() {
        let ranges = vec![(4, Bytes::from_static(b"first")), (9, Bytes::from_static(b"second"))];
        let read = ReadRanges::new(100, ranges);
        assert_eq!(read.get_bytes(9, 6).unwrap().as_ref(), b"second");
        assert_eq!(read.get_bytes(6, 3).unwrap().as_ref(), b"rst");
        assert!(read.get_bytes(15, 0).unwrap().is_empty());
        assert!(read.get_bytes(16, 0).is_err() && read.get_bytes(9, 7).is_err());
    }
}
