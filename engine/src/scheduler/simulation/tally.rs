//! What has happened in the schedules, so that it can be shown that everything did: a fault that never strikes
//! proves nothing.

use std::collections::BTreeMap;

use super::super::events::{Action, Cause, Event, Failure};

/// How often, by name.
#[derive(Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

/// Everything that must have happened in some schedule or other.
pub const ALL: &[&str] = &[
    "a query finished",
    "a task failed for good",
    "a task was given up",
    "a query was cancelled",
    "a query had no workers",
    "a query could not be replayed",
    "an input was lost",
    "an attempt failed",
    "an attempt was stopped",
    "a worker was lost",
    "a worker was leaving",
    "a worker was dismissed",
    "a worker fell silent",
    "a stage was split",
    "an attempt was cancelled",
    "an output was discarded",
    "a task was run again",
    "an answer was early",
];

impl Tally {
    pub fn count(&mut self, event: &Event, actions: &[Action]) {
        let event = match event {
            Event::TaskFailed { failure, .. } => match failure {
                Failure::Fatal => None,
                Failure::Transient => Some("an attempt failed"),
                Failure::InputLost(_) => Some("an input was lost"),
                Failure::Stopped => Some("an attempt was stopped"),
            },
            Event::WorkerLost { .. } => Some("a worker was lost"),
            Event::WorkerLeaving { .. } => Some("a worker was leaving"),
            Event::StageSplit { .. } => Some("a stage was split"),
            Event::GraphSubmitted { .. }
            | Event::WorkerJoined { .. }
            | Event::SlotsChanged { .. }
            | Event::WorkerHeard { .. }
            | Event::TaskFinished { .. }
            | Event::QueryCancelled { .. }
            | Event::Ticked { .. } => None,
        };
        let actions = actions.iter().filter_map(|action| match action {
            Action::Run { output, .. } => (output.attempt.0 > 0).then_some("a task was run again"),
            Action::Cancel { .. } => Some("an attempt was cancelled"),
            Action::Discard { .. } => Some("an output was discarded"),
            Action::Release { .. } | Action::Stop { .. } => None,
            Action::Answer { query } => {
                (!actions.contains(&Action::Finish { query: *query })).then_some("an answer was early")
            }
            Action::Finish { .. } => Some("a query finished"),
            Action::Abandon { cause, .. } => Some(match cause {
                Cause::Failed { .. } => "a task failed for good",
                Cause::GivenUp { .. } => "a task was given up",
                Cause::Cancelled => "a query was cancelled",
                Cause::NoWorkers => "a query had no workers",
                Cause::NotReplayable { .. } => "a query could not be replayed",
            }),
            Action::Dismiss { .. } => Some("a worker was dismissed"),
            Action::Disconnect { .. } => Some("a worker fell silent"),
        });
        event.into_iter().chain(actions).for_each(|what| *self.0.entry(what).or_default() += 1);
    }

    pub fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, times)| *self.0.entry(what).or_default() += times);
    }
}
