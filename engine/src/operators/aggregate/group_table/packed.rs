//! Keys packed into `N` words, and the way from a key to its group.
//!
//! Group ids count the keys in the order of their first appearance. A key of few bits is its own slot
//! number ([`Slots::Direct`]: no hash, no comparison); else open addressing with linear probing, where a
//! slot holds 32 bits of the hash beside the group, so that a miss seldom touches a key.

use super::hashing::{hash_words, prefetch};

/// Distinct packed keys.
pub(super) struct Packed<const N: usize> {
    /// By group id.
    pub(super) keys: Vec<[u64; N]>,
    slots: Slots,
    hashes: Vec<u64>,
}

enum Slots {
    /// `slots[key]` is the group id plus 1, or 0.
    Direct(Vec<u32>),
    /// Upper half of a slot: bits of the hash; lower half: group id plus 1, 0 in an empty slot.
    Hash { slots: Vec<u64>, mask: usize },
}

impl<const N: usize> Packed<N> {
    /// A table of the given keys, which are distinct. With `direct_bits`, all keys are, and will be, one
    /// word of fewer bits.
    pub(super) fn new(keys: Vec<[u64; N]>, direct_bits: Option<u32>) -> Self {
        let slots = match direct_bits {
            Some(bits) => {
                let mut slots = vec![0u32; 1 << bits];
                for (id, key) in keys.iter().enumerate() {
                    slots[key[0] as usize] = id as u32 + 1;
                }
                Slots::Direct(slots)
            }
            None => {
                let size = (keys.len() * 4).next_power_of_two().max(1024);
                let (slots, mask) = hash_slots(&keys, size);
                Slots::Hash { slots, mask }
            }
        };
        Packed { keys, slots, hashes: vec![] }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let slots = match &self.slots {
            Slots::Direct(s) => s.len() * 4,
            Slots::Hash { slots, .. } => slots.len() * 8,
        };
        self.keys.capacity() * N * 8 + slots
    }

    /// Removes all groups. The memory of the slots is used again, and that of `keys` for the next ones.
    pub(super) fn clear(&mut self, keys: Vec<u64>) {
        match &mut self.slots {
            Slots::Direct(slots) => slots.fill(0),
            Slots::Hash { slots, .. } => slots.fill(0),
        }
        self.keys = Vec::with_capacity(keys.len() / N);
    }

    /// Appends the group id of each key to `ids`; new keys become groups.
    pub(super) fn assign(&mut self, keys: &[[u64; N]], ids: &mut Vec<u32>) {
        match &mut self.slots {
            Slots::Direct(slots) => {
                let groups = &mut self.keys;
                ids.extend(keys.iter().map(|key| {
                    let slot = &mut slots[key[0] as usize];
                    if *slot == 0 {
                        groups.push(*key);
                        *slot = groups.len() as u32;
                    }
                    *slot - 1
                }));
            }
            Slots::Hash { .. } => self.assign_hashed(keys, ids),
        }
    }

    fn assign_hashed(&mut self, keys: &[[u64; N]], ids: &mut Vec<u32>) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(keys.iter().map(hash_words));
        // Room for a chunk's worst case first, so that the loop need not ask.
        for (keys, hashes) in keys.chunks(1024).zip(hashes.chunks(1024)) {
            self.reserve(keys.len());
            let Slots::Hash { slots, mask } = &mut self.slots else {
                unreachable!("invariant: hashed slots stay hashed")
            };
            let (mask, groups) = (*mask, &mut self.keys);
            let far = slots.len() > 1 << 15;
            for (i, (key, &hash)) in keys.iter().zip(hashes).enumerate() {
                if far && let Some(later) = hashes.get(i + 16) {
                    prefetch(slots, *later as usize & mask);
                }
                let mut slot = hash as usize & mask;
                let id = loop {
                    let found = slots[slot];
                    if found == 0 {
                        groups.push(*key);
                        slots[slot] = (hash >> 32) << 32 | groups.len() as u64;
                        break groups.len() as u32 - 1;
                    }
                    let id = found as u32 - 1;
                    if found >> 32 == hash >> 32 && groups[id as usize] == *key {
                        break id;
                    }
                    slot = (slot + 1) & mask;
                };
                ids.push(id);
            }
        }
        self.hashes = hashes;
    }

    /// Makes the slots at least twice as many as the groups and `more`.
    fn reserve(&mut self, more: usize) {
        let needed = (self.keys.len() + more) * 2;
        if let Slots::Hash { slots, mask } = &mut self.slots
            && needed > slots.len()
        {
            (*slots, *mask) = hash_slots(&self.keys, (needed * 2).next_power_of_two());
        }
        assert!(self.keys.len() + more < u32::MAX as usize, "invariant: fewer than 2^32 groups in a table");
    }
}

fn hash_slots<const N: usize>(keys: &[[u64; N]], size: usize) -> (Vec<u64>, usize) {
    let mask = size - 1;
    let mut slots = vec![0u64; size];
    for (id, key) in keys.iter().enumerate() {
        let hash = hash_words(key);
        let mut slot = hash as usize & mask;
        while slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slots[slot] = (hash >> 32) << 32 | (id as u64 + 1);
    }
    (slots, mask)
}
