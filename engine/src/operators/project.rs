//! Project: computes columns. A plain column reference stays lazy and costs nothing.

use std::sync::Arc;

use dovetail_planner::expr::Expr;

use crate::batch::Batch;
use crate::error::Result;
use crate::expr::{CompiledExpr, compile};
use crate::task::{Downstream, Flow, Operator, OperatorFactory, TaskContext};

/// Makes the projections of a stage.
pub fn factory(exprs: &[Expr]) -> Result<Arc<dyn OperatorFactory>> {
    compile_all(exprs)?; // an expression without a kernel is refused before anything runs
    Ok(Arc::new(ProjectFactory { exprs: exprs.to_vec() }))
}

/// Each expression, compiled.
pub(super) fn compile_all(exprs: &[Expr]) -> Result<Vec<CompiledExpr>> {
    exprs.iter().map(compile).collect()
}

/// A batch of the expressions' values over `batch`.
pub(super) fn evaluate_all(exprs: &[CompiledExpr], batch: &Batch) -> Result<Batch> {
    let columns = exprs.iter().map(|e| e.evaluate(batch)).collect::<Result<Vec<_>>>()?;
    Ok(Batch { columns, rows: batch.rows })
}

struct ProjectFactory {
    exprs: Vec<Expr>,
}

impl OperatorFactory for ProjectFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Project { exprs: compile_all(&self.exprs)? }))
    }
}

struct Project {
    exprs: Vec<CompiledExpr>,
}

impl Operator for Project {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        out.push(evaluate_all(&self.exprs, &batch)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, UInt32Array};
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::operators::harness::{rows, run_operator};

    #[test]
    fn columns_are_reordered_and_stay_lazy() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = Batch::from_arrays(vec![array.clone(), array], 3);
        let batch = batch.select(&Arc::new(UInt32Array::from(vec![2])));
        let seven = ScalarValue::Int64(Some(7));
        let project = factory(&[Expr::literal(seven.clone()), Expr::column(1, DataType::Int64)]).unwrap();
        let out = run_operator(project.as_ref(), vec![batch]).unwrap();
        assert!(out[0].columns[1].indices().is_some());
        assert_eq!(rows(&out), [[seven, ScalarValue::Int64(Some(3))]]);
    }
}
