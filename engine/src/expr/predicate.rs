//! The condition of a filter, a scan or a join, evaluated to row numbers.
//!
//! Conjuncts run one after the other, each on the rows that the ones before it left. Those that cannot
//! fail come first, in an order learnt from the data: by the time a row costs per row that is dropped.
//! Those that can fail follow in the order of the text, so that all that may guard them has run.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::UInt32Array;
use dovetail_planner::expr::Expr;
use parking_lot::Mutex;

use super::compile::Compiler;
use super::filter::{Candidates, Filter, conjuncts};
use super::pick;
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// A compiled condition. A clone shares what was compiled and learns on its own: best, one per task.
pub struct Predicate {
    filters: Arc<[Box<dyn Filter>]>,
    /// Positions in the batch of the columns that the filters know as 0, 1, ...
    columns: Arc<[usize]>,
    learnt: Mutex<Learnt>,
}

/// Batches between two looks at the order.
const LESSON: u32 = 16;

/// What batches showed so far.
#[derive(Clone)]
struct Learnt {
    order: Vec<usize>,
    /// By number of the filter.
    records: Vec<Record>,
    batches: u32,
}

#[derive(Clone, Copy, Default)]
struct Record {
    nanos: f64,
    rows: f64,
    dropped: f64,
}

impl Record {
    /// Nanoseconds per dropped row. What has never run is dear: others dropped every row before it.
    fn price(&self) -> f64 {
        if self.rows == 0.0 {
            return f64::INFINITY;
        }
        self.nanos / self.dropped.max(self.rows / 1000.0).max(1e-3)
    }
}

impl Predicate {
    /// Compiles a condition. Parameters must have been bound.
    pub fn compile(expr: &Expr) -> Result<Self> {
        let data_type = expr.data_type();
        if !matches!(data_type, arrow::datatypes::DataType::Boolean | arrow::datatypes::DataType::Null) {
            return Err(EngineError::internal(format!("a condition of type {data_type}")));
        }
        let columns = expr.columns();
        let mut local = expr.clone();
        local.remap(&|i| columns.binary_search(&i).expect("invariant: columns() lists every column"));
        let filters: Arc<[_]> = conjuncts(&Compiler::new(), &local)?.into();
        let learnt = Learnt {
            order: (0..filters.len()).collect(),
            records: vec![Record::default(); filters.len()],
            batches: 0,
        };
        Ok(Predicate { filters, columns: columns.into(), learnt: Mutex::new(learnt) })
    }

    /// Numbers of the rows for which the predicate is true, ascending. None: all rows.
    pub fn select(&self, batch: &Batch) -> Result<Option<Arc<UInt32Array>>> {
        if batch.rows == 0 {
            return Ok(None);
        }
        let input = pick(batch, &self.columns)?;
        // Evaluated without the lock, so that tasks that share a predicate do not wait for each other.
        let order = self.learnt.lock().order.clone();
        let mut seen = Vec::with_capacity(order.len());
        let mut left = Candidates::All;
        let mut before = batch.rows;
        for number in order {
            let start = Instant::now();
            left.apply(self.filters[number].as_ref(), &input)?;
            let nanos = start.elapsed().as_nanos() as f64;
            let after = left.count(&input);
            seen.push((number, Record { nanos, rows: before as f64, dropped: (before - after) as f64 }));
            before = after;
            if after == 0 {
                break;
            }
        }
        self.learnt.lock().learn(&seen, &self.filters);
        Ok(match left {
            _ if before == batch.rows => None,
            Candidates::All => None,
            Candidates::Dense(mask) => Some(Arc::new(mask.into_rows().into())),
            Candidates::Sparse(rows) => Some(Arc::new(rows.into())),
        })
    }
}

impl Learnt {
    /// Takes in what a batch showed. Every so often (first after one batch) puts the filters that cannot
    /// fail in the order of their price.
    fn learn(&mut self, seen: &[(usize, Record)], filters: &[Box<dyn Filter>]) {
        for (number, new) in seen {
            let record = &mut self.records[*number];
            record.nanos += new.nanos;
            record.rows += new.rows;
            record.dropped += new.dropped;
        }
        if self.batches.is_multiple_of(LESSON) {
            let free = self.order.iter().take_while(|&&n| !filters[n].fails()).count();
            let records = &mut self.records;
            self.order[..free].sort_by(|&a, &b| records[a].price().total_cmp(&records[b].price()));
            // What was long ago counts less.
            for r in records {
                *r = Record { nanos: r.nanos / 2.0, rows: r.rows / 2.0, dropped: r.dropped / 2.0 };
            }
        }
        self.batches = self.batches.wrapping_add(1);
    }
}

impl Clone for Predicate {
    fn clone(&self) -> Self {
        Predicate {
            filters: self.filters.clone(),
            columns: self.columns.clone(),
            learnt: Mutex::new(self.learnt.lock().clone()),
        }
    }
}

impl std::fmt::Debug for Predicate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Predicate({} conjuncts over {:?})", self.filters.len(), self.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;
    use dovetail_planner::expr::BinaryOp;

    /// The last conjunct drops nearly all rows: it is run first once that is known, and the answer stays.
    #[test]
    fn the_order_is_learnt() {
        let compare = |index, op, value: i64| Expr::Binary {
            op,
            left: Box::new(Expr::column(index, DataType::Int64)),
            right: Box::new(Expr::literal(ScalarValue::Int64(Some(value)))),
            data_type: DataType::Boolean,
        };
        let both = Expr::Binary {
            op: BinaryOp::And,
            left: Box::new(compare(0, BinaryOp::GtEq, 1)),
            right: Box::new(compare(1, BinaryOp::Lt, 3)),
            data_type: DataType::Boolean,
        };
        let predicate = Predicate::compile(&both).unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8192));
        let batch = Batch::from_arrays(vec![numbers.clone(), numbers], 8192);
        for _ in 0..40 {
            assert_eq!(predicate.select(&batch).unwrap().unwrap().values(), &[1, 2]);
        }
        assert_eq!(predicate.learnt.lock().order, [1, 0]);
        assert_eq!(predicate.clone().select(&batch).unwrap().unwrap().len(), 2);
    }
}
