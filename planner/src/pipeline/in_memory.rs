//! Whether a query reads tables that are in the memory of one process: it cannot outlive that.

use super::{QueryGraph, Source, StageWork};
use crate::catalog::TableData;

/// Whether a stage of the graph, or of a recursive term in it, scans a table in memory.
pub fn reads_memory(graph: &QueryGraph) -> bool {
    graph.stages.iter().any(|stage| work_reads_memory(&stage.work))
}

fn work_reads_memory(work: &StageWork) -> bool {
    work.branches.iter().any(|branch| match &branch.source {
        Source::Scan(scan) => match scan.data {
            TableData::Memory { .. } => true,
            TableData::Parquet(_) => false,
        },
        Source::Recursive { seed, step, .. } => reads_memory(seed) || reads_memory(step),
        Source::Values(_)
        | Source::Collected { .. }
        | Source::AggregateFinal { .. }
        | Source::AggregateSingle { .. }
        | Source::SortMerge { .. }
        | Source::Window { .. }
        | Source::WorkTable { .. }
        | Source::Exchange { .. }
        | Source::Nothing => false,
    })
}
