//! Outputs and workers that are lost, and what is run again.

use super::*;

/// Stage 0 on worker 1 and 2, read by stage 1, read at home.
fn chain(first: StageShape) -> GraphShape {
    shape(vec![first, stage(2, &[(0, EdgeKind::Hash)]), home_stage(&[(1, EdgeKind::Gather)])])
}

#[test]
fn a_lost_output_is_made_again_and_its_reader_waits() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(chain(stage(2, &[])));
    s.finish(output(0, 0, 0), 1);
    assert_eq!(started(&s.finish(output(0, 1, 0), 2)), [(1, 0), (1, 1)]);
    let lost = Failure::InputLost(vec![output(0, 1, 0)]);
    assert_eq!(runs(&s.fail(output(1, 0, 0), 1, lost)), [(0, 1, 1, 1)]);
    assert_eq!(runs(&s.finish(output(0, 1, 1), 1)), [(1, 0, 1, 1)]);
    s.finish(output(1, 0, 1), 1);
    let last = s.finish(output(1, 1, 0), 2);
    assert_eq!(last[0], Action::Release { query: Q, stage: StageId(0) });
    assert_eq!(runs(&last), [(2, 0, 0, 0)]);
}

#[test]
fn what_was_made_again_already_is_not_lost_twice() {
    let mut s = Script::cluster(&[2, 2]);
    s.submit(chain(stage(2, &[])));
    s.finish(output(0, 0, 0), 1);
    s.finish(output(0, 1, 0), 2);
    let lost = || Failure::InputLost(vec![output(0, 1, 0)]);
    assert_eq!(runs(&s.fail(output(1, 0, 0), 1, lost())), [(0, 1, 1, 1)]);
    assert_eq!(s.fail(output(1, 1, 0), 2, lost()), []);
    assert_eq!(started(&s.finish(output(0, 1, 1), 1)), [(1, 0), (1, 1)]);
}

#[test]
fn a_lost_worker_takes_released_inputs_back_up_the_lineage() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(chain(stage(2, &[])));
    s.finish(output(0, 0, 0), 1);
    s.finish(output(0, 1, 0), 2);
    s.finish(output(1, 0, 0), 1);
    // Stage 0 is released with this.
    let home = s.finish(output(1, 1, 0), 2);
    assert_eq!(runs(&home), [(2, 0, 0, 0)]);
    assert_eq!(runs(&s.lost(2)), [(0, 0, 1, 1)]);
    assert_eq!(runs(&s.finish(output(0, 0, 1), 1)), [(0, 1, 1, 1)]);
    assert_eq!(runs(&s.finish(output(0, 1, 1), 1)), [(1, 1, 1, 1)]);
    let remade = s.finish(output(1, 1, 1), 1);
    assert_eq!(remade, [Action::Release { query: Q, stage: StageId(0) }]);
    assert!(s.finish(output(2, 0, 0), 0).contains(&Action::Finish { query: Q }));
}

#[test]
fn what_is_not_needed_any_more_is_not_made_to_its_end() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(chain(stage(2, &[])));
    s.finish(output(0, 0, 0), 1);
    s.finish(output(0, 1, 0), 2);
    s.finish(output(1, 0, 0), 1);
    s.finish(output(1, 1, 0), 2);
    s.lost(2);
    // Home had read everything: the remaking is for nothing.
    let end = s.finish(output(2, 0, 0), 0);
    assert_eq!(
        end,
        [
            Action::Release { query: Q, stage: StageId(1) },
            Action::Release { query: Q, stage: StageId(0) },
            Action::Cancel { query: Q, output: output(0, 0, 1), worker: WorkerId(1) },
            Action::Answer { query: Q },
        ]
    );
    assert_eq!(s.fail(output(0, 0, 1), 1, Failure::Stopped), [Action::Finish { query: Q }]);
}

#[test]
fn a_lost_output_that_nobody_needs_stays_lost() {
    let mut s = Script::cluster(&[2, 2]);
    let forward = stage(2, &[(0, EdgeKind::Forward)]);
    s.submit(shape(vec![stage(2, &[]), forward, home_stage(&[(1, EdgeKind::Gather)])]));
    assert_eq!(runs(&s.finish(output(0, 1, 0), 2)), [(1, 1, 0, 2)], "where its input is");
    s.finish(output(1, 1, 0), 2);
    let lost = Failure::InputLost(vec![output(0, 1, 0)]);
    assert_eq!(runs(&s.fail(output(0, 0, 0), 1, lost)), [(0, 0, 1, 1)], "and nothing else");
}

#[test]
fn attempts_on_a_lost_worker_are_no_failures() {
    let mut s = Script::cluster(&[1]);
    s.submit(shape(vec![stage(1, &[])]));
    for round in 0..LOSSES_MAX {
        assert_eq!(s.lost(round + 1), []);
        assert_eq!(runs(&s.join(round + 2, 1)), [(0, 0, round + 1, round + 2)]);
    }
    let last = s.lost(LOSSES_MAX + 1);
    assert_eq!(abandoned(&last), Some(Cause::GivenUp { task: task(0, 0), attempts: LOSSES_MAX + 1 }));
}

#[test]
fn inputs_that_are_lost_again_and_again_are_given_up() {
    let mut s = Script::cluster(&[1]);
    s.submit(shape(vec![stage(1, &[])]));
    for attempt in 0..LOSSES_MAX {
        let again = s.fail(output(0, 0, attempt), 1, Failure::InputLost(vec![]));
        assert_eq!(runs(&again), [(0, 0, attempt + 1, 1)]);
    }
    let last = s.fail(output(0, 0, LOSSES_MAX), 1, Failure::InputLost(vec![]));
    assert!(matches!(abandoned(&last), Some(Cause::GivenUp { .. })));
}

#[test]
fn what_was_read_and_cannot_be_made_again_stops_the_query() {
    let mut s = Script::cluster(&[2, 2]);
    s.submit(chain(once_only(stage(2, &[]))));
    s.finish(output(0, 0, 0), 1);
    s.finish(output(0, 1, 0), 2);
    s.finish(output(1, 0, 0), 1);
    assert_eq!(
        s.lost(2),
        [
            Action::Stop { query: Q },
            Action::Abandon { query: Q, cause: Cause::NotReplayable { task: task(0, 1) } }
        ]
    );
}

#[test]
fn what_nobody_has_read_is_made_again_in_any_case() {
    let mut s = Script::cluster(&[1, 1]);
    s.submit(chain(once_only(stage(2, &[]))));
    s.finish(output(0, 1, 0), 2);
    assert_eq!(s.lost(2), []);
    assert_eq!(runs(&s.finish(output(0, 0, 0), 1)), [(0, 1, 1, 1)]);
    // The one that reads it now says that it could not: nothing that it read counts.
    assert_eq!(runs(&s.finish(output(0, 1, 1), 1)), [(1, 0, 0, 1)]);
    let lost = Failure::InputLost(vec![output(0, 1, 1)]);
    assert_eq!(runs(&s.fail(output(1, 0, 0), 1, lost)), [(0, 1, 2, 1)]);
}

#[test]
fn a_build_that_is_lost_keeps_what_was_split_apart() {
    let broadcast = |from| (from, EdgeKind::Broadcast);
    let mut s = Script::cluster(&[1, 1]);
    s.submit(shape(vec![stage(1, &[]), stage(2, &[broadcast(0)]), home_stage(&[(1, EdgeKind::Gather)])]));
    let split = StageSplit {
        stage: StageId(1),
        front: stage(2, &[broadcast(0)]),
        rest: stage(3, &[(3, EdgeKind::Hash), broadcast(0)]),
    };
    s.on(Event::StageSplit { query: Q, split });
    assert!(s.scheduler.can_split(Q, StageId(1)));
    assert_eq!(runs(&s.finish(output(0, 0, 0), 1)), [(3, 0, 0, 1), (3, 1, 0, 2)]);
    assert!(!s.scheduler.can_split(Q, StageId(3)));
    s.finish(output(3, 1, 0), 2);
    // The build and the running half of the front: the other half waits to be read.
    assert_eq!(runs(&s.lost(1)), [(0, 0, 1, 2)]);
    assert_eq!(runs(&s.finish(output(0, 0, 1), 2)), [(3, 0, 1, 2)]);
    assert_eq!(started(&s.finish(output(3, 0, 1), 2)), [(1, 0)]);
}

#[test]
#[should_panic(expected = "is split although it does not wait")]
fn splitting_what_has_started_is_a_defect() {
    let mut s = Script::cluster(&[1]);
    s.submit(shape(vec![stage(2, &[])]));
    let split =
        StageSplit { stage: StageId(0), front: stage(1, &[]), rest: stage(1, &[(1, EdgeKind::Hash)]) };
    s.on(Event::StageSplit { query: Q, split });
}
