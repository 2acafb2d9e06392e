//! A worker as the simulator knows it: what runs in its process, what it holds, and what of it the scheduler can
//! see. Its process and its connection live apart: it may be cut off and not know, or be dead and not be missed.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{StageId, TaskId};

use super::super::events::{Failure, OutputId, QueryId, WorkerId};

/// An attempt, in all of the simulation.
pub type Key = (QueryId, OutputId);

pub struct SimWorker {
    pub home: bool,
    /// Its process.
    pub alive: bool,
    /// Its connection, as the scheduler knows.
    pub linked: bool,
    /// It has said that it leaves.
    pub leaving: bool,
    pub hung_until_ms: u64,
    pub running: BTreeMap<Key, Work>,
    /// What it holds can be read by others as long as it is alive. The value is the content.
    pub outputs: BTreeMap<Key, u64>,
    /// Queries that have ended: what still runs of them leaves nothing.
    pub ended: BTreeSet<QueryId>,
    /// Times of the latest messages each way: later ones come after.
    pub last_in_ms: u64,
    pub last_out_ms: u64,
}

/// An attempt that runs.
pub struct Work {
    pub inputs: Vec<Input>,
    pub read: Vec<(TaskId, u64)>,
    pub half_ms: u64,
    pub half_done: bool,
    pub cancelled: bool,
    pub ending: Ending,
}

/// Where the driver said that something is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub output: OutputId,
    pub holder: WorkerId,
}

/// How an attempt ends, if it can read everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Well,
    Badly(Failure),
}

/// From the driver to a worker. Those of one connection come in order.
pub enum Message {
    Run { key: Key, inputs: Vec<Input> },
    Cancel(Key),
    Discard(Key),
    Release(QueryId, StageId),
    Stop(QueryId),
    End(QueryId),
    Dismiss,
}

impl SimWorker {
    pub fn new(home: bool) -> Self {
        SimWorker {
            home,
            alive: true,
            linked: true,
            leaving: false,
            hung_until_ms: 0,
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
            ended: BTreeSet::new(),
            last_in_ms: 0,
            last_out_ms: 0,
        }
    }

    /// Its process is gone.
    pub fn dies(&mut self) {
        self.alive = false;
        self.running.clear();
        self.outputs.clear();
    }

    /// Everything but [`Message::Run`], which needs the world, and [`Message::Dismiss`], which ends it.
    pub fn obeys(&mut self, message: &Message) {
        match message {
            Message::Run { .. } | Message::Dismiss => {}
            Message::Cancel(key) => self.running.get_mut(key).into_iter().for_each(|w| w.cancelled = true),
            Message::Discard(key) => {
                self.outputs.remove(key);
            }
            Message::Release(query, stage) => {
                self.outputs.retain(|(q, output), _| (*q, output.task.stage) != (*query, *stage));
            }
            Message::Stop(query) => {
                let of_query = self.running.iter_mut().filter(|((q, _), _)| q == query);
                of_query.for_each(|(_, work)| work.cancelled = true);
            }
            Message::End(query) => {
                self.outputs.retain(|(q, _), _| q != query);
                self.ended.insert(*query);
                let of_query = self.running.iter_mut().filter(|((q, _), _)| q == query);
                of_query.for_each(|(_, work)| work.cancelled = true);
            }
        }
    }
}
