//! One test of a scan at work on one row group.
//!
//! A test of one column whose pages all hold dictionary codes is done once for each entry of the
//! dictionary; rows are then tested by looking up their codes. Otherwise the values of the rows that are
//! still in are decoded and tested.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Batch, Column as BatchColumn};
use crate::error::Result;
use crate::scan::column::Rows;
use crate::scan::conjunct::{Conjunct, Steps};
use crate::scan::group::GroupReader;
use crate::scan::mask::Mask;
use crate::scan::runtime_filter::RuntimeFilter;
use crate::scan::selection::Selection;

/// With at least one row of so many still in, all codes of a window are unpacked.
const DENSE: usize = 4;

/// A dictionary of so many entries is always tested as a whole.
const SMALL_DICTIONARY: usize = 1000;

/// A test, and how it is done in this row group.
pub struct FilterStep {
    /// In [`Steps::record`].
    pub number: usize,
    test: Test,
    mode: Mode,
}

enum Test {
    /// Place in the conjuncts.
    Conjunct(usize),
    Runtime {
        column: usize,
        filter: Arc<RuntimeFilter>,
    },
}

enum Mode {
    Undecided,
    /// For each code, the null's at the end: 1 if it passes.
    Codes(Vec<u8>),
    Values,
    /// Every row of the row group passes.
    AllPass,
}

/// Whether the row group can have more rows that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupLeft {
    Maybe,
    Nothing,
}

/// Buffers of a task, used again and again.
#[derive(Default)]
pub struct StepScratch {
    codes: Vec<u32>,
    mask: Mask,
}

impl FilterStep {
    /// All tests of a scan, in the order of what is known of their price. Tests that can fail come last,
    /// in the order of the text, so that all that may guard them has run.
    pub fn all(steps: &Steps, published: Vec<(usize, Arc<RuntimeFilter>)>) -> Vec<FilterStep> {
        let step = |number, test| FilterStep { number, test, mode: Mode::Undecided };
        let mut all: Vec<FilterStep> = vec![];
        for (i, conjunct) in steps.conjuncts.iter().enumerate() {
            if !conjunct.can_fail {
                all.push(step(i, Test::Conjunct(i)));
            }
        }
        for (i, filter) in published {
            let column = steps.runtime[i].column;
            all.push(step(steps.conjuncts.len() + i, Test::Runtime { column, filter }));
        }
        // What has never run comes where the text has it, behind single columns.
        let price = |s: &FilterStep| match (steps.record(s.number).price(), &s.test) {
            (Some(price), _) => price,
            (None, Test::Conjunct(i)) if steps.conjuncts[*i].columns.len() > 1 => f64::MAX,
            (None, _) => 1e12,
        };
        all.sort_by(|a, b| price(a).total_cmp(&price(b)));
        for (i, conjunct) in steps.conjuncts.iter().enumerate() {
            if conjunct.can_fail {
                all.push(step(i, Test::Conjunct(i)));
            }
        }
        all
    }

    /// Rows of the row group that cannot pass, by the statistics of their pages; in order.
    pub fn rows_without(&self, group: &mut GroupReader, conjuncts: &[Conjunct]) -> Result<Vec<Range<usize>>> {
        match &self.test {
            Test::Conjunct(i) if conjuncts[*i].by_value && conjuncts[*i].prunable => {
                group.rows_without(&conjuncts[*i].expr, conjuncts[*i].columns[0])
            }
            _ => Ok(vec![]),
        }
    }

    /// Takes out of the selection the rows of a window that do not pass.
    pub fn apply(
        &mut self,
        group: &mut GroupReader,
        conjuncts: &[Conjunct],
        window: Range<usize>,
        selection: &mut Selection,
        scratch: &mut StepScratch,
    ) -> Result<GroupLeft> {
        if let Mode::Undecided = self.mode {
            self.mode = self.decide(group, conjuncts, selection)?;
            if let Mode::Codes(passes) = &self.mode
                && !passes.contains(&1)
            {
                return Ok(GroupLeft::Nothing);
            }
        }
        match &self.mode {
            Mode::AllPass | Mode::Undecided => {}
            Mode::Codes(passes) => {
                let column = group.column(self.single_column(conjuncts))?;
                scratch.codes.clear();
                if selection.count() * DENSE >= selection.length() {
                    column.codes(window, Rows::All, &mut scratch.codes)?;
                    test_codes(&scratch.codes, passes, &mut scratch.mask);
                    selection.keep_mask(&scratch.mask);
                } else {
                    column.codes(window, selection.rows(), &mut scratch.codes)?;
                    let codes = &scratch.codes;
                    selection.keep_where(|at| passes[codes[at] as usize] == 1);
                }
            }
            Mode::Values => self.test_values(group, conjuncts, window, selection)?,
        }
        Ok(GroupLeft::Maybe)
    }

    fn test_values(
        &self,
        group: &mut GroupReader,
        conjuncts: &[Conjunct],
        window: Range<usize>,
        selection: &mut Selection,
    ) -> Result<()> {
        match &self.test {
            Test::Runtime { column, filter } => {
                let keys = group.column(*column)?.values(window, selection.rows())?;
                if let Some(mask) = filter.test(&keys) {
                    selection.keep_where(|at| mask.contains(at));
                }
            }
            Test::Conjunct(i) => {
                let mut columns = Vec::with_capacity(conjuncts[*i].columns.len());
                for column in &conjuncts[*i].columns {
                    let values = group.column(*column)?.values(window.clone(), selection.rows())?;
                    columns.push(BatchColumn::new(values));
                }
                let rows = selection.count();
                if let Some(kept) = conjuncts[*i].select(&Batch { columns, rows })? {
                    // The positions are those of the list that `rows` gives.
                    selection.rows();
                    selection.keep_positions(kept.values());
                }
            }
        }
        Ok(())
    }

    /// How to test the rest of the row group, of which about as many rows are left as of this window.
    fn decide(&self, group: &mut GroupReader, conjuncts: &[Conjunct], selection: &Selection) -> Result<Mode> {
        if let Test::Conjunct(i) = self.test
            && !conjuncts[i].by_value
        {
            return Ok(Mode::Values);
        }
        let left = group.rows() as f64 * selection.count() as f64 / selection.length().max(1) as f64;
        let number = self.single_column(conjuncts);
        let no_nulls = group.known(number).nulls == Some(0);
        let column = group.column(number)?;
        let Some(dictionary) = column.dictionary().filter(|_| column.only_codes()) else {
            return Ok(Mode::Values);
        };
        let entries = dictionary.len();
        if entries > SMALL_DICTIONARY && entries as f64 > left {
            return Ok(Mode::Values);
        }
        let mut passes = vec![0; entries + 1];
        match &self.test {
            Test::Runtime { filter, .. } => {
                let Some(mask) = filter.test(dictionary) else {
                    return Ok(Mode::AllPass);
                };
                passes[..entries].iter_mut().enumerate().for_each(|(i, p)| *p = mask.contains(i) as u8);
            }
            Test::Conjunct(i) => {
                let Some(null) = conjuncts[*i].null_passes(dictionary.data_type()) else {
                    return Ok(Mode::Values);
                };
                let batch = Batch { columns: vec![BatchColumn::new(dictionary.clone())], rows: entries };
                match conjuncts[*i].select(&batch) {
                    // An entry fails, perhaps one of rows that others have dropped.
                    Err(_) => return Ok(Mode::Values),
                    Ok(None) => passes[..entries].fill(1),
                    Ok(Some(kept)) => kept.values().iter().for_each(|k| passes[*k as usize] = 1),
                }
                passes[entries] = null as u8;
            }
        }
        let all = passes[..entries].iter().all(|p| *p == 1) && (passes[entries] == 1 || no_nulls);
        if no_nulls {
            passes[entries] = 0;
        }
        Ok(if all { Mode::AllPass } else { Mode::Codes(passes) })
    }

    /// The column of a test that has one.
    fn single_column(&self, conjuncts: &[Conjunct]) -> usize {
        match &self.test {
            Test::Runtime { column, .. } => *column,
            Test::Conjunct(i) => conjuncts[*i].columns[0],
        }
    }
}

/// Looks up each code; `passes` has a place for every one.
fn test_codes(codes: &[u32], passes: &[u8], mask: &mut Mask) {
    mask.reset_none(codes.len());
    debug_assert!(codes.iter().all(|c| (*c as usize) < passes.len()));
    for (word, chunk) in mask.words_mut().iter_mut().zip(codes.chunks(64)) {
        let mut bits = 0u64;
        for (i, code) in chunk.iter().enumerate() {
            // SAFETY: codes were checked to be at most the number of entries when they were decoded, and
            // `passes` has one place more than entries.
            bits |= (unsafe { *passes.get_unchecked(*code as usize) } as u64) << i;
        }
        *word = bits;
    }
}
