//! How results are printed. One file for each family of formats; values become text in [`value`].
//!
//! What always holds: csv, tsv, json, ndjson, markdown and vertical print every row of a result, also on
//! a terminal; only `table` on a terminal shows head and tail of a long one, and says so in its footer.

mod csv;
mod json;
mod table;
mod type_name;
pub mod value;
mod vertical;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use dovetail_engine::{ResultStream, StatementKind};

pub use table::{Layout, seconds};
pub use type_name::{is_numeric, type_name};

/// Rows of a long result that a terminal shows.
pub const ROWS_SHOWN: usize = 40;

/// The formats of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A box with column types and a footer
    Table,
    /// Comma-separated values with a header line (RFC 4180); NULL is empty
    Csv,
    /// Tab-separated values with a header line; tab, newline and backslash are escaped with a backslash
    Tsv,
    /// One JSON array of objects for each statement
    Json,
    /// One JSON object for each row
    Ndjson,
    /// A Markdown table
    Markdown,
    /// One line for each value
    Vertical,
}

/// Rows, batch by batch: a query's result may not fit in memory.
pub type Batches<'a> = &'a mut dyn Iterator<Item = dovetail_engine::Result<RecordBatch>>;

/// All rows of something, for the formats that have to see them before they print the first.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub schema: &'a SchemaRef,
    pub batches: &'a [RecordBatch],
}

impl Rows<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Prints a statement's result. `elapsed` goes into the footer of formats that have one.
pub fn write_result(
    out: &mut impl Write,
    mut result: ResultStream,
    format: Format,
    layout: &Layout,
    elapsed: Option<Duration>,
) -> Result<()> {
    if let StatementKind::Command { message } = &result.kind {
        // Formats for programs print rows and nothing else.
        if matches!(format, Format::Table | Format::Vertical) {
            writeln!(out, "{message}")?;
        }
        return Ok(());
    }
    let schema = result.schema.clone();
    write_rows(out, &schema, &mut result, format, layout, elapsed)
}

/// Prints rows; `elapsed` as for `write_result`.
pub fn write_rows(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: Batches<'_>,
    format: Format,
    layout: &Layout,
    elapsed: Option<Duration>,
) -> Result<()> {
    match format {
        Format::Table | Format::Markdown => {
            let batches = batches.collect::<dovetail_engine::Result<Vec<_>>>()?;
            let rows = Rows { schema, batches: &batches };
            match format {
                Format::Markdown => table::write_markdown(out, rows),
                _ => table::write_table(out, rows, layout, elapsed),
            }
        }
        Format::Csv => csv::write_separated(out, schema, batches, csv::Separated::Comma),
        Format::Tsv => csv::write_separated(out, schema, batches, csv::Separated::Tab),
        Format::Json => json::write_json(out, schema, batches),
        Format::Ndjson => json::write_ndjson(out, schema, batches),
        Format::Vertical => vertical::write_vertical(out, schema, batches),
    }
}

impl Layout {
    /// What suits standard output: fitted to a terminal, everything elsewhere.
    pub fn of_stdout() -> Layout {
        if !io::stdout().is_terminal() {
            return Layout::default();
        }
        Layout { width: terminal_width(), max_rows: Some(ROWS_SHOWN) }
    }
}

fn terminal_width() -> Option<usize> {
    // The line editor knows how to ask every kind of terminal. Not for the shell, which has an editor already.
    let mut editor = rustyline::DefaultEditor::new().ok()?;
    let (columns, _rows) = editor.dimensions()?;
    (columns > 0).then_some(usize::from(columns))
}
