//! Filter: hands on the rows for which a predicate is true.
//!
//! Nothing is gathered: the batch goes on with a selection over its columns, and a batch whose rows all
//! pass goes on as it came. Batches without a row left are dropped here, so that no later operator pays
//! for them.

use std::sync::Arc;

use dovetail_planner::expr::Expr;

use crate::batch::Batch;
use crate::error::Result;
use crate::expr::Predicate;
use crate::task::{Downstream, Flow, Operator, OperatorFactory, TaskContext};

/// Makes the filters of a stage.
pub fn factory(predicate: &Expr) -> Result<Arc<dyn OperatorFactory>> {
    Predicate::compile(predicate)?; // a predicate without a kernel is refused before anything runs
    Ok(Arc::new(FilterFactory { predicate: predicate.clone() }))
}

struct FilterFactory {
    predicate: Expr,
}

impl OperatorFactory for FilterFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Filter { predicate: Predicate::compile(&self.predicate)? }))
    }
}

struct Filter {
    predicate: Predicate,
}

impl Operator for Filter {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        match self.predicate.select(&batch)? {
            None => out.push(batch),
            Some(selection) if selection.is_empty() => Ok(Flow::Continue),
            Some(selection) => out.push(batch.select(&selection)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BooleanArray, Int64Array};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::operators::harness::{rows, run_operator};

    #[test]
    fn only_rows_that_are_true_go_on() {
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let none: ArrayRef = Arc::new(BooleanArray::from(vec![false; 4]));
        let all: ArrayRef = Arc::new(BooleanArray::from(vec![true; 4]));
        let filter = factory(&Expr::column(0, DataType::Boolean)).unwrap();
        let input =
            [flags, none, all].map(|f| Batch::from_arrays(vec![f, values.clone()], 4)).into_iter().collect();
        let out = run_operator(filter.as_ref(), input).unwrap();
        assert_eq!(out.len(), 2, "a batch without rows is not handed on");
        let second: Vec<_> = rows(&out).into_iter().map(|r| r[1].to_string()).collect();
        assert_eq!(second, ["1", "4", "1", "2", "3", "4"]);
    }
}
