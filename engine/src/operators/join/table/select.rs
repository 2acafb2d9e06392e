//! The innermost loops of a probe: which rows of a batch are in the table, and what was found.
//!
//! They write each row number unconditionally and advance by 0 or 1, so a probe that hits half of the
//! time costs no branch misses. If the table is larger than the cache, they ask for the memory of rows
//! further on: more than the processor finds by itself when few rows lead outside the cache.

use super::prefetch;

/// What a code leads to. Must not branch on the code.
pub trait Lookup {
    /// Whether the code is there, and its value; what the value is if not is of no account.
    fn get(&self, code: u64) -> (bool, u32);

    /// The memory that `get` reads.
    fn place(&self, code: u64) -> *const u8;

    fn memory_bytes(&self) -> usize;
}

const PREFETCH_AHEAD: usize = 48;
/// Smaller tables are in the cache after a batch or two.
const PREFETCH_FROM_BYTES: usize = 1 << 20;

/// Rows of `codes` that are there (or are not, if not `wanted`), ascending.
#[inline(always)]
pub fn rows_where<L: Lookup>(lookup: &L, codes: &[u64], wanted: bool, rows: &mut Vec<u32>) {
    rows.clear();
    rows.reserve(codes.len());
    let out = rows.as_mut_ptr();
    let mut found = 0;
    let mut write = |row: usize, code: u64| {
        // SAFETY: found <= row < codes.len() <= capacity.
        unsafe { *out.add(found) = row as u32 };
        found += (lookup.get(code).0 == wanted) as usize;
    };
    scan(lookup, codes, &mut write);
    // SAFETY: the first `found` places were written, found <= codes.len() <= capacity.
    unsafe { rows.set_len(found) };
}

/// Rows of `codes` that are there, ascending, and their values.
#[inline(always)]
pub fn values_where<L: Lookup>(lookup: &L, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
    rows.clear();
    rows.reserve(codes.len());
    values.clear();
    values.reserve(codes.len());
    let (out_rows, out_values) = (rows.as_mut_ptr(), values.as_mut_ptr());
    let mut found = 0;
    let mut write = |row: usize, code: u64| {
        let (hit, value) = lookup.get(code);
        // SAFETY: found <= row < codes.len() <= both capacities.
        unsafe {
            *out_rows.add(found) = row as u32;
            *out_values.add(found) = value;
        }
        found += hit as usize;
    };
    scan(lookup, codes, &mut write);
    // SAFETY: the first `found` places of both were written.
    unsafe {
        rows.set_len(found);
        values.set_len(found);
    }
}

/// Calls `visit` with all rows.
#[inline(always)]
fn scan<L: Lookup>(lookup: &L, codes: &[u64], visit: &mut impl FnMut(usize, u64)) {
    if lookup.memory_bytes() < PREFETCH_FROM_BYTES || codes.len() <= PREFETCH_AHEAD {
        codes.iter().enumerate().for_each(|(row, &code)| visit(row, code));
        return;
    }
    let last = codes.len() - PREFETCH_AHEAD;
    for (row, (&code, &ahead)) in codes[..last].iter().zip(&codes[PREFETCH_AHEAD..]).enumerate() {
        prefetch(lookup.place(ahead));
        visit(row, code);
    }
    codes[last..].iter().zip(last..).for_each(|(&code, row)| visit(row, code));
}
