//! Expand: each input row once per projection. This is how GROUPING SETS, CUBE and ROLLUP reach one
//! aggregation: a projection nulls the keys that its set leaves out and adds the set's number.

use std::sync::Arc;

use dovetail_planner::expr::Expr;

use super::project::{compile_all, evaluate_all};
use crate::batch::Batch;
use crate::error::Result;
use crate::expr::CompiledExpr;
use crate::task::{Downstream, Flow, Operator, OperatorFactory, TaskContext};

/// Makes the expansions of a stage. All projections have the same number and types of columns.
pub fn factory(projections: &[Vec<Expr>]) -> Result<Arc<dyn OperatorFactory>> {
    for projection in projections {
        compile_all(projection)?; // an expression without a kernel is refused before anything runs
    }
    Ok(Arc::new(ExpandFactory { projections: projections.to_vec() }))
}

struct ExpandFactory {
    projections: Vec<Vec<Expr>>,
}

impl OperatorFactory for ExpandFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Operator>> {
        let projections = self.projections.iter().map(|p| compile_all(p)).collect::<Result<_>>()?;
        Ok(Box::new(Expand { projections }))
    }
}

struct Expand {
    projections: Vec<Vec<CompiledExpr>>,
}

impl Operator for Expand {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        for projection in &self.projections {
            if out.push(evaluate_all(projection, &batch)?)? == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::operators::harness::{rows, run_operator};

    #[test]
    fn every_row_once_per_projection() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let column = Expr::column(0, DataType::Int64);
        let int = |v| ScalarValue::Int64(v);
        let expand = factory(&[
            vec![column, Expr::literal(int(Some(0)))],
            vec![Expr::literal(int(None)), Expr::literal(int(Some(1)))],
        ])
        .unwrap();
        let out = run_operator(expand.as_ref(), vec![Batch::from_arrays(vec![array], 2)]).unwrap();
        let expected = [
            [int(Some(1)), int(Some(0))],
            [int(Some(2)), int(Some(0))],
            [int(None), int(Some(1))],
            [int(None), int(Some(1))],
        ];
        assert_eq!(rows(&out), expected);
    }
}
