//! Recursive common table expressions: the static term once, then the recursive term on what the round
//! before produced, until a round produces nothing.
//!
//! Both terms are task graphs of their own, run by the synchronous driver inside one task.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::row::{OwnedRow, RowConverter, SortField};
use dovetail_planner::physical::Recursive;
use dovetail_planner::pipeline::QueryGraph;

use super::QueryRun;
use super::inputs::{StageInputs, rows_in_memory};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::HeldBatches;
use crate::operators::collect;
use crate::scheduler::synchronous;
use crate::task::Source;

/// Rounds before a recursive query is taken for one that never ends.
const ROUNDS_MAX: usize = 100_000;

/// What errors call it.
const NAME: &str = "a recursive query";

/// Runs a recursive query to its end; the source hands out all its rows.
pub fn source(
    query: &dyn StageInputs,
    recursive: &Recursive,
    seed: &QueryGraph,
    step: &QueryGraph,
) -> Result<Box<dyn Source>> {
    let schema = seed.stages[seed.results[0].0 as usize].work.sink_schema.clone();
    let mut seen = recursive.distinct.then(|| Seen::new(&schema)).transpose()?;
    let mut all = vec![];
    let mut held = HeldBatches::of_query(query.context(), NAME);
    let mut round = run(query, seed, recursive.id, vec![])?;
    for _ in 0..ROUNDS_MAX {
        query.context().check_cancelled()?;
        // The two terms' columns may have different physical forms: rows are made logical here.
        round =
            round.iter().map(|b| b.to_record_batch(&schema).map(Batch::from)).collect::<Result<Vec<_>>>()?;
        if let Some(seen) = &mut seen {
            round = round.iter().map(|b| seen.keep_new(b)).collect::<Result<Vec<_>>>()?;
        }
        round.retain(|b| b.rows > 0);
        if round.is_empty() {
            return Ok(collect::source(all));
        }
        round.iter().try_for_each(|batch| held.add(batch))?;
        all.extend(round.iter().cloned());
        round = run(query, step, recursive.id, round)?;
    }
    Err(EngineError::Resources(format!(
        "a recursive query has not ended after {ROUNDS_MAX} rounds; add a condition that ends it, or a LIMIT \
         inside its recursive term"
    )))
}

fn run(query: &dyn StageInputs, graph: &QueryGraph, id: u32, work_table: Vec<Batch>) -> Result<Vec<Batch>> {
    let mut work_tables = query.work_tables().clone();
    work_tables.insert(id, work_table);
    let inner = QueryRun::with_tables(
        graph,
        query.catalog().clone(),
        query.memory_tables(),
        query.context().clone(),
        work_tables,
    );
    inner.parameters.lock().extend(query.parameters());
    synchronous::run(graph, &inner)?;
    Ok(rows_in_memory(&inner, graph.results[0], NAME, true)?.0)
}

/// The rows that a UNION (without ALL) has produced so far.
struct Seen {
    converter: RowConverter,
    rows: HashSet<OwnedRow>,
}

impl Seen {
    fn new(schema: &arrow::datatypes::SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Seen { converter: RowConverter::new(fields)?, rows: HashSet::new() })
    }

    fn keep_new(&mut self, batch: &Batch) -> Result<Batch> {
        let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<Vec<_>>>()?;
        let rows = self.converter.convert_columns(&columns)?;
        let kept = (0..batch.rows).filter(|&i| self.rows.insert(rows.row(i).owned())).map(|i| i as u32);
        batch.select(&Arc::new(UInt32Array::from_iter_values(kept))).gathered()
    }
}
