//! Random graphs against the invariants, with tasks that end in any order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

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
                stages.push(StageShape { inputs, ..stage(tasks, &[]) });
            }
            shape(stages)
        })
}

proptest! {
    /// Whatever the graph and the order in which tasks end: inputs first, every task once, outputs
    /// released after their last reader and never a result's, the query ends.
    #[test]
    fn invariants_hold_on_random_graphs(graph in random_graph(), slots in 1u32..4, picks in prop::collection::vec(any::<prop::sample::Index>(), 64)) {
        let mut s = Script::default();
        s.on(Event::WorkerJoined { worker: W, slots, home: true });
        let mut actions = s.submit(graph.clone());
        let mut running = vec![];
        let mut finished: HashSet<(u32, u32)> = HashSet::new();
        let mut seen = HashSet::new();
        let mut released = HashSet::new();
        let mut ended = false;
        let mut picks = picks.into_iter().cycle();
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Run { output: OutputId { task, .. }, .. } => {
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
                    Action::Answer { .. } => {}
                    Action::Finish { .. } => ended = true,
                    other => prop_assert!(false, "nothing failed, but {other:?}"),
                }
            }
            prop_assert!(running.len() <= slots as usize);
            if running.is_empty() {
                break;
            }
            let (stage, partition) = running.swap_remove(picks.next().unwrap().index(running.len()));
            finished.insert((stage, partition));
            actions = s.finish(output(stage, partition, 0), 0);
        }
        prop_assert!(ended);
        let all: u64 = graph.stages.iter().map(|s| u64::from(s.tasks)).sum();
        prop_assert_eq!(finished.len() as u64, all);
        prop_assert_eq!(s.scheduler.query_count(), 0);
    }
}
