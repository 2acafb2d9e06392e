//! The engine's own batch: Arrow columns that need not be gathered yet.
//!
//! A [`Column`] is an Arrow array, or an Arrow array seen through row indices. A filter or a join
//! produces indices and touches no values; an expression that reads a column gathers that column alone,
//! once ([`Column::values`] caches it). Columns of one batch that went through the same filter share one
//! index array, so that a further filter composes it once for all of them.
//!
//! Logical and physical types: a plan's schema holds logical types. A column may carry a logical type
//! in one of these physical forms, and every operator must take all of them:
//!
//! | logical | physical |
//! |---|---|
//! | Decimal128(p ≤ 18, s) | Decimal128(p, s), or Decimal64(p, s) |
//! | Decimal128(p > 18, s) | Decimal128(p, s), or Decimal64(18, s) when all values fit in 18 digits |
//! | Utf8View, Utf8, Binary… | itself, or Dictionary(UInt32, itself) |
//! | a dictionary of a table's own | itself, or its values' type |
//! | any other | itself |
//!
//! Which form a column has may differ from batch to batch.
//!
//! What has no faster path calls [`Column::to_logical`] first. Results that leave the engine are
//! logical.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{EngineError, Result};
use crate::views::concat_views;

/// Rows in a batch that a source emits. Larger ones are allowed, and are split where it matters.
pub const BATCH_ROWS: usize = 8192;

/// Some rows of some columns. All columns have `rows` rows.
#[derive(Debug, Clone)]
pub struct Batch {
    pub columns: Vec<Column>,
    pub rows: usize,
}

/// A column of a batch: an array, or an array through indices.
#[derive(Debug, Clone)]
pub struct Column {
    base: ArrayRef,
    /// Row `i` is `base[indices[i]]`; a null index is a null value.
    indices: Option<Arc<UInt32Array>>,
    gathered: Arc<OnceLock<ArrayRef>>,
}

impl Column {
    /// A column that is an array.
    pub fn new(array: ArrayRef) -> Self {
        Column { base: array, indices: None, gathered: Arc::default() }
    }

    /// A column that is an array seen through indices into it; a null index gives a null.
    pub fn indexed(base: ArrayRef, indices: Arc<UInt32Array>) -> Self {
        Column { base, indices: Some(indices), gathered: Arc::default() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.indices.as_ref().map_or(self.base.len(), |i| i.len())
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The physical type.
    pub fn data_type(&self) -> &DataType {
        self.base.data_type()
    }

    /// The array behind the indices; equal to `values` only without indices.
    pub fn base(&self) -> &ArrayRef {
        &self.base
    }

    /// The indices into `base`, if any.
    pub fn indices(&self) -> Option<&Arc<UInt32Array>> {
        self.indices.as_ref()
    }

    /// The values, row by row, in the physical type; gathered at the first call.
    pub fn values(&self) -> Result<ArrayRef> {
        let Some(indices) = &self.indices else {
            return Ok(self.base.clone());
        };
        if let Some(done) = self.gathered.get() {
            return Ok(done.clone());
        }
        let array = take(&self.base, indices.as_ref(), None)?;
        Ok(self.gathered.get_or_init(|| array).clone())
    }

    /// The values as an array of exactly the logical type.
    pub fn to_logical(&self, logical: &DataType) -> Result<ArrayRef> {
        to_logical(&self.values()?, logical)
    }
}

/// An array of a physical form as an array of exactly the logical type it stands for.
pub fn to_logical(array: &ArrayRef, logical: &DataType) -> Result<ArrayRef> {
    if array.data_type() == logical {
        return Ok(array.clone());
    }
    match (array.data_type(), logical) {
        (DataType::Decimal64(_, s), DataType::Decimal128(_, t)) if s == t => Ok(cast(array, logical)?),
        (DataType::Dictionary(_, v), l) if v.as_ref() == l => Ok(cast(array, logical)?),
        (DataType::Dictionary(_, _), l) if is_string(l) || is_binary(l) => Ok(cast(array, logical)?),
        // A dictionary that has been on disk.
        (p, DataType::Dictionary(_, v)) if v.as_ref() == p || is_string(p) && is_string(v) => {
            Ok(cast(array, logical)?)
        }
        (p, l) if is_string(p) && is_string(l) => Ok(cast(array, logical)?),
        (p, l) if is_binary(p) && is_binary(l) => Ok(cast(array, logical)?),
        (p, l) if p.equals_datatype(l) => {
            Ok(arrow::array::make_array(array.to_data().into_builder().data_type(l.clone()).build()?))
        }
        (DataType::Null, l) => Ok(arrow::array::new_null_array(l, array.len())),
        (p, l) => Err(EngineError::internal(format!("a column of type {p} where the plan says {l}"))),
    }
}

fn is_string(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

impl Batch {
    /// A batch of whole arrays, which must all have `rows` rows.
    pub fn from_arrays(arrays: Vec<ArrayRef>, rows: usize) -> Self {
        debug_assert!(arrays.iter().all(|a| a.len() == rows));
        Batch { columns: arrays.into_iter().map(Column::new).collect(), rows }
    }

    /// The batch's rows at `selection`, in that order; nothing is gathered yet. Indices must not be null.
    pub fn select(&self, selection: &Arc<UInt32Array>) -> Batch {
        let mut composed: Vec<(*const UInt32Array, Arc<UInt32Array>)> = vec![];
        let columns = self
            .columns
            .iter()
            .map(|c| match &c.indices {
                None => Column::indexed(c.base.clone(), selection.clone()),
                Some(old) => {
                    let key = Arc::as_ptr(old);
                    let new = match composed.iter().find(|(k, _)| *k == key) {
                        Some((_, new)) => new.clone(),
                        None => {
                            let new = Arc::new(compose(old, selection));
                            composed.push((key, new.clone()));
                            new
                        }
                    };
                    Column::indexed(c.base.clone(), new)
                }
            })
            .collect();
        Batch { columns, rows: selection.len() }
    }

    /// Rows `offset..offset + rows`, without a copy.
    pub fn slice(&self, offset: usize, rows: usize) -> Batch {
        let mut sliced: Vec<(*const UInt32Array, Arc<UInt32Array>)> = vec![];
        let columns = self
            .columns
            .iter()
            .map(|c| match (&c.indices, c.gathered.get()) {
                (None, _) => Column::new(c.base.slice(offset, rows)),
                (Some(_), Some(done)) => Column::new(done.slice(offset, rows)),
                (Some(indices), None) => {
                    let key = Arc::as_ptr(indices);
                    let slice = match sliced.iter().find(|(k, _)| *k == key) {
                        Some((_, slice)) => slice.clone(),
                        None => {
                            let slice = Arc::new(indices.slice(offset, rows));
                            sliced.push((key, slice.clone()));
                            slice
                        }
                    };
                    Column::indexed(c.base.clone(), slice)
                }
            })
            .collect();
        Batch { columns, rows }
    }

    /// The batch with every column gathered: what may wait in memory, without keeping larger arrays alive.
    pub fn gathered(&self) -> Result<Batch> {
        let columns = self.columns.iter().map(|c| c.values().map(Column::new)).collect::<Result<Vec<_>>>()?;
        Ok(Batch { columns, rows: self.rows })
    }

    /// The batch as Arrow's own, in the schema's logical types.
    pub fn to_record_batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let arrays = self
            .columns
            .iter()
            .zip(schema.fields())
            .map(|(c, f)| c.to_logical(f.data_type()))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        // Nullability is the planner's estimate from expressions; the data says what is so.
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }

    /// Memory of the arrays, bytes; shared buffers are counted in every batch.
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(|c| c.base.get_array_memory_size()).sum()
    }
}

impl From<RecordBatch> for Batch {
    fn from(b: RecordBatch) -> Self {
        Batch { rows: b.num_rows(), columns: b.columns().iter().cloned().map(Column::new).collect() }
    }
}

/// `old[selection[i]]` for each `i`.
fn compose(old: &UInt32Array, selection: &UInt32Array) -> UInt32Array {
    let values = old.values();
    match old.nulls() {
        None => UInt32Array::from_iter_values(selection.values().iter().map(|&i| values[i as usize])),
        Some(nulls) => selection
            .values()
            .iter()
            .map(|&i| nulls.is_valid(i as usize).then(|| values[i as usize]))
            .collect(),
    }
}

/// One column's values over many batches as a single array of one physical type. Batches may carry
/// different physical forms of `logical`; if they do, the result is logical.
pub fn concat_column(batches: &[Batch], column: usize, logical: &DataType) -> Result<ArrayRef> {
    let arrays = batches.iter().map(|b| b.columns[column].values()).collect::<Result<Vec<_>>>()?;
    concat_arrays(&arrays, logical)
}

/// Arrays that each carry `logical` in some physical form as one array; none gives an empty one.
pub fn concat_arrays(arrays: &[ArrayRef], logical: &DataType) -> Result<ArrayRef> {
    let Some(first) = arrays.first() else {
        return Ok(arrow::array::new_empty_array(logical));
    };
    if arrays.len() == 1 {
        return Ok(first.clone());
    }
    let same = arrays.iter().all(|a| a.data_type() == first.data_type());
    // Dictionaries of different chunks differ; merging them costs more than the values do.
    if same && !matches!(first.data_type(), DataType::Dictionary(_, _)) {
        if let Some(views) = concat_views(arrays) {
            return Ok(views);
        }
        let refs: Vec<&dyn Array> = arrays.iter().map(|a| a.as_ref()).collect();
        return Ok(concat(&refs)?);
    }
    let plain = arrays.iter().map(|a| to_logical(a, logical)).collect::<Result<Vec<_>>>()?;
    if let Some(views) = concat_views(&plain) {
        return Ok(views);
    }
    let refs: Vec<&dyn Array> = plain.iter().map(|a| a.as_ref()).collect();
    Ok(concat(&refs)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    #[test]
    fn selections_compose_and_share() {
        let base: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12, 13]));
        let batch = Batch::from_arrays(vec![base.clone(), base], 4);
        let once = batch.select(&Arc::new(UInt32Array::from(vec![3, 1, 0])));
        let twice = once.select(&Arc::new(UInt32Array::from(vec![2, 0])));
        let values = twice.columns[0].values().unwrap();
        assert_eq!(values.as_ref(), &Int64Array::from(vec![10, 13]) as &dyn Array);
        assert!(Arc::ptr_eq(twice.columns[0].indices().unwrap(), twice.columns[1].indices().unwrap()));
        let slice = once.slice(1, 2);
        assert!(Arc::ptr_eq(slice.columns[0].indices().unwrap(), slice.columns[1].indices().unwrap()));
    }

    #[test]
    fn a_null_index_is_a_null_value() {
        let base: ArrayRef = Arc::new(Int64Array::from(vec![10, 11]));
        let indices = Arc::new(UInt32Array::from(vec![Some(1), None]));
        let batch = Batch { columns: vec![Column::indexed(base, indices)], rows: 2 };
        let batch = batch.select(&Arc::new(UInt32Array::from(vec![1, 0, 1])));
        let values = batch.columns[0].values().unwrap();
        assert_eq!(values.as_ref(), &Int64Array::from(vec![None, Some(11), None]) as &dyn Array);
    }
}
