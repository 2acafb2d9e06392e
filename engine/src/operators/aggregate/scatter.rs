//! Rows into hash partitions.
//!
//! The rows of each partition are in the order of its parts ([`crate::exchange::parts`]), so that the final
//! stage, if a partition has more groups than the cache holds, can take it part by part without moving rows
//! again. The order is no promise: whoever wants parts asks for them.

use std::sync::Arc;

use arrow::array::types::UInt32Type;
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use dovetail_shuffle::partitioner::{EXCHANGE_SEED, hash_columns_into, partition_of};

use crate::batch::{Batch, concat_arrays};
use crate::error::Result;
use crate::exchange::ExchangeWriter;
use crate::exchange::parts::{PARTS_MAX, order_by, part_of, reordered};

/// Fewer rows are not worth an order by part.
const PARTS_ROWS_MIN: usize = 4096;
/// More places to write to at once than this are slow.
const BUCKETS_MAX: usize = 1024;

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
    let parts = if rows < PARTS_ROWS_MIN { 1 } else { (BUCKETS_MAX / partitions).clamp(1, PARTS_MAX) };
    let parts = parts.next_power_of_two();
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

    use crate::exchange::parts::{DEPTH_MAX, split};
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
