//! Outputs that may be read again, by this process or from another one.
//!
//! On one machine an output has one reader, which takes the rows out of it. Where workers may die a task may
//! run again, and read again what it has read, so outputs stay until the scheduler releases them, and may be
//! on another worker. Both are a [`HeldOutput`]; readers ([`ExchangeReader`](super::ExchangeReader),
//! [`KeptReader`](super::KeptReader)) take either kind.
//!
//! What always holds: every reading gives all rows of the partitions or fails; what cannot be read any more is
//! [`EngineError::Lost`], which names the outputs, so that they are made again.

use std::ops::Range;
use std::sync::Arc;

use dovetail_planner::graph::StageId;
use dovetail_shuffle::{Rows, ShuffleError};

use crate::error::{EngineError, Result};
use crate::scheduler::events::OutputId;

/// Rows of some outputs of one stage.
pub trait HeldOutput: Send + Sync {
    /// The outputs, by which an error names them.
    fn outputs(&self) -> Vec<OutputId>;

    /// Number of partitions; 1 for rows in order.
    fn partitions(&self) -> usize;

    /// Rows of a partition.
    fn rows(&self, partition: usize) -> u64;

    /// About the bytes of all partitions, as they are encoded.
    fn bytes(&self) -> u64;

    /// The address of the process that holds them, and the number of their query there; none is this process.
    fn place(&self) -> Option<(&str, u64)> {
        None
    }

    /// The rows of some partitions, in the order in which they were written if there is only one.
    fn read(&self, partitions: Range<usize>) -> Result<RowsReader>;
}

/// Rows as they come; ends after an error.
pub type RowsReader = Box<dyn Iterator<Item = Result<Rows>> + Send>;

/// Gets outputs from other processes.
pub trait Fetcher: Send + Sync {
    /// The rows of some partitions of some outputs of a stage, all at one place. Fetching goes on while the
    /// caller works on what has come, within a bound. Each output's rows are counted by the one who sends them,
    /// and the counts are checked by the implementation.
    ///
    /// An error, also one in the iterator, means that the outputs cannot be had from there any more.
    fn fetch(&self, request: FetchRequest) -> Result<Box<dyn Iterator<Item = Result<Rows, String>> + Send>>;
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The address of the process.
    pub place: String,
    pub query: u64,
    pub stage: StageId,
    /// Partition (the task's) and attempt of each output.
    pub outputs: Vec<OutputId>,
    pub partitions: Range<usize>,
}

/// Outputs of one stage at one other process.
pub struct RemoteOutputs {
    fetcher: Arc<dyn Fetcher>,
    place: String,
    query: u64,
    stage: StageId,
    outputs: Vec<OutputId>,
    /// By partition.
    rows: Vec<u64>,
    bytes: u64,
}

impl RemoteOutputs {
    /// No outputs yet.
    pub fn new(
        fetcher: Arc<dyn Fetcher>,
        place: String,
        query: u64,
        stage: StageId,
        partitions: usize,
    ) -> Self {
        RemoteOutputs { fetcher, place, query, stage, outputs: vec![], rows: vec![0; partitions], bytes: 0 }
    }

    /// Adds an output, with its rows by partition as its maker has reported them.
    pub fn add(&mut self, output: OutputId, rows: &[u64], bytes: u64) -> Result<()> {
        if rows.len() != self.rows.len() {
            return Err(EngineError::internal(format!(
                "outputs of stage {} have {} and {} partitions",
                self.stage.0,
                rows.len(),
                self.rows.len()
            )));
        }
        self.outputs.push(output);
        self.rows.iter_mut().zip(rows).for_each(|(sum, rows)| *sum += rows);
        self.bytes += bytes;
        Ok(())
    }
}

impl HeldOutput for RemoteOutputs {
    fn outputs(&self) -> Vec<OutputId> {
        self.outputs.clone()
    }

    fn partitions(&self) -> usize {
        self.rows.len()
    }

    fn rows(&self, partition: usize) -> u64 {
        self.rows[partition]
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn place(&self) -> Option<(&str, u64)> {
        Some((&self.place, self.query))
    }

    fn read(&self, partitions: Range<usize>) -> Result<RowsReader> {
        let written = self.rows[partitions.clone()].iter().sum();
        if written == 0 {
            return Ok(Box::new(std::iter::empty()));
        }
        let request = FetchRequest {
            place: self.place.clone(),
            query: self.query,
            stage: self.stage,
            outputs: self.outputs.clone(),
            partitions: partitions.clone(),
        };
        let (outputs, place) = (self.outputs.clone(), self.place.clone());
        let lost = move |why: String| EngineError::Lost {
            outputs: outputs.clone(),
            message: format!("rows could not be fetched from worker {place}: {why}"),
        };
        let rows = self.fetcher.fetch(request)?.map(move |rows| rows.map_err(&lost));
        let (exchange, partition) = (self.stage.0.into(), partitions.start);
        Ok(Box::new(Counted { rows: Some(Box::new(rows)), exchange, partition, written, read: 0 }))
    }
}

/// Compares the rows read with those that the maker has reported.
pub struct Counted {
    rows: Option<RowsReader>,
    exchange: u64,
    partition: usize,
    written: u64,
    read: u64,
}

impl Counted {
    /// Rows of which `written` are expected.
    pub fn new(rows: RowsReader, exchange: u64, partition: usize, written: u64) -> Self {
        Counted { rows: Some(rows), exchange, partition, written, read: 0 }
    }
}

impl Iterator for Counted {
    type Item = Result<Rows>;

    fn next(&mut self) -> Option<Result<Rows>> {
        let next = self.rows.as_mut()?.next();
        match next {
            Some(Ok(rows)) => {
                self.read += rows.rows as u64;
                Some(Ok(rows))
            }
            Some(Err(error)) => {
                self.rows = None;
                Some(Err(error))
            }
            None => {
                self.rows = None;
                let (exchange, partition) = (self.exchange, self.partition);
                let (written, read) = (self.written, self.read);
                (written != read)
                    .then(|| Err(ShuffleError::Conservation { exchange, partition, written, read }.into()))
            }
        }
    }
}
