//! The rows of a window that are still in, as bits or as a list, whichever came last.

use crate::scan::column::Rows;
use crate::scan::mask::Mask;

/// A set of the rows of a window. Its memory is used again from window to window.
#[derive(Debug, Default)]
pub struct Selection {
    length: usize,
    count: usize,
    form: Form,
    mask: Mask,
    list: Vec<u32>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Form {
    #[default]
    All,
    Mask,
    List,
}

impl Selection {
    /// Becomes all rows of a window of `length`.
    pub fn reset(&mut self, length: usize) {
        self.length = length;
        self.count = length;
        self.form = Form::All;
    }

    /// Rows that are in.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows of the window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The rows that are in.
    pub fn rows(&mut self) -> Rows<'_> {
        if self.count == self.length {
            return Rows::All;
        }
        if self.form == Form::Mask {
            self.mask.indices_into(&mut self.list);
            self.form = Form::List;
        }
        Rows::At(&self.list)
    }

    /// Keeps the rows that are in `mask`, which is of the whole window.
    pub fn keep_mask(&mut self, mask: &Mask) {
        match self.form {
            Form::All => {
                self.mask.clone_from(mask);
                self.form = Form::Mask;
                self.count = self.mask.count();
            }
            Form::Mask => {
                self.mask.and(mask);
                self.count = self.mask.count();
            }
            Form::List => {
                self.list.retain(|row| mask.contains(*row as usize));
                self.count = self.list.len();
            }
        }
    }

    /// Keeps, of the rows that [`Selection::rows`] gave last, those at ascending positions.
    pub fn keep_positions(&mut self, positions: &[u32]) {
        if self.count == self.length {
            self.list.clear();
            self.list.extend_from_slice(positions);
        } else {
            debug_assert_eq!(self.form, Form::List);
            for (to, from) in positions.iter().enumerate() {
                self.list[to] = self.list[*from as usize];
            }
            self.list.truncate(positions.len());
        }
        self.form = Form::List;
        self.count = self.list.len();
    }

    /// Keeps, of the rows that [`Selection::rows`] gave last, those for whose position `keep` is true.
    pub fn keep_where(&mut self, keep: impl Fn(usize) -> bool) {
        if self.count == self.length {
            self.list.clear();
            self.list.extend(0..self.length as u32);
        }
        let mut kept = 0;
        for at in 0..self.list.len() {
            self.list[kept] = self.list[at];
            kept += keep(at) as usize;
        }
        self.list.truncate(kept);
        self.form = Form::List;
        self.count = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(selection: &mut Selection) -> Vec<u32> {
        match selection.rows() {
            Rows::All => (0..selection.length as u32).collect(),
            Rows::At(rows) => rows.to_vec(),
        }
    }

    #[test]
    fn narrows_in_every_form() {
        let mut selection = Selection::default();
        selection.reset(100);
        let mut even = Mask::none(100);
        (0..100).step_by(2).for_each(|r| even.insert(r));
        selection.keep_mask(&even);
        selection.keep_mask(&even);
        assert_eq!(selection.count(), 50);
        assert_eq!(listed(&mut selection)[..3], [0, 2, 4]);
        selection.keep_where(|at| at % 5 == 0);
        assert_eq!(listed(&mut selection)[..3], [0, 10, 20]);
        selection.keep_positions(&[1, 2, 9]);
        assert_eq!(listed(&mut selection), [10, 20, 90]);
        let mut mask = Mask::all(100);
        mask.remove_range(0, 15);
        selection.keep_mask(&mask);
        assert_eq!(listed(&mut selection), [20, 90]);
        selection.reset(3);
        selection.keep_positions(&[0, 2]);
        assert_eq!(listed(&mut selection), [0, 2]);
        selection.reset(3);
        selection.keep_where(|at| at > 0);
        assert_eq!(listed(&mut selection), [1, 2]);
    }
}
