//! What all probing tasks of a join share: which build rows have met a match, and how many tasks are
//! still probing. The last one hands on what the join owes from the build side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::JoinKind;

use super::build_columns::BuildColumns;
use super::layout::Layout;
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::Result;
use crate::task::{Downstream, Flow, QueryContext};

/// A set of small numbers that many threads add to.
pub struct Matched {
    words: Vec<AtomicU64>,
}

impl Matched {
    pub fn new(bound: usize) -> Self {
        Matched { words: (0..bound.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Reads before it writes: what is set already costs no exclusive cache line.
    pub fn insert(&self, number: u32) {
        let word = &self.words[number as usize / 64];
        let bit = 1 << (number % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub fn contains(&self, number: u32) -> bool {
        self.words[number as usize / 64].load(Ordering::Relaxed) >> (number % 64) & 1 != 0
    }
}

/// Tasks that have not finished probing.
pub struct Countdown {
    remaining: AtomicUsize,
}

impl Countdown {
    pub fn new(tasks: usize) -> Self {
        Countdown { remaining: AtomicUsize::new(tasks) }
    }

    /// Called once by each task. True for the last one, which then sees all that the others did.
    pub fn finish(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Hands on build rows after all probing: those with a match for BuildSemi, else those without.
pub fn emit_build_rows(
    kind: JoinKind,
    matched: &Matched,
    build: &BuildColumns,
    layout: &Layout,
    probe_schema: &SchemaRef,
    query: &QueryContext,
    out: &mut dyn Downstream,
) -> Result<()> {
    let wanted = kind == JoinKind::BuildSemi;
    let mut wanted_rows = (0..build.rows() as u32).filter(|&row| matched.contains(row) == wanted);
    loop {
        query.check_cancelled()?;
        let rows: Vec<u32> = wanted_rows.by_ref().take(BATCH_ROWS).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let rows = Arc::new(UInt32Array::from(rows));
        let nulls = |&c: &usize| Column::new(new_null_array(probe_schema.field(c).data_type(), rows.len()));
        let picked = Batch { columns: layout.probe_columns().iter().map(nulls).collect(), rows: rows.len() };
        if out.push(layout.assemble(&picked, |c| build.column(c, &rows), None))? == Flow::Done {
            return Ok(());
        }
    }
}
