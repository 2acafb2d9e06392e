//! Where partitions and groups of peers start in the sorted rows.
//!
//! Peers are rows of one partition that are equal in ORDER BY; without ORDER BY all rows of a partition
//! are peers.

use arrow::array::ArrayRef;
use arrow::compute::partition;
use arrow::datatypes::DataType;

use crate::error::Result;

/// Boundaries in the sorted rows.
pub(super) struct Layout {
    pub rows: usize,
    /// First row of every partition, and `rows` at the end.
    pub partitions: Vec<u32>,
    /// First row of every group of peers, and `rows` at the end.
    pub peers: Vec<u32>,
}

impl Layout {
    /// The layout of sorted rows by their partition keys and by all keys.
    pub fn new(rows: usize, partition_keys: &[ArrayRef], keys: &[ArrayRef]) -> Result<Self> {
        let partitions = starts(rows, partition_keys)?;
        let peers = if keys.len() == partition_keys.len() { partitions.clone() } else { starts(rows, keys)? };
        Ok(Layout { rows, partitions, peers })
    }

    /// `(first row, row behind the last)` of every partition.
    pub fn partition_ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.partitions.windows(2).map(|w| (w[0], w[1]))
    }

    /// `(first row, row behind the last)` of every group of peers.
    pub fn peer_ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.peers.windows(2).map(|w| (w[0], w[1]))
    }

    /// For every partition, its first group of peers, and the number of groups at the end.
    pub fn groups_of_partitions(&self) -> Vec<usize> {
        let mut groups = Vec::with_capacity(self.partitions.len());
        let mut group = 0;
        for &start in &self.partitions {
            while self.peers[group] < start {
                group += 1;
            }
            groups.push(group);
        }
        groups
    }
}

/// Rows at which one of the arrays has another value than in the row before, row 0, and `rows`.
fn starts(rows: usize, keys: &[ArrayRef]) -> Result<Vec<u32>> {
    // An untyped null is the same in every row.
    let keys: Vec<ArrayRef> = keys.iter().filter(|k| *k.data_type() != DataType::Null).cloned().collect();
    if keys.is_empty() {
        return Ok(vec![0, rows as u32]);
    }
    let ranges = partition(&keys)?.ranges();
    Ok(ranges.iter().map(|r| r.start as u32).chain([rows as u32]).collect())
}

/// For every row the number of its range, from the ranges' starts with the end behind.
pub(super) fn range_of_row(starts: &[u32]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(*starts.last().unwrap_or(&0) as usize);
    for (number, range) in starts.windows(2).enumerate() {
        numbers.resize(range[1] as usize, number as u32);
    }
    numbers
}
