//! Task graphs as text: each stage with what it reads, its pipelines and its sink.

use std::fmt::Write;

use arrow::datatypes::SchemaRef;

use super::expr::{Detail, Names};
use super::{aggregate_text, hash_join, operator_line, projected, scan_line};
use crate::physical::Operator;
use crate::pipeline::{QueryGraph, Sink, Source, Transform};

/// A task graph: each stage with its tasks, what it reads, its pipelines and its sink.
pub fn graph(graph: &QueryGraph) -> String {
    let mut text = String::new();
    graph_into(&mut text, graph, 0);
    text
}

fn graph_into(text: &mut String, graph: &QueryGraph, depth: usize) {
    let indent = "  ".repeat(depth);
    for stage in &graph.stages {
        let inputs: Vec<String> =
            stage.inputs.iter().map(|e| format!("{:?} {}", e.kind, e.from.0).to_lowercase()).collect();
        let reads = if inputs.is_empty() { String::new() } else { format!(" reads {}", inputs.join(", ")) };
        let result = if graph.results.contains(&stage.id) { " (result)" } else { "" };
        let _ = writeln!(text, "{indent}Stage {}, {} tasks{reads}{result}", stage.id.0, stage.tasks);
        for branch in &stage.work.branches {
            let _ = writeln!(text, "{indent}  {}", source(&branch.source));
            if let Source::Recursive { seed, step, .. } = &branch.source {
                graph_into(text, seed, depth + 2);
                graph_into(text, step, depth + 2);
            }
            let mut input = &branch.source_schema;
            for step in &branch.steps {
                let _ = writeln!(text, "{indent}  -> {}", transform(&step.transform, input, &step.schema));
                input = &step.schema;
            }
        }
        let _ = writeln!(text, "{indent}  => {}", sink(&stage.work.sink, &stage.work.sink_schema));
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Scan(scan) => scan_line(scan, Detail::Full),
        Source::Values(values) => format!("Values: {} rows", values.rows.len()),
        Source::Collected { stage } => format!("Collected from stage {}", stage.0),
        Source::AggregateFinal { stage, aggregate, input_schema } => {
            format!(
                "AggregateFinal of stage {}: {}",
                stage.0,
                aggregate_text(aggregate, &Names::of(&[input_schema]))
            )
        }
        Source::AggregateSingle { stage, aggregate, input_schema } => {
            format!(
                "AggregateSingle of stage {}: {}",
                stage.0,
                aggregate_text(aggregate, &Names::of(&[input_schema]))
            )
        }
        Source::SortMerge { stage, .. } => format!("SortMerge of stage {}", stage.0),
        Source::Window { stage, window, input_schema } => {
            let line = operator_line(&Operator::Window(window.clone()), &[input_schema], input_schema);
            format!("{line} of stage {}", stage.0)
        }
        Source::Recursive { recursive, .. } => format!("Recursive {}", recursive.id),
        Source::WorkTable { id } => format!("WorkTable {id}"),
        Source::Exchange { stage, .. } => format!("Exchange from stage {}", stage.0),
        Source::Nothing => "Nothing".into(),
    }
}

fn transform(transform: &Transform, input: &SchemaRef, schema: &SchemaRef) -> String {
    match transform {
        Transform::Filter { predicate } => format!("Filter: {}", Names::of(&[input]).show(predicate)),
        Transform::Project { exprs } => {
            format!("Project: {}", projected(&Names::of(&[input]), exprs, schema))
        }
        Transform::Expand { projections } => format!("Expand: {} sets", projections.len()),
        Transform::HashJoinProbe { build, join, build_schema, .. } => {
            let inputs = [input, build_schema];
            format!("HashJoin with stage {}: {}", build.0, hash_join(join, &inputs, &Names::of(&inputs)))
        }
        Transform::NestedLoopJoin { build, join, build_schema } => {
            let line = operator_line(&Operator::NestedLoopJoin(join.clone()), &[input, build_schema], schema);
            format!("{line} with stage {}", build.0)
        }
        Transform::AtMost { rows } => format!("AtMost {rows}"),
        Transform::Limit(limit) => operator_line(&Operator::Limit(limit.clone()), &[input], schema),
        Transform::Unnest(unnest) => operator_line(&Operator::Unnest(unnest.clone()), &[input], schema),
    }
}

fn sink(sink: &Sink, schema: &SchemaRef) -> String {
    let names = Names::of(&[schema]);
    match sink {
        Sink::Collect => "Collect".into(),
        Sink::Aggregate { aggregate, partitions } => {
            format!("Aggregate into {partitions}: {}", aggregate_text(aggregate, &names))
        }
        Sink::HashPartition { keys, partitions } => {
            format!("HashPartition into {partitions}: {}", names.list(keys))
        }
        Sink::Sort(sort) => operator_line(&Operator::Sort(sort.clone()), &[schema], schema),
        Sink::BuildRows { join } => {
            let keys: Vec<String> = join.keys.iter().map(|(_, b)| names.show(b)).collect();
            format!("BuildRows: {}", keys.join(", "))
        }
        Sink::JoinBuild { rows, .. } => format!("JoinBuild of stage {}", rows.0),
        Sink::Scalar { parameter } => format!("Scalar ${parameter}"),
    }
}
