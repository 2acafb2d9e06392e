//! Queries of a scheduler that has died, taken up by another.

use super::super::super::events::Restored;
use super::*;

/// Above what was used before.
const FIRST: u32 = 100;

/// Stage 0 on two tasks, read by stage 1, read at home.
fn chain(first: StageShape) -> GraphShape {
    shape(vec![first, stage(2, &[(0, EdgeKind::Hash)]), home_stage(&[(1, EdgeKind::Gather)])])
}

fn on(worker: u32, outputs: &[OutputId]) -> Vec<(OutputId, WorkerId)> {
    outputs.iter().map(|output| (*output, WorkerId(worker))).collect()
}

fn restored(shape: GraphShape, recorded: &[OutputId], held: Vec<(OutputId, WorkerId)>) -> Restored {
    let first_attempt = Attempt(FIRST);
    Restored { shape, first_attempt, recorded: recorded.to_vec(), held, running: vec![] }
}

impl Script {
    fn restore(&mut self, restored: Restored) -> Vec<Action> {
        self.on(Event::QueryRestored { query: Q, restored: Box::new(restored) })
    }
}

#[test]
fn a_query_of_which_nothing_is_left_runs_from_its_beginning() {
    let mut s = Script::cluster(&[2]);
    let actions = s.restore(restored(chain(stage(2, &[])), &[output(0, 0, 0)], vec![]));
    assert_eq!(runs(&actions), [(0, 0, FIRST, 1), (0, 1, FIRST, 1)]);
}

#[test]
fn what_is_there_does_not_run_again_nor_what_it_was_made_of() {
    let mut s = Script::cluster(&[2]);
    // Stage 0 was released when stage 1 had finished.
    let recorded = [output(0, 0, 0), output(0, 1, 0), output(1, 0, 0), output(1, 1, 0)];
    let held = on(1, &recorded[2..]);
    let actions = s.restore(restored(chain(stage(2, &[])), &recorded, held));
    assert_eq!(runs(&actions), [(2, 0, FIRST, 0)]);
    assert!(s.finish(output(2, 0, FIRST), 0).contains(&Action::Finish { query: Q }));
}

#[test]
fn what_is_missing_runs_again_with_what_it_reads() {
    let mut s = Script::cluster(&[4]);
    let recorded = [output(0, 0, 0), output(0, 1, 0), output(1, 0, 0), output(1, 1, 0)];
    let actions = s.restore(restored(chain(stage(2, &[])), &recorded, on(1, &recorded[2..3])));
    assert_eq!(runs(&actions), [(0, 0, FIRST, 1), (0, 1, FIRST, 1)]);
    s.finish(output(0, 0, FIRST), 1);
    assert_eq!(started(&s.finish(output(0, 1, FIRST), 1)), [(1, 1)]);
}

#[test]
fn what_nobody_will_read_is_released() {
    let mut s = Script::cluster(&[1]);
    let recorded = [output(0, 0, 0), output(0, 1, 0), output(1, 0, 0), output(1, 1, 0)];
    let actions = s.restore(restored(chain(stage(2, &[])), &recorded, on(1, &recorded)));
    assert!(actions.contains(&Action::Release { query: Q, stage: StageId(0) }));
    assert_eq!(runs(&actions), [(2, 0, FIRST, 0)]);
}

#[test]
fn running_attempts_go_on_if_what_they_read_is_there() {
    let mut s = Script::cluster(&[2, 2]);
    let recorded = [output(0, 0, 0), output(0, 1, 0)];
    let mut all = restored(chain(stage(2, &[])), &recorded, on(1, &recorded));
    all.running = on(2, &[output(1, 0, 0)]);
    assert_eq!(started(&s.restore(all)), [(1, 1)]);
    assert!(s.scheduler.is_wanted(Q, output(1, 0, 0), WorkerId(2)));
    s.finish(output(1, 0, 0), 2);
    assert_eq!(started(&s.finish(output(1, 1, FIRST), 1)), [(2, 0)]);
}

#[test]
fn running_attempts_that_are_not_needed_are_stopped() {
    let mut s = Script::cluster(&[2]);
    let recorded = [output(1, 0, 0), output(1, 1, 0)];
    let mut all = restored(chain(stage(2, &[])), &recorded, on(1, &recorded));
    let second = output(1, 0, 1);
    all.running = on(1, &[second]);
    let actions = s.restore(all);
    assert!(actions.contains(&Action::Cancel { query: Q, output: second, worker: WorkerId(1) }));
    let discard = Action::Discard { query: Q, output: second, worker: WorkerId(1) };
    assert_eq!(s.finish(second, 1), [discard]);
}

#[test]
fn the_log_says_which_of_two_outputs_counts() {
    let mut s = Script::cluster(&[1, 1]);
    let recorded = [output(0, 0, 1), output(0, 1, 0)];
    let held = [on(1, &[output(0, 0, 0), output(0, 1, 0)]), on(2, &[output(0, 0, 1)])].concat();
    let actions = s.restore(restored(chain(once_only(stage(2, &[]))), &recorded, held));
    let discard = Action::Discard { query: Q, output: output(0, 0, 0), worker: WorkerId(1) };
    assert!(actions.contains(&discard));
    assert_eq!(started(&actions), [(1, 0), (1, 1)]);
    assert_eq!(s.scheduler.output(Q, task(0, 0)), Some((Attempt(1), WorkerId(2))));
}

#[test]
fn what_the_log_does_not_know_counts_only_if_there_is_one_version_of_it() {
    let held = || on(1, &[output(0, 0, 0), output(0, 1, 0)]);
    let mut s = Script::cluster(&[4]);
    assert_eq!(started(&s.restore(restored(chain(stage(2, &[])), &[], held()))), [(1, 0), (1, 1)]);
    let mut s = Script::cluster(&[4]);
    let actions = s.restore(restored(chain(once_only(stage(2, &[]))), &[], held()));
    assert_eq!(started(&actions), [(0, 0), (0, 1)]);
}

#[test]
fn what_was_read_and_cannot_be_made_again_begins_the_query_anew() {
    let mut s = Script::cluster(&[4]);
    let recorded = [output(0, 0, 0), output(0, 1, 0), output(1, 0, 0)];
    let held = on(1, &[output(0, 0, 0), output(1, 0, 0)]);
    let actions = s.restore(restored(chain(once_only(stage(2, &[]))), &recorded, held));
    assert_eq!(abandoned(&actions), Some(Cause::NotReplayable { task: task(0, 1) }));
}

#[test]
fn a_restored_query_waits_for_workers() {
    let mut s = Script::cluster(&[]);
    s.tick(0);
    assert_eq!(runs(&s.restore(restored(chain(stage(2, &[])), &[], vec![]))), []);
    assert_eq!(started(&s.join(1, 2)), [(0, 0), (0, 1)]);
    s.lost(1);
    let waits =
        (1_000..WAIT_FOR_WORKERS_MS).step_by(1_000).all(|now_ms| abandoned(&s.tick(now_ms)).is_none());
    assert!(waits);
    assert_eq!(abandoned(&s.tick(WAIT_FOR_WORKERS_MS)), Some(Cause::NoWorkers));
}
