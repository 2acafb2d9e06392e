//! The queries of the process before: found in its log, they wait a moment for the workers, then go on.
//!
//! What always holds: until a query goes on, what its workers say of it is only collected; then the state machine
//! hears of all of it at once, and decides. Whoever comes later with something of it is told to drop it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dovetail_engine::query::placed::Report;
use dovetail_engine::scheduler::events::{Attempt, Event, GraphShape, OutputId, QueryId, Restored, WorkerId};
use dovetail_planner::graph::{StageId, TaskGraph, TaskId};
use dovetail_planner::pipeline::{QueryStage, Sink, Source};

use super::{Driver, Orphan};
use crate::cluster::messages;
use crate::cluster::queries::Query;
use crate::cluster::workers::Worker;
use crate::control::scheduler_message::Message;
use crate::control::{self, worker_message};
use crate::journal::Unfinished;

/// How long the workers that the log knows are waited for. They try to join several times a second.
const REATTACH_MAX: Duration = Duration::from_secs(5);

/// Numbers of attempts that a query has for each start of the server: more than are ever made of a task.
const ATTEMPTS_PER_START: u32 = 1 << 10;

/// Queries that are about to go on.
pub struct Restoring {
    queries: BTreeMap<QueryId, Pending>,
    /// Names of workers that may have something of them and are not back yet.
    awaited: BTreeSet<String>,
    since: Instant,
}

struct Pending {
    orphan: Orphan,
    held: Vec<(OutputId, WorkerId, Report)>,
    running: Vec<(OutputId, WorkerId)>,
}

impl Restoring {
    /// None if there is nothing to restore.
    pub fn new(orphans: Vec<Orphan>) -> Option<Restoring> {
        let awaited = orphans.iter().flat_map(|o| o.unfinished.told.iter().cloned()).collect();
        let pending = |orphan: Orphan| {
            let id = QueryId(orphan.unfinished.id);
            (id, Pending { orphan, held: vec![], running: vec![] })
        };
        let queries: BTreeMap<QueryId, Pending> = orphans.into_iter().map(pending).collect();
        (!queries.is_empty()).then(|| Restoring { queries, awaited, since: Instant::now() })
    }

    /// A worker is gone with all that it has.
    pub fn lost(&mut self, worker: WorkerId) {
        for pending in self.queries.values_mut() {
            pending.held.retain(|(_, holder, _)| *holder != worker);
            pending.running.retain(|(_, runner)| *runner != worker);
        }
    }

    /// Takes in the end of an attempt of a query that waits. Gives back the end of another's.
    pub fn said(
        &mut self,
        worker: WorkerId,
        message: worker_message::Message,
    ) -> Option<worker_message::Message> {
        let output = match &message {
            worker_message::Message::Finished(finished) => finished.output,
            worker_message::Message::Failed(failed) => failed.output,
            _ => None,
        };
        let Some((output, pending)) =
            output.and_then(|o| Some((o.id(), self.queries.get_mut(&QueryId(o.query))?)))
        else {
            return Some(message);
        };
        pending.running.retain(|(running, _)| *running != output);
        if let worker_message::Message::Finished(finished) = message
            && let Ok(report) = messages::report(finished.report.unwrap_or_default())
            && !pending.held.iter().any(|(held, _, _)| *held == output)
        {
            pending.held.push((output, worker, report));
        }
        None
    }
}

impl Driver {
    /// A worker has come back that has something of this scheduler's queries.
    pub fn reattach(&mut self, number: WorkerId, worker: &mut Worker, held: Vec<control::Held>) {
        for held in held {
            let id = QueryId(held.query);
            let pending = self.restoring.as_mut().and_then(|r| r.queries.get_mut(&id));
            // Of stages that the log does not know it cannot be said what they are.
            let pending = pending.filter(|p| held.stages as usize <= p.orphan.unfinished.stages.len());
            let Some(pending) = pending else {
                worker.send(Message::End(control::End { query: held.query }));
                continue;
            };
            worker.knows(id);
            tracing::info!(
                query = id.0,
                worker = number.0,
                outputs = held.outputs.len(),
                running = held.running.len(),
                "a worker has come back"
            );
            for one in held.outputs {
                let report = messages::report(one.report.unwrap_or_default());
                if let (Some(output), Ok(report)) = (one.output, report) {
                    pending.held.push((output.id(), number, report));
                }
            }
            pending.running.extend(held.running.iter().map(|output| (output.id(), number)));
        }
    }

    /// Goes on with the queries of the process before, if their workers are back or the time is over.
    pub fn restore_if_due(&mut self) {
        let Some(restoring) = &mut self.restoring else { return };
        for worker in self.workers.values() {
            restoring.awaited.remove(&worker.hello.name);
        }
        if !restoring.awaited.is_empty() && restoring.since.elapsed() < REATTACH_MAX {
            return;
        }
        for name in &restoring.awaited {
            tracing::warn!(name, "a worker has not come back; what it had is made again");
        }
        let queries = self.restoring.take().map(|r| r.queries).unwrap_or_default();
        queries.into_iter().for_each(|(id, pending)| self.restore(id, pending));
    }

    fn restore(&mut self, id: QueryId, pending: Pending) {
        let Pending { orphan: Orphan { unfinished, log, asked, delivery }, held, running } = pending;
        let mut query = Query::new(asked, delivery, 0, Some(log));
        query.resume(unfinished.stages.clone(), unfinished.decided.clone());
        let open = open_stages(&unfinished);
        let fits = |output: &OutputId| {
            let stage = output.task.stage;
            (stage.0 as usize) < unfinished.stages.len() && !open.contains(&stage)
        };
        let mut adopted = vec![];
        for (output, worker, mut report) in held {
            if !fits(&output) {
                let output = Some(control::Output::of(id.0, output));
                self.send(worker, Message::Discard(control::Discard { output }));
                continue;
            }
            if let Some(decided) = unfinished.decided.get(&output.task.stage) {
                report.is_partitioned = *decided;
            }
            query.reports.insert(output, report.into());
            adopted.push((output, worker));
        }
        let (running, unwanted): (Vec<_>, Vec<_>) = running.into_iter().partition(|(o, _)| fits(o));
        for (output, worker) in unwanted {
            let output = Some(control::Output::of(id.0, output));
            self.send(worker, Message::Cancel(control::Cancel { output }));
        }
        for (_, worker) in &running {
            self.workers.get_mut(worker).into_iter().for_each(|w| w.running += 1);
        }
        let graph =
            TaskGraph { stages: unfinished.stages.clone(), results: unfinished.graph.results.clone() };
        self.tell_known(id, &unfinished);
        let restored = Restored {
            shape: GraphShape::of(&graph),
            first_attempt: Attempt(self.identity.starts_since(id.0) * ATTEMPTS_PER_START),
            recorded: unfinished.recorded(),
            held: adopted.clone(),
            running: running.clone(),
        };
        query.asked.context.tasks.store(graph.task_count(), std::sync::atomic::Ordering::Relaxed);
        self.queries.insert(id, query);
        self.tell(Event::QueryRestored { query: id, restored: Box::new(restored) });
        self.note_adopted(id, &unfinished, &adopted, running.len());
    }

    /// Workers that have something of a query may not have heard of the last splits.
    fn tell_known(&self, id: QueryId, unfinished: &Unfinished) {
        let changed = |stage: &&QueryStage| unfinished.changed.contains(&stage.id);
        let changed: Vec<&QueryStage> = unfinished.stages.iter().filter(changed).collect();
        if changed.is_empty() {
            return;
        }
        let stages = messages::encode_plan(&changed);
        for worker in self.workers.values().filter(|w| w.has_begun(id)) {
            worker.send(Message::Split(control::Split { query: id.0, stages: stages.clone() }));
        }
    }

    /// Writes down what was not known to the log, and forgets reports of what is not used.
    fn note_adopted(
        &mut self,
        id: QueryId,
        unfinished: &Unfinished,
        held: &[(OutputId, WorkerId)],
        running: usize,
    ) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        let is_output = |output: &OutputId| {
            self.scheduler.output(id, output.task).is_some_and(|(a, _)| a == output.attempt)
        };
        query.reports.retain(|output, _| is_output(output));
        let used: Vec<OutputId> = held.iter().map(|(o, _)| *o).filter(|o| is_output(o)).collect();
        for output in &used {
            if unfinished.recorded.get(&output.task) != Some(&output.attempt) {
                query.record_finished(*output);
            }
        }
        let context = &query.asked.context;
        context.tasks_done.store(used.len() as u64, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(query = id.0, outputs = used.len(), running, "a query goes on");
    }
}

/// Build stages of which it is not known whether they stay partitioned, stages that read them, and stages of which it
/// is not known how they share what they read: what is there of them may not fit what is decided now.
fn open_stages(unfinished: &Unfinished) -> BTreeSet<StageId> {
    let undecided = |stage: &QueryStage| {
        matches!(stage.work.sink, Sink::JoinBuild { .. }) && !unfinished.decided.contains_key(&stage.id)
    };
    let undecided: BTreeSet<StageId> =
        unfinished.stages.iter().filter(|s| undecided(s)).map(|s| s.id).collect();
    let reads = |stage: &&QueryStage| stage.inputs.iter().any(|e| undecided.contains(&e.from));
    let readers: Vec<StageId> = unfinished.stages.iter().filter(reads).map(|s| s.id).collect();
    let unshared = unfinished.stages.iter().filter(|s| !is_shared_out(s, unfinished)).map(|s| s.id);
    undecided.iter().copied().chain(readers).chain(unshared).collect()
}

/// Whether everything is recorded by which the tasks of a stage share out partitions.
fn is_shared_out(stage: &QueryStage, unfinished: &Unfinished) -> bool {
    let is_recorded = |from: &StageId| {
        let tasks = unfinished.stages.get(from.0 as usize).map_or(0, |s| s.tasks);
        let mut all = (0..tasks).map(|partition| TaskId { stage: *from, partition });
        all.all(|task| unfinished.recorded.contains_key(&task))
    };
    stage.work.branches.iter().all(|branch| match &branch.source {
        Source::Exchange { stage, .. } => is_recorded(stage),
        _ => true,
    })
}
