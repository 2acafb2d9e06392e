//! Nested-loop joins of every kind, with conditions and without.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr};
use dovetail_planner::physical::NestedLoopJoin;

use super::data::{KeyColumn, Random, Spread, Table};
use super::harness::{assert_same_rows, full_row, nested_loop};
use super::hash::KINDS;
use super::reference::{self, Row};

#[test]
fn every_kind_with_and_without_a_condition() {
    let mut random = Random(0xAE57);
    let keys = [KeyColumn { data_type: DataType::Utf8View, spread: Spread::Few(20), null_percent: 10 }];
    for kind in KINDS {
        for (probe_rows, build_rows) in [(0, 5), (5, 0), (40, 1), (300, 70), (3, 20_000), (1, 1)] {
            for condition in [false, true] {
                let probe = Table::random(&mut random, &keys, probe_rows);
                let build = Table::random(&mut random, &keys, build_rows);
                let v = |i| Box::new(Expr::column(i, DataType::Int64));
                let condition = condition.then(|| Expr::Binary {
                    op: BinaryOp::Gt,
                    left: v(2),
                    right: v(5),
                    data_type: DataType::Boolean,
                });
                let width = full_row(kind, &probe.schema, &build.schema).len();
                let output: Vec<usize> = (0..width).filter(|_| random.chance(70)).collect();
                let join = NestedLoopJoin { kind, condition: condition.clone(), output: output.clone() };
                let value = |r: &Row| match r[2] {
                    ScalarValue::Int64(v) => v,
                    _ => panic!("v is an integer"),
                };
                let passes = |p: &Row, b: &Row| {
                    condition.is_none() || value(p).zip(value(b)).is_some_and(|(p, b)| p > b)
                };
                let nulls = |t: &Table| -> Row {
                    t.schema.fields().iter().map(|f| ScalarValue::try_from(f.data_type()).unwrap()).collect()
                };
                let expected = reference::join(
                    kind,
                    false,
                    &probe.rows,
                    &build.rows,
                    (&nulls(&probe), &nulls(&build)),
                    &|_, _| Some(true),
                    &passes,
                );
                let tasks = 1 + random.below(3);
                let (p, b) = (probe.batches(&mut random), build.batches(&mut random));
                let actual = nested_loop(&join, (&probe.schema, p), (&build.schema, b), tasks);
                let context = format!("{kind:?}, {probe_rows} x {build_rows} rows, {condition:?}");
                assert_same_rows(actual, expected, &output, &context);
            }
        }
    }
}
