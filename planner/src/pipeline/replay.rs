//! Whether a stage's tasks leave the same rows whenever they run.
//!
//! A task that runs again (its worker died) sees the same input rows, perhaps in another order. If what it
//! leaves depends on that order, or on chance, some readers may have had rows of the first run that do not fit
//! those of the second; the scheduler must know. What always holds: "yes" is certain, "no" may be too careful.

use arrow::datatypes::DataType;

use super::{Branch, Sink, Source, StageWork, Transform};
use crate::functions::functions;
use crate::physical::{Aggregate, AggregateCall, Scan, Sort};

/// Aggregate functions whose result does not depend on the order of the rows, if it is exact.
const ORDER_FREE: [&str; 14] = [
    "count",
    "sum",
    "avg",
    "mean",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "approx_distinct",
    "grouping",
    "every",
];

impl StageWork {
    /// Whether a task that runs again leaves the same rows as before, in whatever order.
    pub fn is_replayable(&self) -> bool {
        let mut steady = self.branches.iter().all(is_order_free);
        steady &= match &self.sink {
            Sink::Collect
            | Sink::HashPartition { .. }
            | Sink::BuildRows { .. }
            | Sink::JoinBuild { .. }
            | Sink::Scalar { .. } => true,
            Sink::Aggregate { aggregate, .. } => aggregate_is_order_free(aggregate),
            Sink::Sort(sort) => sort.fetch.is_none(),
        };
        let mut volatile = false;
        let mut work = self.clone();
        work.visit_exprs_mut(&mut |e| {
            e.visit(&mut |e| {
                if let crate::expr::Expr::Call { function, .. } = e {
                    volatile |= functions().is_volatile(function);
                }
            })
        });
        steady && !volatile
    }
}

fn is_order_free(branch: &Branch) -> bool {
    let source = match &branch.source {
        Source::Scan(Scan { limit, .. }) => limit.is_none(),
        Source::Values(_)
        | Source::Collected { .. }
        | Source::WorkTable { .. }
        | Source::Exchange { .. }
        | Source::Nothing => true,
        Source::AggregateFinal { aggregate, .. } | Source::AggregateSingle { aggregate, .. } => {
            aggregate_is_order_free(aggregate)
        }
        Source::SortMerge { sort: Sort { fetch, .. }, .. } => fetch.is_none(),
        // Rows that tie in the window's order are numbered as they come.
        Source::Window { .. } | Source::Recursive { .. } => false,
    };
    source
        && branch.steps.iter().all(|step| match &step.transform {
            Transform::Filter { .. }
            | Transform::Project { .. }
            | Transform::Expand { .. }
            | Transform::HashJoinProbe { .. }
            | Transform::NestedLoopJoin { .. }
            | Transform::Unnest(_) => true,
            Transform::AtMost { .. } | Transform::Limit(_) => false,
        })
}

fn aggregate_is_order_free(aggregate: &Aggregate) -> bool {
    aggregate.calls.iter().all(call_is_order_free)
}

/// Sums of floating-point numbers depend on the order in their last bits.
fn call_is_order_free(call: &AggregateCall) -> bool {
    let inexact = |t: DataType| matches!(t, DataType::Float16 | DataType::Float32 | DataType::Float64);
    let adds = matches!(call.function.as_str(), "sum" | "avg" | "mean");
    ORDER_FREE.contains(&call.function.as_str())
        && call.order_by.is_empty()
        && !(adds && call.args.iter().any(|a| inexact(a.data_type())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::expr::Expr;
    use crate::physical::{Limit, Values};
    use crate::pipeline::Step;

    fn work(sink: Sink, transform: Option<Transform>) -> StageWork {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let step = transform.map(|transform| Step { transform, schema: schema.clone(), operator: 0 });
        let branch = Branch {
            tasks: 1,
            source: Source::Values(Values { rows: vec![] }),
            source_schema: schema.clone(),
            source_operator: 0,
            steps: step.into_iter().collect(),
        };
        StageWork { branches: vec![branch], sink, sink_schema: schema, sink_operator: 0 }
    }

    fn aggregate(function: &str, argument: DataType) -> Sink {
        let call = AggregateCall {
            function: function.into(),
            args: vec![Expr::column(0, argument)],
            distinct: false,
            filter: None,
            order_by: vec![],
            ignore_nulls: false,
            output: Arc::new(Field::new("x", DataType::Int64, true)),
        };
        Sink::Aggregate { aggregate: Aggregate { group_by: vec![], calls: vec![call] }, partitions: 1 }
    }

    #[test]
    fn what_depends_on_the_order_of_rows_is_told_apart() {
        assert!(work(Sink::Collect, None).is_replayable());
        assert!(work(aggregate("sum", DataType::Int64), None).is_replayable());
        assert!(!work(aggregate("sum", DataType::Float64), None).is_replayable());
        assert!(!work(aggregate("first_value", DataType::Int64), None).is_replayable());
        let limit = Transform::Limit(Limit { skip: 0, fetch: Some(1) });
        assert!(!work(Sink::Collect, Some(limit)).is_replayable());
        assert!(!work(Sink::Sort(Sort { keys: vec![], fetch: Some(3) }), None).is_replayable());
    }

    #[test]
    fn chance_is_told_apart() {
        let field = Arc::new(Field::new("r", DataType::Float64, false));
        let call = Expr::Call { function: "random".into(), args: vec![], return_field: field };
        assert!(!work(Sink::Collect, Some(Transform::Project { exprs: vec![call] })).is_replayable());
    }
}
