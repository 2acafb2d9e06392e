//! What runs when, if all goes well; and how a query ends.

use super::*;

fn submit(slots: u32, graph: GraphShape) -> (Script, Vec<Action>) {
    let mut s = Script::default();
    s.on(Event::WorkerJoined { worker: W, slots, home: true });
    let actions = s.submit(graph);
    (s, actions)
}

fn finish(s: &mut Script, stage: u32, partition: u32) -> Vec<Action> {
    s.finish(output(stage, partition, 0), 0)
}

#[test]
fn a_stage_waits_for_its_whole_input_and_releases_it() {
    let (mut s, actions) = submit(2, shape(vec![stage(2, &[]), stage(1, &[(0, EdgeKind::Gather)])]));
    assert_eq!(started(&actions), [(0, 0), (0, 1)]);
    assert_eq!(finish(&mut s, 0, 1), []);
    assert_eq!(started(&finish(&mut s, 0, 0)), [(1, 0)]);
    let last = finish(&mut s, 1, 0);
    assert_eq!(last[..1], [Action::Release { query: Q, stage: StageId(0) }]);
    assert_eq!(last[1..], ENDS);
    assert_eq!(s.scheduler.query_count(), 0);
}

#[test]
fn a_forward_consumer_goes_before_further_producers() {
    let (mut s, actions) = submit(1, shape(vec![stage(3, &[]), stage(3, &[(0, EdgeKind::Forward)])]));
    assert_eq!(started(&actions), [(0, 0)]);
    assert_eq!(started(&finish(&mut s, 0, 0)), [(1, 0)]);
    assert_eq!(started(&finish(&mut s, 1, 0)), [(0, 1)]);
}

#[test]
fn an_independent_subtree_waits_until_the_first_is_done() {
    let graph = shape(vec![
        stage(1, &[]),
        stage(1, &[(0, EdgeKind::Gather)]),
        stage(1, &[]),
        stage(1, &[(1, EdgeKind::Broadcast), (2, EdgeKind::Gather)]),
    ]);
    let (mut s, actions) = submit(1, graph);
    assert_eq!(started(&actions), [(0, 0)]);
    assert_eq!(started(&finish(&mut s, 0, 0)), [(1, 0)]);
    assert_eq!(started(&finish(&mut s, 1, 0)), [(2, 0)]);
}

#[test]
fn a_failure_stops_the_query_after_its_running_tasks() {
    let (mut s, _) = submit(2, shape(vec![stage(4, &[])]));
    assert_eq!(s.fail(output(0, 0, 0), 0, Failure::Fatal), [Action::Stop { query: Q }]);
    let cause = Cause::Failed { task: task(0, 0) };
    assert_eq!(finish(&mut s, 0, 1), [Action::Abandon { query: Q, cause }]);
}

#[test]
fn a_split_stage_waits_for_its_front_and_keeps_what_it_reads() {
    let broadcast = |from| (from, EdgeKind::Broadcast);
    let probe = stage(2, &[broadcast(0), broadcast(1)]);
    let mut graph = shape(vec![stage(1, &[]), stage(1, &[]), probe, stage(1, &[(2, EdgeKind::Gather)])]);
    graph.results = vec![StageId(3)];
    let (mut s, actions) = submit(4, graph);
    assert_eq!(started(&actions), [(0, 0), (1, 0)]);
    assert_eq!(finish(&mut s, 0, 0), []);
    let split = StageSplit {
        stage: StageId(2),
        front: stage(2, &[broadcast(0), broadcast(1)]),
        rest: stage(3, &[(4, EdgeKind::Hash), broadcast(1)]),
    };
    assert!(s.scheduler.can_split(Q, StageId(2)));
    assert_eq!(s.on(Event::StageSplit { query: Q, split }), []);
    assert_eq!(started(&finish(&mut s, 1, 0)), [(4, 0), (4, 1)]);
    assert_eq!(finish(&mut s, 4, 1), []);
    let released = |actions: &[Action]| -> Vec<u32> {
        let stage = |a: &Action| match a {
            Action::Release { stage, .. } => Some(stage.0),
            _ => None,
        };
        actions.iter().filter_map(stage).collect()
    };
    let after_front = finish(&mut s, 4, 0);
    assert_eq!((started(&after_front), released(&after_front)), (vec![(2, 0), (2, 1), (2, 2)], vec![0]));
    assert_eq!([finish(&mut s, 2, 0), finish(&mut s, 2, 2)], [vec![], vec![]]);
    let after_rest = finish(&mut s, 2, 1);
    assert_eq!((started(&after_rest), released(&after_rest)), (vec![(3, 0)], vec![4, 1]));
    assert_eq!(finish(&mut s, 3, 0).last(), Some(&Action::Finish { query: Q }));
    assert_eq!(s.scheduler.query_count(), 0);
}

#[test]
fn a_split_of_a_failing_query_changes_nothing() {
    let graph = shape(vec![stage(2, &[]), stage(2, &[(0, EdgeKind::Broadcast)])]);
    let (mut s, _) = submit(2, graph);
    let mut actions = s.fail(output(0, 0, 0), 0, Failure::Fatal);
    let (front, rest) = (stage(2, &[(0, EdgeKind::Broadcast)]), stage(4, &[(2, EdgeKind::Hash)]));
    let split = StageSplit { stage: StageId(1), front, rest };
    actions.extend(s.on(Event::StageSplit { query: Q, split }));
    actions.extend(finish(&mut s, 0, 1));
    let cause = Cause::Failed { task: task(0, 0) };
    assert_eq!(actions, [Action::Stop { query: Q }, Action::Abandon { query: Q, cause }]);
}

#[test]
fn cancelling_an_ended_query_does_nothing() {
    let (mut s, _) = submit(1, shape(vec![stage(1, &[])]));
    finish(&mut s, 0, 0);
    assert_eq!(s.on(Event::QueryCancelled { query: Q }), []);
}

#[test]
fn stages_without_tasks_end_at_once() {
    let (s, actions) = submit(1, shape(vec![stage(0, &[]), stage(0, &[(0, EdgeKind::Gather)])]));
    assert!(actions.contains(&Action::Finish { query: Q }));
    assert_eq!(s.scheduler.query_count(), 0);
}

#[test]
fn cancelling_waits_for_what_runs() {
    let (mut s, _) = submit(1, shape(vec![stage(2, &[])]));
    assert_eq!(s.on(Event::QueryCancelled { query: Q }), [Action::Stop { query: Q }]);
    assert_eq!(s.on(Event::QueryCancelled { query: Q }), []);
    let abandon = Action::Abandon { query: Q, cause: Cause::Cancelled };
    assert_eq!(s.fail(output(0, 0, 0), 0, Failure::Stopped), [abandon]);
}

#[test]
fn two_queries_share_the_slots() {
    let mut s = Script::default();
    s.on(Event::GraphSubmitted { query: QueryId(1), shape: shape(vec![stage(4, &[])]) });
    s.on(Event::GraphSubmitted { query: QueryId(2), shape: shape(vec![stage(4, &[])]) });
    let actions = s.on(Event::WorkerJoined { worker: W, slots: 4, home: true });
    let of = |q| actions.iter().filter(|a| matches!(a, Action::Run { query, .. } if query.0 == q)).count();
    assert_eq!((of(1), of(2)), (2, 2));
}
