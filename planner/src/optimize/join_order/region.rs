//! Taking a region of joins apart: from a tree of operators to relations, predicates and attachments.
//!
//! A region is a maximal tree of joins with filters, column-only projections and aliases between them.
//! What hangs below it (scans, group-bys, unions, limits) are its [`Relation`]s. Conjuncts of inner joins
//! and of filters become [`Predicate`]s, free to be applied wherever their columns are together. A left,
//! semi, anti or mark join becomes an [`Attachment`]: its right input is one relation, and it may be
//! applied to any set of relations that has the columns its condition names.
//!
//! That is sound because each of these joins works row by row on its left input: it commutes with
//! filters and inner joins that do not look at what it adds. What does look at it (a filter on the
//! nullable side of a left join, or on a mark) gets the attachment's relations into its own requirement,
//! by [`Region::closure`]. In the terms of Moerkotte, Fender and Eich ("On the correct and complete
//! enumeration of the core search space", SIGMOD 2013): with a single relation on the right, the total
//! eligibility set is the closure of the syntactic one, and no conflict rules remain.
//!
//! Every relation's columns get names that are unique in the region, so expressions can move freely: a
//! column is the same `Expr::Column` in every plan built from the region.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, JoinType, NullEquality, TableReference};
use datafusion_expr::logical_plan::builder::build_join_schema;
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{Expr, Filter, Join, LogicalPlan, Operator, Projection};

use super::relation_set::RelationSet;
use super::{internal, reorder_joins};
use crate::catalog::CatalogSnapshot;
use crate::error::Result;

/// A region, taken apart.
#[derive(Debug, Default)]
pub struct Region {
    pub relations: Vec<Relation>,
    pub predicates: Vec<Predicate>,
    pub attachments: Vec<Attachment>,
    /// Conditions without columns; they hold for the whole region.
    pub constants: Vec<Expr>,
    /// Owner of each column, marks included.
    pub owners: HashMap<Column, usize>,
    /// Conjuncts on their way to one of the above.
    conjuncts: Vec<Expr>,
}

/// An input of the region.
#[derive(Debug)]
pub struct Relation {
    pub plan: LogicalPlan,
    /// Conjuncts about this relation alone, not yet part of `plan`.
    pub filters: Vec<Expr>,
}

/// A conjunct of an inner join or a filter.
#[derive(Debug)]
pub struct Predicate {
    pub expr: Expr,
    /// Relations that must be joined before it can be evaluated.
    pub needs: RelationSet,
    /// For `left = right` with disjoint sides: the sides, with what they need.
    pub equality: Option<Equality>,
}

/// The two sides of an equality.
#[derive(Debug, Clone)]
pub struct Equality {
    pub left: Expr,
    pub right: Expr,
    pub left_needs: RelationSet,
    pub right_needs: RelationSet,
}

/// A join that is not inner, with its right input as one relation.
#[derive(Debug)]
pub struct Attachment {
    pub kind: AttachmentKind,
    /// The right input.
    pub relation: usize,
    /// What must be on the left side.
    pub needs: RelationSet,
    /// Sets that do as well as `needs`, because an equality gives them the same key. With `needs`.
    pub alternatives: Vec<RelationSet>,
    /// `(left, right)` keys.
    pub on: Vec<(Expr, Expr)>,
    pub filter: Option<Expr>,
    pub null_equality: NullEquality,
    pub null_aware: bool,
}

/// What an attachment does to the rows of its left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentKind {
    Left,
    Semi,
    Anti,
    Mark,
}

/// Can `plan` be taken apart, that is: is it a join of a kind we reorder, or something that lets us look
/// through to one?
pub fn is_inside_region(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => {
            let kind = match join.join_type {
                JoinType::Inner => join.null_equality == NullEquality::NullEqualsNothing,
                JoinType::Full | JoinType::RightMark => false,
                _ => true,
            };
            let keys = join.on.iter().flat_map(|(l, r)| [l, r]);
            kind && keys.chain(&join.filter).all(may_move)
        }
        LogicalPlan::Filter(filter) => may_move(&filter.predicate) && is_inside_region(&filter.input),
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|e| plain_column(e).is_some()) && is_inside_region(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => is_inside_region(&alias.input),
        _ => false,
    }
}

/// The column that a projection's expression hands on unchanged.
fn plain_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => plain_column(&alias.expr),
        _ => None,
    }
}

/// The column of an expression that is null when the column is.
fn strict_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => strict_column(&cast.expr),
        _ => None,
    }
}

/// May the expression be evaluated elsewhere, and another number of times?
fn may_move(expr: &Expr) -> bool {
    let pinned = |e: &Expr| {
        e.is_volatile_node()
            || match e {
                Expr::OuterReferenceColumn(..)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_) => true,
                Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty(),
                _ => false,
            }
    };
    !expr.exists(|e| Ok(pinned(e))).unwrap_or(true)
}

impl Region {
    /// Takes `plan` apart. Returns the region, and for each column of the plan's schema the region's
    /// column that it is. `None` if there are more relations than fit a [`RelationSet`].
    pub fn take_apart(
        plan: &LogicalPlan,
        catalog: &CatalogSnapshot,
    ) -> Result<Option<(Region, Vec<Column>)>> {
        if count_relations(plan) > RelationSet::CAPACITY {
            return Ok(None);
        }
        let mut region = Region::default();
        let output = region.visit(plan, catalog)?;
        region.settle();
        Ok(Some((region, output)))
    }

    /// Adds what is below `plan`; returns the region's column for each column of its schema.
    fn visit(&mut self, plan: &LogicalPlan, catalog: &CatalogSnapshot) -> Result<Vec<Column>> {
        if !is_inside_region(plan) {
            return self.relation(plan, false, catalog);
        }
        match plan {
            LogicalPlan::Join(join) => self.join(join, catalog),
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let columns = self.visit(input, catalog)?;
                let predicate = Names::of(input.schema(), &columns).rename(predicate.clone())?;
                self.add_conjuncts(predicate, catalog)?;
                Ok(columns)
            }
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let columns = self.visit(input, catalog)?;
                let names = Names::of(input.schema(), &columns);
                let kept = expr.iter().map(|e| plain_column(e).and_then(|c| names.get(c)).cloned());
                kept.collect::<Option<_>>().ok_or_else(|| internal("a projection of a missing column"))
            }
            LogicalPlan::SubqueryAlias(alias) => self.visit(&alias.input, catalog),
            _ => Err(internal("a join region holds joins, filters, projections and aliases")),
        }
    }

    fn join(&mut self, join: &Join, catalog: &CatalogSnapshot) -> Result<Vec<Column>> {
        let kind = match join.join_type {
            JoinType::Inner => return self.inner_join(join, catalog),
            JoinType::Left | JoinType::Right => AttachmentKind::Left,
            JoinType::LeftSemi | JoinType::RightSemi => AttachmentKind::Semi,
            JoinType::LeftAnti | JoinType::RightAnti => AttachmentKind::Anti,
            JoinType::LeftMark => AttachmentKind::Mark,
            JoinType::Full | JoinType::RightMark => return Err(internal("this join is not reordered")),
        };
        let swapped = matches!(join.join_type, JoinType::Right | JoinType::RightSemi | JoinType::RightAnti);
        let (kept, added) = if swapped { (&join.right, &join.left) } else { (&join.left, &join.right) };

        let first = self.relations.len();
        let kept_columns = self.visit(kept, catalog)?;
        let below: RelationSet = (first..self.relations.len()).collect();
        let added_columns = self.relation(added, kind == AttachmentKind::Mark, catalog)?;
        let relation = self.relations.len() - 1;

        let kept_names = Names::of(kept.schema(), &kept_columns);
        let added_names = Names::of(added.schema(), &added_columns);
        let both = if swapped {
            Names::both(&added_names, &kept_names)
        } else {
            Names::both(&kept_names, &added_names)
        };
        let mut on = vec![];
        for (l, r) in &join.on {
            let (k, a) = if swapped { (r, l) } else { (l, r) };
            on.push((kept_names.rename(k.clone())?, added_names.rename(a.clone())?));
        }
        let filter = match &join.filter {
            Some(filter) => Some(reorder_subqueries(both.rename(filter.clone())?, catalog)?),
            None => None,
        };
        self.attachments.push(Attachment {
            kind,
            relation,
            needs: below,
            alternatives: vec![],
            on,
            filter,
            null_equality: join.null_equality,
            null_aware: join.null_aware,
        });
        match kind {
            AttachmentKind::Semi | AttachmentKind::Anti => Ok(kept_columns),
            AttachmentKind::Left if swapped => Ok([added_columns, kept_columns].concat()),
            AttachmentKind::Left => Ok([kept_columns, added_columns].concat()),
            AttachmentKind::Mark => {
                let mark = mark_column(self.relations[relation].plan.schema())?;
                self.owners.insert(mark.clone(), relation);
                Ok([kept_columns, vec![mark]].concat())
            }
        }
    }

    fn inner_join(&mut self, join: &Join, catalog: &CatalogSnapshot) -> Result<Vec<Column>> {
        let left = self.visit(&join.left, catalog)?;
        let right = self.visit(&join.right, catalog)?;
        let left_names = Names::of(join.left.schema(), &left);
        let right_names = Names::of(join.right.schema(), &right);
        for (l, r) in &join.on {
            let equal = left_names.rename(l.clone())?.eq(right_names.rename(r.clone())?);
            self.add_conjuncts(equal, catalog)?;
        }
        if let Some(filter) = &join.filter {
            let filter = Names::both(&left_names, &right_names).rename(filter.clone())?;
            self.add_conjuncts(filter, catalog)?;
        }
        Ok([left, right].concat())
    }

    /// Adds the conjuncts of a predicate, whose columns are the region's.
    fn add_conjuncts(&mut self, predicate: Expr, catalog: &CatalogSnapshot) -> Result<()> {
        for expr in split_conjunction_owned(predicate) {
            self.conjuncts.push(reorder_subqueries(expr, catalog)?);
        }
        Ok(())
    }

    /// Gives every conjunct its place, and every attachment its needs, once all of them are known.
    fn settle(&mut self) {
        while let Some(at) = (0..self.attachments.len()).find(|a| self.is_inner(&self.attachments[*a])) {
            let Attachment { on, filter, .. } = self.attachments.remove(at);
            self.conjuncts.extend(on.into_iter().map(|(l, r)| l.eq(r)));
            self.conjuncts.extend(filter.into_iter().flat_map(split_conjunction_owned));
        }
        for at in 0..self.attachments.len() {
            let below = std::mem::take(&mut self.attachments[at].needs);
            let attachment = &self.attachments[at];
            let named = attachment.on.iter().map(|(k, _)| k).chain(&attachment.filter);
            let named = named.fold(RelationSet::EMPTY, |all, e| all | self.needs(e));
            let named = named.minus(RelationSet::single(attachment.relation));
            // A condition that names nothing of the left side stays where it was.
            self.attachments[at].needs = if named.is_empty() { below } else { named };
        }
        for expr in std::mem::take(&mut self.conjuncts) {
            let needs = self.needs(&expr);
            if needs.is_empty() {
                self.constants.push(expr);
            } else if needs.is_single() {
                self.relations[needs.first()].filters.push(expr);
            } else {
                let equality = self.equality(&expr);
                self.predicates.push(Predicate { expr, needs, equality });
            }
        }
    }

    /// Is a left join as good as an inner one, because a conjunct above it drops the rows whose right
    /// side is null? (Conjuncts below it cannot name its right side.)
    fn is_inner(&self, attachment: &Attachment) -> bool {
        let of_right = |e: &Expr| match strict_column(e) {
            Some(column) => self.owners.get(column) == Some(&attachment.relation),
            None => false,
        };
        let rejects_nulls = |e: &Expr| match e {
            Expr::BinaryExpr(b) => {
                let compares = matches!(b.op, Operator::Eq | Operator::NotEq | Operator::Lt)
                    || matches!(b.op, Operator::LtEq | Operator::Gt | Operator::GtEq);
                compares && (of_right(&b.left) || of_right(&b.right))
            }
            _ => false,
        };
        attachment.kind == AttachmentKind::Left
            && attachment.null_equality == NullEquality::NullEqualsNothing
            && self.conjuncts.iter().any(rejects_nulls)
    }

    fn equality(&self, expr: &Expr) -> Option<Equality> {
        let Expr::BinaryExpr(binary) = expr else { return None };
        if binary.op != Operator::Eq {
            return None;
        }
        let (left_needs, right_needs) = (self.needs(&binary.left), self.needs(&binary.right));
        let apart = !left_needs.is_empty() && !right_needs.is_empty() && !left_needs.intersects(right_needs);
        let (left, right) = (binary.left.as_ref().clone(), binary.right.as_ref().clone());
        apart.then_some(Equality { left, right, left_needs, right_needs })
    }

    /// The relations that an expression needs, see [`Region::closure`].
    fn needs(&self, expr: &Expr) -> RelationSet {
        self.closure(expr.column_refs().into_iter().filter_map(|c| self.owners.get(c).copied()).collect())
    }

    /// `relations`, and for each that was attached all that its attachment needs: before that, its
    /// columns are not what they are above the join.
    fn closure(&self, mut relations: RelationSet) -> RelationSet {
        for attachment in self.attachments.iter().rev() {
            if relations.has(attachment.relation) {
                relations |= attachment.needs;
            }
        }
        relations
    }

    /// Adds a relation, its own joins reordered; renames its columns where the region has such names.
    /// With `marked`, a mark named after the relation is to be unique as well.
    fn relation(
        &mut self,
        plan: &LogicalPlan,
        marked: bool,
        catalog: &CatalogSnapshot,
    ) -> Result<Vec<Column>> {
        let mut plan = reorder_joins(plan.clone(), catalog)?;
        let number = self.relations.len();
        let taken = |c: &Column| {
            self.owners.keys().any(|o| {
                o.name == c.name && (o.relation == c.relation || o.relation.is_none() || c.relation.is_none())
            })
        };
        let mark = if marked { Some(mark_column(plan.schema())?) } else { None };
        if plan.schema().columns().iter().chain(&mark).any(taken) {
            plan = rename_columns(plan, number)?;
        }
        let columns = plan.schema().columns();
        self.owners.extend(columns.iter().map(|c| (c.clone(), number)));
        self.relations.push(Relation { plan, filters: vec![] });
        Ok(columns)
    }
}

/// Relations that [`Region::take_apart`] would find.
fn count_relations(plan: &LogicalPlan) -> usize {
    match plan {
        _ if !is_inside_region(plan) => 1,
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            count_relations(&join.left) + count_relations(&join.right)
        }
        LogicalPlan::Join(join) => 1 + count_relations(&join.left).max(count_relations(&join.right)),
        _ => plan.inputs().into_iter().map(count_relations).sum(),
    }
}

/// The plan with every column under a name of its own.
fn rename_columns(plan: LogicalPlan, number: usize) -> Result<LogicalPlan> {
    let qualifier = TableReference::bare(format!("__relation_{number}"));
    let exprs = plan.schema().columns().into_iter().enumerate().map(|(i, column)| {
        let name = format!("{}_{i}", column.name);
        Expr::Column(column).alias_qualified(Some(qualifier.clone()), name)
    });
    let exprs = exprs.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan)).map_err(internal)?))
}

/// The column that a mark join adds for this right input.
fn mark_column(right: &DFSchema) -> Result<Column> {
    let schema = build_join_schema(&DFSchema::empty(), right, &JoinType::LeftMark).map_err(internal)?;
    schema.columns().pop().ok_or_else(|| internal("a mark join without a mark"))
}

fn reorder_subqueries(expr: Expr, catalog: &CatalogSnapshot) -> Result<Expr> {
    if !expr.contains_scalar_subquery() {
        return Ok(expr);
    }
    super::reorder_in_expr(expr, catalog)
}

/// Which column of the region each column of a plan's schema is.
struct Names<'a>(Vec<(&'a DFSchema, &'a [Column])>);

impl<'a> Names<'a> {
    fn of(schema: &'a DFSchema, columns: &'a [Column]) -> Self {
        Names(vec![(schema, columns)])
    }

    fn both(left: &Names<'a>, right: &Names<'a>) -> Self {
        Names(left.0.iter().chain(&right.0).copied().collect())
    }

    fn get(&self, column: &Column) -> Option<&'a Column> {
        self.0.iter().find_map(|(schema, columns)| Some(&columns[schema.maybe_index_of_column(column)?]))
    }

    fn rename(&self, expr: Expr) -> Result<Expr> {
        let renamed = expr.transform(|e| match &e {
            Expr::Column(column) => match self.get(column) {
                Some(new) if new == column => Ok(Transformed::no(e)),
                Some(new) => Ok(Transformed::yes(Expr::Column(new.clone()))),
                None => datafusion_common::plan_err!("a join condition on a missing column {column}"),
            },
            _ => Ok(Transformed::no(e)),
        });
        Ok(renamed.map_err(internal)?.data)
    }
}
