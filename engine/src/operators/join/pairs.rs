//! What becomes of candidate pairs, for every kind of join.
//!
//! A join calls [`Pairs::begin`] for a probe batch, [`Pairs::push`] with candidate pairs in as many
//! pieces as it likes, and [`Pairs::end`]. Pairs that fail the condition count for nothing.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use dovetail_planner::physical::JoinKind;

use super::build_columns::BuildColumns;
use super::coalesce::Coalescer;
use super::condition::Condition;
use super::layout::Layout;
use super::matched::Matched;
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::task::{Downstream, Flow};

/// One task's state.
pub struct Pairs {
    pub kind: JoinKind,
    pub layout: Arc<Layout>,
    pub build: Arc<BuildColumns>,
    pub condition: Option<Condition>,
    /// Build rows with a match, for kinds that ask for them.
    pub matched: Option<Arc<Matched>>,
    /// Probe rows of this batch with a match, for kinds that ask for them.
    pub flags: Vec<bool>,
    pub coalescer: Coalescer,
}

impl Pairs {
    /// A new probe batch.
    pub fn begin(&mut self, rows: usize) {
        self.flags.clear();
        if self.flags_probe_rows() {
            self.flags.resize(rows, false);
        }
    }

    /// No further pair of this probe row can change anything.
    pub fn is_settled(&self, probe_row: u32) -> bool {
        use JoinKind::*;
        matches!(self.kind, ProbeSemi | ProbeAnti | ProbeMark) && self.flags[probe_row as usize]
    }

    fn flags_probe_rows(&self) -> bool {
        use JoinKind::*;
        matches!(self.kind, ProbeOuter | Full | ProbeSemi | ProbeAnti | ProbeMark)
    }

    /// Candidate pairs of `batch`'s rows and build rows, of equal length.
    pub fn push(
        &mut self,
        batch: &Batch,
        mut probe_rows: Vec<u32>,
        mut build_rows: Vec<u32>,
        out: &mut dyn Downstream,
    ) -> Result<Flow> {
        if let (JoinKind::BuildSemi | JoinKind::BuildAnti, Some(matched)) = (self.kind, &self.matched) {
            // One match is as good as two.
            let open = |(_, b): &(u32, u32)| !matched.contains(*b);
            (probe_rows, build_rows) = probe_rows.into_iter().zip(build_rows).filter(open).unzip();
        }
        let mut probe_rows = Arc::new(UInt32Array::from(probe_rows));
        let mut build_rows = Arc::new(UInt32Array::from(build_rows));
        if let Some(condition) = &self.condition
            && !probe_rows.is_empty()
            && let Some(passed) = condition.select(batch, &self.build, &probe_rows, &build_rows)?
        {
            probe_rows = Arc::new(pick(&probe_rows, &passed));
            build_rows = Arc::new(pick(&build_rows, &passed));
        }
        if let Some(matched) = &self.matched {
            build_rows.values().iter().for_each(|&row| matched.insert(row));
        }
        if self.flags_probe_rows() {
            probe_rows.values().iter().for_each(|&row| self.flags[row as usize] = true);
        }
        if self.kind.emits_both() && !probe_rows.is_empty() {
            self.emit(batch, &probe_rows, &build_rows, out)
        } else {
            Ok(Flow::Continue)
        }
    }

    /// Hands on joined rows; null build rows give nulls.
    pub fn emit(
        &mut self,
        batch: &Batch,
        probe_rows: &Arc<UInt32Array>,
        build_rows: &Arc<UInt32Array>,
        out: &mut dyn Downstream,
    ) -> Result<Flow> {
        let picked = self.layout.pick(batch);
        let picked = if is_identity(probe_rows, batch.rows) { picked } else { picked.select(probe_rows) };
        self.coalescer.push(self.layout.assemble(&picked, |c| self.build.column(c, build_rows), None), out)
    }

    /// Hands on all rows of a batch, each with one build row or nulls.
    pub fn emit_in_place(
        &mut self,
        batch: &Batch,
        build_rows: &Arc<UInt32Array>,
        out: &mut dyn Downstream,
    ) -> Result<Flow> {
        let picked = self.layout.pick(batch);
        self.coalescer.push(self.layout.assemble(&picked, |c| self.build.column(c, build_rows), None), out)
    }

    /// The batch's last pair has been pushed: what is owed for its probe rows.
    pub fn end(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        match self.kind {
            JoinKind::ProbeOuter | JoinKind::Full => {
                let rows = self.flagged(false);
                if rows.is_empty() {
                    return Ok(Flow::Continue);
                }
                let build_rows = Arc::new(UInt32Array::new_null(rows.len()));
                self.emit(batch, &Arc::new(UInt32Array::from(rows)), &build_rows, out)
            }
            JoinKind::ProbeSemi => self.emit_probe_rows(batch, self.flagged(true), out),
            JoinKind::ProbeAnti => self.emit_probe_rows(batch, self.flagged(false), out),
            JoinKind::ProbeMark => {
                let mark = BooleanArray::new(BooleanBuffer::from_iter(self.flags.iter().copied()), None);
                self.emit_mark(batch, mark, out)
            }
            JoinKind::Inner | JoinKind::BuildOuter | JoinKind::BuildSemi | JoinKind::BuildAnti => {
                Ok(Flow::Continue)
            }
        }
    }

    fn flagged(&self, wanted: bool) -> Vec<u32> {
        (0..).zip(&self.flags).filter(|(_, f)| **f == wanted).map(|(row, _)| row).collect()
    }

    /// Hands on some rows of a batch without any of the build side.
    pub fn emit_probe_rows(
        &mut self,
        batch: &Batch,
        rows: Vec<u32>,
        out: &mut dyn Downstream,
    ) -> Result<Flow> {
        if rows.is_empty() {
            return Ok(Flow::Continue);
        }
        let picked = self.layout.pick(batch);
        let picked =
            if rows.len() == batch.rows { picked } else { picked.select(&Arc::new(UInt32Array::from(rows))) };
        self.coalescer
            .push(self.layout.assemble(&picked, |_| unreachable!("invariant: no build columns"), None), out)
    }

    /// Hands on all rows of a batch with a mark.
    pub fn emit_mark(&mut self, batch: &Batch, mark: BooleanArray, out: &mut dyn Downstream) -> Result<Flow> {
        let mark = Some(Column::new(Arc::new(mark)));
        let picked = self.layout.pick(batch);
        self.coalescer
            .push(self.layout.assemble(&picked, |_| unreachable!("invariant: no build columns"), mark), out)
    }
}

fn pick(rows: &UInt32Array, selection: &UInt32Array) -> UInt32Array {
    let values = rows.values();
    UInt32Array::from_iter_values(selection.values().iter().map(|&i| values[i as usize]))
}

/// The rows are all rows of a batch, in order.
fn is_identity(rows: &UInt32Array, batch_rows: usize) -> bool {
    rows.len() == batch_rows && rows.values().iter().zip(0..).all(|(&row, i)| row == i)
}
