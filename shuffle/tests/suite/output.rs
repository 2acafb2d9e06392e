//! Map outputs and spill files: rows pushed are rows read, wherever they waited, and nothing is left behind.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use dovetail_shuffle::output::{MapOutput, MapOutputWriter, PartitionReader};
use dovetail_shuffle::spill_file::SpillFileWriter;
use dovetail_shuffle::store::{QueryStore, SpillDirectory, SpillStore};
use dovetail_shuffle::{Rows, ShuffleError};

use crate::samples::{Random, assert_same, random_rows};

const PARTITIONS: usize = 3;

fn store(quota_bytes: Option<u64>) -> (tempfile::TempDir, SpillStore, QueryStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SpillStore::open(&[SpillDirectory { path: dir.path().to_path_buf(), quota_bytes }]).unwrap();
    let query = store.query("q");
    (dir, store, query)
}

fn numbers(start: i64, rows: usize) -> Rows {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + rows as i64));
    Rows::new(vec![column], rows)
}

/// All numbers of some batches, sorted.
fn sorted(batches: impl IntoIterator<Item = Rows>) -> Vec<i64> {
    let values = batches.into_iter().flat_map(|b| b.columns[0].as_primitive::<Int64Type>().values().to_vec());
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values
}

fn all(reader: PartitionReader) -> Vec<i64> {
    sorted(reader.map(|rows| rows.unwrap()))
}

/// An output with spills at random; the numbers that each partition has.
fn random_output(random: &mut Random, query: &QueryStore) -> (MapOutput, Vec<Vec<i64>>) {
    let mut writer = MapOutputWriter::new("task", PARTITIONS);
    let mut expected = vec![vec![]; PARTITIONS];
    let mut start = 0;
    for _ in 0..random.below(40) {
        let (partition, rows) = (random.below(PARTITIONS), random.below(500));
        let batch = numbers(start, rows);
        expected[partition].extend(start..start + rows as i64);
        start += rows as i64;
        writer.push(partition, batch);
        if random.below(8) == 0 {
            let before = writer.spilled().bytes;
            let bytes = writer.spill(query).unwrap();
            assert_eq!(writer.spilled().bytes, before + bytes);
            assert_eq!(writer.memory_bytes(), 0);
        }
    }
    (writer.finish().unwrap(), expected)
}

#[test]
fn rows_pushed_are_rows_read() {
    for seed in 0..100 {
        let (dir, store, query) = store(None);
        let mut random = Random(seed);
        let (mut output, expected) = random_output(&mut random, &query);
        let check = |output: &MapOutput| {
            for (partition, expected) in expected.iter().enumerate() {
                assert_eq!(output.rows(partition), expected.len() as u64);
                assert_eq!(&all(output.partition(partition)), expected);
            }
        };
        check(&output);
        let early = output.partition(0);
        output.spill(&query).unwrap();
        assert_eq!(output.memory_bytes(), 0);
        assert_eq!(output.spill(&query).unwrap(), 0, "nothing is left to spill");
        check(&output);
        assert!(store.files_alive() <= 2, "the task's, and that of the waiting output");
        assert_eq!(all(early), expected[0]);
        drop((output, query));
        assert_eq!((store.files_alive(), store.bytes_in_use()), (0, 0));
        drop(store);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_waits_in_memory_is_read_without_a_copy() {
    let batch = numbers(0, 100);
    let mut writer = MapOutputWriter::new("task", 1);
    writer.push(0, batch.clone());
    assert!(writer.memory_bytes() >= 800);
    let mut output = writer.finish().unwrap();
    assert!(output.memory_bytes() >= 800);
    let read = output.partition(0).next().unwrap().unwrap();
    assert!(Arc::ptr_eq(&read.columns[0], &batch.columns[0]));
    drop(read);
    let taken = output.take_partition(0);
    assert_eq!((output.memory_bytes(), output.rows(0)), (0, 0));
    drop(batch);
    assert_eq!(taken.map(|rows| Arc::strong_count(&rows.unwrap().columns[0])).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_output_is_read_batch_by_batch_while_it_is_spilled() {
    for seed in 0..50 {
        let (_dir, _store, query) = store(None);
        let mut random = Random(seed);
        let (mut output, expected) = random_output(&mut random, &query);
        for (partition, expected) in expected.iter().enumerate() {
            let mut found = vec![];
            while let Some(rows) = output.pop(partition) {
                found.push(rows);
                if random.below(10) == 0 {
                    output.spill(&query).unwrap();
                }
            }
            let segments = (0..).map_while(|n| output.segment(n));
            found.extend(segments.flat_map(|s| s.read(partition)).map(|rows| rows.unwrap()));
            assert_eq!(&sorted(found), expected);
        }
        assert_eq!(output.memory_bytes(), 0);
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (_dir, store, query) = store(None);
    let mut writer = MapOutputWriter::new("task", 2);
    writer.push(1, numbers(0, 100_000));
    writer.spill(&query).unwrap();
    writer.push(0, numbers(0, 10));
    assert_eq!(store.files_alive(), 1);
    drop(writer);
    assert_eq!((store.files_alive(), store.bytes_in_use()), (0, 0));
}

#[test]
fn a_spill_beyond_the_quota_is_an_error_and_the_rows_stay() {
    let (_dir, store, query) = store(Some(1_000_000));
    let mut random = Random(1);
    let mut writer = MapOutputWriter::new("task", 3);
    let mut expected: Vec<Vec<i64>> = vec![vec![]; 3];
    let mut push = |writer: &mut MapOutputWriter, partition: usize, rows: usize| {
        let noise: Vec<i64> = (0..rows).map(|_| random.next() as i64).collect();
        expected[partition].extend(&noise);
        writer.push(partition, Rows::new(vec![Arc::new(Int64Array::from(noise))], rows));
    };
    push(&mut writer, 1, 20_000);
    writer.spill(&query).unwrap();
    let spilled = writer.spilled();
    push(&mut writer, 0, 50_000);
    push(&mut writer, 1, 90_000);
    let memory_bytes = writer.memory_bytes();
    let error = writer.spill(&query).unwrap_err();
    assert!(matches!(error, ShuffleError::DiskFull { .. }), "{error}");
    assert_eq!((writer.spilled(), writer.memory_bytes()), (spilled, memory_bytes));
    let mut output = writer.finish().unwrap();
    assert!(output.spill(&query).is_err());
    expected.iter_mut().for_each(|numbers| numbers.sort_unstable());
    for (partition, expected) in expected.iter().enumerate() {
        assert_eq!(&all(output.partition(partition)), expected);
    }
    drop(output);
    assert_eq!((store.files_alive(), store.bytes_in_use()), (0, 0));
}

#[test]
fn damage_in_a_waiting_output_ends_the_reading() {
    let (dir, _store, query) = store(None);
    let mut writer = MapOutputWriter::new("task", 1);
    writer.push(0, numbers(0, 500_000));
    writer.spill(&query).unwrap();
    writer.push(0, numbers(0, 1));
    let output = writer.finish().unwrap();
    let mut files = vec![dir.path().to_path_buf()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_none() {
            let mut bytes = fs::read(&path).unwrap();
            bytes[1000] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let mut reader = output.partition(0);
    assert_eq!(reader.next().unwrap().unwrap().rows, 1);
    assert!(reader.next().unwrap().unwrap_err().is_loss());
    assert!(reader.next().is_none());
}

#[test]
fn a_spill_file_keeps_the_order() {
    let (_dir, store, query) = store(None);
    let mut random = Random(8);
    let batches: Vec<Rows> = (0..30)
        .map(|i| if i % 10 == 9 { random_rows(&mut random, 30) } else { numbers(i * 5_000, 5_000) })
        .collect();
    let mut writer = SpillFileWriter::create(&query, "run").unwrap();
    batches.iter().for_each(|batch| writer.write(batch.clone()).unwrap());
    let file = writer.finish().unwrap();
    assert_eq!(file.spilled().rows, 27 * 5_000 + 3 * 30);
    assert!(file.spilled().blocks > 3 && file.spilled().bytes > 0);
    for _again in 0..2 {
        let mut expected = batches.iter().cloned().peekable();
        for block in file.read() {
            // A block has whole batches here, as none is larger than a block.
            let block = block.unwrap();
            let mut at = 0;
            while at < block.rows {
                let batch = expected.next().unwrap();
                assert_same(&block.slice(at, batch.rows), &batch);
                at += batch.rows;
            }
        }
        assert!(expected.next().is_none());
    }
    drop(file);
    assert_eq!(store.files_alive(), 0);
}

#[test]
fn a_spill_file_of_small_blocks_is_read_with_little_memory() {
    const BLOCK_BYTES: usize = 32 << 10;
    let (_dir, _store, query) = store(None);
    let mut writer = SpillFileWriter::create(&query, "run").unwrap().with_block_bytes(BLOCK_BYTES);
    (0..100).for_each(|i| writer.write(numbers(i * 500, 500)).unwrap());
    let file = writer.finish().unwrap();
    let blocks: Vec<Rows> = file.read().collect::<Result<_, _>>().unwrap();
    assert_eq!(blocks.iter().map(|b| b.rows).sum::<usize>(), 100 * 500);
    assert!(blocks.len() > 1);
    assert!(blocks.iter().all(|b| b.encoded_bytes() < 2 * BLOCK_BYTES));
}
