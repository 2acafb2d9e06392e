//! One sorted run: rows in the order of the keys, in memory or on disk.
//!
//! A run in memory is parked with the governor: whoever needs room spills what has not been read of it. Made
//! by the sinks of a sort and by the passes of its merge, read once, batch by batch.
//!
//! What always holds: the rows come back in the order in which they were written, and are counted at the end;
//! the memory and the file of a run go with its last handle.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;
use dovetail_shuffle::segment::SegmentReader;
use dovetail_shuffle::spill_file::{SpillFile, SpillFileWriter};
use parking_lot::Mutex;

use super::Sorted;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::{EngineError, Result};
use crate::exchange::RowsReader;
use crate::memory::{Charge, Governor, Parked, Spillable};
use crate::task::TaskContext;

/// The name of spill files.
const NAME: &str = "sort";
/// A block is this part of the memory limit, so that a merge of some dozen runs holds little of it.
const BLOCK_SHARE: usize = 512;
const BLOCK_BYTES_MIN: usize = 16 << 10;
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// Bytes of a run's block on disk, before compression.
pub(super) fn block_bytes(memory: &Governor) -> usize {
    (memory.limit_bytes() / BLOCK_SHARE).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
}

/// Rows of a batch of a run in memory, and of a merge: as many as usual, or fewer where blocks are smaller.
pub(super) fn batch_rows(memory: &Governor) -> usize {
    BATCH_ROWS * block_bytes(memory) / BLOCK_BYTES_MAX
}

/// Rows in order. Shared by its reader and the governor.
pub struct SortedRun {
    rows: u64,
    types: Vec<DataType>,
    place: Mutex<Place>,
    /// Changed with `place` locked.
    charge: Charge,
    parked: OnceLock<Parked>,
    task: TaskContext,
}

enum Place {
    Memory { batches: VecDeque<Rows>, held: HeldMemory },
    Disk(SpillFile),
}

impl SortedRun {
    /// The rows as a run in memory; none if there are none.
    pub(super) fn in_memory(sorted: Sorted, task: &TaskContext) -> Result<Option<Arc<Self>>> {
        let batches: Vec<Batch> = sorted.batches(batch_rows(&task.query.memory)).collect::<Result<_>>()?;
        drop(sorted);
        let mut held = HeldMemory::default();
        let batches: VecDeque<Rows> = batches.iter().map(rows_of).collect::<Result<_>>()?;
        batches.iter().for_each(|rows| {
            held.add(rows);
        });
        Self::waiting(batches, held, task)
    }

    /// A run in memory, parked with the governor; none without rows.
    fn waiting(batches: VecDeque<Rows>, held: HeldMemory, task: &TaskContext) -> Result<Option<Arc<Self>>> {
        let Some(first) = batches.front() else { return Ok(None) };
        let types = first.columns.iter().map(|c| c.data_type().clone()).collect();
        let rows = batches.iter().map(|b| b.rows as u64).sum();
        let charge = Charge::new(&task.query.memory);
        charge.set(held.bytes());
        let place = Mutex::new(Place::Memory { batches, held });
        let run = SortedRun { rows, types, place, charge, parked: OnceLock::new(), task: task.clone() };
        let run = Arc::new(run);
        let holder: Arc<dyn Spillable> = run.clone();
        // Set once, here: nobody else has the run yet.
        let _ = run.parked.set(task.query.memory.park(&holder)?);
        Ok(Some(run))
    }

    /// The rows as a run on disk, gathered piece by piece; none if there are none.
    pub(super) fn on_disk(sorted: &Sorted, task: &TaskContext) -> Result<Option<Arc<Self>>> {
        let mut writer = RunWriter::new(task);
        for batch in sorted.batches(BATCH_ROWS) {
            task.query.check_cancelled()?;
            writer.push(&batch?)?;
        }
        writer.finish()
    }

    /// Rows that were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About the bytes of the rows; on disk, as they are there.
    pub fn bytes(&self) -> u64 {
        match &*self.place.lock() {
            Place::Memory { held, .. } => held.bytes() as u64,
            Place::Disk(file) => file.spilled().bytes,
        }
    }

    /// The rows in order, which stay where they are. Only for runs that nobody takes rows from.
    pub fn share(&self) -> RowsReader {
        match &*self.place.lock() {
            Place::Memory { batches, .. } => {
                let batches: Vec<Rows> = batches.iter().cloned().collect();
                Box::new(batches.into_iter().map(Ok))
            }
            Place::Disk(file) => Box::new(file.read().map(|rows| Ok(rows?))),
        }
    }

    /// A run of this process's own, of rows in order that come from elsewhere; none if there are none.
    pub fn import(rows: RowsReader, task: &TaskContext) -> Result<Option<Arc<Self>>> {
        let mut reservation = task.query.memory.reserve(NAME);
        let mut batches = VecDeque::new();
        let mut held = HeldMemory::default();
        let mut on_disk: Option<RunWriter> = None;
        for rows in rows {
            task.query.check_cancelled()?;
            let rows = rows?;
            if let Some(writer) = &mut on_disk {
                writer.push(&Batch::from_arrays(rows.columns, rows.rows))?;
                continue;
            }
            held.add(&rows);
            batches.push_back(rows);
            if reservation.resize(held.bytes()) {
                let writer = on_disk.insert(RunWriter::new(task));
                for rows in batches.drain(..) {
                    writer.push(&Batch::from_arrays(rows.columns, rows.rows))?;
                }
                held.clear();
                reservation.shrink(0);
            }
        }
        match on_disk {
            Some(writer) => writer.finish(),
            None => SortedRun::waiting(batches, held, task),
        }
    }

    /// The physical types of the columns. A dictionary may come back plain.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }
}

impl Spillable for SortedRun {
    fn memory_bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn spill(&self) -> Result<u64> {
        let mut place = self.place.lock();
        let Place::Memory { batches, .. } = &*place else { return Ok(0) };
        if batches.is_empty() {
            return Ok(0);
        }
        let mut file = create(&self.task)?;
        batches.iter().try_for_each(|rows| write(&mut file, rows, &self.task))?;
        let file = file.finish()?;
        let bytes = file.spilled().bytes;
        *place = Place::Disk(file);
        self.charge.set(0);
        self.task.note_spilled(bytes);
        Ok(bytes)
    }
}

/// Writes a run to disk.
pub(super) struct RunWriter {
    file: Option<SpillFileWriter>,
    rows: u64,
    types: Vec<DataType>,
    task: TaskContext,
}

impl RunWriter {
    pub(super) fn new(task: &TaskContext) -> Self {
        RunWriter { file: None, rows: 0, types: vec![], task: task.clone() }
    }

    /// Adds rows at the end.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                self.types = types_of(batch);
                none.insert(create(&self.task)?)
            }
        };
        self.rows += batch.rows as u64;
        write(file, &rows_of(batch)?, &self.task)
    }

    /// The run; none if it has no rows.
    pub(super) fn finish(self) -> Result<Option<Arc<SortedRun>>> {
        let Some(file) = self.file else { return Ok(None) };
        let file = file.finish()?;
        self.task.note_spilled(file.spilled().bytes);
        Ok(Some(Arc::new(SortedRun {
            rows: self.rows,
            types: self.types,
            place: Mutex::new(Place::Disk(file)),
            charge: Charge::new(&self.task.query.memory),
            parked: OnceLock::new(),
            task: self.task,
        })))
    }
}

fn create(task: &TaskContext) -> Result<SpillFileWriter> {
    let file = SpillFileWriter::create(&task.query.spill.store()?, NAME)?;
    Ok(file.with_block_bytes(block_bytes(&task.query.memory)))
}

/// Writes rows in pieces of about a block, so that no block is much larger.
fn write(file: &mut SpillFileWriter, rows: &Rows, task: &TaskContext) -> Result<()> {
    let pieces = rows.encoded_bytes().div_ceil(block_bytes(&task.query.memory)).clamp(1, rows.rows);
    let piece = rows.rows.div_ceil(pieces);
    for start in (0..rows.rows).step_by(piece) {
        file.write(rows.slice(start, piece.min(rows.rows - start)))?;
    }
    Ok(())
}

fn rows_of(batch: &Batch) -> Result<Rows> {
    let columns = batch.columns.iter().map(|c| c.values()).collect::<Result<_>>()?;
    Ok(Rows::new(columns, batch.rows))
}

fn types_of(batch: &Batch) -> Vec<DataType> {
    batch.columns.iter().map(|c| c.data_type().clone()).collect()
}

/// Reads a run from its first row to its last, and lets go of it at the end.
pub(super) struct RunReader {
    run: Option<Arc<SortedRun>>,
    file: Option<SegmentReader>,
    rows_read: u64,
}

impl RunReader {
    pub(super) fn new(run: Arc<SortedRun>) -> Self {
        RunReader { run: Some(run), file: None, rows_read: 0 }
    }

    /// The next rows and the memory that they hold now that they are read.
    pub(super) fn next(&mut self) -> Result<Option<(Batch, usize)>> {
        let Some(run) = &self.run else { return Ok(None) };
        if self.file.is_none() {
            match &mut *run.place.lock() {
                Place::Memory { batches, held } => {
                    if let Some(rows) = batches.pop_front() {
                        held.remove(&rows);
                        run.charge.set(held.bytes());
                        self.rows_read += rows.rows as u64;
                        // Buffers that it shares with the rows to come are counted with these.
                        let bytes = rows.encoded_bytes();
                        return Ok(Some((Batch::from_arrays(rows.columns, rows.rows), bytes)));
                    }
                }
                // What was read from memory is not in the file.
                Place::Disk(file) => self.file = Some(file.read()),
            }
        }
        if let Some(rows) = self.file.as_mut().and_then(Iterator::next).transpose()? {
            self.rows_read += rows.rows as u64;
            let bytes = HeldMemory::default().add(&rows);
            return Ok(Some((Batch::from_arrays(rows.columns, rows.rows), bytes)));
        }
        let (written, read) = (run.rows, self.rows_read);
        self.run = None;
        self.file = None;
        if written != read {
            return Err(EngineError::internal(format!(
                "a sorted run of {written} rows gave {read} when it was read"
            )));
        }
        Ok(None)
    }
}
