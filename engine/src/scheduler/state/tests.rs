//! Event scripts against the state machine, and random graphs against its invariants.

use std::collections::HashSet;

use dovetail_planner::graph::Edge;
use proptest::prelude::*;

use super::super::events::StageShape;
use super::*;

fn stage(tasks: u32, inputs: &[(u32, EdgeKind)]) -> StageShape {
    let inputs = inputs.iter().map(|&(from, kind)| Edge { from: StageId(from), kind }).collect();
    StageShape { tasks, inputs }
}

fn shape(stages: Vec<StageShape>) -> GraphShape {
    let results = vec![StageId(stages.len() as u32 - 1)];
    GraphShape { stages, results }
}

const Q: QueryId = QueryId(1);
const W: WorkerId = WorkerId(0);

fn started(actions: &[Action]) -> Vec<(u32, u32)> {
    actions
        .iter()
        .filter_map(|a| match a {
            Action::Run { task, .. } => Some((task.stage.0, task.partition)),
            _ => None,
        })
        .collect()
}

fn submit(slots: u32, graph: GraphShape) -> (Scheduler, Vec<Action>) {
    let mut s = Scheduler::new();
    let mut actions = vec![];
    s.handle(Event::WorkerJoined { worker: W, slots }, &mut actions);
    s.handle(Event::GraphSubmitted { query: Q, shape: graph }, &mut actions);
    (s, actions)
}

fn finish(s: &mut Scheduler, stage: u32, partition: u32) -> Vec<Action> {
    let mut actions = vec![];
    let task = TaskId { stage: StageId(stage), partition };
    s.handle(Event::TaskFinished { query: Q, task, worker: W }, &mut actions);
    actions
}

#[test]
fn a_stage_waits_for_its_whole_input_and_releases_it() {
    let (mut s, actions) = submit(2, shape(vec![stage(2, &[]), stage(1, &[(0, EdgeKind::Gather)])]));
    assert_eq!(started(&actions), [(0, 0), (0, 1)]);
    assert_eq!(finish(&mut s, 0, 1), []);
    assert_eq!(started(&finish(&mut s, 0, 0)), [(1, 0)]);
    let last = finish(&mut s, 1, 0);
    assert_eq!(last, [Action::Release { query: Q, stage: StageId(0) }, Action::Finish { query: Q }]);
    assert_eq!(s.query_count(), 0);
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
    let mut actions = vec![];
    let task = TaskId { stage: StageId(0), partition: 0 };
    s.handle(Event::TaskFailed { query: Q, task, worker: W }, &mut actions);
    assert_eq!(actions, [Action::Stop { query: Q }]);
    assert_eq!(finish(&mut s, 0, 1), [Action::Abandon { query: Q }]);
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
    let mut actions = vec![];
    s.handle(Event::StageSplit { query: Q, split }, &mut actions);
    assert_eq!(actions, []);
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
    assert_eq!(s.query_count(), 0);
}

#[test]
fn a_split_of_a_failing_query_changes_nothing() {
    let graph = shape(vec![stage(2, &[]), stage(2, &[(0, EdgeKind::Broadcast)])]);
    let (mut s, _) = submit(2, graph);
    let task = |partition| TaskId { stage: StageId(0), partition };
    let mut actions = vec![];
    s.handle(Event::TaskFailed { query: Q, task: task(0), worker: W }, &mut actions);
    let (front, rest) = (stage(2, &[(0, EdgeKind::Broadcast)]), stage(4, &[(2, EdgeKind::Hash)]));
    let split = StageSplit { stage: StageId(1), front, rest };
    s.handle(Event::StageSplit { query: Q, split }, &mut actions);
    s.handle(Event::TaskFinished { query: Q, task: task(1), worker: W }, &mut actions);
    assert_eq!(actions, [Action::Stop { query: Q }, Action::Abandon { query: Q }]);
}

#[test]
fn cancelling_an_ended_query_does_nothing() {
    let (mut s, _) = submit(1, shape(vec![stage(1, &[])]));
    finish(&mut s, 0, 0);
    let mut actions = vec![];
    s.handle(Event::QueryCancelled { query: Q }, &mut actions);
    assert_eq!(actions, []);
}

#[test]
fn stages_without_tasks_end_at_once() {
    let (s, actions) = submit(1, shape(vec![stage(0, &[]), stage(0, &[(0, EdgeKind::Gather)])]));
    assert!(actions.contains(&Action::Finish { query: Q }));
    assert_eq!(s.query_count(), 0);
}

#[test]
fn two_queries_share_the_slots() {
    let mut s = Scheduler::new();
    let mut actions = vec![];
    s.handle(Event::GraphSubmitted { query: QueryId(1), shape: shape(vec![stage(4, &[])]) }, &mut actions);
    s.handle(Event::GraphSubmitted { query: QueryId(2), shape: shape(vec![stage(4, &[])]) }, &mut actions);
    s.handle(Event::WorkerJoined { worker: W, slots: 4 }, &mut actions);
    let of = |q| actions.iter().filter(|a| matches!(a, Action::Run { query, .. } if query.0 == q)).count();
    assert_eq!((of(1), of(2)), (2, 2));
}

fn random_graph() -> impl Strategy<Value = GraphShape> {
    let kinds =
        prop::sample::select(vec![EdgeKind::Forward, EdgeKind::Hash, EdgeKind::Broadcast, EdgeKind::Gather]);
    prop::collection::vec((0u32..4, prop::collection::vec((any::<prop::sample::Index>(), kinds), 0..3)), 1..9)
        .prop_map(|specs| {
            let mut stages: Vec<StageShape> = vec![];
            for (tasks, edges) in specs {
                let mut inputs = vec![];
                for (index, kind) in edges {
                    if stages.is_empty() {
                        continue;
                    }
                    let from = index.index(stages.len());
                    let kind = if stages[from].tasks == tasks { kind } else { EdgeKind::Hash };
                    inputs.push(Edge { from: StageId(from as u32), kind });
                }
                stages.push(StageShape { tasks, inputs });
            }
            shape(stages)
        })
}

proptest! {
    /// Whatever the graph and the order in which tasks end: inputs first, every task once, outputs
    /// released after their last reader and never a result's, the query ends.
    #[test]
    fn invariants_hold_on_random_graphs(graph in random_graph(), slots in 1u32..4, picks in prop::collection::vec(any::<prop::sample::Index>(), 64)) {
        let (mut s, mut actions) = submit(slots, graph.clone());
        let mut running = vec![];
        let mut finished: HashSet<(u32, u32)> = HashSet::new();
        let mut seen = HashSet::new();
        let mut released = HashSet::new();
        let mut ended = false;
        let mut picks = picks.into_iter().cycle();
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Run { task, .. } => {
                        let key = (task.stage.0, task.partition);
                        prop_assert!(seen.insert(key), "ran twice");
                        for edge in &graph.stages[task.stage.0 as usize].inputs {
                            prop_assert!(!released.contains(&edge.from.0), "read after release");
                            let needs = 0..graph.stages[edge.from.0 as usize].tasks;
                            for p in needs.filter(|p| edge.kind != EdgeKind::Forward || *p == task.partition) {
                                prop_assert!(finished.contains(&(edge.from.0, p)), "ran before its input");
                            }
                        }
                        running.push(key);
                    }
                    Action::Release { stage, .. } => {
                        prop_assert!(released.insert(stage.0), "released twice");
                        prop_assert!(!graph.results.contains(&stage));
                    }
                    Action::Finish { .. } => ended = true,
                    Action::Stop { .. } | Action::Abandon { .. } => prop_assert!(false, "nothing failed"),
                }
            }
            prop_assert!(running.len() <= slots as usize);
            if running.is_empty() {
                break;
            }
            let (stage, partition) = running.swap_remove(picks.next().unwrap().index(running.len()));
            finished.insert((stage, partition));
            actions = finish(&mut s, stage, partition);
        }
        prop_assert!(ended);
        let all: u64 = graph.stages.iter().map(|s| u64::from(s.tasks)).sum();
        prop_assert_eq!(finished.len() as u64, all);
        prop_assert_eq!(s.query_count(), 0);
    }
}
