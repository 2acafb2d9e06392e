//! A join's residual condition, evaluated over candidate pairs. Only the columns that it reads are
//! gathered.

use std::sync::Arc;

use arrow::array::UInt32Array;
use dovetail_planner::expr::Expr;

use super::build_columns::BuildColumns;
use crate::batch::Batch;
use crate::error::Result;
use crate::expr::Predicate;

/// A condition over the probe side's columns, then the build side's.
pub struct Condition {
    predicate: Predicate,
    probe: Vec<usize>,
    /// Counted within the build side.
    build: Vec<usize>,
}

impl Condition {
    pub fn compile(condition: &Expr, probe_width: usize) -> Result<Self> {
        let columns = condition.columns();
        let mut local = condition.clone();
        local.remap(&|i| columns.binary_search(&i).expect("invariant: columns() lists every column"));
        let (probe, build) = columns.iter().partition::<Vec<usize>, _>(|&&c| c < probe_width);
        let build = build.into_iter().map(|c| c - probe_width).collect();
        Ok(Condition { predicate: Predicate::compile(&local)?, probe, build })
    }

    /// Build columns that a condition reads, counted within the build side.
    pub fn build_columns(condition: &Expr, probe_width: usize) -> Vec<usize> {
        condition.columns().into_iter().filter_map(|c| c.checked_sub(probe_width)).collect()
    }

    /// Which of the pairs pass; none: all of them.
    pub fn select(
        &self,
        probe: &Batch,
        build: &BuildColumns,
        probe_rows: &Arc<UInt32Array>,
        build_rows: &Arc<UInt32Array>,
    ) -> Result<Option<Arc<UInt32Array>>> {
        let columns = self.probe.iter().map(|&c| probe.columns[c].clone()).collect();
        let mut pairs = Batch { columns, rows: probe.rows }.select(probe_rows);
        pairs.columns.extend(self.build.iter().map(|&c| build.column(c, build_rows)));
        self.predicate.select(&pairs)
    }
}
