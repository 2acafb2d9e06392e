//! The table of best joins found so far, and what both searches do with a pair of sets.

use super::cost::JoinRows;
use super::graph::Graph;
use super::region::AttachmentKind;
use super::relation_set::{RelationSet, SetMap};
use super::sets::Sets;

/// The best join tree found for a set of relations.
#[derive(Debug, Clone, Copy)]
pub struct Best {
    pub cost: f64,
    pub rows: f64,
    /// The two inputs; none for a single relation.
    pub inputs: Option<Inputs>,
}

/// How a set is joined from two others.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    pub probe: RelationSet,
    pub build: RelationSet,
    /// Number of the attachment that this join applies; none: an inner join.
    pub attachment: Option<usize>,
}

/// Best joins by set.
pub struct Search<'a> {
    pub graph: &'a Graph,
    sets: Sets<'a>,
    pub best: SetMap<Best>,
}

impl<'a> Search<'a> {
    pub fn new(graph: &'a Graph, mut sets: Sets<'a>) -> Self {
        let single = |relation| {
            let set = RelationSet::single(relation);
            (set, Best { cost: 0.0, rows: sets.rows(set), inputs: None })
        };
        let best = (0..graph.relations).map(single).collect();
        Search { graph, sets, best }
    }

    /// The best way to join two sets for which there are trees already; none if that is not allowed.
    pub fn join(&mut self, a: RelationSet, b: RelationSet) -> Option<Best> {
        let (left, right) = (*self.best.get(&a)?, *self.best.get(&b)?);
        let attachment = self.graph.attachment(a, b);
        let (a, b, left, right) = match attachment {
            Some((_, false)) => (b, a, right, left),
            _ => (a, b, left, right),
        };
        let mut keyed = self.graph.has_key(a, b);
        let mut turns = true;
        let mut attached_kind = None;
        if let Some((number, _)) = attachment {
            let attachment = &self.graph.attachments[number];
            if !attachment.alternatives.iter().any(|left| a.contains(*left)) {
                return None;
            }
            keyed = !attachment.on.is_empty();
            turns = attachment.kind != AttachmentKind::Mark && !attachment.null_aware;
            attached_kind = Some(attachment.kind);
        }
        let output = self.sets.rows(a | b);
        let rows =
            |probe: f64, build: f64, emits_build| JoinRows { probe, build, output, keyed, emits_build };
        let straight = rows(left.rows, right.rows, false).cost();
        let turned = rows(right.rows, left.rows, attached_kind.is_some()).cost();
        let attachment = attachment.map(|(number, _)| number);
        let (cost, inputs) = if turns && turned < straight {
            (turned, Inputs { probe: b, build: a, attachment })
        } else {
            (straight, Inputs { probe: a, build: b, attachment })
        };
        Some(Best { cost: left.cost + right.cost + cost, rows: output, inputs: Some(inputs) })
    }

    /// Joins two sets, and keeps the tree if it is the best for their union.
    pub fn offer(&mut self, a: RelationSet, b: RelationSet) {
        let Some(new) = self.join(a, b) else { return };
        let better = self.best.get(&(a | b)).is_none_or(|old| new.cost < old.cost);
        if better {
            self.best.insert(a | b, new);
        }
    }
}
