//! JSON: an array of objects for each statement, or one object for each row.
//!
//! Numbers are JSON numbers with all their digits (decimals too); NaN and infinity, which JSON does not
//! have, are text; so are dates, times, intervals and blobs. Lists and structs are arrays and objects.

use std::fmt::Write as _;
use std::io::Write;

use super::Batches;
use super::value::{Printer, list_items};
use anyhow::Result;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, SchemaRef};

/// One array of objects, a row a line.
pub fn write_json(out: &mut impl Write, schema: &SchemaRef, batches: Batches<'_>) -> Result<()> {
    let mut first = true;
    out.write_all(b"[")?;
    each_row(schema, batches, |object| {
        out.write_all(if first { b"\n" } else { b",\n" })?;
        first = false;
        Ok(out.write_all(object)?)
    })?;
    Ok(out.write_all(if first { b"]\n" } else { b"\n]\n" })?)
}

/// One object a line.
pub fn write_ndjson(out: &mut impl Write, schema: &SchemaRef, batches: Batches<'_>) -> Result<()> {
    each_row(schema, batches, |object| {
        out.write_all(object)?;
        Ok(out.write_all(b"\n")?)
    })
}

fn each_row(
    schema: &SchemaRef,
    batches: Batches<'_>,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let names: Vec<String> = schema.fields().iter().map(|f| format!("{}:", quoted(f.name()))).collect();
    let mut object = String::new();
    for batch in batches {
        let batch = batch?;
        let columns = batch.columns().iter().map(|c| JsonColumn::new(c)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            object.clear();
            for (i, (name, column)) in names.iter().zip(&columns).enumerate() {
                object.push(if i == 0 { '{' } else { ',' });
                object.push_str(name);
                column.write(row, &mut object)?;
            }
            object.push_str(if columns.is_empty() { "{}" } else { "}" });
            write(object.as_bytes())?;
        }
    }
    Ok(())
}

/// One array, written as JSON values.
struct JsonColumn<'a> {
    array: &'a dyn Array,
    printer: Printer<'a>,
    fields: Vec<JsonColumn<'a>>,
}

impl<'a> JsonColumn<'a> {
    fn new(array: &'a dyn Array) -> Result<Self> {
        let fields = match array.data_type() {
            DataType::Struct(_) => {
                array.as_struct().columns().iter().map(|c| JsonColumn::new(c)).collect::<Result<_>>()?
            }
            DataType::Map(_, _) => {
                vec![JsonColumn::new(array.as_map().keys())?, JsonColumn::new(array.as_map().values())?]
            }
            _ => vec![],
        };
        Ok(JsonColumn { array, printer: Printer::new(array)?, fields })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        if self.printer.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match self.array.data_type() {
            DataType::Struct(fields) => {
                out.push('{');
                for (i, (field, column)) in fields.iter().zip(&self.fields).enumerate() {
                    write!(out, "{}{}:", if i == 0 { "" } else { "," }, quoted(field.name()))?;
                    column.write(row, out)?;
                }
                out.push('}');
            }
            DataType::Map(_, _) => {
                let offsets = self.array.as_map().value_offsets();
                out.push('{');
                for i in offsets[row] as usize..offsets[row + 1] as usize {
                    let mut key = String::new();
                    self.fields[0].printer.write(i, &mut key)?;
                    write!(out, "{}{}:", if i == offsets[row] as usize { "" } else { "," }, quoted(&key))?;
                    self.fields[1].write(i, out)?;
                }
                out.push('}');
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(_, _)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => {
                let items = list_items(self.array, row);
                let column = JsonColumn::new(&items)?;
                out.push('[');
                for i in 0..items.len() {
                    out.push_str(if i == 0 { "" } else { "," });
                    column.write(i, out)?;
                }
                out.push(']');
            }
            t if super::is_numeric(t) || *t == DataType::Boolean => {
                let start = out.len();
                self.printer.write(row, out)?;
                if out[start..].ends_with(['N', 'f']) {
                    let text = quoted(&out[start..]);
                    out.replace_range(start.., &text);
                }
            }
            _ => {
                let mut text = String::new();
                self.printer.write(row, &mut text)?;
                out.push_str(&quoted(&text));
            }
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};

    fn values(array: ArrayRef) -> Vec<String> {
        let column = JsonColumn::new(&array).unwrap();
        (0..array.len())
            .map(|i| {
                let mut out = String::new();
                column.write(i, &mut out).unwrap();
                out
            })
            .collect()
    }

    #[test]
    fn numbers_that_json_lacks_are_text() {
        let a = Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::NEG_INFINITY), None]);
        assert_eq!(values(std::sync::Arc::new(a)), ["1.5", "\"NaN\"", "\"-inf\"", "null"]);
    }

    #[test]
    fn text_is_escaped() {
        let a = StringArray::from(vec!["a\"b\\c\nd\u{1}é"]);
        assert_eq!(values(std::sync::Arc::new(a)), ["\"a\\\"b\\\\c\\nd\\u0001é\""]);
    }
}
