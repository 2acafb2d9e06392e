//! One row group, from its pages to the rows that go on.
//!
//! Window by window: the tests run one after the other, each on the rows that the ones before it left;
//! then the surviving rows of the output columns are appended to the batch that is being built. A batch
//! goes on when it has about as many rows as one should have.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, DictionaryArray, NullBufferBuilder, UInt32Array};
use arrow::buffer::ScalarBuffer;

use crate::batch::{BATCH_ROWS, Batch, Column as BatchColumn};
use crate::error::Result;
use crate::scan::column::{Column, Use};
use crate::scan::conjunct::{Conjunct, Steps};
use crate::scan::filter_step::{FilterStep, GroupLeft, StepScratch};
use crate::scan::group::GroupReader;
use crate::scan::mask::Mask;
use crate::scan::parquet_scan::SharedScan;
use crate::scan::selection::Selection;
use crate::task::QueryContext;
use crate::task::touched::FileCounts;

/// A batch goes on once it has so many rows; one more window does not make it too large.
const ENOUGH_ROWS: usize = BATCH_ROWS / 2;

/// Strings stay codes if the dictionary has at most one entry for so many rows.
const ROWS_PER_ENTRY: usize = 2;

/// Reads one row group.
pub struct MorselReader {
    scan: Arc<SharedScan>,
    group: GroupReader,
    steps: Vec<FilterStep>,
    /// The output's columns, each once.
    building: Vec<BuildingColumn>,
    /// Rows that `building` has.
    built: usize,
    next_row: usize,
    /// Some row has passed: the output's columns are wanted.
    survived: bool,
    /// Rows that cannot pass, by the statistics of their pages; known after the first window.
    excluded: Option<Vec<Range<usize>>>,
    selection: Selection,
    scratch: StepScratch,
    /// So far, in all.
    looked_at: FileCounts,
}

/// A column of the output.
struct BuildingColumn {
    /// Position in the scan's columns.
    number: usize,
    form: Form,
}

enum Form {
    Undecided,
    Values,
    /// Codes and the entries that they stand for.
    Codes {
        codes: Vec<u32>,
        nulls: NullBufferBuilder,
        entries: ArrayRef,
    },
}

impl MorselReader {
    /// Prepares to read row group `group` of a file of the scan; none if its statistics say that no row
    /// passes.
    pub fn open(
        scan: Arc<SharedScan>,
        file: usize,
        group: usize,
        query: Arc<QueryContext>,
    ) -> Result<Option<MorselReader>> {
        let looked_at = FileCounts { file: file as u32, rows: 0, bytes: 0 };
        let mut group = GroupReader::new(scan.clone(), file, group, query)?;
        let published = scan.steps.published();
        if group.rows() == 0 || !group.may_pass(&published) {
            return Ok(None);
        }
        let tested = scan.steps.columns(&published);
        group.prefetch(if tested.is_empty() { scan.output.clone() } else { tested })?;
        let mut numbers = scan.output.clone();
        numbers.sort_unstable();
        numbers.dedup();
        let building =
            numbers.into_iter().map(|number| BuildingColumn { number, form: Form::Undecided }).collect();
        let steps = FilterStep::all(&scan.steps, published);
        scan.steps.experience.habits.count_group();
        Ok(Some(MorselReader {
            scan,
            group,
            steps,
            building,
            built: 0,
            next_row: 0,
            survived: false,
            excluded: None,
            selection: Selection::default(),
            scratch: StepScratch::default(),
            looked_at,
        }))
    }

    /// The next rows that pass, or none at the end of the row group.
    pub fn next(&mut self, conjuncts: &[Conjunct]) -> Result<Option<Batch>> {
        while self.next_row < self.group.rows() {
            let window = self.next_row..(self.next_row + BATCH_ROWS).min(self.group.rows());
            self.next_row = window.end;
            self.selection.reset(window.len());
            self.exclude(conjuncts, window.clone())?;
            self.looked_at.rows += self.selection.count() as u64;
            if self.filter(conjuncts, window.clone())? == GroupLeft::Nothing {
                self.next_row = self.group.rows();
                break;
            }
            if self.selection.count() == 0 {
                continue;
            }
            if !self.survived {
                self.survived = true;
                let numbers: Vec<usize> = self.building.iter().map(|b| b.number).collect();
                self.group.prefetch(numbers.iter().copied())?;
                GroupReader::open_together(&mut [&mut self.group], &[numbers])?;
            }
            for column in &mut self.building {
                column.append(&mut self.group, window.clone(), &mut self.selection)?;
            }
            self.built += self.selection.count();
            if self.built >= ENOUGH_ROWS {
                break;
            }
        }
        if self.built == 0 { Ok(None) } else { self.batch().map(Some) }
    }

    /// Opens the columns that nearly every row group before these has needed.
    pub fn open_habitual(readers: &mut [&mut MorselReader]) -> Result<()> {
        let mut groups: Vec<&mut GroupReader> = readers.iter_mut().map(|r| &mut r.group).collect();
        GroupReader::open_habitual(&mut groups)
    }

    /// The file is not on this machine: what is read comes late.
    pub fn is_remote(&self) -> bool {
        self.group.is_remote()
    }

    /// About the memory that the row group's columns hold.
    pub fn held_bytes(&self) -> usize {
        self.group.held_bytes()
    }

    /// Bytes read since the last call.
    pub fn take_bytes_read(&mut self) -> u64 {
        let bytes = self.group.take_bytes_read();
        self.looked_at.bytes += bytes;
        bytes
    }

    /// The rows that were looked at so far, and the bytes that were told by [`Self::take_bytes_read`].
    pub fn looked_at(&self) -> FileCounts {
        self.looked_at
    }

    /// Takes out of the selection the rows of pages that cannot pass.
    fn exclude(&mut self, conjuncts: &[Conjunct], window: Range<usize>) -> Result<()> {
        if self.excluded.is_none() {
            let mut excluded = vec![];
            for step in &self.steps {
                excluded.extend(step.rows_without(&mut self.group, conjuncts)?);
            }
            self.excluded = Some(excluded);
        }
        let within = |r: &Range<usize>| r.start.max(window.start)..r.end.min(window.end);
        let excluded = self.excluded.iter().flatten().map(within).filter(|r| !r.is_empty());
        for rows in excluded {
            let mut mask = Mask::all(window.len());
            mask.remove_range(rows.start - window.start, rows.end - window.start);
            self.selection.keep_mask(&mask);
        }
        Ok(())
    }

    fn filter(&mut self, conjuncts: &[Conjunct], window: Range<usize>) -> Result<GroupLeft> {
        let steps: &Steps = &self.scan.steps;
        for step in &mut self.steps {
            let before = self.selection.count();
            if before == 0 {
                break;
            }
            let start = Instant::now();
            let left = step.apply(
                &mut self.group,
                conjuncts,
                window.clone(),
                &mut self.selection,
                &mut self.scratch,
            )?;
            let after = if left == GroupLeft::Nothing { 0 } else { self.selection.count() };
            steps.record(step.number).count(before, after, start.elapsed().as_nanos() as u64);
            if left == GroupLeft::Nothing {
                return Ok(left);
            }
        }
        Ok(GroupLeft::Maybe)
    }

    fn batch(&mut self) -> Result<Batch> {
        let mut arrays = Vec::with_capacity(self.building.len());
        for column in &mut self.building {
            arrays.push((column.number, column.finish(&mut self.group)?));
        }
        let columns = self.scan.output.iter().map(|number| {
            let at = arrays.binary_search_by_key(number, |(n, _)| *n).expect("invariant: each output column");
            BatchColumn::new(arrays[at].1.clone())
        });
        let batch = Batch { columns: columns.collect(), rows: self.built };
        debug_assert!(batch.columns.iter().all(|c| c.len() == batch.rows));
        self.built = 0;
        Ok(batch)
    }
}

impl BuildingColumn {
    fn append(
        &mut self,
        group: &mut GroupReader,
        window: Range<usize>,
        selection: &mut Selection,
    ) -> Result<()> {
        if let Form::Undecided = self.form {
            let rows = group.rows();
            self.form = Form::of(group.column(self.number)?, rows);
        }
        let column = group.column(self.number)?;
        match &mut self.form {
            Form::Codes { codes, nulls, entries } => {
                let start = codes.len();
                column.codes(window, selection.rows(), codes)?;
                let null = entries.len() as u32;
                let new = &mut codes[start..];
                if new.contains(&null) {
                    for code in new {
                        nulls.append(*code != null);
                        // A valid code, whatever a reader does with it.
                        *code = if *code == null { 0 } else { *code };
                    }
                } else {
                    nulls.append_n_non_nulls(new.len());
                }
                Ok(())
            }
            Form::Values | Form::Undecided => column.append(window, selection.rows(), Use::Output),
        }
    }

    fn finish(&mut self, group: &mut GroupReader) -> Result<ArrayRef> {
        match &mut self.form {
            Form::Codes { codes, nulls, entries } => {
                let keys = UInt32Array::new(ScalarBuffer::from(std::mem::take(codes)), nulls.finish());
                // SAFETY: codes were checked to be below the number of entries when they were decoded,
                // and null's were replaced.
                Ok(Arc::new(unsafe { DictionaryArray::new_unchecked(keys, entries.clone()) }))
            }
            Form::Values | Form::Undecided => group.column(self.number)?.finish(Use::Output),
        }
    }
}

impl Form {
    /// Strings stay codes where that saves something, and where no entry is there twice.
    fn of(column: &Column, rows: usize) -> Form {
        match column.dictionary() {
            Some(entries)
                if column.is_bytes()
                    && column.only_codes()
                    && !entries.is_empty()
                    && entries.len() * ROWS_PER_ENTRY <= rows
                    && are_distinct(entries) =>
            {
                Form::Codes { codes: vec![], nulls: NullBufferBuilder::new(0), entries: entries.clone() }
            }
            _ => Form::Values,
        }
    }
}

/// Writers do not repeat entries, but nothing in the format forbids it.
fn are_distinct(entries: &ArrayRef) -> bool {
    let mut seen = hashbrown::HashSet::with_capacity(entries.len());
    let mut distinct = true;
    crate::scan::key_values::for_each_hash(entries, |hash| distinct &= seen.insert(hash));
    // Equal hashes of different strings only lose the codes.
    distinct
}
