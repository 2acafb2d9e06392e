//! Optimal join order by dynamic programming over the connected parts of the hypergraph.
//!
//! DPhyp, from Moerkotte and Neumann, "Dynamic Programming Strikes Back" (SIGMOD 2008): every pair of
//! connected, disjoint and adjacent sets is met exactly once, smaller sets before larger ones, and no
//! pair is tried that an edge does not join. The names follow the paper: a csg is a connected subgraph,
//! a cmp its complement in a pair.

use super::relation_set::RelationSet;
use super::search::Search;

/// Fills the search's table. False if the graph has too many pairs: then the table is incomplete.
pub fn dphyp(search: &mut Search<'_>, pairs_max: usize) -> bool {
    let mut run = Run { search, left: pairs_max };
    for relation in (0..run.search.graph.relations).rev() {
        let set = RelationSet::single(relation);
        if run.emit_csg(set).is_none() || run.enumerate_csg(set, RelationSet::up_to(relation)).is_none() {
            return false;
        }
    }
    true
}

struct Run<'a, 'b> {
    search: &'a mut Search<'b>,
    /// Steps that are left before giving up.
    left: usize,
}

/// None when the steps are used up.
type Step = Option<()>;

impl Run<'_, '_> {
    fn step(&mut self) -> Step {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    fn known(&self, set: RelationSet) -> bool {
        self.search.best.contains_key(&set)
    }

    /// Extends a csg by every subset of its neighbours.
    fn enumerate_csg(&mut self, csg: RelationSet, excluded: RelationSet) -> Step {
        let near = self.search.graph.neighbourhood(csg, excluded);
        for more in near.subsets() {
            self.step()?;
            if self.known(csg | more) {
                self.emit_csg(csg | more)?;
            }
        }
        for more in near.subsets() {
            self.step()?;
            self.enumerate_csg(csg | more, excluded | near)?;
        }
        Some(())
    }

    /// Finds the complements of a csg, from its neighbours on.
    fn emit_csg(&mut self, csg: RelationSet) -> Step {
        let excluded = csg | RelationSet::up_to(csg.first());
        let near = self.search.graph.neighbourhood(csg, excluded);
        let mut descending: Vec<usize> = near.iter().collect();
        descending.reverse();
        for relation in descending {
            self.step()?;
            let cmp = RelationSet::single(relation);
            if self.search.graph.connected(csg, cmp) {
                self.search.offer(csg, cmp);
            }
            let below = RelationSet::up_to(relation) & near;
            self.enumerate_cmp(csg, cmp, excluded | below)?;
        }
        Some(())
    }

    /// Extends a cmp by every subset of its neighbours.
    fn enumerate_cmp(&mut self, csg: RelationSet, cmp: RelationSet, excluded: RelationSet) -> Step {
        let near = self.search.graph.neighbourhood(cmp, excluded | csg);
        for more in near.subsets() {
            self.step()?;
            if self.known(cmp | more) && self.search.graph.connected(csg, cmp | more) {
                self.search.offer(csg, cmp | more);
            }
        }
        for more in near.subsets() {
            self.step()?;
            self.enumerate_cmp(csg, cmp | more, excluded | near)?;
        }
        Some(())
    }
}
