//! EXPLAIN and EXPLAIN ANALYZE: plans as rows of text.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::LogicalPlan;
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::explain;

use super::{Cancellation, QueryResult, Session, StatementKind};
use crate::error::{EngineError, Result};
use crate::memory::readable;

/// What the rows of an explanation are.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8View, false)]))
}

/// The plans of a query; with `analyze`, after it has run, with rows and time.
pub fn explain(
    session: &Session,
    plan: LogicalPlan,
    snapshot: &CatalogSnapshot,
    analyze: bool,
    cancellation: &Cancellation,
) -> Result<QueryResult> {
    let logical = plan.display_indent().to_string();
    let planned = session.plan(plan, snapshot)?;
    if !analyze {
        let rows = vec![
            ("logical plan", logical),
            ("physical plan", explain::query(&planned.query, &|_| None)),
            ("stages", explain::graph(&planned.lowered.graph)),
        ];
        return table(rows);
    }
    let start = Instant::now();
    let mut ran = session.run(&planned, None, cancellation)?;
    let seconds = start.elapsed().as_secs_f64();
    let metrics = &ran.context.metrics;
    let total: u64 = (0..planned.query.operator_count() as u32)
        .filter_map(|id| metrics.operator(id))
        .map(|m| m.nanos.load(Ordering::Relaxed))
        .sum();
    let note = |id: u32| {
        let m = metrics.operator(id)?;
        let (rows, nanos) = (m.rows_out.load(Ordering::Relaxed), m.nanos.load(Ordering::Relaxed));
        let bytes = m.bytes_read.load(Ordering::Relaxed);
        let share = if total == 0 { 0.0 } else { 100.0 * nanos as f64 / total as f64 };
        let read = if bytes > 0 { format!(", {:.1} MB read", bytes as f64 / 1e6) } else { String::new() };
        let bytes = m.bytes_spilled.load(Ordering::Relaxed);
        let spilled =
            if bytes > 0 { format!(", {:.1} MB spilled", bytes as f64 / 1e6) } else { String::new() };
        Some(format!("{rows} rows, {:.1} ms of task time ({share:.0} %){read}{spilled}", nanos as f64 / 1e6))
    };
    let text = explain::query(&planned.query, &note);
    let rows = ran.by_ref().try_fold(0, |rows, b| Ok::<_, EngineError>(rows + b?.num_rows()))?;
    table(vec![
        ("physical plan", text),
        ("stages", explain::graph(&planned.lowered.graph)),
        ("total", format!("{rows} rows in {:.1} ms{}", seconds * 1e3, memory_text(session))),
    ])
}

/// What the session has held at most, and spilled.
fn memory_text(session: &Session) -> String {
    let memory = session.memory();
    let spilled = match memory.spilled_bytes {
        0 => String::new(),
        bytes => format!(", {} spilled", readable(bytes)),
    };
    format!("; memory since the session started: {} at most{spilled}", readable(memory.peak_bytes))
}

/// One row a line, each section under its title: reads well in a table and in a file alike.
fn table(sections: Vec<(&str, String)>) -> Result<QueryResult> {
    let mut lines = vec![];
    for (title, text) in &sections {
        lines.push(format!("── {title}"));
        lines.extend(text.lines().map(str::to_string));
    }
    let schema = schema();
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(&lines));
    let batches = vec![RecordBatch::try_new(schema.clone(), vec![column])?];
    Ok(QueryResult { schema, batches, kind: StatementKind::Query })
}
