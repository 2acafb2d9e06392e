//! Workers that join, leave, fall silent or are not there.

use super::*;

#[test]
fn home_runs_what_must_run_there_and_everything_if_it_is_alone() {
    let graph = || shape(vec![stage(2, &[]), home_stage(&[(0, EdgeKind::Gather)])]);
    let mut alone = Script::cluster(&[]);
    assert_eq!(runs(&alone.submit(graph())), [(0, 0, 0, 0)]);
    let mut s = Script::cluster(&[1]);
    assert_eq!(runs(&s.submit(graph())), [(0, 0, 0, 1)]);
    assert_eq!(runs(&s.finish(output(0, 0, 0), 1)), [(0, 1, 0, 1)]);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 1)), [(1, 0, 0, 0)]);
}

#[test]
fn home_takes_nothing_else_after_another_has_joined() {
    let mut s = Script::cluster(&[]);
    s.submit(shape(vec![stage(3, &[])]));
    assert_eq!(runs(&s.join(1, 1)), [(0, 1, 0, 1)]);
    assert_eq!(s.finish(output(0, 0, 0), 0), []);
    s.lost(1);
    assert_eq!(s.heard(0), ());
    assert_eq!(runs(&s.join(2, 2)), [(0, 1, 1, 2), (0, 2, 0, 2)]);
}

#[test]
fn the_one_with_most_free_slots_goes_first() {
    let mut s = Script::cluster(&[1, 3]);
    let workers: Vec<u32> = runs(&s.submit(shape(vec![stage(4, &[])]))).iter().map(|r| r.3).collect();
    assert_eq!(workers, [2, 2, 1, 2]);
}

#[test]
fn the_silent_are_lost() {
    let mut s = Script::cluster(&[1, 1]);
    s.tick(1_000_000);
    s.submit(shape(vec![stage(1, &[])]));
    s.tick(1_000_000 + LEASE_MS - 1);
    s.heard(2);
    let late = s.tick(1_000_000 + LEASE_MS);
    assert_eq!(late[0], Action::Disconnect { worker: WorkerId(1) });
    assert_eq!(runs(&late), [(0, 0, 1, 2)]);
    assert_eq!(s.finish(output(0, 0, 0), 1), [], "nobody is there to discard it");
}

#[test]
fn a_scheduler_that_was_not_running_does_not_blame_its_workers() {
    let mut s = Script::cluster(&[1]);
    s.tick(0);
    assert_eq!(s.tick(10 * LEASE_MS), []);
    assert_eq!(s.tick(10 * LEASE_MS + 1), []);
}

#[test]
fn a_query_does_not_wait_for_workers_for_ever() {
    let mut s = Script::cluster(&[1]);
    s.tick(0);
    s.lost(1);
    s.submit(shape(vec![stage(1, &[])]));
    for now_ms in (0..WAIT_FOR_WORKERS_MS).step_by(1000) {
        assert_eq!(s.tick(now_ms), []);
    }
    assert_eq!(abandoned(&s.tick(WAIT_FOR_WORKERS_MS)), Some(Cause::NoWorkers));
}

#[test]
fn a_leaving_worker_finishes_and_hands_over() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(shape(vec![stage(3, &[]), home_stage(&[(0, EdgeKind::Gather)])]));
    assert_eq!(s.leaving(1), []);
    assert_eq!(s.leaving(1), []);
    // What it leaves is needed, and so is made again by the other.
    assert_eq!(s.finish(output(0, 0, 0), 1), [Action::Dismiss { worker: WorkerId(1) }]);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 2)), [(0, 0, 1, 2)]);
    assert_eq!(runs(&s.finish(output(0, 0, 1), 2)), [(0, 2, 0, 2)]);
    assert_eq!(s.lost(1), []);
    assert_eq!(runs(&s.finish(output(0, 2, 0), 2)), [(1, 0, 0, 0)]);
}

#[test]
fn a_leaving_worker_stays_while_it_is_read() {
    let mut s = Script::cluster(&[2, 2]);
    let hash = |from| (from, EdgeKind::Hash);
    s.submit(shape(vec![stage(2, &[]), stage(2, &[hash(0)]), home_stage(&[(1, EdgeKind::Gather)])]));
    s.finish(output(0, 0, 0), 1);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 2)), [(1, 0, 0, 1), (1, 1, 0, 2)]);
    assert_eq!(s.leaving(1), []);
    // What it holds is made again for the case that a reader fails; one still reads it on worker 2.
    let made_again = s.finish(output(1, 0, 0), 1);
    assert_eq!(runs(&made_again), [(0, 0, 1, 2)]);
    let dismiss = Action::Dismiss { worker: WorkerId(1) };
    assert!(!made_again.contains(&dismiss));
    assert!(s.finish(output(1, 1, 0), 2).contains(&dismiss));
}

#[test]
fn the_last_worker_stays_while_it_is_needed() {
    let mut s = Script::cluster(&[2]);
    s.submit(shape(vec![stage(2, &[]), home_stage(&[(0, EdgeKind::Gather)])]));
    s.leaving(1);
    s.finish(output(0, 0, 0), 1);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 1)), [(1, 0, 0, 0)]);
    let end = s.finish(output(1, 0, 0), 0);
    assert_eq!(end[1..3], ENDS);
    assert_eq!(end[3..], [Action::Dismiss { worker: WorkerId(1) }]);
}

#[test]
fn what_cannot_be_made_again_keeps_a_leaving_worker() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(shape(vec![once_only(stage(2, &[])), home_stage(&[(0, EdgeKind::Gather)])]));
    s.finish(output(0, 0, 0), 1);
    assert_eq!(runs(&s.finish(output(0, 1, 0), 2)), [(1, 0, 0, 0)]);
    assert_eq!(s.leaving(1), []);
    assert_eq!(s.tick(1), []);
    let end = s.finish(output(1, 0, 0), 0);
    assert_eq!(end.last(), Some(&Action::Dismiss { worker: WorkerId(1) }));
}

#[test]
fn an_idle_worker_may_leave_at_once() {
    let mut s = Script::cluster(&[1]);
    assert_eq!(s.leaving(1), [Action::Dismiss { worker: WorkerId(1) }]);
    assert_eq!(s.tick(1), []);
    assert_eq!(s.leaving(7), [], "it is not there");
}
