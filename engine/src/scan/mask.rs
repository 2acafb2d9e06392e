//! Which rows of a window are still in: one bit a row, packed in words of 64.

use arrow::array::UInt32Array;
use arrow::buffer::NullBuffer;

/// A set of the rows `0..len`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// All of `len` rows.
    pub fn all(len: usize) -> Mask {
        let mut mask = Mask::default();
        mask.reset_all(len);
        mask
    }

    /// No row of `len`.
    pub fn none(len: usize) -> Mask {
        Mask { words: vec![0; len.div_ceil(64)], len }
    }

    /// Becomes all of `len` rows; the memory is used again.
    pub fn reset_all(&mut self, len: usize) {
        self.words.clear();
        self.words.resize(len.div_ceil(64), u64::MAX);
        self.len = len;
        self.trim();
    }

    /// Becomes no row of `len`.
    pub fn reset_none(&mut self, len: usize) {
        self.words.clear();
        self.words.resize(len.div_ceil(64), 0);
        self.len = len;
    }

    /// Rows that there are, in or out.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are no rows, in or out.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows that are in.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The words; bits from `len` on are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, to be changed; bits from `len` on must stay zero.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Takes a row in.
    pub fn insert(&mut self, row: usize) {
        self.words[row >> 6] |= 1 << (row & 63);
    }

    /// The row is in.
    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        self.words[row >> 6] >> (row & 63) & 1 == 1
    }

    /// Puts out the rows that are null.
    pub fn and_valid(&mut self, nulls: &NullBuffer) {
        let chunks = nulls.inner().bit_chunks();
        for (word, valid) in self.words.iter_mut().zip(chunks.iter_padded()) {
            *word &= valid;
        }
    }

    /// Puts the rows `from..to` out.
    pub fn remove_range(&mut self, from: usize, to: usize) {
        for word in from / 64..to.div_ceil(64) {
            let low = from.saturating_sub(word * 64);
            let high = (to - word * 64).min(64);
            let above = if high == 64 { 0 } else { u64::MAX << high };
            let below = (1u64 << low) - 1;
            self.words[word] &= above | below;
        }
    }

    /// Keeps the rows that are in `other` too.
    pub fn and(&mut self, other: &Mask) {
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= b;
        }
    }

    /// The numbers of the rows that are in, ascending, into `out`, which is cleared first.
    pub fn indices_into(&self, out: &mut Vec<u32>) {
        out.clear();
        out.reserve(self.count());
        for (i, &word) in self.words.iter().enumerate() {
            let base = (i * 64) as u32;
            if word == u64::MAX {
                out.extend(base..base + 64);
                continue;
            }
            let mut rest = word;
            while rest != 0 {
                out.push(base + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    }

    /// The numbers of the rows that are in, ascending.
    pub fn indices(&self) -> UInt32Array {
        let mut out = vec![];
        self.indices_into(&mut out);
        UInt32Array::from(out)
    }

    fn trim(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(64)
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_indices() {
        let mut mask = Mask::all(200);
        mask.remove_range(3, 130);
        mask.remove_range(192, 200);
        let expected: Vec<u32> = (0..3).chain(130..192).collect();
        assert_eq!(mask.indices().values().to_vec(), expected);
        assert_eq!(mask.count(), expected.len());
        mask.remove_range(0, 200);
        assert_eq!(mask, Mask::none(200));
    }
}
