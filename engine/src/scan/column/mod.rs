//! One column of one row group: its pages decoded by ourselves where we can, by Parquet's reader where
//! not.
//!
//! ```text
//! bytes ─ header ─▶ chunk: pages ─ levels, hybrid, delta ─▶ pages: windows of rows ─ format ─▶ arrays
//! ```
//!
//! Why not Parquet's reader for all: it widens every code of a dictionary to its value, for every row.
//! Here codes stay codes until a row has passed the filters, and pages without such rows stay compressed.
//!
//! What always holds: windows are asked for in ascending order; an array that is handed out is of the
//! physical type of [`storage`]; bytes that break the format are an error that names the column.

mod bits;
mod byte_views;
pub mod chunk;
mod delta;
mod fixed;
mod format;
mod header;
mod hybrid;
mod levels;
mod malformed;
mod pages;
mod reader;
mod snappy;
mod storage;
mod unpack;

use std::ops::Range;

use arrow::array::ArrayRef;

use crate::error::Result;
use bits::Bits;
use byte_views::ByteViews;
use chunk::Chunk;
use fixed::Fixed;
use pages::Pages;

pub use chunk::Place;
pub use reader::ReaderColumn;
pub use storage::{Storage, storage};

/// Which rows of a window.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    All,
    /// These, counted from the window's first, ascending.
    At(&'a [u32]),
}

/// What values are decoded for: they are built side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To go on, in a batch of many windows' rows.
    Output,
    /// To be tested at once.
    Test,
}

/// A column of a row group.
pub enum Column {
    Bits32(Pages<Fixed<i32>>),
    Bits64(Pages<Fixed<i64>>),
    Bits128(Pages<Fixed<i128>>),
    Bytes(Pages<ByteViews>),
    Bits(Pages<Bits>),
    Reader(ReaderColumn),
}

/// Runs an expression for whichever pages a column has, another for those that Parquet reads.
macro_rules! each_format {
    ($column:expr, $pages:ident => $ours:expr, $reader:ident => $theirs:expr) => {
        match $column {
            Column::Bits32($pages) => $ours,
            Column::Bits64($pages) => $ours,
            Column::Bits128($pages) => $ours,
            Column::Bytes($pages) => $ours,
            Column::Bits($pages) => $ours,
            Column::Reader($reader) => $theirs,
        }
    };
}

impl Column {
    /// A decoder for a chunk stored so; none if some of its pages need Parquet's reader.
    pub fn decode(chunk: Chunk, storage: &Storage) -> Result<Option<Column>> {
        fn pages<F: format::Format>(chunk: Chunk, format: F) -> Result<Option<Pages<F>>> {
            if Pages::readable(&chunk, &format) { Pages::new(chunk, format).map(Some) } else { Ok(None) }
        }
        Ok(match storage {
            Storage::Fixed { stored, physical } => match physical.primitive_width() {
                Some(16) => pages(chunk, Fixed::new(*stored, physical.clone()))?.map(Column::Bits128),
                Some(8) => pages(chunk, Fixed::new(*stored, physical.clone()))?.map(Column::Bits64),
                _ => pages(chunk, Fixed::new(*stored, physical.clone()))?.map(Column::Bits32),
            },
            Storage::Bytes { utf8 } => pages(chunk, ByteViews::new(*utf8))?.map(Column::Bytes),
            Storage::Bits => pages(chunk, Bits)?.map(Column::Bits),
            Storage::Other => None,
        })
    }

    /// Every page holds codes of a dictionary.
    pub fn only_codes(&self) -> bool {
        each_format!(self, p => p.only_codes(), _r => false)
    }

    /// Strings or binaries.
    pub fn is_bytes(&self) -> bool {
        matches!(self, Column::Bytes(_))
    }

    /// The entries of the dictionary, the same array at each call.
    pub fn dictionary(&self) -> Option<&ArrayRef> {
        each_format!(self, p => p.dictionary(), _r => None)
    }

    /// The rows of each data page, in order; none for a column that Parquet reads.
    pub fn page_rows(&self) -> Vec<Range<usize>> {
        each_format!(self, p => p.page_rows(), _r => vec![])
    }

    /// Appends the codes of rows of a window; null is the number of entries. Only where all are codes.
    pub fn codes(&mut self, window: Range<usize>, rows: Rows, out: &mut Vec<u32>) -> Result<()> {
        each_format!(
            self,
            p => p.codes(window, rows, out),
            _r => Err(crate::EngineError::internal("codes of a column without them"))
        )
    }

    /// Appends the values of rows of a window to what is being built for a use.
    pub fn append(&mut self, window: Range<usize>, rows: Rows, purpose: Use) -> Result<()> {
        each_format!(self, p => p.append(window, rows, purpose), r => r.append(window, rows, purpose))
    }

    /// What was built for a use, as an array of the physical type; the next begins.
    pub fn finish(&mut self, purpose: Use) -> Result<ArrayRef> {
        each_format!(self, p => p.finish(purpose), r => r.finish(purpose))
    }

    /// The values of rows of a window.
    pub fn values(&mut self, window: Range<usize>, rows: Rows) -> Result<ArrayRef> {
        self.append(window, rows, Use::Test)?;
        self.finish(Use::Test)
    }
}
