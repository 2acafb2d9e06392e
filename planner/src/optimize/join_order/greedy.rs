//! Greedy operator ordering, for regions with too many ways to join them.
//!
//! From Fegaras, "A New Heuristic for Optimizing Large Queries" (DEXA 1998): of all trees that an edge
//! connects, join the two whose result is smallest, until one tree is left. Bushy, cubic in the number
//! of relations, and close to the best for stars and snowflakes.

use super::relation_set::RelationSet;
use super::search::Search;

/// Fills the search's table along one path. False if parts were left that no join connects.
pub fn greedy(search: &mut Search<'_>) -> bool {
    let mut trees: Vec<RelationSet> = (0..search.graph.relations).map(RelationSet::single).collect();
    while trees.len() > 1 {
        let mut smallest: Option<(f64, f64, usize, usize)> = None;
        for i in 0..trees.len() {
            for j in i + 1..trees.len() {
                if !search.graph.connected(trees[i], trees[j]) {
                    continue;
                }
                let Some(joined) = search.join(trees[i], trees[j]) else { continue };
                // Rows that are gone count for the join as rows that are there count against it.
                let score = (joined.rows, joined.cost);
                if smallest.is_none_or(|(rows, cost, ..)| score < (rows, cost)) {
                    smallest = Some((joined.rows, joined.cost, i, j));
                }
            }
        }
        let Some((_, _, i, j)) = smallest else { return false };
        search.offer(trees[i], trees[j]);
        let other = trees.swap_remove(j);
        trees[i] |= other;
    }
    true
}
