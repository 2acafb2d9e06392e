//! Random graphs, as the planner could make them: every kind of edge, stages that cannot be replayed, joins whose
//! build sides turn out too large, and a stage at home that delivers.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_planner::graph::{Edge, EdgeKind, Place, StageId};

use super::super::events::{GraphShape, StageShape, StageSplit};
use super::rng::Rng;

/// A graph, and the stages of which a build side will not fit: when stage `build` ends, stage `probe` is split.
#[derive(Debug, Clone)]
pub struct Graph {
    pub shape: GraphShape,
    pub splits: BTreeMap<StageId, StageId>,
}

pub fn random(rng: &mut Rng) -> Graph {
    let fragile = if rng.percent(50) { 0 } else { 35 };
    let mut stages: Vec<StageShape> = vec![];
    for number in 0..rng.within(1..7) as u32 {
        let stage = random_stage(rng, &stages, number, fragile);
        stages.push(stage);
    }
    // Whatever nobody has read is delivered.
    let read = |stages: &[StageShape], id| stages.iter().flat_map(|s| &s.inputs).any(|e| e.from == id);
    let unread = (0..stages.len() as u32).map(StageId).filter(|id| !read(&stages, *id));
    let inputs =
        unread.map(|from| Edge { from, kind: rng.pick(&[EdgeKind::Gather, EdgeKind::Merge]) }).collect();
    let deliver = StageId(stages.len() as u32);
    stages.push(StageShape { tasks: 1, inputs, place: Place::Home, replayable: true });
    let splits = random_splits(rng, &stages);
    Graph { shape: GraphShape { stages, results: vec![deliver] }, splits }
}

fn random_stage(rng: &mut Rng, before: &[StageShape], number: u32, fragile: u64) -> StageShape {
    let mut tasks = if rng.percent(4) { 0 } else { rng.within(1..5) as u32 };
    let mut inputs = vec![];
    let edges = if number == 0 { 0 } else { rng.below(3) };
    for _ in 0..edges {
        // Mostly the latest, so that chains get long.
        let from = if rng.percent(60) { number - 1 } else { rng.below(number.into()) as u32 };
        let all = [EdgeKind::Forward, EdgeKind::Hash, EdgeKind::Broadcast, EdgeKind::Gather];
        let kind = match rng.pick(&all) {
            EdgeKind::Forward if inputs.is_empty() => {
                tasks = before[from as usize].tasks;
                EdgeKind::Forward
            }
            EdgeKind::Forward if before[from as usize].tasks == tasks => EdgeKind::Forward,
            EdgeKind::Gather if tasks == 1 => EdgeKind::Gather,
            EdgeKind::Broadcast => EdgeKind::Broadcast,
            EdgeKind::Forward | EdgeKind::Hash | EdgeKind::Gather | EdgeKind::Merge => EdgeKind::Hash,
        };
        inputs.push(Edge { from: StageId(from), kind });
    }
    StageShape { tasks, inputs, place: Place::Anywhere, replayable: !rng.percent(fragile) }
}

fn random_splits(rng: &mut Rng, stages: &[StageShape]) -> BTreeMap<StageId, StageId> {
    let mut splits = BTreeMap::new();
    let forward = |edge: &Edge| edge.kind == EdgeKind::Forward;
    for (number, probe) in stages.iter().enumerate() {
        let id = StageId(number as u32);
        let is_read_forward = stages.iter().flat_map(|s| &s.inputs).any(|e| e.from == id && forward(e));
        if probe.place == Place::Home
            || probe.tasks == 0
            || is_read_forward
            || probe.inputs.iter().any(forward)
        {
            continue;
        }
        for edge in &probe.inputs {
            let is_build = edge.kind == EdgeKind::Broadcast && stages[edge.from.0 as usize].tasks == 1;
            let taken = splits.values().any(|p| *p == id);
            if is_build && !taken && !splits.contains_key(&edge.from) && rng.percent(60) {
                splits.insert(edge.from, id);
            }
        }
    }
    splits
}

/// How the driver takes a stage apart.
pub fn split(rng: &mut Rng, shape: &GraphShape, build: StageId, probe: StageId) -> StageSplit {
    let old = &shape.stages[probe.0 as usize];
    let front = StageId(shape.stages.len() as u32);
    let inputs =
        vec![Edge { from: front, kind: EdgeKind::Hash }, Edge { from: build, kind: EdgeKind::Broadcast }];
    let rest = StageShape { tasks: rng.within(1..5) as u32, inputs, ..old.clone() };
    StageSplit { stage: probe, front: old.clone(), rest }
}

/// How the driver puts a marking stage before one that shares out what it reads: both read the same.
pub fn marked(rng: &mut Rng, shape: &GraphShape, stage: StageId) -> StageSplit {
    let old = &shape.stages[stage.0 as usize];
    let marking = StageId(shape.stages.len() as u32);
    let mut rest = StageShape { tasks: rng.within(1..6) as u32, ..old.clone() };
    rest.inputs.push(Edge { from: marking, kind: EdgeKind::Broadcast });
    StageSplit { stage, front: StageShape { tasks: rng.within(1..4) as u32, ..old.clone() }, rest }
}

/// A stage that reads hash partitions of another, and that may have any number of tasks.
pub fn resizable(shape: &GraphShape, read: StageId) -> Option<StageId> {
    let is_forward = |edge: &Edge| edge.kind == EdgeKind::Forward;
    let ids = (0..shape.stages.len() as u32).map(StageId);
    ids.zip(&shape.stages).find_map(|(id, stage)| {
        let reads_it = stage.inputs.contains(&Edge { from: read, kind: EdgeKind::Hash });
        let feeds_forward =
            shape.stages.iter().flat_map(|s| &s.inputs).any(|e| e.from == id && is_forward(e));
        let is_free = stage.tasks > 0 && !feeds_forward && !stage.inputs.iter().any(is_forward);
        let gathers = stage.inputs.iter().any(|e| matches!(e.kind, EdgeKind::Gather | EdgeKind::Merge));
        (reads_it && is_free && !gathers && stage.place == Place::Anywhere).then_some(id)
    })
}

/// Stages that only stages without tasks read, or such as are themselves read by nobody: once they are gone they are
/// never needed again.
pub fn unread_stages(shape: &GraphShape) -> BTreeSet<StageId> {
    let mut read: BTreeSet<StageId> = BTreeSet::new();
    let mut todo = shape.results.clone();
    while let Some(stage) = todo.pop() {
        if read.insert(stage) && shape.stages[stage.0 as usize].tasks > 0 {
            todo.extend(shape.stages[stage.0 as usize].inputs.iter().map(|e| e.from));
        }
    }
    (0..shape.stages.len() as u32).map(StageId).filter(|s| !read.contains(s)).collect()
}

/// The tasks of the earlier stage that a task reads.
pub fn reads(shape: &GraphShape, edge: &Edge, partition: u32) -> std::ops::Range<u32> {
    match edge.kind {
        EdgeKind::Forward => partition..partition + 1,
        EdgeKind::Hash | EdgeKind::Broadcast | EdgeKind::Gather | EdgeKind::Merge => {
            0..shape.stages[edge.from.0 as usize].tasks
        }
    }
}
