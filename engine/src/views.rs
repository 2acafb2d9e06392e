//! String views and the buffers that they keep alive.
//!
//! A view array owns a list of buffers, and a slice or a selection of it still owns them all. Joining many
//! such arrays must not list one buffer many times, and a few rows that wait in memory must not hold
//! on to a row group's text. Both are decided here: [`concat_views`] lists each buffer once, and only
//! if a row uses it; [`cut_free`] copies the text of rows that use little of what they hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};

/// Bytes that a view holds itself; a longer string is in a buffer.
const INLINE_BYTES: u32 = 12;

/// Bytes that are not worth cutting free.
const SMALL_BYTES: usize = 4096;

/// Arrays of one view type as one; none if they are of another type.
pub fn concat_views(arrays: &[ArrayRef]) -> Option<ArrayRef> {
    match arrays.first()?.data_type() {
        DataType::Utf8View => Some(concat_of::<StringViewType>(arrays)),
        DataType::BinaryView => Some(concat_of::<BinaryViewType>(arrays)),
        _ => None,
    }
}

fn concat_of<T: ByteViewType>(arrays: &[ArrayRef]) -> ArrayRef {
    let rows = arrays.iter().map(|a| a.len()).sum();
    let mut views: Vec<u128> = Vec::with_capacity(rows);
    let mut buffers: Vec<Buffer> = vec![];
    let mut known: HashMap<(*const u8, usize), u32> = HashMap::new();
    for array in arrays {
        let array = array.as_byte_view::<T>();
        // The new number of each of the array's buffers, once a row has used it.
        let mut numbers: Vec<Option<u32>> = vec![None; array.data_buffers().len()];
        let mut moved = |view: u128| -> u128 {
            if view as u32 <= INLINE_BYTES {
                return view;
            }
            let old = (view >> 64) as u32;
            let new = *numbers[old as usize].get_or_insert_with(|| {
                let buffer = &array.data_buffers()[old as usize];
                *known.entry((buffer.as_ptr(), buffer.len())).or_insert_with(|| {
                    buffers.push(buffer.clone());
                    buffers.len() as u32 - 1
                })
            });
            view & !(u128::from(u32::MAX) << 64) | u128::from(new) << 64
        };
        match array.nulls() {
            None => views.extend(array.views().iter().map(|&view| moved(view))),
            // What a null row's view points to is nobody's business.
            Some(nulls) => views.extend(
                array.views().iter().zip(nulls).map(|(&view, valid)| if valid { moved(view) } else { 0 }),
            ),
        }
    }
    let nulls = arrays.iter().any(|a| a.null_count() > 0).then(|| {
        let all = arrays.iter().map(|a| a.nulls().cloned().unwrap_or_else(|| NullBuffer::new_valid(a.len())));
        all.flat_map(|nulls| nulls.iter().collect::<Vec<_>>()).collect::<NullBuffer>()
    });
    // SAFETY: every view is one of a valid array, or 0, the empty string; its offset and length are
    // unchanged, and its buffer number is that of the same buffer in the new list.
    Arc::new(unsafe { GenericByteViewArray::<T>::new_unchecked(views.into(), buffers, nulls) })
}

/// The array with buffers of its own, if it is a view array that uses little of those that it holds.
pub fn cut_free(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => cut_free_of::<StringViewType>(&array).unwrap_or(array),
        DataType::BinaryView => cut_free_of::<BinaryViewType>(&array).unwrap_or(array),
        _ => array,
    }
}

fn cut_free_of<T: ByteViewType>(array: &ArrayRef) -> Option<ArrayRef> {
    let views = array.as_byte_view::<T>();
    let held: usize = views.data_buffers().iter().map(|b| b.capacity()).sum();
    if held <= SMALL_BYTES {
        return None;
    }
    let lengths = views.views().iter().map(|&view| view as u32);
    let used: usize = lengths.filter(|&length| length > INLINE_BYTES).map(|length| length as usize).sum();
    (held > 4 * used + SMALL_BYTES).then(|| Arc::new(views.gc()) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringViewArray, UInt32Array};
    use arrow::compute::take;

    use super::*;

    fn strings(range: std::ops::Range<usize>) -> ArrayRef {
        let text = |i: usize| match i % 5 {
            0 => None,
            1 => Some("short".to_string()),
            _ => Some(format!("a longer string {i}")),
        };
        Arc::new(StringViewArray::from_iter(range.map(text)))
    }

    #[test]
    fn joined_slices_of_one_array_are_the_array() {
        let (all, other) = (strings(0..1000), strings(1000..1100));
        let slices: Vec<ArrayRef> = (0..10).map(|i| all.slice(100 * i, 100)).chain([other]).collect();
        let joined = concat_views(&slices).unwrap();
        assert_eq!(joined.as_ref(), strings(0..1100).as_ref());
        let buffers = |a: &ArrayRef| a.as_string_view().data_buffers().len();
        assert_eq!(buffers(&joined), buffers(&all) + 1);
        assert_eq!(buffers(&concat_views(&[joined.slice(1000, 50), joined.slice(1050, 50)]).unwrap()), 1);
    }

    #[test]
    fn few_rows_are_cut_free() {
        let all = strings(0..10_000);
        let few = take(&all, &UInt32Array::from(vec![7, 5, 9_999]), None).unwrap();
        let free = cut_free(few.clone());
        assert_eq!(free.as_ref(), few.as_ref());
        assert!(free.get_array_memory_size() < 1000);
        let most = cut_free(all.slice(0, 9_000));
        assert!(
            most.as_string_view().data_buffers()[0].as_ptr()
                == all.as_string_view().data_buffers()[0].as_ptr()
        );
    }
}
