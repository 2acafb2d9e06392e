//! The probe side of a hash join.
//!
//! A batch's keys become codes, the table says which rows match and where. Joins that need no condition
//! and at most one match a row, or only whether there is one, are done with that; all others list
//! candidate pairs, in pieces of about a batch, for [`Pairs`] to deal with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::{HashJoin, JoinKind};

use super::build_shape::is_existence_only;
use super::coalesce::Coalescer;
use super::condition::Condition;
use super::join_table::JoinTable;
use super::keys::CodeScratch;
use super::layout::Layout;
use super::matched::{Countdown, Matched, emit_build_rows};
use super::pairs::Pairs;
use super::table::prefetch;
use super::table::rows::Rows;
use super::table::unchained::Candidates;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::{EngineError, Result};
use crate::expr::{CompiledExpr, compile};
use crate::task::{Downstream, Flow, Operator, OperatorFactory, QueryContext, TaskContext};

/// For `planner::pipeline::Transform::HashJoinProbe`. `tasks` of the stage will open it, all of its
/// branches taken together: the last one to finish hands on what is owed from the build side.
pub fn probe_factory(
    join: &HashJoin,
    probe_schema: &SchemaRef,
    build_schema: &SchemaRef,
    table: Arc<JoinTable>,
    tasks: usize,
) -> Result<Arc<dyn OperatorFactory>> {
    check_null_aware(join)?;
    let layout = Layout::new(join.kind, &join.output, probe_schema, build_schema)?;
    let strategy = Strategy::of(join, &table);
    let matched = join.kind.emits_build_at_end().then(|| {
        Arc::new(Matched::new(match strategy {
            Strategy::MatchValues => table.table.rows().value_bound(),
            _ => table.rows(),
        }))
    });
    Ok(Arc::new(ProbeFactory {
        shared: Arc::new(Shared {
            join: join.clone(),
            probe_schema: probe_schema.clone(),
            layout: Arc::new(layout),
            strategy,
            table,
            matched,
            countdown: Countdown::new(tasks),
        }),
    }))
}

fn check_null_aware(join: &HashJoin) -> Result<()> {
    if !join.null_aware {
        return Ok(());
    }
    if !matches!(join.kind, JoinKind::ProbeAnti | JoinKind::ProbeMark) {
        return Err(EngineError::internal(format!("a null-aware {:?} join", join.kind)));
    }
    if join.keys.len() != 1 || join.residual.is_some() {
        return Err(EngineError::Unsupported(
            "NOT IN with a correlated subquery or several columns".into(),
            "Write it as NOT EXISTS (SELECT ... WHERE inner = outer)".into(),
        ));
    }
    Ok(())
}

struct ProbeFactory {
    shared: Arc<Shared>,
}

/// What all tasks of the stage share.
struct Shared {
    join: HashJoin,
    probe_schema: SchemaRef,
    layout: Arc<Layout>,
    strategy: Strategy,
    table: Arc<JoinTable>,
    matched: Option<Arc<Matched>>,
    countdown: Countdown,
}

/// How a join is done, least work first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    /// Nothing can come out while probing.
    Nothing,
    /// Probe rows that have a match, or those that have none.
    Filter { matching: bool },
    /// All probe rows and whether they have a match.
    Mark,
    /// Remembers which index values were met; nothing comes out while probing.
    MatchValues,
    /// At most one match a row and no condition. `outer`: rows without one stay.
    Unique { outer: bool },
    /// Candidate pairs.
    Pairs,
}

impl Strategy {
    fn of(join: &HashJoin, table: &JoinTable) -> Self {
        use JoinKind::*;
        let keeps_probe_rows = matches!(join.kind, ProbeOuter | Full | ProbeAnti | ProbeMark);
        let not_in_null = join.null_aware && join.kind == ProbeAnti && table.has_null_key;
        if !table.has_codes && !keeps_probe_rows || not_in_null {
            return Strategy::Nothing;
        }
        let unique = table.table.rows().is_unique() && join.residual.is_none();
        match join.kind {
            ProbeSemi | ProbeAnti if is_existence_only(join) => {
                Strategy::Filter { matching: join.kind == ProbeSemi }
            }
            ProbeMark if is_existence_only(join) => Strategy::Mark,
            BuildSemi | BuildAnti if join.residual.is_none() => Strategy::MatchValues,
            Inner | BuildOuter if unique => Strategy::Unique { outer: false },
            ProbeOuter | Full if unique => Strategy::Unique { outer: true },
            _ => Strategy::Pairs,
        }
    }
}

impl OperatorFactory for ProbeFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Operator>> {
        let shared = &self.shared;
        let width = shared.probe_schema.fields().len();
        let condition = shared.join.residual.as_ref().map(|r| Condition::compile(r, width)).transpose()?;
        let pairs = Pairs {
            kind: shared.join.kind,
            layout: shared.layout.clone(),
            build: shared.table.columns.clone(),
            condition,
            matched: shared.matched.clone(),
            flags: vec![],
            coalescer: Coalescer::new(shared.layout.types().to_vec()),
        };
        let keys = shared.join.keys.iter().map(|(probe, _)| compile(probe)).collect::<Result<_>>()?;
        Ok(Box::new(Probe {
            shared: shared.clone(),
            query: task.query.clone(),
            keys,
            pairs,
            scratch: Scratch::default(),
            done: false,
        }))
    }
}

/// One task's probe.
struct Probe {
    shared: Arc<Shared>,
    query: Arc<QueryContext>,
    keys: Vec<CompiledExpr>,
    pairs: Pairs,
    scratch: Scratch,
    /// Nothing more is wanted downstream.
    done: bool,
}

/// Buffers, reused from batch to batch.
#[derive(Default)]
struct Scratch {
    codes: Vec<u64>,
    coding: CodeScratch,
    rows: Vec<u32>,
    values: Vec<u32>,
    candidates: Candidates,
}

/// Larger batches are probed in parts, so that the buffers stay in the cache.
const PROBE_ROWS_MAX: usize = 2 * BATCH_ROWS;
const PREFETCH_AHEAD: usize = 12;

impl Operator for Probe {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        if self.done || self.shared.strategy == Strategy::Nothing {
            return Ok(Flow::Done);
        }
        let mut offset = 0;
        while offset < batch.rows {
            let rows = (batch.rows - offset).min(PROBE_ROWS_MAX);
            let flow = match rows == batch.rows {
                true => self.probe(&batch, out)?,
                false => self.probe(&batch.slice(offset, rows), out)?,
            };
            if flow == Flow::Done {
                self.done = true;
                return Ok(Flow::Done);
            }
            offset += rows;
        }
        Ok(Flow::Continue)
    }

    fn finish(&mut self, out: &mut dyn Downstream) -> Result<()> {
        let shared = &self.shared;
        let last = shared.countdown.finish();
        self.done = self.done || self.pairs.coalescer.flush(out)? == Flow::Done;
        let Some(matched) = shared.matched.as_ref().filter(|_| last && !self.done) else {
            return Ok(());
        };
        let matched_rows = match shared.strategy {
            Strategy::MatchValues => &rows_of_values(matched, shared.table.table.rows(), shared.table.rows()),
            _ => matched.as_ref(),
        };
        let (build, layout) = (&shared.table.columns, &shared.layout);
        emit_build_rows(shared.join.kind, matched_rows, build, layout, &shared.probe_schema, &self.query, out)
    }
}

/// From matched index values to matched rows.
fn rows_of_values(values: &Matched, rows: &Rows, row_count: usize) -> Matched {
    let matched = Matched::new(row_count);
    for value in (0..rows.value_bound() as u32).filter(|&v| values.contains(v)) {
        rows.for_each_row(value, |row| matched.insert(row));
    }
    matched
}

impl Probe {
    fn probe(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let keys: Vec<ArrayRef> =
            self.keys.iter().map(|k| k.evaluate(batch)?.values()).collect::<Result<_>>()?;
        let shared = self.shared.clone();
        let s = &mut self.scratch;
        shared.table.coder.encode(&keys, batch.rows, &mut s.coding, &mut s.codes)?;
        let table = &shared.table.table;
        match shared.strategy {
            Strategy::Nothing => Ok(Flow::Done),
            Strategy::Filter { matching } => {
                table.contains(&s.codes, matching, &mut s.rows, &mut s.candidates);
                if let Some(nulls) = self.nulls_that_count(&keys) {
                    self.scratch.rows.retain(|&row| nulls.is_valid(row as usize));
                }
                self.pairs.emit_probe_rows(batch, self.scratch.rows.clone(), out)
            }
            Strategy::Mark => {
                table.contains(&s.codes, true, &mut s.rows, &mut s.candidates);
                let mark = self.mark(batch.rows, &keys);
                self.pairs.emit_mark(batch, mark, out)
            }
            Strategy::MatchValues => {
                table.find(&s.codes, &mut s.rows, &mut s.values, &mut s.candidates);
                if let Some(matched) = &shared.matched {
                    s.values.iter().for_each(|&value| matched.insert(value));
                }
                Ok(Flow::Continue)
            }
            Strategy::Unique { outer } => {
                table.find(&s.codes, &mut s.rows, &mut s.values, &mut s.candidates);
                table.rows().resolve_unique(&mut s.values);
                if let Some(matched) = &shared.matched {
                    s.values.iter().for_each(|&row| matched.insert(row));
                }
                if outer { self.emit_outer(batch, out) } else { self.emit_unique(batch, out) }
            }
            Strategy::Pairs => {
                table.find(&s.codes, &mut s.rows, &mut s.values, &mut s.candidates);
                self.list_pairs(batch, out)
            }
        }
    }

    /// For NOT IN: the nulls of the only key, if any, unless the build side is empty.
    fn nulls_that_count(&self, keys: &[ArrayRef]) -> Option<NullBuffer> {
        let count = self.shared.join.null_aware && self.shared.table.rows() > 0;
        keys.first().filter(|_| count).and_then(|k| k.logical_nulls()).filter(|n| n.null_count() > 0)
    }

    fn mark(&self, rows: usize, keys: &[ArrayRef]) -> BooleanArray {
        let mut matches = BooleanBufferBuilder::new(rows);
        matches.append_n(rows, false);
        self.scratch.rows.iter().for_each(|&row| matches.set_bit(row as usize, true));
        let matches = matches.finish();
        let nulls = match self.shared.join.null_aware && self.shared.table.has_null_key {
            // Without a match, the build side's null may have been one.
            true => Some(NullBuffer::new(matches.clone())),
            false => self.nulls_that_count(keys),
        };
        BooleanArray::new(matches, nulls)
    }

    fn emit_unique(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let s = &self.scratch;
        if s.rows.is_empty() {
            return Ok(Flow::Continue);
        }
        let probe_rows = Arc::new(UInt32Array::from(s.rows.clone()));
        let build_rows = Arc::new(UInt32Array::from(s.values.clone()));
        self.pairs.emit(batch, &probe_rows, &build_rows, out)
    }

    /// All rows of the batch, in place.
    fn emit_outer(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let s = &self.scratch;
        let build_rows = if s.rows.len() == batch.rows {
            UInt32Array::from(s.values.clone())
        } else {
            let mut build_rows = vec![0; batch.rows];
            let mut valid = BooleanBufferBuilder::new(batch.rows);
            valid.append_n(batch.rows, false);
            for (&row, &build_row) in s.rows.iter().zip(&s.values) {
                build_rows[row as usize] = build_row;
                valid.set_bit(row as usize, true);
            }
            UInt32Array::new(build_rows.into(), Some(NullBuffer::new(valid.finish())))
        };
        self.pairs.emit_in_place(batch, &Arc::new(build_rows), out)
    }

    /// Pairs each row found with the build rows of its value.
    fn list_pairs(&mut self, batch: &Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let shared = self.shared.clone();
        let Scratch { rows, values, .. } = &mut self.scratch;
        self.pairs.begin(batch.rows);
        let Rows::Many { offsets, rows: lists } = shared.table.table.rows() else {
            shared.table.table.rows().resolve_unique(values);
            if self.pairs.push(batch, rows.clone(), values.clone(), out)? == Flow::Done {
                return Ok(Flow::Done);
            }
            return self.pairs.end(batch, out);
        };
        let (mut probe_rows, mut build_rows) = (vec![], vec![]);
        for (i, (&row, &value)) in rows.iter().zip(values.iter()).enumerate() {
            if let Some(&ahead) = values.get(i + 2 * PREFETCH_AHEAD) {
                prefetch(&offsets[ahead as usize]);
            }
            if let Some(&ahead) = values.get(i + PREFETCH_AHEAD) {
                prefetch(lists.as_ptr().wrapping_add(offsets[ahead as usize] as usize));
            }
            let mut list = &lists[offsets[value as usize] as usize..offsets[value as usize + 1] as usize];
            while !list.is_empty() {
                if build_rows.len() == BATCH_ROWS {
                    self.query.check_cancelled()?;
                    let full = (std::mem::take(&mut probe_rows), std::mem::take(&mut build_rows));
                    if self.pairs.push(batch, full.0, full.1, out)? == Flow::Done {
                        return Ok(Flow::Done);
                    }
                    if self.pairs.is_settled(row) {
                        break;
                    }
                }
                if build_rows.is_empty() {
                    probe_rows.reserve(BATCH_ROWS);
                    build_rows.reserve(BATCH_ROWS);
                }
                let (now, later) = list.split_at(list.len().min(BATCH_ROWS - build_rows.len()));
                // Most lists are short: a loop is cheaper than a call.
                for &build_row in now {
                    probe_rows.push(row);
                    build_rows.push(build_row);
                }
                list = later;
            }
        }
        if !build_rows.is_empty() && self.pairs.push(batch, probe_rows, build_rows, out)? == Flow::Done {
            return Ok(Flow::Done);
        }
        self.pairs.end(batch, out)
    }
}
