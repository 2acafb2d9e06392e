//! The audit's Parquet files: written, merged, and given up when they are old.
//!
//! A file's name says of which journals it has the records, so a file that was merged is known by its name: its
//! journals are among those of another. It stays for [`SUPERSEDED_FOR`], since a statement may be reading it.
//!
//! What always holds: there are at most [`SMALL_FILES_MAX`] small files of a day; a file is complete when it has its
//! name; the records of a journal are in a file before the journal goes; each file tells the version of its columns, and
//! one of a later version is not touched.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::temporal_conversions::date32_to_datetime;
use dovetail_engine::audit::{AuditRecord, rows};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::journal;

/// Of one day, before they are merged.
pub const SMALL_FILES_MAX: usize = 64;
/// Files of this size are merged no more.
const LARGE_BYTES: u64 = 32 << 20;
/// Of a row group.
const GROUP_ROWS: usize = 1 << 14;
/// How long a file stays that was merged.
const SUPERSEDED_FOR: Duration = Duration::from_secs(600);

const SECONDS_PER_DAY: u64 = 86_400;

/// The version of the files' columns: raised with each change that an earlier program would not understand. A file that
/// does not tell has the first.
const COLUMNS_VERSION: u32 = 1;
/// What a file calls it in its metadata.
const VERSION_KEY: &str = "dovetail.audit.version";

/// The files of a folder.
pub struct Files {
    folder: PathBuf,
    /// How many days a file is kept.
    days: u32,
    all: BTreeSet<Named>,
    superseded: Vec<(Instant, PathBuf)>,
    /// Records that are to be written, and the last of the journals that have them.
    pending: Option<(u64, Vec<AuditRecord>)>,
    /// That have records of no file, in order.
    journals: BTreeSet<u64>,
}

/// A file by its name, in the order of its records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    first: u64,
    last: u64,
    /// As in 2026-11-23, UTC.
    day: String,
    bytes: u64,
}

impl Files {
    /// The files that are there. What an earlier process has left half done goes.
    pub fn open(folder: &Path, days: u32) -> io::Result<Files> {
        let mut found = vec![];
        let mut journals = BTreeSet::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let Some(number) = journal::number_of(&path) {
                journals.insert(number);
            } else if let Some(named) = Named::of(&path)? {
                check_version(&path)?;
                found.push(named);
            } else if path.extension().is_some_and(|e| e == "new") {
                fs::remove_file(&path)?;
            }
        }
        let (merged, all): (Vec<Named>, Vec<Named>) =
            found.iter().cloned().partition(|f| found.iter().any(|other| other.supersedes(f)));
        for file in merged {
            fs::remove_file(file.path(folder))?;
        }
        let mut files = Files {
            folder: folder.to_owned(),
            days,
            all: all.into_iter().collect(),
            superseded: vec![],
            pending: None,
            journals,
        };
        files.drop_journals_until(files.last())?;
        Ok(files)
    }

    /// Puts what the journals have into a file; the number of the next journal.
    pub fn recover(&mut self) -> io::Result<u64> {
        if let Some(&last) = self.journals.last() {
            let paths: Vec<PathBuf> = self.journals.iter().map(|n| journal::path(&self.folder, *n)).collect();
            let records = journal::read(&paths)?;
            match records.is_empty() {
                true => self.drop_journals_until(last)?,
                false => {
                    self.pending = Some((last, records));
                    self.write_pending()?;
                }
            }
            return Ok(last + 1);
        }
        Ok(self.last() + 1)
    }

    /// Whether there is nothing to be read.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The files that have all records, each once.
    pub fn all(&self) -> Vec<PathBuf> {
        self.all.iter().map(|file| file.path(&self.folder)).collect()
    }

    /// Has records be written, which are in the journal of a number.
    pub fn pend(&mut self, journal: u64, records: Vec<AuditRecord>) {
        self.journals.insert(journal);
        self.pending = Some((journal, records));
    }

    /// Writes the records that are to be written; if that fails, the next call tries again.
    pub fn write_pending(&mut self) -> io::Result<()> {
        let Some((last, records)) = &self.pending else { return Ok(()) };
        let last = *last;
        let batch = rows::batch(records).map_err(io::Error::other)?;
        let first = self.last() + 1;
        self.write(first, last, today(), &mut std::iter::once(Ok(batch)))?;
        self.pending = None;
        self.drop_journals_until(last)
    }

    /// Merges small files and gives up old ones. What fails here is tried again the next time.
    pub fn tidy(&mut self) {
        if let Err(error) = self.try_to_tidy() {
            tracing::warn!(folder = %self.folder.display(), %error, "files of the audit cannot be merged or deleted");
        }
    }

    fn try_to_tidy(&mut self) -> io::Result<()> {
        let folder = self.folder.clone();
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.superseded)
            .into_iter()
            .partition(|(at, _)| at.elapsed() > SUPERSEDED_FOR);
        self.superseded = kept;
        gone.iter().try_for_each(|(_, path)| fs::remove_file(path))?;
        let oldest = day_before(self.days);
        for old in self.all.extract_if(.., |file| file.day < oldest).collect::<Vec<_>>() {
            fs::remove_file(old.path(&folder))?;
        }
        let small: Vec<Named> = self.all.iter().filter(|f| f.bytes < LARGE_BYTES).cloned().collect();
        for run in small.chunk_by(|a, b| a.day == b.day && a.last + 1 == b.first) {
            let is_over = run[0].day != today();
            if run.len() > SMALL_FILES_MAX || (is_over && run.len() > 1) {
                self.merge(run)?;
            }
        }
        Ok(())
    }

    /// Makes one of files that follow each other.
    fn merge(&mut self, run: &[Named]) -> io::Result<()> {
        let (first, last) = (run[0].first, run[run.len() - 1].last);
        let folder = self.folder.clone();
        let mut batches = run.iter().flat_map(|file| match read(&file.path(&folder)) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))),
        });
        self.write(first, last, run[0].day.clone(), &mut batches)?;
        for file in run {
            self.all.remove(file);
            self.superseded.push((Instant::now(), file.path(&self.folder)));
        }
        Ok(())
    }

    /// Writes a file: complete and on disk before it has its name.
    fn write(
        &mut self,
        first: u64,
        last: u64,
        day: String,
        batches: &mut dyn Iterator<Item = io::Result<RecordBatch>>,
    ) -> io::Result<()> {
        let mut named = Named { first, last, day, bytes: 0 };
        let path = named.path(&self.folder);
        let new = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(vec![KeyValue::new(
                VERSION_KEY.into(),
                COLUMNS_VERSION.to_string(),
            )]))
            .build();
        let mut writer = ArrowWriter::try_new(file, rows::schema(), Some(properties))?;
        for batch in batches {
            writer.write(&batch?)?;
        }
        let file = writer.into_inner()?;
        file.sync_all()?;
        named.bytes = file.metadata()?.len();
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.all.insert(named);
        Ok(())
    }

    /// The last journal whose records are in a file.
    fn last(&self) -> u64 {
        self.all.iter().map(|f| f.last).max().unwrap_or(0)
    }

    fn drop_journals_until(&mut self, last: u64) -> io::Result<()> {
        while let Some(&number) = self.journals.first().filter(|n| **n <= last) {
            fs::remove_file(journal::path(&self.folder, number))?;
            self.journals.remove(&number);
        }
        Ok(())
    }
}

impl Named {
    /// None if the file is none of the audit's.
    fn of(path: &Path) -> io::Result<Option<Named>> {
        let parsed = path.file_name().and_then(|n| n.to_str()).and_then(|name| {
            let (day, range) = name.strip_suffix(".parquet")?.split_once('.')?;
            let (first, last) = range.split_once('-')?;
            Some((day.to_owned(), first.parse().ok()?, last.parse().ok()?))
        });
        let Some((day, first, last)) = parsed else { return Ok(None) };
        Ok(Some(Named { first, last, day, bytes: fs::metadata(path)?.len() }))
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.{:012}-{:012}.parquet", self.day, self.first, self.last))
    }

    /// It has the records of another file, which was merged into it.
    fn supersedes(&self, other: &Named) -> bool {
        let range = |f: &Named| (f.first, f.last);
        self.first <= other.first && other.last <= self.last && range(self) != range(other)
    }
}

fn read(path: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<RecordBatch>>>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    Ok(Box::new(reader.map(|batch| batch.map_err(io::Error::other))))
}

/// Refuses a file that a later program has written.
fn check_version(path: &Path) -> io::Result<()> {
    let Ok(reader) = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?) else {
        // It is damaged, which is for whoever reads it to tell.
        return Ok(());
    };
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    let told = pairs.into_iter().flatten().find(|pair| pair.key == VERSION_KEY);
    let version = told.map_or(Some(1), |pair| pair.value.as_deref()?.parse::<u32>().ok());
    match version {
        Some(1..=COLUMNS_VERSION) => Ok(()),
        other => Err(io::Error::other(format!(
            "{} was written by a later version of Dovetail (its columns are of version {}, this program knows {} at \
             most). Start that version, or give another --state-dir",
            path.display(),
            other.map_or("unknown".into(), |version| version.to_string()),
            COLUMNS_VERSION,
        ))),
    }
}

fn today() -> String {
    day_before(0)
}

/// The day so many days ago, UTC.
fn day_before(days: u32) -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let today = i32::try_from(since_1970.as_secs() / SECONDS_PER_DAY).unwrap_or(i32::MAX);
    let day = date32_to_datetime(today.saturating_sub_unsigned(days));
    day.map_or_else(String::new, |day| day.date().to_string())
}
