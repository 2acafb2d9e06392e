//! Blocks: every type comes back, nothing but the rows is written, and no bytes make decoding panic.

use std::path::Path;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, UInt32Type};
use dovetail_shuffle::block::{BlockEncoder, HEADER_BYTES, decode};
use dovetail_shuffle::{Result, Rows, ShuffleError};
use twox_hash::XxHash3_64;

use crate::samples::{Random, assert_same, every_type, random_array, random_rows};

fn decoded(bytes: &[u8]) -> Result<Rows> {
    decode(&Buffer::from(bytes), Path::new("a-file"), 4096)
}

fn round_trip(rows: &Rows) -> (Rows, usize) {
    let mut encoder = BlockEncoder::default();
    let block = encoder.encode(rows).unwrap();
    (decoded(block).unwrap(), block.len())
}

#[test]
fn every_type_comes_back() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let count = [0, 1, 7, 64, 300][random.below(5)];
        let rows = random_rows(&mut random, count);
        assert_same(&round_trip(&rows).0, &rows);
        assert_same(&rows.compacted().unwrap(), &rows);
    }
}

#[test]
fn rows_without_columns_keep_their_number() {
    let rows = Rows::new(vec![], 12_345);
    let (read, bytes) = round_trip(&rows);
    assert_eq!(read, rows);
    assert!(bytes < 100, "{bytes} bytes");
}

#[test]
fn only_what_the_rows_refer_to_is_written_and_kept() {
    let mut random = Random(1);
    let texts = DataType::Utf8View;
    for data_type in [
        DataType::Int64,
        DataType::Utf8,
        texts.clone(),
        DataType::Dictionary(Box::new(DataType::UInt32), Box::new(texts)),
    ] {
        let column = random_array(&mut random, &data_type, 100_000);
        let rows = Rows::new(vec![column.slice(50_000, 10)], 10);
        let (read, bytes) = round_trip(&rows);
        assert!(bytes < 1_000, "{data_type}: {bytes} bytes");
        assert!(read.columns[0].get_buffer_memory_size() < 5_000);
        let kept = rows.compacted().unwrap().columns[0].get_buffer_memory_size();
        assert!(kept < 5_000, "{data_type}: {kept} bytes are kept");
    }
}

#[test]
fn a_dictionary_that_pays_stays() {
    let strings: DictionaryArray<UInt32Type> = (0..1000).map(|i| ["red", "green", "blue"][i % 3]).collect();
    let rows = Rows::new(vec![Arc::new(strings)], 1000);
    let (read, _) = round_trip(&rows);
    assert_eq!(read.columns[0].data_type(), rows.columns[0].data_type());
}

#[test]
fn compression_is_left_out_where_it_does_not_help() {
    let mut random = Random(2);
    let noise = UInt64Array::from_iter_values((0..10_000).map(|_| random.next()));
    let (_, bytes) = round_trip(&Rows::new(vec![Arc::new(noise)], 10_000));
    assert!(bytes <= HEADER_BYTES + 80_000 + 8, "{bytes} bytes");
    let zeros = UInt64Array::from_iter_values(std::iter::repeat_n(7, 10_000));
    let (_, bytes) = round_trip(&Rows::new(vec![Arc::new(zeros)], 10_000));
    assert!(bytes < 1_000, "{bytes} bytes");
}

#[test]
fn types_that_blocks_do_not_hold_are_refused() {
    let item = Arc::new(Field::new("item", DataType::Int8, true));
    let column = new_empty_array(&DataType::ListView(item));
    let error = BlockEncoder::default().encode(&Rows::new(vec![column], 0)).unwrap_err();
    assert!(matches!(error, ShuffleError::UnsupportedType { .. }), "{error}");
}

#[test]
fn any_flipped_bit_and_any_truncation_is_an_error_that_names_the_place() {
    let rows = random_rows(&mut Random(3), 9);
    let block = BlockEncoder::default().encode(&rows).unwrap().to_vec();
    for at in 0..block.len() {
        let mut bad = block.clone();
        bad[at] ^= 1 << (at % 8);
        let error = decoded(&bad).unwrap_err();
        assert!(matches!(error, ShuffleError::Corrupt { offset: 4096, .. }), "{error}");
        let error = decoded(&block[..at]).unwrap_err().to_string();
        assert!(error.contains("a-file") && error.contains("4096"), "{error}");
    }
}

/// Bytes that were changed with intent have the right checksum. Whatever comes back must be valid arrays.
#[test]
fn hostile_bytes_give_an_error_or_valid_arrays() {
    let mut survived = 0;
    for seed in 0..4_000 {
        let mut random = Random(seed);
        let types = every_type();
        let data_type = &types[random.below(types.len())];
        let count = random.below(40);
        let rows = Rows::new(vec![random_array(&mut random, data_type, count)], count);
        let mut block = BlockEncoder::default().encode(&rows).unwrap().to_vec();
        for _ in 0..1 + random.below(3) {
            // The header's sizes and the metadata at the end are where lies matter most.
            let at = match random.below(3) {
                0 => 8 + random.below(HEADER_BYTES - 8),
                1 => block.len() - 1 - random.below((block.len() - HEADER_BYTES).min(16)),
                _ => 8 + random.below(block.len() - 8),
            };
            block[at] = match random.below(3) {
                0 => block[at].wrapping_add(1),
                1 => 0xff,
                _ => random.next() as u8,
            };
        }
        let checksum = XxHash3_64::oneshot(&block[8..]);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(read) = decoded(&block) {
            survived += 1;
            for column in &read.columns {
                assert_eq!(column.len(), read.rows);
                column.to_data().validate_full().unwrap();
            }
        }
    }
    assert!(survived > 100, "only {survived} changes were let through: is anything but the checksum tested?");
}

/// Buffers that come from a network lie anywhere.
#[test]
fn unaligned_bytes_are_read() {
    let rows = random_rows(&mut Random(4), 50);
    let mut bytes = vec![0u8; 3];
    bytes.extend_from_slice(BlockEncoder::default().encode(&rows).unwrap());
    let unaligned = Buffer::from(bytes).slice(3);
    assert_same(&decode(&unaligned, Path::new("a-file"), 0).unwrap(), &rows);
}
