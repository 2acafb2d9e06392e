//! A set of a batch's rows as bits, and its ways to and from row numbers.
//!
//! Filters over all rows make masks, because comparing and packing 64 rows has no branch in it; filters
//! over few rows keep row numbers. Bits beyond the last row are always zero.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::NullBuffer;

/// A set of rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mask {
    words: Vec<u64>,
    rows: usize,
}

impl Mask {
    /// All rows.
    pub fn all(rows: usize) -> Self {
        let mut mask = Mask { words: vec![u64::MAX; rows.div_ceil(64)], rows };
        mask.trim();
        mask
    }

    /// No row.
    pub fn none(rows: usize) -> Self {
        Mask { words: vec![0; rows.div_ceil(64)], rows }
    }

    /// The rows that are true; null is not.
    pub fn from_boolean(array: &BooleanArray) -> Self {
        let words = array.len().div_ceil(64);
        let words = array.values().bit_chunks().iter_padded().take(words).collect();
        let mut mask = Mask { words, rows: array.len() };
        mask.trim();
        mask.and_valid(array.nulls());
        mask
    }

    /// Listed rows.
    pub fn from_rows(listed: &[u32], rows: usize) -> Self {
        let mut mask = Mask::none(rows);
        for &row in listed {
            mask.words[row as usize / 64] |= 1 << (row % 64);
        }
        mask
    }

    /// The rows for which `test` holds. `test` should be free of branches.
    #[inline(always)]
    pub fn collect(rows: usize, test: impl Fn(usize) -> bool) -> Self {
        let mut words = Vec::with_capacity(rows.div_ceil(64));
        let mut bytes = [0u8; 64];
        for start in (0..rows / 64).map(|w| w * 64) {
            for (j, byte) in bytes.iter_mut().enumerate() {
                *byte = test(start + j) as u8;
            }
            words.push(pack(&bytes));
        }
        let done = words.len() * 64;
        if done < rows {
            words.push((done..rows).fold(0, |word, i| word | ((test(i) as u64) << (i - done))));
        }
        Mask { words, rows }
    }

    /// As [`Mask::collect`] over the elements of a slice.
    #[inline(always)]
    pub fn collect_slice<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Self {
        let mut words = Vec::with_capacity(values.len().div_ceil(64));
        let (chunks, rest) = values.as_chunks::<64>();
        for chunk in chunks {
            let mut bytes = [0u8; 64];
            for (byte, &v) in bytes.iter_mut().zip(chunk) {
                *byte = test(v) as u8;
            }
            words.push(pack(&bytes));
        }
        if !rest.is_empty() {
            words.push(rest.iter().enumerate().fold(0, |word, (i, &v)| word | ((test(v) as u64) << i)));
        }
        Mask { words, rows: values.len() }
    }

    /// Number of rows in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Is the row in the set?
    pub fn get(&self, row: usize) -> bool {
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Keeps what is in both sets.
    pub fn and(&mut self, other: &Mask) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// Adds the other set.
    pub fn or(&mut self, other: &Mask) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Keeps the rows that are not null.
    pub fn and_valid(&mut self, nulls: Option<&NullBuffer>) {
        if let Some(nulls) = nulls {
            let valid = nulls.inner().bit_chunks();
            self.words.iter_mut().zip(valid.iter_padded()).for_each(|(a, b)| *a &= b);
        }
    }

    /// Exchanges the set for all other rows.
    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|w| *w = !*w);
        self.trim();
    }

    /// The rows in ascending order.
    pub fn to_rows(&self) -> Vec<u32> {
        let mut out = vec![0; self.count() + 8];
        let mut n = 0;
        for (w, &word) in self.words.iter().enumerate() {
            let base = w as u32 * 64;
            if word.count_ones() > 12 {
                for (b, byte) in word.to_le_bytes().into_iter().enumerate() {
                    // Eight stores, of which as many count as there are bits; the next byte's come over
                    // the rest.
                    let offset = base + b as u32 * 8;
                    let found: &mut [u32; 8] =
                        (&mut out[n..n + 8]).try_into().expect("invariant: eight slots are spare");
                    for (slot, &bit) in found.iter_mut().zip(&BITS[byte as usize]) {
                        *slot = offset + bit as u32;
                    }
                    n += byte.count_ones() as usize;
                }
            } else {
                let mut rest = word;
                while rest != 0 {
                    out[n] = base + rest.trailing_zeros();
                    n += 1;
                    rest &= rest - 1;
                }
            }
        }
        out.truncate(n);
        out
    }

    /// As [`Mask::to_rows`].
    pub fn into_rows(self) -> Vec<u32> {
        self.to_rows()
    }

    fn trim(&mut self) {
        if !self.rows.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.rows % 64)) - 1;
        }
    }
}

/// Bytes of 0 and 1 as bits, the first byte lowest.
#[inline(always)]
fn pack(bytes: &[u8; 64]) -> u64 {
    let (eights, _) = bytes.as_chunks::<8>();
    let mut word = 0;
    for (i, eight) in eights.iter().enumerate() {
        // Each byte's lowest bit moves to its own place in the top byte; no two meet, nothing carries.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (i * 8);
    }
    word
}

/// For each byte, the positions of its bits; the slots behind them hold anything.
static BITS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut n) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte][n] = bit as u8;
                n += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_and_bits_are_the_same_set(bools in prop::collection::vec(prop::bool::weighted(0.4), 0..400)) {
            let expected: Vec<u32> =
                bools.iter().enumerate().filter(|(_, b)| **b).map(|(i, _)| i as u32).collect();
            let mut mask = Mask::collect(bools.len(), |i| bools[i]);
            prop_assert_eq!(&mask, &Mask::collect_slice(&bools, |b| b));
            prop_assert_eq!(&mask, &Mask::from_boolean(&BooleanArray::from(bools.clone())));
            prop_assert_eq!(&mask, &Mask::from_rows(&expected, bools.len()));
            prop_assert_eq!(mask.count(), expected.len());
            prop_assert_eq!(mask.to_rows(), expected);
            mask.invert();
            prop_assert_eq!(mask.count(), bools.iter().filter(|b| !**b).count());
        }
    }

    #[test]
    fn sets_stay_within_their_rows() {
        assert_eq!(Mask::all(70).count(), 70);
        let sliced =
            BooleanArray::from(vec![Some(true), Some(true), None, Some(false), Some(true)]).slice(1, 4);
        assert_eq!(Mask::from_boolean(&sliced).to_rows(), vec![0, 3]);
    }
}
