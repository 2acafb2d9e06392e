//! The tests that a row must pass: the scan's conjuncts, and the filters of finished join builds.
//!
//! Each conjunct is compiled against a batch of its own columns alone, so that it can be evaluated on a
//! window of rows, or on the entries of a dictionary, without any other column.

use std::sync::{Arc, OnceLock};

use arrow::array::{UInt32Array, new_null_array};
use arrow::datatypes::DataType;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::Scan;

use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use crate::expr::{Predicate, can_fail, is_volatile};
use crate::scan::experience::{Experience, Record};
use crate::scan::pruning::is_prunable;
use crate::scan::runtime_filter::{RuntimeFilter, RuntimeFilters};

/// All tests of a scan, in the plan's order, and what has been learnt of them.
pub struct Steps {
    pub conjuncts: Vec<Conjunct>,
    pub runtime: Vec<RuntimeUse>,
    published: Arc<dyn RuntimeFilters>,
    pub experience: Arc<Experience>,
}

/// One conjunct. A clone learns on its own, so each task has one.
#[derive(Clone)]
pub struct Conjunct {
    /// Positions in the scan's columns of what it reads, ascending.
    pub columns: Vec<usize>,
    /// The conjunct over a batch of just these columns.
    pub expr: Expr,
    /// It can raise an error on some row: it must not see rows that others drop.
    pub can_fail: bool,
    /// It may be evaluated once for each value of its only column.
    pub by_value: bool,
    /// Statistics could prove that no row passes.
    pub prunable: bool,
    predicate: Predicate,
    /// What it says of a row whose only column is null; none: an error.
    null_passes: OnceLock<Option<bool>>,
}

/// One use of a runtime filter.
pub struct RuntimeUse {
    pub id: u32,
    /// Position in the scan's columns of the key.
    pub column: usize,
}

impl Steps {
    /// Compiles the scan's filters.
    pub fn compile(
        scan: &Scan,
        published: Arc<dyn RuntimeFilters>,
        experience: Arc<Experience>,
    ) -> Result<Steps> {
        let conjuncts = scan.filters.iter().map(|f| Conjunct::compile(f, scan.columns.len()));
        let conjuncts = conjuncts.collect::<Result<Vec<_>>>()?;
        let runtime: Vec<_> =
            scan.runtime_filters.iter().map(|u| RuntimeUse { id: u.id, column: u.column }).collect();
        Ok(Steps { conjuncts, runtime, published, experience })
    }

    /// What is known of the test with a number: conjuncts first, then runtime filters.
    pub fn record(&self, number: usize) -> &Record {
        &self.experience.tests[number]
    }

    /// The runtime filters that have been published by now and that are worth a test, by their place in
    /// `runtime`.
    pub fn published(&self) -> Vec<(usize, Arc<RuntimeFilter>)> {
        (0..self.runtime.len())
            .filter(|i| !self.record(self.conjuncts.len() + i).keeps_most())
            .filter_map(|i| Some((i, self.published.get(self.runtime[i].id)?)))
            .filter(|(_, filter)| !filter.passes_all())
            .collect()
    }

    /// Positions in the scan's columns of what the conjuncts and these runtime filters read.
    pub fn columns(&self, published: &[(usize, Arc<RuntimeFilter>)]) -> Vec<usize> {
        let of_filters = published.iter().map(|(i, _)| self.runtime[*i].column);
        let mut all: Vec<usize> =
            self.conjuncts.iter().flat_map(|c| c.columns.iter().copied()).chain(of_filters).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The rows of a batch of all of the scan's columns that pass everything.
    pub fn apply(&self, conjuncts: &[Conjunct], mut batch: Batch) -> Result<Batch> {
        let (fallible, sure): (Vec<_>, Vec<_>) = conjuncts.iter().partition(|c| c.can_fail);
        for conjunct in sure.into_iter().chain(fallible) {
            if batch.rows == 0 {
                return Ok(batch);
            }
            let columns = conjunct.columns.iter().map(|c| batch.columns[*c].clone()).collect();
            if let Some(rows) = conjunct.select(&Batch { columns, rows: batch.rows })? {
                batch = batch.select(&rows);
            }
        }
        for (i, filter) in self.published() {
            if batch.rows == 0 {
                return Ok(batch);
            }
            if let Some(rows) = filter.select(&batch.columns[self.runtime[i].column].values()?) {
                batch = batch.select(&Arc::new(rows));
            }
        }
        Ok(batch)
    }
}

impl Conjunct {
    fn compile(filter: &Expr, columns: usize) -> Result<Conjunct> {
        let used = filter.columns();
        if used.last().is_some_and(|c| *c >= columns) {
            return Err(EngineError::internal("a scan's filter reads a column that the scan does not"));
        }
        let mut expr = filter.clone();
        expr.remap(&|c| used.binary_search(&c).expect("invariant: a column of the expression"));
        let predicate = Predicate::compile(&expr)?;
        Ok(Conjunct {
            can_fail: can_fail(&expr),
            by_value: used.len() == 1 && !is_volatile(&expr),
            prunable: !can_fail(&expr) && is_prunable(&expr),
            columns: used,
            expr,
            predicate,
            null_passes: OnceLock::new(),
        })
    }

    /// The rows for which the conjunct is true, ascending; none if it is for all. The batch has just the
    /// conjunct's columns.
    pub fn select(&self, batch: &Batch) -> Result<Option<Arc<UInt32Array>>> {
        self.predicate.select(batch)
    }

    /// Whether a row whose only column, of a physical type, is null passes; none: that is an error.
    pub fn null_passes(&self, physical: &DataType) -> Option<bool> {
        *self.null_passes.get_or_init(|| {
            let null = Column::new(new_null_array(physical, 1));
            let kept = self.select(&Batch { columns: vec![null], rows: 1 }).ok()?;
            Some(kept.is_none_or(|rows| rows.len() == 1))
        })
    }
}
