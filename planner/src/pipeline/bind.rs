//! Replaces parameters in a stage's work by the values of the scalar subqueries that have finished.

use datafusion_common::ScalarValue;

use super::{Sink, Source, StageWork, Transform};
use crate::expr::Expr;
use crate::physical::{Aggregate, HashJoin, Scan, SortKey, Window};

impl StageWork {
    /// The work with every parameter that `values` knows replaced by a constant.
    pub fn bind(&self, values: &dyn Fn(u32) -> Option<ScalarValue>) -> StageWork {
        let mut bound = self.clone();
        bound.visit_exprs_mut(&mut |e| {
            e.visit_mut(&mut |e| {
                if let Expr::Parameter { id, .. } = e
                    && let Some(value) = values(*id)
                {
                    *e = Expr::literal(value);
                }
            })
        });
        bound
    }

    /// Calls `f` on every expression of the work, those of recursive terms included.
    pub fn visit_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        for branch in &mut self.branches {
            visit_source(&mut branch.source, f);
            for step in &mut branch.steps {
                visit_transform(&mut step.transform, f);
            }
        }
        match &mut self.sink {
            Sink::Collect | Sink::Scalar { .. } => {}
            Sink::Aggregate { aggregate, .. } => visit_aggregate(aggregate, f),
            Sink::HashPartition { keys, .. } => keys.iter_mut().for_each(f),
            Sink::Sort(sort) => visit_keys(&mut sort.keys, f),
            Sink::BuildRows { join } | Sink::JoinBuild { join, .. } => visit_join(join, f),
        }
    }
}

fn visit_source(source: &mut Source, f: &mut dyn FnMut(&mut Expr)) {
    match source {
        Source::Scan(Scan { filters, .. }) => filters.iter_mut().for_each(f),
        Source::Values(values) => values.rows.iter_mut().flatten().for_each(f),
        Source::Collected { .. } | Source::WorkTable { .. } | Source::Exchange { .. } | Source::Nothing => {}
        Source::AggregateFinal { aggregate, .. } | Source::AggregateSingle { aggregate, .. } => {
            visit_aggregate(aggregate, f)
        }
        Source::SortMerge { sort, .. } => visit_keys(&mut sort.keys, f),
        Source::Window { window, .. } => visit_window(window, f),
        Source::Recursive { seed, step, .. } => {
            for stage in seed.stages.iter_mut().chain(&mut step.stages) {
                stage.work.visit_exprs_mut(f);
            }
        }
    }
}

fn visit_transform(transform: &mut Transform, f: &mut dyn FnMut(&mut Expr)) {
    match transform {
        Transform::Filter { predicate } => f(predicate),
        Transform::Project { exprs } => exprs.iter_mut().for_each(f),
        Transform::Expand { projections } => projections.iter_mut().flatten().for_each(f),
        Transform::HashJoinProbe { join, .. } => visit_join(join, f),
        Transform::NestedLoopJoin { join, .. } => join.condition.iter_mut().for_each(f),
        Transform::AtMost { .. } | Transform::Limit(_) | Transform::Unnest(_) => {}
    }
}

fn visit_aggregate(aggregate: &mut Aggregate, f: &mut dyn FnMut(&mut Expr)) {
    aggregate.group_by.iter_mut().for_each(&mut *f);
    for call in &mut aggregate.calls {
        call.args.iter_mut().chain(&mut call.filter).for_each(&mut *f);
        visit_keys(&mut call.order_by, f);
    }
}

fn visit_join(join: &mut HashJoin, f: &mut dyn FnMut(&mut Expr)) {
    for (probe, build) in &mut join.keys {
        f(probe);
        f(build);
    }
    join.residual.iter_mut().for_each(f);
}

fn visit_window(window: &mut Window, f: &mut dyn FnMut(&mut Expr)) {
    window.partition_by.iter_mut().for_each(&mut *f);
    visit_keys(&mut window.order_by, f);
    for call in &mut window.calls {
        call.args.iter_mut().chain(&mut call.filter).for_each(&mut *f);
    }
}

fn visit_keys(keys: &mut [SortKey], f: &mut dyn FnMut(&mut Expr)) {
    keys.iter_mut().for_each(|k| f(&mut k.expr));
}
