//! A column that Parquet's own reader decodes: nested types, and encodings that we lack.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::batch::BATCH_ROWS;
use crate::catalog::ParquetFile;
use crate::catalog::footer::guarded;
use crate::error::Result;
use crate::scan::column::chunk::Place;
use crate::scan::column::{Rows, Use};
use crate::scan::io::ReadRanges;

/// A column through Parquet's reader.
pub struct ReaderColumn {
    place: Place,
    data_type: DataType,
    reader: ParquetRecordBatchReader,
    /// The row of the row group that `current` begins with.
    first_row: usize,
    current: ArrayRef,
    building: [Vec<ArrayRef>; 2],
}

impl ReaderColumn {
    /// A column of a row group of a file; `bytes` has the ranges of all of its leaves.
    pub fn open(place: Place, file: &ParquetFile, column: usize, bytes: ReadRanges) -> Result<ReaderColumn> {
        let group = place.group;
        let mask = ProjectionMask::roots(file.metadata.file_metadata().schema_descr(), [column]);
        let reader = guarded(&place.url, || {
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, file.reader_metadata.clone())
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|e| place.damaged(e))
        })?;
        let data_type = file.schema.field(column).data_type().clone();
        let current = new_empty_array(&data_type);
        Ok(ReaderColumn { place, data_type, reader, first_row: 0, current, building: [vec![], vec![]] })
    }

    /// See [`super::Column::append`].
    pub fn append(&mut self, window: Range<usize>, rows: Rows, purpose: Use) -> Result<()> {
        let values = self.window(window)?;
        let values = match rows {
            Rows::All => values,
            Rows::At(rows) => take(&values, &UInt32Array::from(rows.to_vec()), None)?,
        };
        self.building[purpose as usize].push(values);
        Ok(())
    }

    /// See [`super::Column::finish`].
    pub fn finish(&mut self, purpose: Use) -> Result<ArrayRef> {
        let arrays = std::mem::take(&mut self.building[purpose as usize]);
        Ok(match arrays.as_slice() {
            [] => new_empty_array(&self.data_type),
            [one] => one.clone(),
            many => concat(&many.iter().map(|a| a.as_ref()).collect::<Vec<_>>())?,
        })
    }

    /// All values of a window.
    fn window(&mut self, window: Range<usize>) -> Result<ArrayRef> {
        while self.first_row + self.current.len() < window.end {
            let end = self.first_row + self.current.len();
            let (reader, place) = (&mut self.reader, &self.place);
            let batch = guarded(&place.url, || reader.next().transpose().map_err(|e| place.damaged(e)))?;
            let batch = batch.ok_or_else(|| self.place.damaged("fewer rows than the footer says"))?;
            let next = self.to_plan_type(batch.column(0))?;
            // Rows before the window are never asked for again.
            let rest = window.start.saturating_sub(self.first_row).min(self.current.len());
            let rest = self.current.slice(rest, self.current.len() - rest);
            self.first_row = end - rest.len();
            self.current = if rest.is_empty() { next } else { concat(&[rest.as_ref(), next.as_ref()])? };
        }
        Ok(self.current.slice(window.start - self.first_row, window.len()))
    }

    /// The same values without metadata in their type.
    fn to_plan_type(&self, array: &ArrayRef) -> Result<ArrayRef> {
        if *array.data_type() == self.data_type {
            return Ok(array.clone());
        }
        Ok(arrow::compute::cast(array, &self.data_type)?)
    }
}
