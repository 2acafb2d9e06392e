//! A value as text: the same in every format and in the conformance suite.
//!
//! Integers and decimals are written in full (decimals with all digits of their scale), floats as the
//! shortest text that reads back as the same number, dates and times in ISO order with a space between
//! (`2026-03-01 12:30:00`, with six digits of fraction if there is one, nine if nanoseconds need them),
//! lists as `[1, 2]`, structs as `{a: 1, b: x}`. Text inside lists and structs is quoted where it would
//! be ambiguous. NULL is the caller's business, except inside a nested value.

use std::fmt::Write;

use anyhow::Result;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, IntervalMonthDayNanoArray, MapArray,
    StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Writes the values of one array as text.
pub struct Printer<'a> {
    array: &'a dyn Array,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Interval(&'a IntervalMonthDayNanoArray),
    /// Text, which is quoted inside nested values.
    Text(ArrayFormatter<'a>),
    /// With nine digits of fraction, to be shortened.
    Time(ArrayFormatter<'a>),
    /// Everything that Arrow writes the way we want.
    Arrow(ArrayFormatter<'a>),
    Struct(&'a StructArray, Vec<Printer<'a>>),
    Map(&'a MapArray, Box<Printer<'a>>, Box<Printer<'a>>),
    /// A list in any layout, one value at a time.
    List(&'a dyn Array),
    /// A dictionary, run-end or rarer interval array in its plain form, which `value` reads.
    Plain(ArrayRef),
}

impl<'a> Printer<'a> {
    /// For the values of `array`.
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        let arrow = |array| ArrayFormatter::try_new(array, &FORMAT);
        let kind = match array.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Boolean(array.as_boolean()),
            DataType::Float32 => Kind::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Kind::Float64(array.as_primitive::<Float64Type>()),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Kind::Interval(array.as_primitive::<IntervalMonthDayNanoType>())
            }
            DataType::Interval(_) | DataType::Duration(_) => {
                Kind::Plain(cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?)
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text(arrow(array)?),
            DataType::Timestamp(_, _) | DataType::Time32(_) | DataType::Time64(_) => {
                Kind::Time(arrow(array)?)
            }
            DataType::Date64 => Kind::Plain(cast(array, &DataType::Date32)?),
            DataType::Dictionary(_, values) => Kind::Plain(cast(array, values)?),
            DataType::RunEndEncoded(_, values) => Kind::Plain(cast(array, values.data_type())?),
            DataType::Struct(_) => {
                let array = array.as_struct();
                let fields = array.columns().iter().map(|c| Printer::new(c)).collect::<Result<_>>()?;
                Kind::Struct(array, fields)
            }
            DataType::Map(_, _) => {
                let array = array.as_map();
                let (keys, values) = (Printer::new(array.keys())?, Printer::new(array.values())?);
                Kind::Map(array, Box::new(keys), Box::new(values))
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(_, _)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => Kind::List(array),
            _ => Kind::Arrow(arrow(array)?),
        };
        Ok(Printer { array, kind })
    }

    /// Whether row `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Plain(plain) => plain.is_null(row),
            _ => self.array.is_null(row),
        }
    }

    /// Appends row `row`, which must not be NULL.
    pub fn write(&self, row: usize, out: &mut String) -> Result<()> {
        match &self.kind {
            Kind::Null => {}
            Kind::Boolean(a) => out.push_str(if a.value(row) { "true" } else { "false" }),
            Kind::Float32(a) => write!(out, "{:?}", a.value(row))?,
            Kind::Float64(a) => write!(out, "{:?}", a.value(row))?,
            Kind::Interval(a) => {
                let v = a.value(row);
                write_interval(v.months, v.days, v.nanoseconds, out)?;
            }
            Kind::Text(f) | Kind::Arrow(f) => f.value(row).write(out)?,
            Kind::Time(f) => {
                let start = out.len();
                f.value(row).write(out)?;
                shorten_fraction(start, out);
            }
            Kind::Struct(a, fields) => {
                out.push('{');
                for (i, (name, field)) in a.column_names().iter().zip(fields).enumerate() {
                    write!(out, "{}{name}: ", if i == 0 { "" } else { ", " })?;
                    field.write_nested(row, out)?;
                }
                out.push('}');
            }
            Kind::Map(a, keys, values) => {
                let (from, to) = (a.value_offsets()[row] as usize, a.value_offsets()[row + 1] as usize);
                out.push('{');
                for i in from..to {
                    out.push_str(if i == from { "" } else { ", " });
                    keys.write_nested(i, out)?;
                    out.push_str(": ");
                    values.write_nested(i, out)?;
                }
                out.push('}');
            }
            Kind::List(a) => {
                let items = list_items(*a, row);
                let printer = Printer::new(&items)?;
                out.push('[');
                for i in 0..items.len() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    printer.write_nested(i, out)?;
                }
                out.push(']');
            }
            Kind::Plain(plain) => Printer::new(plain)?.write(row, out)?,
        }
        Ok(())
    }

    fn write_nested(&self, row: usize, out: &mut String) -> Result<()> {
        if self.is_null(row) {
            out.push_str("NULL");
            return Ok(());
        }
        let start = out.len();
        self.write(row, out)?;
        if matches!(self.kind, Kind::Text(_)) && is_ambiguous(&out[start..]) {
            let quoted = format!("'{}'", out[start..].replace('\'', "''"));
            out.replace_range(start.., &quoted);
        }
        Ok(())
    }
}

/// The items of a list in any of Arrow's layouts.
pub fn list_items(array: &dyn Array, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        _ => array.as_fixed_size_list().value(row),
    }
}

const FORMAT: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(false)
    .with_time_format(Some("%H:%M:%S%.9f"))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.9f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.9f%:z"));

/// Nine digits of fraction to six, or to none, where the dropped ones are zero; a time zone may follow.
fn shorten_fraction(start: usize, out: &mut String) {
    let Some(dot) = out[start..].find('.').map(|i| start + i) else {
        return;
    };
    let Some(digits) = out.get(dot + 1..dot + 10) else {
        return;
    };
    if digits.bytes().all(|b| b == b'0') {
        out.replace_range(dot..dot + 10, "");
    } else if digits.ends_with("000") {
        out.replace_range(dot + 7..dot + 10, "");
    }
}

/// `1 year 2 months 3 days 04:05:06.5`, without the parts that are zero.
fn write_interval(months: i32, days: i32, nanoseconds: i64, out: &mut String) -> Result<()> {
    let start = out.len();
    let mut part = |n: i32, unit: &str| {
        if n != 0 {
            let space = if out.len() > start { " " } else { "" };
            let plural = if n.abs() == 1 { "" } else { "s" };
            // Writing to a string cannot fail.
            let _ = write!(out, "{space}{n} {unit}{plural}");
        }
    };
    part(months / 12, "year");
    part(months % 12, "month");
    part(days, "day");
    if nanoseconds != 0 || out.len() == start {
        let space = if out.len() > start { " " } else { "" };
        let sign = if nanoseconds < 0 { "-" } else { "" };
        let n = nanoseconds.unsigned_abs();
        let (seconds, fraction) = (n / 1_000_000_000, n % 1_000_000_000);
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(out, "{space}{sign}{h:02}:{m:02}:{s:02}")?;
        if fraction != 0 {
            write!(out, "{}", format!(".{fraction:09}").trim_end_matches('0'))?;
        }
    }
    Ok(())
}

/// Whether text inside a list or struct could be read as something else.
fn is_ambiguous(text: &str) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.contains(['\'', '"', ',', ':', '[', ']', '{', '}', '(', ')', '\n', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::{Field, Int32Type, IntervalMonthDayNano};
    use std::sync::Arc;

    fn texts(array: &dyn Array) -> Vec<String> {
        let printer = Printer::new(array).unwrap();
        (0..array.len())
            .map(|i| {
                let mut out = String::new();
                if printer.is_null(i) {
                    return "NULL".to_owned();
                }
                printer.write(i, &mut out).unwrap();
                out
            })
            .collect()
    }

    #[test]
    fn floats_read_back() {
        let a = Float64Array::from(vec![0.1, 1.0, 1e300, -2.5e-9, f64::NAN, f64::INFINITY]);
        assert_eq!(texts(&a), ["0.1", "1.0", "1e300", "-2.5e-9", "NaN", "inf"]);
        assert_eq!(texts(&Float32Array::from(vec![0.1])), ["0.1"]);
    }

    #[test]
    fn decimals_keep_their_scale() {
        let a = Decimal128Array::from(vec![5, -1250, 0]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(texts(&a), ["0.05", "-12.50", "0.00"]);
    }

    #[test]
    fn timestamps_have_no_fraction_six_digits_or_nine() {
        let a = TimestampNanosecondArray::from(vec![0, 500_000_000, 1_700_000_000_000_000_001, -1_000]);
        assert_eq!(
            texts(&a),
            [
                "1970-01-01 00:00:00",
                "1970-01-01 00:00:00.500000",
                "2023-11-14 22:13:20.000000001",
                "1969-12-31 23:59:59.999999"
            ]
        );
        let a = TimestampMicrosecondArray::from(vec![1]).with_timezone("+02:00");
        assert_eq!(texts(&a), ["1970-01-01 02:00:00.000001+02:00"]);
        let times = Time64MicrosecondArray::from(vec![3_723_000_000, 3_723_500_000]);
        assert_eq!(texts(&times), ["01:02:03", "01:02:03.500000"]);
        assert_eq!(texts(&Date32Array::from(vec![0, 19_000])), ["1970-01-01", "2022-01-08"]);
    }

    #[test]
    fn intervals() {
        let v = |m, d, n| IntervalMonthDayNano::new(m, d, n);
        let a = IntervalMonthDayNanoArray::from(vec![
            v(14, 3, 14_706_500_000_000),
            v(0, 0, 0),
            v(-1, 1, -1_000_000_000),
        ]);
        assert_eq!(texts(&a), ["1 year 2 months 3 days 04:05:06.5", "00:00:00", "-1 month 1 day -00:00:01"]);
    }

    #[test]
    fn nested_values() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        assert_eq!(texts(&list), ["[1, NULL]", "NULL", "[]"]);
        let s = StructArray::from(vec![
            (
                Arc::new(Field::new("a", DataType::Int32, true)),
                Arc::new(Int32Array::from(vec![1])) as ArrayRef,
            ),
            (
                Arc::new(Field::new("b", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["it's"])) as ArrayRef,
            ),
        ]);
        assert_eq!(texts(&s), ["{a: 1, b: 'it''s'}"]);
    }

    #[test]
    fn dictionaries_print_their_values() {
        let d: DictionaryArray<Int32Type> = [Some("x"), None, Some("x")].into_iter().collect();
        assert_eq!(texts(&d), ["x", "NULL", "x"]);
        assert_eq!(texts(&NullArray::new(1)), ["NULL"]);
    }
}
