//! Segments: partitions come back whole, from many threads, and damage is an error or harmless.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use dovetail_shuffle::segment::{Segment, SegmentWriter};
use dovetail_shuffle::store::{QueryStore, SpillDirectory, SpillStore};
use dovetail_shuffle::{Result, Rows, ShuffleError};

use crate::samples::{Random, assert_same, random_rows};

/// A store in a folder of its own, which is deleted after the test.
fn query() -> (tempfile::TempDir, SpillStore, QueryStore) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        SpillStore::open(&[SpillDirectory { path: dir.path().to_path_buf(), quota_bytes: None }]).unwrap();
    let query = store.query("q");
    (dir, store, query)
}

/// Numbers from `start` and strings made of them.
fn numbered(start: i64, rows: usize) -> Rows {
    let numbers = start..start + rows as i64;
    let texts = StringViewArray::from_iter_values(numbers.clone().map(|i| format!("row number {i}")));
    Rows::new(vec![Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef, Arc::new(texts)], rows)
}

/// The batches one after the other, as one.
fn joined(batches: &[Rows]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
    ]));
    let batches: Vec<_> =
        batches.iter().map(|b| RecordBatch::try_new(schema.clone(), b.columns.clone()).unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn read(segment: &Segment, partition: usize) -> Result<Vec<Rows>> {
    segment.read(partition).collect()
}

#[test]
fn partitions_come_back_after_several_spills() {
    let (_dir, store, query) = query();
    let mut writer = SegmentWriter::create(&query, "task", 4).unwrap();
    let mut expected = vec![vec![]; 4];
    let mut start = 0;
    for _spill in 0..3 {
        for partition in [0, 1, 3] {
            let batches: Vec<Rows> = (0..50)
                .map(|i| {
                    let rows = i * partition % 7 * 100;
                    start += rows as i64;
                    numbered(start, rows)
                })
                .collect();
            writer.append(partition, &batches).unwrap();
            expected[partition].extend(batches);
        }
    }
    let spilled = writer.spilled();
    let segment = writer.finish().unwrap();
    let opened = Segment::open(segment.path()).unwrap();
    for segment in [&segment, &opened] {
        assert_eq!(segment.partitions(), 4);
        assert_eq!((0..4).map(|p| segment.rows(p)).sum::<u64>(), spilled.rows);
        assert_eq!((0..4).map(|p| segment.blocks(p).len() as u64).sum::<u64>(), spilled.blocks);
        assert_eq!((0..4).map(|p| segment.bytes(p)).sum::<u64>(), spilled.bytes);
        for (partition, expected) in expected.iter().enumerate() {
            let rows: usize = expected.iter().map(|b| b.rows).sum();
            assert_eq!(segment.rows(partition), rows as u64);
            assert_eq!(joined(&read(segment, partition).unwrap()), joined(expected));
        }
    }
    drop(opened);
    assert_eq!(store.files_alive(), 1, "a segment that was opened by its path does not own the file");
}

#[test]
fn small_batches_are_joined_and_large_ones_split() {
    let (_dir, _store, query) = query();
    let mut writer = SegmentWriter::create(&query, "task", 2).unwrap();
    let small: Vec<Rows> = (0..1000).map(|i| numbered(i * 20, 20)).collect();
    writer.append(0, &small).unwrap();
    writer.append(1, &[numbered(0, 300_000)]).unwrap();
    let segment = writer.finish().unwrap();
    assert!((1..=4).contains(&segment.blocks(0).len()), "{} blocks", segment.blocks(0).len());
    let blocks = read(&segment, 1).unwrap();
    assert!(blocks.len() > 5, "{} blocks", blocks.len());
    for block in &blocks {
        assert!((64 << 10..=1 << 20).contains(&block.encoded_bytes()), "{} bytes", block.encoded_bytes());
    }
    assert_eq!(joined(&blocks), joined(&[numbered(0, 300_000)]));
}

#[test]
fn types_may_differ_from_batch_to_batch() {
    let (_dir, _store, query) = query();
    let mut random = Random(5);
    let batches: Vec<Rows> = (0..20)
        .map(|i| if i % 3 == 0 { random_rows(&mut random, 20) } else { numbered(i, i as usize * 10 + 1) })
        .collect();
    let mut writer = SegmentWriter::create(&query, "task", 1).unwrap();
    for batch in &batches {
        writer.append(0, std::slice::from_ref(batch)).unwrap();
    }
    let segment = writer.finish().unwrap();
    let blocks = read(&segment, 0).unwrap();
    assert_eq!(blocks.len(), batches.len());
    blocks.iter().zip(&batches).for_each(|(read, written)| assert_same(read, written));
}

#[test]
fn joining_keeps_the_rows_of_every_type() {
    let (_dir, _store, query) = query();
    let mut random = Random(6);
    // Dictionaries of different values, and too many of them for keys of 8 bits.
    let batches: Vec<Rows> = (0..12).map(|_| random_rows(&mut random, 30)).collect();
    let mut writer = SegmentWriter::create(&query, "task", 1).unwrap();
    writer.append(0, &batches).unwrap();
    let segment = writer.finish().unwrap();
    let mut blocks = read(&segment, 0).unwrap().into_iter();
    let mut block = blocks.next().unwrap();
    let mut at = 0;
    for batch in &batches {
        if at == block.rows {
            block = blocks.next().unwrap();
            at = 0;
        }
        assert_same(&block.slice(at, batch.rows), batch);
        at += batch.rows;
    }
    assert!(blocks.next().is_none() && at == block.rows);
}

/// A file of two partitions, each of two blocks, as small as can be.
fn small_segment(query: &QueryStore) -> Segment {
    let mut writer = SegmentWriter::create(query, "task", 2).unwrap();
    for spill in 0..2 {
        for partition in 0..2 {
            let batch = numbered((spill * 2 + partition) * 100, 3 + partition as usize);
            writer.append(partition as usize, &[batch]).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// Both partitions of a file, read by whoever opens it.
fn read_file(path: &Path) -> Result<Vec<Vec<Rows>>> {
    let segment = Segment::open(path)?;
    (0..segment.partitions()).map(|p| read(&segment, p)).collect()
}

#[test]
fn a_flipped_bit_anywhere_gives_an_error_or_the_same_rows() {
    let (dir, _store, query) = query();
    let segment = small_segment(&query);
    let bytes = fs::read(segment.path()).unwrap();
    let right: Vec<_> = (0..2).map(|p| read(&segment, p).unwrap()).collect();
    let copy = dir.path().join("copy");
    let mut found_late = 0;
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            fs::write(&copy, &bad).unwrap();
            // By its path, every byte is covered.
            let error = read_file(&copy).unwrap_err();
            assert!(matches!(error, ShuffleError::Corrupt { .. }), "byte {at}: {error}");
            assert!(error.is_loss());
            // With the index in memory, only blocks matter.
            fs::write(segment.path(), &bad).unwrap();
            for (partition, right) in right.iter().enumerate() {
                match read(&segment, partition) {
                    Ok(rows) => assert_eq!(&rows, right, "byte {at}"),
                    Err(ShuffleError::Corrupt { file, .. }) => {
                        found_late += 1;
                        assert_eq!(file, segment.path());
                    }
                    Err(other) => panic!("byte {at}: {other}"),
                }
            }
        }
    }
    assert!(found_late > bytes.len());
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let (dir, _store, query) = query();
    let segment = small_segment(&query);
    let bytes = fs::read(segment.path()).unwrap();
    let right: Vec<_> = (0..2).map(|p| read(&segment, p).unwrap()).collect();
    let copy = dir.path().join("copy");
    for length in 0..bytes.len() {
        fs::write(&copy, &bytes[..length]).unwrap();
        let error = read_file(&copy).unwrap_err();
        assert!(matches!(error, ShuffleError::Corrupt { .. }), "{length} bytes: {error}");
        fs::write(segment.path(), &bytes[..length]).unwrap();
        for (partition, right) in right.iter().enumerate() {
            match read(&segment, partition) {
                Ok(rows) => assert_eq!(&rows, right, "{length} bytes"),
                Err(error) => assert!(matches!(error, ShuffleError::Corrupt { .. }), "{error}"),
            }
        }
    }
}

/// Bytes that were exchanged with intent: blocks of another partition have the right checksum.
#[test]
fn a_block_with_other_rows_than_the_index_says_is_an_error() {
    let (_dir, _store, query) = query();
    let segment = small_segment(&query);
    let mut bytes = fs::read(segment.path()).unwrap();
    let (to, from) = (segment.blocks(0)[0], segment.blocks(1)[0]);
    let block = bytes[from.offset as usize..(from.offset + from.bytes) as usize].to_vec();
    let end = to.offset as usize + block.len();
    bytes[to.offset as usize..end].copy_from_slice(&block);
    fs::write(segment.path(), &bytes).unwrap();
    let error = read(&segment, 0).unwrap_err();
    assert!(matches!(error, ShuffleError::Corrupt { offset: 16, .. }), "{error}");
}

#[test]
fn a_missing_file_is_a_loss_that_names_it() {
    let (dir, _store, query) = query();
    let segment = small_segment(&query);
    fs::remove_file(segment.path()).unwrap();
    let mut reader = segment.read(0);
    let error = reader.next().unwrap().unwrap_err();
    assert!(error.is_loss() && error.to_string().contains(segment.path().to_str().unwrap()), "{error}");
    assert!(reader.next().is_none(), "nothing more after an error");
    let error = Segment::open(&dir.path().join("nowhere")).unwrap_err();
    assert!(error.is_loss() && error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn many_threads_read_one_segment_and_the_file_goes_with_the_last() {
    let (dir, store, query) = query();
    let mut writer = SegmentWriter::create(&query, "task", 8).unwrap();
    for partition in 0..8 {
        writer.append(partition, &[numbered(partition as i64 * 1000, 40_000)]).unwrap();
    }
    let segment = writer.finish().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let segment = segment.clone();
            scope.spawn(move || {
                for partition in (0..8).map(|p| (p + thread) % 8) {
                    let rows = joined(&read(&segment, partition).unwrap());
                    assert_eq!(rows, joined(&[numbered(partition as i64 * 1000, 40_000)]));
                }
            });
        }
    });
    let mut reader = segment.read(3);
    reader.next().unwrap().unwrap();
    drop((segment, query));
    assert_eq!(store.files_alive(), 1);
    assert!(reader.all(|rows| rows.is_ok()));
    drop(reader);
    assert_eq!((store.files_alive(), store.bytes_in_use()), (0, 0));
    drop(store);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
