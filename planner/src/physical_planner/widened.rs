//! Subplans that differ in their columns alone become one that has the columns of all.
//!
//! Two places of a query that join the same tables in the same way rarely want the same columns of them,
//! so `shared` would run both. Here such places get a plan of all columns that any of them wants, with a
//! projection to their own on top; `shared` then finds them equal. Once runtime filters are known, the same
//! is done for scans that read the same few rows.
//!
//! Columns are compared by what they are, not by where they stand: each has an identity, which for a scan's
//! is its place in the table, and for a join's twice the identity on the probe side, or twice that on the
//! build side and one. What always holds: plans of one shape have, for columns of one identity, the same
//! values in the same rows.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};

use super::project::is_volatile;
use super::shared::{exprs, operator_key};
use crate::expr::Expr;
use crate::physical::{HashJoin, JoinKind, Operator, PhysicalPlan, Query, RuntimeFilterUse, Scan};

/// A common join must leave at most one row of so many of its largest table, or reading that twice is better
/// than keeping the rows.
const JOIN_ROWS_KEPT: u64 = 8;

/// The same for a scan, by its runtime filters.
const SCAN_ROWS_KEPT: u64 = 16;

/// The identity of a mark join's mark.
const MARK: usize = usize::MAX;

/// Widens joins of one shape; before plans are shared.
pub(super) fn widen_joins(query: &mut Query) {
    let mut places = Places::default();
    for plan in plans(query) {
        places.collect(plan, &|plan| matches!(plan.operator, Operator::HashJoin(_)) && keeps_few(plan));
    }
    let widened = places.widened();
    for plan in plans(query) {
        replace(plan, &widened);
    }
}

/// Moves scans that read the same few rows to the shared plans; once runtime filters are assigned.
pub(super) fn share_scans(query: &mut Query) {
    let mut few = BTreeSet::new();
    for plan in plans(query) {
        selective_filters(plan, &mut few);
    }
    let wanted = |plan: &PhysicalPlan| match &plan.operator {
        Operator::Scan(scan) => scan.runtime_filters.iter().any(|f| few.contains(&f.id)),
        _ => false,
    };
    let mut places = Places { equal_too: true, ..Places::default() };
    for plan in plans(query) {
        places.collect(plan, &wanted);
    }
    let mut widened = places.widened();
    let first = query.shared.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
    let mut scans = vec![];
    for (id, (plan, _)) in (first..).zip(widened.values_mut()) {
        let (schema, rows_estimate) = (plan.schema.clone(), plan.rows_estimate);
        let operator = Operator::Shared { id };
        let shared = PhysicalPlan { operator, inputs: vec![], schema, id: 0, rows_estimate };
        scans.push((id, std::mem::replace(plan, shared)));
    }
    for plan in plans(query) {
        replace(plan, &widened);
    }
    // In front of the shared plans that may read them.
    query.shared.splice(0..0, scans);
}

fn plans(query: &mut Query) -> impl Iterator<Item = &mut PhysicalPlan> {
    let others = query.subqueries.iter_mut().chain(&mut query.shared).map(|(_, p)| p);
    std::iter::once(&mut query.root).chain(others)
}

/// What a plan does apart from its choice of columns, and the identities of its columns.
struct Shape {
    key: String,
    columns: Vec<usize>,
}

/// Plans by shape, with what each place of one wants of it.
#[derive(Default)]
struct Places {
    by_shape: HashMap<String, (PhysicalPlan, Vec<Vec<usize>>)>,
    /// Places that want the same columns count, too.
    equal_too: bool,
}

impl Places {
    /// Notes all subplans that are `wanted`.
    fn collect(&mut self, plan: &PhysicalPlan, wanted: &impl Fn(&PhysicalPlan) -> bool) {
        // The inside of a recursive query is planned on its own.
        if matches!(plan.operator, Operator::Recursive(_)) {
            return;
        }
        if wanted(plan)
            && let Some(shape) = shape(plan)
        {
            let (_, places) = self.by_shape.entry(shape.key).or_insert_with(|| (plan.clone(), vec![]));
            places.push(shape.columns);
        }
        plan.inputs.iter().for_each(|input| self.collect(input, wanted));
    }

    /// For each shape with places that want different columns: a plan of all of them.
    fn widened(self) -> HashMap<String, (PhysicalPlan, Vec<usize>)> {
        let several = |places: &[Vec<usize>]| match self.equal_too {
            true => places.len() > 1,
            false => places.iter().any(|p| *p != places[0]),
        };
        let shapes = self.by_shape.into_iter().filter(|(_, (_, places))| several(places));
        shapes
            .map(|(key, (plan, places))| {
                let all: BTreeSet<usize> = places.into_iter().flatten().collect();
                (key, widen(&plan, &all))
            })
            .collect()
    }
}

/// Puts the widened plans in the places of their shapes, topmost first.
fn replace(plan: &mut PhysicalPlan, widened: &HashMap<String, (PhysicalPlan, Vec<usize>)>) {
    if widened.is_empty() || matches!(plan.operator, Operator::Recursive(_)) {
        return;
    }
    if let Some(Shape { key, columns }) = shape(plan)
        && let Some((wide, identities)) = widened.get(&key)
    {
        let exprs = columns.iter().zip(plan.schema.fields());
        let exprs = exprs
            .map(|(column, field)| Expr::column(position(identities, *column), field.data_type().clone()))
            .collect();
        plan.operator = Operator::Project { exprs };
        plan.inputs = vec![wide.clone()];
        return;
    }
    plan.inputs.iter_mut().for_each(|input| replace(input, widened));
}

/// The shape of a plan; none if it may give other rows the next time.
fn shape(plan: &PhysicalPlan) -> Option<Shape> {
    if exprs(&plan.operator).any(is_volatile) || matches!(plan.operator, Operator::WorkTable { .. }) {
        return None;
    }
    match &plan.operator {
        Operator::Scan(scan) if scan.limit.is_none() => {
            let mut bare = scan.clone();
            bare.table_schema = Arc::new(Schema::empty());
            bare.filters.iter_mut().for_each(|f| f.remap(&|i| scan.columns[i]));
            bare.runtime_filters.iter_mut().for_each(|f| f.column = scan.columns[f.column]);
            bare.runtime_filters.sort_by_key(|f| (f.id, f.column));
            bare.columns.clear();
            bare.output.clear();
            let columns = scan.output.iter().map(|o| scan.columns[*o]).collect();
            Some(Shape { key: format!("{bare:?}"), columns })
        }
        Operator::Filter { predicate } => {
            let input = shape(&plan.inputs[0])?;
            let mut predicate = predicate.clone();
            predicate.remap(&|i| input.columns[i]);
            Some(Shape { key: format!("Filter {predicate:?} ({})", input.key), columns: input.columns })
        }
        Operator::Project { exprs } => {
            let input = shape(&plan.inputs[0])?;
            let Some(picked) = plain_columns(exprs) else { return whole(plan) };
            Some(Shape { columns: picked.iter().map(|i| input.columns[*i]).collect(), key: input.key })
        }
        Operator::HashJoin(join) => {
            let (probe, build) = (shape(&plan.inputs[0])?, shape(&plan.inputs[1])?);
            let largest = probe.columns.iter().chain(&build.columns).max().copied().unwrap_or(0);
            if largest > usize::MAX / 4 {
                return whole(plan);
            }
            let (p, b) = (&probe.columns, &build.columns);
            let mut bare = join.clone();
            for (of_probe, of_build) in &mut bare.keys {
                of_probe.remap(&|i| p[i]);
                of_build.remap(&|i| b[i]);
            }
            bare.residual.iter_mut().for_each(|r| r.remap(&|i| identity(JoinKind::Inner, p, b, i)));
            let columns = join.output.iter().map(|i| identity(join.kind, p, b, *i)).collect();
            bare.output.clear();
            Some(Shape { key: format!("{bare:?} ({}) ({})", probe.key, build.key), columns })
        }
        _ => whole(plan),
    }
}

/// The shape of a plan whose columns cannot be chosen.
fn whole(plan: &PhysicalPlan) -> Option<Shape> {
    let mut key = operator_key(plan);
    for input in &plan.inputs {
        let input = shape(input)?;
        let _ = write!(key, " {:?} ({})", input.columns, input.key);
    }
    Some(Shape { key, columns: (0..plan.schema.fields().len()).collect() })
}

/// The identity of column `at` of a join's full row.
fn identity(kind: JoinKind, probe: &[usize], build: &[usize], at: usize) -> usize {
    match kind {
        JoinKind::BuildSemi | JoinKind::BuildAnti => 2 * build[at] + 1,
        JoinKind::ProbeMark if at == probe.len() => MARK,
        _ if at < probe.len() => 2 * probe[at],
        _ => 2 * build[at - probe.len()] + 1,
    }
}

/// The positions of the input that a projection picks, if it does nothing else.
fn plain_columns(exprs: &[Expr]) -> Option<Vec<usize>> {
    let plain = |e: &Expr| match e {
        Expr::Column { index, .. } => Some(*index),
        _ => None,
    };
    exprs.iter().map(plain).collect()
}

fn position(identities: &[usize], column: usize) -> usize {
    identities.iter().position(|i| *i == column).expect("invariant: a widened plan has every wanted column")
}

/// A plan of the same shape with at least the `wanted` columns, and their identities.
fn widen(plan: &PhysicalPlan, wanted: &BTreeSet<usize>) -> (PhysicalPlan, Vec<usize>) {
    match &plan.operator {
        Operator::Scan(scan) if scan.limit.is_none() => widen_scan(plan, scan, wanted),
        Operator::Filter { predicate } => {
            let old = columns_of(&plan.inputs[0]);
            let mut all = wanted.clone();
            all.extend(used(predicate).into_iter().map(|i| old[i]));
            let (input, identities) = widen(&plan.inputs[0], &all);
            let mut predicate = predicate.clone();
            predicate.remap(&|i| position(&identities, old[i]));
            let schema = input.schema.clone();
            (with(plan, Operator::Filter { predicate }, vec![input], schema), identities)
        }
        Operator::Project { exprs } if plain_columns(exprs).is_some() => widen(&plan.inputs[0], wanted),
        Operator::HashJoin(join) if !columns_of(plan).iter().any(|c| *c != MARK && *c > usize::MAX / 2) => {
            widen_join(plan, join, wanted)
        }
        _ => (plan.clone(), columns_of(plan)),
    }
}

fn columns_of(plan: &PhysicalPlan) -> Vec<usize> {
    shape(plan).expect("invariant: a widened plan has a shape, and so have its inputs").columns
}

fn used(expr: &Expr) -> Vec<usize> {
    let mut used = vec![];
    expr.visit(&mut |e| {
        if let Expr::Column { index, .. } = e {
            used.push(*index);
        }
    });
    used
}

fn with(
    plan: &PhysicalPlan,
    operator: Operator,
    inputs: Vec<PhysicalPlan>,
    schema: Arc<Schema>,
) -> PhysicalPlan {
    PhysicalPlan { operator, inputs, schema, id: 0, rows_estimate: plan.rows_estimate }
}

fn widen_scan(plan: &PhysicalPlan, scan: &Scan, wanted: &BTreeSet<usize>) -> (PhysicalPlan, Vec<usize>) {
    let mut touched = wanted.clone();
    touched.extend(&scan.columns);
    let columns: Vec<usize> = touched.into_iter().collect();
    let identities: Vec<usize> = wanted.iter().copied().collect();
    let output = identities.iter().map(|c| position(&columns, *c)).collect();
    let mut filters = scan.filters.clone();
    filters.iter_mut().for_each(|f| f.remap(&|i| position(&columns, scan.columns[i])));
    let moved = |f: &RuntimeFilterUse| RuntimeFilterUse {
        id: f.id,
        column: position(&columns, scan.columns[f.column]),
    };
    let runtime_filters = scan.runtime_filters.iter().map(moved).collect();
    let fields: Vec<FieldRef> = identities.iter().map(|c| scan.table_schema.fields()[*c].clone()).collect();
    let wide = Scan { columns, filters, output, runtime_filters, ..scan.clone() };
    (with(plan, Operator::Scan(wide), vec![], Arc::new(Schema::new(fields))), identities)
}

fn widen_join(plan: &PhysicalPlan, join: &HashJoin, wanted: &BTreeSet<usize>) -> (PhysicalPlan, Vec<usize>) {
    let (old_probe, old_build) = (columns_of(&plan.inputs[0]), columns_of(&plan.inputs[1]));
    let (mut of_probe, mut of_build) = (BTreeSet::new(), BTreeSet::new());
    let mut need = |identity: usize| match identity {
        MARK => {}
        i if i % 2 == 0 => drop(of_probe.insert(i / 2)),
        i => drop(of_build.insert(i / 2)),
    };
    wanted.iter().for_each(|w| need(*w));
    let both = |i| identity(JoinKind::Inner, &old_probe, &old_build, i);
    join.residual.iter().flat_map(used).for_each(|i| need(both(i)));
    for (probe_key, build_key) in &join.keys {
        of_probe.extend(used(probe_key).into_iter().map(|i| old_probe[i]));
        of_build.extend(used(build_key).into_iter().map(|i| old_build[i]));
    }
    let (probe, new_probe) = widen(&plan.inputs[0], &of_probe);
    let (build, new_build) = widen(&plan.inputs[1], &of_build);
    let width = new_probe.len();
    let in_row = |identity: usize| match identity {
        MARK => width,
        i if i % 2 == 0 => position(&new_probe, i / 2),
        i => width + position(&new_build, i / 2),
    };
    let mut wide = join.clone();
    for (probe_key, build_key) in &mut wide.keys {
        probe_key.remap(&|i| position(&new_probe, old_probe[i]));
        build_key.remap(&|i| position(&new_build, old_build[i]));
    }
    wide.residual.iter_mut().for_each(|r| r.remap(&|i| in_row(both(i))));
    let identities: Vec<usize> = wanted.iter().copied().collect();
    let build_only = matches!(join.kind, JoinKind::BuildSemi | JoinKind::BuildAnti);
    let shift = if build_only { width } else { 0 };
    wide.output = identities.iter().map(|i| in_row(*i) - shift).collect();
    let field = |i: &usize| match *i {
        MARK => Arc::new(Field::new("mark", DataType::Boolean, true)),
        i => {
            let (side, at) = if i % 2 == 0 {
                (&probe.schema, position(&new_probe, i / 2))
            } else {
                (&build.schema, position(&new_build, i / 2))
            };
            // An outer join may have made it nullable.
            Arc::new(side.field(at).clone().with_nullable(true))
        }
    };
    let schema = Arc::new(Schema::new(identities.iter().map(field).collect::<Vec<FieldRef>>()));
    (with(plan, Operator::HashJoin(wide), vec![probe, build], schema), identities)
}

/// The join hands on few of the rows that are read for it, as far as is known.
fn keeps_few(plan: &PhysicalPlan) -> bool {
    let mut largest = 0;
    plan.visit(&mut |p| {
        if let Operator::Scan(_) = p.operator {
            largest = largest.max(p.rows_estimate.unwrap_or(0));
        }
    });
    plan.rows_estimate.is_some_and(|rows| rows.saturating_mul(JOIN_ROWS_KEPT) <= largest)
}

/// The numbers of filters whose joins keep few of the rows that they see.
fn selective_filters(plan: &PhysicalPlan, few: &mut BTreeSet<u32>) {
    if let Operator::HashJoin(join) = &plan.operator
        && let (Some(rows), Some(probed)) = (plan.rows_estimate, plan.inputs[0].rows_estimate)
        && rows.saturating_mul(SCAN_ROWS_KEPT) <= probed
    {
        few.extend(join.runtime_filters.iter().map(|(id, _)| *id));
    }
    plan.inputs.iter().for_each(|input| selective_filters(input, few));
}
