//! How much memory waiting rows hold.
//!
//! An array holds whole allocations, however few of their bytes it refers to, and the slices of one batch
//! share them. [`HeldMemory`] counts every allocation once, at its full capacity, for as long as its rows
//! wait.

use std::collections::HashSet;
use std::mem::size_of;

use arrow::array::{Array, ArrayData};

use crate::rows::Rows;

/// The allocations that some rows hold. All rows that were counted must be kept until [`HeldMemory::clear`]:
/// the address of an allocation that was freed could come back as another's.
#[derive(Debug, Default)]
pub(crate) struct HeldMemory {
    allocations: HashSet<usize, ahash::RandomState>,
    bytes: usize,
}

impl HeldMemory {
    /// Counts rows; gives the bytes that nothing counted before holds already.
    pub(crate) fn add(&mut self, rows: &Rows) -> usize {
        let buffers: usize = rows.columns.iter().map(|c| self.add_array(&c.to_data())).sum();
        self.add_bytes(buffers + overhead_bytes(rows))
    }

    /// Counts rows that share no allocation with any others.
    pub(crate) fn add_unshared(&mut self, rows: &Rows) -> usize {
        let buffers: usize = rows.columns.iter().map(|c| c.get_buffer_memory_size()).sum();
        self.add_bytes(buffers + overhead_bytes(rows))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows are gone.
    pub(crate) fn clear(&mut self) {
        self.allocations.clear();
        self.bytes = 0;
    }

    fn add_bytes(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        bytes
    }

    fn add_array(&mut self, data: &ArrayData) -> usize {
        let nulls = data.nulls().map(|n| n.buffer());
        let mut bytes = 0;
        for buffer in data.buffers().iter().chain(nulls) {
            if self.allocations.insert(buffer.data_ptr().as_ptr() as usize) {
                bytes += buffer.capacity();
            }
        }
        bytes + data.child_data().iter().map(|child| self.add_array(child)).sum::<usize>()
    }
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
        let rows = Rows::new(vec![numbers.clone(), texts], 10_000);
        let mut held = HeldMemory::default();
        let slices: Vec<Rows> = (0..100).map(|i| rows.slice(i * 100, 100)).collect();
        let added: usize = slices.iter().map(|s| held.add(s)).sum();
        assert_eq!(added, held.bytes());
        let once = 10_000 * (8 + 16 + long.len());
        assert!((once..2 * once).contains(&held.bytes()), "{} of {once}", held.bytes());
        // One row holds as much as all of them do.
        let mut of_one = HeldMemory::default();
        assert!(of_one.add(&rows.slice(5, 1)) >= once);
        held.clear();
        assert_eq!(held.bytes(), 0);
        let numbers = Rows::new(vec![numbers], 10_000);
        assert_eq!(held.add_unshared(&numbers), of_one_column(&numbers));
    }

    fn of_one_column(rows: &Rows) -> usize {
        HeldMemory::default().add(rows)
    }
}
