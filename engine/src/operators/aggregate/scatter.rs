//! Rows into hash partitions, and the rows of a partition into parts of it.
//!
//! The parts of a partition go by other bits of the same hash. The partial stage orders the rows of each
//! partition by part, so that the final stage, if a partition has more groups than the cache holds, can
//! take it part by part without moving rows again. The order is no promise: whoever wants parts asks
//! [`split`].

use std::sync::Arc;

use arrow::array::types::UInt32Type;
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns_into, partition_of};

use crate::batch::{Batch, Column, concat_arrays};
use crate::error::Result;
use crate::exchange::ExchangeWriter;

/// Most parts that a partition, or a part of one, is taken in; a power of two.
pub(in crate::operators) const PARTS_MAX: usize = 64;
/// How often a part can be taken in parts: each time uses other bits of the hash, as long as there are any.
pub(in crate::operators) const DEPTH_MAX: u32 = 5;
/// Fewer rows are not worth an order by part.
const PARTS_ROWS_MIN: usize = 4096;

/// The part, `0..parts`, of a hash, at a depth below [`DEPTH_MAX`]. `parts` is a power of two from 2 to
/// [`PARTS_MAX`].
#[inline(always)]
pub(in crate::operators) fn part_of(hash: u64, parts: usize, depth: u32) -> usize {
    ((hash as u32) << (depth * PARTS_MAX.trailing_zeros()) >> (32 - parts.trailing_zeros())) as usize
}

/// Writes rows to the partitions of their first `keys` columns; without keys, to partition 0.
pub(super) fn scatter(
    columns: &[ArrayRef],
    keys: usize,
    rows: usize,
    writer: &mut ExchangeWriter,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    if keys == 0 {
        return writer.push(0, &Batch::from_arrays(columns.to_vec(), rows));
    }
    let partitions = writer.partitions();
    let mut hashes = vec![];
    hash_columns_into(&columns[..keys], EXCHANGE_SEED, &mut hashes);
    let parts = if rows < PARTS_ROWS_MIN { 1 } else { PARTS_MAX };
    let (order, ends) = match parts {
        1 => order_by(&hashes, partitions, |hash| partition_of(hash, partitions)),
        _ => order_by(&hashes, partitions * parts, |hash| {
            partition_of(hash, partitions) * parts + part_of(hash, parts, 0)
        }),
    };
    let whole = reordered(columns, order)?;
    let mut start = 0;
    for partition in 0..partitions {
        let end = ends[(partition + 1) * parts - 1];
        if end > start {
            writer.push(partition, &whole.slice(start, end - start))?;
        }
        start = end;
    }
    Ok(())
}

/// A batch whose rows are in the order of their parts, and where each part ends. The keys may be columns of
/// the batch or computed from them.
pub(super) fn split(
    batch: Batch,
    keys: &[ArrayRef],
    parts: usize,
    depth: u32,
) -> Result<(Batch, Vec<usize>)> {
    split_by(batch, keys, parts, |hash| part_of(hash, parts, depth))
}

/// A batch whose rows are in the order of `bucket` of their keys' hash, and where each bucket ends.
pub(in crate::operators) fn split_by(
    batch: Batch,
    keys: &[ArrayRef],
    buckets: usize,
    bucket: impl Fn(u64) -> usize,
) -> Result<(Batch, Vec<usize>)> {
    let mut hashes = vec![];
    hash_columns_into(keys, EXCHANGE_SEED, &mut hashes);
    let sorted = hashes.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1]));
    let (order, ends) = order_by(&hashes, buckets, bucket);
    if sorted {
        return Ok((batch, ends));
    }
    let columns = batch.columns.iter().map(Column::values).collect::<Result<Vec<_>>>()?;
    Ok((reordered(&columns, order)?, ends))
}

/// Row numbers in the order of their buckets, and the end of each bucket in that order.
fn order_by(hashes: &[u64], buckets: usize, bucket: impl Fn(u64) -> usize) -> (Vec<u32>, Vec<usize>) {
    let mut ends = vec![0u32; buckets + 1];
    for hash in hashes {
        ends[bucket(*hash) + 1] += 1;
    }
    for bucket in 0..buckets {
        ends[bucket + 1] += ends[bucket];
    }
    let mut order = vec![0u32; hashes.len()];
    for (row, hash) in hashes.iter().enumerate() {
        let place = &mut ends[bucket(*hash)];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    // Each start has moved to its bucket's end.
    ends.pop();
    (order, ends.into_iter().map(|end| end as usize).collect())
}

/// Columns in another order of rows. The bytes of strings move along, so that whoever reads the rows one
/// after the other reads their bytes so too, and nothing else is kept in memory for them.
fn reordered(columns: &[ArrayRef], order: Vec<u32>) -> Result<Batch> {
    let rows = order.len();
    let order = UInt32Array::from(order);
    let columns = columns
        .iter()
        .map(|column| {
            let taken = take(column, &order, None)?;
            Ok(match taken.data_type() {
                DataType::Utf8View => Arc::new(taken.as_string_view().gc()) as ArrayRef,
                DataType::BinaryView => Arc::new(taken.as_binary_view().gc()),
                _ => taken,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Batch::from_arrays(columns, rows))
}

/// Several pieces of one column, all of one type, as one array. Dictionaries stay so if they are one.
pub(super) fn join_pieces(pieces: &[ArrayRef]) -> Result<ArrayRef> {
    if let [one] = pieces {
        return Ok(one.clone());
    }
    let dictionaries: Vec<_> = pieces.iter().filter_map(|p| p.as_dictionary_opt::<UInt32Type>()).collect();
    if let Some(first) = dictionaries.first()
        && dictionaries.iter().all(|d| Arc::ptr_eq(d.values(), first.values()))
    {
        let keys: Vec<&dyn Array> = dictionaries.iter().map(|d| d.keys() as &dyn Array).collect();
        let keys = concat(&keys)?.as_primitive::<UInt32Type>().clone();
        return Ok(Arc::new(DictionaryArray::new(keys, first.values().clone())));
    }
    let logical = match pieces[0].data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    concat_arrays(pieces, logical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use dovetail_shuffle::partitioner::hash_columns;

    use crate::operators::harness::partitions_of;
    use crate::task::{Output, TaskContext};

    #[test]
    fn every_row_goes_where_its_hash_says() {
        let rows = 20_000;
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..rows).map(|i| format!("the text of row {i}"))));
        let mut writer = ExchangeWriter::new(&TaskContext::new(0, 1, Arc::default()), "test", 5);
        scatter(&[keys, texts], 1, rows as usize, &mut writer).unwrap();
        let output = Output { exchange: Some(writer.finish().unwrap()), ..Output::default() };
        let mut seen = vec![];
        for (number, batches) in partitions_of(&output).into_iter().enumerate() {
            for batch in batches {
                for depth in [1, DEPTH_MAX - 1, 0] {
                    let keys = batch.columns[0].values().unwrap();
                    let (batch, ends) = split(batch.clone(), &[keys], 8, depth).unwrap();
                    assert_eq!(ends.last(), Some(&batch.rows));
                    let keys = batch.columns[0].values().unwrap();
                    let texts = batch.columns[1].values().unwrap();
                    let hashes = hash_columns(std::slice::from_ref(&keys), EXCHANGE_SEED);
                    let keys = keys.as_primitive::<arrow::array::types::Int64Type>();
                    for (row, &hash) in hashes.iter().enumerate() {
                        assert_eq!(partition_of(hash, 5), number);
                        let part = ends.iter().position(|end| row < *end).unwrap();
                        assert_eq!(part_of(hash, 8, depth), part);
                        assert_eq!(
                            texts.as_string_view().value(row),
                            format!("the text of row {}", keys.value(row))
                        );
                        seen.extend((depth == 0).then_some(keys.value(row)));
                    }
                }
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..rows).collect::<Vec<_>>());
    }
}
