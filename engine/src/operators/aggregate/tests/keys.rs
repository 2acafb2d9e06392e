//! Group keys of every type, alone and together.

use arrow::array::UInt32Array;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::Aggregate;

use super::data::{KEYS, Random, batches, column, schema};
use super::reference::reference;
use super::*;
use crate::batch::Column;

fn check(group_by: Vec<Expr>, batches: &[Batch], what: &str) {
    let calls = vec![
        call("count", vec![Expr::literal(ScalarValue::Int64(Some(1)))]),
        call("sum", vec![column("v_int")]),
        call("avg", vec![column("v_decimal")]),
        call("min", vec![column("v_text")]),
    ];
    let aggregate = Aggregate { group_by, calls };
    let keys = aggregate.group_by.len();
    let expected = reference(&aggregate, &schema(), batches);
    assert_same(single(&aggregate, &schema(), batches).unwrap(), expected.clone(), keys, what);
    for (limits, partitions) in
        [(PartialLimits::default(), 1), (tight(20, 2.0), 3), (tight(5, 0.01), 4), (tight(30, 0.3), 2)]
    {
        let found = two_phases(&aggregate, &schema(), batches, 2, partitions, limits).unwrap();
        assert_same(found, expected.clone(), keys, &format!("{what}, {limits:?}"));
    }
}

#[test]
fn one_key_of_every_type() {
    for (i, key) in KEYS.iter().enumerate() {
        for (nulls, distinct) in [(0, 4), (10, 30), (10, 300)] {
            check(vec![column(key)], &batches(i as u64 + distinct, 6, 150, nulls, distinct), key);
        }
    }
}

#[test]
fn several_keys() {
    let mut random = Random::new(7);
    for round in 0..40 {
        let count = 2 + random.below(5) as usize;
        let keys: Vec<&str> = (0..count).map(|_| KEYS[random.below(KEYS.len() as u64) as usize]).collect();
        let nulls = if random.below(2) == 0 { 0 } else { 20 };
        let distinct = [2, 3, 10][random.below(3) as usize];
        check(
            keys.iter().map(|k| column(k)).collect(),
            &batches(round, 5, 120, nulls, distinct),
            &keys.join(","),
        );
    }
}

#[test]
fn more_keys_than_four_words_hold() {
    let keys: Vec<Expr> = KEYS.iter().chain(&KEYS).map(|k| column(k)).collect();
    check(keys, &batches(3, 4, 100, 10, 2), "all keys twice");
    let wide: Vec<Expr> = (0..9).map(|_| column("wide")).collect();
    check(wide, &batches(4, 4, 100, 10, 50), "nine wide keys");
}

/// Keys that come from one table through row numbers, as from a join, some rows without a match.
#[test]
fn keys_from_one_table() {
    for (nulls, table_rows) in [(0, 40), (20, 40), (10, 2000)] {
        let mut random = Random::new(nulls + 3);
        let table = &batches(21, 1, table_rows, 10, 30)[0];
        let probe = batches(22, 6, 150, 10, 10);
        let names = schema();
        let from_table = ["text", "date", "decimal", "list"].map(|n| names.index_of(n).unwrap());
        let joined: Vec<Batch> = probe
            .iter()
            .map(|batch| {
                let rows = (0..batch.rows)
                    .map(|_| (random.below(100) >= nulls).then(|| random.below(table_rows as u64) as u32));
                let rows = Arc::new(UInt32Array::from_iter(rows));
                let mut batch = batch.clone();
                for i in from_table {
                    batch.columns[i] = Column::indexed(table.columns[i].values().unwrap(), rows.clone());
                }
                batch
            })
            .collect();
        for keys in [vec!["text", "date"], vec!["text", "int", "list", "bool", "decimal"], vec!["date"]] {
            check(keys.iter().map(|k| column(k)).collect(), &joined, &format!("{keys:?} of {table_rows}"));
            // Then the table is another, then none.
            let mixed: Vec<Batch> = joined.iter().chain(&probe).chain(&joined[..2]).cloned().collect();
            check(keys.iter().map(|k| column(k)).collect(), &mixed, &format!("{keys:?} of several"));
        }
    }
}

#[test]
fn columns_of_nulls() {
    check(vec![column("text"), column("int")], &batches(5, 3, 50, 100, 5), "all null");
    let mut all = batches(6, 2, 50, 100, 5);
    all.extend(batches(7, 2, 50, 0, 50));
    all.extend(batches(8, 2, 50, 100, 5));
    let keys = KEYS.iter().map(|k| column(k)).collect();
    check(keys, &all, "null, then not, then null");
    let null = Expr::literal(ScalarValue::Null);
    check(vec![null, column("int")], &batches(9, 2, 50, 10, 5), "the null type");
}

#[test]
fn values_that_rise_and_jump() {
    use arrow::array::{ArrayRef, Int64Array};
    let make = |values: Vec<i64>| {
        let rows = values.len();
        Batch::from_arrays(vec![Arc::new(Int64Array::from(values)) as ArrayRef], rows)
    };
    let rising: Vec<Batch> = (0..40).map(|b| make((0..500).map(|i| (b * 500 + i) / 4).collect())).collect();
    let jumps = vec![
        make(vec![5, 6, 5]),
        make(vec![-1, 5, 7]),
        make(vec![i64::MAX, 7, 6]),
        make(vec![i64::MIN, 0, i64::MAX]),
        make(vec![7, i64::MIN, -1, i64::MAX - 1]),
    ];
    let schema: SchemaRef =
        Arc::new(arrow::datatypes::Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    let key = Expr::column(0, DataType::Int64);
    let aggregate = Aggregate { group_by: vec![key.clone()], calls: vec![call("count", vec![key])] };
    for batches in [rising, jumps] {
        let expected = reference(&aggregate, &schema, &batches);
        assert_same(single(&aggregate, &schema, &batches).unwrap(), expected.clone(), 1, "single");
        for limits in [PartialLimits::default(), tight(1000, 0.2), tight(3, 0.5)] {
            let found = two_phases(&aggregate, &schema, &batches, 2, 3, limits).unwrap();
            assert_same(found, expected.clone(), 1, "two phases");
        }
    }
}
