//! Runtime filters: which scans may drop rows that a finished join build proves useless.
//!
//! The build side of a join is finished before its probe side starts. Where a probe key is a table's own
//! column, the scan of that table can drop rows whose key is not among the build's. The key is followed from
//! the join down its probe side: through filters, plain projections, joins, group keys; and across inner
//! joins to the columns that it must equal there. A scan below a build side waits for the filter; there is
//! no cycle, because everything a join's build side needs lies in that side.
//!
//! What always holds: a row is dropped only if no row of the result could come of it. So the walk stops at
//! limits, at the null-extended sides of outer joins, at shared plans, and at joins whose keys may be null
//! on both sides.

use crate::expr::Expr;
use crate::physical::{HashJoin, JoinKind, Operator, PhysicalPlan, Query, RuntimeFilterUse};

/// Numbers filters and registers their uses, in all plans of the query.
pub(super) fn assign(query: &mut Query) {
    let mut next = 0;
    let plans = std::iter::once(&mut query.root)
        .chain(query.subqueries.iter_mut().map(|(_, p)| p))
        .chain(query.shared.iter_mut().map(|(_, p)| p));
    for plan in plans {
        assign_below(plan, &mut next);
        assign_to_builds(plan, &mut next);
    }
}

fn assign_below(plan: &mut PhysicalPlan, next: &mut u32) {
    let PhysicalPlan { operator, inputs, .. } = plan;
    if let (Operator::HashJoin(join), [probe, build]) = (&mut *operator, inputs.as_mut_slice())
        && drops_unmatched_probe_rows(join)
        && is_selective(build)
    {
        for (position, (key, _)) in join.keys.iter().enumerate() {
            if let Expr::Column { index, .. } = key
                && push(probe, *index, *next)
            {
                join.runtime_filters.push((*next, position));
                *next += 1;
            }
        }
    }
    // Parents first: what a filter from above made selective passes it on.
    for input in inputs {
        assign_below(input, next);
    }
}

/// Hands the filters of joins on the probe side to the build side.
fn assign_to_builds(plan: &mut PhysicalPlan, next: &mut u32) {
    let PhysicalPlan { operator, inputs, .. } = plan;
    if let (Operator::HashJoin(join), [probe, build]) = (&*operator, inputs.as_mut_slice())
        && drops_unmatched_build_rows(join)
    {
        for (key, wanted) in &join.keys {
            if let (Expr::Column { index: key, .. }, Expr::Column { index: wanted, .. }) = (key, wanted)
                && let Some((publisher, position)) = publisher(probe, *key)
            {
                let known = publisher.runtime_filters.iter().find(|(_, p)| *p == position).map(|(id, _)| *id);
                if push(build, *wanted, known.unwrap_or(*next)) && known.is_none() {
                    publisher.runtime_filters.push((*next, position));
                    *next += 1;
                }
            }
        }
    }
    for input in inputs {
        assign_to_builds(input, next);
    }
}

/// A build row without a match leaves no trace in the join's result.
fn drops_unmatched_build_rows(join: &HashJoin) -> bool {
    !join.null_equal
        && !join.null_aware
        && match join.kind {
            JoinKind::Inner
            | JoinKind::ProbeOuter
            | JoinKind::ProbeSemi
            | JoinKind::ProbeAnti
            | JoinKind::ProbeMark
            | JoinKind::BuildSemi => true,
            JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildAnti => false,
        }
}

/// The join in a plan, with its key pair, among whose build keys all values of an output column are.
fn publisher(plan: &mut PhysicalPlan, column: usize) -> Option<(&mut HashJoin, usize)> {
    let PhysicalPlan { operator, inputs, .. } = plan;
    match operator {
        Operator::Filter { .. } => publisher(&mut inputs[0], column),
        Operator::Project { exprs } => match exprs[column] {
            Expr::Column { index, .. } => publisher(&mut inputs[0], index),
            _ => None,
        },
        Operator::HashJoin(join) => {
            let column = join.output[column];
            let [probe, build] = inputs.as_mut_slice() else { return None };
            let probe_len = probe.schema.fields().len();
            let equal = matches!(join.kind, JoinKind::Inner | JoinKind::ProbeSemi) && !join.null_equal;
            let keeps_probe_column = equal
                || matches!(join.kind, JoinKind::ProbeOuter | JoinKind::ProbeAnti | JoinKind::ProbeMark);
            let is = |e: &Expr, place: usize| matches!(e, Expr::Column { index, .. } if *index == place);
            let position = if column < probe_len {
                join.keys.iter().position(|(p, _)| is(p, column))
            } else {
                join.keys.iter().position(|(_, b)| is(b, column - probe_len))
            };
            match position {
                Some(position) if equal && is_selective(build) => Some((join, position)),
                _ if column < probe_len && keeps_probe_column => publisher(probe, column),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A probe row without a match leaves no trace in the join's result.
fn drops_unmatched_probe_rows(join: &HashJoin) -> bool {
    !join.null_equal
        && match join.kind {
            JoinKind::Inner
            | JoinKind::ProbeSemi
            | JoinKind::BuildSemi
            | JoinKind::BuildOuter
            | JoinKind::BuildAnti => true,
            JoinKind::ProbeOuter | JoinKind::Full | JoinKind::ProbeAnti | JoinKind::ProbeMark => false,
        }
}

/// Something below removes rows; the keys of a whole table would keep everything.
fn is_selective(plan: &PhysicalPlan) -> bool {
    let mut selective = false;
    plan.visit(&mut |p| {
        selective |= match &p.operator {
            Operator::Scan(scan) => {
                !scan.filters.is_empty() || !scan.runtime_filters.is_empty() || scan.limit.is_some()
            }
            Operator::Filter { .. } | Operator::Limit(_) | Operator::Values(_) | Operator::Shared { .. } => {
                true
            }
            Operator::Sort(sort) => sort.fetch.is_some(),
            Operator::HashJoin(join) => matches!(
                join.kind,
                JoinKind::ProbeSemi | JoinKind::ProbeAnti | JoinKind::BuildSemi | JoinKind::BuildAnti
            ),
            _ => false,
        };
    });
    selective
}

/// Hands filter `id` on column `column` of the plan's output down; whether any scan takes it.
fn push(plan: &mut PhysicalPlan, column: usize, id: u32) -> bool {
    let PhysicalPlan { operator, inputs, .. } = plan;
    match operator {
        Operator::Scan(scan) => {
            // A row that the limit counted must not be dropped.
            if scan.limit.is_some() {
                return false;
            }
            let column = scan.output[column];
            if scan.runtime_filters.iter().all(|f| f.id != id || f.column != column) {
                scan.runtime_filters.push(RuntimeFilterUse { id, column });
            }
            true
        }
        Operator::Filter { .. } => push(&mut inputs[0], column, id),
        Operator::Sort(sort) => sort.fetch.is_none() && push(&mut inputs[0], column, id),
        Operator::Project { exprs } => match exprs[column] {
            Expr::Column { index, .. } => push(&mut inputs[0], index, id),
            _ => false,
        },
        Operator::Aggregate(aggregate) => match aggregate.group_by.get(column) {
            // Whole groups go, or none of their rows.
            Some(Expr::Column { index, .. }) => push(&mut inputs[0], *index, id),
            _ => false,
        },
        Operator::Window(window) => {
            // Whole partitions go, or none of their rows: the column must be one of their keys.
            let key = |e: &Expr| matches!(e, Expr::Column { index, .. } if *index == column);
            window.partition_by.iter().any(key) && push(&mut inputs[0], column, id)
        }
        Operator::Union => {
            let mut any = false;
            for input in inputs {
                any |= push(input, column, id);
            }
            any
        }
        Operator::HashJoin(join) => push_into_join(join, inputs, column, id),
        Operator::NestedLoopJoin(join) => {
            let column = join.output[column];
            let probe_len = inputs[0].schema.fields().len();
            match join.kind {
                JoinKind::Inner if column < probe_len => push(&mut inputs[0], column, id),
                JoinKind::Inner => push(&mut inputs[1], column - probe_len, id),
                JoinKind::ProbeOuter | JoinKind::ProbeSemi | JoinKind::ProbeAnti | JoinKind::ProbeMark
                    if column < probe_len =>
                {
                    push(&mut inputs[0], column, id)
                }
                _ => false,
            }
        }
        Operator::Values(_)
        | Operator::Shared { .. }
        | Operator::Expand { .. }
        | Operator::Limit(_)
        | Operator::Unnest(_)
        | Operator::Recursive(_)
        | Operator::WorkTable { .. } => false,
    }
}

/// A join passes the filter to the side that the column comes from, if rows dropped there are rows
/// dropped from its result, and to the other side if the column is a key that must be equal there.
fn push_into_join(join: &HashJoin, inputs: &mut [PhysicalPlan], column: usize, id: u32) -> bool {
    let column = join.output[column];
    let probe_len = inputs[0].schema.fields().len();
    let build_only = matches!(join.kind, JoinKind::BuildSemi | JoinKind::BuildAnti);
    let from_probe = !build_only && column < probe_len;
    let own = match join.kind {
        JoinKind::Inner => true,
        JoinKind::ProbeOuter | JoinKind::ProbeSemi | JoinKind::ProbeAnti | JoinKind::ProbeMark => from_probe,
        JoinKind::BuildOuter => !from_probe,
        JoinKind::BuildSemi | JoinKind::BuildAnti => true,
        JoinKind::Full => false,
    };
    if !own || (join.kind == JoinKind::ProbeMark && column == probe_len) {
        return false;
    }
    let own_column = if from_probe || build_only { column } else { column - probe_len };
    // The key pair, if any, in which the column stands; nulls must not match, nor have a say (NOT IN).
    let is_own = |e: &Expr| matches!(e, Expr::Column { index, .. } if *index == own_column);
    let pair = join.keys.iter().find(|(p, b)| is_own(if from_probe { p } else { b }));
    let other = match pair {
        Some((p, b)) if !join.null_equal && !join.null_aware => Some(if from_probe { b } else { p }),
        _ => None,
    };
    let (own_input, other_input) = if from_probe { (0, 1) } else { (1, 0) };
    let mut any = push(&mut inputs[own_input], own_column, id);
    if let Some(Expr::Column { index, .. }) = other {
        any |= push(&mut inputs[other_input], *index, id);
    }
    any
}
