//! The tasks that share a hot partition of a join that answers for its build side: see
//! [`dovetail_planner::pipeline`]'s marks.
//!
//! ```text
//! each task:      its slice of the probe rows ─▶ join of a kind that owes nothing ─▶ out
//! the first one:  and then: marks of all slices ─▶ semi or anti join for the build side ─▶ out
//! ```
//!
//! What always holds: the build side's partition is in memory once at a time; what is owed has the columns of the join,
//! with nulls for the probe side.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::SchemaRef;
use dovetail_planner::physical::{HashJoin, JoinKind};
use dovetail_planner::pipeline::{Share, marking_columns, without_build_rows};

use super::partitioned::{PartitionedJoin, Watched, push_all};
use crate::batch::{Batch, Column};
use crate::error::Result;
use crate::exchange::{ExchangeInput, ExchangeReader};
use crate::task::{Downstream, Flow, Operator, TaskContext};

/// What errors and files call the marks.
const MARKS_EXCHANGE: u64 = 0;

/// Opens the probe of a task that has a share of a hot partition. `marks` are those of the partition.
pub(super) fn open(
    join: &PartitionedJoin,
    task: &TaskContext,
    tasks: usize,
    share: Share,
    marks: Vec<ExchangeInput>,
) -> Result<Box<dyn Operator>> {
    let own = without_build_rows(join.join.kind).map(|kind| {
        let join = PartitionedJoin { join: HashJoin { kind, ..join.join.clone() }, ..join.clone() };
        join.open(task, tasks)
    });
    let owed = (share.slice == 0).then(|| Owed { join: join.clone(), task: task.clone(), tasks, marks });
    Ok(Box::new(MarkedProbe { own: own.transpose()?, owed, done: false }))
}

struct MarkedProbe {
    own: Option<Box<dyn Operator>>,
    owed: Option<Owed>,
    /// Nothing more is wanted downstream.
    done: bool,
}

/// What the join owes from the build side.
struct Owed {
    join: PartitionedJoin,
    task: TaskContext,
    tasks: usize,
    marks: Vec<ExchangeInput>,
}

impl Operator for MarkedProbe {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        // Of this table nothing more may come; what is owed still does.
        let Some(own) = &mut self.own else { return Ok(Flow::Done) };
        let mut out = Watched::new(out);
        let flow = own.push(batch, &mut out)?;
        self.done |= out.done;
        Ok(flow)
    }

    fn finish(&mut self, out: &mut dyn Downstream) -> Result<()> {
        if let Some(mut own) = self.own.take() {
            let mut out = Watched::new(out);
            own.finish(&mut out)?;
            self.done |= out.done;
        }
        match self.owed.take().filter(|_| !self.done) {
            Some(owed) => owed.hand_on(out),
            None => Ok(()),
        }
    }
}

impl Owed {
    fn hand_on(self, out: &mut dyn Downstream) -> Result<()> {
        let Owed { join, task, tasks, marks } = self;
        let HashJoin { kind, output, .. } = &join.join;
        let (schema, output) = (join.probe_schema.clone(), output.clone());
        let width = schema.fields().len();
        let columns = marking_columns(&join.join, width);
        let owed = match kind {
            JoinKind::BuildSemi | JoinKind::BuildAnti => join.join.clone(),
            // Of the full row the build side's columns.
            _ => HashJoin {
                kind: JoinKind::BuildAnti,
                output: output.iter().filter_map(|p| p.checked_sub(width)).collect(),
                ..join.join.clone()
            },
        };
        let is_padded = kind.emits_both();
        let mut operator = PartitionedJoin { join: owed, ..join }.open(&task, tasks)?;
        let partitions = marks.first().map_or(0, ExchangeInput::partitions);
        let marks = ExchangeReader::of_range(MARKS_EXCHANGE, marks, 0..partitions);
        let rows = marks.map(|batch| {
            task.query.check_cancelled()?;
            Ok(widened(batch?, &columns, &schema))
        });
        match is_padded {
            false => push_all(operator.as_mut(), rows, &mut Watched::new(out)),
            true => {
                let mut padded = Padded { out, schema: &schema, output: &output };
                push_all(operator.as_mut(), rows, &mut Watched::new(&mut padded))
            }
        }
    }
}

/// Marks as probe rows: nulls in the columns that nobody will read.
fn widened(marks: Batch, columns: &[usize], schema: &SchemaRef) -> Batch {
    let column = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| match columns.binary_search(&at) {
        Ok(place) => marks.columns[place].clone(),
        Err(_) => Column::new(new_null_array(field.data_type(), marks.rows)),
    };
    Batch { columns: schema.fields().iter().enumerate().map(column).collect(), rows: marks.rows }
}

/// Receives build columns, and hands them on with nulls for the probe side.
struct Padded<'a> {
    out: &'a mut dyn Downstream,
    /// Of the probe side.
    schema: &'a SchemaRef,
    output: &'a [usize],
}

impl Downstream for Padded<'_> {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        let fields = self.schema.fields();
        let mut of_build = batch.columns.into_iter();
        let columns = self.output.iter().filter_map(|&position| match fields.get(position) {
            Some(field) => Some(Column::new(new_null_array(field.data_type(), batch.rows))),
            None => of_build.next(),
        });
        self.out.push(Batch { columns: columns.collect(), rows: batch.rows })
    }
}
