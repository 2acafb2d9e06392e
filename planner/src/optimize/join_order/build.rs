//! From the search's best tree back to a logical plan.
//!
//! The probe side is the left input, the build side the right one. Equalities go into `on`, one for each
//! class that has members on both sides; other conditions into the join's filter, or into a filter above
//! a join that is not inner. Columns that nothing above needs are dropped by a projection at once.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use datafusion_common::{Column, JoinConstraint, JoinType, NullEquality};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, Filter, Join, LogicalPlan, Projection};

use super::graph::{Class, Graph};
use super::internal;
use super::region::{Attachment, AttachmentKind, Region};
use super::relation_set::{RelationSet, SetMap};
use super::search::{Best, Inputs};
use crate::error::Result;

/// Columns that a plan must hand on.
type Needed = HashSet<Column>;

/// Builds plans from a table of best joins.
pub struct Builder<'a> {
    pub region: &'a Region,
    pub graph: &'a Graph,
    pub best: &'a SetMap<Best>,
}

impl Builder<'_> {
    /// The plan for a set of relations, with at least the columns in `needed`, and no others if that
    /// takes no more than a projection above a join.
    pub fn build(&self, set: RelationSet, needed: &Needed) -> Result<LogicalPlan> {
        let best = self.best.get(&set).ok_or_else(|| internal("a set of relations without a join tree"))?;
        match best.inputs {
            None => self.relation(set.first(), needed),
            Some(inputs) => self.join(inputs, needed),
        }
    }

    fn relation(&self, number: usize, needed: &Needed) -> Result<LogicalPlan> {
        let relation = &self.region.relations[number];
        let plan = match conjunction(relation.filters.iter().cloned()) {
            None => relation.plan.clone(),
            Some(filter) => filtered(relation.plan.clone(), filter)?,
        };
        // A mark is named after the relations that the columns are from, so none of them may go.
        let marks = |a: &Attachment| a.kind == AttachmentKind::Mark && a.relation == number;
        if self.graph.attachments.iter().any(marks) { Ok(plan) } else { keep_columns(plan, needed) }
    }

    fn join(&self, inputs: Inputs, needed: &Needed) -> Result<LogicalPlan> {
        let condition = self.condition(inputs, needed);
        // What the two sides must hand on: what is needed above, and what the join itself reads.
        let mut below = needed.clone();
        let keys = condition.on.iter().flat_map(|(l, r)| [l, r]);
        for expr in keys.chain(&condition.filter).chain(&condition.after) {
            below.extend(expr.column_refs().into_iter().cloned());
        }
        let left = self.build(inputs.probe, &below)?;
        let right = self.build(inputs.build, &below)?;
        let join = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            condition.on,
            condition.filter,
            condition.join_type,
            JoinConstraint::On,
            condition.null_equality,
            condition.null_aware,
        );
        let mut plan = LogicalPlan::Join(join.map_err(internal)?);
        if let Some(filter) = condition.after {
            plan = filtered(plan, filter)?;
        }
        keep_columns(plan, needed)
    }

    fn condition(&self, inputs: Inputs, needed: &Needed) -> Condition {
        match inputs.attachment {
            None => self.inner(inputs, needed),
            Some(number) => self.attach(&self.graph.attachments[number], inputs),
        }
    }

    fn inner(&self, Inputs { probe, build, .. }: Inputs, needed: &Needed) -> Condition {
        let mut on = vec![];
        let joining = |c: &&Class| c.relations.intersects(probe) && c.relations.intersects(build);
        let classes: Vec<&Class> = self.graph.classes.iter().filter(joining).collect();
        for class in &classes {
            let side = |set: RelationSet| {
                let members = class.members.iter().filter(|(r, _)| set.has(*r));
                // The parts of a key are taken from one relation; a column that is carried on anyway is
                // the cheapest to compare.
                let keys = |r: usize| classes.iter().filter(|c| c.relations.has(r)).count();
                let carried = |e: &Expr| e.column_refs().into_iter().all(|c| needed.contains(c));
                members.max_by_key(|(r, e)| (keys(*r), carried(e), Reverse(*r))).map(|(_, e)| e)
            };
            if let (Some(p), Some(b)) = (side(probe), side(build)) {
                on.push((p.clone(), b.clone()));
            }
        }
        for e in &self.graph.equalities {
            if probe.contains(e.left_needs) && build.contains(e.right_needs) {
                on.push((e.left.clone(), e.right.clone()));
            } else if probe.contains(e.right_needs) && build.contains(e.left_needs) {
                on.push((e.right.clone(), e.left.clone()));
            }
        }
        Condition {
            on,
            filter: conjunction(self.completed(probe, build)),
            after: None,
            join_type: JoinType::Inner,
            null_equality: NullEquality::NullEqualsNothing,
            null_aware: false,
        }
    }

    fn attach(&self, attachment: &Attachment, Inputs { probe, build, .. }: Inputs) -> Condition {
        let turned = probe == RelationSet::single(attachment.relation);
        let left = if turned { build } else { probe };
        let key = |key: &Expr| {
            let class = self.graph.classes.iter().find(|c| c.members.iter().any(|(_, e)| e == key));
            let equal = class.into_iter().flat_map(|c| &c.members).filter(|(r, _)| left.has(*r));
            let own = equal.clone().find(|(_, e)| e == key);
            own.or_else(|| equal.clone().next()).map_or_else(|| key.clone(), |(_, e)| e.clone())
        };
        let on = attachment.on.iter().map(|(l, r)| (key(l), r.clone()));
        let on = on.map(|(l, r)| if turned { (r, l) } else { (l, r) });
        let join_type = match (attachment.kind, turned) {
            (AttachmentKind::Left, false) => JoinType::Left,
            (AttachmentKind::Left, true) => JoinType::Right,
            (AttachmentKind::Semi, false) => JoinType::LeftSemi,
            (AttachmentKind::Semi, true) => JoinType::RightSemi,
            (AttachmentKind::Anti, false) => JoinType::LeftAnti,
            (AttachmentKind::Anti, true) => JoinType::RightAnti,
            (AttachmentKind::Mark, false) => JoinType::LeftMark,
            (AttachmentKind::Mark, true) => JoinType::RightMark,
        };
        Condition {
            on: on.collect(),
            filter: attachment.filter.clone(),
            after: conjunction(self.completed(probe, build)),
            join_type,
            null_equality: attachment.null_equality,
            null_aware: attachment.null_aware,
        }
    }

    /// Conditions that can be evaluated on the join of two sets, but not on either.
    fn completed(&self, a: RelationSet, b: RelationSet) -> Vec<Expr> {
        let all = a | b;
        let new = |needs| all.contains(needs) && !a.contains(needs) && !b.contains(needs);
        let conditions = self.graph.conditions.iter().filter(|c| new(c.needs)).map(|c| c.expr.clone());
        // An equality whose one side spreads over both inputs is no key here.
        let spread = self.graph.equalities.iter().filter(|e| {
            let apart = |x, y| a.contains(x) && b.contains(y);
            new(e.left_needs | e.right_needs)
                && !apart(e.left_needs, e.right_needs)
                && !apart(e.right_needs, e.left_needs)
        });
        conditions.chain(spread.map(|e| e.left.clone().eq(e.right.clone()))).collect()
    }
}

/// Everything about a join but its inputs.
struct Condition {
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    /// Applied to the join's result.
    after: Option<Expr>,
    join_type: JoinType,
    null_equality: NullEquality,
    null_aware: bool,
}

fn filtered(plan: LogicalPlan, predicate: Expr) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan)).map_err(internal)?))
}

/// A projection above `plan` if it has columns that are not needed.
fn keep_columns(plan: LogicalPlan, needed: &Needed) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    if columns.iter().all(|c| needed.contains(c)) {
        return Ok(plan);
    }
    let kept = columns.into_iter().filter(|c| needed.contains(c)).map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(plan)).map_err(internal)?))
}
