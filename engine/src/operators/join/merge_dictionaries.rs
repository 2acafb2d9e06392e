//! Dictionary columns of different chunks as one column with one dictionary.
//!
//! Each chunk of a file has a dictionary of its own. With one for the whole build side, a string costs
//! four bytes there instead of sixteen, and whoever groups by it later sees the same codes in all batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, NullBufferBuilder, UInt32Array};
use arrow::datatypes::{DataType, UInt32Type};

use super::keys::interner::Interner;
use super::table::huge;
use crate::batch::Column;
use crate::error::Result;

/// Rows per dictionary entry from which merging is cheaper than decoding.
const ROWS_PER_ENTRY: usize = 2;

/// The pieces' values as one array; none if their dictionaries are too large for that, or of other types.
pub fn merge_dictionaries(pieces: &[Column], rows: usize) -> Result<Option<ArrayRef>> {
    match pieces[0].data_type() {
        DataType::Dictionary(k, v)
            if **k == DataType::UInt32 && matches!(**v, DataType::Utf8View | DataType::BinaryView) => {}
        _ => return Ok(None),
    }
    let Some(dictionaries) = distinct_dictionaries(pieces, rows) else {
        return Ok(None);
    };
    let mut interner = Interner::default();
    let mut translations: Vec<Vec<u64>> = vec![];
    for dictionary in &dictionaries {
        let mut numbers = vec![];
        interner.intern(dictionary, &mut numbers)?;
        translations.push(numbers);
    }
    let values = match dictionaries.as_slice() {
        [only] => only.clone(),
        _ => match interner.into_array(dictionaries[0].data_type())? {
            Some(values) => values,
            None => return Ok(None),
        },
    };
    let mut keys = huge::with_capacity(rows);
    let mut nulls = NullBufferBuilder::new(rows);
    for piece in pieces {
        let array = piece.values()?;
        let array = array.as_dictionary::<UInt32Type>();
        let translation = dictionaries.iter().zip(&translations).rev().find(|(d, _)| same(d, array.values()));
        let (_, translation) = translation.expect("invariant: all dictionaries were listed");
        // What lies under a null may be no position at all.
        let number = |&key: &u32| translation.get(key as usize).map_or(0, |&n| n as u32);
        match dictionaries.len() {
            1 => keys.extend_from_slice(array.keys().values()),
            _ => keys.extend(array.keys().values().iter().map(number)),
        }
        match array.keys().nulls() {
            Some(n) => nulls.append_buffer(n),
            None => nulls.append_n_non_nulls(array.len()),
        }
    }
    let keys = UInt32Array::new(keys.into(), nulls.finish());
    Ok(Some(Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, values)?)))
}

/// The pieces' dictionaries, each once; none if they have too many entries, or null ones.
fn distinct_dictionaries(pieces: &[Column], rows: usize) -> Option<Vec<ArrayRef>> {
    let mut dictionaries: Vec<ArrayRef> = vec![];
    let mut entries = 0;
    for piece in pieces {
        let values = piece.base().as_dictionary::<UInt32Type>().values();
        if dictionaries.iter().rev().any(|d| same(d, values)) {
            continue;
        }
        entries += values.len();
        if entries * ROWS_PER_ENTRY > rows || values.null_count() > 0 {
            return None;
        }
        dictionaries.push(values.clone());
    }
    Some(dictionaries)
}

fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::to_logical;
    use arrow::array::StringViewArray;

    fn column(keys: Vec<Option<u32>>, values: &[&str]) -> Column {
        let values: ArrayRef = Arc::new(StringViewArray::from(values.to_vec()));
        let array = DictionaryArray::<UInt32Type>::try_new(UInt32Array::from(keys), values).unwrap();
        Column::new(Arc::new(array))
    }

    #[test]
    fn different_dictionaries_become_one() {
        let long = "a string that does not fit a view";
        let pieces = [
            column(vec![Some(0), None, Some(1), Some(0)], &["x", long]),
            column(vec![Some(1), Some(0), Some(2), Some(1), Some(1)], &[long, "y", "x"]),
            column(vec![None; 4], &[]),
        ];
        let merged = merge_dictionaries(&pieces, 13).unwrap().unwrap();
        assert_eq!(merged.as_dictionary::<UInt32Type>().values().len(), 3);
        let plain = to_logical(&merged, &DataType::Utf8View).unwrap();
        let mut expected = vec![Some("x"), None, Some(long), Some("x")];
        expected.extend([Some("y"), Some(long), Some("x"), Some("y"), Some("y"), None, None, None, None]);
        assert_eq!(plain.as_string_view(), &StringViewArray::from(expected));
    }

    #[test]
    fn large_dictionaries_are_left_alone() {
        let pieces = [column(vec![Some(0)], &["x", "y"]), column(vec![Some(1)], &["x", "y"])];
        assert!(merge_dictionaries(&pieces, 2).unwrap().is_none());
    }
}
