//! Tasks that take much longer than others, and are run a second time.

use super::*;

/// Two of four tasks have taken 100 ms, the third runs on worker 2 and the last on worker 1, both for too long.
fn straggling(stage: StageShape) -> (Script, Vec<Action>) {
    let mut s = Script::cluster(&[1, 1]);
    s.tick(0);
    s.submit(shape(vec![stage]));
    s.tick(100);
    s.finish(output(0, 0, 0), 1);
    s.finish(output(0, 1, 0), 2);
    let mut actions = s.join(3, 1);
    for now_ms in (1000..=SPECULATION_AFTER_MS + 100).step_by(100) {
        (1..=3).for_each(|worker| s.heard(worker));
        actions.extend(s.tick(now_ms));
        assert_eq!(actions, []);
    }
    let actions = s.tick(SPECULATION_AFTER_MS + 101);
    (s, actions)
}

#[test]
fn the_second_attempt_wins() {
    let (mut s, actions) = straggling(stage(4, &[]));
    assert_eq!(runs(&actions), [(0, 2, 1, 3)], "and not the other: no slot is free");
    let cancel = Action::Cancel { query: Q, output: output(0, 2, 0), worker: WorkerId(1) };
    assert_eq!(s.finish(output(0, 2, 1), 3), [cancel]);
    let discard = Action::Discard { query: Q, output: output(0, 2, 0), worker: WorkerId(1) };
    assert_eq!(s.finish(output(0, 2, 0), 1), [discard]);
    assert_eq!(s.finish(output(0, 3, 0), 2), ENDS);
}

#[test]
fn the_second_attempt_loses() {
    let (mut s, _) = straggling(stage(4, &[]));
    let cancel = Action::Cancel { query: Q, output: output(0, 2, 1), worker: WorkerId(3) };
    assert_eq!(s.finish(output(0, 2, 0), 1), [cancel]);
    let answer = [Action::Answer { query: Q }];
    assert_eq!(s.finish(output(0, 3, 0), 2), answer, "an attempt has not ended");
    assert_eq!(s.fail(output(0, 2, 1), 3, Failure::Stopped), [Action::Finish { query: Q }]);
}

#[test]
fn an_answer_does_not_wait_for_what_runs_in_vain() {
    let (mut s, _) = straggling(stage(4, &[]));
    s.finish(output(0, 2, 1), 3);
    assert_eq!(s.finish(output(0, 3, 0), 2), [Action::Answer { query: Q }]);
    // Neither a loss nor a cancellation makes anything run again.
    assert_eq!(s.lost(3), []);
    assert_eq!(s.on(Event::QueryCancelled { query: Q }), []);
    assert_eq!(s.lost(1), [Action::Finish { query: Q }]);
}

#[test]
fn the_second_attempt_takes_over_when_the_first_fails() {
    let (mut s, _) = straggling(stage(4, &[]));
    assert_eq!(s.fail(output(0, 2, 0), 1, Failure::Transient), []);
    assert_eq!(s.finish(output(0, 2, 1), 3), []);
    assert_eq!(s.finish(output(0, 3, 0), 2), ENDS);
}

#[test]
fn what_is_not_replayable_is_not_run_twice_at_a_time() {
    let (_, actions) = straggling(once_only(stage(4, &[])));
    assert_eq!(actions, []);
}

#[test]
fn a_winner_that_is_lost_is_not_replaced_by_the_cancelled() {
    let (mut s, _) = straggling(stage(4, &[]));
    s.finish(output(0, 2, 1), 3);
    assert_eq!(s.lost(3), [], "no slot is free");
    let late = s.finish(output(0, 2, 0), 1);
    assert_eq!(late[0], Action::Discard { query: Q, output: output(0, 2, 0), worker: WorkerId(1) });
    assert_eq!(runs(&late), [(0, 2, 2, 1)]);
}
