//! What clients may fetch from a worker: the outputs of one stage of a query, whose rows are its result.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use dovetail_planner::graph::StageId;
use dovetail_planner::pipeline::QueryGraph;
use subtle::ConstantTimeEq;

/// A result that stays at the workers.
pub struct Readable {
    secret: Bytes,
    /// Whose outputs are the result.
    pub stage: StageId,
    pub schema: SchemaRef,
}

impl Readable {
    /// The result of a graph, for those who show the secret. None if there is no secret, or no such result.
    pub fn of(graph: &QueryGraph, secret: Bytes) -> Option<Readable> {
        let result = graph.stages.get(graph.results.first()?.0 as usize)?;
        let [edge] = result.inputs[..] else { return None };
        let schema = Arc::clone(&result.work.sink_schema);
        (!secret.is_empty()).then_some(Readable { secret, stage: edge.from, schema })
    }

    /// Whether somebody knows the secret. Takes the same time wherever the two differ.
    pub fn opens_to(&self, shown: &[u8]) -> bool {
        self.secret.ct_eq(shown).into()
    }
}
