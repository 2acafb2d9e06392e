//! The queries that the driver runs: their graphs as they are now, and what their tasks have reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use dovetail_engine::EngineError;
use dovetail_engine::exchange::Delivery;
use dovetail_engine::operators::join::PARTITIONS;
use dovetail_engine::query::placed::Report;
use dovetail_engine::scheduler::events::{OutputId, StageShape, StageSplit};
use dovetail_engine::session::cluster::ClusterQuery;
use dovetail_planner::graph::StageId;
use dovetail_planner::pipeline::{
    QueryStage, Shared, Sink, can_share, hold_build_rows, share_at_join, split_at_join,
};

use super::messages::encode_plan;
use crate::journal::QueryLog;
use crate::records::{self, record};

/// The build side of a partitioned join is cut into tasks of at least so many bytes.
const BUILD_BYTES_PER_TASK: u64 = 16 << 20;

/// Or into so many tasks for each slot, if these are smaller.
const JOIN_TASKS_PER_SLOT: u32 = 4;

/// A query on its way.
pub struct Query {
    pub asked: ClusterQuery,
    /// The way to the one who has asked.
    pub delivery: Delivery,
    /// The attempt to bring the rows home that runs: nothing else is left to do.
    pub at_home: Option<OutputId>,
    /// Of a result that clients fetch from the workers, what they have not fetched.
    pub unfetched: HashSet<OutputId>,
    /// Times that it was begun anew, because something was lost that cannot be made again as it was.
    pub restarts: u32,
    /// As they are now.
    pub stages: Vec<QueryStage>,
    pub reports: HashMap<OutputId, Arc<Report>>,
    /// By build stage: whether it stays partitioned. Decided once.
    decided: HashMap<StageId, bool>,
    /// The first failure of a task, which is the reason of all that follow.
    pub failure: Option<EngineError>,
    /// Attempts that have failed, for messages.
    pub failed_attempts: u32,
    pub is_cancelled: bool,
    /// There was no room for it when its turn came.
    pub has_waited: bool,
    /// If the query survives the end of this process.
    pub log: Option<Arc<QueryLog>>,
}

/// What a report changes of the graph.
pub struct Change {
    /// The build side of the join at which stages change.
    pub build: StageId,
    pub splits: Vec<StageSplit>,
    /// Stages that have other tasks, and how many.
    pub resized: Vec<(StageId, u32)>,
    /// Changed and new stages, in the order of their numbers as far as they are new.
    pub stages: Vec<QueryStage>,
}

impl Query {
    pub fn new(asked: ClusterQuery, delivery: Delivery, restarts: u32, log: Option<Arc<QueryLog>>) -> Query {
        Query {
            stages: asked.graph.stages.clone(),
            asked,
            delivery,
            at_home: None,
            unfetched: HashSet::new(),
            restarts,
            reports: HashMap::new(),
            decided: HashMap::new(),
            failure: None,
            failed_attempts: 0,
            is_cancelled: false,
            has_waited: false,
            log,
        }
    }

    /// Puts a query that another process has begun where it was.
    pub fn resume(&mut self, stages: Vec<QueryStage>, decided: HashMap<StageId, bool>) {
        (self.stages, self.decided) = (stages, decided);
    }

    /// Writes down, if the query has a log.
    pub fn record(&self, record: impl FnOnce() -> record::Record) {
        if let Some(log) = &self.log {
            log.add(record());
        }
    }

    /// Writes down that an attempt has become its task's output.
    pub fn record_finished(&self, output: OutputId) {
        self.record(|| {
            record::Record::Finished(records::Finished {
                stage: output.task.stage.0,
                partition: output.task.partition,
                attempt: output.attempt.0,
                is_partitioned: self.reports.get(&output).is_some_and(|r| r.is_partitioned),
            })
        });
    }

    /// Writes down what has become of stages because of what a build has left.
    pub fn record_split(&self, build: StageId, stages: &[QueryStage]) {
        self.record(|| {
            record::Record::Split(records::Split { build: build.0, stages: encode_plan(&stages) })
        });
    }

    /// Takes a report in. What a join build says first of its place is decided for good; it may change stages,
    /// of which `can_split` says whether they still may be, for workers with so many slots.
    pub fn reported(
        &mut self,
        output: OutputId,
        mut report: Report,
        slots: u32,
        can_split: impl Fn(StageId) -> bool,
    ) -> Option<Change> {
        let stage = output.task.stage;
        match self.stages[stage.0 as usize].work.sink {
            Sink::JoinBuild { .. } => {
                let is_new = !self.decided.contains_key(&stage);
                report.is_partitioned = *self.decided.entry(stage).or_insert(report.is_partitioned);
                let must_split = is_new && report.is_partitioned;
                self.reports.insert(output, Arc::new(report));
                must_split.then(|| self.split(stage, slots, can_split)).filter(|c| !c.stages.is_empty())
            }
            Sink::HashPartition { .. } => {
                self.reports.insert(output, Arc::new(report));
                self.share(stage, can_split)
            }
            _ => {
                self.reports.insert(output, Arc::new(report));
                None
            }
        }
    }

    /// Cuts hot partitions of a join's probe side among several tasks, once all of it is there.
    fn share(&mut self, front: StageId, can_split: impl Fn(StageId) -> bool) -> Option<Change> {
        let mut readers = self.stages.iter().filter_map(|stage| Some((stage, can_share(stage, front)?)));
        let (stage, build) = readers.find(|(stage, _)| can_split(stage.id))?;
        let tasks = self.stages[front.0 as usize].tasks;
        let reports = self.reports.iter().filter(|(output, _)| output.task.stage == front);
        // Of a task that has run again there is one for each attempt, all of the same rows.
        let by_task: HashMap<u32, &Arc<Report>> =
            reports.map(|(o, report)| (o.task.partition, report)).collect();
        if by_task.len() != tasks as usize {
            return None;
        }
        let mut rows = vec![0; PARTITIONS];
        for report in by_task.values() {
            rows.iter_mut().zip(&report.rows).for_each(|(sum, rows)| *sum += rows);
        }
        let marking = StageId(self.stages.len() as u32);
        let shared = share_at_join(stage, front, &rows, tasks, marking)?;
        let (number, hot) = shared.hot_tasks();
        tracing::info!(stage = number.0, hot, "a hot partition is shared by several tasks");
        let Shared { stage, marking } = shared;
        self.stages[stage.id.0 as usize] = stage.clone();
        let (mut splits, mut resized) = (vec![], vec![]);
        match &marking {
            Some(marking) => {
                splits.push(StageSplit { stage: stage.id, front: shape(marking), rest: shape(&stage) })
            }
            None => resized.push((stage.id, stage.tasks)),
        }
        let stages = [Some(stage), marking].into_iter().flatten().collect::<Vec<_>>();
        self.stages.extend(stages.get(1).cloned());
        Some(Change { build, splits, resized, stages })
    }

    /// Tasks that share the partitions of a join whose build side is that of a stage: so few that each is worth its
    /// messages, so many that a slow one does not hold up the rest.
    fn tasks_of_join(&self, build: StageId, slots: u32) -> u32 {
        let Sink::JoinBuild { rows, .. } = &self.stages[build.0 as usize].work.sink else {
            return PARTITIONS as u32;
        };
        let of_rows = self.reports.iter().filter(|(output, _)| output.task.stage == *rows);
        let bytes: u64 = of_rows.map(|(_, report)| report.bytes).sum();
        let by_size = u32::try_from(bytes / BUILD_BYTES_PER_TASK).unwrap_or(u32::MAX);
        let tasks = by_size.max(slots.saturating_mul(JOIN_TASKS_PER_SLOT)).min(PARTITIONS as u32);
        // PARTITIONS is a power of two.
        tasks.next_power_of_two()
    }

    fn split(&mut self, build: StageId, slots: u32, can_split: impl Fn(StageId) -> bool) -> Change {
        let tasks = self.tasks_of_join(build, slots);
        let mut splits = vec![];
        let mut changed = BTreeMap::new();
        for number in 0..self.stages.len() {
            let front = StageId(self.stages.len() as u32);
            let Some(split) = split_at_join(&self.stages[number], build, front, PARTITIONS as u32, tasks)
            else {
                continue;
            };
            if !can_split(split.rest.id) {
                tracing::error!(stage = number, "a stage that has begun should be split");
                continue;
            }
            let (mut front, mut rest) = (split.front, split.rest);
            let sinks: Vec<Sink> = self.stages.iter().map(|s| s.work.sink.clone()).collect();
            for stage in [&mut front, &mut rest] {
                hold_build_rows(stage, |b| sinks.get(b.0 as usize));
            }
            // The front has waited for the values of scalar subqueries; the rest may run where nobody has told them.
            for edge in &self.stages[number].inputs {
                let is_value = matches!(sinks[edge.from.0 as usize], Sink::Scalar { .. });
                if is_value && !rest.inputs.contains(edge) {
                    rest.inputs.push(*edge);
                }
            }
            splits.push(StageSplit { stage: rest.id, front: shape(&front), rest: shape(&rest) });
            changed.insert(rest.id, rest.clone());
            changed.insert(front.id, front.clone());
            self.stages[number] = rest;
            self.stages.push(front);
        }
        Change { build, splits, resized: vec![], stages: changed.into_values().collect() }
    }

    /// The stages whose outputs a stage reads, each once.
    pub fn inputs(&self, stage: StageId) -> Vec<StageId> {
        let mut seen = HashSet::new();
        let inputs = self.stages[stage.0 as usize].inputs.iter().map(|e| e.from);
        inputs.filter(|from| seen.insert(*from)).collect()
    }
}

/// A stage as the scheduler sees it.
pub fn shape(stage: &QueryStage) -> StageShape {
    StageShape {
        tasks: stage.tasks,
        inputs: stage.inputs.clone(),
        place: stage.place,
        replayable: stage.replayable,
    }
}
