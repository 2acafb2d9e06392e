//! What the operators' tests share: running one operator by hand, and seeing batches as rows.

use std::sync::Arc;

use datafusion_common::ScalarValue;

use crate::batch::Batch;
use crate::error::Result;
use crate::exchange::{ExchangeReader, KeptReader};
use crate::task::{Downstream, Flow, OperatorFactory, Output, SinkFactory, Source, TaskContext};

/// Task `partition` of `partitions`.
pub fn task(partition: usize, partitions: usize) -> TaskContext {
    TaskContext::new(partition, partitions, Arc::default())
}

/// Keeps what is pushed, and wants `wanted` batches at most.
pub struct Kept {
    pub batches: Vec<Batch>,
    pub wanted: usize,
}

impl Downstream for Kept {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.batches.push(batch);
        Ok(if self.batches.len() >= self.wanted { Flow::Done } else { Flow::Continue })
    }
}

/// Pushes the batches through an operator of one task.
pub fn run_operator(factory: &dyn OperatorFactory, input: Vec<Batch>) -> Result<Vec<Batch>> {
    let mut operator = factory.open(&task(0, 1))?;
    let mut kept = Kept { batches: vec![], wanted: usize::MAX };
    for batch in input {
        if operator.push(batch, &mut kept)? == Flow::Done {
            break;
        }
    }
    operator.finish(&mut kept)?;
    Ok(kept.batches)
}

/// Pushes the batches into a sink of one task.
pub fn run_sink(factory: &dyn SinkFactory, input: Vec<Batch>) -> Result<Output> {
    let mut sink = factory.open(&task(0, 1))?;
    for batch in input {
        if sink.push(batch)? == Flow::Done {
            break;
        }
    }
    sink.finish()
}

/// The batches of each hash partition of an output; it is empty then.
pub fn partitions_of(output: &Output) -> Vec<Vec<Batch>> {
    let exchange = output.exchange.as_ref().expect("the sink exchanges rows");
    let read = |p| ExchangeReader::new(0, vec![exchange.clone()], p).collect::<Result<Vec<_>>>().unwrap();
    (0..exchange.partitions()).map(read).collect()
}

/// The batches that a sink kept in order; they are gone then.
pub fn kept_of(output: &Output) -> Vec<Batch> {
    KeptReader::taking(output.kept.iter().cloned().collect()).collect::<Result<Vec<_>>>().unwrap()
}

/// All batches of a source.
pub fn drain(mut source: Box<dyn Source>) -> Result<Vec<Batch>> {
    let mut batches = vec![];
    while let Some(batch) = source.next()? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The rows of batches, value by value.
pub fn rows(batches: &[Batch]) -> Vec<Vec<ScalarValue>> {
    let mut rows = vec![];
    for batch in batches {
        let arrays: Vec<_> = batch.columns.iter().map(|c| c.values().unwrap()).collect();
        assert!(arrays.iter().all(|a| a.len() == batch.rows));
        for row in 0..batch.rows {
            rows.push(arrays.iter().map(|a| ScalarValue::try_from_array(a, row).unwrap()).collect());
        }
    }
    rows
}

/// A small generator of pseudo-random numbers (xorshift64*), so that tests repeat.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}
