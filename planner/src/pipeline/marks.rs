//! Hot partitions of joins that answer for their build side: which build rows have met a match is found out by
//! several tasks, and one of them hands on what the join owes.
//!
//! ```text
//! marking stage:  task ◀─ the hot partition of some probe outputs ─▶ distinct values of the marking columns
//! joining stage:  first task of the hot partition ◀─ these values ─▶ its build rows with, or without, a match
//!                 each task of it ◀─ its slice of the probe rows ─▶ pairs, and probe rows without a match
//! ```
//!
//! Whether a build row has a match depends on the keys of the probe rows, and on what a further condition reads of
//! them. Of probe rows that are alike in these columns one is as good as all, so a hot key comes down to few rows.
//! What always holds: a build row is handed on by one task, who knows of all probe rows of its partition.

use serde::{Deserialize, Serialize};

use super::shares::Share;
use super::{Branch, NO_OPERATOR, QueryStage, Sink, Source, StageWork};
use crate::expr::Expr;
use crate::graph::{Stage, StageId};
use crate::physical::{Aggregate, HashJoin, JoinKind};

/// Where a join finds the marks of its hot partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The marking stage.
    pub stage: StageId,
    /// By task of it: the partition that it has read of.
    pub partitions: Vec<u32>,
}

/// The probe columns by which build rows match: positions, ascending, of `width`.
pub fn marking_columns(join: &HashJoin, width: usize) -> Vec<usize> {
    let of_keys = join.keys.iter().flat_map(|(probe, _)| probe.columns());
    let of_condition = join.residual.iter().flat_map(Expr::columns).filter(|c| *c < width);
    let mut columns: Vec<usize> = of_keys.chain(of_condition).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// What is left for a task that shares a hot partition, of a kind of join: the pairs and the unmatched probe rows.
/// None if there is nothing.
pub fn without_build_rows(kind: JoinKind) -> Option<JoinKind> {
    match kind {
        JoinKind::BuildSemi | JoinKind::BuildAnti => None,
        JoinKind::BuildOuter => Some(JoinKind::Inner),
        JoinKind::Full => Some(JoinKind::ProbeOuter),
        other => Some(other),
    }
}

/// Whether marks can be made for a join that is the first step of the branch. A condition that says something else
/// each time it is asked needs all rows; columns of columns are not grouped by.
pub(super) fn can_mark(stage: &QueryStage, branch: &Branch, join: &HashJoin) -> bool {
    let fields = branch.source_schema.fields();
    let columns = marking_columns(join, fields.len());
    stage.replayable && columns.iter().all(|c| !fields[*c].data_type().is_nested())
}

/// The stage that makes the marks for a join of `stage` that is the first step of the branch: a task for each share,
/// all of hot partitions. Its number is `number`.
pub(super) fn marking_stage(
    stage: &QueryStage,
    branch: &Branch,
    join: &HashJoin,
    shares: Vec<Share>,
    number: StageId,
) -> (QueryStage, Marks) {
    let schema = &branch.source_schema;
    let columns = marking_columns(join, schema.fields().len());
    let group_by =
        columns.into_iter().map(|c| Expr::column(c, schema.field(c).data_type().clone())).collect();
    let marks = Marks { stage: number, partitions: shares.iter().map(|s| s.first).collect() };
    let tasks = shares.len() as u32;
    let source = match &branch.source {
        Source::Exchange { stage, .. } => Source::Exchange { stage: *stage, shares },
        other => other.clone(),
    };
    let branch =
        Branch { tasks, source, source_schema: schema.clone(), source_operator: NO_OPERATOR, steps: vec![] };
    let work = StageWork {
        branches: vec![branch],
        sink: Sink::Aggregate { aggregate: Aggregate { group_by, calls: vec![] }, partitions: 1 },
        sink_schema: schema.clone(),
        sink_operator: NO_OPERATOR,
    };
    let marking = Stage {
        id: number,
        tasks,
        // It takes the place of the stage wherever that waits.
        inputs: stage.inputs.clone(),
        place: stage.place,
        replayable: work.is_replayable(),
        work,
    };
    (marking, marks)
}
