//! How much memory waiting rows hold.
//!
//! An array holds whole allocations, however few of their bytes it refers to, and the slices of one batch
//! share them. [`HeldMemory`] counts every allocation once, at its full capacity, from the first rows that
//! hold it until the last of them are gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::size_of;

use arrow::array::{Array, ArrayData};
use arrow::buffer::Buffer;

use crate::rows::Rows;

/// The allocations that some rows hold. Rows must be kept from [`HeldMemory::add`] to
/// [`HeldMemory::remove`]: the address of an allocation that was freed could come back as another's.
#[derive(Debug, Default)]
pub struct HeldMemory {
    /// By address: how many bytes, and how many of the arrays hold it.
    allocations: HashMap<usize, (usize, usize), ahash::RandomState>,
    bytes: usize,
}

impl HeldMemory {
    /// Counts rows; gives the bytes that nothing counted before holds already.
    pub fn add(&mut self, rows: &Rows) -> usize {
        let before = self.bytes;
        self.bytes += overhead_bytes(rows);
        for column in &rows.columns {
            self.add_array(&column.to_data());
        }
        self.bytes - before
    }

    /// The rows, which were added, are gone or with somebody else.
    pub fn remove(&mut self, rows: &Rows) {
        self.bytes -= overhead_bytes(rows);
        for column in &rows.columns {
            self.remove_array(&column.to_data());
        }
    }

    /// Bytes of all that is held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All rows are gone.
    pub fn clear(&mut self) {
        self.allocations.clear();
        self.bytes = 0;
    }

    fn add_array(&mut self, data: &ArrayData) {
        for buffer in buffers(data) {
            let (bytes, holders) = self.allocations.entry(address(buffer)).or_insert((buffer.capacity(), 0));
            if *holders == 0 {
                self.bytes += *bytes;
            }
            *holders += 1;
        }
        data.child_data().iter().for_each(|child| self.add_array(child));
    }

    fn remove_array(&mut self, data: &ArrayData) {
        for buffer in buffers(data) {
            if let Entry::Occupied(mut entry) = self.allocations.entry(address(buffer)) {
                let (bytes, holders) = entry.get_mut();
                *holders -= 1;
                if *holders == 0 {
                    self.bytes -= *bytes;
                    entry.remove();
                }
            }
        }
        data.child_data().iter().for_each(|child| self.remove_array(child));
    }
}

fn buffers(data: &ArrayData) -> impl Iterator<Item = &Buffer> {
    data.buffers().iter().chain(data.nulls().map(|n| n.buffer()))
}

fn address(buffer: &Buffer) -> usize {
    buffer.data_ptr().as_ptr() as usize
}

/// What rows cost beside their buffers. For a small batch it is most of it.
fn overhead_bytes(rows: &Rows) -> usize {
    /// An array's struct, and the counters and descriptors of two buffers; about what Arrow 59 allocates.
    const ARRAY_BYTES: usize = 224;
    size_of::<Rows>() + rows.columns.len() * ARRAY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use std::sync::Arc;

    #[test]
    fn what_slices_share_is_counted_once() {
        let long = "a string that is too long to lie in its view";
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..10_000).map(|_| long)));
        let rows = Rows::new(vec![numbers, texts], 10_000);
        let mut held = HeldMemory::default();
        let slices: Vec<Rows> = (0..100).map(|i| rows.slice(i * 100, 100)).collect();
        let added: usize = slices.iter().map(|s| held.add(s)).sum();
        assert_eq!(added, held.bytes());
        let once = 10_000 * (8 + 16 + long.len());
        assert!((once..2 * once).contains(&held.bytes()), "{} of {once}", held.bytes());
        // One row holds as much as all of them do.
        let mut of_one = HeldMemory::default();
        assert!(of_one.add(&rows.slice(5, 1)) >= once);
        // They hold it until the last of them is gone.
        let all = held.bytes();
        slices[1..].iter().for_each(|s| held.remove(s));
        assert!(held.bytes() >= once && held.bytes() < all);
        held.remove(&slices[0]);
        assert_eq!(held.bytes(), 0);
        held.add(&rows);
        held.clear();
        assert_eq!(held.bytes(), 0);
    }
}
