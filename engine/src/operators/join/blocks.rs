//! Build rows that hash alike and do not fit in memory: taken in blocks, each of which meets all probe rows.
//!
//! Pairs come out block by block, and so do build rows that the join owes. Whether a probe row has a match is
//! known after the last block: rows without one so far go from block to block ([`JoinKind::ProbeMark`] tells
//! them), and what is left then is handed on through an empty table, which is what they have met.

use std::sync::Arc;

use arrow::array::{AsArray, UInt32Array};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{HashJoin, JoinKind};
use dovetail_shuffle::memory::HeldMemory;

use super::build_rows::hold;
use super::build_shape::is_existence_only;
use super::join_table::JoinTable;
use super::partitioned::{Probing, Watched, push_all};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::exchange::{ExchangeOutput, ExchangeReader, ExchangeWriter};
use crate::memory::{Spillable, readable};
use crate::operators::collect::gathered;
use crate::task::{Downstream, Flow};

/// What errors and files call probe rows that have met no match yet.
const UNMATCHED_NAME: &str = "unmatched rows of a join";

/// Joins the rest of `build` with the probe rows of a part.
pub(super) fn join(
    probing: &Probing,
    mut build: ExchangeReader,
    probe: &Arc<ExchangeOutput>,
    part: usize,
    out: &mut Watched<'_>,
) -> Result<()> {
    // From disk they can be read as often as there are blocks.
    probe.spill()?;
    let all = || ExchangeReader::new(0, vec![probe.clone()], part);
    let pairs = match probing.join.kind {
        JoinKind::ProbeOuter => Some(of_kind(&probing.join, JoinKind::Inner)),
        JoinKind::Full => Some(of_kind(&probing.join, JoinKind::BuildOuter)),
        JoinKind::Inner | JoinKind::BuildOuter | JoinKind::BuildSemi | JoinKind::BuildAnti => {
            Some(probing.join.clone())
        }
        JoinKind::ProbeSemi | JoinKind::ProbeAnti | JoinKind::ProbeMark => None,
    };
    let mark = keeps_probe_rows(probing.join.kind).then(|| mark_join(probing));
    let mut unmatched: Option<Arc<ExchangeOutput>> = None;
    while let Some(table) = next_table(probing, &mut build)? {
        let table = Arc::new(table);
        if let Some(pairs) = &pairs {
            push_all(probing.open_shared(pairs, table.clone())?.as_mut(), all(), out)?;
            if out.done {
                return Ok(());
            }
        }
        if let Some(mark) = &mark {
            let mut sieve = Sieve {
                join: &probing.join,
                width: probing.probe_width(),
                unmatched: ExchangeWriter::new(&probing.task, UNMATCHED_NAME, 1),
                out,
            };
            let mut operator = probing.open_shared(mark, table)?;
            let rows: Box<dyn Iterator<Item = Result<Batch>>> = match unmatched.take() {
                None => Box::new(all()),
                Some(rows) => Box::new(ExchangeReader::new(0, vec![rows], 0)),
            };
            for batch in rows {
                probing.task.query.check_cancelled()?;
                if operator.push(batch?, &mut sieve)? == Flow::Done {
                    break;
                }
            }
            operator.finish(&mut sieve)?;
            let rows = sieve.unmatched;
            if out.done {
                return Ok(());
            }
            unmatched = Some(rows.finish()?);
        }
    }
    match unmatched.filter(|_| probing.join.kind != JoinKind::ProbeSemi) {
        Some(rows) => {
            let mut operator = probing.open_empty()?;
            push_all(operator.as_mut(), ExchangeReader::new(0, vec![rows], 0), out)
        }
        None => Ok(()),
    }
}

fn keeps_probe_rows(kind: JoinKind) -> bool {
    use JoinKind::*;
    matches!(kind, ProbeOuter | Full | ProbeSemi | ProbeAnti | ProbeMark)
}

fn of_kind(join: &HashJoin, kind: JoinKind) -> HashJoin {
    HashJoin { kind, ..join.clone() }
}

/// All probe columns, and whether the row has a match.
fn mark_join(probing: &Probing) -> HashJoin {
    let output = (0..=probing.probe_width()).collect();
    let mut join = HashJoin { kind: JoinKind::ProbeMark, output, ..probing.join.clone() };
    // A table that was made to find rows is asked for rows: with a condition, if only a true one.
    if !is_existence_only(&probing.join) {
        join.residual.get_or_insert_with(|| Expr::literal(ScalarValue::Boolean(Some(true))));
    }
    join
}

/// As many build rows as fit, one batch at least; none at the end.
fn next_table(probing: &Probing, build: &mut ExchangeReader) -> Result<Option<JoinTable>> {
    let mut memory = probing.reserve();
    let (mut batches, mut held, mut rows) = (vec![], HeldMemory::default(), 0);
    while let Some(batch) = build.next().transpose()? {
        probing.task.query.check_cancelled()?;
        hold(&mut held, &batch);
        rows += batch.rows;
        batches.push(batch);
        if memory.resize(probing.table_bytes(held.bytes(), rows)) {
            break;
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let table = probing.table(&mut batches, held.bytes(), memory)?;
    let limit = &probing.task.query.memory;
    table.map(Some).ok_or_else(|| {
        EngineError::Resources(format!(
            "a join needs {} for a block of its build side; {} is {}. Raise {}",
            readable(held.bytes() as u64),
            limit.scope().name(),
            readable(limit.limit_bytes() as u64),
            limit.scope().flag(),
        ))
    })
}

/// Receives marked probe rows: keeps those without a match, and hands on what is settled.
struct Sieve<'a, 'b> {
    join: &'a HashJoin,
    /// Number of probe columns; the mark is behind them.
    width: usize,
    unmatched: ExchangeWriter,
    out: &'a mut Watched<'b>,
}

impl Downstream for Sieve<'_, '_> {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        let mark = batch.columns[self.width].values()?;
        let mark = mark.as_boolean();
        let rows = |wanted: bool| {
            let rows = (0..mark.len()).filter(|&i| mark.value(i) == wanted).map(|i| i as u32);
            Arc::new(UInt32Array::from_iter_values(rows))
        };
        let without = rows(false);
        if !without.is_empty() {
            let columns = batch.columns[..self.width].to_vec();
            let unmatched = Batch { columns, rows: batch.rows }.select(&without);
            self.unmatched.push(0, &gathered(&unmatched)?)?;
            if self.unmatched.must_spill(0) {
                self.unmatched.spill(0)?;
            }
        }
        let hands_on = matches!(self.join.kind, JoinKind::ProbeSemi | JoinKind::ProbeMark);
        let with = rows(true);
        if !hands_on || with.is_empty() {
            return Ok(Flow::Continue);
        }
        let columns = self.join.output.iter().map(|&position| batch.columns[position].clone()).collect();
        self.out.push(Batch { columns, rows: batch.rows }.select(&with))
    }
}
