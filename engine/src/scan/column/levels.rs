//! Which rows of a page are null: definition levels of flat columns, made into bits with counts.

use std::ops::Range;

use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use bytes::Bytes;

use crate::scan::column::format::NULL_PLACE;
use crate::scan::column::hybrid::Hybrid;
use crate::scan::column::malformed::{Decoded, malformed};

/// Levels decoded at a time; whole words of bits.
const PIECE: usize = 4096;

/// The rows of a page that have a value, and for each its place among the values.
#[derive(Debug)]
pub struct Validity {
    words: ScalarBuffer<u64>,
    /// Values before each word.
    before: Vec<u32>,
    values: usize,
}

impl Validity {
    /// Reads one-bit levels of `rows` rows; none if no row is null.
    pub fn parse(levels: Bytes, rows: usize) -> Decoded<Option<Validity>> {
        let hybrid = Hybrid::parse(levels, 1, rows)?;
        if hybrid.constant() == Some(1) || rows == 0 {
            return Ok(None);
        }
        let mut bits = vec![];
        let mut words = vec![];
        let mut before = vec![];
        let mut values = 0;
        // Piece by piece: the bits take less room than the levels.
        for start in (0..rows).step_by(PIECE) {
            bits.clear();
            hybrid.decode_range(start..rows.min(start + PIECE), &mut bits);
            for chunk in bits.chunks(64) {
                let mut word = 0u64;
                for (i, bit) in chunk.iter().enumerate() {
                    word |= (*bit as u64) << i;
                }
                words.push(word);
                before.push(values);
                values += word.count_ones();
            }
        }
        let validity = Validity { words: words.into(), before, values: values as usize };
        Ok((validity.values != rows).then_some(validity))
    }

    /// Splits a V1 page body behind its levels.
    pub fn split_v1(body: &Bytes) -> Decoded<(Bytes, Bytes)> {
        let length = body.get(..4).ok_or(malformed("a page without its levels"))?;
        let length = u32::from_le_bytes(length.try_into().expect("invariant: four bytes")) as usize;
        if length > body.len() - 4 {
            return Err(malformed("levels beyond the end of the page"));
        }
        Ok((body.slice(4..4 + length), body.slice(4 + length..)))
    }

    /// Rows with a value.
    pub fn values(&self) -> usize {
        self.values
    }

    /// A range of rows, as Arrow marks nulls.
    pub fn nulls(&self, rows: Range<usize>) -> NullBuffer {
        NullBuffer::new(BooleanBuffer::new(self.words.inner().clone(), rows.start, rows.len()))
    }

    /// The row has a value.
    #[inline]
    pub fn is_valid(&self, row: usize) -> bool {
        self.words[row >> 6] >> (row & 63) & 1 == 1
    }

    /// Values before a row; `row` may be the number of rows.
    #[inline]
    pub fn rank(&self, row: usize) -> usize {
        match self.before.get(row >> 6) {
            Some(before) => {
                *before as usize + (self.words[row >> 6] & ((1 << (row & 63)) - 1)).count_ones() as usize
            }
            None => self.values,
        }
    }

    /// A row's place among the values, or [`NULL_PLACE`].
    #[inline]
    pub fn place(&self, row: usize) -> u32 {
        if self.is_valid(row) { self.rank(row) as u32 } else { NULL_PLACE }
    }

    /// Puts the values of a range of rows at their rows, and `null` between them: the last
    /// `rank(end) - rank(start)` items of `out` become the last `end - start`.
    pub fn spread(&self, rows: Range<usize>, null: u32, out: &mut Vec<u32>) {
        let values = self.rank(rows.end) - self.rank(rows.start);
        let start = out.len() - values;
        out.resize(start + rows.len(), null);
        // From the back, so that no value is overwritten before it has moved.
        let mut value = start + values;
        for (i, row) in rows.enumerate().rev() {
            out[start + i] = if self.is_valid(row) {
                value -= 1;
                out[value]
            } else {
                null
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_spreads() {
        // 70 rows, packed: every third is null.
        let valid: Vec<bool> = (0..70).map(|i| i % 3 != 0).collect();
        let mut data = vec![9 << 1 | 1];
        data.extend(valid.chunks(8).map(|c| c.iter().enumerate().fold(0u8, |b, (i, v)| b | (*v as u8) << i)));
        let validity = Validity::parse(data.into(), 70).unwrap().unwrap();
        assert_eq!(validity.values(), valid.iter().filter(|v| **v).count());
        for row in 0..=70 {
            assert_eq!(validity.rank(row), valid[..row].iter().filter(|v| **v).count());
        }
        let values: Vec<u32> = (0..validity.values() as u32).collect();
        for from in 0..70 {
            for to in from..=70 {
                let mut out = vec![99];
                out.extend(&values[validity.rank(from)..validity.rank(to)]);
                validity.spread(from..to, NULL_PLACE, &mut out);
                let mut expected = vec![99];
                expected.extend((from..to).map(|row| validity.place(row)));
                assert_eq!(out, expected);
            }
        }
        assert!(Validity::parse(vec![140, 1, 1].into(), 70).unwrap().is_none());
    }
}
