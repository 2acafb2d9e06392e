//! Puts values that were computed for some rows each into one array of all rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, PrimitiveArray, downcast_primitive,
};
use arrow::buffer::NullBuffer;
use arrow::compute::interleave;
use arrow::datatypes::DataType;

use crate::batch::to_logical;
use crate::error::Result;

/// Values for some rows.
pub(super) struct Part {
    /// In ascending order; each row is in exactly one part.
    pub rows: Vec<u32>,
    /// One value per row, or one for all of them.
    pub values: ArrayRef,
    pub constant: bool,
}

/// All parts as one array of `len` rows. Parts may be of different physical forms of `logical`.
pub(super) fn scatter(mut parts: Vec<Part>, len: usize, logical: &DataType) -> Result<ArrayRef> {
    let first = parts.first().map(|p| p.values.data_type().clone()).unwrap_or_else(|| logical.clone());
    let same = parts.iter().all(|p| *p.values.data_type() == first);
    if !same || matches!(first, DataType::Dictionary(_, _)) {
        for part in &mut parts {
            part.values = to_logical(&part.values, logical)?;
        }
    }
    let data_type = parts.first().map_or(logical, |p| p.values.data_type()).clone();
    macro_rules! primitive {
        ($t:ty) => {
            return Ok(scatter_primitive::<$t>(&parts, len, data_type))
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        _ => {}
    }
    let mut sources = vec![(0, 0); len];
    for (p, part) in parts.iter().enumerate() {
        for (i, &row) in part.rows.iter().enumerate() {
            sources[row as usize] = (p, if part.constant { 0 } else { i });
        }
    }
    let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.values.as_ref()).collect();
    Ok(interleave(&arrays, &sources)?)
}

fn scatter_primitive<T: ArrowPrimitiveType>(parts: &[Part], len: usize, data_type: DataType) -> ArrayRef {
    let mut values = vec![T::default_value(); len];
    let mut valid = parts.iter().any(|p| p.values.null_count() > 0).then(|| {
        let mut valid = BooleanBufferBuilder::new(len);
        valid.append_n(len, true);
        valid
    });
    for part in parts {
        let source = part.values.as_primitive::<T>();
        if part.constant {
            if part.values.is_valid(0) {
                let value = source.value(0);
                part.rows.iter().for_each(|&row| values[row as usize] = value);
            }
        } else {
            part.rows.iter().zip(source.values()).for_each(|(&row, &v)| values[row as usize] = v);
        }
        if let (Some(valid), Some(nulls)) = (&mut valid, part.values.nulls()) {
            for (i, &row) in part.rows.iter().enumerate() {
                if nulls.is_null(if part.constant { 0 } else { i }) {
                    valid.set_bit(row as usize, false);
                }
            }
        }
    }
    let nulls = valid.map(|mut v| NullBuffer::new(v.finish()));
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(data_type))
}
