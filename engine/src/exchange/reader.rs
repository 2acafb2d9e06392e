//! One partition of an exchange, read.

use std::collections::VecDeque;
use std::sync::Arc;

use dovetail_shuffle::segment::SegmentReader;
use dovetail_shuffle::{Rows, ShuffleError};

use super::output::{ExchangeOutput, Next};
use crate::batch::Batch;
use crate::error::Result;
use crate::task::Source;

/// The batches of one partition of all tasks' outputs: what waits in memory without a copy, then what is on
/// disk, one block at a time. Ends after an error.
pub struct ExchangeReader {
    exchange: u64,
    partition: usize,
    outputs: VecDeque<Arc<ExchangeOutput>>,
    /// Segments of the first output that were begun, and the one that is being read.
    segments_read: usize,
    segment: Option<SegmentReader>,
    /// Handed out first.
    front: VecDeque<Batch>,
    rows_written: u64,
    rows_read: u64,
}

impl ExchangeReader {
    /// A reader of a partition of the outputs. `exchange` names it in errors.
    pub fn new(exchange: u64, outputs: Vec<Arc<ExchangeOutput>>, partition: usize) -> Self {
        ExchangeReader {
            exchange,
            partition,
            rows_written: outputs.iter().map(|o| o.rows(partition)).sum(),
            outputs: outputs.into(),
            segments_read: 0,
            segment: None,
            front: VecDeque::new(),
            rows_read: 0,
        }
    }

    /// A reader of batches that are there already.
    pub fn of_batches(batches: Vec<Batch>) -> Self {
        let mut reader = ExchangeReader::new(0, vec![], 0);
        reader.rows_written = batches.iter().map(|b| b.rows as u64).sum();
        reader.front = batches.into();
        reader
    }

    /// Puts a batch back, to be the next.
    pub fn put_back(&mut self, batch: Batch) {
        self.rows_read -= batch.rows as u64;
        self.front.push_front(batch);
    }

    /// Rows that are still to be read.
    pub fn rows_left(&self) -> u64 {
        self.rows_written.saturating_sub(self.rows_read)
    }

    /// About the bytes of what the outputs hold of the partition, and whether any of them is on disk.
    pub fn bytes_left(&self) -> (u64, bool) {
        let bytes = self.outputs.iter().map(|o| o.bytes(self.partition)).sum();
        (bytes, self.outputs.iter().any(|o| o.is_spilled()))
    }

    /// The next batch, or none at the end, where the rows are counted.
    fn read(&mut self) -> Result<Option<Batch>> {
        if let Some(batch) = self.front.pop_front() {
            return Ok(Some(batch));
        }
        loop {
            if let Some(segment) = &mut self.segment {
                if let Some(rows) = segment.next().transpose()? {
                    return Ok(Some(batch_of(rows)));
                }
                self.segment = None;
            }
            let Some(output) = self.outputs.front() else { return Ok(None) };
            match output.next(self.partition, self.segments_read) {
                Next::Rows(rows) => return Ok(Some(batch_of(rows))),
                Next::Segment(segment) => {
                    self.segment = Some(segment);
                    self.segments_read += 1;
                }
                Next::End => {
                    self.outputs.pop_front();
                    self.segments_read = 0;
                }
            }
        }
    }

    fn check_rows(&self) -> Result<()> {
        if self.rows_read == self.rows_written {
            return Ok(());
        }
        let (written, read) = (self.rows_written, self.rows_read);
        Err(ShuffleError::Conservation { exchange: self.exchange, partition: self.partition, written, read }
            .into())
    }
}

fn batch_of(rows: Rows) -> Batch {
    Batch::from_arrays(rows.columns, rows.rows)
}

impl Iterator for ExchangeReader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let next = self.read().and_then(|batch| match batch {
            Some(batch) => {
                self.rows_read += batch.rows as u64;
                Ok(Some(batch))
            }
            None => self.check_rows().map(|()| None),
        });
        if next.is_err() {
            (self.outputs, self.segment, self.rows_written) = (VecDeque::new(), None, self.rows_read);
        }
        next.transpose()
    }
}

/// [`ExchangeReader`] as the source of a pipeline.
pub struct ExchangeSource(pub ExchangeReader);

impl Source for ExchangeSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        self.0.next().transpose()
    }
}
