//! The last task of each query, at home: its reader is told where the outputs are, and says how it has gone.
//!
//! What always holds: of a query there is at most one attempt, which [`Query::at_home`] names; it ends when the reader
//! says so, or at once when the query is stopped, whatever the reader does then: what a reader says of any other
//! attempt is not heard.
//!
//! [`Query::at_home`]: crate::cluster::queries::Query::at_home

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dovetail_engine::exchange::{HeldOutput, RemoteOutputs};
use dovetail_engine::query::placed::Placement;
use dovetail_engine::scheduler::events::{Event, Failure, OutputId, QueryId, WorkerId};
use dovetail_engine::{EngineError, Result};

use super::{Driver, HOME, Input};
use crate::cluster::queries::Query;
use crate::host::failure_of;

impl Driver {
    /// All outputs of the last stage are there: whoever asked may fetch them.
    pub fn bring_home(&mut self, id: QueryId, output: OutputId) {
        let Some(query) = self.queries.get(&id) else { return };
        let outputs = self.outputs_at_workers(id, query, output);
        let Some(query) = self.queries.get_mut(&id) else { return };
        query.at_home = Some(output);
        match outputs {
            Ok(outputs) => {
                if query.asked.capability.is_some() {
                    query.unfetched = outputs.iter().flat_map(|output| output.outputs()).collect();
                }
                let inputs = self.inputs.clone();
                let on_end = move |rows| {
                    // When the driver has ended, so has the query.
                    let _ = inputs.upgrade().map(|i| i.send(Input::Brought { query: id, output, rows }));
                };
                query.delivery.hand_over(outputs, Box::new(on_end));
            }
            Err(error) => {
                let failure = failure_of(&error);
                query.failure.get_or_insert(error);
                self.fail_at_home(id, failure);
            }
        }
    }

    /// What the task at home reads, in the order of the tasks.
    fn outputs_at_workers(
        &self,
        id: QueryId,
        query: &Query,
        output: OutputId,
    ) -> Result<Vec<Arc<dyn HeldOutput>>> {
        let stage = output.task.stage;
        if stage != query.asked.result {
            return Err(EngineError::internal(format!(
                "stage {} would run in the scheduler's process",
                stage.0
            )));
        }
        let inputs = query.inputs(stage);
        let placements = self.placements(id, query, stage);
        let tasks: u32 = inputs.iter().map(|input| query.stages[input.0 as usize].tasks).sum();
        if placements.len() != tasks as usize {
            // The state machine is about to hear of it.
            let message = "a worker that holds rows of the result has just been lost".to_owned();
            return Err(EngineError::Lost { outputs: vec![], message });
        }
        let output = |(placement, _): (Placement, WorkerId)| {
            let Placement { output, place, report } = placement;
            let (fetcher, stage) = (self.fetcher.clone(), output.task.stage);
            let place = place.unwrap_or_default();
            let mut one = RemoteOutputs::new(fetcher, place, id.0, stage, report.rows.len());
            one.add(output, &report.rows, report.bytes)?;
            Ok(Arc::new(one) as Arc<dyn HeldOutput>)
        };
        placements.into_iter().map(output).collect()
    }

    /// The reader has all rows, or could not get at all of them.
    pub fn brought(&mut self, id: QueryId, output: OutputId, rows: Result<u64>) {
        let Some(query) = self.queries.get_mut(&id).filter(|q| q.at_home == Some(output)) else { return };
        query.at_home = None;
        match rows {
            Ok(rows) => {
                tracing::debug!(query = id.0, rows, "the rows are at home");
                query.asked.context.tasks_done.fetch_add(1, Ordering::Relaxed);
                self.tell(Event::TaskFinished { query: id, output, worker: HOME });
            }
            Err(error) => self.failed(id, output, HOME, failure_of(&error), error),
        }
    }

    /// A client has fetched an output from the worker that has it.
    pub fn fetched(&mut self, id: QueryId, output: OutputId) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        if query.unfetched.remove(&output)
            && query.unfetched.is_empty()
            && let Some(at_home) = query.at_home
        {
            self.brought(id, at_home, Ok(0));
        }
    }

    /// Stops queries whose clients have tickets for outputs that are lost: whatever takes their place, nobody has a
    /// ticket for it.
    pub fn give_up_lost_results(&mut self) {
        let is_lost = |id: QueryId, output: &OutputId| {
            self.scheduler.output(id, output.task).is_none_or(|(attempt, _)| attempt != output.attempt)
        };
        let queries = self.queries.iter().filter(|(id, q)| q.unfetched.iter().any(|o| is_lost(**id, o)));
        for id in queries.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(query) = self.queries.get_mut(&id) {
                query.unfetched.clear();
                let message = "a worker that held rows of the result is lost; run the query again, with result_endpoints = \
                               'server' if that happens often: then lost rows are made again";
                query.failure.get_or_insert(EngineError::Resources(message.into()));
            }
            self.tell(Event::QueryCancelled { query: id });
        }
    }

    /// The query is stopped: its reader is not waited for.
    pub fn stop_at_home(&mut self, id: QueryId) {
        self.fail_at_home(id, Failure::Stopped);
    }

    fn fail_at_home(&mut self, id: QueryId, failure: Failure) {
        if let Some(output) = self.queries.get_mut(&id).and_then(|query| query.at_home.take()) {
            self.failed_at_home.push((id, output, failure));
        }
    }

    /// Tells the state machine what it could not be told while its actions were carried out.
    pub fn tell_failed_at_home(&mut self) {
        while let Some((query, output, failure)) = self.failed_at_home.pop() {
            self.tell(Event::TaskFailed { query, output, worker: HOME, failure });
        }
    }
}
