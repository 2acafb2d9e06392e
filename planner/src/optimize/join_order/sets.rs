//! How many rows the join of any set of a region's relations has.
//!
//! The answer depends on the set alone, never on the order of its joins, so that plans are compared by
//! what they do and not by how they were estimated: the set's relations are taken in the order of their
//! numbers, and each brings its rows times the share of pairs that match what is there already.

use datafusion_common::Column;

use super::graph::Graph;
use super::region::{Attachment, AttachmentKind, Region};
use super::relation_set::{RelationSet, SetMap};
use crate::catalog::CatalogSnapshot;
use crate::optimize::cardinality::join::{KeyPair, composite_selectivity, key_selectivity, semi_share};
use crate::optimize::cardinality::{ColumnEstimate, Estimate, estimate, selectivity};

/// Row counts of sets of relations.
#[derive(Debug)]
pub struct Sets<'a> {
    graph: &'a Graph,
    relations: Vec<Estimate>,
    /// Per class, the key's estimate in each member relation.
    keys: Vec<Vec<(usize, ColumnEstimate)>>,
    /// Per equality outside the classes and per condition: what it needs, the share it keeps.
    shares: Vec<(RelationSet, f64)>,
    /// Per attachment: rows out for each row of its left side.
    factors: Vec<f64>,
    rows: SetMap<f64>,
}

impl<'a> Sets<'a> {
    pub fn new(region: &Region, graph: &'a Graph, catalog: &CatalogSnapshot) -> Self {
        let mut relations: Vec<Estimate> = region
            .relations
            .iter()
            .map(|relation| {
                let mut result = estimate(&relation.plan, catalog);
                let schema = relation.plan.schema();
                result.filter(&relation.filters, &|c: &Column| schema.maybe_index_of_column(c));
                result.rows = result.rows.max(1.0);
                result
            })
            .collect();
        let mut factors = vec![];
        for attachment in &graph.attachments {
            let (factor, matched) = Scope { region, relations: &relations }.attach(attachment);
            factors.push(factor);
            // What looks at the attached columns sees them as they are above that join.
            let relation = &mut relations[attachment.relation];
            match attachment.kind {
                AttachmentKind::Left => relation.add_nulls((1.0 - matched) / factor),
                AttachmentKind::Mark => *relation = relation.clone().marked(matched),
                AttachmentKind::Semi | AttachmentKind::Anti => {}
            }
        }
        let scope = Scope { region, relations: &relations };
        let key = |(relation, expr): &(usize, datafusion_expr::Expr)| {
            (*relation, scope.expression(*relation, expr))
        };
        let keys = graph.classes.iter().map(|c| c.members.iter().map(key).collect()).collect();
        let equalities = graph
            .equalities
            .iter()
            .map(|e| (e.left_needs | e.right_needs, scope.share(&e.left.clone().eq(e.right.clone()))));
        let conditions = graph.conditions.iter().map(|c| (c.needs, scope.share(&c.expr)));
        let shares = equalities.chain(conditions).collect();
        Sets { graph, keys, shares, factors, relations, rows: SetMap::default() }
    }

    /// Rows of the join of a set's relations.
    pub fn rows(&mut self, set: RelationSet) -> f64 {
        if set.is_single() {
            return self.relations[set.first()].rows;
        }
        if let Some(rows) = self.rows.get(&set) {
            return *rows;
        }
        // Attachments last: they only make sense on top of what they are attached to.
        let attached = set & self.graph.attached;
        let last = if attached.is_empty() || attached == set { set.last() } else { attached.last() };
        let before = set.minus(RelationSet::single(last));
        let rows = self.rows(before) * self.growth(last, before);
        // Less than a row on average is still an answer that somebody expects rows of.
        let rows = rows.clamp(1.0, 1e30);
        self.rows.insert(set, rows);
        rows
    }

    /// Rows out for each row of `before` when `relation` joins it.
    fn growth(&self, relation: usize, before: RelationSet) -> f64 {
        let all = before | RelationSet::single(relation);
        let mut growth = match self.graph.attachments.iter().position(|a| a.relation == relation) {
            Some(attachment) => self.factors[attachment],
            None => self.relations[relation].rows * self.key_share(relation, before),
        };
        for (needs, share) in &self.shares {
            if needs.has(relation) && all.contains(*needs) {
                growth *= share;
            }
        }
        growth
    }

    /// The share of pairs of `relation` and `before` that all classes let match.
    fn key_share(&self, relation: usize, before: RelationSet) -> f64 {
        let own = RelationSet::single(relation);
        let mut open: Vec<usize> = (0..self.graph.classes.len())
            .filter(|c| {
                let relations = self.graph.classes[*c].relations;
                relations.has(relation) && relations.minus(own).intersects(before)
            })
            .collect();
        let mut share = 1.0;
        while !open.is_empty() {
            // Classes shared with one and the same relation make one key of several columns.
            let shared = |r: usize| open.iter().filter(|c| self.graph.classes[**c].relations.has(r)).count();
            let partner = before.iter().max_by_key(|r| (shared(*r), std::cmp::Reverse(*r)));
            let Some(partner) = partner else { break };
            let (together, rest): (Vec<usize>, Vec<usize>) =
                open.iter().partition(|c| self.graph.classes[**c].relations.has(partner));
            let sides: Vec<(ColumnEstimate, &ColumnEstimate)> = together
                .iter()
                .filter_map(|c| Some((self.common(*c, before, partner)?, self.key(*c, relation)?)))
                .collect();
            let pairs: Vec<KeyPair<'_>> = sides.iter().map(|(left, right)| KeyPair { left, right }).collect();
            share *=
                composite_selectivity(&pairs, (self.relations[partner].rows, self.relations[relation].rows));
            open = rest;
        }
        share
    }

    /// A class's key in a relation.
    fn key(&self, class: usize, relation: usize) -> Option<&ColumnEstimate> {
        self.keys[class].iter().find(|(r, _)| *r == relation).map(|(_, key)| key)
    }

    /// A class's key in the join of a set: `partner`'s, with the values that all members have.
    fn common(&self, class: usize, set: RelationSet, partner: usize) -> Option<ColumnEstimate> {
        let mut common = self.key(class, partner)?.clone();
        for (_, key) in self.keys[class].iter().filter(|(r, _)| set.has(*r)) {
            common.min = common.min.zip(key.min).map(|(a, b)| a.max(b));
            common.max = common.max.zip(key.max).map(|(a, b)| a.min(b));
            common.domain = common.domain.min(key.domain);
            common.distinct = common.distinct.min(key.distinct);
        }
        Some(common)
    }
}

/// The relations' estimates, with the region's names for their columns.
struct Scope<'a> {
    region: &'a Region,
    relations: &'a [Estimate],
}

impl Scope<'_> {
    fn expression(&self, relation: usize, expr: &datafusion_expr::Expr) -> ColumnEstimate {
        let schema = self.region.relations[relation].plan.schema();
        self.relations[relation].expression(expr, &|c: &Column| schema.maybe_index_of_column(c))
    }

    /// The columns of several relations side by side, as if each row met each.
    fn product(&self, needs: RelationSet) -> (Estimate, Vec<(usize, usize)>) {
        let (mut columns, mut starts, mut rows) = (vec![], vec![], 1.0);
        for relation in needs.iter() {
            starts.push((relation, columns.len()));
            columns.extend_from_slice(&self.relations[relation].columns);
            rows *= self.relations[relation].rows;
        }
        (Estimate { rows, columns }, starts)
    }

    fn find(&self, column: &Column, starts: &[(usize, usize)]) -> Option<usize> {
        let owner = *self.region.owners.get(column)?;
        let (_, start) = starts.iter().find(|(relation, _)| *relation == owner)?;
        let schema = self.region.relations[owner].plan.schema();
        // A mark comes after the relation's own columns.
        let mark =
            || (self.relations[owner].columns.len() > schema.fields().len()).then_some(schema.fields().len());
        Some(start + schema.maybe_index_of_column(column).or_else(mark)?)
    }

    /// The share of rows that a condition over several relations keeps.
    fn share(&self, expr: &datafusion_expr::Expr) -> f64 {
        let owners = expr.column_refs().into_iter().filter_map(|c| self.region.owners.get(c).copied());
        let (product, starts) = self.product(owners.collect());
        selectivity::selectivity(expr, &product, &|c: &Column| self.find(c, &starts))
    }

    /// Of an attachment: rows handed on for each row of its left side, and the share of those with a match.
    fn attach(&self, attachment: &Attachment) -> (f64, f64) {
        let right = attachment.relation;
        let right_rows = self.relations[right].rows;
        let (left, starts) = self.product(attachment.needs);
        let keys: Vec<(ColumnEstimate, ColumnEstimate)> = attachment
            .on
            .iter()
            .map(|(l, r)| {
                (left.expression(l, &|c: &Column| self.find(c, &starts)), self.expression(right, r))
            })
            .collect();
        let pairs: Vec<KeyPair<'_>> = keys.iter().map(|(left, right)| KeyPair { left, right }).collect();
        let left_rows = attachment.needs.iter().map(|r| self.relations[r].rows).fold(1.0, f64::max);
        let rows = (left_rows, right_rows);
        let residual = attachment.filter.as_ref().map_or(1.0, |f| self.share(f));
        let matched = semi_share(&pairs, rows, residual);
        let factor = match attachment.kind {
            AttachmentKind::Mark => 1.0,
            AttachmentKind::Semi => matched,
            AttachmentKind::Anti => (1.0 - matched).max(0.01),
            AttachmentKind::Left => right_rows * key_selectivity(&pairs, rows) * residual + (1.0 - matched),
        };
        (factor, matched)
    }
}
