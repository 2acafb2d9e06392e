//! The shuffle's catalogue beside the scheduler: told of the same outputs, it must come to the same verdicts.
//!
//! A stage is an exchange from its first output to its release; a stage that is made again after that is another
//! one. Each output has one partition with one row.

use std::collections::BTreeMap;

use dovetail_planner::graph::{StageId, TaskId};
use dovetail_shuffle::catalogue::{Catalogue, ExchangeId, MapAttempt, PartitionSizes, Reading, Verdict};

use super::super::events::{OutputId, QueryId};

#[derive(Default)]
pub struct Exchanges {
    catalogue: Catalogue,
    ids: BTreeMap<(QueryId, StageId), ExchangeId>,
    next: u64,
}

impl Exchanges {
    /// The scheduler took an output for its task's.
    pub fn kept(&mut self, query: QueryId, output: OutputId, tasks: u32) {
        let id = *self.ids.entry((query, output.task.stage)).or_insert_with(|| {
            self.next += 1;
            let id = ExchangeId(self.next);
            self.catalogue.register(id, tasks as usize, 1, Reading::Whole);
            id
        });
        let sizes = PartitionSizes { rows: vec![1], bytes: vec![1] };
        assert_eq!(self.catalogue.committed(attempt(id, output), sizes), Verdict::Keep, "{output:?}");
    }

    /// The scheduler takes an output for lost.
    pub fn lost(&mut self, query: QueryId, output: OutputId) {
        let id = self.ids[&(query, output.task.stage)];
        assert!(self.catalogue.lost(attempt(id, output)), "{output:?} was not there");
    }

    /// The scheduler has released a stage, of which these outputs were there.
    pub fn released(&mut self, query: QueryId, stage: StageId, outputs: &BTreeMap<TaskId, OutputId>) {
        let Some(id) = self.ids.remove(&(query, stage)) else { return assert!(outputs.is_empty()) };
        let ours: Vec<MapAttempt> = outputs.values().map(|output| attempt(id, *output)).collect();
        assert_eq!(self.catalogue.released(id), ours, "outputs of {stage:?}");
    }

    /// The query has ended: so have its exchanges.
    pub fn ended(&mut self, query: QueryId) {
        let all = self.ids.extract_if(.., |(q, _), _| *q == query);
        all.for_each(|(_, id)| drop(self.catalogue.released(id)));
    }
}

fn attempt(exchange: ExchangeId, output: OutputId) -> MapAttempt {
    MapAttempt { exchange, task: output.task.partition as usize, attempt: output.attempt.0 }
}
