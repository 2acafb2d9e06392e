//! What goes wrong in one schedule: chances and budgets, drawn from its seed. Many seeds have few faults, some
//! have all of them.

use super::super::events::{Event, WorkerId};
use super::rng::Rng;
use super::worker::Key;
use super::world::{Happening, World};

pub struct Faults {
    /// Chances of an attempt, in percent.
    pub transient: u64,
    pub fatal: u64,
    /// It takes much longer than others.
    pub slow: u64,
    /// It ends as if it had not been told to stop.
    pub ignores_cancel: u64,
    /// Of a message: it comes twice, or very late.
    pub doubled: u64,
    pub late: u64,
    /// Of a reader: it cannot reach an output that is there. So often in all.
    pub unreachable: u64,
    pub unreachable_left: u32,
    /// Whether workers that are gone are replaced.
    pub replaced: bool,
    /// Of a query: it is cancelled.
    pub cancelled: u64,
    pub blows: Vec<(u64, Blow)>,
}

/// Something that happens to the cluster at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// A worker's process dies with everything that it has.
    Kill,
    /// A worker does nothing for a while, then goes on as if nothing had been.
    Hang {
        ms: u64,
    },
    Leave,
    /// A worker's disk loses an output.
    LoseOutput,
    Join,
    /// The connection between a worker and the scheduler is cut.
    Cut,
    /// The scheduler's process dies, and comes back with its log.
    SchedulerDies,
}

impl Faults {
    pub fn of(rng: &mut Rng) -> Self {
        let often = |rng: &mut Rng, chances: &[u64]| rng.pick(chances);
        let mut blows = vec![];
        for _ in 0..rng.pick(&[0, 1, 2, 3, 5, 9]) {
            let blow = match rng.below(9) {
                0 | 1 => Blow::Kill,
                2 => Blow::Hang { ms: rng.within(200..9_000) },
                3 => Blow::Leave,
                4 | 5 => Blow::LoseOutput,
                6 => Blow::Join,
                7 => Blow::Cut,
                _ => Blow::SchedulerDies,
            };
            blows.push((rng.below(6_000), blow));
        }
        Faults {
            transient: often(rng, &[0, 0, 3, 12, 40]),
            fatal: often(rng, &[0, 0, 0, 0, 2]),
            slow: often(rng, &[0, 2, 6]),
            ignores_cancel: often(rng, &[0, 50, 100]),
            doubled: often(rng, &[0, 10, 40]),
            late: often(rng, &[0, 2, 10]),
            unreachable: often(rng, &[0, 0, 3]),
            unreachable_left: 6,
            replaced: !rng.percent(5),
            cancelled: often(rng, &[0, 0, 0, 20]),
            blows,
        }
    }
}

impl World {
    pub(super) fn strikes(&mut self, blow: Blow) {
        match blow {
            Blow::Join => return self.join(),
            Blow::SchedulerDies => return self.scheduler_dies(),
            Blow::Kill | Blow::Hang { .. } | Blow::Leave | Blow::LoseOutput | Blow::Cut => {}
        }
        let others = self.workers.iter().filter(|(_, w)| w.alive && w.linked && !w.home);
        let others: Vec<WorkerId> = others.map(|(id, _)| *id).collect();
        if others.is_empty() {
            return;
        }
        let worker = self.rng.pick(&others);
        match blow {
            Blow::Join | Blow::SchedulerDies => {}
            Blow::Kill => {
                self.dies(worker);
                // The connection is reset, or nobody is there to do so and its lease runs out.
                if self.rng.percent(70) {
                    let at_ms = self.now_ms + self.rng.within(1..300);
                    self.plan(at_ms, Happening::Closed(worker));
                }
            }
            Blow::Hang { ms } => self.worker(worker).hung_until_ms = self.now_ms + ms,
            Blow::Leave => {
                self.worker(worker).leaving = true;
                self.send(worker, Event::WorkerLeaving { worker });
                self.replace();
            }
            Blow::LoseOutput => {
                let outputs: Vec<Key> = self.workers[&worker].outputs.keys().copied().collect();
                if !outputs.is_empty() {
                    let lost = self.rng.pick(&outputs);
                    self.worker(worker).outputs.remove(&lost);
                }
            }
            Blow::Cut => {
                let (here_ms, there_ms) = (self.rng.within(1..3_000), self.rng.within(1..3_000));
                self.plan(self.now_ms + here_ms, Happening::Closed(worker));
                self.plan(self.now_ms + there_ms, Happening::CutOff(worker));
            }
        }
    }

    /// A worker's process is gone. Mostly there is another in its place soon.
    pub(super) fn dies(&mut self, worker: WorkerId) {
        if self.workers[&worker].alive {
            self.worker(worker).dies();
            self.replace();
        }
    }

    pub(super) fn replace(&mut self) {
        if self.faults.replaced {
            let at_ms = self.now_ms + self.rng.within(50..4_000);
            self.plan(at_ms, Happening::Strikes(Blow::Join));
        }
    }
}
