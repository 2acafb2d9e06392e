//! How fast one core encodes and decodes blocks, and spills small batches of many partitions.
//!
//! `cargo run --release -p dovetail-shuffle --example throughput`. Megabytes are of 10^6 bytes before
//! compression, the stored bytes in percent of them; time is this thread's on the CPU, where the system
//! counts it.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arrow::array::{
    ArrayRef, Decimal64Array, Decimal128Array, Int32Array, Int64Array, StringArray, StringViewArray,
};
use arrow::buffer::Buffer;
use dovetail_shuffle::Rows;
use dovetail_shuffle::block::{BlockEncoder, decode};
use dovetail_shuffle::output::MapOutputWriter;
use dovetail_shuffle::store::{SpillDirectory, SpillStore};

const ROWS: usize = 16_384;
const BLOCKS: usize = 1000;
const PARTITIONS: usize = 64;

fn main() {
    let mut state = 7u64;
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let keys: Vec<i64> = (0..ROWS as i64).map(|i| i / 4).collect();
    let prices: Vec<i64> = (0..ROWS).map(|_| 90_000 + below(10_000_000) as i64).collect();
    let numbers: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys)),
        Arc::new(Int32Array::from_iter_values((0..ROWS).map(|_| 8_000 + below(2_500) as i32))),
        Arc::new(
            Decimal64Array::from(prices.clone()).with_precision_and_scale(15, 2).expect("18 digits fit"),
        ),
        Arc::new(Decimal128Array::from_iter_values(prices.iter().map(|p| i128::from(*p)))),
    ];
    let words =
        ["furiously", "express", "requests", "carefully", "final", "deposits", "the", "slyly", "ironic"];
    let text = |count: u64, below: &mut dyn FnMut(u64) -> u64| {
        (0..1 + below(count)).map(|_| words[below(9) as usize]).collect::<Vec<_>>().join(" ")
    };
    let comments: Vec<String> = (0..ROWS).map(|_| text(7, &mut below)).collect();
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(&comments));
    let plain: ArrayRef = Arc::new(StringArray::from_iter_values(&comments));
    let short: ArrayRef =
        Arc::new(StringViewArray::from_iter_values((0..ROWS).map(|_| words[below(9) as usize])));

    blocks("integers, decimals", &Rows::new(numbers.clone(), ROWS));
    blocks("string views", &Rows::new(vec![views.clone()], ROWS));
    blocks("short string views", &Rows::new(vec![short.clone()], ROWS));
    blocks("Utf8", &Rows::new(vec![plain], ROWS));
    let mixed = numbers.into_iter().chain([views, short]).collect();
    spill(&Rows::new(mixed, ROWS));
}

/// Seconds since some moment.
fn seconds() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let on_cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let on_cpu = on_cpu.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    on_cpu.map_or_else(|| START.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

fn megabytes_per_second(bytes: usize, start: f64) -> f64 {
    bytes as f64 / 1e6 / (seconds() - start)
}

fn blocks(name: &str, rows: &Rows) {
    let raw_bytes = rows.encoded_bytes() * BLOCKS;
    let mut encoder = BlockEncoder::default();
    let block = Buffer::from(encoder.encode(rows).expect("these types have an encoding"));
    let start = seconds();
    for _ in 0..BLOCKS {
        std::hint::black_box(encoder.encode(rows).expect("as before"));
    }
    let encode = megabytes_per_second(raw_bytes, start);
    let start = seconds();
    for _ in 0..BLOCKS {
        std::hint::black_box(decode(&block, Path::new("memory"), 0).expect("it was just encoded"));
    }
    let decode = megabytes_per_second(raw_bytes, start);
    let percent = 100 * block.len() * BLOCKS / raw_bytes;
    println!("{name:20} encode {encode:6.0} MB/s   decode {decode:6.0} MB/s   stored {percent} %");
}

/// Batches of a few hundred rows, as a map task gets them, through a segment and back.
fn spill(rows: &Rows) {
    let path = std::env::temp_dir();
    let store =
        SpillStore::open(&[SpillDirectory { path, quota_bytes: None }]).expect("a temporary directory");
    let query = store.query("throughput");
    let mut writer = MapOutputWriter::new("task", PARTITIONS);
    let slice = ROWS / PARTITIONS;
    for batch in 0..BLOCKS / 8 {
        for partition in 0..PARTITIONS {
            // Somewhere else each time: LZ4 would find the same rows again.
            let offset = (batch * PARTITIONS + partition) * 7_919 % (ROWS - slice);
            writer.push(partition, rows.slice(offset, slice));
        }
    }
    let raw_bytes = rows.encoded_bytes() * (BLOCKS / 8);
    let start = seconds();
    writer.spill(&query).expect("the disk has room");
    let spill = megabytes_per_second(raw_bytes, start);
    let spilled = writer.spilled();
    let output = writer.finish().expect("the disk has room");
    let start = seconds();
    let read: usize =
        (0..PARTITIONS).flat_map(|p| output.partition(p)).map(|rows| rows.expect("it is there").rows).sum();
    let back = megabytes_per_second(raw_bytes, start);
    assert_eq!(read as u64, spilled.rows);
    println!(
        "{PARTITIONS} partitions   spill {spill:6.0} MB/s   read {back:6.0} MB/s   \
         {} blocks   stored {} %",
        spilled.blocks,
        100 * spilled.bytes / raw_bytes as u64
    );
}
