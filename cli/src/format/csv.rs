//! Comma- and tab-separated values, with a header line.

use std::io::Write;

use super::Batches;
use super::value::Printer;
use anyhow::Result;
use arrow::datatypes::SchemaRef;

/// What stands between values, and how a value that contains it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separated {
    /// RFC 4180: quoted where needed, NULL is nothing and the empty text is `""`. A line is never empty, since
    /// readers skip such lines: NULL is `""` too where there is one column.
    Comma,
    /// Never quoted: tab, newline, return and backslash are `\t`, `\n`, `\r` and `\\`.
    Tab,
}

/// Prints all rows below a header line.
pub fn write_separated(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: Batches<'_>,
    by: Separated,
) -> Result<()> {
    let separator = if by == Separated::Comma { b',' } else { b'\t' };
    let mut line: Vec<u8> = vec![];
    for (i, field) in schema.fields().iter().enumerate() {
        if i > 0 {
            line.push(separator);
        }
        push_field(field.name(), by, &mut line);
    }
    line.push(b'\n');
    out.write_all(&line)?;
    let mut text = String::new();
    for batch in batches {
        let batch = batch?;
        let printers = batch.columns().iter().map(|c| Printer::new(c)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            line.clear();
            for (i, printer) in printers.iter().enumerate() {
                if i > 0 {
                    line.push(separator);
                }
                if !printer.is_null(row) {
                    text.clear();
                    printer.write(row, &mut text)?;
                    push_field(&text, by, &mut line);
                }
            }
            if line.is_empty() && by == Separated::Comma {
                line.extend_from_slice(b"\"\"");
            }
            line.push(b'\n');
            out.write_all(&line)?;
        }
    }
    Ok(())
}

fn push_field(text: &str, by: Separated, line: &mut Vec<u8>) {
    match by {
        Separated::Comma if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
            line.push(b'"');
            line.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            line.push(b'"');
        }
        Separated::Comma => line.extend_from_slice(text.as_bytes()),
        Separated::Tab => {
            for b in text.bytes() {
                match b {
                    b'\t' => line.extend_from_slice(b"\\t"),
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    b'\\' => line.extend_from_slice(b"\\\\"),
                    b => line.push(b),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str, by: Separated) -> String {
        let mut line = vec![];
        push_field(text, by, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn quotes_only_where_needed() {
        assert_eq!(field("a b", Separated::Comma), "a b");
        assert_eq!(field("", Separated::Comma), "\"\"");
        assert_eq!(field("a,\"b\"\n", Separated::Comma), "\"a,\"\"b\"\"\n\"");
        assert_eq!(field("a\tb\\", Separated::Tab), "a\\tb\\\\");
    }
}
