//! Among workers, a stage that probes a join's table holds on to the rows that the table was made of.
//!
//! Each worker makes the table for itself, and a worker that joins late, or that takes over from one that died,
//! makes it again. So the rows must stay until the probing stage is done, not only until the first table is.

use crate::graph::{Edge, EdgeKind, StageId};

use super::{QueryStage, Sink, Transform};

/// Adds the edges. `build` finds a build stage by its number.
pub fn hold_build_rows<'a>(stage: &mut QueryStage, build: impl Fn(StageId) -> Option<&'a Sink>) {
    let mut held = vec![];
    for step in stage.work.branches.iter().flat_map(|b| &b.steps) {
        if let Transform::HashJoinProbe { build: number, .. } = &step.transform
            && let Some(Sink::JoinBuild { rows, .. }) = build(*number)
        {
            held.push(Edge { from: *rows, kind: EdgeKind::Broadcast });
        }
    }
    for edge in held {
        if !stage.inputs.contains(&edge) {
            stage.inputs.push(edge);
        }
    }
}
