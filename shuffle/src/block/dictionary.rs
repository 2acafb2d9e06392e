//! Which form of a dictionary is worth writing.
//!
//! A dictionary is shared by the slices of a large batch, and a block has a few of its rows: the values
//! that no row uses are left out. Where rows hardly repeat a value, the column is written plain.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, make_array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;

use crate::error::Result;

/// What a column may become.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    PlainOrDictionary,
    /// The type must stay.
    Dictionary,
}

const UNUSED: u32 = u32::MAX;

/// The array itself unless it is a dictionary that is better written otherwise.
pub(super) fn paying_form(array: &ArrayRef, form: Form) -> Result<ArrayRef> {
    let DataType::Dictionary(key_type, _) = array.data_type() else {
        return Ok(array.clone());
    };
    let dictionary = array.as_any_dictionary();
    let (rows, values) = (array.len(), dictionary.values());
    // Few values for the rows: even if some are unused, looking for them is not worth it.
    if values.is_empty() || values.len() <= rows / 8 {
        return Ok(array.clone());
    }
    let plain = || Ok(take(values.as_ref(), dictionary.keys(), None)?);
    if form == Form::PlainOrDictionary && values.len() / 4 > rows {
        return plain();
    }
    // Where each used value goes, in the order of first use.
    let mut places = vec![UNUSED; values.len()];
    let mut used = vec![];
    let mut keys = dictionary.normalized_keys();
    for (row, key) in keys.iter_mut().enumerate() {
        if array.is_valid(row) {
            if places[*key] == UNUSED {
                places[*key] = used.len() as u32;
                used.push(*key as u32);
            }
            *key = places[*key] as usize;
        } else {
            *key = 0;
        }
    }
    if form == Form::PlainOrDictionary && used.len() > rows / 2 {
        return plain();
    }
    if used.len() > values.len() / 2 {
        return Ok(array.clone());
    }
    let keys: ArrayRef = std::sync::Arc::new(UInt32Array::from_iter_values(keys.iter().map(|k| *k as u32)));
    let keys = cast(&keys, key_type)?.to_data();
    let values = take(values.as_ref(), &UInt32Array::from(used), None)?;
    let compacted = keys
        .into_builder()
        .data_type(array.data_type().clone())
        .nulls(array.nulls().cloned())
        .add_child_data(values.to_data())
        .build()?;
    Ok(make_array(compacted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Int16Array, StringArray};
    use arrow::datatypes::Int16Type;
    use std::sync::Arc;

    fn dictionary(keys: impl IntoIterator<Item = Option<i16>>, values: usize) -> ArrayRef {
        let values = StringArray::from_iter_values((0..values).map(|i| format!("value {i}")));
        let keys = Int16Array::from_iter(keys);
        Arc::new(DictionaryArray::<Int16Type>::new(keys, Arc::new(values)))
    }

    fn same_strings(a: &ArrayRef, b: &ArrayRef) {
        assert_eq!(&cast(a, &DataType::Utf8).unwrap(), &cast(b, &DataType::Utf8).unwrap());
    }

    #[test]
    fn a_dictionary_stays_where_it_pays() {
        let array = dictionary((0..100).map(|i| Some(i % 5)), 10);
        assert_eq!(paying_form(&array, Form::PlainOrDictionary).unwrap().to_data(), array.to_data());
    }

    #[test]
    fn unused_values_are_left_out() {
        let array = dictionary((0..100).map(|i| (i % 3 > 0).then_some(40 + i % 10)), 200);
        for form in [Form::PlainOrDictionary, Form::Dictionary] {
            let written = paying_form(&array, form).unwrap();
            assert_eq!(written.data_type(), array.data_type());
            assert_eq!(written.as_any_dictionary().values().len(), 10);
            same_strings(&written, &array);
        }
    }

    #[test]
    fn rows_that_do_not_repeat_become_plain_unless_the_type_must_stay() {
        let array = dictionary([Some(900), None, Some(3)], 1000);
        let plain = paying_form(&array, Form::PlainOrDictionary).unwrap();
        assert_eq!(plain.data_type(), &DataType::Utf8);
        same_strings(&plain, &array);
        let nested = paying_form(&array, Form::Dictionary).unwrap();
        assert_eq!(nested.as_any_dictionary().values().len(), 2);
        same_strings(&nested, &array);
        let distinct = dictionary((0..100).map(Some), 150);
        assert_eq!(paying_form(&distinct, Form::PlainOrDictionary).unwrap().data_type(), &DataType::Utf8);
    }

    #[test]
    fn a_dictionary_of_nulls_only() {
        let array = dictionary([None, None], 0);
        assert_eq!(paying_form(&array, Form::PlainOrDictionary).unwrap().len(), 2);
        let array = dictionary([None, None], 7);
        let written = paying_form(&array, Form::Dictionary).unwrap();
        assert_eq!(written.null_count(), 2);
    }
}
