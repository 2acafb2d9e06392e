//! The tasks of a partitioned join share its partitions by their true sizes: a hot one gets several tasks.
//!
//! ```text
//! evenly:   task ◀─ partitions 0..8      task ◀─ partitions 8..16       ...
//! shares:   task ◀─ partitions 0..3      task ◀─ partition 3 of every second output on the probe side, all of it on
//!                                                the build side; another task the same of the other outputs    ...
//! ```
//!
//! What always holds: each probe row is in exactly one share, and the share's task has all build rows that it can
//! match. That is all it takes where a join answers for each probe row by itself; for what it owes from the build
//! side there are [`super::marks`].

use serde::{Deserialize, Serialize};

use super::marks::{can_mark, marking_stage, without_build_rows};
use super::{Branch, QueryStage, Source, Transform};
use crate::graph::{Edge, EdgeKind, StageId};

/// What one task reads of a partitioned join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The partitions of both sides, from the first to before the end.
    pub first: u32,
    pub end: u32,
    /// Of the probe side the outputs of those tasks whose number leaves `slice` when it is divided by `slices`; of
    /// no task, if that is 0: the share is for what the join owes from the build side alone.
    pub slice: u32,
    pub slices: u32,
}

/// How a stage goes on whose tasks share out what they read.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// With its old number.
    pub stage: QueryStage,
    /// New, with the number that was asked for, if the join answers for its build side: the stage waits for it.
    pub marking: Option<QueryStage>,
}

impl Share {
    /// Whether the share has the probe rows of a task's output.
    pub fn has_output(&self, task: u32) -> bool {
        self.slices > 0 && task % self.slices == self.slice
    }

    /// Whether other tasks have a part of its partition, too.
    pub fn is_hot(&self) -> bool {
        self.slices != 1
    }
}

/// A partition is hot if it has more than so many times the rows that a task has on average.
const HOT_TIMES_MEAN: u64 = 2;

/// Fewer rows are not worth a task that reads the build side's partition once more.
const HOT_ROWS_MIN: u64 = 1 << 16;

/// The build side of the join that a stage's tasks share the partitions of `front` for. None if the stage does not join
/// them first of all, if they are shared out already, or if there can be no marks of what the join owes.
pub fn can_share(stage: &QueryStage, front: StageId) -> Option<StageId> {
    stage.work.branches.iter().find_map(|branch| build_of(stage, branch, front))
}

fn build_of(stage: &QueryStage, branch: &Branch, front: StageId) -> Option<StageId> {
    match (&branch.source, branch.steps.first().map(|s| &s.transform)) {
        (Source::Exchange { stage: from, shares }, Some(Transform::HashJoinProbe { build, join, .. }))
            if *from == front
                && shares.is_empty()
                && (!join.kind.emits_build_at_end() || can_mark(stage, branch, join)) =>
        {
            Some(*build)
        }
        _ => None,
    }
}

/// Shares out what a stage reads of the stage `front`, which has so many `rows` in each partition. `marking` is a
/// number that no stage has. None if it cannot be, or if nothing is hot.
pub fn share_at_join(
    stage: &QueryStage,
    front: StageId,
    rows: &[u64],
    outputs: u32,
    marking: StageId,
) -> Option<Shared> {
    let number = stage.work.branches.iter().position(|branch| build_of(stage, branch, front).is_some())?;
    let mut shares = shares_of(rows, stage.work.branches[number].tasks, outputs)?;
    let mut changed = stage.clone();
    let branch = &mut changed.work.branches[number];
    let Some(Transform::HashJoinProbe { join, marks, .. }) =
        branch.steps.first_mut().map(|s| &mut s.transform)
    else {
        return None;
    };
    let mut marking_of = None;
    if join.kind.emits_build_at_end() {
        let hot = shares.iter().copied().filter(Share::is_hot).collect();
        let (stage, made) = marking_stage(stage, &stage.work.branches[number], join, hot, marking);
        if without_build_rows(join.kind).is_none() {
            shares.retain(|s| s.slice == 0);
            shares.iter_mut().filter(|s| s.is_hot()).for_each(|s| s.slices = 0);
        }
        *marks = Some(made);
        marking_of = Some(stage);
        changed.inputs.push(Edge { from: marking, kind: EdgeKind::Broadcast });
    }
    branch.tasks = shares.len() as u32;
    branch.source = Source::Exchange { stage: front, shares };
    changed.tasks = changed.work.branches.iter().map(|b| b.tasks).sum();
    Some(Shared { stage: changed, marking: marking_of })
}

impl Shared {
    /// The stage and its tasks that share hot partitions, for the log: numbers with commas between them. Where the join
    /// hands on nothing but build rows, these are the tasks that mark them.
    pub fn hot_tasks(&self) -> (StageId, String) {
        let own = hot_tasks(&self.stage);
        match &self.marking {
            Some(marking) if own.is_empty() => (marking.id, hot_tasks(marking)),
            _ => (self.stage.id, own),
        }
    }
}

fn hot_tasks(stage: &QueryStage) -> String {
    let mut hot = vec![];
    let mut first = 0;
    for branch in &stage.work.branches {
        if let Source::Exchange { shares, .. } = &branch.source {
            hot.extend((first..).zip(shares).filter(|(_, s)| s.slices > 1).map(|(task, _)| task.to_string()));
        }
        first += branch.tasks;
    }
    hot.join(",")
}

/// The shares of partitions that `tasks` would share evenly, hot ones cut into slices. None if there are none.
fn shares_of(rows: &[u64], tasks: u32, outputs: u32) -> Option<Vec<Share>> {
    let mean = rows.iter().sum::<u64>() / u64::from(tasks.max(1));
    let hot_from = (mean * HOT_TIMES_MEAN).max(HOT_ROWS_MIN);
    let slices = |partition: usize| match rows[partition] > hot_from {
        true => {
            u32::try_from(rows[partition].div_ceil(mean.max(HOT_ROWS_MIN))).unwrap_or(u32::MAX).min(outputs)
        }
        false => 1,
    };
    let each = rows.len() / tasks.max(1) as usize;
    let mut shares: Vec<Share> = vec![];
    for partition in 0..rows.len() {
        let (first, slices) = (partition as u32, slices(partition));
        let is_next = each > 0 && !partition.is_multiple_of(each);
        match shares.last_mut() {
            Some(last) if is_next && slices == 1 && last.slices == 1 => last.end = first + 1,
            _ => shares.extend((0..slices).map(|slice| Share { first, end: first + 1, slice, slices })),
        }
    }
    shares.iter().any(|s| s.slices > 1).then_some(shares)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::expr::{BinaryOp, Expr};
    use crate::graph::{Place, Stage};
    use crate::physical::{HashJoin, JoinKind};
    use crate::pipeline::{Sink, StageWork, Step};

    const ROWS: u64 = 1 << 20;

    #[test]
    fn even_partitions_are_shared_evenly() {
        assert_eq!(shares_of(&[ROWS; 64], 8, 12), None);
        assert_eq!(shares_of(&[0; 64], 8, 12), None);
        // Hot, but small.
        let mut rows = [0; 64];
        rows[3] = HOT_ROWS_MIN;
        assert_eq!(shares_of(&rows, 8, 12), None);
    }

    #[test]
    fn a_hot_partition_is_cut_and_every_row_is_in_one_share() {
        let mut rows = [ROWS / 63; 64];
        rows[11] = ROWS;
        for (tasks, outputs) in [(8, 12), (8, 2), (64, 100), (1, 1), (4, 3)] {
            let Some(shares) = shares_of(&rows, tasks, outputs) else {
                assert_eq!((tasks, outputs), (1, 1));
                continue;
            };
            for partition in 0..64 {
                for output in 0..outputs {
                    let is_in = |s: &&Share| (s.first..s.end).contains(&partition) && s.has_output(output);
                    assert_eq!(shares.iter().filter(is_in).count(), 1, "{partition} {output}: {shares:?}");
                }
            }
            let slices = shares.iter().filter(|s| s.first == 11).count() as u32;
            assert!((2..=outputs.min(tasks)).contains(&slices), "{tasks} {outputs}: {shares:?}");
            assert!(shares.len() as u32 <= 2 * tasks + 2, "{tasks} {outputs}: {shares:?}");
        }
    }

    /// A stage of eight tasks that joins what stage 1 has left with what stage 0 has built.
    fn joining(kind: JoinKind) -> QueryStage {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Utf8View, true),
            Field::new("k", DataType::Int64, true),
            Field::new("b", DataType::Int64, true),
        ]));
        let column = |c| Expr::column(c, DataType::Int64);
        let condition = Expr::Binary {
            op: BinaryOp::Lt,
            left: Box::new(column(2)),
            right: Box::new(column(3)),
            data_type: DataType::Boolean,
        };
        let join = HashJoin {
            kind,
            keys: vec![(column(1), column(1))],
            null_equal: false,
            null_aware: false,
            residual: Some(condition),
            output: vec![0],
            runtime_filters: vec![],
        };
        let transform =
            Transform::HashJoinProbe { build: StageId(0), join, build_schema: schema.clone(), marks: None };
        let branch = Branch {
            tasks: 8,
            source: Source::Exchange { stage: StageId(1), shares: vec![] },
            source_schema: schema.clone(),
            source_operator: 1,
            steps: vec![Step { transform, schema: schema.clone(), operator: 2 }],
        };
        Stage {
            id: StageId(2),
            tasks: 8,
            inputs: vec![
                Edge { from: StageId(1), kind: EdgeKind::Hash },
                Edge { from: StageId(0), kind: EdgeKind::Broadcast },
            ],
            place: Place::Anywhere,
            replayable: true,
            work: StageWork {
                branches: vec![branch],
                sink: Sink::Collect,
                sink_schema: schema,
                sink_operator: 3,
            },
        }
    }

    fn shared(kind: JoinKind) -> Shared {
        let mut rows = [ROWS / 63; 64];
        rows[11] = ROWS;
        assert_eq!(can_share(&joining(kind), StageId(1)), Some(StageId(0)));
        share_at_join(&joining(kind), StageId(1), &rows, 12, StageId(3)).unwrap()
    }

    fn shares(stage: &QueryStage) -> &[Share] {
        match &stage.work.branches[0].source {
            Source::Exchange { shares, .. } => shares,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_join_that_answers_for_its_build_side_waits_for_marks() {
        for kind in [JoinKind::BuildOuter, JoinKind::Full, JoinKind::BuildSemi, JoinKind::BuildAnti] {
            let Shared { stage, marking } = shared(kind);
            let marking = marking.unwrap();
            assert_eq!(marking.inputs, joining(kind).inputs);
            assert_eq!(stage.inputs.last(), Some(&Edge { from: StageId(3), kind: EdgeKind::Broadcast }));
            // The key, and what the condition reads of the probe side.
            let Sink::Aggregate { aggregate, .. } = &marking.work.sink else {
                panic!("{:?}", marking.work.sink)
            };
            let columns: Vec<usize> = aggregate.group_by.iter().flat_map(Expr::columns).collect();
            assert_eq!(columns, [1, 2]);
            // Every probe output of the hot partition is read by one marking task.
            let slices = marking.tasks;
            assert!(slices > 1 && shares(&marking).iter().all(|s| (s.first, s.slices) == (11, slices)));
            let Transform::HashJoinProbe { marks, .. } = &stage.work.branches[0].steps[0].transform else {
                panic!("no join");
            };
            let partitions = vec![11; slices as usize];
            assert_eq!(marks, &Some(super::super::Marks { stage: StageId(3), partitions }));
            // One task hands on the build rows; the others are there only if there is something for them.
            let hot: Vec<&Share> = shares(&stage).iter().filter(|s| s.is_hot()).collect();
            assert_eq!(hot.iter().filter(|s| s.slice == 0).count(), 1);
            let reads_probe_rows = matches!(kind, JoinKind::BuildOuter | JoinKind::Full);
            assert_eq!(hot.len() as u32, if reads_probe_rows { slices } else { 1 });
            assert_eq!((0..12).any(|task| hot[0].has_output(task)), reads_probe_rows);
            assert_eq!(stage.tasks, shares(&stage).len() as u32);
        }
    }

    #[test]
    fn others_need_no_marks_and_some_cannot_be_shared() {
        for kind in [JoinKind::Inner, JoinKind::ProbeOuter, JoinKind::ProbeAnti, JoinKind::ProbeMark] {
            let Shared { stage, marking } = shared(kind);
            assert_eq!((marking, stage.inputs), (None, joining(kind).inputs));
        }
        // Asked again, the condition might say something else.
        let mut stage = joining(JoinKind::Full);
        stage.replayable = false;
        assert_eq!(can_share(&stage, StageId(1)), None);
    }
}
