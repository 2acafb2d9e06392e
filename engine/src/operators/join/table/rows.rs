//! From what an index finds for a code to the build rows that have it.

use super::{MISSING, huge, prefetch};

/// Build rows by index value.
pub enum Rows {
    /// The value is the row; the build has this many rows.
    Identity(u32),
    /// Unique codes: the row of each value.
    One(Vec<u32>),
    /// The rows of value `v` are `rows[offsets[v]..offsets[v + 1]]`, ascending.
    Many { offsets: Vec<u32>, rows: Vec<u32> },
}

impl Rows {
    /// Rows by value, from the value of each row, or [`MISSING`]. All values below `bound` occur.
    pub fn grouped(value_of: Vec<u32>, bound: usize) -> Self {
        if value_of.iter().filter(|&&v| v != MISSING).count() == bound {
            let mut rows = huge::zeroed::<u32>(bound);
            for_each(&value_of, &mut rows, |row, place, _| *place = row);
            return Rows::One(rows);
        }
        // Counts, shifted by two, so that filling turns starts into ends in place.
        let mut offsets = huge::zeroed::<u32>(bound + 2);
        for_each(&value_of, &mut offsets[2..], |_, count, _| *count += 1);
        for v in 2..offsets.len() {
            offsets[v] += offsets[v - 1];
        }
        let total = *offsets.last().expect("invariant: two more offsets than values");
        let mut rows = huge::zeroed::<u32>(total as usize);
        for_each(&value_of, &mut offsets[1..], |row, next, ahead| {
            prefetch(rows.as_ptr().wrapping_add(ahead as usize));
            rows[*next as usize] = row;
            *next += 1;
        });
        offsets.pop();
        Rows::Many { offsets, rows }
    }

    /// At most one row a value.
    pub fn is_unique(&self) -> bool {
        !matches!(self, Rows::Many { .. })
    }

    /// Values that may occur are below this.
    pub fn value_bound(&self) -> usize {
        match self {
            Rows::Identity(n) => *n as usize,
            Rows::One(rows) => rows.len(),
            Rows::Many { offsets, .. } => offsets.len() - 1,
        }
    }

    /// Turns values into rows. Only if unique.
    pub fn resolve_unique(&self, values: &mut [u32]) {
        match self {
            Rows::Identity(_) => {}
            Rows::One(rows) => values.iter_mut().for_each(|v| *v = rows[*v as usize]),
            Rows::Many { .. } => unreachable!("invariant: only asked of unique keys"),
        }
    }

    /// Calls `f` with each row of a value.
    pub fn for_each_row(&self, value: u32, mut f: impl FnMut(u32)) {
        match self {
            Rows::Identity(_) => f(value),
            Rows::One(rows) => f(rows[value as usize]),
            Rows::Many { offsets, rows } => {
                let v = value as usize;
                rows[offsets[v] as usize..offsets[v + 1] as usize].iter().for_each(|&r| f(r));
            }
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            Rows::Identity(_) => 0,
            Rows::One(rows) => rows.capacity() * 4,
            Rows::Many { offsets, rows } => (offsets.capacity() + rows.capacity()) * 4,
        }
    }
}

const PREFETCH_AHEAD: usize = 24;

/// Calls `f` with each row that has a value, what `by_value` holds for it, and what it holds for a row
/// further on.
#[inline(always)]
fn for_each(value_of: &[u32], by_value: &mut [u32], mut f: impl FnMut(u32, &mut u32, u32)) {
    for (row, &value) in value_of.iter().enumerate() {
        if let Some(&far) = value_of.get(row + 2 * PREFETCH_AHEAD) {
            prefetch(by_value.as_ptr().wrapping_add(far as usize));
        }
        if value != MISSING {
            let ahead = value_of.get(row + PREFETCH_AHEAD).and_then(|&v| by_value.get(v as usize));
            let ahead = ahead.copied().unwrap_or(0);
            f(row as u32, &mut by_value[value as usize], ahead);
        }
    }
}
