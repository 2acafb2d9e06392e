//! A query as its log tells of it: what was asked, what has become of its stages, which attempts have finished.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::IpcMessage;
use bytes::Bytes;
use dovetail_engine::scheduler::events::{Attempt, OutputId};
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_planner::pipeline::{QueryGraph, QueryStage, Sink};

use super::query_log::{self, QueryLog};
use super::{Identity, epoch_of};
use crate::cluster::messages::{PROTOCOL, decode_plan};
use crate::records::{Begun, Recovered, record};

/// A query that has seen so many ends of its server is not begun again: it may be their cause.
pub const RECOVERIES_MAX: usize = 5;

/// A log that was found, with the handle of its result.
pub struct Found {
    pub handle: Bytes,
    /// Or why there is no going on, for the one who asks for the result.
    pub query: Result<(Box<Unfinished>, QueryLog), String>,
}

/// A query that can go on.
pub struct Unfinished {
    pub id: u64,
    pub schema: SchemaRef,
    pub sql: String,
    pub user: String,
    /// As it was planned.
    pub graph: QueryGraph,
    pub result: StageId,
    pub operators: usize,
    /// As they were in the end.
    pub stages: Vec<QueryStage>,
    /// Those that splits have changed or made.
    pub changed: BTreeSet<StageId>,
    /// By build stage: whether it stays partitioned.
    pub decided: HashMap<StageId, bool>,
    /// Of each task the last attempt that has become its output.
    pub recorded: BTreeMap<TaskId, Attempt>,
    /// Names of the workers that may hold something.
    pub told: BTreeSet<String>,
}

/// Reads a log; none if there is nothing in it that anybody could ask for. It is this process's from now on.
pub fn find(path: &Path, identity: &Identity) -> Option<Found> {
    let shown = path.display();
    let log = match query_log::read(path) {
        Ok(log) => log,
        Err(error) => {
            tracing::error!(path = %shown, %error, "a query's log cannot be read; its query is lost");
            return None;
        }
    };
    if let Some(problem) = &log.problem {
        tracing::warn!(path = %shown, problem, records = log.records.len(), "a query's log is not whole");
    }
    let Some(record::Record::Begun(begun)) = log.records.first() else {
        tracing::error!(path = %shown, "a query's log has no beginning; its query is lost");
        remove(path);
        return None;
    };
    let recoveries = log.records.iter().filter(|r| matches!(r, record::Record::Recovered(_))).count();
    let query = if recoveries >= RECOVERIES_MAX {
        Err(format!("the server has ended {recoveries} times while the query ran; run it again by itself"))
    } else {
        replayed(begun, &log.records[1..])
    };
    let query = query.and_then(|query| {
        // Numbers that this process gives are all higher.
        if epoch_of(query.id) >= identity.epoch {
            return Err("the query's number is not one of an earlier server".to_owned());
        }
        let resumed = QueryLog::resume(path.to_owned(), log.end);
        let log = resumed.map_err(|e| format!("the query's log cannot be continued: {e}"))?;
        log.add(record::Record::Recovered(Recovered {}));
        Ok((Box::new(query), log))
    });
    if let Err(problem) = &query {
        tracing::error!(path = %shown, problem, "a query is lost");
        remove(path);
    }
    Some(Found { handle: begun.handle.clone(), query })
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a query's log cannot be removed");
    }
}

fn replayed(begun: &Begun, records: &[record::Record]) -> Result<Unfinished, String> {
    if begun.protocol != PROTOCOL {
        return Err("the query was planned by another version of the server; run it again".to_owned());
    }
    let damaged = |what: &str| format!("the query's log is damaged ({what}); run it again");
    let schema = Schema::try_from(IpcMessage(begun.schema.clone())).map_err(|_| damaged("its schema"))?;
    let graph: QueryGraph = decode_plan(&begun.graph).map_err(|_| damaged("its plan"))?;
    graph.validate().map_err(|_| damaged("its plan"))?;
    let result = StageId(begun.result);
    if graph.results != [result] {
        return Err(damaged("its result"));
    }
    let mut query = Unfinished {
        id: begun.query,
        schema: schema.into(),
        sql: begun.sql.clone(),
        user: begun.user.clone(),
        stages: graph.stages.clone(),
        graph,
        result,
        operators: begun.operators as usize,
        changed: BTreeSet::new(),
        decided: HashMap::new(),
        recorded: BTreeMap::new(),
        told: BTreeSet::new(),
    };
    records.iter().try_for_each(|record| query.replay(record)).map_err(|()| damaged("a record"))?;
    Ok(query)
}

impl Unfinished {
    fn replay(&mut self, record: &record::Record) -> Result<(), ()> {
        match record {
            record::Record::Begun(_) => return Err(()),
            record::Record::Recovered(_) => {}
            record::Record::Told(told) => drop(self.told.insert(told.worker.clone())),
            record::Record::Split(split) => {
                let stages: Vec<QueryStage> = decode_plan(&split.stages).map_err(drop)?;
                self.decided.insert(StageId(split.build), true);
                for stage in stages {
                    self.changed.insert(stage.id);
                    match stage.id.0 as usize {
                        known if known < self.stages.len() => self.stages[known] = stage,
                        next if next == self.stages.len() => self.stages.push(stage),
                        _ => return Err(()),
                    }
                }
            }
            record::Record::Finished(f) => {
                let task = TaskId { stage: StageId(f.stage), partition: f.partition };
                let stage = self.stages.get(f.stage as usize).ok_or(())?;
                if f.partition >= stage.tasks {
                    return Err(());
                }
                if matches!(stage.work.sink, Sink::JoinBuild { .. }) {
                    self.decided.entry(task.stage).or_insert(f.is_partitioned);
                }
                self.recorded.insert(task, Attempt(f.attempt));
            }
            record::Record::Anew(anew) => {
                self.id = anew.query;
                self.stages = self.graph.stages.clone();
                self.changed.clear();
                self.decided.clear();
                self.recorded.clear();
                self.told.clear();
            }
        }
        Ok(())
    }

    /// The recorded outputs.
    pub fn recorded(&self) -> Vec<OutputId> {
        self.recorded.iter().map(|(task, attempt)| OutputId { task: *task, attempt: *attempt }).collect()
    }
}
