//! Which map outputs there are: a state machine without I/O, clock or threads.
//!
//! The scheduler reports what happened to the outputs of an exchange, and is told what follows: keep or
//! discard, run again or not. Outputs are named by attempt, so that a late or lost one is never read.
//!
//! ```text
//! missing ──committed──▶ kept(attempt) ──lost──▶ missing
//! ```
//!
//! What always holds:
//!
//! - A map task has at most one kept attempt. The first commit wins, every other is told to discard;
//!   repeating a message changes nothing.
//! - An attempt that was lost never comes back, even if its commit arrives after the news of its loss.
//! - An exchange that is unknown was released: its late messages are answered with discard, or ignored. So
//!   nothing is remembered of it.
//! - Rows written and rows read are counted per partition; [`Catalogue::check_conservation`] compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Result, ShuffleError};

/// An exchange. Never used twice in the life of a catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExchangeId(pub u64);

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One attempt of one map task of an exchange, and so one map output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MapAttempt {
    pub exchange: ExchangeId,
    /// The map task, `0..map_tasks`.
    pub task: usize,
    pub attempt: u32,
}

/// What a map output holds, for each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSizes {
    pub rows: Vec<u64>,
    pub bytes: Vec<u64>,
}

/// How many of a partition's rows each of its readers reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// All of them: one reader, or the many of a broadcast.
    Whole,
    /// A part; together they read all. So is a large partition read by several tasks.
    Divided,
}

/// What becomes of a map output that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is the task's output.
    Keep,
    /// Another attempt's is, or nobody wants it any more.
    Discard,
}

/// The map outputs of all exchanges.
#[derive(Debug, Default)]
pub struct Catalogue {
    exchanges: BTreeMap<ExchangeId, Exchange>,
}

#[derive(Debug)]
struct Exchange {
    partitions: usize,
    reading: Reading,
    tasks: Vec<MapTask>,
    /// Rows by partition and reader.
    read: BTreeMap<(usize, usize), u64>,
}

#[derive(Debug, Clone, Default)]
struct MapTask {
    output: Output,
    lost: BTreeSet<u32>,
    /// Of the latest output that was kept. Stays when that is lost: its rows may all have been read.
    sizes: Option<PartitionSizes>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Output {
    #[default]
    Missing,
    Kept(u32),
}

impl Catalogue {
    /// A new exchange, of whose map tasks none has an output.
    pub fn register(&mut self, exchange: ExchangeId, map_tasks: usize, partitions: usize, reading: Reading) {
        let tasks = vec![MapTask::default(); map_tasks];
        let new = Exchange { partitions, reading, tasks, read: BTreeMap::new() };
        let old = self.exchanges.insert(exchange, new);
        assert!(old.is_none(), "invariant: exchange {exchange} is registered once");
    }

    /// An attempt has finished, with an output of these sizes, which must be one for each partition.
    pub fn committed(&mut self, attempt: MapAttempt, sizes: PartitionSizes) -> Verdict {
        let Some(exchange) = self.exchanges.get_mut(&attempt.exchange) else {
            return Verdict::Discard;
        };
        let lengths = (sizes.rows.len(), sizes.bytes.len());
        assert_eq!(lengths, (exchange.partitions, exchange.partitions), "invariant: sizes of each partition");
        let task = &mut exchange.tasks[attempt.task];
        match task.output {
            Output::Kept(kept) if kept == attempt.attempt => Verdict::Keep,
            Output::Kept(_) => Verdict::Discard,
            Output::Missing if task.lost.contains(&attempt.attempt) => Verdict::Discard,
            Output::Missing => {
                task.output = Output::Kept(attempt.attempt);
                task.sizes = Some(sizes);
                Verdict::Keep
            }
        }
    }

    /// An attempt's output is gone, or will be. Says whether its task is without output because of that,
    /// and must run again.
    pub fn lost(&mut self, attempt: MapAttempt) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&attempt.exchange) else {
            return false;
        };
        let task = &mut exchange.tasks[attempt.task];
        task.lost.insert(attempt.attempt);
        match task.output {
            Output::Kept(kept) if kept == attempt.attempt => {
                task.output = Output::Missing;
                true
            }
            Output::Kept(_) | Output::Missing => false,
        }
    }

    /// Nobody reads the exchange any more. Gives the outputs to delete.
    pub fn released(&mut self, exchange: ExchangeId) -> Vec<MapAttempt> {
        let outputs = self.outputs(exchange);
        self.exchanges.remove(&exchange);
        outputs
    }

    /// A reader has read so many rows of a partition to their end. Each reader counts once: of a repeated
    /// message, or of a reader that ran again, the last.
    pub fn read(&mut self, exchange: ExchangeId, partition: usize, reader: usize, rows: u64) {
        if let Some(exchange) = self.exchanges.get_mut(&exchange) {
            assert!(partition < exchange.partitions, "invariant: a partition of the exchange");
            exchange.read.insert((partition, reader), rows);
        }
    }

    /// The outputs that may be read, in the order of their tasks. The exchange is complete if there is one
    /// for each.
    pub fn outputs(&self, exchange: ExchangeId) -> Vec<MapAttempt> {
        let tasks = self.exchanges.get(&exchange).map_or(&[][..], |e| &e.tasks);
        let kept = tasks.iter().enumerate().filter_map(|(task, state)| match state.output {
            Output::Kept(attempt) => Some(MapAttempt { exchange, task, attempt }),
            Output::Missing => None,
        });
        kept.collect()
    }

    /// The map tasks that have no output.
    pub fn missing(&self, exchange: ExchangeId) -> Vec<usize> {
        let tasks = self.exchanges.get(&exchange).map_or(&[][..], |e| &e.tasks);
        let missing = |(task, state): (usize, &MapTask)| (state.output == Output::Missing).then_some(task);
        tasks.iter().enumerate().filter_map(missing).collect()
    }

    /// What a kept output holds.
    pub fn sizes(&self, attempt: MapAttempt) -> Option<&PartitionSizes> {
        let task = self.exchanges.get(&attempt.exchange)?.tasks.get(attempt.task)?;
        task.sizes.as_ref().filter(|_| task.output == Output::Kept(attempt.attempt))
    }

    /// Whether every row that was written has been read, once. To be asked before the exchange is released,
    /// if its readers have read to the end.
    pub fn check_conservation(&self, exchange: ExchangeId) -> Result<()> {
        let state =
            self.exchanges.get(&exchange).expect("invariant: an exchange is checked before its release");
        (0..state.partitions).try_for_each(|partition| state.check_partition(exchange, partition))
    }
}

impl Exchange {
    fn check_partition(&self, exchange: ExchangeId, partition: usize) -> Result<()> {
        let sizes = self.tasks.iter().filter_map(|t| t.sizes.as_ref());
        let written = sizes.map(|s| s.rows[partition]).fold(0, u64::saturating_add);
        let reads = self.read.range((partition, 0)..=(partition, usize::MAX)).map(|(_, rows)| *rows);
        let read = match self.reading {
            Reading::Divided => reads.fold(0, u64::saturating_add),
            // The first reader that read another number, or any; with no reader nothing was read.
            Reading::Whole => reads.reduce(|a, b| if a == written { b } else { a }).unwrap_or(0),
        };
        if read != written {
            return Err(ShuffleError::Conservation { exchange: exchange.0, partition, written, read });
        }
        Ok(())
    }
}
