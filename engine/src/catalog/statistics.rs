//! What the planner is told of a table's content, from footers alone.
//!
//! `distinct` is an estimate, from the best of what is there:
//! - a chunk whose data pages all hold dictionary codes has as many distinct values as its dictionary
//!   page has entries: its bytes (compressed bytes times the chunk's ratio) by the width of a value;
//! - groups of a column that are sorted apart (each group's range beyond the one before) add up; groups
//!   over the same range are samples of one set of D values: n rows show D(1 - e^(-n/D)) of them;
//! - never more than the rows that are not null, nor than max - min + 1 of an integer-like column.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::catalog::{ColumnStatistics, TableStatistics};
use dovetail_planner::expr::Literal;
use parquet::basic::{Encoding, Type};
use parquet::file::metadata::ColumnChunkMetaData;

use crate::batch::Batch;
use crate::catalog::ParquetFile;
use crate::catalog::bounds::{self, Bound, Bounds};

/// Bytes of a page header, about.
const PAGE_HEADER_BYTES: f64 = 14.0;

/// Sums up the footers of a table's files.
pub fn of_files(schema: &SchemaRef, files: &[Arc<ParquetFile>]) -> TableStatistics {
    let rows = files.iter().flat_map(|f| f.metadata.row_groups()).map(|g| g.num_rows() as u64).sum();
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let mut sum = ColumnSum::new(field.data_type().clone());
            for file in files {
                let Some(leaf) = file.leaf(field.name()) else {
                    return ColumnStatistics::default();
                };
                for group in file.metadata.row_groups() {
                    sum.add(group.column(leaf), group.num_rows() as u64);
                }
            }
            sum.finish()
        })
        .collect();
    TableStatistics { rows: Some(rows), columns }
}

/// Rows and nulls of a table in memory.
pub fn of_batches(schema: &SchemaRef, batches: &[Batch]) -> TableStatistics {
    let rows = batches.iter().map(|b| b.rows as u64).sum();
    let columns = (0..schema.fields().len())
        .map(|i| {
            let nulls = batches.iter().map(|b| b.columns[i].base().logical_null_count() as u64).sum();
            let bytes: usize = batches.iter().map(|b| b.columns[i].base().get_array_memory_size()).sum();
            ColumnStatistics {
                nulls: Some(nulls),
                bytes_per_value: (rows > 0).then(|| bytes as f64 / rows as f64),
                ..Default::default()
            }
        })
        .collect();
    TableStatistics { rows: Some(rows), columns }
}

/// One column, summed over row groups.
struct ColumnSum {
    data_type: DataType,
    rows: u64,
    nulls: Option<u64>,
    bounds: Option<Bounds>,
    /// For each row group: rows, entries of its dictionary (none if some page has none).
    groups: Vec<(u64, Option<f64>)>,
    /// Groups that begin at or beyond the end of the one before; that end at or before its beginning.
    ascending: usize,
    descending: usize,
    previous: Bounds,
    uncompressed_bytes: f64,
    value_bytes: Option<f64>,
}

impl ColumnSum {
    fn new(data_type: DataType) -> Self {
        ColumnSum {
            data_type,
            rows: 0,
            nulls: Some(0),
            bounds: None,
            groups: vec![],
            ascending: 0,
            descending: 0,
            previous: Bounds::default(),
            uncompressed_bytes: 0.0,
            value_bytes: Some(0.0),
        }
    }

    fn add(&mut self, chunk: &ColumnChunkMetaData, rows: u64) {
        if rows == 0 {
            return;
        }
        self.rows += rows;
        self.uncompressed_bytes += chunk.uncompressed_size().max(0) as f64;
        let nulls = chunk.statistics().and_then(|s| s.null_count_opt());
        self.nulls = self.nulls.zip(nulls).map(|(a, b)| a + b);
        let bounds =
            chunk.statistics().map(|s| bounds::of_statistics(s, &self.data_type)).unwrap_or_default();
        let all_null = nulls == Some(rows);
        if !all_null {
            self.count_order(&bounds);
            self.bounds = Some(match self.bounds.take() {
                None => bounds.clone(),
                Some(sum) => Bounds {
                    min: pick(sum.min, bounds.min.clone(), true),
                    max: pick(sum.max, bounds.max.clone(), false),
                },
            });
            self.previous = bounds;
        }
        let width = value_width(chunk, &self.data_type);
        self.value_bytes = self.value_bytes.zip(width).map(|(sum, w)| sum + w * rows as f64);
        self.groups.push((rows - nulls.unwrap_or(0).min(rows), dictionary_entries(chunk, width)));
    }

    fn count_order(&mut self, next: &Bounds) {
        let at_or_after = |a: &Option<Bound>, b: &Option<Bound>| {
            a.as_ref().zip(b.as_ref()).and_then(|(a, b)| a.compare(b)).is_some_and(|o| o.is_ge())
        };
        self.ascending += at_or_after(&next.min, &self.previous.max) as usize;
        self.descending += at_or_after(&self.previous.min, &next.max) as usize;
    }

    fn finish(self) -> ColumnStatistics {
        let distinct = self.distinct();
        let bounds = self.bounds.unwrap_or_default();
        let literal = |b: &Option<Bound>| b.as_ref().and_then(|b| b.to_scalar(&self.data_type)).map(Literal);
        let bytes_per_value = match self.value_bytes {
            _ if self.rows == 0 => None,
            Some(bytes) => Some(bytes / self.rows as f64),
            None => Some(self.uncompressed_bytes / self.rows as f64),
        };
        ColumnStatistics {
            min: literal(&bounds.min),
            max: literal(&bounds.max),
            nulls: self.nulls,
            distinct,
            bytes_per_value,
        }
    }

    fn distinct(&self) -> Option<u64> {
        let values: u64 = self.groups.iter().map(|(rows, _)| rows).sum();
        if values == 0 {
            return Some(0);
        }
        let span = match self.bounds.as_ref().map(|b| (&b.min, &b.max)) {
            Some((Some(Bound::Int(min)), Some(Bound::Int(max)))) => Some((max - min + 1) as f64),
            _ => None,
        };
        let most = span.unwrap_or(f64::INFINITY).min(values as f64);
        let known: Option<Vec<(f64, f64)>> =
            self.groups.iter().map(|(rows, entries)| Some((*rows as f64, (*entries)?))).collect();
        let estimate = match known {
            // The writer gave up its dictionary: mostly different values.
            None => most,
            Some(groups) => {
                let sum: f64 = groups.iter().map(|(_, d)| d).sum();
                let largest = groups.iter().map(|(_, d)| *d).fold(1.0, f64::max);
                let steps = groups.len().saturating_sub(1).max(1);
                let sorted = groups.len() > 1 && self.ascending.max(self.descending) * 10 >= steps * 9;
                if sorted {
                    sum
                } else {
                    let rows = groups.iter().map(|(n, _)| n).sum::<f64>() / groups.len() as f64;
                    population(rows, sum / groups.len() as f64).min(sum).max(largest)
                }
            }
        };
        Some(estimate.min(most).max(1.0).round() as u64)
    }
}

/// How many values there are, if `rows` random draws show `seen` different ones.
fn population(rows: f64, seen: f64) -> f64 {
    if seen >= rows * 0.999 {
        return f64::INFINITY;
    }
    let shown = |total: f64| total * (1.0 - (-rows / total).exp());
    let (mut low, mut high) = (seen, seen.max(1.0));
    while shown(high) < seen {
        high *= 2.0;
    }
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if shown(middle) < seen { low = middle } else { high = middle }
    }
    high
}

fn pick(a: Option<Bound>, b: Option<Bound>, least: bool) -> Option<Bound> {
    let (a, b) = (a?, b?);
    let first = a.compare(&b)?.is_le() == least;
    Some(if first { a } else { b })
}

/// Mean bytes of a value.
fn value_width(chunk: &ColumnChunkMetaData, t: &DataType) -> Option<f64> {
    match chunk.column_type() {
        Type::BOOLEAN => Some(0.125),
        Type::INT32 | Type::FLOAT => Some(4.0),
        Type::INT64 | Type::DOUBLE => Some(8.0),
        Type::INT96 => Some(12.0),
        Type::FIXED_LEN_BYTE_ARRAY => Some(chunk.column_descr().type_length().max(1) as f64),
        Type::BYTE_ARRAY => {
            let values = chunk.num_values().max(1) as f64;
            if let Some(bytes) = chunk.unencoded_byte_array_data_bytes() {
                return Some((bytes as f64 / values).max(1.0));
            }
            match chunk.statistics().map(|s| bounds::of_statistics(s, t)) {
                Some(Bounds { min: Some(Bound::Bytes(a)), max: Some(Bound::Bytes(b)) }) => {
                    Some(((a.len() + b.len()) as f64 / 2.0).max(1.0))
                }
                _ => None,
            }
        }
    }
}

/// Entries of a chunk's dictionary, about; none without one, or when some data page does not use it.
fn dictionary_entries(chunk: &ColumnChunkMetaData, width: Option<f64>) -> Option<f64> {
    let (start, end) = (chunk.dictionary_page_offset()?, chunk.data_page_offset());
    if !only_dictionary_pages(chunk) || end <= start {
        return None;
    }
    let ratio = chunk.uncompressed_size() as f64 / chunk.compressed_size().max(1) as f64;
    let bytes = ((end - start) as f64 - PAGE_HEADER_BYTES).max(1.0) * ratio.max(1.0);
    let prefix = if chunk.column_type() == Type::BYTE_ARRAY { 4.0 } else { 0.0 };
    Some((bytes / (width? + prefix)).max(1.0))
}

/// Every data page holds dictionary codes, as far as the footer says.
pub fn only_dictionary_pages(chunk: &ColumnChunkMetaData) -> bool {
    match chunk.page_encoding_stats_mask() {
        Some(mask) => mask.is_only(Encoding::RLE_DICTIONARY) || mask.is_only(Encoding::PLAIN_DICTIONARY),
        None => chunk.dictionary_page_offset().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_tells_its_population() {
        // 1000 draws from 500 values show 500 * (1 - e^-2) = 432 of them.
        assert!((population(1000.0, 432.3) - 500.0).abs() < 1.0);
        assert!((population(100_000.0, 50.0) - 50.0).abs() < 0.1);
        assert_eq!(population(10.0, 10.0), f64::INFINITY);
    }
}
