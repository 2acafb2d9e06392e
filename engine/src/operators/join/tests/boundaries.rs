//! Which index a table gets, at the edges; and tasks that stop early.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{HashJoin, JoinKind};

use super::super::probe_factory;
use super::data::Random;
use super::harness::{Collected, build, run, task};
use crate::batch::Batch;
use crate::task::Flow;

fn int_join(kind: JoinKind, output: Vec<usize>) -> HashJoin {
    let key = Expr::column(0, DataType::Int64);
    HashJoin {
        kind,
        keys: vec![(key.clone(), key)],
        null_equal: false,
        null_aware: false,
        residual: None,
        output,
        runtime_filters: vec![(0, 0)],
    }
}

fn schema(data_type: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", data_type, true)]))
}

fn batch(keys: &[i64]) -> Batch {
    Batch::from_arrays(vec![Arc::new(Int64Array::from(keys.to_vec()))], keys.len())
}

/// Inner join of single-column tables: number of pairs by key, and the index used.
fn inner(build_keys: &[i64], probe_keys: &[i64]) -> (HashMap<i64, usize>, &'static str) {
    let (join, schema) = (int_join(JoinKind::Inner, vec![0, 1]), schema(DataType::Int64));
    let table = build(&join, &schema, build_keys.chunks(1000).map(batch).collect());
    let name = table.index_name();
    let factory = probe_factory(&join, &schema, &schema, table, 1).unwrap();
    let mut counts = HashMap::new();
    for b in run(factory, probe_keys.chunks(30_000).map(batch).collect(), 1) {
        let columns: Vec<ArrayRef> = b.columns.iter().map(|c| c.values().unwrap()).collect();
        assert_eq!(&columns[0], &columns[1]);
        let keys = columns[0].as_any().downcast_ref::<Int64Array>().unwrap();
        keys.values().iter().for_each(|&k| *counts.entry(k).or_default() += 1);
    }
    (counts, name)
}

fn check_index(build_keys: &[i64], expected: &str) {
    let mut per_key: HashMap<i64, usize> = HashMap::new();
    build_keys.iter().for_each(|&k| *per_key.entry(k).or_default() += 1);
    let mut probe = vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    for k in build_keys {
        probe.extend([k.wrapping_sub(1), *k, k.wrapping_add(1), k.wrapping_neg(), k.wrapping_add(1 << 32)]);
    }
    probe.sort_unstable();
    probe.dedup();
    let (counts, index) = inner(build_keys, &probe);
    assert_eq!(index, expected);
    assert_eq!(counts, per_key, "{expected}");
}

#[test]
fn each_index_is_chosen_and_right_at_its_bounds() {
    let mut random = Random(3);
    let rows = 5000i64;
    check_index(&(-100..rows).collect::<Vec<_>>(), "dense");
    check_index(&(-100..rows).rev().collect::<Vec<_>>(), "direct");
    check_index(&(i64::MIN..i64::MIN + rows).rev().collect::<Vec<_>>(), "direct");
    check_index(&(i64::MAX - rows..=i64::MAX).rev().collect::<Vec<_>>(), "direct");
    check_index(&(0..rows).map(|i| i * 40 - 7).collect::<Vec<_>>(), "ranked");
    check_index(&(0..rows).rev().map(|i| i * 40 - 7).collect::<Vec<_>>(), "ranked");
    let many: Vec<i64> = (0..rows).map(|_| random.below(3000) as i64 - 1500).collect();
    check_index(&many, "ranked");
    // The last code of a bitmap's domain, and the first that is too many.
    check_index(
        &(0..rows).rev().map(|i| if i == 0 { rows * 64 - 1 } else { i - 1 }).collect::<Vec<_>>(),
        "ranked",
    );
    check_index(
        &(0..rows).rev().map(|i| if i == 0 { rows * 64 } else { i - 1 }).collect::<Vec<_>>(),
        "unchained",
    );
    check_index(&(0..rows).map(|_| random.next() as i64).collect::<Vec<_>>(), "unchained");
    let some: Vec<i64> = (0..rows).map(|_| (random.below(900) as i64) << 40).collect();
    check_index(&some, "unchained");
}

#[test]
fn the_whole_range_of_the_key_type() {
    check_index(&[i64::MIN, i64::MAX], "direct");
    check_index(&[i64::MAX, i64::MIN, 0, -1, i64::MAX], "ranked");
    check_index(&[i64::MIN + 1, i64::MAX], "direct");
    check_index(&[i64::MIN + 2, i64::MAX], "unchained");
    check_index(&[i64::MIN, i64::MAX - 2], "unchained");
}

#[test]
fn large_builds() {
    let mut random = Random(11);
    let keys: Vec<i64> = (0..150_000).map(|_| random.next() as i64).collect();
    check_index(&keys, "unchained");
    let skewed: Vec<i64> = (0..150_000).map(|i| if i % 2 == 0 { 7 } else { random.next() as i64 }).collect();
    check_index(&skewed, "unchained");
}

#[test]
fn runtime_filters_know_the_keys() {
    let join = int_join(JoinKind::ProbeSemi, vec![0]);
    let schema = schema(DataType::Int64);
    let table = build(&join, &schema, vec![batch(&[5, 6]), batch(&[9])]);
    let [(0, filter)] = table.runtime_filters() else { panic!("one filter, number 0") };
    assert_eq!(filter.range(), Some((5, 9)));
    assert!(build(&join, &schema, vec![]).runtime_filters()[0].1.passes_none());

    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let nulls = vec![Batch::from_arrays(vec![nulls], 2)];
    assert_eq!(build(&join, &schema, nulls.clone()).runtime_filters().len(), 1);
    let join = HashJoin { null_equal: true, ..join };
    assert!(build(&join, &schema, nulls).runtime_filters().is_empty());
}

#[test]
fn the_last_task_emits_build_rows_even_if_others_stop_early() {
    let (join, schema) = (int_join(JoinKind::BuildOuter, vec![0, 1]), schema(DataType::Int64));
    let table = build(&join, &schema, vec![batch(&[1, 2, 3])]);
    let factory = probe_factory(&join, &schema, &schema, table, 2).unwrap();
    let mut first = factory.open(&task(0, 2)).unwrap();
    let mut second = factory.open(&task(1, 2)).unwrap();
    let mut little = Collected { enough: Some(1), ..Default::default() };
    assert_eq!(first.push(batch(&[2; 600]), &mut little).unwrap(), Flow::Done);
    assert_eq!(first.push(batch(&[2; 600]), &mut little).unwrap(), Flow::Done);
    // Fewer rows would be held back.
    let mut all = Collected::default();
    assert_eq!(second.push(batch(&[3; 600]), &mut all).unwrap(), Flow::Continue);
    first.finish(&mut little).unwrap();
    assert_eq!(all.batches.len(), 1);
    second.finish(&mut all).unwrap();
    assert_eq!(all.batches.len(), 2);
    assert_eq!(all.batches[1].rows, 1);
}

#[test]
fn an_empty_build_stops_the_probe() {
    let (join, schema) = (int_join(JoinKind::Inner, vec![0, 1]), schema(DataType::Int64));
    let table = build(&join, &schema, vec![]);
    let factory = probe_factory(&join, &schema, &schema, table, 1).unwrap();
    let mut operator = factory.open(&task(0, 1)).unwrap();
    assert_eq!(operator.push(batch(&[2]), &mut Collected::default()).unwrap(), Flow::Done);
}

#[test]
fn build_columns_share_one_index_and_nothing_is_gathered() {
    let (join, schema) = (int_join(JoinKind::Inner, vec![0, 1, 1]), schema(DataType::Int64));
    let table = build(&join, &schema, vec![batch(&[1, 2, 3])]);
    let factory = probe_factory(&join, &schema, &schema, table, 1).unwrap();
    let out = run(factory, vec![batch(&[3, 9, 1])], 1);
    let columns = &out[0].columns;
    assert!(Arc::ptr_eq(columns[1].indices().unwrap(), columns[2].indices().unwrap()));
    assert_eq!(columns[0].base().len(), 3);
}

#[test]
fn strings_keep_little_memory_alive() {
    let key = Expr::column(0, DataType::Utf8View);
    let join = HashJoin { keys: vec![(key.clone(), key)], ..int_join(JoinKind::Inner, vec![0, 1]) };
    let large: StringViewArray = (0..10_000).map(|i| Some(format!("a long enough string {i}"))).collect();
    let batches: Vec<Batch> =
        (0..100).map(|i| Batch::from_arrays(vec![Arc::new(large.slice(i * 100, 1))], 1)).collect();
    let table = build(&join, &schema(DataType::Utf8View), batches);
    assert!(table.memory_bytes() < 50_000, "{}", table.memory_bytes());
}
