//! Which column of a join's output comes from where.

use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::physical::JoinKind;

use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};

/// The output columns of a join, by their origin.
pub struct Layout {
    columns: Vec<Origin>,
    /// Probe columns that go on, each once.
    probe: Vec<usize>,
    /// Build columns that go on, each once.
    build: Vec<usize>,
    types: Vec<DataType>,
}

#[derive(Clone, Copy)]
enum Origin {
    /// A position in [`Layout::probe`].
    Probe(usize),
    /// A column of the build side.
    Build(usize),
    Mark,
}

impl Layout {
    /// `output` as in [`dovetail_planner::physical::HashJoin`].
    pub fn new(kind: JoinKind, output: &[usize], probe: &SchemaRef, build: &SchemaRef) -> Result<Self> {
        let (probe_width, build_width) = (probe.fields().len(), build.fields().len());
        let mut layout = Layout { columns: vec![], probe: vec![], build: vec![], types: vec![] };
        let build_only = matches!(kind, JoinKind::BuildSemi | JoinKind::BuildAnti);
        for &position in output {
            let origin = if build_only && position < build_width {
                Origin::Build(position)
            } else if !build_only && position < probe_width {
                Origin::Probe(place(&mut layout.probe, position))
            } else if kind.emits_both() && position < probe_width + build_width {
                Origin::Build(position - probe_width)
            } else if kind == JoinKind::ProbeMark && position == probe_width {
                Origin::Mark
            } else {
                return Err(EngineError::internal(format!(
                    "a {kind:?} join has no output column {position}"
                )));
            };
            if let Origin::Build(column) = origin {
                place(&mut layout.build, column);
            }
            layout.types.push(match origin {
                Origin::Probe(_) => probe.field(position).data_type().clone(),
                Origin::Build(column) => build.field(column).data_type().clone(),
                Origin::Mark => DataType::Boolean,
            });
            layout.columns.push(origin);
        }
        Ok(layout)
    }

    /// Logical types of the output.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Build columns that go on, each once.
    pub fn build_columns(&self) -> &[usize] {
        &self.build
    }

    /// Probe columns that go on, each once.
    pub fn probe_columns(&self) -> &[usize] {
        &self.probe
    }

    /// The columns of a probe batch that go on, in the order that [`Layout::assemble`] takes.
    pub fn pick(&self, batch: &Batch) -> Batch {
        Batch { columns: self.probe.iter().map(|&c| batch.columns[c].clone()).collect(), rows: batch.rows }
    }

    /// An output batch from picked probe columns and from build columns.
    pub fn assemble(&self, picked: &Batch, build: impl Fn(usize) -> Column, mark: Option<Column>) -> Batch {
        let column = |origin: &Origin| match origin {
            Origin::Probe(i) => picked.columns[*i].clone(),
            Origin::Build(i) => build(*i),
            Origin::Mark => mark.clone().expect("invariant: mark joins give a mark"),
        };
        Batch { columns: self.columns.iter().map(column).collect(), rows: picked.rows }
    }
}

/// Where `column` stands in `list`, appended if it was not there.
fn place(list: &mut Vec<usize>, column: usize) -> usize {
    list.iter().position(|&c| c == column).unwrap_or_else(|| {
        list.push(column);
        list.len() - 1
    })
}
