//! The pieces of a build column as one array.
//!
//! Numbers go straight from where the pieces' indices point to their place in the result, which lies on
//! large pages: later it is read at random. Everything else is Arrow's work.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericByteViewArray, NullBufferBuilder, PrimitiveArray,
    downcast_primitive,
};
use arrow::datatypes::{ByteViewType, DataType};

use super::merge_dictionaries::merge_dictionaries;
use super::table::huge;
use crate::batch::{Column, concat_arrays};
use crate::error::Result;

/// A column's values over all pieces, of which there is one at least, in a physical form of `logical`.
pub fn concat(pieces: &[Column], logical: &DataType) -> Result<ArrayRef> {
    let physical = pieces[0].data_type();
    if pieces.len() > 1 && pieces.iter().all(|p| p.data_type() == physical) {
        macro_rules! primitive {
            ($type:ty) => {
                return concat_primitive::<$type>(pieces, physical)
            };
        }
        downcast_primitive! {
            physical => (primitive),
            _ => {}
        }
    }
    if pieces.len() > 1 && pieces.iter().all(|p| p.data_type() == physical) {
        let rows = pieces.iter().map(|p| p.len()).sum();
        if let Some(merged) = merge_dictionaries(pieces, rows)? {
            return Ok(merged);
        }
    }
    let arrays = pieces.iter().map(|p| p.values()).collect::<Result<Vec<_>>>()?;
    Ok(compact(concat_arrays(&arrays, logical)?))
}

fn concat_primitive<T: ArrowPrimitiveType>(pieces: &[Column], physical: &DataType) -> Result<ArrayRef> {
    let rows = pieces.iter().map(|p| p.len()).sum();
    let mut values = huge::with_capacity::<T::Native>(rows);
    let mut nulls = NullBufferBuilder::new(rows);
    for piece in pieces {
        let base = piece.base().as_primitive::<T>();
        match piece.indices() {
            Some(indices) if indices.null_count() == 0 && base.null_count() == 0 => {
                let base = base.values();
                values.extend(indices.values().iter().map(|&i| base[i as usize]));
                nulls.append_n_non_nulls(piece.len());
            }
            _ => {
                let array = piece.values()?;
                values.extend_from_slice(array.as_primitive::<T>().values());
                match array.nulls() {
                    Some(n) => nulls.append_buffer(n),
                    None => nulls.append_n_non_nulls(piece.len()),
                }
            }
        }
    }
    let array = PrimitiveArray::<T>::new(values.into(), nulls.finish());
    Ok(Arc::new(array.with_data_type(physical.clone())))
}

/// Views keep whole buffers of whatever they came from alive, and each gather copies the list of buffers:
/// many buffers, or mostly unused ones, become few.
fn compact(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => {
            compact_views(array.as_string_view()).map_or(array.clone(), |a| Arc::new(a) as _)
        }
        DataType::BinaryView => {
            compact_views(array.as_binary_view()).map_or(array.clone(), |a| Arc::new(a) as _)
        }
        _ => array,
    }
}

fn compact_views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Option<GenericByteViewArray<T>> {
    const BUFFERS_MAX: usize = 16;
    let buffers = array.data_buffers();
    let held: usize = buffers.iter().map(|b| b.len()).sum();
    (buffers.len() > BUFFERS_MAX || held > 2 * array.total_buffer_bytes_used()).then(|| array.gc())
}
