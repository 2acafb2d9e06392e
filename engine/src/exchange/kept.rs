//! Rows that are kept in order: a query's result, a plan that several stages read.
//!
//! What always holds: rows come back in the order in which they were written, files first, then what is in
//! memory; what is in memory may move to one more file at any time, so a reader remembers how many rows of
//! it it has had. Rows read are compared with rows written.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use dovetail_shuffle::segment::SegmentReader;
use dovetail_shuffle::spill_file::{SpillFile, SpillFileWriter};
use parking_lot::Mutex;

use super::held::{HeldOutput, RowsReader};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Charge, Parked, Reservation, Spillable};
use crate::task::{Source, SourceFactory, TaskContext};

/// What errors and files call it.
const NAME: &str = "rows that are kept";

/// Collects a task's rows. Used by one thread.
pub struct KeptWriter {
    memory: VecDeque<Rows>,
    held: HeldMemory,
    file: Option<SpillFileWriter>,
    rows: u64,
    reservation: Reservation,
    task: TaskContext,
}

/// One task's rows.
pub struct KeptRows {
    rows: u64,
    place: Mutex<Place>,
    /// Changed with `place` locked.
    charge: Charge,
    parked: OnceLock<Parked>,
    task: TaskContext,
}

struct Place {
    files: Vec<SpillFile>,
    memory: VecDeque<Rows>,
    held: HeldMemory,
}

impl KeptWriter {
    pub fn new(task: &TaskContext) -> Self {
        KeptWriter {
            memory: VecDeque::new(),
            held: HeldMemory::default(),
            file: None,
            rows: 0,
            reservation: task.query.memory.reserve(NAME),
            task: task.clone(),
        }
    }

    /// Adds a batch at the end.
    pub fn push(&mut self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 {
            return Ok(());
        }
        let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<_>>()?;
        let rows = Rows::new(columns, batch.rows);
        self.rows += batch.rows as u64;
        self.held.add(&rows);
        self.memory.push_back(rows);
        if self.reservation.resize(self.held.bytes()) {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(SpillFileWriter::create(&self.task.query.spill.store()?, NAME)?),
            };
            for rows in self.memory.drain(..) {
                self.held.remove(&rows);
                file.write(rows)?;
            }
            self.reservation.shrink(0);
        }
        Ok(())
    }

    /// The rows, waiting to be read.
    pub fn finish(mut self) -> Result<Arc<KeptRows>> {
        let files: Vec<SpillFile> = self.file.map(SpillFileWriter::finish).transpose()?.into_iter().collect();
        files.iter().for_each(|f| self.task.note_spilled(f.spilled().bytes));
        self.reservation.shrink(0);
        let charge = Charge::new(&self.task.query.memory);
        charge.set(self.held.bytes());
        let is_empty = self.memory.is_empty();
        let kept = Arc::new(KeptRows {
            rows: self.rows,
            place: Mutex::new(Place { files, memory: self.memory, held: self.held }),
            charge,
            parked: OnceLock::new(),
            task: self.task,
        });
        if !is_empty {
            let holder: Arc<dyn Spillable> = kept.clone();
            // Set once, here: nobody else has the rows yet.
            let _ = kept.parked.set(kept.task.query.memory.park(&holder)?);
        }
        Ok(kept)
    }
}

impl KeptRows {
    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About the bytes of the rows; on disk, as they are there.
    pub fn bytes(&self) -> u64 {
        let place = self.place.lock();
        place.held.bytes() as u64 + place.files.iter().map(|f| f.spilled().bytes).sum::<u64>()
    }

    /// The rows in order, which stay where they are.
    pub fn share(self: &Arc<Self>) -> RowsReader {
        let rows_of = |batch: Batch| {
            let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<_>>()?;
            Ok(Rows::new(columns, batch.rows))
        };
        Box::new(KeptReader::sharing(vec![self.clone()]).map(move |batch| batch.and_then(rows_of)))
    }
}

impl Spillable for KeptRows {
    fn memory_bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn spill(&self) -> Result<u64> {
        let mut place = self.place.lock();
        if place.memory.is_empty() {
            return Ok(0);
        }
        let mut file = SpillFileWriter::create(&self.task.query.spill.store()?, NAME)?;
        place.memory.iter().try_for_each(|rows| file.write(rows.clone()))?;
        let file = file.finish()?;
        let bytes = file.spilled().bytes;
        place.files.push(file);
        place.memory.clear();
        place.held.clear();
        self.charge.set(0);
        self.task.note_spilled(bytes);
        Ok(bytes)
    }
}

/// One task's rows, or what may be read again, from elsewhere perhaps.
#[derive(Clone)]
pub enum KeptInput {
    Own(Arc<KeptRows>),
    Held(Arc<dyn HeldOutput>),
}

impl From<Arc<KeptRows>> for KeptInput {
    fn from(rows: Arc<KeptRows>) -> Self {
        KeptInput::Own(rows)
    }
}

/// Reads the rows of several tasks, one task after the other.
#[derive(Default)]
pub struct KeptReader {
    outputs: VecDeque<KeptInput>,
    /// The first output, if it may be read again, being read.
    held: Option<RowsReader>,
    /// Nobody else reads them: what is read is let go of.
    takes: bool,
    /// Of the first output: files begun, batches and rows had from memory, rows had in all.
    files: usize,
    file: Option<SegmentReader>,
    skip: usize,
    batches: usize,
    rows_of_memory: usize,
    rows: u64,
}

impl KeptReader {
    /// The only reader of the rows.
    pub fn taking(outputs: Vec<impl Into<KeptInput>>) -> Self {
        let outputs = outputs.into_iter().map(Into::into).collect();
        KeptReader { outputs, takes: true, ..KeptReader::default() }
    }

    /// One of several readers.
    pub fn sharing(outputs: Vec<impl Into<KeptInput>>) -> Self {
        KeptReader { takes: false, ..KeptReader::taking(outputs) }
    }

    /// Has rows be read behind all others.
    pub fn add(&mut self, output: impl Into<KeptInput>) {
        self.outputs.push_back(output.into());
    }

    fn read(&mut self) -> Result<Option<Rows>> {
        while let Some(output) = self.outputs.front().cloned() {
            let output = match output {
                KeptInput::Own(output) => output,
                KeptInput::Held(held) => {
                    let reader = match &mut self.held {
                        Some(reader) => reader,
                        none => none.insert(held.read(0..1)?),
                    };
                    if let Some(rows) = reader.next().transpose()? {
                        return Ok(Some(rows));
                    }
                    (self.held, self.rows) = (None, 0);
                    self.outputs.pop_front();
                    continue;
                }
            };
            if let Some(file) = &mut self.file {
                if let Some(rows) = file.next().transpose()? {
                    let skipped = self.skip.min(rows.rows);
                    self.skip -= skipped;
                    if skipped < rows.rows {
                        return Ok(Some(rows.slice(skipped, rows.rows - skipped)));
                    }
                    continue;
                }
                self.file = None;
            }
            let mut place = output.place.lock();
            if let Some(file) = place.files.get(self.files) {
                // Behind what was had from memory there is only the file that memory has become.
                self.skip = if self.takes { 0 } else { self.rows_of_memory };
                self.file = Some(file.read());
                self.files += 1;
            } else if self.takes
                && let Some(rows) = place.memory.pop_front()
            {
                place.held.remove(&rows);
                output.charge.set(place.held.bytes());
                return Ok(Some(rows));
            } else if !self.takes
                && let Some(rows) = place.memory.get(self.batches)
            {
                self.batches += 1;
                self.rows_of_memory += rows.rows;
                return Ok(Some(rows.clone()));
            } else {
                if self.rows != output.rows {
                    return Err(EngineError::internal(format!(
                        "{} rows were kept and {} were read",
                        output.rows, self.rows
                    )));
                }
                (self.files, self.batches, self.rows_of_memory, self.rows) = (0, 0, 0, 0);
                drop(place);
                self.outputs.pop_front();
            }
        }
        Ok(None)
    }
}

impl Iterator for KeptReader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let next = self.read().transpose()?;
        match &next {
            Ok(rows) => self.rows += rows.rows as u64,
            Err(_) => self.outputs.clear(),
        }
        Some(next.map(|rows| Batch::from_arrays(rows.columns, rows.rows)))
    }
}

/// Kept rows as a source whose tasks draw batches from one reader.
pub struct SharedRows(Arc<Mutex<KeptReader>>);

impl SharedRows {
    pub fn new(outputs: Vec<impl Into<KeptInput>>) -> Self {
        SharedRows(Arc::new(Mutex::new(KeptReader::sharing(outputs))))
    }
}

impl SourceFactory for SharedRows {
    fn open(&self, _: &TaskContext) -> Result<Box<dyn Source>> {
        Ok(Box::new(SharedRows(self.0.clone())))
    }
}

impl Source for SharedRows {
    fn next(&mut self) -> Result<Option<Batch>> {
        self.0.lock().next().transpose()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::memory::{Governor, SpillPolicy, SpillSpace};
    use crate::task::QueryContext;

    fn task(limit: u64) -> TaskContext {
        let governor = Governor::new(limit, SpillPolicy::AtLimit);
        let query = QueryContext::bounded(0, governor, SpillSpace::default().query());
        TaskContext::new(0, 1, Arc::new(query))
    }

    /// `0..rows` in batches of 1000.
    fn kept(rows: i64, task: &TaskContext) -> Arc<KeptRows> {
        let mut writer = KeptWriter::new(task);
        for start in (0..rows).step_by(1000) {
            let end = rows.min(start + 1000);
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(start..end));
            writer.push(&Batch::from_arrays(vec![values], (end - start) as usize)).unwrap();
        }
        writer.finish().unwrap()
    }

    fn values(batch: Result<Batch>) -> Vec<i64> {
        let batch = batch.unwrap();
        batch.columns[0].values().unwrap().as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_come_in_order_however_often_they_move() {
        for limit in [10_000, 100_000, u64::MAX] {
            for spill_after in [0, 1, 7, 1000] {
                for takes in [false, true] {
                    let task = task(limit);
                    let outputs = vec![kept(12_345, &task), kept(0, &task), kept(777, &task)];
                    let reader = if takes { KeptReader::taking } else { KeptReader::sharing };
                    let mut found = vec![];
                    for (n, batch) in reader(outputs.clone()).enumerate() {
                        found.extend(values(batch));
                        if n == spill_after {
                            outputs.iter().for_each(|o| {
                                o.spill().unwrap();
                            });
                        }
                    }
                    assert!(found.into_iter().eq((0..12_345).chain(0..777)), "{limit} {spill_after}");
                    if !takes {
                        let again = reader(outputs.clone()).flat_map(values);
                        assert!(again.eq((0..12_345).chain(0..777)));
                    }
                    drop(outputs);
                    assert_eq!(task.query.memory.used_bytes(), 0);
                }
            }
        }
    }

    #[test]
    fn what_is_taken_is_let_go_of() {
        let task = task(u64::MAX);
        let mut reader = KeptReader::taking(vec![kept(100_000, &task)]);
        let before = task.query.memory.used_bytes();
        reader.by_ref().take(50).for_each(drop);
        assert!(task.query.memory.used_bytes() < before * 6 / 10);
    }
}
