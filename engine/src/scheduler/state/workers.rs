//! The workers: what they run and hold, which of them gets a task, and which may go.
//!
//! What always holds: a worker is given no attempt beyond its slots; one that is leaving gets no more; tasks
//! that run anywhere go to the home worker only if no other worker has ever joined.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::super::events::{OutputId, QueryId, WorkerId};
use super::LEASE_MS;

#[derive(Debug, Default)]
pub struct Workers {
    all: BTreeMap<WorkerId, Worker>,
    /// Those with free slots that take tasks that run anywhere; the one with the most comes first.
    free: BTreeSet<(Reverse<u32>, WorkerId)>,
    home: Option<WorkerId>,
    others_have_joined: bool,
    /// Those that are leaving and were not told yet to go.
    leaving: BTreeSet<WorkerId>,
    /// When the last other worker joined or went: if there is none that takes tasks, since when.
    without_others_since_ms: u64,
}

#[derive(Debug)]
struct Worker {
    slots: u32,
    running: u32,
    /// Outputs of queries that have not ended.
    held: u32,
    home: bool,
    leaving: bool,
    /// Of one that is leaving: what it holds is being made elsewhere, as far as possible.
    evacuated: bool,
    /// Of one that is leaving: attempts that read what it holds.
    readers: BTreeSet<(QueryId, OutputId)>,
    heard_ms: u64,
}

/// Where a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    To(WorkerId),
    /// Not to any worker that has a free slot: it has failed on all of them, and there are others.
    Later,
}

impl Workers {
    pub fn joined(&mut self, worker: WorkerId, slots: u32, home: bool, now_ms: u64) {
        let new = Worker {
            slots,
            running: 0,
            held: 0,
            home,
            leaving: false,
            evacuated: false,
            readers: BTreeSet::new(),
            heard_ms: now_ms,
        };
        let before = self.all.insert(worker, new);
        assert!(before.is_none(), "worker {} has joined twice", worker.0);
        if home {
            assert!(self.home.is_none(), "worker {} is a second home", worker.0);
            self.home = Some(worker);
        } else {
            self.others_have_joined = true;
            // From now on home only runs what must run there.
            self.home.into_iter().for_each(|home| self.note_free(home));
            self.evacuate_again();
            self.without_others_since_ms = now_ms;
        }
        self.note_free(worker);
    }

    pub fn set_slots(&mut self, id: WorkerId, slots: u32) {
        if self.is_there(id) {
            self.change(id, |worker| worker.slots = slots);
        }
    }

    /// There were others before this process began: home only runs what must run there.
    pub fn expect_others(&mut self, now_ms: u64) {
        if !std::mem::replace(&mut self.others_have_joined, true) {
            self.home.into_iter().for_each(|home| self.note_free(home));
            self.without_others_since_ms = now_ms;
        }
    }

    /// Whether it could run one attempt more.
    pub fn has_slot(&self, worker: WorkerId) -> bool {
        self.all.get(&worker).is_some_and(|w| w.free() > 0)
    }

    pub fn heard(&mut self, worker: WorkerId, now_ms: u64) {
        if let Some(worker) = self.all.get_mut(&worker) {
            worker.heard_ms = now_ms;
        }
    }

    pub fn leaving(&mut self, id: WorkerId, now_ms: u64) {
        let Some(worker) = self.all.get_mut(&id) else { return };
        // Home is the scheduler's own process: it goes with it.
        if !worker.leaving && !worker.home {
            worker.leaving = true;
            self.leaving.insert(id);
            self.note_free(id);
            self.without_others_since_ms = now_ms;
        }
    }

    /// Whether one is leaving that was not told yet to go.
    pub fn any_is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// If the worker is leaving, it is not to go before the reader has ended.
    pub fn is_read_by(&mut self, worker: WorkerId, reader: (QueryId, OutputId)) {
        if self.leaving.contains(&worker) {
            let worker = self.all.get_mut(&worker).expect("invariant: leaving workers are there");
            worker.readers.insert(reader);
        }
    }

    /// An attempt has ended, or its result is not wanted any more.
    pub fn reads_no_more(&mut self, reader: (QueryId, OutputId)) {
        for leaving in &self.leaving {
            let worker = self.all.get_mut(leaving).expect("invariant: leaving workers are there");
            worker.readers.remove(&reader);
        }
    }

    /// Forgets a worker. Says whether it was there.
    pub fn lost(&mut self, id: WorkerId, now_ms: u64) -> bool {
        let Some(worker) = self.all.remove(&id) else { return false };
        self.free.remove(&(Reverse(worker.free()), id));
        self.leaving.remove(&id);
        self.home = self.home.filter(|home| *home != id);
        if !worker.home && !worker.leaving {
            self.without_others_since_ms = now_ms;
        }
        true
    }

    pub fn is_there(&self, worker: WorkerId) -> bool {
        self.all.contains_key(&worker)
    }

    pub fn started(&mut self, id: WorkerId) {
        self.change(id, |worker| worker.running += 1);
    }

    pub fn ended(&mut self, id: WorkerId) {
        self.change(id, |worker| worker.running -= 1);
    }

    pub fn holds(&mut self, worker: WorkerId) {
        if let Some(worker) = self.all.get_mut(&worker) {
            worker.held += 1;
        }
    }

    pub fn drops(&mut self, worker: WorkerId) {
        if let Some(worker) = self.all.get_mut(&worker) {
            worker.held -= 1;
        }
    }

    /// The home worker, if it has a free slot.
    pub fn free_home(&self) -> Option<WorkerId> {
        self.home.filter(|home| self.all[home].free() > 0)
    }

    /// Whether a worker with a free slot takes tasks that run anywhere.
    pub fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// A worker for a task that runs anywhere, if any has a free slot: one that holds what it reads, one on which
    /// it has not failed, the one with the most free slots.
    pub fn choose(&self, holders: impl Iterator<Item = WorkerId>, failed_on: &[WorkerId]) -> Option<Choice> {
        let &(_, first) = self.free.first()?;
        let fits = |id: WorkerId| self.is_free(id) && !failed_on.contains(&id);
        if self.free.len() > 1
            && let Some(holder) = holders.into_iter().find(|&id| fits(id))
        {
            return Some(Choice::To(holder));
        }
        if failed_on.is_empty() {
            return Some(Choice::To(first));
        }
        if let Some(&(_, other)) = self.free.iter().find(|(_, id)| !failed_on.contains(id)) {
            return Some(Choice::To(other));
        }
        let could =
            |id: &WorkerId, w: &Worker| self.takes_anything(w) && w.slots > 0 && !failed_on.contains(id);
        let others = self.all.iter().any(|(id, w)| could(id, w));
        Some(if others { Choice::Later } else { Choice::To(first) })
    }

    /// A worker with a free slot other than this one.
    pub fn free_other(&self, than: WorkerId, failed_on: &[WorkerId]) -> Option<WorkerId> {
        self.free.iter().map(|(_, id)| *id).find(|id| *id != than && !failed_on.contains(id))
    }

    /// Since when nobody has been there who takes tasks that run anywhere.
    pub fn nobody_since_ms(&self) -> Option<u64> {
        let somebody = self.all.values().any(|w| self.takes_anything(w));
        (!somebody).then_some(self.without_others_since_ms)
    }

    /// The workers other than home that have been silent for too long.
    pub fn silent(&self, now_ms: u64) -> Vec<WorkerId> {
        let silent = |w: &Worker| !w.home && now_ms - w.heard_ms >= LEASE_MS;
        self.all.iter().filter(|(_, w)| silent(w)).map(|(id, _)| *id).collect()
    }

    /// So much time has passed that nobody could be heard: it does not count for their silence.
    pub fn was_deaf_for(&mut self, ms: u64) {
        self.all.values_mut().for_each(|w| w.heard_ms += ms);
        self.without_others_since_ms += ms;
    }

    /// Leaving workers that run nothing, and whose outputs have to be made elsewhere before they may go. If there
    /// is nobody who could, they stay.
    pub fn take_evacuable(&mut self) -> Vec<WorkerId> {
        if self.leaving.is_empty() || self.nobody_since_ms().is_some() {
            return vec![];
        }
        let mut ready = vec![];
        for &id in &self.leaving {
            let worker = self.all.get_mut(&id).expect("invariant: leaving workers are there");
            if worker.running == 0 && worker.held > 0 && !worker.evacuated {
                worker.evacuated = true;
                ready.push(id);
            }
        }
        ready
    }

    /// What could not be made elsewhere may be possible now.
    pub fn evacuate_again(&mut self) {
        for leaving in &self.leaving {
            self.all.get_mut(leaving).expect("invariant: leaving workers are there").evacuated = false;
        }
    }

    /// Takes the leaving workers that nobody needs any more.
    pub fn take_unneeded(&mut self) -> Vec<WorkerId> {
        if self.leaving.is_empty() {
            return vec![];
        }
        let is_unneeded = |w: &Worker| w.running == 0 && w.held == 0 && w.readers.is_empty();
        let unneeded = |id: &&WorkerId| is_unneeded(&self.all[*id]);
        let unneeded: Vec<WorkerId> = self.leaving.iter().filter(unneeded).copied().collect();
        unneeded.iter().for_each(|id| {
            self.leaving.remove(id);
        });
        unneeded
    }

    /// Runs and holds, by worker.
    #[cfg(test)]
    pub fn loads(&self) -> BTreeMap<WorkerId, (u32, u32)> {
        let free = self.all.iter().filter(|(_, w)| self.takes_anything(w) && w.free() > 0);
        let free: BTreeSet<_> = free.map(|(id, w)| (Reverse(w.free()), *id)).collect();
        assert_eq!(free, self.free, "workers with free slots");
        assert!(self.all.values().all(|w| w.running <= w.slots));
        self.all.iter().map(|(id, w)| (*id, (w.running, w.held))).collect()
    }

    fn takes_anything(&self, worker: &Worker) -> bool {
        worker.takes_anything(self.others_have_joined)
    }

    fn is_free(&self, id: WorkerId) -> bool {
        self.all.get(&id).is_some_and(|w| self.free.contains(&(Reverse(w.free()), id)))
    }

    fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let worker = self.all.get_mut(&id).expect("invariant: attempts run on workers that are there");
        let before = worker.free();
        change(worker);
        let after = worker.free();
        if worker.takes_anything(self.others_have_joined) {
            self.free.remove(&(Reverse(before), id));
            if after > 0 {
                self.free.insert((Reverse(after), id));
            }
        }
    }

    /// A worker takes tasks from now on, or does not any more.
    fn note_free(&mut self, id: WorkerId) {
        let worker = &self.all[&id];
        let entry = (Reverse(worker.free()), id);
        if self.takes_anything(worker) && worker.free() > 0 {
            self.free.insert(entry);
        } else {
            self.free.remove(&entry);
        }
    }
}

impl Worker {
    /// Whether it is given tasks that run anywhere.
    fn takes_anything(&self, others_have_joined: bool) -> bool {
        let only_home = self.home && others_have_joined;
        !self.leaving && !only_home
    }

    fn free(&self) -> u32 {
        // Slots may have been taken away.
        self.slots.saturating_sub(self.running)
    }
}
