//! Window functions against their definitions.

mod definitions;

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{Expr, Literal};
use dovetail_planner::physical::{FrameBound, FrameUnits, SortKey, Window, WindowCall, WindowFrame};

use self::definitions::*;
use super::source;
use crate::batch::Batch;
use crate::error::Result;
use crate::exchange::ExchangeReader;
use crate::operators::harness::{Random, drain, rows, task};

fn column(index: usize) -> Expr {
    Expr::column(index, schema(&DataType::Int64).field(index).data_type().clone())
}

fn int(value: i64) -> Expr {
    Expr::literal(ScalarValue::Int64(Some(value)))
}

fn call(function: &str, args: Vec<Expr>, output: DataType, frame: &WindowFrame) -> WindowCall {
    let proper = ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"];
    let proper = proper.contains(&function) || ["first_value", "last_value", "nth_value"].contains(&function);
    WindowCall {
        function: function.into(),
        aggregate: !proper,
        args,
        frame: frame.clone(),
        distinct: false,
        filter: None,
        ignore_nulls: false,
        output: Arc::new(Field::new("x", output, true)),
    }
}

fn whole() -> WindowFrame {
    let (start, end) = (FrameBound::UnboundedPreceding, FrameBound::UnboundedFollowing);
    WindowFrame { units: FrameUnits::Rows, start, end }
}

/// All functions that look at frames, over one frame.
fn framed(frame: &WindowFrame, distinct_slides: bool) -> Vec<WindowCall> {
    let decimal = |p, s| DataType::Decimal128(p, s);
    let mut calls = vec![
        call("count", vec![int(1)], DataType::Int64, frame),
        call("count", vec![column(TEXT)], DataType::Int64, frame),
        call("sum", vec![column(INT)], DataType::Int64, frame),
        call("sum", vec![column(FLOAT)], DataType::Float64, frame),
        call("sum", vec![column(DECIMAL)], decimal(22, 2), frame),
        call("avg", vec![column(FLOAT)], DataType::Float64, frame),
        call("avg", vec![column(DECIMAL)], decimal(16, 6), frame),
        call("min", vec![column(TEXT)], DataType::Utf8View, frame),
        call("max", vec![column(FLOAT)], DataType::Float64, frame),
        call("max", vec![column(DECIMAL)], decimal(12, 2), frame),
        call("bool_and", vec![column(FLAG)], DataType::Boolean, frame),
        call("median", vec![column(FLOAT)], DataType::Float64, frame),
        call(
            "array_agg",
            vec![column(INT)],
            DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))),
            frame,
        ),
        call("first_value", vec![column(TEXT)], DataType::Utf8View, frame),
        call("last_value", vec![column(INT)], DataType::Int64, frame),
        call("nth_value", vec![column(INT), int(2)], DataType::Int64, frame),
        call("nth_value", vec![column(INT), int(-2)], DataType::Int64, frame),
    ];
    let plain = calls.clone();
    for mut call in plain {
        if call.aggregate {
            call.filter = Some(column(FLAG));
            calls.push(call.clone());
            let slides = matches!(call.function.as_str(), "count" | "sum" | "min")
                && *call.output.data_type() != DataType::Float64;
            if call.function != "array_agg" && (distinct_slides || slides) {
                call.distinct = true;
                calls.push(call.clone());
                call.filter = None;
                calls.push(call);
            }
        } else {
            call.ignore_nulls = true;
            calls.push(call);
        }
    }
    calls
}

fn order_key(order: &DataType, descending: bool, nulls_first: bool) -> SortKey {
    SortKey { expr: Expr::column(ORDER, order.clone()), descending, nulls_first }
}

#[test]
fn functions_of_the_place_in_the_partition() {
    let t = DataType::UInt64;
    let mut calls = vec![
        call("row_number", vec![], t.clone(), &whole()),
        call("rank", vec![], t.clone(), &whole()),
        call("dense_rank", vec![], t.clone(), &whole()),
        call("percent_rank", vec![], DataType::Float64, &whole()),
        call("cume_dist", vec![], DataType::Float64, &whole()),
    ];
    calls.extend([1, 2, 3, 7, 1000].map(|n| call("ntile", vec![int(n)], t.clone(), &whole())));
    for function in ["lag", "lead"] {
        for ignore_nulls in [false, true] {
            let mut add = |args: Vec<Expr>, t: DataType| {
                calls.push(WindowCall { ignore_nulls, ..call(function, args, t, &whole()) })
            };
            add(vec![column(TEXT)], DataType::Utf8View);
            for offset in [0, 1, 3, -2, 100, i64::MIN + 1] {
                add(vec![column(INT), int(offset)], DataType::Int64);
                add(vec![column(INT), int(offset), column(ROW)], DataType::Int64);
            }
        }
    }
    for (i, (partitioned, ordered)) in
        [(true, true), (false, true), (true, false), (false, false)].into_iter().enumerate()
    {
        for n in [1, 2, 150] {
            let order = DataType::Int64;
            let window = Window {
                partition_by: if partitioned { vec![column(PARTITION)] } else { vec![] },
                order_by: if ordered { vec![order_key(&order, i % 2 == 1, n == 2)] } else { vec![] },
                calls: calls.clone(),
            };
            verify(&window, &order, n, 17 + i as u64);
        }
    }
}

/// All frames of one unit with these offsets.
fn frames(units: FrameUnits, offsets: &[ScalarValue]) -> Vec<WindowFrame> {
    use FrameBound::*;
    let literal = |v: &ScalarValue| Literal(v.clone());
    let mut starts = vec![UnboundedPreceding, CurrentRow];
    let mut ends = vec![UnboundedFollowing, CurrentRow];
    for offset in offsets {
        for bounds in [&mut starts, &mut ends] {
            bounds.push(Preceding(literal(offset)));
            bounds.push(Following(literal(offset)));
        }
    }
    let pairs = starts.iter().flat_map(|start| ends.iter().map(move |end| (start.clone(), end.clone())));
    pairs.map(|(start, end)| WindowFrame { units, start, end }).collect()
}

fn verify_frames(units: FrameUnits, order: &DataType, offsets: &[ScalarValue], seed: u64) {
    for (i, frame) in frames(units, offsets).into_iter().enumerate() {
        let anchored = frame.start == FrameBound::UnboundedPreceding;
        let window = Window {
            partition_by: if i % 5 == 0 { vec![] } else { vec![column(PARTITION)] },
            order_by: vec![order_key(order, i % 2 == 1, i % 3 == 0)],
            calls: framed(&frame, anchored),
        };
        verify(&window, order, 40, seed + i as u64);
    }
}

#[test]
fn frames_by_rows() {
    let offsets = [0, 1, 4].map(|n| ScalarValue::UInt64(Some(n)));
    verify_frames(FrameUnits::Rows, &DataType::Int64, &offsets, 100);
}

#[test]
fn frames_by_groups() {
    let offsets = [0, 2].map(|n| ScalarValue::UInt64(Some(n)));
    verify_frames(FrameUnits::Groups, &DataType::Int64, &offsets, 200);
}

#[test]
fn frames_by_range() {
    let interval = |days| IntervalMonthDayNano::new(0, days, 0);
    let offsets: [(DataType, Vec<ScalarValue>); 5] = [
        (DataType::Int64, vec![ScalarValue::Int64(Some(0)), ScalarValue::Int64(Some(3))]),
        (DataType::Int32, vec![ScalarValue::Int32(Some(2))]),
        (DataType::Float64, vec![ScalarValue::Float64(Some(1.5))]),
        (DataType::Date32, vec![ScalarValue::IntervalMonthDayNano(Some(interval(2)))]),
        (DataType::Decimal128(12, 2), vec![ScalarValue::Decimal128(Some(250), 12, 2)]),
    ];
    for (i, (order, offsets)) in offsets.into_iter().enumerate() {
        verify_frames(FrameUnits::Range, &order, &offsets, 300 + 50 * i as u64);
    }
}

#[test]
fn what_is_computed_from_row_to_row() {
    let (t, frame) = (DataType::UInt64, FrameBound::CurrentRow);
    for (i, units) in [FrameUnits::Rows, FrameUnits::Range, FrameUnits::Groups].into_iter().enumerate() {
        let frame = WindowFrame { units, start: FrameBound::UnboundedPreceding, end: frame.clone() };
        let running = framed(&frame, true).into_iter().filter(|call| {
            let known =
                ["count", "sum", "min", "max", "first_value", "last_value"].contains(&&*call.function);
            known && !call.distinct && call.filter.is_none() && !call.ignore_nulls
        });
        let mut calls: Vec<WindowCall> = running.collect();
        calls.extend(["row_number", "rank", "dense_rank"].map(|f| call(f, vec![], t.clone(), &whole())));
        for back in [1, 3] {
            calls.push(call("lag", vec![column(INT), int(back), column(ROW)], DataType::Int64, &frame));
        }
        for partition_by in [vec![], vec![column(PARTITION)]] {
            for ahead in [0, 2] {
                let mut calls = calls.clone();
                if ahead > 0 {
                    calls.push(call("lead", vec![column(TEXT), int(ahead)], DataType::Utf8View, &frame));
                }
                let order_by = vec![order_key(&DataType::Int64, i == 1, i == 2)];
                let window = Window { partition_by: partition_by.clone(), order_by, calls };
                assert!(crate::operators::window::stream::is_streamable(&window));
                for n in [1, 7, 150] {
                    verify(&window, &DataType::Int64, n, 500 + n as u64 + i as u64);
                }
            }
        }
    }
}

#[test]
fn frames_without_order_and_wide_frames() {
    for units in [FrameUnits::Rows, FrameUnits::Range] {
        for frame in frames(units, &[]) {
            if units == FrameUnits::Range || crate::operators::window::is_unbounded(&frame.start) {
                let window = Window { partition_by: vec![], order_by: vec![], calls: framed(&frame, true) };
                verify(&window, &DataType::Int64, 80, 9);
            }
        }
    }
    let wide = ScalarValue::UInt64(Some(60));
    let frame = WindowFrame {
        units: FrameUnits::Rows,
        start: FrameBound::Preceding(Literal(wide.clone())),
        end: FrameBound::Following(Literal(wide)),
    };
    let order_by = vec![order_key(&DataType::Int64, false, false)];
    let window = Window { partition_by: vec![], order_by, calls: framed(&frame, false) };
    verify(&window, &DataType::Int64, 300, 10);
}

#[test]
fn months_and_hours_around_dates() {
    let day = |text: &str| ScalarValue::try_from_string(text.to_string(), &DataType::Date32).unwrap();
    let dates = ["2024-01-31", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-31"].map(day);
    let count = |interval: IntervalMonthDayNano| -> Vec<String> {
        let dates = ScalarValue::iter_to_array(dates.clone()).unwrap();
        let frame = WindowFrame {
            units: FrameUnits::Range,
            start: FrameBound::Preceding(Literal(ScalarValue::IntervalMonthDayNano(Some(interval)))),
            end: FrameBound::CurrentRow,
        };
        let window = Window {
            partition_by: vec![],
            order_by: vec![SortKey {
                expr: Expr::column(0, DataType::Date32),
                descending: false,
                nulls_first: false,
            }],
            calls: vec![call("count", vec![int(1)], DataType::Int64, &frame)],
        };
        let schema = Arc::new(Schema::new(vec![Field::new("d", DataType::Date32, true)]));
        let output = drain(
            source(
                &window,
                &schema,
                ExchangeReader::of_batches(vec![Batch::from_arrays(vec![dates], 5)]),
                &task(0, 1),
            )
            .unwrap(),
        )
        .unwrap();
        rows(&output).into_iter().map(|r| r[1].to_string()).collect()
    };
    assert_eq!(count(IntervalMonthDayNano::new(1, 0, 0)), ["1", "2", "3", "3", "3"]);
    assert_eq!(count(IntervalMonthDayNano::new(0, 0, 3_600_000_000_000)), ["1"; 5]);
    assert_eq!(count(IntervalMonthDayNano::new(0, 1, 0)), ["1", "1", "2", "2", "1"]);
}

fn sum_of(values: Vec<i64>, frame: &WindowFrame) -> Result<Vec<String>> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let arg = Expr::column(0, DataType::Int64);
    let calls = vec![call("sum", vec![arg], DataType::Int64, frame)];
    let window = Window { partition_by: vec![], order_by: vec![], calls };
    let rows_in = values.len();
    let batch = Batch::from_arrays(vec![Arc::new(Int64Array::from(values))], rows_in);
    let output = drain(source(&window, &schema, ExchangeReader::of_batches(vec![batch]), &task(0, 1))?)?;
    Ok(rows(&output).into_iter().map(|r| r[1].to_string()).collect())
}

#[test]
fn overflow_is_an_error_only_in_a_result() {
    let huge = vec![i64::MAX, 1, -1, i64::MAX];
    let error = sum_of(huge.clone(), &whole()).unwrap_err().to_string();
    assert!(error.starts_with("arithmetic overflow"), "{error}");
    let two = FrameBound::Preceding(Literal(ScalarValue::UInt64(Some(1))));
    let frame = WindowFrame { units: FrameUnits::Rows, start: two, end: FrameBound::CurrentRow };
    assert!(sum_of(huge, &frame).is_err());
    let fits = sum_of(vec![i64::MAX, -1, 1, i64::MIN], &frame).unwrap();
    let expected = [i64::MAX, i64::MAX - 1, 0, i64::MIN + 1].map(|v| v.to_string());
    assert_eq!(fits, expected);
}

#[test]
fn no_rows_and_refusals() {
    let schema = schema(&DataType::Int64);
    let mut window = Window {
        partition_by: vec![],
        order_by: vec![],
        calls: vec![call("rank", vec![], DataType::UInt64, &whole())],
    };
    assert!(
        drain(source(&window, &schema, ExchangeReader::of_batches(vec![]), &task(0, 1)).unwrap())
            .unwrap()
            .is_empty()
    );
    window.calls[0].distinct = true;
    assert!(
        source(&window, &schema, ExchangeReader::of_batches(vec![]), &task(0, 1))
            .err()
            .unwrap()
            .to_string()
            .starts_with("DISTINCT with")
    );

    let negative = FrameBound::Preceding(Literal(ScalarValue::Int64(Some(-1))));
    for (units, message) in
        [(FrameUnits::Rows, "not a number of rows"), (FrameUnits::Range, "null or negative")]
    {
        let frame = WindowFrame { units, start: negative.clone(), end: FrameBound::CurrentRow };
        let window = Window {
            partition_by: vec![],
            order_by: vec![order_key(&DataType::Int64, false, false)],
            calls: vec![call("count", vec![int(1)], DataType::Int64, &frame)],
        };
        let input = input(5, &DataType::Int64, &mut Random(1));
        let error = drain(source(&window, &schema, ExchangeReader::of_batches(input), &task(0, 1)).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}
