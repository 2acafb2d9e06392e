//! Tables for people: a box with each column's type under its name, and Markdown.
//!
//! Numbers stand on the right. On a terminal a long result shows its head and tail, values are cut and
//! columns left out in the middle until the table fits; the footer always counts the whole result.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use super::value::Printer;
use super::{Rows, is_numeric, type_name};
use anyhow::Result;
use arrow::datatypes::DataType;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

/// What limits a table; nothing does by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Characters in a line.
    pub width: Option<usize>,
    /// Rows shown; of more, half from the beginning and half from the end.
    pub max_rows: Option<usize>,
}

/// Lines of the box: light, without lines between rows.
const PRESET: &str = "││──├─┼┤│    ┬┴┌┐└┘";
const MORE: &str = "…";
/// Text is not cut below this width; columns are left out instead.
const NARROWEST: usize = 12;

/// A box, and a footer with rows, columns and time.
pub fn write_table(
    out: &mut impl Write,
    rows: Rows<'_>,
    layout: &Layout,
    elapsed: Option<Duration>,
) -> Result<()> {
    let total = rows.count();
    let columns = rows.schema.fields().len();
    let shown = layout.max_rows.filter(|&max| total > max);
    let (head, tail) = shown.map_or((total, 0), |max| (max.div_ceil(2), max / 2));
    let mut cells = row_texts(rows, 0, head)?;
    if shown.is_some() {
        cells.push(vec![MORE.to_owned(); columns]);
        cells.extend(row_texts(rows, total - tail, tail)?);
    }
    if columns > 0 {
        writeln!(out, "{}", build(rows, &cells, layout))?;
    }
    let mut footer = count(total as u64, "row");
    if shown.is_some() {
        footer += &format!(" ({} shown)", head + tail);
    }
    footer += &format!(", {}", count(columns as u64, "column"));
    if let Some(elapsed) = elapsed {
        footer += &format!(", {}", seconds(elapsed));
    }
    writeln!(out, "{footer}")?;
    Ok(())
}

/// A Markdown table of all rows.
pub fn write_markdown(out: &mut impl Write, rows: Rows<'_>) -> Result<()> {
    let escape = |text: &str| escape_control(text).replace('|', "\\|");
    let fields = rows.schema.fields();
    let names: Vec<String> = fields.iter().map(|f| escape(f.name())).collect();
    writeln!(out, "| {} |", names.join(" | "))?;
    let rules: Vec<&str> =
        fields.iter().map(|f| if is_numeric(f.data_type()) { "---:" } else { "---" }).collect();
    writeln!(out, "| {} |", rules.join(" | "))?;
    for row in row_texts(rows, 0, rows.count())? {
        let row: Vec<String> = row.iter().map(|text| text.replace('|', "\\|")).collect();
        writeln!(out, "| {} |", row.join(" | "))?;
    }
    Ok(())
}

/// Rows `from .. from + count` as text without control characters.
fn row_texts(rows: Rows<'_>, from: usize, count: usize) -> Result<Vec<Vec<String>>> {
    let mut texts = Vec::with_capacity(count);
    let mut start = 0;
    for batch in rows.batches {
        let (first, last) = (from.max(start), (from + count).min(start + batch.num_rows()));
        if first < last {
            let printers = batch.columns().iter().map(|c| Printer::new(c)).collect::<Result<Vec<_>>>()?;
            for row in first - start..last - start {
                let row = printers.iter().map(|p| {
                    let mut text = String::new();
                    match p.is_null(row) {
                        true => text.push_str("NULL"),
                        false => p.write(row, &mut text)?,
                    }
                    Ok(escape_control(&text))
                });
                texts.push(row.collect::<Result<_>>()?);
            }
        }
        start += batch.num_rows();
    }
    Ok(texts)
}

/// How a column is shown: which one, `None` standing for those left out, and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    column: Option<usize>,
    width: usize,
}

/// All columns, or as many from both ends as fit side by side, narrowed where they may be.
fn fit(rows: Rows<'_>, cells: &[Vec<String>], terminal: usize) -> Vec<Shown> {
    let fields = rows.schema.fields();
    // What each column would take, and what it has to have: values that are no text are shown whole.
    let sizes: Vec<(usize, usize)> = (0..fields.len())
        .map(|c| {
            let values = cells.iter().map(|row| width(&row[c])).max().unwrap_or(0);
            let type_ = width(&type_name(fields[c].data_type()));
            let name = width(&escape_control(fields[c].name()));
            let natural = values.max(type_).max(name);
            let text = matches!(fields[c].data_type(), t if !is_numeric(t) && !t.is_temporal() && *t != DataType::Boolean);
            (natural, if text { natural.min(NARROWEST) } else { values.max(type_.max(name).min(NARROWEST)) })
        })
        .collect();
    // A column takes its text, a space on each side and a line.
    let lines = 3;
    let all = (0..fields.len()).map(|c| Shown { column: Some(c), width: sizes[c].1 });
    let mut shown: Vec<Shown> = all.collect();
    let mut used = 1 + shown.iter().map(|s| s.width + lines).sum::<usize>();
    if used > terminal {
        let (mut left, mut right) = (vec![], vec![]);
        used = 1 + width(MORE) + lines;
        let mut between = std::collections::VecDeque::from(shown);
        loop {
            let take_left = left.len() <= right.len();
            let next = if take_left { between.pop_front() } else { between.pop_back() };
            // The first column is shown however narrow the terminal.
            let Some(next) = next.filter(|n| left.is_empty() || used + n.width + lines <= terminal) else {
                break;
            };
            used += next.width + lines;
            if take_left { left.push(next) } else { right.push(next) }
        }
        right.reverse();
        shown = [left, vec![Shown { column: None, width: width(MORE) }], right].concat();
    }
    // The room that is left goes to those who want least of it first, in equal shares.
    let natural = |s: &Shown| s.column.map_or(s.width, |c| sizes[c].0);
    let mut wanting: Vec<usize> = (0..shown.len()).filter(|&i| shown[i].width < natural(&shown[i])).collect();
    wanting.sort_by_key(|&i| natural(&shown[i]) - shown[i].width);
    let mut room = terminal.saturating_sub(used);
    for (served, &i) in wanting.iter().enumerate() {
        let share = (room / (wanting.len() - served)).min(natural(&shown[i]) - shown[i].width);
        shown[i].width += share;
        room -= share;
    }
    shown
}

fn build(rows: Rows<'_>, cells: &[Vec<String>], layout: &Layout) -> Table {
    let fields = rows.schema.fields();
    let shown = match layout.width {
        Some(terminal) => fit(rows, cells, terminal),
        None => (0..fields.len()).map(|c| Shown { column: Some(c), width: usize::MAX }).collect(),
    };
    let mut table = Table::new();
    table.load_preset(PRESET).set_content_arrangement(ContentArrangement::Disabled);
    let line = |text: &dyn Fn(usize, usize) -> String| {
        let cell = |s: &Shown| match s.column {
            Some(c) if is_numeric(fields[c].data_type()) => {
                Cell::new(text(c, s.width)).set_alignment(CellAlignment::Right)
            }
            Some(c) => Cell::new(text(c, s.width)),
            None => Cell::new(MORE),
        };
        shown.iter().map(cell).collect::<Vec<_>>()
    };
    table.set_header(line(&|c, width| {
        let (name, type_) = (escape_control(fields[c].name()), type_name(fields[c].data_type()));
        format!("{}\n{}", cut(&name, width), cut(&type_, width))
    }));
    for row in cells {
        table.add_row(line(&|c, width| cut(&row[c], width)));
    }
    table
}

/// Columns of the terminal that a text takes.
fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    // The table knows which characters are wide and which take no room at all.
    let mut table = Table::new();
    table.add_row([text]);
    table.column_max_content_widths().first().map_or(0, |&w| usize::from(w))
}

/// The text, or as much of its beginning as fits before a mark that there is more.
fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    let fits = ends.partition_point(|&end| width(&text[..end]) < most);
    let end = fits.checked_sub(1).map_or(0, |i| ends[i]);
    format!("{}{MORE}", text[..end].trim_end())
}

/// Text that cannot move the cursor, change colours or break a line.
pub fn escape_control(text: &str) -> String {
    let escaped = match text.chars().any(char::is_control) {
        true => Cow::Owned(text.chars().fold(String::new(), |s, c| match c {
            c if c.is_control() => s + &c.escape_default().to_string(),
            c => s + c.encode_utf8(&mut [0; 4]),
        })),
        false => Cow::Borrowed(text),
    };
    escaped.into_owned()
}

/// `1 row`, `60,175 rows`.
pub fn count(n: u64, what: &str) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {what}{}", if n == 1 { "" } else { "s" })
}

/// A duration as a person reads it.
pub fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        s if s < 0.1 => format!("{:.4} s", s),
        s if s < 60.0 => format!("{s:.3} s"),
        s => format!("{:.0} min {:.1} s", (s / 60.0).floor(), s % 60.0),
    }
}

#[cfg(test)]
mod tests;
