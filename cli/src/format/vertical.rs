//! One line for each value, for rows that are wider than any terminal.

use std::io::Write;

use super::Batches;
use super::table::escape_control;
use super::value::Printer;
use anyhow::Result;
use arrow::datatypes::SchemaRef;

/// `-[ row 1 ]-` and then `name | value` lines, for each row.
pub fn write_vertical(out: &mut impl Write, schema: &SchemaRef, batches: Batches<'_>) -> Result<()> {
    let names: Vec<String> = schema.fields().iter().map(|f| escape_control(f.name())).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let mut number = 0u64;
    for batch in batches {
        let batch = batch?;
        let printers = batch.columns().iter().map(|c| Printer::new(c)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            number += 1;
            writeln!(out, "-[ row {number} ]-")?;
            for (name, printer) in names.iter().zip(&printers) {
                let mut text = String::new();
                match printer.is_null(row) {
                    true => text.push_str("NULL"),
                    false => printer.write(row, &mut text)?,
                }
                writeln!(out, "{name:width$} | {}", escape_control(&text))?;
            }
        }
    }
    writeln!(out, "{}", super::table::count(number, "row"))?;
    Ok(())
}
