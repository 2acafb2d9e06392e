//! Hash aggregation: GROUP BY and aggregate functions.
//!
//! ```text
//! rows ─ partial sink (per task: groups in cache) ─▶ hash partitions of partial groups ─▶ final source ─▶ rows
//! rows ─ hash-partitioned by the group key ─▶ single source ─▶ rows      (DISTINCT and ordered aggregates)
//! ```
//!
//! - [`shape`] takes the calls apart: which expressions are evaluated, which accumulators run over them, and
//!   how results come of those; what several calls need is computed once.
//! - [`group_table`] numbers the groups, [`accumulators`] hold their states.
//! - [`partial`] flushes its groups when they outgrow the cache, and passes rows through as groups of their
//!   own when they repeat too little; [`final_stage`] merges what has one key; [`single`] does it at once.
//! - What is too large for the memory is divided on disk ([`crate::exchange::parts`]), as often as need be.
//!
//! What always holds: a partial batch has the group columns, then the state columns of each accumulator, in
//! the order of the shape. Both stages derive the same shape from the same plan. Without GROUP BY there is
//! exactly one group, which partition 0 answers for.

mod accumulators;
mod distinct;
mod feed;
mod final_stage;
mod finish;
mod group_table;
mod inputs;
mod ordered;
mod partial;
mod scatter;
mod shape;
mod single;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::Aggregate;

use self::final_stage::FinalLimits;
use self::partial::{PartialLimits, PartialSinkFactory};
use self::shape::Shape;
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::task::{SinkFactory, Source, TaskContext};

/// Partitions of an exchange of groups, at least: those of a final task are merged one after the other, so that
/// each is a small part of what fits in memory. (One partition a task was divided again on the disk: with 60
/// million groups and 512 MB it took half as long again, and twice the memory.)
const FINE_PARTITIONS: usize = 64;

/// The sink of the partial stage (`planner::pipeline::Sink::Aggregate`): groups of each task's rows, hash-
/// partitioned by the group key. Of each of the `partitions` that the final tasks read there are several
/// finer ones. Only for an aggregate that is mergeable.
pub fn partial_sink_factory(
    aggregate: &Aggregate,
    input_schema: &SchemaRef,
    partitions: usize,
) -> Result<Arc<dyn SinkFactory>> {
    let shape = Shape::new(aggregate, input_schema)?;
    let finer = if shape.keys.is_empty() { 1 } else { (FINE_PARTITIONS / partitions.max(1)).max(1) };
    Ok(Arc::new(PartialSinkFactory::new(shape, partitions * finer, PartialLimits::default())?))
}

/// The source of the final stage: the rows (group columns, then results of the calls) of some hash
/// partitions, from these partitions of all partial tasks' outputs.
pub fn final_source(
    aggregate: &Aggregate,
    input_schema: &SchemaRef,
    inputs: Vec<ExchangeReader>,
    is_first_partition: bool,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    let shape = Shape::new(aggregate, input_schema)?;
    let limits = FinalLimits::default();
    Ok(Box::new(final_stage::FinalSource::new(shape, inputs, is_first_partition, limits, task)))
}

/// The source of an aggregation in one phase, over the rows of one hash partition of the input.
pub fn single_source(
    aggregate: &Aggregate,
    input_schema: &SchemaRef,
    input: ExchangeReader,
    is_first_partition: bool,
    task: &TaskContext,
) -> Result<Box<dyn Source>> {
    let shape = Shape::new(aggregate, input_schema)?;
    Ok(Box::new(single::SingleSource::new(shape, input, is_first_partition, task)))
}

/// Whether the aggregate can run in two phases, see [`Aggregate::is_mergeable`].
pub fn is_mergeable(aggregate: &Aggregate) -> bool {
    aggregate.is_mergeable()
}

#[cfg(test)]
mod tests;
