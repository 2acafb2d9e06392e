//! Runs one task: pulls batches from the source, pushes them through the operators into the sink.
//!
//! Rows and time are counted here, once for all operators, so that none of them has to.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Downstream, Flow, Operator, Output, QueryContext, Sink, Source};
use crate::batch::Batch;
use crate::error::Result;

/// A task's operators, opened, with the plan operators they count for.
pub struct Pipeline {
    pub source: Box<dyn Source>,
    pub source_operator: u32,
    pub steps: Vec<(Box<dyn Operator>, u32)>,
    pub sink: Box<dyn Sink>,
    pub sink_operator: u32,
}

/// What one place of the pipeline did: rows pushed on, and time in it and in all below it.
#[derive(Default, Clone, Copy)]
struct Tally {
    rows_out: u64,
    nanos_inclusive: u64,
}

impl Pipeline {
    /// Runs to the end of the source, to the end of interest below, or to the first error.
    pub fn run(mut self, query: &QueryContext) -> Result<Output> {
        let mut tallies = vec![Tally::default(); self.steps.len() + 2];
        let result = self.drive(query, &mut tallies);
        let last = self.steps.len() + 1;
        let start = Instant::now();
        let output = result.and_then(|()| self.sink.finish());
        tallies[last].nanos_inclusive += start.elapsed().as_nanos() as u64;
        let operators: Vec<u32> = std::iter::once(self.source_operator)
            .chain(self.steps.iter().map(|(_, id)| *id))
            .chain([self.sink_operator])
            .collect();
        for (place, id) in operators.iter().enumerate() {
            if let Some(metrics) = query.metrics.operator(*id) {
                // The source's time is kept apart from what it feeds; below it, inclusive times nest.
                let below = match place {
                    0 => 0,
                    p => tallies.get(p + 1).map_or(0, |t| t.nanos_inclusive),
                };
                let own = tallies[place].nanos_inclusive.saturating_sub(below);
                metrics.nanos.fetch_add(own, Ordering::Relaxed);
                if place < last {
                    metrics.rows_out.fetch_add(tallies[place].rows_out, Ordering::Relaxed);
                }
            }
        }
        output
    }

    fn drive(&mut self, query: &QueryContext, tallies: &mut [Tally]) -> Result<()> {
        let (source_tally, rest) = tallies.split_first_mut().expect("invariant: one tally a place");
        loop {
            query.check_cancelled()?;
            let start = Instant::now();
            let batch = self.source.next()?;
            source_tally.nanos_inclusive += start.elapsed().as_nanos() as u64;
            let Some(batch) = batch else { break };
            if batch.rows == 0 {
                continue;
            }
            source_tally.rows_out += batch.rows as u64;
            let mut chain = Chain { steps: &mut self.steps, sink: self.sink.as_mut(), tallies: rest };
            if chain.push(batch)? == Flow::Done {
                break;
            }
        }
        for step in 0..self.steps.len() {
            let (done, below) = self.steps.split_at_mut(step + 1);
            let (own, rest) = rest[step..].split_first_mut().expect("invariant: one tally a place");
            let start = Instant::now();
            let mut chain = Chain { steps: below, sink: self.sink.as_mut(), tallies: rest };
            let mut counted = Counted { chain: &mut chain, rows: 0 };
            done[step].0.finish(&mut counted)?;
            own.rows_out += counted.rows;
            own.nanos_inclusive += start.elapsed().as_nanos() as u64;
        }
        Ok(())
    }
}

/// The operators from one place on, as the downstream of the one before.
struct Chain<'a> {
    steps: &'a mut [(Box<dyn Operator>, u32)],
    sink: &'a mut dyn Sink,
    tallies: &'a mut [Tally],
}

impl Downstream for Chain<'_> {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        let start = Instant::now();
        let (own, rest) = self.tallies.split_first_mut().expect("invariant: one tally a place");
        let flow = match self.steps.split_first_mut() {
            None => self.sink.push(batch)?,
            Some((step, steps)) => {
                let mut chain = Chain { steps, sink: self.sink, tallies: rest };
                let mut counted = Counted { chain: &mut chain, rows: 0 };
                let flow = step.0.push(batch, &mut counted)?;
                own.rows_out += counted.rows;
                flow
            }
        };
        own.nanos_inclusive += start.elapsed().as_nanos() as u64;
        Ok(flow)
    }
}

/// Counts the rows that pass.
struct Counted<'a, 'b> {
    chain: &'a mut Chain<'b>,
    rows: u64,
}

impl Downstream for Counted<'_, '_> {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.rows += batch.rows as u64;
        self.chain.push(batch)
    }
}
