//! Attempts that fail, and reports that come late, doubled or from nowhere.

use super::*;

fn two_workers() -> Script {
    Script::cluster(&[1, 1])
}

#[test]
fn a_transient_failure_is_tried_elsewhere() {
    let mut s = two_workers();
    assert_eq!(runs(&s.submit(shape(vec![stage(1, &[])]))), [(0, 0, 0, 1)]);
    assert_eq!(runs(&s.fail(output(0, 0, 0), 1, Failure::Transient)), [(0, 0, 1, 2)]);
    assert_eq!(s.finish(output(0, 0, 1), 2), ENDS);
}

#[test]
fn a_failed_task_is_tried_again_after_a_pause_that_grows() {
    let mut s = two_workers();
    s.tick(1_000);
    s.submit(shape(vec![stage(1, &[])]));
    assert_eq!(s.fail(output(0, 0, 0), 1, Failure::Transient), []);
    assert_eq!(s.tick(1_000 + RETRY_PAUSE_MS - 1), []);
    assert_eq!(runs(&s.tick(1_000 + RETRY_PAUSE_MS)), [(0, 0, 1, 2)]);
    assert_eq!(s.fail(output(0, 0, 1), 2, Failure::Transient), []);
    assert_eq!(s.tick(1_000 + 3 * RETRY_PAUSE_MS - 1), []);
    assert_eq!(runs(&s.tick(1_000 + 3 * RETRY_PAUSE_MS)), [(0, 0, 2, 1)]);
    assert_eq!(s.finish(output(0, 0, 2), 1), ENDS);
}

#[test]
fn what_a_paused_task_reads_may_be_lost_meanwhile() {
    let mut s = Script::cluster(&[1, 1]);
    s.tick(1);
    s.submit(shape(vec![stage(1, &[]), stage(1, &[(0, EdgeKind::Hash)])]));
    assert_eq!(runs(&s.finish(output(0, 0, 0), 1)), [(1, 0, 0, 1)]);
    assert_eq!(s.fail(output(1, 0, 0), 1, Failure::Transient), []);
    assert_eq!(runs(&s.lost(1)), [(0, 0, 1, 2)]);
    s.heard(2);
    assert_eq!(s.tick(1 + RETRY_PAUSE_MS), [], "its input is not there");
    assert_eq!(runs(&s.finish(output(0, 0, 1), 2)), [(1, 0, 1, 2)]);
}

#[test]
fn a_task_waits_for_a_worker_on_which_it_has_not_failed() {
    let mut s = two_workers();
    assert_eq!(runs(&s.submit(shape(vec![stage(2, &[])]))), [(0, 0, 0, 1), (0, 1, 0, 2)]);
    assert_eq!(s.fail(output(0, 0, 0), 1, Failure::Transient), []);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 2)), [(0, 0, 1, 2)]);
}

#[test]
fn a_task_that_fails_too_often_is_given_up() {
    let mut s = Script::cluster(&[1]);
    s.submit(shape(vec![stage(1, &[])]));
    for attempt in 0..ATTEMPTS_MAX - 1 {
        let again = s.fail(output(0, 0, attempt), 1, Failure::Transient);
        assert_eq!(runs(&again), [(0, 0, attempt + 1, 1)]);
    }
    let last = s.fail(output(0, 0, ATTEMPTS_MAX - 1), 1, Failure::Transient);
    assert_eq!(abandoned(&last), Some(Cause::GivenUp { task: task(0, 0), attempts: ATTEMPTS_MAX }));
}

#[test]
fn stopping_without_being_told_to_is_a_failure() {
    let mut s = two_workers();
    s.submit(shape(vec![stage(1, &[])]));
    assert_eq!(runs(&s.fail(output(0, 0, 0), 1, Failure::Stopped)), [(0, 0, 1, 2)]);
}

#[test]
fn a_second_report_changes_nothing() {
    let mut s = two_workers();
    s.submit(shape(vec![stage(2, &[]), stage(1, &[(0, EdgeKind::Gather)])]));
    assert_eq!(s.finish(output(0, 0, 0), 1), []);
    assert_eq!(s.finish(output(0, 0, 0), 1), []);
    assert_eq!(s.fail(output(0, 0, 0), 1, Failure::Fatal), []);
    assert_eq!(started(&s.finish(output(0, 1, 0), 2)), [(1, 0)]);
}

#[test]
fn what_nobody_asked_for_is_discarded() {
    let mut s = two_workers();
    s.submit(shape(vec![stage(1, &[])]));
    let discard = |output, worker| Action::Discard { query: Q, output, worker: WorkerId(worker) };
    // An attempt that never was, of a task that never was; and one that runs elsewhere.
    assert_eq!(s.finish(output(0, 0, 7), 1), [discard(output(0, 0, 7), 1)]);
    assert_eq!(s.finish(output(9, 9, 0), 1), [discard(output(9, 9, 0), 1)]);
    assert_eq!(s.finish(output(0, 0, 0), 2), [discard(output(0, 0, 0), 2)]);
    assert_eq!(s.finish(output(0, 0, 0), 5), [], "of a worker that is not there");
    assert_eq!(s.finish(output(0, 0, 0), 1), ENDS);
    assert_eq!(s.finish(output(0, 0, 0), 1), [discard(output(0, 0, 0), 1)], "of a query that has ended");
}

#[test]
fn only_what_runs_is_wanted() {
    let mut s = two_workers();
    s.submit(shape(vec![stage(1, &[])]));
    assert!(s.scheduler.is_wanted(Q, output(0, 0, 0), WorkerId(1)));
    assert!(!s.scheduler.is_wanted(Q, output(0, 0, 0), WorkerId(2)));
    assert!(!s.scheduler.is_wanted(Q, output(0, 0, 1), WorkerId(1)));
}

#[test]
fn a_worker_on_which_everything_fails_gets_nothing_more() {
    let mut s = two_workers();
    let mut next = runs(&s.submit(shape(vec![stage(100, &[])])));
    assert_eq!(next.pop(), Some((0, 1, 0, 2)), "which takes its time");
    let mut failed = 0;
    while let Some((stage, partition, attempt, worker)) = next.pop() {
        next = runs(&s.fail(output(stage, partition, attempt), worker, Failure::Transient));
        failed += 1;
    }
    assert_eq!(failed, 16);
    let after = runs(&s.finish(output(0, 1, 0), 2));
    assert_eq!(after[0], (0, 0, 1, 2), "what has failed goes to the other");
}
