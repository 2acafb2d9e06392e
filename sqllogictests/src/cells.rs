//! One format for values, on our side and in `generate.py`, so that results compare as text.
//!
//! - A column's type is `I` (integers), `R` (floats and decimals) or `T` (everything else).
//! - NULL is `NULL`, the empty text `(empty)`.
//! - Decimals have no trailing zeros: `1.50` is `1.5`, `2.00` is `2`.
//! - Floats have ten significant digits, and an exponent only outside 1e-5 .. 1e16: `0.3333333333`,
//!   `1e20`, `2.5e-7`, `NaN`, `Infinity`, `-Infinity`. Sums of floats may differ in the last bits with the order
//!   of the rows; ten digits do not show it.
//! - Text that begins or ends with a space, or has control characters, is a JSON string: `"a\n "`.
//! - Dates, times, intervals, lists and structs are as the shell prints them.
//! - Values of a row stand apart by one tab.

use anyhow::Result;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use dovetail_cli::format::is_numeric;
use dovetail_cli::format::value::Printer;
use sqllogictest::DefaultColumnType;

/// The letter for a column.
pub fn column_type(t: &DataType) -> DefaultColumnType {
    match t {
        DataType::Dictionary(_, v) => column_type(v),
        t if t.is_integer() => DefaultColumnType::Integer,
        t if is_numeric(t) => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// All values of a column as text.
pub fn column_texts(array: &dyn Array) -> Result<Vec<String>> {
    let floats = match array.data_type() {
        t if t.is_floating() => Some(cast(array, &DataType::Float64)?),
        _ => None,
    };
    let decimal = matches!(column_type(array.data_type()), DefaultColumnType::FloatingPoint);
    let printer = Printer::new(array)?;
    let text = |row: usize| -> Result<String> {
        if printer.is_null(row) {
            return Ok("NULL".to_owned());
        }
        if let Some(floats) = &floats {
            return Ok(float(floats.as_primitive::<Float64Type>().value(row)));
        }
        let mut text = String::new();
        printer.write(row, &mut text)?;
        Ok(if decimal { without_trailing_zeros(&text).to_owned() } else { plain(text) })
    };
    (0..array.len()).map(text).collect()
}

/// Ten significant digits.
fn float(v: f64) -> String {
    if !v.is_finite() {
        return if v.is_nan() { "NaN" } else { ["Infinity", "-Infinity"][usize::from(v < 0.0)] }.to_owned();
    }
    if v == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{v:.9e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-5..16).contains(&exponent) {
        return format!("{}e{exponent}", without_trailing_zeros(digits));
    }
    let decimals = (9 - exponent).max(0) as usize;
    // From ten digits on, the rest are zeros: 1234567890123 is 1234567890000.
    let rounded: f64 = scientific.parse().unwrap_or(v);
    without_trailing_zeros(&format!("{rounded:.decimals$}")).to_owned()
}

fn without_trailing_zeros(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// Text as it is, unless that would be ambiguous in a file of lines.
fn plain(text: String) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    if !text.starts_with(' ') && !text.ends_with(' ') && !text.chars().any(char::is_control) {
        return text;
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float64Array, StringArray};

    #[test]
    fn floats() {
        let values = vec![
            0.1 + 0.2,
            1.0 / 3.0,
            -2.0,
            1e20,
            2.5e-7,
            1234567890123.4,
            0.0,
            -0.0,
            f64::NAN,
            1e15,
            0.00001,
        ];
        assert_eq!(
            column_texts(&Float64Array::from(values)).unwrap(),
            [
                "0.3",
                "0.3333333333",
                "-2",
                "1e20",
                "2.5e-7",
                "1234567890000",
                "0",
                "0",
                "NaN",
                "1000000000000000",
                "0.00001"
            ]
        );
    }

    #[test]
    fn decimals_and_text() {
        let d =
            Decimal128Array::from(vec![Some(150), Some(200), Some(-5), None]).with_precision_and_scale(10, 2);
        assert_eq!(column_texts(&d.unwrap()).unwrap(), ["1.5", "2", "-0.05", "NULL"]);
        let s = StringArray::from(vec!["a b", "", " a", "x\ty", "1.50"]);
        assert_eq!(column_texts(&s).unwrap(), ["a b", "(empty)", "\" a\"", "\"x\\ty\"", "1.50"]);
    }
}
