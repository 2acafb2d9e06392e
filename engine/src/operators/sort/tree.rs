//! A tree of losers: which of several runs has the smallest next row.
//!
//! The first bytes of each run's next key are in the tree itself, side by side; only where they are equal is
//! the caller asked. Rows that are equal altogether come in the order of their runs.

use std::cmp::Ordering;

/// A tree over runs `0..runs`.
pub(super) struct LoserTree {
    next: Vec<Next>,
    /// `losers[0]` is the run with the smallest next row. Node `n` from 1 on holds the run that lost there; its
    /// children are nodes `2n` and `2n + 1`, and run `r` is the leaf `runs + r`.
    losers: Vec<usize>,
}

/// A run's next row. Runs that have ended come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    ended: bool,
    prefix: u128,
}

impl Next {
    fn new(prefix: Option<u128>) -> Self {
        Next { ended: prefix.is_none(), prefix: prefix.unwrap_or(0) }
    }
}

impl LoserTree {
    /// A tree of at least one run, with the prefixes of their first keys; none where a run is empty. `ties`
    /// compares the next rows of two runs that have one and whose prefixes are equal.
    pub(super) fn new(prefixes: Vec<Option<u128>>, ties: &impl Fn(usize, usize) -> Ordering) -> Self {
        let runs = prefixes.len();
        let next = prefixes.into_iter().map(Next::new).collect();
        let mut tree = LoserTree { next, losers: vec![0; runs] };
        tree.losers[0] = tree.play(1, ties);
        tree
    }

    /// The run with the smallest next row; none if all have ended.
    pub(super) fn first(&self) -> Option<usize> {
        let first = self.losers[0];
        (!self.next[first].ended).then_some(first)
    }

    /// The run with the second smallest next row: it lost against the first, so it stands on its path.
    pub(super) fn second(&self, ties: &impl Fn(usize, usize) -> Ordering) -> Option<usize> {
        let mut node = (self.next.len() + self.losers[0]) / 2;
        let mut best = None;
        while node > 0 {
            let other = self.losers[node];
            if best.is_none_or(|best| self.before(other, best, ties)) {
                best = Some(other);
            }
            node /= 2;
        }
        best.filter(|best| !self.next[*best].ended)
    }

    /// The first run went on to another row, of this prefix, or has ended.
    pub(super) fn replace_first(&mut self, prefix: Option<u128>, ties: &impl Fn(usize, usize) -> Ordering) {
        let mut winner = self.losers[0];
        self.next[winner] = Next::new(prefix);
        let mut node = (self.next.len() + winner) / 2;
        while node > 0 {
            if self.before(self.losers[node], winner, ties) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }

    /// The winner below a node; the loser stays in the node.
    fn play(&mut self, node: usize, ties: &impl Fn(usize, usize) -> Ordering) -> usize {
        if node >= self.next.len() {
            return node - self.next.len();
        }
        let (left, right) = (self.play(2 * node, ties), self.play(2 * node + 1, ties));
        let (winner, loser) = if self.before(left, right, ties) { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    /// The next row of run `a` comes before that of run `b`.
    fn before(&self, a: usize, b: usize, ties: &impl Fn(usize, usize) -> Ordering) -> bool {
        let order = self.next[a].cmp(&self.next[b]);
        let settle = || if self.next[a].ended { Ordering::Equal } else { ties(a, b) };
        order.then_with(settle).then(a.cmp(&b)).is_lt()
    }
}
