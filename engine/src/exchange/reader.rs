//! A partition of an exchange, or several that follow each other, read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use dovetail_shuffle::segment::SegmentReader;
use dovetail_shuffle::{Rows, ShuffleError};

use super::held::{HeldOutput, RowsReader};
use super::output::{ExchangeOutput, Next};
use crate::batch::Batch;
use crate::error::Result;
use crate::task::Source;

/// Where the rows of a partition come from.
#[derive(Clone)]
pub enum ExchangeInput {
    /// An output of which this is the only reader: what is read is taken out of it.
    Own(Arc<ExchangeOutput>),
    /// Outputs that may be read again.
    Held(Arc<dyn HeldOutput>),
}

impl From<Arc<ExchangeOutput>> for ExchangeInput {
    fn from(output: Arc<ExchangeOutput>) -> Self {
        ExchangeInput::Own(output)
    }
}

impl ExchangeInput {
    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        match self {
            ExchangeInput::Own(output) => output.partitions(),
            ExchangeInput::Held(held) => held.partitions(),
        }
    }

    /// Rows that were written to a partition.
    pub fn rows(&self, partition: usize) -> u64 {
        match self {
            ExchangeInput::Own(output) => output.rows(partition),
            ExchangeInput::Held(held) => held.rows(partition),
        }
    }

    /// About the bytes of a partition.
    fn bytes(&self, partition: usize) -> u64 {
        match self {
            ExchangeInput::Own(output) => output.bytes(partition),
            ExchangeInput::Held(held) => {
                let rows: u64 = (0..held.partitions()).map(|p| held.rows(p)).sum();
                // The product of two large numbers may not fit.
                (held.bytes() as f64 * held.rows(partition) as f64 / rows.max(1) as f64) as u64
            }
        }
    }
}

/// The batches of some partitions of all tasks' outputs: of each what waits in memory without a copy, then what
/// is on disk, one block at a time. Ends after an error.
pub struct ExchangeReader {
    exchange: u64,
    partitions: Range<usize>,
    inputs: VecDeque<ExchangeInput>,
    /// Held outputs that are being read: all at once, because they may come from elsewhere.
    held: Option<VecDeque<RowsReader>>,
    /// Partitions of the first own output that were read.
    partitions_read: usize,
    /// Segments of its next one that were begun, and the one that is being read.
    segments_read: usize,
    segment: Option<SegmentReader>,
    /// Handed out first.
    front: VecDeque<Batch>,
    rows_written: u64,
    rows_read: u64,
}

impl ExchangeReader {
    /// A reader of a partition of the outputs. `exchange` names it in errors.
    pub fn new(exchange: u64, inputs: Vec<impl Into<ExchangeInput>>, partition: usize) -> Self {
        Self::of_range(exchange, inputs, partition..partition + 1)
    }

    /// A reader of several partitions of the outputs: what is elsewhere is asked for once.
    pub fn of_range(exchange: u64, inputs: Vec<impl Into<ExchangeInput>>, partitions: Range<usize>) -> Self {
        let inputs: VecDeque<ExchangeInput> = inputs.into_iter().map(Into::into).collect();
        ExchangeReader {
            exchange,
            rows_written: inputs.iter().map(|o| partitions.clone().map(|p| o.rows(p)).sum::<u64>()).sum(),
            partitions,
            inputs,
            held: None,
            partitions_read: 0,
            segments_read: 0,
            segment: None,
            front: VecDeque::new(),
            rows_read: 0,
        }
    }

    /// A reader of batches that are there already.
    pub fn of_batches(batches: Vec<Batch>) -> Self {
        let mut reader = ExchangeReader::new(0, Vec::<ExchangeInput>::new(), 0);
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

    /// About the bytes of what the outputs hold of the partitions, and whether any of them is on disk.
    pub fn bytes_left(&self) -> (u64, bool) {
        let bytes = self.inputs.iter().flat_map(|o| self.partitions.clone().map(|p| o.bytes(p))).sum();
        let is_spilled = |i: &ExchangeInput| match i {
            ExchangeInput::Own(output) => output.is_spilled(),
            ExchangeInput::Held(_) => false,
        };
        (bytes, self.inputs.iter().any(is_spilled))
    }

    /// Asks for what is elsewhere, so that it comes while the caller does something else first. Reading does so
    /// by itself.
    pub fn start(&mut self) -> Result<()> {
        if self.held.is_none() {
            let mut readers = VecDeque::new();
            for input in &self.inputs {
                if let ExchangeInput::Held(held) = input {
                    readers.push_back(held.read(self.partitions.clone())?);
                }
            }
            self.held = Some(readers);
        }
        Ok(())
    }

    /// The next rows of what may be read again.
    fn read_held(&mut self) -> Result<Option<Rows>> {
        self.start()?;
        let readers = self.held.get_or_insert_default();
        while let Some(reader) = readers.front_mut() {
            match reader.next() {
                Some(rows) => return rows.map(Some),
                None => readers.pop_front(),
            };
        }
        Ok(None)
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
            let output = match self.inputs.front() {
                Some(ExchangeInput::Own(output)) => output,
                Some(ExchangeInput::Held(_)) => {
                    // They stay until the end, so that their rows can be asked for.
                    if let Some(rows) = self.read_held()? {
                        return Ok(Some(batch_of(rows)));
                    }
                    self.inputs.retain(|i| matches!(i, ExchangeInput::Own(_)));
                    continue;
                }
                None => return Ok(None),
            };
            let partition = self.partitions.start + self.partitions_read;
            if partition == self.partitions.end {
                self.inputs.pop_front();
                self.partitions_read = 0;
                continue;
            }
            match output.next(partition, self.segments_read) {
                Next::Rows(rows) => return Ok(Some(batch_of(rows))),
                Next::Segment(segment) => {
                    self.segment = Some(segment);
                    self.segments_read += 1;
                }
                Next::End => {
                    self.partitions_read += 1;
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
        let (exchange, partition) = (self.exchange, self.partitions.start);
        Err(ShuffleError::Conservation { exchange, partition, written, read }.into())
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
            (self.inputs, self.segment, self.rows_written) = (VecDeque::new(), None, self.rows_read);
            self.held = Some(VecDeque::new());
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
