//! Joins on any condition, or none: every probe row meets every build row.
//!
//! Pairs are listed in pieces of about a batch: several probe rows with all build rows while these are
//! few, else one probe row with a stretch of build rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::{JoinKind, NestedLoopJoin};

use super::build_columns::BuildColumns;
use super::coalesce::Coalescer;
use super::condition::Condition;
use super::layout::Layout;
use super::matched::{Countdown, Matched, emit_build_rows};
use super::pairs::Pairs;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::memory::Reservation;
use crate::task::{Downstream, Flow, Operator, OperatorFactory, QueryContext, TaskContext};

/// For `planner::pipeline::Transform::NestedLoopJoin`; `build` holds all rows of the build side, which
/// `memory` counts. `tasks`
/// as in [`super::probe_factory`].
pub fn nested_loop_factory(
    join: &NestedLoopJoin,
    probe_schema: &SchemaRef,
    build_schema: &SchemaRef,
    build: Vec<Batch>,
    memory: Reservation,
    tasks: usize,
) -> Result<Arc<dyn OperatorFactory>> {
    let layout = Layout::new(join.kind, &join.output, probe_schema, build_schema)?;
    let probe_width = probe_schema.fields().len();
    let mut read = join.condition.as_ref().map_or(vec![], |c| Condition::build_columns(c, probe_width));
    read.extend(layout.build_columns());
    read.sort_unstable();
    read.dedup();
    let narrow =
        |b: Batch| Batch { columns: read.iter().map(|&c| b.columns[c].clone()).collect(), rows: b.rows };
    let build = BuildColumns::concat(build.into_iter().map(narrow).collect(), &read, build_schema)?;
    let matched = join.kind.emits_build_at_end().then(|| Arc::new(Matched::new(build.rows())));
    Ok(Arc::new(NestedLoopFactory {
        shared: Arc::new(Shared {
            join: join.clone(),
            probe_schema: probe_schema.clone(),
            layout: Arc::new(layout),
            build: Arc::new(build),
            matched,
            countdown: Countdown::new(tasks),
            _memory: memory,
        }),
    }))
}

struct NestedLoopFactory {
    shared: Arc<Shared>,
}

/// What all tasks of the stage share.
struct Shared {
    _memory: Reservation,
    join: NestedLoopJoin,
    probe_schema: SchemaRef,
    layout: Arc<Layout>,
    build: Arc<BuildColumns>,
    matched: Option<Arc<Matched>>,
    countdown: Countdown,
}

impl OperatorFactory for NestedLoopFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Operator>> {
        let shared = &self.shared;
        let width = shared.probe_schema.fields().len();
        let condition = shared.join.condition.as_ref().map(|c| Condition::compile(c, width)).transpose()?;
        let pairs = Pairs {
            kind: shared.join.kind,
            layout: shared.layout.clone(),
            build: shared.build.clone(),
            condition,
            matched: shared.matched.clone(),
            flags: vec![],
            coalescer: Coalescer::new(shared.layout.types().to_vec()),
        };
        Ok(Box::new(NestedLoop { shared: shared.clone(), query: task.query.clone(), pairs, done: false }))
    }
}

/// One task's loop.
struct NestedLoop {
    shared: Arc<Shared>,
    query: Arc<QueryContext>,
    pairs: Pairs,
    /// Nothing more is wanted downstream.
    done: bool,
}

impl Operator for NestedLoop {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        use JoinKind::*;
        let keeps_probe_rows = matches!(self.shared.join.kind, ProbeOuter | Full | ProbeAnti | ProbeMark);
        if self.done || self.shared.build.rows() == 0 && !keeps_probe_rows {
            return Ok(Flow::Done);
        }
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        self.pairs.begin(batch.rows);
        let mut flow = self.pair_up(&batch, out)?;
        if flow == Flow::Continue {
            flow = self.pairs.end(&batch, out)?;
        }
        self.done = flow == Flow::Done;
        Ok(flow)
    }

    fn finish(&mut self, out: &mut dyn Downstream) -> Result<()> {
        let shared = &self.shared;
        let last = shared.countdown.finish();
        self.done = self.done || self.pairs.coalescer.flush(out)? == Flow::Done;
        let Some(matched) = shared.matched.as_ref().filter(|_| last && !self.done) else {
            return Ok(());
        };
        let (build, layout) = (&shared.build, &shared.layout);
        emit_build_rows(shared.join.kind, matched, build, layout, &shared.probe_schema, &self.query, out)
    }
}

impl NestedLoop {
    fn pair_up(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let build_rows = self.shared.build.rows() as u32;
        if !self.shared.join.kind.emits_both() && self.shared.join.condition.is_none() {
            self.match_all(build_rows);
            return Ok(Flow::Continue);
        }
        let batch_rows = batch.rows as u32;
        let probe_step = (BATCH_ROWS as u32 / build_rows.max(1)).max(1);
        for probe_start in (0..batch_rows).step_by(probe_step as usize) {
            let probe_end = (probe_start + probe_step).min(batch_rows);
            // Either there are several probe rows, or several stretches of build rows, never both.
            for build_start in (0..build_rows).step_by(BATCH_ROWS) {
                let build_end = build_rows.min(build_start + BATCH_ROWS as u32);
                if probe_step == 1 && self.pairs.is_settled(probe_start) {
                    break;
                }
                self.query.check_cancelled()?;
                let pairs =
                    (probe_start..probe_end).flat_map(|p| (build_start..build_end).map(move |b| (p, b)));
                let (probe, build) = pairs.unzip();
                if self.pairs.push(batch, probe, build, out)? == Flow::Done {
                    return Ok(Flow::Done);
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Without a condition, and if only existence counts, nothing need be paired.
    fn match_all(&mut self, build_rows: u32) {
        self.pairs.flags.fill(build_rows > 0);
        if let Some(matched) = &self.pairs.matched {
            (0..build_rows).for_each(|row| matched.insert(row));
        }
    }
}
