//! What time does: workers whose lease has run out, queries that wait in vain, pauses before tasks are tried again,
//! tasks that take too long.
//!
//! The clock is the driver's, which says how late it is; a scheduler that is never told has no deadlines. What
//! happened before the first tick has happened at its time.

use dovetail_planner::graph::TaskId;

use super::super::events::{Action, Cause, OutputId, QueryId, WorkerId};
use super::planted::PlantedBug;
use super::query::{Context, Query, Running};
use super::stage::{ANYWHERE, Phase};
use super::{
    LEASE_MS, RETRY_PAUSE_MS, RETRY_PAUSE_MS_MAX, SPECULATION_AFTER_MS, SPECULATION_TIMES_MEAN, Scheduler,
    WAIT_FOR_WORKERS_MS,
};

impl Scheduler {
    pub(super) fn ticked(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let now_ms = now_ms.max(self.now_ms());
        let passed = now_ms - self.now_ms();
        // The first tick, or this process was not running: signs of life may be waiting to be read.
        if self.now_ms.is_none() || passed >= LEASE_MS {
            self.workers.was_deaf_for(passed);
            for query in self.queries.values_mut() {
                query.was_deaf_for(passed);
            }
        }
        self.now_ms = Some(now_ms);
        for worker in self.workers.silent(now_ms) {
            actions.push(Action::Disconnect { worker });
            self.worker_lost(worker, actions);
        }
        let with_pauses = self.queries.iter().filter(|(_, q)| !q.paused.is_empty());
        for id in with_pauses.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.with_query(id, actions, |q, cx| q.end_pauses(cx));
        }
        self.abandon_those_without_workers(now_ms, actions);
        self.workers.evacuate_again();
        self.speculate(actions);
    }

    fn abandon_those_without_workers(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(since_ms) = self.workers.nobody_since_ms() else { return };
        let in_vain = |(_, q): &(&QueryId, &Query)| {
            q.has_ready(ANYWHERE) && now_ms - since_ms.max(q.submitted_ms) >= WAIT_FOR_WORKERS_MS
        };
        let in_vain: Vec<QueryId> = self.queries.iter().filter(in_vain).map(|(id, _)| *id).collect();
        for id in in_vain {
            self.with_query(id, actions, |q, cx| q.stop(Cause::NoWorkers, cx));
        }
    }

    /// Runs tasks that take much longer than others of their stage a second time, where slots are free that
    /// nobody else wants.
    fn speculate(&mut self, actions: &mut Vec<Action>) {
        if !self.workers.any_free() || !self.runnable[ANYWHERE].is_empty() {
            return;
        }
        for id in self.query_ids() {
            let mut stragglers = vec![];
            self.with_query(id, actions, |q, cx| stragglers = q.stragglers(cx));
            for (task, runs_on) in stragglers {
                let query = &self.queries[&id];
                let failed_on = query.histories.get(&task).map_or(&[][..], |h| &h.failed_on);
                if let Some(worker) = self.workers.free_other(runs_on, failed_on) {
                    self.with_query(id, actions, |q, cx| {
                        q.history(task);
                        q.start(task, worker, cx);
                    });
                }
            }
        }
    }
}

impl Query {
    /// A task that has just failed is not tried again at once, unless another attempt of it runs.
    pub fn pause(&mut self, task: TaskId, cx: &Context) {
        let phase = &mut self.stages[task.stage.0 as usize].phases[task.partition as usize];
        if *phase != Phase::Waiting || !cx.has_clock || cx.has(PlantedBug::RetriesAtOnce) {
            return;
        }
        *phase = Phase::Paused;
        let failures = self.histories.get(&task).map_or(1, |h| h.failures);
        let pause_ms = RETRY_PAUSE_MS << failures.saturating_sub(1).min(RETRY_PAUSE_MS_MAX.ilog2());
        self.paused.insert(task, cx.now_ms + pause_ms.min(RETRY_PAUSE_MS_MAX));
    }

    fn end_pauses(&mut self, cx: &Context) {
        let over = self.paused.extract_if(.., |_, until_ms| *until_ms <= cx.now_ms);
        for task in over.map(|(task, _)| task).collect::<Vec<_>>() {
            self.stages[task.stage.0 as usize].phases[task.partition as usize] = Phase::Waiting;
            self.try_ready(task);
        }
    }

    /// Tasks with one running attempt that takes too long, and where that is.
    fn stragglers(&self, cx: &Context) -> Vec<(TaskId, WorkerId)> {
        if self.stopping.is_some() {
            return vec![];
        }
        let takes_long = |output: &OutputId, running: &Running| {
            let stage = &self.stages[output.task.stage.0 as usize];
            let half_done = stage.runs > 0 && stage.unfinished <= stage.tasks() / 2;
            if running.cancelled || stage.home || !stage.replayable || !half_done {
                return false;
            }
            let mean_ms = stage.run_ms_total / u64::from(stage.runs);
            // What the first attempt has read may be lost by now.
            (stage.has_inputs(output.task.partition) || cx.has(PlantedBug::SpeculatesBlindly))
                && cx.now_ms - running.started_ms > SPECULATION_AFTER_MS.max(SPECULATION_TIMES_MEAN * mean_ms)
                && self.attempts(output.task).count() == 1
        };
        let running = self.running.iter().filter(|(output, running)| takes_long(output, running));
        running.map(|(output, running)| (output.task, running.worker)).collect()
    }

    fn was_deaf_for(&mut self, ms: u64) {
        self.submitted_ms += ms;
        self.running.values_mut().for_each(|r| r.started_ms += ms);
    }
}
