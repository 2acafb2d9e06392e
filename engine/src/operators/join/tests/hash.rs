//! Hash joins of every kind, over every type of key.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr};
use dovetail_planner::physical::{HashJoin, JoinKind};

use crate::batch::Batch;
use crate::error::EngineError;
use crate::operators::join::PARTITIONS;

use super::data::{KeyColumn, Random, Spread, Table};
use super::harness::{Memory, assert_same_rows, full_row, hash_join, hash_join_in};
use super::reference::{self, Row};

pub const KINDS: [JoinKind; 9] = [
    JoinKind::Inner,
    JoinKind::ProbeOuter,
    JoinKind::BuildOuter,
    JoinKind::Full,
    JoinKind::ProbeSemi,
    JoinKind::ProbeAnti,
    JoinKind::BuildSemi,
    JoinKind::BuildAnti,
    JoinKind::ProbeMark,
];

fn key(data_type: DataType, spread: Spread) -> KeyColumn {
    KeyColumn { data_type, spread, null_percent: 10 }
}

/// Key columns to join on. Each has cases with many duplicates and with few.
fn key_columns() -> Vec<Vec<KeyColumn>> {
    use DataType::*;
    use Spread::*;
    vec![
        vec![key(Int64, Few(40))],
        vec![key(Int64, Few(100_000))],
        vec![key(Int64, Wide(300))],
        vec![key(Int32, Skewed)],
        vec![key(UInt64, Wide(200))],
        vec![key(UInt8, Few(200))],
        vec![key(Boolean, Few(2))],
        vec![key(Date32, Few(400))],
        vec![key(Timestamp(TimeUnit::Microsecond, None), Wide(100))],
        vec![key(Float64, Few(60))],
        vec![key(Decimal128(15, 2), Few(150))],
        vec![key(Decimal128(18, 0), Wide(150))],
        vec![key(Decimal128(30, 4), Wide(150))],
        vec![key(Utf8View, Few(80))],
        vec![key(Utf8View, Wide(500))],
        vec![key(Utf8, Few(80))],
        vec![key(BinaryView, Few(80))],
        vec![key(Int64, Few(10)), key(Int32, Few(10))],
        vec![key(Int64, Wide(12)), key(Int64, Wide(12)), key(UInt64, Wide(3))],
        vec![key(Int64, Wide(12)), key(Utf8View, Few(9))],
        vec![key(Utf8View, Few(9)), key(Date32, Few(9)), key(Boolean, Few(2))],
        vec![],
    ]
}

fn random_join(random: &mut Random, kind: JoinKind, keys: &[KeyColumn]) -> HashJoin {
    let pairs = (0..).zip(keys).map(|(i, k)| {
        let column = Expr::column(i, k.data_type.clone());
        (column.clone(), column)
    });
    let null_aware =
        matches!(kind, JoinKind::ProbeAnti | JoinKind::ProbeMark) && keys.len() == 1 && random.chance(40);
    let v = |i| Box::new(Expr::column(i, DataType::Int64));
    let residual = Expr::Binary {
        op: BinaryOp::Lt,
        left: v(keys.len() + 1),
        right: v(2 * keys.len() + 3),
        data_type: DataType::Boolean,
    };
    HashJoin {
        kind,
        keys: pairs.collect(),
        null_equal: !null_aware && random.chance(30),
        null_aware,
        residual: (!null_aware && random.chance(40)).then_some(residual),
        output: vec![],
        runtime_filters: vec![],
    }
}

/// Runs one join and compares it with the reference.
fn check(random: &mut Random, mut join: HashJoin, probe: &Table, build: &Table, context: &str) {
    let width = full_row(join.kind, &probe.schema, &build.schema).len();
    join.output = (0..width).filter(|_| random.chance(70)).collect();
    join.output.extend((random.chance(20)).then_some(0));
    let keys = join.keys.len();
    let compare = |p: &Row, b: &Row| {
        let pairs = p[..keys].iter().zip(&b[..keys]);
        let compared: Vec<Option<bool>> = pairs
            .map(|(p, b)| match join.null_equal {
                true if p.is_null() || b.is_null() => Some(p.is_null() && b.is_null()),
                _ => reference::equal(p, b),
            })
            .collect();
        if compared.contains(&Some(false)) {
            return Some(false);
        }
        if compared.contains(&None) { None } else { Some(true) }
    };
    let v = |r: &Row| match r[keys + 1] {
        ScalarValue::Int64(v) => v,
        _ => panic!("v is an integer"),
    };
    let residual = |p: &Row, b: &Row| match join.residual {
        Some(_) => v(p).zip(v(b)).is_some_and(|(p, b)| p < b),
        None => true,
    };
    let nulls = |t: &Table| -> Row {
        t.schema.fields().iter().map(|f| ScalarValue::try_from(f.data_type()).unwrap()).collect()
    };
    let expected = reference::join(
        join.kind,
        join.null_aware,
        &probe.rows,
        &build.rows,
        (&nulls(probe), &nulls(build)),
        &compare,
        &residual,
    );
    let tasks = 1 + random.below(3);
    let (p, b) = (probe.batches(random), build.batches(random));
    let actual = hash_join(&join, (&probe.schema, p), (&build.schema, b), tasks);
    assert_same_rows(actual, expected.clone(), &join.output, context);
    for memory in [Memory::Nothing, Memory::Bytes([64_000, 200_000][random.below(2)])] {
        let tasks = [1, 1, 4, PARTITIONS][random.below(4)];
        let (p, b) = (probe.batches(random), build.batches(random));
        let actual = hash_join_in(memory, &join, (&probe.schema, p), (&build.schema, b), tasks);
        let actual = match actual {
            // One batch alone may be too much.
            Err(EngineError::Resources(_)) if matches!(memory, Memory::Bytes(_)) => continue,
            actual => actual.unwrap(),
        };
        if matches!(memory, Memory::Nothing) {
            let must_spill = !join.keys.is_empty() && !join.null_aware && !build.rows.is_empty();
            assert_eq!(actual.is_some(), must_spill, "{context}");
        }
        let Some(actual) = actual else { continue };
        let context = format!("{context}, {memory:?}, {tasks} tasks");
        assert_same_rows(actual, expected.clone(), &join.output, &context);
    }
}

#[test]
fn every_kind_over_every_key_type() {
    let mut random = Random(0xD07E);
    for keys in key_columns() {
        for kind in KINDS {
            for round in 0..4 {
                let mut sides = vec![];
                for _ in 0..2 {
                    // A side without nulls takes other paths than one with.
                    let mut keys = keys.clone();
                    if random.chance(40) {
                        keys.iter_mut().for_each(|k| k.null_percent = 0);
                    }
                    let rows = [0, 1, 30, 150, 300][random.below(5)];
                    sides.push(Table::random(&mut random, &keys, rows));
                }
                let join = random_join(&mut random, kind, &keys);
                let context = format!("{join:?} over {keys:?}, round {round}");
                check(&mut random, join, &sides[0], &sides[1], &context);
            }
        }
    }
}

#[test]
fn unique_build_keys_and_many_probe_rows() {
    let mut random = Random(77);
    let keys = [KeyColumn { data_type: DataType::Int64, spread: Spread::Few(700), null_percent: 5 }];
    for stretch in [1, 3, 100, 1 << 40] {
        let mut build = Table::random(&mut random, &keys, 400);
        let probe = Table::random(&mut random, &keys, 800);
        for (i, row) in build.rows.iter_mut().enumerate() {
            row[0] = ScalarValue::Int64(Some((i as i64 - 200) * stretch));
        }
        for shuffled in [false, true] {
            if shuffled {
                (1..build.rows.len()).for_each(|i| build.rows.swap(i, random.below(i + 1)));
            }
            for kind in KINDS {
                let join = random_join(&mut random, kind, &keys);
                let context = format!("{join:?}, keys {stretch} apart, shuffled: {shuffled}");
                check(&mut random, join, &probe, &build, &context);
            }
        }
    }
}

#[test]
fn long_lists_come_in_pieces() {
    let mut random = Random(5);
    let keys = [KeyColumn { data_type: DataType::Int32, spread: Spread::Few(1), null_percent: 0 }];
    let probe = Table::random(&mut random, &keys, 15);
    let build = Table::random(&mut random, &keys, 12_345);
    for kind in KINDS {
        let join = random_join(&mut random, kind, &keys);
        check(&mut random, join.clone(), &probe, &build, &format!("{join:?}"));
    }
}

#[test]
fn a_key_with_more_rows_than_fit_is_joined_in_blocks() {
    let mut random = Random(6);
    let keys = [KeyColumn { data_type: DataType::Int32, spread: Spread::Skewed, null_percent: 5 }];
    let probe = Table::random(&mut random, &keys, 30);
    let build = Table::random(&mut random, &keys, 40_000);
    let mut spilled = 0;
    for kind in KINDS {
        let mut join = random_join(&mut random, kind, &keys);
        (join.null_aware, join.output) = (false, vec![0]);
        let sides = || ((&probe.schema, probe.batches(&mut Random(1))), (&build.schema, small(&build)));
        for tasks in [1, 8, PARTITIONS] {
            let (p, b) = sides();
            let plenty = hash_join(&join, p, b, 1);
            let (p, b) = sides();
            let little = hash_join_in(Memory::Bytes(1_000_000), &join, p, b, tasks).unwrap();
            let Some(little) = little else { continue };
            spilled += 1;
            let plenty = plenty.into_iter().map(|row| vec![row[0].clone()]).collect();
            assert_same_rows(little, plenty, &[0], &format!("{join:?}"));
        }
    }
    assert!(spilled >= 12, "{spilled}");
}

/// Batches of a thousand rows.
fn small(table: &Table) -> Vec<Batch> {
    let rows =
        table.rows.chunks(1000).map(|rows| Table { schema: table.schema.clone(), rows: rows.to_vec() });
    rows.flat_map(|t| t.whole()).collect()
}
