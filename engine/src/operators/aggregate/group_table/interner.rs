//! Distinct byte strings, numbered from 1 in the order of their first appearance.
//!
//! A group table turns keys that are not integers into these numbers. Values stand in Arrow's view
//! form (up to 12 bytes inside the view, longer ones in blocks), so that they leave as a string view
//! array without a copy, and so that two short strings are compared as two integers.

use std::sync::Arc;

use arrow::array::types::ByteViewType;
use arrow::array::{ArrayRef, BinaryViewArray, GenericByteViewArray, StringViewArray};
use arrow::buffer::{Buffer, ScalarBuffer};

use super::hashing::{fold, hash_bytes, prefetch};

const BLOCK_BYTES: usize = 64 * 1024;
const INLINE_BYTES: usize = 12;

/// A set of byte strings with numbers.
pub(super) struct Interner {
    /// `views[code - 1]`, as in a byte view array over `blocks` and then `open`.
    views: Vec<u128>,
    blocks: Vec<Vec<u8>>,
    open: Vec<u8>,
    /// Upper half: bits of the hash; lower half: the code, 0 for an empty slot.
    slots: Vec<u64>,
    mask: usize,
    hashes: Vec<u64>,
}

impl Interner {
    pub(super) fn new() -> Self {
        Interner { views: vec![], blocks: vec![], open: vec![], slots: vec![0; 64], mask: 63, hashes: vec![] }
    }

    /// Number of distinct values, which is also the largest code.
    pub(super) fn len(&self) -> usize {
        self.views.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.views.capacity() * 16
            + self.slots.len() * 8
            + self.blocks.iter().map(Vec::capacity).sum::<usize>()
            + self.open.capacity()
    }

    /// The code of a value, which is added if it is new.
    #[inline]
    pub(super) fn code(&mut self, bytes: &[u8]) -> u32 {
        if bytes.len() <= INLINE_BYTES {
            let view = inline_view(bytes);
            return self.code_of_short(view, hash_view(view));
        }
        self.code_of_long(bytes, hash_bytes(bytes))
    }

    /// The codes of all values of an array; 0 for null.
    pub(super) fn codes_of_views<T: ByteViewType>(
        &mut self,
        array: &GenericByteViewArray<T>,
        codes: &mut Vec<u32>,
    ) {
        use arrow::array::Array;
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        let views = array.views();
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(views.iter().enumerate().map(|(row, &view)| {
            if view as u32 as usize <= INLINE_BYTES {
                hash_view(view)
            } else if nulls.is_none_or(|n| n.is_valid(row)) {
                hash_bytes(array.value(row).as_ref())
            } else {
                0
            }
        }));
        let ahead = if self.slots.len() > 1 << 14 { 12 } else { usize::MAX };
        for (row, &view) in views.iter().enumerate() {
            if let Some(later) = row.checked_add(ahead).and_then(|r| hashes.get(r)) {
                prefetch(&self.slots, *later as usize & self.mask);
            }
            let code = if nulls.is_some_and(|n| n.is_null(row)) {
                0
            } else if view as u32 as usize <= INLINE_BYTES {
                self.code_of_short(view, hashes[row])
            } else {
                self.code_of_long(array.value(row).as_ref(), hashes[row])
            };
            codes.push(code);
        }
        self.hashes = hashes;
    }

    #[inline(always)]
    fn code_of_short(&mut self, view: u128, hash: u64) -> u32 {
        let mut slot = hash as usize & self.mask;
        loop {
            let found = self.slots[slot];
            if found == 0 {
                return self.insert(slot, hash, view);
            }
            let code = found as u32;
            if found >> 32 == hash >> 32 && self.views[code as usize - 1] == view {
                return code;
            }
            slot = (slot + 1) & self.mask;
        }
    }

    #[inline(always)]
    fn code_of_long(&mut self, bytes: &[u8], hash: u64) -> u32 {
        let mut slot = hash as usize & self.mask;
        let head = long_view_head(bytes);
        loop {
            let found = self.slots[slot];
            if found == 0 {
                let view = self.store(bytes, head);
                return self.insert(slot, hash, view);
            }
            let code = found as u32;
            if found >> 32 == hash >> 32 {
                let view = self.views[code as usize - 1];
                if view as u64 == head && self.long_bytes(view) == bytes {
                    return code;
                }
            }
            slot = (slot + 1) & self.mask;
        }
    }

    #[inline(never)]
    fn insert(&mut self, slot: usize, hash: u64, view: u128) -> u32 {
        self.views.push(view);
        let code = u32::try_from(self.views.len()).expect("invariant: fewer than 2^32 groups in a table");
        self.slots[slot] = (hash >> 32) << 32 | u64::from(code);
        if self.views.len() * 2 > self.slots.len() {
            self.grow();
        }
        code
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        self.mask = size - 1;
        let mut slots = vec![0u64; size];
        for (i, &view) in self.views.iter().enumerate() {
            let hash = if view as u32 as usize <= INLINE_BYTES {
                hash_view(view)
            } else {
                hash_bytes(self.long_bytes(view))
            };
            let mut slot = hash as usize & self.mask;
            while slots[slot] != 0 {
                slot = (slot + 1) & self.mask;
            }
            slots[slot] = (hash >> 32) << 32 | (i as u64 + 1);
        }
        self.slots = slots;
    }

    fn store(&mut self, bytes: &[u8], head: u64) -> u128 {
        if self.open.len() + bytes.len() > self.open.capacity() {
            let size = (BLOCK_BYTES << self.blocks.len().min(5)).max(bytes.len());
            let full = std::mem::replace(&mut self.open, Vec::with_capacity(size));
            if !full.is_empty() {
                self.blocks.push(full);
            }
        }
        let (block, offset) = (self.blocks.len() as u128, self.open.len() as u128);
        self.open.extend_from_slice(bytes);
        u128::from(head) | block << 64 | offset << 96
    }

    fn long_bytes(&self, view: u128) -> &[u8] {
        let (length, block, offset) =
            (view as u32 as usize, (view >> 64) as u32 as usize, (view >> 96) as usize);
        let block = self.blocks.get(block).unwrap_or(&self.open);
        &block[offset..offset + length]
    }

    /// All values as a binary view array, the value of code `c` at `c - 1`; the set is empty then.
    pub(super) fn take(&mut self) -> BinaryViewArray {
        let mut blocks = std::mem::take(&mut self.blocks);
        if !self.open.is_empty() {
            blocks.push(std::mem::take(&mut self.open));
        }
        let buffers: Vec<Buffer> = blocks.into_iter().map(Buffer::from_vec).collect();
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        self.slots.fill(0);
        // SAFETY: every view was made by `inline_view` or `store`, so it is zero-padded and short, or
        // points into the block that it names, at bytes with the prefix it holds.
        unsafe { BinaryViewArray::new_unchecked(views, buffers, None) }
    }

    /// As [`Interner::take`], for a set into which only valid UTF-8 was put.
    pub(super) fn take_strings(&mut self) -> ArrayRef {
        let (views, buffers, nulls) = self.take().into_parts();
        // SAFETY: the views are those of a valid binary view array, and the caller put in strings only.
        Arc::new(unsafe { StringViewArray::new_unchecked(views, buffers, nulls) })
    }
}

#[inline(always)]
fn inline_view(bytes: &[u8]) -> u128 {
    let mut view = [0u8; 16];
    view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    view[4..4 + bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(view)
}

/// Length and first four bytes of a long value, where its view has them.
#[inline(always)]
fn long_view_head(bytes: &[u8]) -> u64 {
    let prefix = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    u64::from(bytes.len() as u32) | u64::from(prefix) << 32
}

#[inline(always)]
fn hash_view(view: u128) -> u64 {
    fold(
        view as u64 ^ fold((view >> 64) as u64 ^ 0x2545_f491_4f6c_dd1d, 0x9e6c_63d0_676a_9a99),
        0xf135_7aea_2e62_a9c5,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use std::collections::HashMap;

    #[test]
    fn codes_count_first_appearances_and_survive_growth() {
        let mut interner = Interner::new();
        let mut expected: HashMap<String, u32> = HashMap::new();
        let mut order = vec![];
        for i in 0..20_000u64 {
            let k = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51;
            let text = match k % 4 {
                0 => format!("{k}"),
                1 => format!("long value number {k}"),
                2 => format!("{k:012}"),
                _ => "x".repeat(k as usize % 300),
            };
            let next = expected.len() as u32 + 1;
            let code = *expected.entry(text.clone()).or_insert_with(|| {
                order.push(text.clone());
                next
            });
            assert_eq!(interner.code(text.as_bytes()), code, "{text}");
        }
        let array = StringViewArray::from_iter_values(&order);
        let mut codes = vec![];
        interner.codes_of_views(&array, &mut codes);
        assert_eq!(codes, (1..=order.len() as u32).collect::<Vec<_>>());
        assert_eq!(interner.take_strings().as_ref(), &array as &dyn Array);
        assert_eq!(interner.len(), 0);
        assert_eq!(interner.code(b"again"), 1);
    }
}
