//! The scan of Parquet files: one queue of row groups, shared by all tasks of the stage.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::FieldRef;
use dovetail_planner::catalog::FileRef;
use dovetail_planner::physical::Scan;

use crate::batch::Batch;
use crate::catalog::{Catalog, ParquetFile};
use crate::error::{EngineError, Result};
use crate::memory::Charge;
use crate::scan::column::{Storage, storage};
use crate::scan::conjunct::{Conjunct, Steps};
use crate::scan::morsel::MorselReader;
use crate::task::touched::FileCounts;
use crate::task::{QueryContext, Source, SourceFactory, TaskContext};

/// With fewer row groups left for each task, none is taken ahead: another task may want it.
const AHEAD_GROUPS_MIN: usize = 4;

/// The sources of one scan.
pub struct ParquetScan {
    shared: Arc<SharedScan>,
}

/// What the tasks of the stage share.
pub struct SharedScan {
    pub files: Vec<ScanFile>,
    /// Row groups, in the order in which they are claimed.
    morsels: Vec<Morsel>,
    next: AtomicUsize,
    /// The scan's columns: names, and logical types.
    pub columns: Vec<FieldRef>,
    /// Positions in `columns` of the output.
    pub output: Vec<usize>,
    pub steps: Steps,
    pub emitted: Emitted,
    /// What the files' footers hold, counted while the scan runs.
    footers: OnceLock<Charge>,
}

/// A file, and where in its schema the scan's columns are.
pub struct ScanFile {
    pub file: Arc<ParquetFile>,
    pub columns: Vec<usize>,
    /// How each of the scan's columns is stored.
    pub storage: Vec<Storage>,
}

#[derive(Debug, Clone, Copy)]
struct Morsel {
    file: usize,
    group: usize,
}

/// What has gone on so far: for the limit, and for metrics.
pub struct Emitted {
    rows: AtomicU64,
    limit: Option<u64>,
    operator_id: u32,
}

struct ParquetSource {
    shared: Arc<SharedScan>,
    query: Arc<QueryContext>,
    conjuncts: Vec<Conjunct>,
    splits: Splits,
    current: Option<MorselReader>,
    /// One row group more: a remote file's is on its way while the current one is decoded, a local one's
    /// dictionaries were decompressed beside the current one's.
    ahead: Option<MorselReader>,
    /// What both hold.
    charge: Charge,
}

/// Which of a scan's morsels a task reads.
#[derive(Debug, Clone, Copy)]
pub enum Splits {
    /// The next that is left in the queue that `tasks` tasks share.
    Shared { tasks: usize },
    /// Every `tasks`-th, from the one that has the task's number: the same whenever the task runs.
    Fixed { task: usize, tasks: usize },
}

impl Splits {
    /// Those of a task.
    pub fn of(task: &TaskContext) -> Splits {
        match task.query.is_isolated {
            true => Splits::Fixed { task: task.partition, tasks: task.partitions },
            false => Splits::Shared { tasks: task.partitions },
        }
    }

    /// The place in the list of morsels of the `next`-th that is drawn.
    pub fn place(self, next: usize) -> usize {
        match self {
            Splits::Shared { .. } => next,
            Splits::Fixed { task, tasks } => task + next * tasks,
        }
    }

    /// Whether one morsel more may be taken than is worked on: nobody else will want it.
    fn may_take_ahead(self, taken: usize, morsels: usize) -> bool {
        match self {
            Splits::Shared { tasks } => morsels.saturating_sub(taken) >= tasks * AHEAD_GROUPS_MIN,
            Splits::Fixed { .. } => true,
        }
    }
}

impl ParquetScan {
    /// Opens the files and lists their row groups.
    pub fn new(
        scan: &Scan,
        files: &[FileRef],
        catalog: &Catalog,
        steps: Steps,
        operator_id: u32,
    ) -> Result<ParquetScan> {
        let columns: Vec<FieldRef> =
            scan.columns.iter().map(|c| scan.table_schema.fields()[*c].clone()).collect();
        let files =
            files.iter().map(|f| ScanFile::open(catalog.file(f)?, &columns)).collect::<Result<Vec<_>>>()?;
        let morsels = files
            .iter()
            .enumerate()
            .flat_map(|(file, f)| {
                (0..f.file.metadata.num_row_groups()).map(move |group| Morsel { file, group })
            })
            .collect();
        let shared = SharedScan {
            files,
            morsels,
            next: AtomicUsize::new(0),
            columns,
            output: scan.output.clone(),
            steps,
            emitted: Emitted::new(scan.limit, operator_id),
            footers: OnceLock::new(),
        };
        Ok(ParquetScan { shared: Arc::new(shared) })
    }

    /// What the tasks share.
    #[cfg(test)]
    pub fn shared(&self) -> Arc<SharedScan> {
        self.shared.clone()
    }
}

impl SourceFactory for ParquetScan {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Source>> {
        let (shared, query) = (self.shared.clone(), task.query.clone());
        let conjuncts = shared.steps.conjuncts.clone();
        let splits = Splits::of(task);
        let charge = Charge::new(&query.memory);
        if task.partition == 0 {
            let footers = shared.files.iter().map(|f| f.file.metadata_bytes).sum();
            shared.footers.get_or_init(|| Charge::of(&query.memory, footers));
        }
        Ok(Box::new(ParquetSource { shared, query, conjuncts, splits, current: None, ahead: None, charge }))
    }
}

impl Source for ParquetSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            self.query.check_cancelled()?;
            if self.shared.emitted.enough() {
                return Ok(None);
            }
            if self.current.is_none() {
                self.advance()?;
            }
            let Some(reader) = &mut self.current else {
                return Ok(None);
            };
            let batch = reader.next(&self.conjuncts)?;
            self.charge.set(reader.held_bytes() + self.ahead.as_ref().map_or(0, MorselReader::held_bytes));
            let bytes = reader.take_bytes_read();
            self.shared.emitted.count(&self.query, batch.as_ref().map_or(0, |b| b.rows), bytes);
            match batch {
                Some(batch) => return Ok(Some(batch)),
                None => {
                    let done = self.current.take();
                    done.into_iter().for_each(|reader| self.note(reader));
                }
            }
        }
    }
}

/// What was read in vain, or after an error, counts too.
impl Drop for ParquetSource {
    fn drop(&mut self) {
        let rest = [self.current.take(), self.ahead.take()];
        rest.into_iter().flatten().for_each(|reader| self.note(reader));
    }
}

impl ParquetSource {
    /// Notes what was read of a row group, which is done with.
    fn note(&self, mut reader: MorselReader) {
        self.shared.emitted.count(&self.query, 0, reader.take_bytes_read());
        self.shared.emitted.note(&self.query, reader.looked_at());
    }

    /// Takes up the next row group, and one ahead where that pays.
    fn advance(&mut self) -> Result<()> {
        if let Some(mut ahead) = self.ahead.take() {
            if ahead.is_remote() {
                self.ahead = self.claim()?;
            } else {
                // Habits may have formed since.
                MorselReader::open_habitual(&mut [&mut ahead])?;
            }
            self.current = Some(ahead);
            return Ok(());
        }
        let Some(mut current) = self.claim()? else { return Ok(()) };
        let taken = self.shared.next.load(Ordering::Relaxed);
        if current.is_remote() || self.splits.may_take_ahead(taken, self.shared.morsels.len()) {
            self.ahead = self.claim()?;
        }
        let mut opening = vec![&mut current];
        opening.extend(&mut self.ahead);
        MorselReader::open_habitual(&mut opening)?;
        self.current = Some(current);
        Ok(())
    }

    /// The next row group that may have rows that pass; none when there is none left.
    fn claim(&self) -> Result<Option<MorselReader>> {
        loop {
            self.query.check_cancelled()?;
            let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(morsel) = self.shared.morsels.get(self.splits.place(next)) else {
                return Ok(None);
            };
            let (shared, query) = (self.shared.clone(), self.query.clone());
            if let Some(reader) = MorselReader::open(shared, morsel.file, morsel.group, query)? {
                return Ok(Some(reader));
            }
        }
    }
}

impl ScanFile {
    fn open(file: Arc<ParquetFile>, columns: &[FieldRef]) -> Result<ScanFile> {
        let find = |column: &FieldRef| {
            let found = file.schema.index_of(column.name()).ok();
            found
                .filter(|i| file.schema.field(*i).data_type().equals_datatype(column.data_type()))
                .ok_or_else(|| EngineError::Data {
                    place: file.url.clone(),
                    message: format!(
                        "there is no column '{}' of type {} any more; run the query again",
                        column.name(),
                        column.data_type()
                    ),
                })
        };
        let columns = columns.iter().map(find).collect::<Result<Vec<_>>>()?;
        let storage = columns.iter().map(|c| storage(&file, *c)).collect();
        Ok(ScanFile { file, columns, storage })
    }
}

impl Emitted {
    /// Nothing yet.
    pub fn new(limit: Option<u64>, operator_id: u32) -> Emitted {
        Emitted { rows: AtomicU64::new(0), limit, operator_id }
    }

    /// The limit has been reached.
    pub fn enough(&self) -> bool {
        self.limit.is_some_and(|l| self.rows.load(Ordering::Relaxed) >= l)
    }

    /// Counts rows that go on, against the limit, and bytes that were read for them.
    pub fn count(&self, query: &QueryContext, rows: usize, bytes_read: u64) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        if let Some(metrics) = query.metrics.operator(self.operator_id) {
            metrics.bytes_read.fetch_add(bytes_read, Ordering::Relaxed);
        }
    }

    /// Notes what was read of a file.
    pub fn note(&self, query: &QueryContext, counts: FileCounts) {
        query.metrics.note_file(self.operator_id, counts);
    }
}
