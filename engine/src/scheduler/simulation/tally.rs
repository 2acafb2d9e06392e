//! What has happened in the schedules, so that it can be shown that everything did: a fault that never strikes
//! proves nothing.

use std::collections::BTreeMap;

use super::super::events::{Action, Cause, Event, Failure, Restored};
use super::restart::ATTEMPTS_OF_A_LIFE;

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
    "a stage was resized",
    "an attempt was cancelled",
    "an output was discarded",
    "a task was run again",
    "an answer was early",
    "a query was restored",
    "a query was restored with outputs",
    "a query was restored with running attempts",
    "a restored query was begun anew",
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
            Event::StageResized { .. } => Some("a stage was resized"),
            Event::QueryRestored { restored, .. } => {
                self.count_restored(restored, actions);
                Some("a query was restored")
            }
            Event::GraphSubmitted { .. }
            | Event::WorkerJoined { .. }
            | Event::SlotsChanged { .. }
            | Event::WorkerHeard { .. }
            | Event::TaskFinished { .. }
            | Event::QueryCancelled { .. }
            | Event::Ticked { .. } => None,
        };
        let actions = actions.iter().filter_map(|action| match action {
            Action::Run { output, .. } => {
                (output.attempt.0 % ATTEMPTS_OF_A_LIFE > 0).then_some("a task was run again")
            }
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

    fn count_restored(&mut self, restored: &Restored, actions: &[Action]) {
        let begun_anew = |a: &Action| matches!(a, Action::Abandon { cause: Cause::NotReplayable { .. }, .. });
        let drops = |a: &&Action| matches!(a, Action::Discard { .. });
        let stops = |a: &&Action| matches!(a, Action::Cancel { .. });
        let all = [
            (actions.iter().any(begun_anew), "a restored query was begun anew"),
            (restored.held.len() > actions.iter().filter(drops).count(), "a query was restored with outputs"),
            (
                restored.running.len() > actions.iter().filter(stops).count(),
                "a query was restored with running attempts",
            ),
        ];
        all.iter().filter(|(so, _)| *so).for_each(|(_, what)| *self.0.entry(what).or_default() += 1);
    }

    pub fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, times)| *self.0.entry(what).or_default() += times);
    }
}
