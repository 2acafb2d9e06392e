//! Which groups have had a value: the rest are null.
//!
//! As long as every row had a value, a group's existence says so and nothing is marked.

use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::Rows;

/// Marks by group.
#[derive(Default)]
pub(super) struct Seen {
    /// Without `marks`: the groups below this have had a value, the others not.
    covered: usize,
    marks: Option<Vec<bool>>,
}

impl Seen {
    /// All of the rows have values.
    pub(super) fn all(&mut self, rows: &Rows) {
        if rows.rows == 0 {
            return;
        }
        if rows.complete && self.marks.is_none() {
            self.covered = rows.groups;
            return;
        }
        let marks = self.marks(rows.groups);
        match rows.ids {
            None => marks[0] = true,
            Some(ids) => ids.iter().for_each(|id| marks[*id as usize] = true),
        }
    }

    /// The marks of all groups, to be set where rows have values.
    pub(super) fn marks(&mut self, groups: usize) -> &mut [bool] {
        let covered = self.covered;
        let marks = self.marks.get_or_insert_with(|| vec![true; covered]);
        if marks.len() < groups {
            marks.resize(groups, false);
        }
        marks
    }

    /// Nulls for the groups without a value, if there are such groups; nothing is left.
    pub(super) fn take(&mut self, groups: usize) -> Option<NullBuffer> {
        let covered = std::mem::take(&mut self.covered);
        let valid = |i: usize| match &self.marks {
            None => i < covered,
            Some(marks) => marks.get(i).copied().unwrap_or(false),
        };
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(groups, valid));
        self.marks = None;
        (nulls.null_count() > 0).then_some(nulls)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.marks.as_ref().map_or(0, Vec::capacity)
    }
}
