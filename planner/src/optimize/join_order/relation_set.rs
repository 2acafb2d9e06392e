//! A set of a region's relations, as bits.

/// Relations by their number in the region; at most [`RelationSet::CAPACITY`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RelationSet(pub u64);

impl RelationSet {
    pub const CAPACITY: usize = 64;
    pub const EMPTY: RelationSet = RelationSet(0);

    pub fn single(relation: usize) -> Self {
        RelationSet(1 << relation)
    }

    /// The relations up to and including `relation`.
    pub fn up_to(relation: usize) -> Self {
        RelationSet(u64::MAX >> (63 - relation))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn is_single(self) -> bool {
        self.0.is_power_of_two()
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn has(self, relation: usize) -> bool {
        self.0 >> relation & 1 == 1
    }

    pub fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn minus(self, other: Self) -> Self {
        RelationSet(self.0 & !other.0)
    }

    /// The lowest relation; the set must not be empty.
    pub fn first(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    /// The highest relation; the set must not be empty.
    pub fn last(self) -> usize {
        63 - self.0.leading_zeros() as usize
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let relation = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                relation
            })
        })
    }

    /// Every subset but the empty one, smaller bit patterns first.
    pub fn subsets(self) -> impl Iterator<Item = RelationSet> {
        let mut subset = 0u64;
        std::iter::from_fn(move || {
            subset = subset.wrapping_sub(self.0) & self.0;
            (subset != 0).then_some(RelationSet(subset))
        })
    }
}

impl std::ops::BitOr for RelationSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        RelationSet(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for RelationSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::ops::BitAnd for RelationSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        RelationSet(self.0 & other.0)
    }
}

impl FromIterator<usize> for RelationSet {
    fn from_iter<I: IntoIterator<Item = usize>>(relations: I) -> Self {
        relations.into_iter().fold(Self::EMPTY, |set, r| set | Self::single(r))
    }
}

impl std::fmt::Debug for RelationSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A map by relation sets; the sets are few and dense, so a multiplication is hash enough.
pub type SetMap<V> = std::collections::HashMap<RelationSet, V, std::hash::BuildHasherDefault<SetHasher>>;

/// Hashes one integer by a multiplication that carries low bits upwards.
#[derive(Default)]
pub struct SetHasher(u64);

impl std::hash::Hasher for SetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::RelationSet;

    #[test]
    fn subsets_are_all_but_the_empty_one() {
        let set: RelationSet = [1, 3, 6].into_iter().collect();
        let subsets: Vec<_> = set.subsets().collect();
        assert_eq!(subsets.len(), 7);
        assert!(subsets.iter().all(|s| set.contains(*s)));
        assert_eq!(*subsets.last().unwrap(), set);
        assert_eq!((set.first(), set.last(), set.len()), (1, 6, 3));
        assert_eq!(RelationSet::up_to(3).iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(RelationSet::up_to(63).len(), 64);
    }
}
