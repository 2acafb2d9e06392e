//! Byte-string keys as small numbers: each different key of the build side gets the next number.
//!
//! Keys come as Arrow views: 16 bytes with the length, and up to 12 bytes of the string itself, or its
//! first four and a place in a buffer. A short key is hashed and compared as that one word; the build's
//! long keys are copied into an arena of our own.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, GenericByteViewArray, StringViewArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType};

use super::super::table::unchained::hash;
use super::super::table::{MISSING, prefetch};
use crate::error::{EngineError, Result};

/// Byte strings, numbered from 0 in the order in which they first came.
pub struct Interner {
    /// Open addressing: `hash's upper half << 32 | number + 1`, 0 if free.
    slots: Vec<u64>,
    /// Inline views as they are; of longer strings the length, the first four bytes, the place in `arena`.
    views: Vec<u128>,
    hashes: Vec<u64>,
    arena: Vec<u8>,
}

const PREFETCH_AHEAD: usize = 12;
const INLINE_BYTES: u32 = 12;

impl Default for Interner {
    fn default() -> Self {
        Interner { slots: vec![0; 64], views: vec![], hashes: vec![], arena: vec![] }
    }
}

impl Interner {
    /// Different strings.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// The number of each row's string, given out if it is new. Null rows get any value.
    pub fn intern(&mut self, array: &ArrayRef, out: &mut Vec<u64>) -> Result<()> {
        let strings = Strings::of(array)?;
        let nulls = array.nulls();
        out.clear();
        out.reserve(strings.views.len());
        for (row, &view) in strings.views.iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(row)) {
                out.push(0);
                continue;
            }
            let hash = strings.hash(view);
            let number = match self.find(&strings, view, hash) {
                MISSING => self.insert(&strings, view, hash),
                number => number,
            };
            out.push(number as u64);
        }
        Ok(())
    }

    /// The number of each row's string, or `missing`. Null rows get any value.
    pub fn lookup(&self, array: &ArrayRef, missing: u64, out: &mut Vec<u64>) -> Result<()> {
        let strings = Strings::of(array)?;
        out.clear();
        match array.nulls() {
            None => out.extend(strings.views.iter().map(|&v| strings.hash(v))),
            // What lies under a null may point anywhere; a short view points nowhere.
            Some(nulls) => {
                let views = strings.views.iter().zip(nulls.iter());
                out.extend(views.map(|(&v, valid)| if valid { strings.hash(v) } else { 0 }));
            }
        }
        for (row, &view) in strings.views.iter().enumerate() {
            if array.is_null(row) {
                continue;
            }
            if let Some(&ahead) = out.get(row + PREFETCH_AHEAD) {
                prefetch(&self.slots[self.slot(ahead)]);
            }
            out[row] = match self.find(&strings, view, out[row]) {
                MISSING => missing,
                number => number as u64,
            };
        }
        Ok(())
    }

    /// The number of one row's string, or `missing`.
    pub fn lookup_row(&self, strings: &Strings, row: usize, missing: u64) -> u64 {
        let view = strings.views[row];
        match self.find(strings, view, strings.hash(view)) {
            MISSING => missing,
            number => number as u64,
        }
    }

    #[inline(always)]
    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn find(&self, strings: &Strings, view: u128, hash: u64) -> u32 {
        let mut slot = self.slot(hash);
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return MISSING;
            }
            if entry >> 32 == hash >> 32 {
                let number = entry as u32 - 1;
                if self.equals(self.views[number as usize], strings, view) {
                    return number;
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(always)]
    fn equals(&self, own: u128, strings: &Strings, view: u128) -> bool {
        let length = view as u32;
        if length <= INLINE_BYTES {
            return own == view;
        }
        let start = (own >> 64) as usize;
        own as u64 == view as u64 && &self.arena[start..start + length as usize] == strings.bytes(view)
    }

    fn insert(&mut self, strings: &Strings, view: u128, hash: u64) -> u32 {
        let number = self.views.len() as u32;
        if view as u32 <= INLINE_BYTES {
            self.views.push(view);
        } else {
            self.views.push((self.arena.len() as u128) << 64 | view as u64 as u128);
            self.arena.extend_from_slice(strings.bytes(view));
        }
        self.hashes.push(hash);
        if self.views.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 4];
            for number in 0..self.views.len() {
                self.place(self.hashes[number], number as u32);
            }
        } else {
            self.place(hash, number);
        }
        number
    }

    fn place(&mut self, hash: u64, number: u32) {
        let mut slot = self.slot(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = hash >> 32 << 32 | (number as u64 + 1);
    }

    /// All strings by their numbers, as an array of views; none if they are too long together.
    pub fn into_array(self, data_type: &DataType) -> Result<Option<ArrayRef>> {
        if self.arena.len() > i32::MAX as usize {
            return Ok(None);
        }
        let arrow = |view: u128| match view as u32 <= INLINE_BYTES {
            true => view,
            // The place moves up: between it and the first four bytes stands the number of the buffer.
            false => view >> 64 << 96 | view as u64 as u128,
        };
        let views = self.views.into_iter().map(arrow).collect::<Vec<_>>().into();
        let buffers = vec![Buffer::from_vec(self.arena)];
        Ok(Some(match data_type {
            DataType::Utf8View => Arc::new(StringViewArray::try_new(views, buffers, None)?),
            _ => Arc::new(BinaryViewArray::try_new(views, buffers, None)?),
        }))
    }

    /// Frees what only building needs.
    pub fn finish(&mut self) {
        self.hashes = vec![];
        self.views.shrink_to_fit();
        self.arena.shrink_to_fit();
    }

    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * 8 + self.views.capacity() * 16 + self.arena.capacity()
    }
}

/// The views and buffers of a Utf8View or BinaryView array.
pub struct Strings<'a> {
    views: &'a [u128],
    buffers: &'a [Buffer],
}

impl<'a> Strings<'a> {
    pub fn of(array: &'a ArrayRef) -> Result<Self> {
        fn parts<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Strings<'_> {
            Strings { views: array.views(), buffers: array.data_buffers() }
        }
        match array.data_type() {
            DataType::Utf8View => Ok(parts(array.as_string_view())),
            DataType::BinaryView => Ok(parts(array.as_binary_view())),
            other => Err(EngineError::internal(format!("a join key of type {other} read as views"))),
        }
    }

    /// The bytes of a string that is not inline.
    #[inline(always)]
    fn bytes(&self, view: u128) -> &'a [u8] {
        let buffer = &self.buffers[(view >> 64) as u32 as usize];
        let start = (view >> 96) as usize;
        &buffer[start..start + view as u32 as usize]
    }

    #[inline(always)]
    fn hash(&self, view: u128) -> u64 {
        if view as u32 <= INLINE_BYTES {
            return hash(view as u64 ^ hash((view >> 64) as u64));
        }
        let mut state = view as u32 as u64;
        let bytes = self.bytes(view);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = hash(state.rotate_left(23) ^ u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash(state.rotate_left(23) ^ u64::from_le_bytes(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringViewArray;
    use std::sync::Arc;

    #[test]
    fn numbers_come_in_order_and_are_found_again() {
        let text = |i: usize| format!("{}{i}", "x".repeat(i % 40));
        let all: Vec<String> = (0..5000).map(text).collect();
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(all.iter().chain(&all)));
        let mut interner = Interner::default();
        let mut numbers = vec![];
        interner.intern(&array, &mut numbers).unwrap();
        assert_eq!(interner.len(), 5000);
        assert!(numbers.iter().enumerate().all(|(i, &n)| n == i as u64 % 5000));
        interner.finish();
        let probe: ArrayRef = Arc::new(StringViewArray::from_iter_values((4990..5010).map(text)));
        let mut found = vec![];
        interner.lookup(&probe, 9999, &mut found).unwrap();
        let expected: Vec<u64> = (4990..5010).map(|i| if i < 5000 { i } else { 9999 }).collect();
        assert_eq!(found, expected);
    }
}
