//! A stage is taken apart at a join whose build side turned out not to fit in memory.
//!
//! ```text
//! before:  source ─ a ─ probe ─ b ─▶ sink                      (every task reads the one table)
//! after:   source ─ a ─▶ hash partitions ─ probe ─ b ─▶ sink   (a task reads the same partitions of both sides)
//! ```
//!
//! The part in front becomes a stage of its own; the rest keeps the stage's number, so whoever reads it need
//! not know. What always holds: no task of the stage has started; rows of both sides with equal keys meet in
//! the task of their partition.

use crate::graph::{Edge, EdgeKind, Stage, StageId};

use super::{Branch, NO_OPERATOR, QueryStage, Sink, Source, StageWork, Transform};

/// The two stages that take the place of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// New, with the number that was asked for: up to the join.
    pub front: QueryStage,
    /// The stage with its old number: from the join on, a task for one partition or some.
    pub rest: QueryStage,
}

/// Splits the stage at the probe of the join that stage `build` builds. `front` is a number that no stage
/// has; `tasks`, by which `partitions` can be divided, share the partitions afterwards. None if the stage does not
/// probe it, or has a single task, which can take the partitions one by one.
pub fn split_at_join(
    stage: &QueryStage,
    build: StageId,
    front: StageId,
    partitions: u32,
    tasks: u32,
) -> Option<Split> {
    if stage.tasks < 2 {
        return None;
    }
    let place = |branch: &Branch| {
        branch
            .steps
            .iter()
            .position(|s| matches!(&s.transform, Transform::HashJoinProbe { build: b, .. } if *b == build))
    };
    let (mut in_front, mut branches) = (vec![], vec![]);
    let mut sink = None;
    for branch in &stage.work.branches {
        let Some(join) = place(branch) else {
            branches.push(branch.clone());
            continue;
        };
        let step = &branch.steps[join];
        let schema = match join {
            0 => &branch.source_schema,
            after => &branch.steps[after - 1].schema,
        };
        if sink.is_none() {
            let Transform::HashJoinProbe { join: spec, .. } = &step.transform else { return None };
            let keys = spec.keys.iter().map(|(probe, _)| probe.clone()).collect();
            sink = Some((Sink::HashPartition { keys, partitions }, schema.clone(), step.operator));
            // The steps from the join on are the same in every branch.
            branches.push(Branch {
                tasks,
                source: Source::Exchange { stage: front, shares: vec![] },
                source_schema: schema.clone(),
                source_operator: NO_OPERATOR,
                steps: branch.steps[join..].to_vec(),
            });
        }
        in_front.push(Branch { steps: branch.steps[..join].to_vec(), ..branch.clone() });
    }
    let (sink, sink_schema, sink_operator) = sink?;
    let tasks_of = |branches: &[Branch]| branches.iter().map(|b| b.tasks).sum();
    let work = StageWork { branches, ..stage.work.clone() };
    let mut inputs = vec![Edge { from: front, kind: EdgeKind::Hash }];
    // The front waits for everything that the stage has waited for; the rest holds on to what it reads.
    inputs.extend(stage.inputs.iter().filter(|e| work.branches.iter().any(|b| reads(b, e.from))));
    let (tasks_in_front, tasks_of_rest) = (tasks_of(&in_front), tasks_of(&work.branches));
    let in_front = StageWork { branches: in_front, sink, sink_schema, sink_operator };
    let part = |id, tasks, inputs, work: StageWork| Stage {
        id,
        tasks,
        inputs,
        place: stage.place,
        replayable: work.is_replayable(),
        work,
    };
    let rest = part(stage.id, tasks_of_rest, inputs, work);
    let front = part(front, tasks_in_front, stage.inputs.clone(), in_front);
    Some(Split { front, rest })
}

/// Whether the branch reads the outputs of a stage. Values of scalar subqueries and runtime filters are not
/// outputs; the front has waited for them.
fn reads(branch: &Branch, from: StageId) -> bool {
    let source = match &branch.source {
        Source::Collected { stage }
        | Source::AggregateFinal { stage, .. }
        | Source::AggregateSingle { stage, .. }
        | Source::SortMerge { stage, .. }
        | Source::Window { stage, .. }
        | Source::Exchange { stage, .. } => *stage == from,
        Source::Scan(_)
        | Source::Values(_)
        | Source::Recursive { .. }
        | Source::WorkTable { .. }
        | Source::Nothing => false,
    };
    source
        || branch.steps.iter().any(|s| match &s.transform {
            Transform::HashJoinProbe { build, marks, .. } => {
                *build == from || marks.as_ref().is_some_and(|m| m.stage == from)
            }
            Transform::NestedLoopJoin { build, .. } => *build == from,
            Transform::Filter { .. }
            | Transform::Project { .. }
            | Transform::Expand { .. }
            | Transform::AtMost { .. }
            | Transform::Limit(_)
            | Transform::Unnest(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::expr::Expr;
    use crate::graph::Place;
    use crate::physical::{HashJoin, JoinKind, Values};
    use crate::pipeline::Step;

    fn stage(branches: Vec<Branch>, inputs: &[u32]) -> QueryStage {
        let edge = |from: &u32| Edge { from: StageId(*from), kind: EdgeKind::Broadcast };
        let sink_schema = branches[0].source_schema.clone();
        Stage {
            id: StageId(7),
            tasks: branches.iter().map(|b| b.tasks).sum(),
            inputs: inputs.iter().map(edge).collect(),
            place: Place::Anywhere,
            replayable: true,
            work: StageWork { branches, sink: Sink::Collect, sink_schema, sink_operator: 9 },
        }
    }

    fn branch(tasks: u32, builds: &[u32]) -> Branch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let key = Expr::column(0, DataType::Int64);
        let join = HashJoin {
            kind: JoinKind::ProbeSemi,
            keys: vec![(key.clone(), key)],
            null_equal: false,
            null_aware: false,
            residual: None,
            output: vec![0],
            runtime_filters: vec![],
        };
        let probe = |build: &u32| Step {
            transform: Transform::HashJoinProbe {
                build: StageId(*build),
                join: join.clone(),
                build_schema: schema.clone(),
                marks: None,
            },
            schema: schema.clone(),
            operator: 100 + build,
        };
        Branch {
            tasks,
            source: Source::Values(Values { rows: vec![] }),
            source_schema: schema.clone(),
            source_operator: 1,
            steps: builds.iter().map(probe).collect(),
        }
    }

    #[test]
    fn the_front_waits_for_all_and_the_rest_keeps_what_it_reads() {
        let stage = stage(vec![branch(2, &[1, 2, 3]), branch(3, &[2, 3]), branch(1, &[4])], &[1, 2, 3, 4]);
        let split = split_at_join(&stage, StageId(2), StageId(8), 64, 64).unwrap();
        assert_eq!((split.front.id, split.front.tasks), (StageId(8), 5));
        assert_eq!(split.front.inputs, stage.inputs);
        let steps: Vec<usize> = split.front.work.branches.iter().map(|b| b.steps.len()).collect();
        assert_eq!(steps, [1, 0]);
        assert!(matches!(split.front.work.sink, Sink::HashPartition { partitions: 64, .. }));
        assert_eq!((split.rest.id, split.rest.tasks), (StageId(7), 65));
        let from: Vec<u32> = split.rest.inputs.iter().map(|e| e.from.0).collect();
        assert_eq!(from, [8, 2, 3, 4]);
        assert_eq!(split.rest.work.sink, stage.work.sink);
        let tasks: Vec<u32> = split.rest.work.branches.iter().map(|b| b.tasks).collect();
        assert_eq!(tasks, [64, 1]);

        // A second join of the stage that does not fit.
        let again = split_at_join(&split.rest, StageId(3), StageId(9), 64, 16).unwrap();
        assert_eq!((again.front.tasks, again.rest.tasks), (64, 17));
        let from: Vec<u32> = again.front.inputs.iter().map(|e| e.from.0).collect();
        assert_eq!(from, [8, 2, 3, 4]);
    }

    #[test]
    fn a_single_task_and_a_stage_without_the_join_stay_as_they_are() {
        assert_eq!(split_at_join(&stage(vec![branch(1, &[1])], &[1]), StageId(1), StageId(8), 64, 64), None);
        assert_eq!(split_at_join(&stage(vec![branch(2, &[1])], &[1]), StageId(2), StageId(8), 64, 64), None);
    }
}
