//! The columns of one row group, each opened when it is first wanted.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::DataType;
use dovetail_planner::expr::Expr;

use crate::catalog::ParquetFile;
use crate::catalog::bounds::{Bound, Bounds};
use crate::error::{EngineError, Result};
use crate::scan::column::chunk::Chunk;
use crate::scan::column::{Column, Place, ReaderColumn, Storage};
use crate::scan::io::{GroupBytes, ReadRanges};
use crate::scan::page_index;
use crate::scan::parquet_scan::{ScanFile, SharedScan};
use crate::scan::pruning::{self, Known};
use crate::scan::runtime_filter::RuntimeFilter;
use crate::task::QueryContext;

/// A row group of a file of a scan.
pub struct GroupReader {
    scan: Arc<SharedScan>,
    file: usize,
    group: usize,
    rows: usize,
    /// By position in the scan's columns.
    columns: Vec<Option<Column>>,
    /// The columns that somebody has asked for.
    used: Vec<bool>,
    bytes: GroupBytes,
    held_bytes: usize,
}

/// What a column holds beside its chunk as it is in the file: a dictionary and a page, decoded, bytes at most.
const DECODED_BYTES_MAX: u64 = 2 << 20;

impl GroupReader {
    /// Nothing is read yet.
    pub fn new(
        scan: Arc<SharedScan>,
        file: usize,
        group: usize,
        query: Arc<QueryContext>,
    ) -> Result<GroupReader> {
        let opened = &scan.files[file].file;
        let rows = usize::try_from(opened.metadata.row_group(group).num_rows())
            .ok()
            .filter(|rows| *rows < u32::MAX as usize)
            .ok_or_else(|| EngineError::Data {
                place: opened.url.clone(),
                message: format!("row group {group} says that it has 4 billion rows or more"),
            })?;
        let columns = scan.columns.iter().map(|_| None).collect();
        let used = vec![false; scan.columns.len()];
        let bytes = GroupBytes::new(opened.source.clone(), query);
        Ok(GroupReader { scan, file, group, rows, columns, used, bytes, held_bytes: 0 })
    }

    /// Opens the columns that nearly every row group before these has needed.
    pub fn open_habitual(groups: &mut [&mut GroupReader]) -> Result<()> {
        let wanted = |group: &GroupReader| match group.is_remote() {
            // What is remote comes late: nothing waits for it before it must.
            true => vec![],
            false => group.scan.steps.experience.habits.columns(),
        };
        let wanted: Vec<Vec<usize>> = groups.iter().map(|g| wanted(g)).collect();
        GroupReader::open_together(groups, &wanted)
    }

    /// Opens columns of each row group, their dictionaries side by side.
    pub fn open_together(groups: &mut [&mut GroupReader], columns: &[Vec<usize>]) -> Result<()> {
        let (mut chunks, mut places) = (vec![], vec![]);
        for (at, (group, columns)) in groups.iter_mut().zip(columns).enumerate() {
            for &number in columns {
                if group.columns[number].is_none()
                    && let Some(chunk) = group.chunk(number)?
                {
                    chunks.push(chunk);
                    places.push((at, number));
                }
            }
        }
        Chunk::decompress_dictionaries(&mut chunks);
        for ((at, number), chunk) in places.into_iter().zip(chunks) {
            let group = &mut groups[at];
            let scan = group.scan.clone();
            group.columns[number] = Column::decode(chunk, &scan.files[group.file].storage[number])?;
        }
        Ok(())
    }

    /// Rows in the row group.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A column, by its position in the scan's.
    pub fn column(&mut self, number: usize) -> Result<&mut Column> {
        if !self.used[number] {
            self.used[number] = true;
            self.scan.steps.experience.habits.count_use(number);
            if self.columns[number].is_none() {
                self.columns[number] = Some(self.open(number)?);
            }
        }
        Ok(self.columns[number].as_mut().expect("invariant: just opened"))
    }

    /// What the footer says of a column.
    pub fn known(&self, number: usize) -> Known {
        let rows = self.rows as u64;
        match self.leaf(number) {
            Some(leaf) => {
                let chunk = self.file().metadata.row_group(self.group).column(leaf);
                pruning::of_chunk(chunk, self.scan.columns[number].data_type(), rows)
            }
            None => Known { rows, ..Default::default() },
        }
    }

    /// Whether some row may pass, as far as the footer tells: all conjuncts, and these of the runtime
    /// filters.
    pub fn may_pass(&self, published: &[(usize, Arc<RuntimeFilter>)]) -> bool {
        let steps = &self.scan.steps;
        let conjuncts = steps
            .conjuncts
            .iter()
            .all(|c| c.can_fail || pruning::may_be_true(&c.expr, &|i| self.known(c.columns[i])));
        conjuncts
            && published.iter().all(|(i, filter)| {
                let number = steps.runtime[*i].column;
                // Keys of this type are wrapped into the filter's.
                if *self.scan.columns[number].data_type() == DataType::UInt64 {
                    return true;
                }
                match self.known(number) {
                    Known { nulls: Some(nulls), rows, .. } if nulls == rows => false,
                    Known {
                        bounds: Bounds { min: Some(Bound::Int(min)), max: Some(Bound::Int(max)) },
                        ..
                    } => filter.may_contain_range(min, max),
                    _ => !filter.passes_none(),
                }
            })
    }

    /// Rows of pages that cannot hold a row for which a condition over one column is true; in order.
    pub fn rows_without(&mut self, condition: &Expr, number: usize) -> Result<Vec<Range<usize>>> {
        let Some(leaf) = self.leaf(number) else {
            return Ok(vec![]);
        };
        let chunk = self.file().metadata.row_group(self.group).column(leaf);
        let (Some(offset), Some(length)) = (chunk.column_index_offset(), chunk.column_index_length()) else {
            return Ok(vec![]);
        };
        let (Ok(start), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Ok(vec![]);
        };
        let (physical, logical) = (chunk.column_type(), self.scan.columns[number].data_type().clone());
        let pages = self.column(number)?.page_rows();
        // For two pages or one, the dictionary tells as much.
        if pages.len() < 3 || start.saturating_add(length) > self.file().size_bytes {
            return Ok(vec![]);
        }
        let index = self.bytes.read(start..start + length)?;
        let lengths: Vec<usize> = pages.iter().map(|p| p.len()).collect();
        let Some(known) = page_index::pages(&index, physical, &logical, &lengths) else {
            return Ok(vec![]);
        };
        let pages = pages.into_iter().zip(known);
        Ok(pages
            .filter(|(_, known)| !pruning::may_be_true(condition, &|_| known.clone()))
            .map(|(rows, _)| rows)
            .collect())
    }

    /// The file is not on this machine.
    pub fn is_remote(&self) -> bool {
        !self.file().source.is_local()
    }

    /// Starts to fetch columns, if the file is remote.
    pub fn prefetch(&mut self, columns: impl IntoIterator<Item = usize>) -> Result<()> {
        if !self.is_remote() {
            return Ok(());
        }
        let ranges = columns.into_iter().flat_map(|c| self.ranges(c)).collect();
        self.bytes.prefetch(ranges)
    }

    /// About the memory that the row group's columns hold.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes read since the last call.
    pub fn take_bytes_read(&mut self) -> u64 {
        self.bytes.take_bytes_read()
    }

    fn open(&mut self, number: usize) -> Result<Column> {
        let scan = self.scan.clone();
        let ScanFile { file, columns, storage } = &scan.files[self.file];
        if let Some(chunk) = self.chunk(number)?
            && let Some(column) = Column::decode(chunk, &storage[number])?
        {
            return Ok(column);
        }
        let ranges = self.ranges(number);
        self.held_bytes += ranges.iter().map(|r| r.end - r.start + DECODED_BYTES_MAX).sum::<u64>() as usize;
        let bytes = ranges.into_iter().map(|r| Ok((r.start, self.bytes.read(r)?)));
        let bytes = ReadRanges::new(file.size_bytes, bytes.collect::<Result<_>>()?);
        Ok(Column::Reader(ReaderColumn::open(self.place(number), file, columns[number], bytes)?))
    }

    /// The chunk of a column that our decoders read; none if they do not.
    fn chunk(&mut self, number: usize) -> Result<Option<Chunk>> {
        let scan = self.scan.clone();
        let ScanFile { file, storage, .. } = &scan.files[self.file];
        let Some(leaf) = self.leaf(number).filter(|_| storage[number] != Storage::Other) else {
            return Ok(None);
        };
        let metadata = file.metadata.row_group(self.group).column(leaf);
        let (start, length) = metadata.byte_range();
        let bytes = self.bytes.read(start..start + length)?;
        let decoded = u64::try_from(metadata.uncompressed_size()).unwrap_or(0).min(DECODED_BYTES_MAX);
        self.held_bytes += (length + decoded) as usize;
        Chunk::open(self.place(number), metadata, self.rows, bytes)
    }

    fn place(&self, number: usize) -> Place {
        Place {
            url: self.file().url.as_str().into(),
            group: self.group,
            column: self.scan.columns[number].name().clone(),
        }
    }

    /// The byte ranges of a column's leaves.
    fn ranges(&self, number: usize) -> Vec<Range<u64>> {
        let ScanFile { file, columns, .. } = &self.scan.files[self.file];
        let descriptor = file.metadata.file_metadata().schema_descr();
        let chunks = file.metadata.row_group(self.group).columns();
        (0..chunks.len())
            .filter(|leaf| descriptor.get_column_root_idx(*leaf) == columns[number])
            .map(|leaf| {
                let (start, length) = chunks[leaf].byte_range();
                start..start + length
            })
            .collect()
    }

    fn leaf(&self, number: usize) -> Option<usize> {
        self.file().leaf(self.scan.columns[number].name())
    }

    fn file(&self) -> &ParquetFile {
        &self.scan.files[self.file].file
    }
}
