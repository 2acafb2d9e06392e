//! Bitmaps of the codes that occur, for codes from a range too wide for an array of rows, yet not so wide
//! that a bit or two per possible code cost more than a hash table.
//!
//! The value of a code is its rank: how many smaller codes occur. If the build rows came sorted by key,
//! the rank is the row number.

use super::select::{Lookup, rows_where, values_where};
use super::{MISSING, NO_CODE, huge, prefetch};
use crate::batch::BATCH_ROWS;

const PREFETCH_AHEAD: usize = 48;

/// A set of codes below a bound.
pub struct Bitmap {
    /// One bit per code, and at least one more, never set, that stands for every code outside.
    words: Vec<u64>,
    domain: u64,
}

impl Bitmap {
    /// Codes must be below `domain` or [`NO_CODE`].
    pub fn build(codes: &[u64], domain: usize) -> Self {
        let mut words = huge::zeroed::<u64>(domain / 64 + 1);
        set_bits(codes, 64, &mut words);
        Bitmap { words, domain: domain as u64 }
    }

    pub fn contains(&self, codes: &[u64], wanted: bool, rows: &mut Vec<u32>) {
        rows_where(self, codes, wanted, rows);
    }

    /// The word of a code, and the code's bit in it.
    #[inline(always)]
    fn word(&self, code: u64) -> (&u64, u64) {
        let code = code.min(self.domain);
        // SAFETY: code <= domain, and there are domain / 64 + 1 words.
        (unsafe { self.words.get_unchecked((code / 64) as usize) }, code % 64)
    }
}

impl Lookup for Bitmap {
    #[inline(always)]
    fn get(&self, code: u64) -> (bool, u32) {
        let (word, bit) = self.word(code);
        (word & (1 << bit) != 0, 0)
    }

    #[inline(always)]
    fn place(&self, code: u64) -> *const u8 {
        std::ptr::from_ref(self.word(code).0).cast()
    }

    fn memory_bytes(&self) -> usize {
        self.words.capacity() * 8
    }
}

/// Codes below a bound, numbered in ascending order. Two bits a code: half a word is a bitmap of 32
/// codes, the other half the number of codes before them, so that one access answers both questions.
pub struct Ranked {
    /// The last block's bits stand for every code outside, and are not set.
    blocks: Vec<u64>,
    domain: u64,
    len: usize,
    popcnt: bool,
}

impl Ranked {
    /// Codes must be below `domain` or [`NO_CODE`].
    pub fn build(codes: &[u64], domain: usize) -> Self {
        let mut blocks = huge::zeroed::<u64>(domain / 32 + 1);
        set_bits(codes, 32, &mut blocks);
        let mut before = 0u64;
        for block in &mut blocks {
            let own = block.count_ones() as u64;
            *block |= before << 32;
            before += own;
        }
        #[cfg(target_arch = "x86_64")]
        let popcnt = std::arch::is_x86_feature_detected!("popcnt");
        #[cfg(not(target_arch = "x86_64"))]
        let popcnt = false;
        Ranked { blocks, domain: domain as u64, len: before as usize, popcnt }
    }

    /// Different codes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The rank of each code, or [`MISSING`] for [`NO_CODE`]. All others must be there.
    pub fn find_all(&self, codes: &[u64]) -> Vec<u32> {
        let mut ranks = huge::with_capacity(codes.len());
        let (mut rows, mut values) = (vec![], vec![]);
        for part in codes.chunks(BATCH_ROWS) {
            self.find(part, &mut rows, &mut values);
            if rows.len() == part.len() {
                ranks.extend_from_slice(&values);
                continue;
            }
            let start = ranks.len();
            ranks.resize(start + part.len(), MISSING);
            rows.iter().zip(&values).for_each(|(&row, &value)| ranks[start + row as usize] = value);
        }
        ranks
    }

    pub fn find(&self, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
        #[cfg(target_arch = "x86_64")]
        if self.popcnt {
            // SAFETY: the processor was asked.
            unsafe { self.find_with_popcnt(codes, rows, values) };
            return;
        }
        values_where(self, codes, rows, values);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt")]
    unsafe fn find_with_popcnt(&self, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
        values_where(self, codes, rows, values);
    }

    /// The block of a code, and the code's bit in it.
    #[inline(always)]
    fn block(&self, code: u64) -> (&u64, u64) {
        let code = code.min(self.domain);
        // SAFETY: code <= domain, and there are domain / 32 + 1 blocks.
        (unsafe { self.blocks.get_unchecked((code / 32) as usize) }, code % 32)
    }
}

impl Lookup for Ranked {
    #[inline(always)]
    fn get(&self, code: u64) -> (bool, u32) {
        let (&block, bit) = self.block(code);
        let below = block as u32 & ((1 << bit) - 1);
        (block >> bit & 1 != 0, (block >> 32) as u32 + below.count_ones())
    }

    #[inline(always)]
    fn place(&self, code: u64) -> *const u8 {
        std::ptr::from_ref(self.block(code).0).cast()
    }

    fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * 8
    }
}

/// Sets the bit of each code, with so many codes to a word.
#[inline(always)]
fn set_bits(codes: &[u64], codes_per_word: u64, words: &mut [u64]) {
    for (row, &code) in codes.iter().enumerate() {
        if let Some(ahead) = codes.get(row + PREFETCH_AHEAD) {
            prefetch(words.as_ptr().wrapping_add((ahead / codes_per_word) as usize));
        }
        if code != NO_CODE {
            words[(code / codes_per_word) as usize] |= 1 << (code % codes_per_word);
        }
    }
}
