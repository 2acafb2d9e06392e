//! The query hypergraph of a region: relations as nodes, join conditions as edges.
//!
//! Equalities of single columns fall into classes (a = b and b = c make one class of a, b, c): any two
//! members are an edge, and joining two sets of relations takes one equality per class that has members
//! in both. So transitive equalities are there for the search, and none is applied or counted twice.
//! Conditions over more relations, and attachments, are hyperedges.

use datafusion_expr::Expr;

use super::region::{Attachment, Equality, Predicate, Region};
use super::relation_set::RelationSet;

/// A region as the search sees it.
#[derive(Debug)]
pub struct Graph {
    pub relations: usize,
    /// Per relation: its neighbours by edges of one relation on each side.
    pub neighbours: Vec<RelationSet>,
    /// Edges with a larger end; each is also meant the other way round.
    pub hyperedges: Vec<(RelationSet, RelationSet)>,
    pub classes: Vec<Class>,
    /// Equalities that are in no class.
    pub equalities: Vec<Equality>,
    /// Every other predicate: applied where its relations first meet.
    pub conditions: Vec<Condition>,
    pub attachments: Vec<Attachment>,
    /// Relations on the right side of an attachment.
    pub attached: RelationSet,
}

/// Expressions that are equal in the region's result, each over one relation.
#[derive(Debug, Default)]
pub struct Class {
    pub members: Vec<(usize, Expr)>,
    pub relations: RelationSet,
}

/// A predicate that is no key.
#[derive(Debug)]
pub struct Condition {
    pub expr: Expr,
    pub needs: RelationSet,
}

impl Graph {
    /// Builds the graph; moves predicates and attachments out of the region, and gives a relation the
    /// equalities among its own columns that follow from others.
    pub fn new(region: &mut Region) -> Self {
        let attached = region.attachments.iter().map(|a| a.relation).collect();
        let mut graph = Graph {
            relations: region.relations.len(),
            neighbours: vec![RelationSet::EMPTY; region.relations.len()],
            hyperedges: vec![],
            classes: vec![],
            equalities: vec![],
            conditions: vec![],
            attachments: std::mem::take(&mut region.attachments),
            attached,
        };
        for predicate in std::mem::take(&mut region.predicates) {
            graph.add_predicate(predicate);
        }
        for class in &mut graph.classes {
            class.keep_one_per_relation(region);
        }
        graph.find_alternatives();
        graph.add_edges();
        graph.connect();
        graph
    }

    fn add_predicate(&mut self, predicate: Predicate) {
        match predicate.equality {
            Some(e) if e.left_needs.is_single() && e.right_needs.is_single() => self.add_to_classes(e),
            Some(equality) => self.equalities.push(equality),
            None => self.conditions.push(Condition { expr: predicate.expr, needs: predicate.needs }),
        }
    }

    fn add_to_classes(&mut self, equality: Equality) {
        let members =
            [(equality.left_needs.first(), equality.left), (equality.right_needs.first(), equality.right)];
        let mut merged = Class::default();
        let mut rest = vec![];
        for class in std::mem::take(&mut self.classes) {
            if members.iter().any(|m| class.members.contains(m)) {
                merged.members.extend(class.members);
                merged.relations |= class.relations;
            } else {
                rest.push(class);
            }
        }
        for member in members {
            merged.relations |= RelationSet::single(member.0);
            if !merged.members.contains(&member) {
                merged.members.push(member);
            }
        }
        rest.push(merged);
        self.classes = rest;
    }

    /// An attachment whose key is in a class may be applied to any relation of the class.
    fn find_alternatives(&mut self) {
        for attachment in &mut self.attachments {
            let mut alternatives = vec![attachment.needs];
            let class = |key: &Expr| self.classes.iter().find(|c| c.members.iter().any(|(_, e)| e == key));
            let classes: Vec<&Class> = attachment.on.iter().filter_map(|(key, _)| class(key)).collect();
            let movable = attachment.filter.is_none() && classes.len() == attachment.on.len();
            for relation in classes.iter().fold(RelationSet::EMPTY, |all, c| all | c.relations).iter() {
                let all_keys = classes.iter().all(|c| c.relations.has(relation));
                let alone = RelationSet::single(relation);
                if movable && all_keys && !alternatives.contains(&alone) {
                    alternatives.push(alone);
                }
            }
            attachment.alternatives = alternatives;
        }
    }

    fn add_edges(&mut self) {
        for class in &self.classes {
            for relation in class.relations.iter() {
                self.neighbours[relation] |= class.relations.minus(RelationSet::single(relation));
            }
        }
        let mut edges: Vec<(RelationSet, RelationSet)> =
            self.equalities.iter().map(|e| (e.left_needs, e.right_needs)).collect();
        for attachment in &self.attachments {
            let right = RelationSet::single(attachment.relation);
            edges.extend(attachment.alternatives.iter().map(|left| (*left, right)));
        }
        // A condition on two relations connects them, as a nested loop; on more it only filters.
        for condition in &self.conditions {
            if condition.needs.len() == 2 && !condition.needs.intersects(self.attached) {
                let (a, b) = (condition.needs.first(), condition.needs.last());
                edges.push((RelationSet::single(a), RelationSet::single(b)));
            }
        }
        for (u, v) in edges {
            self.add_edge(u, v);
        }
    }

    fn add_edge(&mut self, u: RelationSet, v: RelationSet) {
        if u.is_single() && v.is_single() {
            self.neighbours[u.first()] |= v;
            self.neighbours[v.first()] |= u;
        } else {
            self.hyperedges.push((u, v));
        }
    }

    /// Makes one tree of all relations possible: parts that no edge joins become the ends of a new edge,
    /// a cross product of the two when each is complete.
    fn connect(&mut self) {
        let mut parts: Vec<RelationSet> = (0..self.relations).map(RelationSet::single).collect();
        loop {
            while let Some((a, b)) = pair(&parts, |a, b| self.connected(a, b)) {
                merge(&mut parts, a, b);
            }
            // What is attached waits for its own join. Parts that one edge wants together go first.
            let free = |a: RelationSet| !(a.is_single() && a.intersects(self.attached));
            let wanted = |a: RelationSet, b: RelationSet| {
                let ends = self.hyperedges.iter().flat_map(|(u, v)| [u, v]);
                free(a) && free(b) && ends.clone().any(|end| end.intersects(a) && end.intersects(b))
            };
            let next = pair(&parts, wanted).or_else(|| pair(&parts, |a, b| free(a) && free(b)));
            let Some((a, b)) = next else { return };
            self.add_edge(parts[a], parts[b]);
            merge(&mut parts, a, b);
        }
    }

    /// Is there an edge between two sets, with one end within each?
    pub fn connected(&self, a: RelationSet, b: RelationSet) -> bool {
        let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        few.iter().any(|r| self.neighbours[r].intersects(many))
            || self
                .hyperedges
                .iter()
                .any(|(u, v)| (a.contains(*u) && b.contains(*v)) || (a.contains(*v) && b.contains(*u)))
    }

    /// Relations next to `set` and not in `excluded`; of a hyperedge's far end only the first.
    pub fn neighbourhood(&self, set: RelationSet, excluded: RelationSet) -> RelationSet {
        let forbidden = set | excluded;
        let mut simple = RelationSet::EMPTY;
        for relation in set.iter() {
            simple |= self.neighbours[relation];
        }
        simple = simple.minus(forbidden);
        let mut near = simple;
        for (u, v) in &self.hyperedges {
            for (from, to) in [(u, v), (v, u)] {
                // A far end with a simple neighbour in it is found through that neighbour.
                if set.contains(*from) && !to.intersects(forbidden) && !to.intersects(simple) {
                    near |= RelationSet::single(to.first());
                }
            }
        }
        near
    }

    /// The attachment that joining `a` and `b` applies, if one of them is its right input.
    pub fn attachment(&self, a: RelationSet, b: RelationSet) -> Option<(usize, bool)> {
        let of = |set: RelationSet| {
            let position = || self.attachments.iter().position(|x| set == RelationSet::single(x.relation));
            if set.is_single() && set.intersects(self.attached) { position() } else { None }
        };
        of(b).map(|i| (i, true)).or_else(|| of(a).map(|i| (i, false)))
    }

    /// Has the join of two sets an equality to hash by?
    pub fn has_key(&self, a: RelationSet, b: RelationSet) -> bool {
        self.classes.iter().any(|c| c.relations.intersects(a) && c.relations.intersects(b))
            || self.equalities.iter().any(|e| {
                (a.contains(e.left_needs) && b.contains(e.right_needs))
                    || (a.contains(e.right_needs) && b.contains(e.left_needs))
            })
    }
}

/// The first two parts for which a test holds.
fn pair(parts: &[RelationSet], test: impl Fn(RelationSet, RelationSet) -> bool) -> Option<(usize, usize)> {
    let pairs = (0..parts.len()).flat_map(|a| (a + 1..parts.len()).map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| test(parts[*a], parts[*b]))
}

fn merge(parts: &mut Vec<RelationSet>, a: usize, b: usize) {
    let other = parts.remove(b);
    parts[a] |= other;
}

impl Class {
    /// Two columns of one relation in a class: the relation is filtered by their equality, and one of
    /// them stands for both.
    fn keep_one_per_relation(&mut self, region: &mut Region) {
        let mut kept: Vec<(usize, Expr)> = vec![];
        for (relation, expr) in std::mem::take(&mut self.members) {
            match kept.iter().find(|(r, _)| *r == relation) {
                Some((_, first)) => {
                    let equal = first.clone().eq(expr);
                    region.relations[relation].filters.push(equal);
                }
                None => kept.push((relation, expr)),
            }
        }
        self.members = kept;
    }
}
