//! Equal subplans run once.
//!
//! A common table expression that is named twice arrives here as two equal subtrees. Subtrees are put
//! into classes bottom-up: two are equal if their operators are (names of columns do not matter) and
//! their inputs are. A class that two or more places refer to, and that is worth it (it joins, aggregates,
//! sorts or numbers rows), moves to [`Query::shared`]; the places read it with [`Operator::Shared`].
//!
//! What always holds: a shared plan comes after those that it reads; nothing volatile is shared, nothing
//! inside of a recursive query, and nothing that reads a recursive query's rounds.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};

use super::project::is_volatile;
use crate::physical::{Operator, PhysicalPlan, Query};

/// Moves equal subplans of the query to its shared plans, where there may be some already.
pub(super) fn share(query: &mut Query) {
    let mut classes = Classes::default();
    for plan in roots(query) {
        let class = classes.classify(plan);
        classes.members[class].references += 1;
    }
    let first_id = query.shared.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
    let mut mover = Mover { classes, numbers: HashMap::new(), first_id, shared: vec![] };
    for plan in roots(query) {
        mover.replace(plan);
    }
    mover.shared.append(&mut query.shared);
    query.shared = readers_last(mover.shared);
}

/// The shared plans in an order in which each comes after those that it reads.
fn readers_last(mut plans: Vec<(u32, PhysicalPlan)>) -> Vec<(u32, PhysicalPlan)> {
    let mut ordered: Vec<(u32, PhysicalPlan)> = vec![];
    while !plans.is_empty() {
        let waits = |plan: &PhysicalPlan| {
            let mut waits = false;
            plan.visit(&mut |p| {
                waits |= matches!(p.operator, Operator::Shared { id } if plans.iter().any(|(i, _)| *i == id));
            });
            waits
        };
        // Plans that read each other in a circle are refused later.
        let next = plans.iter().position(|(_, plan)| !waits(plan)).unwrap_or(0);
        let next = plans.remove(next);
        ordered.push(next);
    }
    ordered
}

/// Whether two plans do the same, whatever their columns are called.
pub(super) fn same(a: &PhysicalPlan, b: &PhysicalPlan) -> bool {
    a.inputs.len() == b.inputs.len()
        && operator_key(a) == operator_key(b)
        && a.inputs.iter().zip(&b.inputs).all(|(a, b)| same(a, b))
}

fn roots(query: &mut Query) -> impl Iterator<Item = &mut PhysicalPlan> {
    let plans = query.shared.iter_mut().chain(&mut query.subqueries).map(|(_, p)| p);
    plans.chain(std::iter::once(&mut query.root))
}

#[derive(Default)]
struct Classes {
    by_key: HashMap<String, usize>,
    members: Vec<Class>,
}

struct Class {
    /// Places that refer to the class: operators of other classes, and roots.
    references: usize,
    /// Large enough to be worth keeping.
    worthwhile: bool,
    /// Gives the same rows wherever and whenever it runs.
    movable: bool,
}

impl Classes {
    /// The plan's class, which is also left in its `id`, and in those of everything below.
    fn classify(&mut self, plan: &mut PhysicalPlan) -> usize {
        let mut key = operator_key(plan);
        let recursive = matches!(plan.operator, Operator::Recursive(_));
        let mut inputs = vec![];
        if recursive {
            // The inside is planned on its own; two recursive queries are never one.
            let _ = write!(key, "#{}", self.members.len());
        } else {
            inputs = plan.inputs.iter_mut().map(|p| self.classify(p)).collect();
            let _ = write!(key, "{inputs:?}");
        }
        if let Some(class) = self.by_key.get(&key) {
            plan.id = *class as u32;
            return *class;
        }
        let worthwhile = matches!(
            plan.operator,
            Operator::HashJoin(_)
                | Operator::NestedLoopJoin(_)
                | Operator::Aggregate(_)
                | Operator::Window(_)
                | Operator::Sort(_)
        );
        let own = !recursive && !matches!(plan.operator, Operator::WorkTable { .. });
        let movable = own && !exprs(&plan.operator).any(is_volatile);
        let class = Class {
            references: 0,
            worthwhile: worthwhile || inputs.iter().any(|i| self.members[*i].worthwhile),
            movable: movable && inputs.iter().all(|i| self.members[*i].movable),
        };
        for input in inputs {
            self.members[input].references += 1;
        }
        let number = self.members.len();
        self.members.push(class);
        self.by_key.insert(key, number);
        plan.id = number as u32;
        number
    }
}

struct Mover {
    classes: Classes,
    /// Number of the shared plan, by class.
    numbers: HashMap<usize, u32>,
    /// The first number that is free.
    first_id: u32,
    shared: Vec<(u32, PhysicalPlan)>,
}

impl Mover {
    fn replace(&mut self, plan: &mut PhysicalPlan) {
        if matches!(plan.operator, Operator::Recursive(_)) {
            return;
        }
        let class = plan.id as usize;
        let Class { references, worthwhile, movable } = self.classes.members[class];
        if references < 2 || !worthwhile || !movable {
            plan.inputs.iter_mut().for_each(|input| self.replace(input));
            return;
        }
        let id = match self.numbers.get(&class) {
            Some(id) => *id,
            None => {
                let mut own = plan.clone();
                own.inputs.iter_mut().for_each(|input| self.replace(input));
                let id = self.first_id + self.shared.len() as u32;
                self.shared.push((id, own));
                self.numbers.insert(class, id);
                id
            }
        };
        plan.operator = Operator::Shared { id };
        plan.inputs.clear();
    }
}

/// All expressions of an operator.
pub(super) fn exprs(operator: &Operator) -> Box<dyn Iterator<Item = &crate::expr::Expr> + '_> {
    match operator {
        Operator::Scan(scan) => Box::new(scan.filters.iter()),
        Operator::Values(values) => Box::new(values.rows.iter().flatten()),
        Operator::Filter { predicate } => Box::new(std::iter::once(predicate)),
        Operator::Project { exprs } => Box::new(exprs.iter()),
        Operator::Expand { projections } => Box::new(projections.iter().flatten()),
        Operator::Aggregate(a) => Box::new(
            a.group_by.iter().chain(
                a.calls
                    .iter()
                    .flat_map(|c| c.args.iter().chain(&c.filter).chain(c.order_by.iter().map(|k| &k.expr))),
            ),
        ),
        Operator::HashJoin(join) => {
            Box::new(join.keys.iter().flat_map(|(p, b)| [p, b]).chain(&join.residual))
        }
        Operator::NestedLoopJoin(join) => Box::new(join.condition.iter()),
        Operator::Sort(sort) => Box::new(sort.keys.iter().map(|k| &k.expr)),
        Operator::Window(w) => Box::new(
            w.partition_by
                .iter()
                .chain(w.order_by.iter().map(|k| &k.expr))
                .chain(w.calls.iter().flat_map(|c| c.args.iter().chain(&c.filter))),
        ),
        Operator::Shared { .. }
        | Operator::Limit(_)
        | Operator::Union
        | Operator::Unnest(_)
        | Operator::Recursive(_)
        | Operator::WorkTable { .. } => Box::new(std::iter::empty()),
    }
}

/// The operator and its column types as text: equal exactly for operators that do the same.
pub(super) fn operator_key(plan: &PhysicalPlan) -> String {
    let mut operator = plan.operator.clone();
    let unnamed =
        |field: &arrow::datatypes::FieldRef| Arc::new(Field::new("", field.data_type().clone(), true));
    match &mut operator {
        // Said by the table's name already.
        Operator::Scan(scan) => scan.table_schema = Arc::new(Schema::empty()),
        Operator::Aggregate(a) => a.calls.iter_mut().for_each(|c| c.output = unnamed(&c.output)),
        Operator::Window(w) => w.calls.iter_mut().for_each(|c| c.output = unnamed(&c.output)),
        _ => {}
    }
    let types: Vec<_> = plan.schema.fields().iter().map(|f| f.data_type()).collect();
    format!("{operator:?}{types:?}")
}
