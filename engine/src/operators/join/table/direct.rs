//! Key codes as array positions: for unique codes from a range not much larger than their number.

use super::select::{Lookup, rows_where, values_where};
use super::{MISSING, NO_CODE, huge};

/// Build rows by code.
pub struct Direct {
    /// One place for every code of the domain, and a last one, always [`MISSING`], for all other codes.
    rows: Vec<u32>,
}

impl Direct {
    /// Codes must be below `domain` or [`NO_CODE`]. None if one occurs twice.
    pub fn build(codes: &[u64], domain: usize) -> Option<Self> {
        let mut rows = huge::filled(MISSING, domain + 1);
        for (row, &code) in codes.iter().enumerate().filter(|(_, c)| **c != NO_CODE) {
            let place = &mut rows[code as usize];
            if *place != MISSING {
                return None;
            }
            *place = row as u32;
        }
        Some(Direct { rows })
    }

    pub fn find(&self, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
        values_where(self, codes, rows, values);
    }

    #[inline(always)]
    fn row(&self, code: u64) -> &u32 {
        let last = self.rows.len() - 1;
        let place = code.min(last as u64) as usize;
        // SAFETY: place <= last, and there always is a last place.
        unsafe { self.rows.get_unchecked(place) }
    }
}

impl Lookup for Direct {
    #[inline(always)]
    fn get(&self, code: u64) -> (bool, u32) {
        let row = *self.row(code);
        (row != MISSING, row)
    }

    #[inline(always)]
    fn place(&self, code: u64) -> *const u8 {
        std::ptr::from_ref(self.row(code)).cast()
    }

    fn memory_bytes(&self) -> usize {
        self.rows.capacity() * 4
    }
}

/// Codes that are their own row numbers: build row `i` has code `i`, and there is no other.
pub struct Dense {
    pub rows: u32,
}

impl Dense {
    pub fn contains(&self, codes: &[u64], wanted: bool, rows: &mut Vec<u32>) {
        rows_where(self, codes, wanted, rows);
    }

    pub fn find(&self, codes: &[u64], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
        values_where(self, codes, rows, values);
    }
}

impl Lookup for Dense {
    #[inline(always)]
    fn get(&self, code: u64) -> (bool, u32) {
        (code < self.rows as u64, code as u32)
    }

    #[inline(always)]
    fn place(&self, _code: u64) -> *const u8 {
        std::ptr::null()
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
