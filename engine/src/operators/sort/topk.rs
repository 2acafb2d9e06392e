//! The sink of ORDER BY with LIMIT: keeps a task's first `fetch` rows and little else.
//!
//! Once any task has seen `fetch` rows there is a bound: a row behind it cannot be in the answer. The
//! bound is the worst kept row's keys as codes (one `u64` a key, in sort order, null included); the
//! tasks of a stage share the lowest. Each batch is first held against the bound on its first key alone,
//! in one vectorised loop over one column; only survivors have their other keys looked at, and only
//! their payload is ever gathered. Candidates are kept until there are more than twice `fetch` of them,
//! then cut back to `fetch`. If memory is short before that, they are written to disk as a sorted run of at
//! most `fetch` rows, and the task goes on without them; in the end the runs are merged.
//!
//! Codes may make different values equal (long strings), never out of order, so a row is dropped only
//! if it is certainly behind.

use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use dovetail_planner::physical::SortKey;
use parking_lot::Mutex;

use super::keys::{Codes, Key, codes, prefixes};
use super::{SORT_ROWS_MAX, SortKeys, Sorted, SortedRun, sort_row_bytes};
use crate::batch::Batch;
use crate::error::Result;
use crate::memory::{KeptBatches, Reservation};
use crate::operators::collect::gathered;
use crate::task::{Flow, Output, Sink, SinkFactory, TaskContext};

/// Candidates that are kept before they are cut back, if `fetch` is small.
const CANDIDATES_MIN: usize = 4096;

pub(super) fn sink_factory(keys: &[SortKey], schema: &SchemaRef, fetch: u64) -> Arc<dyn SinkFactory> {
    let fetch = usize::try_from(fetch).unwrap_or(usize::MAX);
    Arc::new(TopKFactory { keys: keys.to_vec(), schema: schema.clone(), fetch, shared: Arc::default() })
}

struct TopKFactory {
    keys: Vec<SortKey>,
    schema: SchemaRef,
    fetch: usize,
    /// The lowest bound of any task.
    shared: Arc<Mutex<Option<Arc<Bound>>>>,
}

/// Keys as codes: no row behind this one is in the answer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    /// One a key; the largest code where nothing can be said.
    codes: Vec<u64>,
    /// Rows whose codes are all equal to these have equal keys.
    exact: bool,
}

impl SinkFactory for TopKFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        Ok(Box::new(TopK {
            keys: SortKeys::new(&self.keys, &self.schema)?,
            fetch: self.fetch,
            candidates: KeptBatches::default(),
            sort_row_bytes: 0,
            runs: vec![],
            bound: None,
            own: false,
            shared: self.shared.clone(),
            reservation: task.query.memory.reserve("ORDER BY with LIMIT"),
            task: task.clone(),
        }))
    }
}

struct TopK {
    keys: SortKeys,
    fetch: usize,
    /// Extended batches, gathered. Equal rows are in order of arrival.
    candidates: KeptBatches,
    /// What the sort of a candidate needs beside it; the most of any batch.
    sort_row_bytes: usize,
    /// Candidates that have been spilled, own columns only.
    runs: Vec<Arc<SortedRun>>,
    bound: Option<Arc<Bound>>,
    /// The bound is this task's own: `fetch` rows at or before it are among the candidates and in the runs.
    own: bool,
    shared: Arc<Mutex<Option<Arc<Bound>>>>,
    reservation: Reservation,
    task: TaskContext,
}

impl Sink for TopK {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        if self.fetch == 0 {
            return Ok(Flow::Done);
        }
        if batch.rows == 0 {
            return Ok(Flow::Continue);
        }
        self.task.query.check_cancelled()?;
        self.read_shared_bound();
        let Some(mut extended) = self.survivors(&batch)? else { return Ok(Flow::Continue) };
        if extended.rows > self.fetch {
            let order = self.keys.order(&extended, Some(self.fetch))?;
            extended = extended.select(&Arc::new(UInt32Array::from(order)));
            self.lower_bound(&extended.slice(self.fetch - 1, 1))?;
        }
        self.sort_row_bytes = self.sort_row_bytes.max(sort_row_bytes(&extended, self.keys.keys.len()));
        self.candidates.push(&gathered(&extended)?)?;
        if self.candidates.rows() > self.fetch.saturating_mul(2).max(CANDIDATES_MIN) {
            self.cut_back()?;
        }
        if self.must_spill() {
            if self.candidates.rows() > self.fetch {
                self.cut_back()?;
            }
            if self.must_spill() {
                self.write_run()?;
            }
        }
        Ok(Flow::Continue)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        if self.must_spill() {
            self.write_run()?;
        } else if let Some(sorted) = self.sort()? {
            self.runs.extend(SortedRun::in_memory(sorted.cut_to(self.keys.width), &self.task)?);
        }
        Ok(Output { runs: self.runs, ..Output::default() })
    }
}

impl TopK {
    /// The rows of a batch that the bound lets through, extended, not gathered.
    fn survivors(&self, batch: &Batch) -> Result<Option<Batch>> {
        let Some(bound) = &self.bound else { return self.keys.extend(batch).map(Some) };
        let first = self.code_column(batch, 0)?;
        let limit = bound.codes[0];
        let mut passed: Vec<u32> = Vec::new();
        select(&first, |code| code <= limit, &mut passed);
        if passed.is_empty() {
            return Ok(None);
        }
        let ties = passed.iter().any(|&row| first[row as usize] == limit);
        let some = if passed.len() == batch.rows {
            batch.clone()
        } else {
            batch.select(&Arc::new(UInt32Array::from(passed.clone())))
        };
        if ties {
            let rest = (1..self.keys.keys.len())
                .map(|key| self.code_column(&some, key))
                .collect::<Result<Vec<_>>>()?;
            // An equal row that comes later than `fetch` rows of this very task cannot be in the answer.
            let equal_passes = !(self.own && bound.exact);
            let stays = |i: usize| {
                let codes = std::iter::once(first[passed[i] as usize]).chain(rest.iter().map(|c| c[i]));
                let order = codes.cmp(bound.codes.iter().copied());
                order.is_lt() || order.is_eq() && equal_passes
            };
            let kept: Vec<u32> = (0..some.rows).filter(|&i| stays(i)).map(|i| i as u32).collect();
            if kept.is_empty() {
                return Ok(None);
            }
            if kept.len() < some.rows {
                return self.keys.extend(&some.select(&Arc::new(UInt32Array::from(kept)))).map(Some);
            }
        }
        self.keys.extend(&some).map(Some)
    }

    fn code_column(&self, batch: &Batch, key: usize) -> Result<Vec<u64>> {
        let key = &self.keys.keys[key];
        let values = key.expr.evaluate(batch)?.values()?;
        // A dictionary is small: its values are coded, the rows only look them up.
        if let DataType::Dictionary(k, _) = values.data_type()
            && **k == DataType::UInt32
            && values.null_count() == 0
        {
            let dictionary = values.as_dictionary::<UInt32Type>();
            if dictionary.values().len() < values.len() {
                let coded = code_values(&Key::new(dictionary.values(), key.descending, key.nulls_first)?);
                return Ok(dictionary.keys().values().iter().map(|&k| coded[k as usize]).collect());
            }
        }
        Ok(code_values(&Key::new(&values, key.descending, key.nulls_first)?))
    }

    /// Lowers the bound to the last, an extended row, of `fetch` candidates.
    fn lower_bound(&mut self, last: &Batch) -> Result<()> {
        let keys = self.keys.of(last)?;
        let mut bound = Bound { codes: vec![u64::MAX; keys.len()], exact: true };
        for (code, key) in bound.codes.iter_mut().zip(&keys) {
            *code = code_values(key)[0];
            if !is_exact(key, *code) {
                bound.exact = false;
                break;
            }
        }
        if self.bound.as_ref().is_none_or(|b| bound.codes <= b.codes) {
            let bound = Arc::new(bound);
            let mut shared = self.shared.lock();
            if shared.as_ref().is_none_or(|s| bound.codes < s.codes) {
                *shared = Some(bound.clone());
            }
            drop(shared);
            self.bound = Some(bound);
            self.own = true;
        }
        Ok(())
    }

    fn read_shared_bound(&mut self) {
        if let Some(shared) = &*self.shared.lock()
            && self.bound.as_ref().is_none_or(|b| shared.codes < b.codes)
        {
            self.bound = Some(shared.clone());
            self.own = false;
        }
    }

    fn must_spill(&mut self) -> bool {
        let rows = self.candidates.rows();
        // Of those that stay there is a copy when they are cut back.
        let copy = self.candidates.bytes() / rows.max(1) * rows.min(self.fetch);
        let bytes = self.candidates.bytes() + copy + rows * self.sort_row_bytes;
        self.reservation.resize(bytes) || rows >= SORT_ROWS_MAX
    }

    /// The first `fetch` candidates, sorted, taken out.
    fn sort(&mut self) -> Result<Option<Sorted>> {
        let candidates = self.candidates.take();
        if candidates.is_empty() {
            return Ok(None);
        }
        let sorted = self.keys.sort(candidates, Some(self.fetch))?;
        if sorted.rows == self.fetch {
            self.lower_bound(&sorted.batch(sorted.rows - 1, 1)?)?;
        }
        Ok(Some(sorted))
    }

    /// Keeps the first `fetch` candidates.
    fn cut_back(&mut self) -> Result<()> {
        if let Some(sorted) = self.sort()? {
            self.candidates.push(&sorted.batch(0, sorted.rows)?)?;
        }
        Ok(())
    }

    /// Writes the first `fetch` candidates to disk.
    fn write_run(&mut self) -> Result<()> {
        if let Some(sorted) = self.sort()? {
            self.runs.extend(SortedRun::on_disk(&sorted.cut_to(self.keys.width), &self.task)?);
        }
        self.reservation.shrink(0);
        Ok(())
    }
}

/// Positions of the codes that pass.
fn select(codes: &[u64], passes: impl Fn(u64) -> bool, rows: &mut Vec<u32>) {
    // Usually almost nothing passes: first look at 64 rows as one, which the compiler vectorises.
    for (block, codes) in codes.chunks(64).enumerate() {
        if codes.iter().fold(false, |any, &code| any | passes(code)) {
            let start = 64 * block as u32;
            rows.extend((start..).zip(codes).filter(|&(_, &code)| passes(code)).map(|(row, _)| row));
        }
    }
}

/// A key's values as codes in sort order: nulls are 0 or the largest.
fn code_values(key: &Key) -> Vec<u64> {
    let mut values = match codes(&key.array) {
        Codes::Narrow(codes) => codes,
        // The upper half would do for order; the values clamped to 64 bits are exact for most.
        Codes::Wide(codes) => codes.into_iter().map(clamped).collect(),
        Codes::Bytes => prefixes(&key.array, 0, 8),
        Codes::None => return vec![u64::MAX / 2; key.array.len()], // nothing can be said, also not of nulls
    };
    if key.descending {
        values.iter_mut().for_each(|v| *v = !*v);
    }
    if let Some(nulls) = key.nulls() {
        let null = if key.nulls_first { 0 } else { u64::MAX };
        (0..values.len()).filter(|&row| nulls.is_null(row)).for_each(|row| values[row] = null);
    }
    values
}

/// A 128-bit code (an i128 with its sign bit turned) as a 64-bit code of the same kind.
fn clamped(code: u128) -> u64 {
    let value = (code ^ (1 << 127)) as i128;
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64 as u64 ^ (1 << 63)
}

/// No other key has this code. The outermost codes are shared with nulls and with values clamped.
fn is_exact(key: &Key, code: u64) -> bool {
    let injective = !matches!(codes(&key.array.slice(0, 0)), Codes::Bytes | Codes::None);
    injective && code != 0 && code != u64::MAX
}
