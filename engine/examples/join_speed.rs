//! Nanoseconds per probe row of hash joins on one integer key, by the build's size and by how its keys
//! are spread.
//!
//! `cargo run --release --example join_speed [millions of probe rows [build rows [spread]]]`

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use dovetail_engine::Result;
use dovetail_engine::batch::{BATCH_ROWS, Batch};
use dovetail_engine::operators::join::{
    BuildSide, JoinTable, build_rows_factory, build_sink_factory, probe_factory,
};
use dovetail_engine::task::{Downstream, Flow, TaskContext};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{HashJoin, JoinKind};

fn main() -> Result<()> {
    let millions: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(60);
    println!(
        "{:>10} {:<22} {:<10} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "build", "keys", "index", "build ms", "ns hit", "ns 10 %", "ns semi", "semi 10%"
    );
    let only_rows = std::env::args().nth(2).and_then(|a| a.parse::<u64>().ok());
    let only_spread = std::env::args().nth(3).unwrap_or_default();
    for rows in [1_000, 100_000, 1_500_000, 15_000_000] {
        for (name, key) in spreads() {
            if only_rows.is_some_and(|r| r != rows) || !name.starts_with(&only_spread) {
                continue;
            }
            measure(rows, name, key, millions * 1_000_000)?;
        }
    }
    Ok(())
}

type KeyOf = fn(u64, u64) -> u64;

/// From a number below the first argument's bound to a key.
fn spreads() -> Vec<(&'static str, KeyOf)> {
    vec![
        ("sorted, no gaps", |_, i| i),
        ("shuffled, no gaps", |n, i| shuffle(n, i)),
        ("sorted, 1 of 4", |_, i| i * 4),
        ("shuffled, 1 of 4", |n, i| shuffle(n, i) * 4),
        ("shuffled, 1 of 40", |n, i| shuffle(n, i) * 40),
        ("64-bit", |_, i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        ("duplicates, 4 each", |n, i| shuffle(n, i) / 4),
    ]
}

/// A permutation of `0..n`.
fn shuffle(n: u64, i: u64) -> u64 {
    // 982,451,653 is prime, and no size measured is a multiple of it.
    (i as u128 * 982_451_653 % n as u128) as u64
}

fn measure(rows: u64, name: &str, key: KeyOf, probes: usize) -> Result<()> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    let join = |kind| HashJoin {
        kind,
        keys: vec![(Expr::column(0, DataType::Int64), Expr::column(0, DataType::Int64))],
        null_equal: false,
        null_aware: false,
        residual: None,
        output: if kind == JoinKind::Inner { vec![0, 1] } else { vec![0] },
        runtime_filters: vec![],
    };
    let task = TaskContext::new(0, 1, Arc::default());
    let build = |kind| -> Result<Arc<JoinTable>> {
        let mut sink = build_rows_factory(&join(kind), &schema)?.open(&task)?;
        for start in (0..rows).step_by(BATCH_ROWS) {
            let end = rows.min(start + BATCH_ROWS as u64);
            sink.push(batch((start..end).map(|i| key(rows, i))))?;
        }
        let rows = sink.finish()?.artifact.and_then(|a| a.downcast().ok());
        let rows = vec![rows.expect("invariant: it leaves build rows")];
        let table = build_sink_factory(&join(kind), &schema, rows)?.open(&task)?.finish()?.artifact;
        match table.and_then(|a| a.downcast().ok()).as_deref() {
            Some(BuildSide::Table(table)) => Ok(table.clone()),
            _ => unreachable!("invariant: there is memory for a table"),
        }
    };
    let start = cpu_nanos();
    let table = build(JoinKind::Inner)?;
    let build_ms = (cpu_nanos() - start) / 1_000_000;
    let semi = build(JoinKind::ProbeSemi)?;
    let distinct = 4_000_000 / BATCH_ROWS;
    let mut times = vec![];
    for (kind, table) in [(JoinKind::Inner, &table), (JoinKind::ProbeSemi, &semi)] {
        for hits in [100, 10] {
            let mut state = 1u64;
            let mut random = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state >> 33
            };
            let mut probe_key = || match random() % 100 < hits {
                true => key(rows, random() % rows),
                false => key(rows, random() % rows) ^ (1 << 40) | 1,
            };
            let batches: Vec<Batch> =
                (0..distinct).map(|_| batch((0..BATCH_ROWS).map(|_| probe_key()))).collect();
            let factory = probe_factory(&join(kind), &schema, &schema, table.clone(), 1)?;
            let mut operator = factory.open(&task)?;
            let mut count = Count(0);
            // The quickest pass: what other programs do to the caches is not of interest.
            let mut best = f64::MAX;
            for _ in 0..probes.div_ceil(distinct * BATCH_ROWS) {
                let start = cpu_nanos();
                for b in &batches {
                    operator.push(b.clone(), &mut count)?;
                }
                best = best.min((cpu_nanos() - start) as f64 / (distinct * BATCH_ROWS) as f64);
            }
            times.push(best);
            assert!(count.0 > 0);
        }
    }
    println!(
        "{rows:>10} {name:<22} {:<10} {build_ms:>9} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
        table.index_name(),
        times[0],
        times[1],
        times[2],
        times[3]
    );
    Ok(())
}

/// Time that this thread has spent on a processor.
fn cpu_nanos() -> u64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanos: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: `time` has the layout of a timespec on 64-bit Linux.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanos as u64
}

fn batch(keys: impl Iterator<Item = u64>) -> Batch {
    let keys: Int64Array = keys.map(|k| Some(k as i64)).collect();
    let rows = keys.values().len();
    Batch::from_arrays(vec![Arc::new(keys)], rows)
}

struct Count(usize);

impl Downstream for Count {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.0 += batch.rows;
        Ok(Flow::Continue)
    }
}
