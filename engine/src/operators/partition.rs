//! Hash partitioning: sends every row to the partition of its key's hash.
//!
//! Where a row goes is the shuffle's frozen hash, so every task of every exchange agrees. Some batches
//! are collected first, then put in the order of their partitions with one gather per column: each
//! partition gets a slice of about a thousand rows or more, not a few rows a batch. What is large enough
//! goes to the exchange; told to spill, the sink sends everything there first.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use dovetail_planner::expr::Expr;
use dovetail_shuffle::Rows;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns, partition_of};

use super::collect::{Coalescer, concat_batches, gathered};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::ExchangeWriter;
use crate::expr::{CompiledExpr, compile};
use crate::task::{Flow, Output, QueryContext, Sink, SinkFactory, TaskContext};

/// Rows that a partition should get at once.
const PARTITION_ROWS: usize = 1024;
/// Rows that wait at most, however many partitions there are.
const WAITING_ROWS_MAX: usize = 256 * 1024;
/// What errors and files call the operator.
const NAME: &str = "hash partitioning";

/// Makes sinks that keep rows in `partitions` partitions by the hash of the keys; without keys, in
/// partition 0.
pub fn sink_factory(keys: &[Expr], partitions: usize) -> Result<Arc<dyn SinkFactory>> {
    if partitions == 0 {
        return Err(EngineError::internal("an exchange into no partition"));
    }
    for key in keys {
        compile(key)?; // refused before anything runs
    }
    Ok(Arc::new(PartitionFactory { keys: keys.to_vec(), partitions }))
}

struct PartitionFactory {
    keys: Vec<Expr>,
    partitions: usize,
}

impl SinkFactory for PartitionFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        let used = if self.keys.is_empty() { 1 } else { self.partitions };
        Ok(Box::new(Partition {
            keys: self.keys.iter().map(compile).collect::<Result<_>>()?,
            waiting: vec![],
            waiting_rows: 0,
            waiting_max: (used * PARTITION_ROWS).min(WAITING_ROWS_MAX),
            small: (0..used).map(|_| Coalescer::default()).collect(),
            row_bytes: 0,
            rows: 0,
            writer: ExchangeWriter::new(task, NAME, self.partitions),
            query: task.query.clone(),
        }))
    }
}

struct Partition {
    keys: Vec<CompiledExpr>,
    /// Gathered batches that are not partitioned yet, and their rows.
    waiting: Vec<Batch>,
    waiting_rows: usize,
    waiting_max: usize,
    /// Joins small batches; one for each partition that can get rows.
    small: Vec<Coalescer>,
    /// About the bytes of a row.
    row_bytes: usize,
    /// All rows that came.
    rows: u64,
    writer: ExchangeWriter,
    query: Arc<QueryContext>,
}

impl Sink for Partition {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.query.check_cancelled()?;
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        self.rows += batch.rows as u64;
        if self.small.len() == 1 {
            self.small[0].push(&batch)?;
            self.hand_over()?;
        } else {
            self.waiting_rows += batch.rows;
            self.waiting.push(gathered(&batch)?);
            if self.waiting_rows >= self.waiting_max {
                self.distribute()?;
            }
        }
        if self.row_bytes == 0 {
            self.row_bytes = rows_of(&batch)?.encoded_bytes().div_ceil(batch.rows);
        }
        let small_rows: usize = self.small.iter().map(Coalescer::small_rows).sum();
        if self.writer.must_spill((self.waiting_rows + small_rows) * self.row_bytes) {
            self.flush()?;
            self.writer.spill(0)?;
        }
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.flush()?;
        let written = self.writer.rows();
        if written != self.rows {
            return Err(EngineError::internal(format!(
                "{} rows came to an exchange and {written} were written",
                self.rows
            )));
        }
        Ok(Output { exchange: Some(self.writer.finish()?), ..Output::default() })
    }
}

impl Partition {
    /// Sends everything to the exchange.
    fn flush(&mut self) -> Result<()> {
        if self.waiting_rows > 0 {
            self.distribute()?;
        }
        for small in &mut self.small {
            small.join_small()?;
        }
        self.hand_over()
    }

    /// Sends the waiting rows to their partitions.
    fn distribute(&mut self) -> Result<()> {
        let batch = concat_batches(&std::mem::take(&mut self.waiting))?;
        self.waiting_rows = 0;
        let keys: Vec<ArrayRef> =
            self.keys.iter().map(|k| k.evaluate(&batch)?.values()).collect::<Result<_>>()?;
        let (order, starts) = by_partition(&hash_columns(&keys, EXCHANGE_SEED), self.small.len());
        let ordered = batch.select(&Arc::new(UInt32Array::from(order))).gathered()?;
        self.row_bytes = rows_of(&ordered)?.encoded_bytes().div_ceil(ordered.rows);
        for (partition, small) in self.small.iter_mut().enumerate() {
            let (start, end) = (starts[partition], starts[partition + 1]);
            if end > start {
                small.push(&ordered.slice(start, end - start))?;
            }
        }
        self.hand_over()
    }

    /// What is large enough goes to the exchange.
    fn hand_over(&mut self) -> Result<()> {
        for (partition, small) in self.small.iter_mut().enumerate() {
            for batch in small.take_done() {
                self.writer.push(partition, &batch)?;
            }
        }
        Ok(())
    }
}

fn rows_of(batch: &Batch) -> Result<Rows> {
    let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<_>>()?;
    Ok(Rows::new(columns, batch.rows))
}

/// Row numbers by partition, in order within each, and where each partition starts, with the end behind.
fn by_partition(hashes: &[u64], partitions: usize) -> (Vec<u32>, Vec<usize>) {
    let targets: Vec<u32> = hashes.iter().map(|&hash| partition_of(hash, partitions) as u32).collect();
    let mut starts = vec![0; partitions + 1];
    for &target in &targets {
        starts[target as usize + 1] += 1;
    }
    for partition in 0..partitions {
        starts[partition + 1] += starts[partition];
    }
    let mut next = starts.clone();
    let mut order = vec![0; hashes.len()];
    for (row, &target) in targets.iter().enumerate() {
        let place = &mut next[target as usize];
        order[*place] = row as u32;
        *place += 1;
    }
    (order, starts)
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, UInt32Type};

    use super::*;
    use crate::operators::harness::{Random, partitions_of, rows, run_sink};

    /// `n` rows of a string key in one of two physical forms, and a row number.
    fn batch(n: usize, first: i64, random: &mut Random) -> Batch {
        let keys: Vec<u32> = (0..n).map(|_| random.below(50) as u32).collect();
        let words: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..50).map(|i| format!("word {i}"))));
        let key: ArrayRef = if first % 2 == 0 {
            Arc::new(DictionaryArray::<UInt32Type>::new(UInt32Array::from(keys), words))
        } else {
            arrow::compute::take(&words, &UInt32Array::from(keys), None).unwrap()
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + n as i64));
        Batch::from_arrays(vec![key, numbers], n)
    }

    #[test]
    fn every_row_once_and_every_key_in_one_partition() {
        let mut random = Random(3);
        let batches: Vec<Batch> = (0..40).map(|i| batch(500, i * 500 + i % 2, &mut random)).collect();
        let total = rows(&batches).len();
        for partitions in [1, 3, 16] {
            let factory = sink_factory(&[Expr::column(0, DataType::Utf8View)], partitions).unwrap();
            let output = run_sink(factory.as_ref(), batches.clone()).unwrap();
            assert_eq!(output.rows() as usize, total);
            let found = partitions_of(&output);
            assert_eq!(found.len(), partitions);
            let mut homes = std::collections::HashMap::new();
            for (partition, batches) in found.iter().enumerate() {
                let mut last = -1;
                for row in rows(batches) {
                    let key = row[0].to_string();
                    assert_eq!(*homes.entry(key).or_insert(partition), partition);
                    let number: i64 = row[1].to_string().parse().unwrap();
                    assert!(number >= last, "order within a partition is kept");
                    last = number;
                }
            }
            assert!(homes.values().collect::<std::collections::HashSet<_>>().len() > partitions / 2);
        }
    }

    #[test]
    fn without_keys_everything_is_in_the_first_partition() {
        let batch = batch(10, 0, &mut Random(1));
        let output = run_sink(sink_factory(&[], 4).unwrap().as_ref(), vec![batch]).unwrap();
        assert_eq!(partitions_of(&output).iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0, 0]);
    }
}
