//! Tables as a terminal shows them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};

use super::*;

fn result(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn table(batch: &RecordBatch, layout: &Layout) -> String {
    let mut out = vec![];
    let rows = Rows { schema: &batch.schema(), batches: std::slice::from_ref(batch) };
    write_table(&mut out, rows, layout, None).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_box_with_types_and_numbers_on_the_right() {
    let r = result(vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), Some(20_000), None]))),
        ("name", Arc::new(StringArray::from(vec!["a", "line\nbreak", "\x1b[31mred"]))),
    ]);
    let expected = "\
┌────────┬───────────────┐
│     id │ name          │
│ bigint │ varchar       │
├────────┼───────────────┤
│      1 │ a             │
│  20000 │ line\\nbreak   │
│   NULL │ \\u{1b}[31mred │
└────────┴───────────────┘
3 rows, 2 columns
";
    assert_eq!(table(&r, &Layout::default()), expected);
}

#[test]
fn head_and_tail_of_a_long_result() {
    let r = result(vec![("n", Arc::new(Int64Array::from_iter_values(0..1234)))]);
    let text = table(&r, &Layout { width: None, max_rows: Some(5) });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4 + 6 + 2);
    assert!(lines[6].contains(" 2 ") && lines[7].contains('…') && lines[8].contains(" 1232 "), "{text}");
    assert_eq!(lines.last().unwrap(), &"1,234 rows (5 shown), 1 column");
    assert_eq!(table(&r, &Layout { width: None, max_rows: Some(1234) }).lines().count(), 4 + 1234 + 2);
}

#[test]
fn fits_the_terminal() {
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(300)]));
    let r = result((0..30).map(|i| (["one", "two", "three"][i % 3], long.clone())).collect());
    for width in [40, 80, 133] {
        let text = table(&r, &Layout { width: Some(width), max_rows: None });
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(text.contains("30 columns"));
    }
    // Short columns stay whole beside a long one.
    let r = result(vec![("k", Arc::new(Int64Array::from(vec![1_234_567]))), ("v", long)]);
    let text = table(&r, &Layout { width: Some(50), max_rows: None });
    assert!(text.contains("1234567") && text.contains("x…"), "{text}");
}

#[test]
fn markdown_escapes_bars() {
    let r = result(vec![("a|b", Arc::new(StringArray::from(vec![Some("x|y"), None])))]);
    let mut out = vec![];
    write_markdown(&mut out, Rows { schema: &r.schema(), batches: &[r] }).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "| a\\|b |\n| --- |\n| x\\|y |\n| NULL |\n");
}

#[test]
fn wide_characters_are_cut_by_their_width() {
    assert_eq!(width("漢字"), 4);
    assert_eq!(cut("漢字かな", 5), "漢字…");
    assert_eq!(cut("漢字かな", 4), "漢…");
    assert_eq!(cut("漢字", 4), "漢字");
    assert_eq!(cut("plain text", 7), "plain…");
    assert_eq!(cut("plain text", 1), "…");
}

#[test]
fn numbers_and_dates_are_never_cut() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["some text ".repeat(9)]));
    let r = result(vec![
        ("a_rather_long_name", Arc::new(Int64Array::from(vec![123_456_789_012]))),
        ("text", texts.clone()),
        ("more_text", texts),
        ("day", Arc::new(Date32Array::from(vec![20_000]))),
    ]);
    let text = table(&r, &Layout { width: Some(60), max_rows: None });
    assert!(
        text.contains(" 123456789012 ") && text.contains(" 2024-10-04 ") && !text.contains("│ … │"),
        "{text}"
    );
    assert!(text.lines().all(|l| l.chars().count() <= 60), "{text}");
}
