//! Empty inputs, overflow, rounding, and what is computed once.

use arrow::array::{ArrayRef, Decimal64Array, Decimal128Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Schema};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::Aggregate;

use super::*;

fn one_column(arrays: Vec<ArrayRef>, logical: DataType) -> (SchemaRef, Vec<Batch>, Expr) {
    let schema = Arc::new(Schema::new(vec![Field::new("v", logical.clone(), true)]));
    let batches = arrays.into_iter().map(|a| Batch::from_arrays(vec![a.clone()], a.len())).collect();
    (schema, batches, Expr::column(0, logical))
}

fn ungrouped(functions: &[&str], arrays: Vec<ArrayRef>, logical: DataType) -> Result<Vec<ScalarValue>> {
    let (schema, batches, column) = one_column(arrays, logical);
    let calls = functions.iter().map(|f| call(f, vec![column.clone()])).collect();
    let aggregate = Aggregate { group_by: vec![], calls };
    let one = single(&aggregate, &schema, &batches);
    let two = two_phases(&aggregate, &schema, &batches, 2, 3, PartialLimits::default());
    match (one, two) {
        (Ok(mut one), Ok(two)) => {
            assert_eq!(one, two);
            assert_eq!(one.len(), 1);
            Ok(one.remove(0))
        }
        (Err(one), Err(two)) => {
            assert_eq!(one.to_string(), two.to_string());
            Err(one)
        }
        (one, two) => panic!("{one:?} in one phase, {two:?} in two"),
    }
}

#[test]
fn no_rows() {
    let functions = ["count", "sum", "avg", "min", "max", "median", "first_value", "array_agg"];
    let logical = DataType::Decimal128(10, 2);
    let nothing = ungrouped(&functions, vec![], logical.clone()).unwrap();
    assert_eq!(nothing[0], ScalarValue::Int64(Some(0)));
    assert!(nothing[1..].iter().all(ScalarValue::is_null), "{nothing:?}");
    let empty: ArrayRef =
        Arc::new(Decimal64Array::from(vec![0i64; 0]).with_data_type(DataType::Decimal64(10, 2)));
    assert_eq!(ungrouped(&functions, vec![empty], logical.clone()).unwrap(), nothing);
    let (schema, batches, column) = one_column(vec![], logical);
    let grouped = Aggregate { group_by: vec![column.clone()], calls: vec![call("count", vec![column])] };
    assert!(single(&grouped, &schema, &batches).unwrap().is_empty());
    assert!(two_phases(&grouped, &schema, &batches, 1, 2, PartialLimits::default()).unwrap().is_empty());
}

#[test]
fn only_the_first_partition_answers_without_keys() {
    let (schema, batches, column) = one_column(vec![], DataType::Int64);
    let aggregate = Aggregate { group_by: vec![], calls: vec![call("count", vec![column])] };
    let rows = |first| {
        let input = ExchangeReader::of_batches(batches.clone());
        drain(&aggregate, single_source(&aggregate, &schema, input, first, &context()).unwrap())
    };
    assert_eq!(rows(true).unwrap().len(), 1);
    assert!(rows(false).unwrap().is_empty());
}

#[test]
fn only_nulls() {
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    let found = ungrouped(&["count", "sum", "min", "any_value"], vec![nulls], DataType::Int64).unwrap();
    assert_eq!(found[0], ScalarValue::Int64(Some(0)));
    assert!(found[1..].iter().all(ScalarValue::is_null), "{found:?}");
}

#[test]
fn sums_overflow_only_at_the_end() {
    let up: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 5, 7]));
    let down: ArrayRef = Arc::new(Int64Array::from(vec![-20]));
    let found = ungrouped(&["sum"], vec![up.clone(), down], DataType::Int64).unwrap();
    assert_eq!(found, [ScalarValue::Int64(Some(i64::MAX - 8))]);
    let error = ungrouped(&["sum"], vec![up], DataType::Int64).unwrap_err();
    assert!(error.to_string().contains("out of the range of Int64"), "{error}");
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX - 1, 1]));
    let found = ungrouped(&["sum"], vec![unsigned.clone()], DataType::UInt64).unwrap();
    assert_eq!(found, [ScalarValue::UInt64(Some(u64::MAX))]);
    assert!(ungrouped(&["sum"], vec![unsigned.clone(), unsigned], DataType::UInt64).is_err());
}

#[test]
fn decimal_sums_and_averages() {
    let narrow = DataType::Decimal64(18, 2);
    let nines = 999_999_999_999_999_999i64;
    let array: ArrayRef = Arc::new(Decimal64Array::from(vec![nines; 100]).with_data_type(narrow));
    let found = ungrouped(&["sum", "avg"], vec![array.clone(), array], DataType::Decimal128(18, 2)).unwrap();
    assert_eq!(found[0], ScalarValue::Decimal128(Some(i128::from(nines) * 200), 28, 2));
    assert_eq!(found[1], ScalarValue::Decimal128(Some(i128::from(nines) * 10_000), 22, 6));
    // Averages are cut, not rounded, as the library does.
    let thirds: ArrayRef =
        Arc::new(Decimal128Array::from(vec![-1, -1, 0]).with_data_type(DataType::Decimal128(5, 0)));
    let found = ungrouped(&["avg"], vec![thirds], DataType::Decimal128(5, 0)).unwrap();
    assert_eq!(found, [ScalarValue::Decimal128(Some(-6666), 9, 4)]);
    let huge = 10i128.pow(38) - 1;
    let huge: ArrayRef =
        Arc::new(Decimal128Array::from(vec![huge, 1]).with_data_type(DataType::Decimal128(38, 0)));
    let error = ungrouped(&["sum"], vec![huge], DataType::Decimal128(38, 0)).unwrap_err();
    assert!(error.to_string().contains("out of the range"), "{error}");
}

#[test]
fn equal_parts_of_calls_run_once() {
    let column = Expr::column(0, DataType::Decimal128(10, 2));
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("v", column.data_type(), true)]));
    let one = Expr::literal(ScalarValue::Int64(Some(1)));
    let calls = vec![
        call("sum", vec![column.clone()]),
        call("avg", vec![column.clone()]),
        call("count", vec![column]),
        call("count", vec![one]),
    ];
    let shape = Shape::new(&Aggregate { group_by: vec![], calls }, &schema).unwrap();
    // A sum, a count of rows, a count of nulls.
    assert_eq!(shape.units.len(), 3);
}

#[test]
fn results_leave_in_batches() {
    let (schema, batches, column) =
        one_column(vec![Arc::new(Int64Array::from_iter_values(0..20_000))], DataType::Int64);
    let aggregate = Aggregate { group_by: vec![column.clone()], calls: vec![call("sum", vec![column])] };
    let mut source =
        single_source(&aggregate, &schema, ExchangeReader::of_batches(batches), true, &context()).unwrap();
    let mut sizes = vec![];
    while let Some(batch) = source.next().unwrap() {
        sizes.push(batch.rows);
    }
    assert_eq!(sizes, [8192, 8192, 3616]);
}
