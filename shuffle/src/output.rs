//! What a map task gives to an exchange: the rows of each partition, in memory while that is allowed, then
//! on disk.
//!
//! A task pushes rows into a [`MapOutputWriter`]. When memory is short its owner says
//! [`MapOutputWriter::spill`], any number of times; all spills go to one segment.
//! [`MapOutputWriter::finish`] gives a [`MapOutput`], whose partitions are read by as many readers as there
//! are: what waits in memory without a copy, what was spilled block by block. An output that waits for its
//! readers can still be spilled.
//!
//! What always holds: rows pushed are rows read, in memory and on disk together; a partition's rows in
//! memory come before those on disk, so no order across spills is kept ([`spill_file`](crate::spill_file)
//! keeps one).

use std::collections::VecDeque;

use crate::error::Result;
use crate::memory::HeldMemory;
use crate::rows::Rows;
use crate::segment::{Segment, SegmentReader, SegmentWriter, Spilled};
use crate::store::QueryStore;

/// Collects one map task's rows by partition. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct MapOutputWriter {
    name: String,
    held: Vec<Held>,
    memory: HeldMemory,
    segment: Option<SegmentWriter>,
}

/// A partition's rows in memory.
#[derive(Debug, Default)]
struct Held {
    batches: VecDeque<Rows>,
    rows: u64,
}

impl MapOutputWriter {
    /// An empty output of `partitions` partitions. `name` appears in the names of files.
    pub fn new(name: &str, partitions: usize) -> MapOutputWriter {
        let held = (0..partitions).map(|_| Held::default()).collect();
        MapOutputWriter { name: name.to_string(), held, memory: HeldMemory::default(), segment: None }
    }

    /// Adds rows to a partition. The arrays may be slices of larger ones, best of one that is ordered by
    /// partition: what batches share is counted once. A small part of something large should be
    /// [`Rows::compacted`] first.
    pub fn push(&mut self, partition: usize, rows: Rows) {
        self.memory.add(&rows);
        self.held[partition].push(rows);
    }

    /// Memory that the rows hold which are not spilled: bytes of whole buffers, each counted once.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// What was written to disk so far.
    pub fn spilled(&self) -> Spilled {
        self.segment.as_ref().map(SegmentWriter::spilled).unwrap_or_default()
    }

    /// Writes all rows in memory to the task's segment and lets go of them; gives the bytes written. Needs a
    /// few megabytes itself, for the blocks under way. After an error the rows are still in memory.
    pub fn spill(&mut self, store: &QueryStore) -> Result<u64> {
        if self.held.iter().all(|held| held.batches.is_empty()) {
            return Ok(0);
        }
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(SegmentWriter::create(store, &self.name, self.held.len())?),
        };
        let before = segment.spilled().bytes;
        segment.append_all(slices(&mut self.held))?;
        let written = segment.spilled().bytes - before;
        self.held.fill_with(Held::default);
        self.memory.clear();
        Ok(written)
    }

    /// The output, with what is in memory left there and the segment, if there is one, sealed.
    pub fn finish(self) -> Result<MapOutput> {
        let segments = self.segment.map(SegmentWriter::finish).transpose()?.into_iter().collect();
        Ok(MapOutput { name: self.name, held: self.held, memory: self.memory, segments })
    }
}

impl Held {
    fn push(&mut self, rows: Rows) {
        self.rows += rows.rows as u64;
        self.batches.push_back(rows);
    }
}

/// The batches of each partition.
fn slices(held: &mut [Held]) -> impl Iterator<Item = &[Rows]> {
    held.iter_mut().map(|held| &*held.batches.make_contiguous())
}

/// A finished map output. Dropped, it frees its memory and, after the last reader, its disk.
#[derive(Debug)]
pub struct MapOutput {
    name: String,
    held: Vec<Held>,
    memory: HeldMemory,
    /// One that the task wrote; another if the output was spilled while it waited.
    segments: Vec<Segment>,
}

impl MapOutput {
    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.held.len()
    }

    /// Rows of a partition, in memory and on disk.
    pub fn rows(&self, partition: usize) -> u64 {
        self.held[partition].rows + self.segments.iter().map(|s| s.rows(partition)).sum::<u64>()
    }

    /// About the bytes of a partition: in memory as they would be encoded, on disk as they are.
    pub fn bytes(&self, partition: usize) -> u64 {
        let held = self.held[partition].batches.iter().map(|rows| rows.encoded_bytes() as u64).sum::<u64>();
        held + self.segments.iter().map(|s| s.bytes(partition)).sum::<u64>()
    }

    /// Memory that the output holds: bytes of whole buffers, each counted once, until the last rows that
    /// share it are taken.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Takes a partition's next batch in memory out of the output. With [`Self::segment`] that is a reader
    /// that leaves what it has not read yet where it can still be spilled.
    pub fn pop(&mut self, partition: usize) -> Option<Rows> {
        let held = &mut self.held[partition];
        let rows = held.batches.pop_front()?;
        held.rows -= rows.rows as u64;
        self.memory.remove(&rows);
        Some(rows)
    }

    /// The output's segment with a number, from 0; later ones may come while the output is spilled.
    pub fn segment(&self, number: usize) -> Option<&Segment> {
        self.segments.get(number)
    }

    /// Writes all rows in memory to disk and lets go of them; gives the bytes written. Readers that were made
    /// before keep what they have. After an error the output is as it was.
    pub fn spill(&mut self, store: &QueryStore) -> Result<u64> {
        if self.held.iter().all(|held| held.batches.is_empty()) {
            return Ok(0);
        }
        let mut segment = SegmentWriter::create(store, &self.name, self.held.len())?;
        segment.append_all(slices(&mut self.held))?;
        let written = segment.spilled().bytes;
        self.segments.push(segment.finish()?);
        self.held.fill_with(Held::default);
        self.memory.clear();
        Ok(written)
    }

    /// A reader of a partition; there may be any number at once. The rows in memory are shared, not copied.
    pub fn partition(&self, partition: usize) -> PartitionReader {
        self.reader(partition, self.held[partition].batches.clone())
    }

    /// [`Self::partition`] for the only reader: the memory of each batch is free when the reader's batch is.
    /// The partition is then empty but for what is on disk, so this is for outputs that are never read again.
    pub fn take_partition(&mut self, partition: usize) -> PartitionReader {
        let batches = std::mem::take(&mut self.held[partition]).batches;
        batches.iter().for_each(|rows| self.memory.remove(rows));
        self.reader(partition, batches)
    }

    fn reader(&self, partition: usize, batches: VecDeque<Rows>) -> PartitionReader {
        let on_disk: Vec<_> = self.segments.iter().map(|s| s.read(partition)).collect();
        PartitionReader { batches, on_disk: on_disk.into_iter(), current: None }
    }
}

/// The rows of a partition: batches in memory, then blocks on disk, one at a time. Ends after an error.
#[derive(Debug)]
pub struct PartitionReader {
    batches: VecDeque<Rows>,
    on_disk: std::vec::IntoIter<SegmentReader>,
    current: Option<SegmentReader>,
}

impl Iterator for PartitionReader {
    type Item = Result<Rows>;

    fn next(&mut self) -> Option<Result<Rows>> {
        if let Some(rows) = self.batches.pop_front() {
            return Some(Ok(rows));
        }
        loop {
            if let Some(segment) = &mut self.current
                && let Some(rows) = segment.next()
            {
                if rows.is_err() {
                    self.on_disk = vec![].into_iter();
                }
                return Some(rows);
            }
            self.current = Some(self.on_disk.next()?);
        }
    }
}
