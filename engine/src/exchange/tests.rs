//! Rows written are rows read wherever they waited, and damage on the way is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use dovetail_shuffle::ShuffleError;
use dovetail_shuffle::store::SpillDirectory;

use super::*;
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Governor, SpillPolicy, SpillSpace, Spillable};
use crate::task::{QueryContext, TaskContext};

fn task(dir: &Path, limit: u64, quota_bytes: Option<u64>) -> TaskContext {
    let directory = SpillDirectory { path: dir.to_path_buf(), quota_bytes };
    let space = SpillSpace::open(&[directory]).unwrap();
    let query = QueryContext::bounded(1, Governor::new(limit, SpillPolicy::AtLimit), space.query());
    TaskContext::new(0, 1, Arc::new(query)).for_operator(0)
}

fn numbers(start: i64, rows: usize) -> Batch {
    let array: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + rows as i64));
    Batch::from_arrays(vec![array], rows)
}

fn sum(reader: ExchangeReader) -> Result<i64> {
    let mut sum = 0;
    for batch in reader {
        sum += batch?.columns[0].values()?.as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    Ok(sum)
}

/// Writes 100 batches of 10,000 numbers to two partitions.
fn output(task: &TaskContext) -> Result<Arc<ExchangeOutput>> {
    let mut writer = ExchangeWriter::new(task, "test", 2);
    for i in 0..100 {
        writer.push(i % 2, &numbers(i as i64 * 10_000, 10_000))?;
        if writer.must_spill(0) {
            writer.spill(0)?;
        }
    }
    writer.finish()
}

const TOTAL: i64 = 999_999 * 500_000;

/// The files below a folder that are no locks.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none_or(|e| e != "lock") {
            found.push(path);
        }
    }
    found
}

#[test]
fn rows_are_conserved_at_every_limit() {
    for limit in [u64::MAX, 4 << 20, 1 << 20, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let task = task(dir.path(), limit, None);
        let governor = task.query.memory.clone();
        let output = output(&task).unwrap();
        assert_eq!(governor.spilled_bytes() > 0, limit < u64::MAX);
        assert!(governor.peak_bytes() as u64 <= limit.saturating_add(100_000));
        let read = |p| sum(ExchangeReader::new(0, vec![output.clone()], p)).unwrap();
        assert_eq!(read(0) + read(1), TOTAL);
        drop((output, task));
        assert_eq!(governor.used_bytes(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn partitions_that_follow_each_other_are_read_as_one() {
    for limit in [u64::MAX, 4 << 20, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let task = task(dir.path(), limit, None);
        let outputs = vec![output(&task).unwrap(), output(&task).unwrap()];
        let mut reader = ExchangeReader::of_range(0, outputs, 0..2);
        assert_eq!(reader.rows_left(), 2_000_000);
        let first = reader.next().unwrap().unwrap();
        reader.put_back(first);
        assert_eq!(sum(reader).unwrap(), 2 * TOTAL);
    }
}

#[test]
fn an_output_is_spilled_between_two_batches_of_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), u64::MAX, None);
    let output = output(&task).unwrap();
    let mut readers: Vec<_> = (0..2).map(|p| ExchangeReader::new(0, vec![output.clone()], p)).collect();
    let mut total = 0;
    let mut add = |batch: Batch| {
        total += batch.columns[0].values().unwrap().as_primitive::<Int64Type>().values().iter().sum::<i64>()
    };
    for reader in &mut readers {
        (0..10).for_each(|_| add(reader.next().unwrap().unwrap()));
    }
    assert!(output.spill().unwrap() > 0);
    assert_eq!((task.query.memory.used_bytes(), output.memory_bytes()), (0, 0));
    readers.into_iter().flatten().for_each(|batch| add(batch.unwrap()));
    assert_eq!(total, TOTAL);
}

#[test]
fn readers_and_a_spiller_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), u64::MAX, None);
    for _ in 0..10 {
        let output = output(&task).unwrap();
        let total: i64 = std::thread::scope(|scope| {
            let read = |p| sum(ExchangeReader::new(0, vec![output.clone()], p)).unwrap();
            let readers = [scope.spawn(move || read(0)), scope.spawn(move || read(1))];
            output.spill().unwrap();
            readers.map(|r| r.join().unwrap()).iter().sum()
        });
        assert_eq!(total, TOTAL);
    }
    assert_eq!(task.query.memory.used_bytes(), 0);
}

#[test]
fn a_full_directory_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), 1 << 20, Some(200_000));
    let governor = task.query.memory.clone();
    let error = output(&task).err().expect("the quota is too small");
    assert!(matches!(error, EngineError::Shuffle(ShuffleError::DiskFull { .. })), "{error}");
    drop(task);
    assert_eq!(governor.used_bytes(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn damage_between_write_and_read_is_an_error() {
    let damages: [&dyn Fn(&Path); 4] = [
        &|file| fs::remove_file(file).unwrap(),
        &|file| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        &|file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100).unwrap(),
        &|file| {
            let mut bytes = fs::read(file).unwrap();
            // Every block has a bit flipped somewhere.
            bytes.iter_mut().skip(500).step_by(1000).for_each(|byte| *byte ^= 4);
            fs::write(file, bytes).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let task = task(dir.path(), u64::MAX, None);
        let governor = task.query.memory.clone();
        let output = output(&task).unwrap();
        output.spill().unwrap();
        let files = files(dir.path());
        assert_eq!(files.len(), 1);
        damage(&files[0]);
        for partition in 0..2 {
            let mut reader = ExchangeReader::new(0, vec![output.clone()], partition);
            let error = reader.find_map(Result::err).expect("the damage is noticed");
            assert!(matches!(&error, EngineError::Shuffle(e) if e.is_loss()), "{number}: {error}");
            assert!(reader.next().is_none());
        }
        drop((output, task));
        assert_eq!(governor.used_bytes(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_lost_batch_fails_the_query() {
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), u64::MAX, None);
    let output = output(&task).unwrap();
    let reader = ExchangeReader::new(7, vec![output.clone()], 1);
    // A second reader takes what is not its own.
    ExchangeReader::new(7, vec![output], 1).next().unwrap().unwrap();
    let error = sum(reader).unwrap_err();
    let text = "exchange 7 lost or doubled rows: 500000 were written to partition 1 and 490000 were read";
    assert!(error.to_string().starts_with(text), "{error}");
}
