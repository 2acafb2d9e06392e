//! Limit: a range of the rows.
//!
//! Two forms. [`limit_factory`] is exact, skips rows, and stands in stages of one task. Below it,
//! [`at_most_factory`] lets the many tasks of an earlier stage stop early: they draw on one budget, and
//! whichever rows come first are as good as any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_planner::physical::Limit;

use crate::batch::Batch;
use crate::error::Result;
use crate::task::{Downstream, Flow, Operator, OperatorFactory, TaskContext};

/// Makes operators that hand on no more than `rows` rows, all tasks of the stage together.
pub fn at_most_factory(rows: u64) -> Arc<dyn OperatorFactory> {
    Arc::new(AtMostFactory { left: Arc::new(AtomicU64::new(rows)) })
}

/// Makes the exact limit of a stage of one task.
pub fn limit_factory(limit: &Limit) -> Arc<dyn OperatorFactory> {
    Arc::new(LimitFactory { limit: limit.clone() })
}

struct AtMostFactory {
    left: Arc<AtomicU64>,
}

impl OperatorFactory for AtMostFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Operator>> {
        Ok(Box::new(AtMost { left: self.left.clone() }))
    }
}

struct AtMost {
    left: Arc<AtomicU64>,
}

impl Operator for AtMost {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let rows = batch.rows as u64;
        // The counter guards no other memory, so relaxed is enough.
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(rows)))
            .expect("invariant: the closure always returns a value");
        forward(batch, 0, left, out)
    }
}

/// Hands on at most `wanted` rows of the batch, from row `skip`; done once these were all.
fn forward(batch: Batch, skip: usize, wanted: u64, out: &mut dyn Downstream) -> Result<Flow> {
    let rest = batch.rows - skip;
    if wanted == 0 {
        return Ok(Flow::Done);
    }
    if rest == 0 {
        return Ok(Flow::Continue);
    }
    if wanted > rest as u64 {
        return out.push(if skip == 0 { batch } else { batch.slice(skip, rest) });
    }
    let last = if skip == 0 && wanted == rest as u64 { batch } else { batch.slice(skip, wanted as usize) };
    out.push(last)?;
    Ok(Flow::Done)
}

struct LimitFactory {
    limit: Limit,
}

impl OperatorFactory for LimitFactory {
    fn open(&self, _task: &TaskContext) -> Result<Box<dyn Operator>> {
        Ok(Box::new(ExactLimit { skip: self.limit.skip, left: self.limit.fetch.unwrap_or(u64::MAX) }))
    }
}

struct ExactLimit {
    /// Rows still to be skipped.
    skip: u64,
    /// Rows still to be handed on; `u64::MAX` stands for no end.
    left: u64,
}

impl Operator for ExactLimit {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let skipped = self.skip.min(batch.rows as u64);
        self.skip -= skipped;
        let wanted = self.left;
        self.left = wanted.saturating_sub(batch.rows as u64 - skipped);
        forward(batch, skipped as usize, wanted, out)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::operators::harness::{Kept, rows, run_operator, task};

    fn input() -> Vec<Batch> {
        (0..4)
            .map(|b| {
                let array: ArrayRef = Arc::new(Int64Array::from_iter_values(b * 3..b * 3 + 3));
                Batch::from_arrays(vec![array], 3)
            })
            .collect()
    }

    fn values(batches: &[Batch]) -> Vec<String> {
        rows(batches).into_iter().map(|r| r[0].to_string()).collect()
    }

    #[test]
    fn every_range_is_exact() {
        for skip in 0..14u64 {
            for fetch in (0..14).map(Some).chain([None]) {
                let limit = limit_factory(&Limit { skip, fetch });
                let out = run_operator(limit.as_ref(), input()).unwrap();
                let expected: Vec<_> = (0..12u64)
                    .skip(skip as usize)
                    .take(fetch.unwrap_or(99) as usize)
                    .map(|v| v.to_string())
                    .collect();
                assert_eq!(values(&out), expected, "skip {skip} fetch {fetch:?}");
            }
        }
    }

    #[test]
    fn the_source_may_stop_with_the_batch_that_fills_the_limit() {
        let mut limit = limit_factory(&Limit { skip: 0, fetch: Some(3) }).open(&task(0, 1)).unwrap();
        let mut kept = Kept { batches: vec![], wanted: 99 };
        assert_eq!(limit.push(input().remove(0), &mut kept).unwrap(), Flow::Done);
    }

    #[test]
    fn tasks_share_one_budget() {
        let factory = at_most_factory(5);
        let mut kept = Kept { batches: vec![], wanted: 99 };
        let mut first = factory.open(&task(0, 2)).unwrap();
        let mut second = factory.open(&task(1, 2)).unwrap();
        let mut batches = input().into_iter();
        assert_eq!(first.push(batches.next().unwrap(), &mut kept).unwrap(), Flow::Continue);
        assert_eq!(second.push(batches.next().unwrap(), &mut kept).unwrap(), Flow::Done);
        assert_eq!(first.push(batches.next().unwrap(), &mut kept).unwrap(), Flow::Done);
        assert_eq!(values(&kept.batches).len(), 5);
    }
}
