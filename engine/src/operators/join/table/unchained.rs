//! An unchained hash table over 64-bit codes, after Birler, Schmidt, Fent and Neumann, "Simple,
//! Efficient, and Robust Hash Tables for Join Processing" (DaMoN 2024).
//!
//! Entries are sorted by the top bits of their hash. The directory has one word per slot: where the
//! slot's entries end, and a 16-bit bloom filter of them. A code that is missing costs one access to the
//! directory; one that is there costs one more, to entries that lie side by side. Codes are kept once;
//! a code of several rows has a list of rows.
//!
//! The build first partitions by hash prefix, so that each partition's entries are sorted within the
//! cache. Partitions share nothing: they could be built by different tasks.

use super::rows::Rows;
use super::{MISSING, huge, prefetch};

/// The table. Values are whatever the builder numbered the codes by: rows, or lists of rows.
pub struct Unchained {
    /// `directory[slot + 1]` is `end << 16 | filter`; `directory[slot]` begins with the slot's start.
    directory: Vec<u64>,
    shift: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    code: u64,
    value: u32,
}

// SAFETY: two integers.
unsafe impl huge::ZeroBits for Entry {}

/// A probe's memory between its two passes.
#[derive(Default)]
pub struct Candidates {
    rows: Vec<u32>,
    /// First entry and end of the slot; at least one entry.
    ranges: Vec<(u32, u32)>,
    values: Vec<u32>,
    hashes: Vec<u64>,
}

/// Above this many rows the build partitions first.
const ROWS_SORTED_AT_ONCE: usize = 1 << 15;
/// Up to this many entries have a directory that fits the second-level cache with room to spare.
const SMALL: usize = 1 << 15;
const PREFETCH_AHEAD: usize = 24;

impl Unchained {
    /// A table of the codes of `valid` rows, and the rows of each.
    pub fn build(codes: &[u64], valid: impl Fn(usize) -> bool) -> (Self, Rows) {
        let mut entries = sorted_by_hash(codes, valid);
        let duplicates = group_equal_codes(&mut entries);
        let rows = if duplicates {
            let (distinct, rows) = split_lists(&entries);
            entries = distinct;
            rows
        } else {
            Rows::Identity(codes.len() as u32)
        };
        let (directory, shift) = directory_of(&entries);
        (Unchained { directory, shift, entries }, rows)
    }

    /// Different codes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops the row numbers for numbers without gaps, `0..len`.
    pub fn number(&mut self) {
        for (i, e) in self.entries.iter_mut().enumerate() {
            e.value = i as u32;
        }
    }

    /// Rows of `codes` that are in the table, ascending, and their values.
    pub fn find(
        &self,
        codes: &[u64],
        rows: &mut Vec<u32>,
        values: &mut Vec<u32>,
        candidates: &mut Candidates,
    ) {
        self.candidates(codes, candidates);
        self.verify(codes, candidates, rows, values);
    }

    /// Rows of `codes` that are (not) in the table, ascending.
    pub fn contains(&self, codes: &[u64], wanted: bool, rows: &mut Vec<u32>, candidates: &mut Candidates) {
        let mut values = std::mem::take(&mut candidates.values);
        self.find(codes, rows, &mut values, candidates);
        candidates.values = values;
        if !wanted {
            let mut next = 0;
            let mut others = Vec::with_capacity(codes.len() - rows.len());
            for &row in rows.iter() {
                others.extend(next..row);
                next = row + 1;
            }
            others.extend(next..codes.len() as u32);
            *rows = others;
        }
    }

    /// Replaces each code by its value, or by `missing`.
    pub fn translate(&self, codes: &mut [u64], missing: u64, candidates: &mut Candidates) {
        let (mut rows, mut values) = (vec![], vec![]);
        self.find(codes, &mut rows, &mut values, candidates);
        codes.fill(missing);
        for (row, value) in rows.into_iter().zip(values) {
            codes[row as usize] = value as u64;
        }
    }

    /// First pass: rows whose slot's filter lets them through.
    fn candidates(&self, codes: &[u64], out: &mut Candidates) {
        out.rows.clear();
        out.rows.reserve(codes.len());
        out.ranges.clear();
        out.ranges.reserve(codes.len());
        let (rows, ranges) = (out.rows.as_mut_ptr(), out.ranges.as_mut_ptr());
        out.hashes.clear();
        out.hashes.extend(codes.iter().map(|&c| hash(c)));
        let mut found = 0;
        for (row, &hash) in out.hashes.iter().enumerate() {
            if let Some(ahead) = out.hashes.get(row + 2 * PREFETCH_AHEAD) {
                prefetch(self.directory.as_ptr().wrapping_add((ahead >> self.shift) as usize));
            }
            let slot = (hash >> self.shift) as usize;
            // SAFETY: slots are below 1 << (64 - shift), and the directory has one word more than that.
            let (before, here) =
                unsafe { (*self.directory.get_unchecked(slot), *self.directory.get_unchecked(slot + 1)) };
            let tag = tag(hash);
            // SAFETY: found <= row < codes.len() <= both capacities.
            unsafe {
                *rows.add(found) = row as u32;
                *ranges.add(found) = ((before >> 16) as u32, (here >> 16) as u32);
            }
            found += (here & tag == tag) as usize;
        }
        // SAFETY: the first `found` places of both were written.
        unsafe {
            out.rows.set_len(found);
            out.ranges.set_len(found);
        }
    }

    /// Second pass: compares the candidates' codes; of those that are equal, the rows and values.
    fn verify(&self, codes: &[u64], candidates: &Candidates, rows: &mut Vec<u32>, values: &mut Vec<u32>) {
        let count = candidates.rows.len();
        rows.clear();
        rows.reserve(count);
        values.clear();
        values.reserve(count);
        let (out_rows, out_values) = (rows.as_mut_ptr(), values.as_mut_ptr());
        let mut found = 0;
        for (i, (&row, &(start, end))) in candidates.rows.iter().zip(&candidates.ranges).enumerate() {
            if let Some(&(ahead, _)) = candidates.ranges.get(i + PREFETCH_AHEAD) {
                prefetch(self.entries.as_ptr().wrapping_add(ahead as usize));
            }
            let code = codes[row as usize];
            let entries = &self.entries[start as usize..end as usize];
            let mut value = if entries[0].code == code { entries[0].value } else { MISSING };
            if value == MISSING && entries.len() > 1 {
                value = entries[1..].iter().find(|e| e.code == code).map_or(MISSING, |e| e.value);
            }
            // SAFETY: found <= i < count <= both capacities.
            unsafe {
                *out_rows.add(found) = row;
                *out_values.add(found) = value;
            }
            found += (value != MISSING) as usize;
        }
        // SAFETY: the first `found` places of both were written.
        unsafe {
            rows.set_len(found);
            values.set_len(found);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.directory.capacity() * 8 + self.entries.capacity() * size_of::<Entry>()
    }
}

/// Spreads a code over 64 bits: both halves of a product. Slots take the top bits, tags the lowest.
#[inline(always)]
pub fn hash(code: u64) -> u64 {
    let product = (code ^ 0x9E37_79B9_7F4A_7C15) as u128 * 0xD6E8_FEB8_6659_FD93;
    (product as u64) ^ ((product >> 64) as u64)
}

/// Four of sixteen bits, chosen by the hash's lowest 11.
#[inline(always)]
fn tag(hash: u64) -> u64 {
    TAGS[(hash & 2047) as usize] as u64
}

static TAGS: [u16; 2048] = tags();

/// All 1,820 words of 16 bits with four set, the first of them twice.
const fn tags() -> [u16; 2048] {
    let mut tags = [0u16; 2048];
    let mut count = 0;
    while count < 2048 {
        let mut word = 0u16;
        while word < u16::MAX && count < 2048 {
            if word.count_ones() == 4 {
                tags[count] = word;
                count += 1;
            }
            word += 1;
        }
    }
    tags
}

/// `(code, row)` of all valid rows, ascending by the top bits of the hash, as many as the directory uses.
fn sorted_by_hash(codes: &[u64], valid: impl Fn(usize) -> bool) -> Vec<Entry> {
    let rows = || codes.iter().enumerate().filter(|(row, _)| valid(*row));
    let bits = codes.len().div_ceil(ROWS_SORTED_AT_ONCE).next_power_of_two().trailing_zeros().min(9);
    // A shift of 64 is none at all; the top bit twice over gives partition 0 or 1 just the same.
    let partition = |code: u64| if bits == 0 { 0 } else { (hash(code) >> (64 - bits)) as usize };
    let mut next = vec![0usize; (1 << bits) + 1];
    rows().for_each(|(_, &code)| next[partition(code) + 1] += 1);
    for p in 1..next.len() {
        next[p] += next[p - 1];
    }
    let bounds = next.clone();
    let mut entries = huge::zeroed::<Entry>(bounds[1 << bits]);
    rows().for_each(|(row, &code)| {
        let place = &mut next[partition(code)];
        entries[*place] = Entry { code, value: row as u32 };
        *place += 1;
    });
    let slots = directory_bits(entries.len());
    let mut scratch = vec![];
    for p in 0..1usize << bits {
        sort_partition(&mut entries[bounds[p]..bounds[p + 1]], bits, slots, &mut scratch);
    }
    entries
}

/// Counting sort of entries that agree in the hash's first `done` bits by its first `slots` bits.
fn sort_partition(entries: &mut [Entry], done: u32, slots: u32, scratch: &mut Vec<Entry>) {
    let rest = slots.saturating_sub(done);
    if rest == 0 || entries.len() < 2 {
        return;
    }
    let slot = |e: &Entry| ((hash(e.code) << done) >> (64 - rest)) as usize;
    let mut next = vec![0u32; (1 << rest) + 1];
    entries.iter().for_each(|e| next[slot(e) + 1] += 1);
    for s in 1..next.len() {
        next[s] += next[s - 1];
    }
    scratch.clear();
    scratch.extend_from_slice(entries);
    for e in scratch.iter() {
        let place = &mut next[slot(e)];
        entries[*place as usize] = *e;
        *place += 1;
    }
}

/// Sorts the entries of each slot by code, rows ascending. Some code occurs twice?
fn group_equal_codes(entries: &mut [Entry]) -> bool {
    let shift = 64 - directory_bits(entries.len());
    let mut duplicates = false;
    let mut start = 0;
    while start < entries.len() {
        let slot = hash(entries[start].code) >> shift;
        let end = start + entries[start..].iter().take_while(|e| hash(e.code) >> shift == slot).count();
        if end - start > 1 {
            let group = &mut entries[start..end];
            // Most have two entries.
            if group.len() == 2 {
                if group[0].code > group[1].code {
                    group.swap(0, 1);
                }
            } else {
                group.sort_unstable_by_key(|e| (e.code, e.value));
            }
            duplicates |= group.windows(2).any(|w| w[0].code == w[1].code);
        }
        start = end;
    }
    duplicates
}

/// One entry per code, numbered in order, and the rows of each.
fn split_lists(entries: &[Entry]) -> (Vec<Entry>, Rows) {
    let mut distinct: Vec<Entry> = vec![];
    let mut offsets = vec![];
    let mut rows = Vec::with_capacity(entries.len());
    for e in entries {
        if distinct.last().is_none_or(|last| last.code != e.code) {
            offsets.push(rows.len() as u32);
            distinct.push(Entry { code: e.code, value: distinct.len() as u32 });
        }
        rows.push(e.value);
    }
    offsets.push(rows.len() as u32);
    distinct.shrink_to_fit();
    (distinct, Rows::Many { offsets, rows })
}

/// Slots for so many entries: at most one a slot on average, half of that while the cache has room.
fn directory_bits(entries: usize) -> u32 {
    let slots = if entries <= SMALL { entries * 2 } else { entries };
    slots.next_power_of_two().trailing_zeros().max(1)
}

/// The directory of entries that are sorted by hash prefix.
fn directory_of(entries: &[Entry]) -> (Vec<u64>, u32) {
    let bits = directory_bits(entries.len());
    let shift = 64 - bits;
    let mut directory = huge::zeroed::<u64>((1 << bits) + 1);
    let mut filled = 0;
    for (i, e) in entries.iter().enumerate() {
        let hash = hash(e.code);
        let word = (hash >> shift) as usize + 1;
        // Empty slots end where the slot before them does, and let nothing through.
        while filled < word {
            filled += 1;
            directory[filled] = (i as u64) << 16;
        }
        directory[word] = (directory[word] & 0xFFFF) | tag(hash) | ((i as u64 + 1) << 16);
    }
    while filled < 1 << bits {
        filled += 1;
        directory[filled] = (entries.len() as u64) << 16;
    }
    (directory, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(table: &Unchained, codes: &[u64]) -> Vec<(u32, u32)> {
        let (mut rows, mut values) = (vec![], vec![]);
        table.find(codes, &mut rows, &mut values, &mut Candidates::default());
        rows.into_iter().zip(values).collect()
    }

    #[test]
    fn finds_all_unique_codes_and_no_other() {
        for n in [0u64, 1, 2, 3, 1000, 300_000] {
            let codes: Vec<u64> = (0..n).map(|i| i * 0x1_0000_0001).collect();
            let (table, rows) = Unchained::build(&codes, |_| true);
            assert!(rows.is_unique());
            let hits = found(&table, &codes);
            assert_eq!(hits, (0..n as u32).map(|i| (i, i)).collect::<Vec<_>>());
            let others: Vec<u64> = codes.iter().map(|c| c + 1).chain([u64::MAX]).collect();
            assert_eq!(found(&table, &others), vec![]);
        }
    }

    #[test]
    fn duplicates_have_lists_in_row_order() {
        let codes: Vec<u64> = (0..200_000).map(|i| if i % 2 == 0 { 7 } else { i % 1000 }).collect();
        let (table, rows) = Unchained::build(&codes, |row| row != 4);
        let hits = found(&table, &[7, 3, 2000]);
        assert_eq!(hits.len(), 2);
        let mut listed = vec![];
        rows.for_each_row(hits[0].1, |r| listed.push(r));
        let expected: Vec<u32> =
            (0..200_000u32).filter(|&r| r != 4 && (r % 2 == 0 || r % 1000 == 7)).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn contains_and_its_complement() {
        let (table, _) = Unchained::build(&[5, 9], |_| true);
        let (mut rows, mut scratch) = (vec![], Candidates::default());
        table.contains(&[1, 5, 2, 9, 3], true, &mut rows, &mut scratch);
        assert_eq!(rows, [1, 3]);
        table.contains(&[1, 5, 2, 9, 3], false, &mut rows, &mut scratch);
        assert_eq!(rows, [0, 2, 4]);
        let mut codes = [1, 5, 2, 9, 3];
        table.translate(&mut codes, 77, &mut scratch);
        assert_eq!(codes, [77, 0, 77, 1, 77]);
    }
}
