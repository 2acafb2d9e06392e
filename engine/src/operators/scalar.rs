//! Scalar subquery: keeps the one row that a subquery may return, and fails at a second one.

use std::sync::Arc;

use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// Makes the sink of a scalar subquery, in a stage of one task. Its output has no row (the value is
/// null) or one.
pub fn sink_factory() -> Arc<dyn SinkFactory> {
    Arc::new(ScalarFactory)
}

struct ScalarFactory;

impl SinkFactory for ScalarFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Scalar { row: None }))
    }
}

struct Scalar {
    row: Option<Batch>,
}

impl Sink for Scalar {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        if batch.rows > 1 || self.row.is_some() {
            return Err(EngineError::execution(
                "a scalar subquery returned more than one row; add LIMIT 1 to take any of them, or an \
                 aggregate such as max() to combine them",
            ));
        }
        self.row = Some(batch.gathered()?);
        Ok(Flow::Continue)
    }

    fn finish(self: Box<Self>) -> Result<Output> {
        Ok(Output { partitions: vec![self.row.into_iter().collect()], ..Output::default() })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::operators::harness::run_sink;

    fn batch(rows: usize) -> Batch {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![5; rows]));
        Batch::from_arrays(vec![array], rows)
    }

    #[test]
    fn at_most_one_row() {
        let run =
            |sizes: &[usize]| run_sink(sink_factory().as_ref(), sizes.iter().map(|&n| batch(n)).collect());
        assert_eq!(run(&[]).unwrap().rows(), 0);
        assert_eq!(run(&[0, 1, 0]).unwrap().rows(), 1);
        for sizes in [&[2][..], &[1, 1]] {
            let error = run(sizes).err().unwrap().to_string();
            assert!(error.starts_with("a scalar subquery returned more than one row; "), "{error}");
        }
    }
}
