//! From key codes to build rows.
//!
//! [`KeyTable`] is made from the build rows' codes (see [`super::keys`]) and answers for a batch of probe
//! codes which of them occur, and where. It has an index, from a code to a value, and the rows of each
//! value. The index depends on how many codes are possible for each row there is:
//!
//! | possible codes | index |
//! |---|---|
//! | exactly the row numbers | [`Dense`]: nothing is stored |
//! | up to twice the rows, unique | [`Direct`]: an array of rows |
//! | up to 64 times the rows | [`Ranked`]: a bitmap with ranks, two bits a code; a bitmap if only existence counts |
//! | more | [`Unchained`]: a hash table |
//!
//! [`NO_CODE`] marks rows that match nothing; it is in no table.

pub mod direct;
pub mod huge;
pub mod ranked;
pub mod rows;
pub mod select;
pub mod unchained;

use direct::{Dense, Direct};
use ranked::{Bitmap, Ranked};
use rows::Rows;
use select::Lookup;
use unchained::{Candidates, Unchained};

/// No value. Values and rows are below it.
pub const MISSING: u32 = u32::MAX;
/// The code of rows that match nothing: null keys, keys outside the build's range.
pub const NO_CODE: u64 = u64::MAX;

/// Domains up to this are always worth a bit, or four bytes, per code.
const SMALL_DOMAIN: u64 = 1 << 16;
const DIRECT_CODES_PER_ROW: u64 = 2;
const BITMAP_CODES_PER_ROW: u64 = 64;

/// Which codes occur in the build, and in which rows.
pub struct KeyTable {
    index: Index,
    rows: Rows,
}

enum Index {
    Dense(Dense),
    Direct(Direct),
    Bitmap(Bitmap),
    Ranked(Ranked),
    Unchained(Unchained),
}

impl KeyTable {
    /// A table of `codes`, which are below `domain` or [`NO_CODE`]. With `existence_only`, `contains` will
    /// be called, and not `find`; without, the other way round.
    pub fn build(codes: &[u64], domain: u64, existence_only: bool) -> Self {
        let n = codes.len() as u64;
        if n > 0 && domain > SMALL_DOMAIN.max(n * BITMAP_CODES_PER_ROW) || domain > isize::MAX as u64 {
            let (index, rows) = Unchained::build(codes, |row| codes[row] != NO_CODE);
            return KeyTable { index: Index::Unchained(index), rows };
        }
        let ascending = codes.windows(2).all(|w| w[0] < w[1]) && codes.last().is_none_or(|&c| c != NO_CODE);
        if ascending && domain == n {
            return KeyTable {
                index: Index::Dense(Dense { rows: n as u32 }),
                rows: Rows::Identity(n as u32),
            };
        }
        if existence_only {
            let index = Index::Bitmap(Bitmap::build(codes, domain as usize));
            return KeyTable { index, rows: Rows::Identity(n as u32) };
        }
        // Where row and rank are the same, a bitmap a quarter as large does.
        let direct_max = if ascending { SMALL_DOMAIN } else { SMALL_DOMAIN.max(n * DIRECT_CODES_PER_ROW) };
        if domain <= direct_max
            && let Some(direct) = Direct::build(codes, domain as usize)
        {
            return KeyTable { index: Index::Direct(direct), rows: Rows::Identity(n as u32) };
        }
        let ranked = Ranked::build(codes, domain as usize);
        let rows = match ascending {
            true => Rows::Identity(n as u32),
            false => Rows::grouped(ranked.find_all(codes), ranked.len()),
        };
        KeyTable { index: Index::Ranked(ranked), rows }
    }

    /// Rows of the probe `codes` that occur (or do not, if not `wanted`), ascending.
    pub fn contains(&self, codes: &[u64], wanted: bool, rows: &mut Vec<u32>, scratch: &mut Candidates) {
        match &self.index {
            Index::Dense(i) => i.contains(codes, wanted, rows),
            Index::Bitmap(i) => i.contains(codes, wanted, rows),
            Index::Unchained(i) => i.contains(codes, wanted, rows, scratch),
            Index::Direct(_) | Index::Ranked(_) => unreachable!("invariant: not built for existence only"),
        }
    }

    /// Rows of the probe `codes` that occur, ascending, and the value of each; see [`KeyTable::rows`].
    pub fn find(&self, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>, scratch: &mut Candidates) {
        match &self.index {
            Index::Dense(i) => i.find(codes, rows, values),
            Index::Direct(i) => i.find(codes, rows, values),
            Index::Ranked(i) => i.find(codes, rows, values),
            Index::Unchained(i) => i.find(codes, rows, values, scratch),
            Index::Bitmap(_) => unreachable!("invariant: built for existence only"),
        }
    }

    /// The build rows of the values that `find` gives.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The index's name, for tests and EXPLAIN ANALYZE.
    pub fn index_name(&self) -> &'static str {
        match &self.index {
            Index::Dense(_) => "dense",
            Index::Direct(_) => "direct",
            Index::Bitmap(_) => "bitmap",
            Index::Ranked(_) => "ranked",
            Index::Unchained(_) => "unchained",
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + match &self.index {
                Index::Dense(i) => i.memory_bytes(),
                Index::Direct(i) => i.memory_bytes(),
                Index::Bitmap(i) => i.memory_bytes(),
                Index::Ranked(i) => i.memory_bytes(),
                Index::Unchained(i) => i.memory_bytes(),
            }
    }
}

/// Asks for the cache line at `p`, which need not be a valid address.
#[inline(always)]
pub fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
