//! What the values of rows take once encodings are undone.
//!
//! Rows from outside may be few bytes that stand for many: a run of 2^40 rows, a dictionary whose one long value all
//! rows have, a view of the same text again and again. Whoever undoes encodings, or counts what it keeps, asks here
//! first. What always holds: every row of a column counts, and nothing is allocated but a number for each value of a
//! dictionary.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, RunArray};
use arrow::datatypes::{
    BinaryViewType, ByteViewType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType, StringViewType,
};

/// Of a view, of an offset, and of what a null becomes in a column of another type.
const VALUE_BYTES: usize = 16;

/// Bytes of a batch's values, each counted as often as a row has it; `usize::MAX` if that is more.
pub fn value_bytes(batch: &RecordBatch) -> usize {
    sum(batch.columns().iter().map(column_bytes))
}

fn column_bytes(column: &ArrayRef) -> usize {
    use DataType::*;
    let rows = column.len();
    let inner = match column.data_type() {
        Null => rows.saturating_mul(VALUE_BYTES),
        Dictionary(..) => dictionary_bytes(column),
        RunEndEncoded(ends, _) => match ends.data_type() {
            Int16 => run_bytes::<Int16Type>(column),
            Int32 => run_bytes::<Int32Type>(column),
            _ => run_bytes::<Int64Type>(column),
        },
        Struct(_) => sum(column.as_struct().columns().iter().map(column_bytes)),
        List(_) => list_bytes(column.as_list::<i32>().value_offsets(), column.as_list::<i32>().values()),
        LargeList(_) => list_bytes(column.as_list::<i64>().value_offsets(), column.as_list::<i64>().values()),
        Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(column.as_map().entries().clone());
            list_bytes(column.as_map().value_offsets(), &entries)
        }
        FixedSizeList(..) => column_bytes(column.as_fixed_size_list().values()),
        // Rows may share what they list.
        ListView(_) => {
            let lists = column.as_list_view::<i32>();
            shared_bytes(lists.sizes().iter().map(|s| *s as usize), lists.values())
        }
        LargeListView(_) => {
            let lists = column.as_list_view::<i64>();
            shared_bytes(lists.sizes().iter().map(|s| *s as usize), lists.values())
        }
        Union(fields, _) => {
            let children = fields.iter().map(|(id, _)| column_bytes(column.as_union().child(id)));
            sum(children).saturating_add(rows.saturating_mul(VALUE_BYTES))
        }
        _ => match Weights::of(column) {
            Weights::Each(bytes) => bytes.saturating_mul(rows),
            Weights::Of(all) => sum(all.into_iter()),
        },
    };
    // Nothing is for nothing: rows are looked at one by one, also those of structs without fields.
    inner.max(rows)
}

fn dictionary_bytes(column: &ArrayRef) -> usize {
    let dictionary = column.as_any_dictionary();
    match Weights::of(dictionary.values()) {
        Weights::Each(bytes) => bytes.saturating_mul(column.len()),
        Weights::Of(all) if all.is_empty() => 0,
        Weights::Of(all) => sum(dictionary.normalized_keys().into_iter().map(|key| all[key])),
    }
}

fn run_bytes<R: RunEndIndexType>(column: &ArrayRef) -> usize {
    let runs: &RunArray<R> = column.as_run();
    let weights = Weights::of(&runs.values_slice());
    let mut before = 0;
    let run = |(i, end): (usize, R::Native)| {
        let end = arrow::datatypes::ArrowNativeType::as_usize(end);
        let rows = end.saturating_sub(std::mem::replace(&mut before, end));
        // Where each value is to be taken from is worked out before they are taken.
        rows.saturating_mul(weights.at(i).saturating_add(VALUE_BYTES))
    };
    sum(runs.run_ends().sliced_values().enumerate().map(run))
}

fn list_bytes<O: OffsetSizeTrait>(offsets: &[O], values: &ArrayRef) -> usize {
    let (first, last) = (offsets.first().copied(), offsets.last().copied());
    let (Some(first), Some(last)) = (first, last) else { return 0 };
    let listed = values.slice(first.as_usize(), (last - first).as_usize());
    column_bytes(&listed).saturating_add(VALUE_BYTES.saturating_mul(offsets.len()))
}

fn shared_bytes(sizes: impl Iterator<Item = usize>, values: &ArrayRef) -> usize {
    let largest = match Weights::of(values) {
        Weights::Each(bytes) => bytes,
        Weights::Of(all) => all.into_iter().max().unwrap_or(0),
    };
    sum(sizes.map(|size| size.saturating_mul(largest).saturating_add(VALUE_BYTES)))
}

/// What each value of an array takes.
enum Weights {
    Each(usize),
    Of(Vec<usize>),
}

impl Weights {
    fn of(values: &ArrayRef) -> Weights {
        use DataType::*;
        match values.data_type() {
            Boolean => Weights::Each(1),
            FixedSizeBinary(width) => Weights::Each(*width as usize),
            Utf8 => Weights::between(values.as_string::<i32>().value_offsets()),
            LargeUtf8 => Weights::between(values.as_string::<i64>().value_offsets()),
            Binary => Weights::between(values.as_binary::<i32>().value_offsets()),
            LargeBinary => Weights::between(values.as_binary::<i64>().value_offsets()),
            Utf8View => Weights::viewed::<StringViewType>(values),
            BinaryView => Weights::viewed::<BinaryViewType>(values),
            other => match other.primitive_width() {
                Some(width) => Weights::Each(width),
                // Of anything nested, one value is at most all of it.
                None => Weights::Each(column_bytes(values)),
            },
        }
    }

    fn between<O: OffsetSizeTrait>(offsets: &[O]) -> Weights {
        Weights::Of(
            offsets.windows(2).map(|w| (w[1] - w[0]).as_usize().saturating_add(VALUE_BYTES)).collect(),
        )
    }

    fn viewed<V: ByteViewType>(values: &ArrayRef) -> Weights {
        let lengths = values.as_byte_view::<V>().lengths();
        Weights::Of(lengths.map(|length| (length as usize).saturating_add(VALUE_BYTES)).collect())
    }

    fn at(&self, i: usize) -> usize {
        match self {
            Weights::Each(bytes) => *bytes,
            Weights::Of(all) => all.get(i).copied().unwrap_or(0),
        }
    }
}

fn sum(bytes: impl Iterator<Item = usize>) -> usize {
    bytes.fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, FixedSizeBinaryArray, Int8Array, Int64Array, NullArray, StringArray, StringViewArray,
    };

    use super::*;

    fn bytes(column: impl Array + 'static) -> usize {
        column_bytes(&(Arc::new(column) as ArrayRef))
    }

    #[test]
    fn few_bytes_that_stand_for_many_are_many() {
        let runs =
            RunArray::try_new(&Int64Array::from(vec![1 << 40]), &StringArray::from(vec!["x"])).unwrap();
        assert!(bytes(runs.slice(5, 1 << 39)) >= 1 << 39 && bytes(runs) >= 1 << 40);
        let long = FixedSizeBinaryArray::try_from_iter([vec![0; 1 << 20]].iter()).unwrap();
        let keys = Int8Array::from(vec![0; 1000]);
        assert!(bytes(DictionaryArray::new(keys.clone(), Arc::new(long))) >= 1000 << 20);
        let texts = StringArray::from(vec!["x".repeat(1 << 20), "y".into()]);
        assert!(bytes(DictionaryArray::new(keys, Arc::new(texts.clone()))) >= 1000 << 20);
        let few = DictionaryArray::new(Int8Array::from(vec![1; 1000]), Arc::new(texts));
        assert!(bytes(few) < 1 << 20);
        assert!(bytes(NullArray::new(1 << 40)) >= 1 << 40);
    }

    #[test]
    fn views_count_with_what_they_view_and_slices_without_the_rest() {
        let views = StringViewArray::from(vec!["x".repeat(1000); 50]);
        assert!((50_000..60_000).contains(&bytes(views.clone())));
        assert!(bytes(views.slice(0, 1)) < 2000);
        assert_eq!(bytes(Int64Array::from(vec![1; 100]).slice(0, 10)), 80);
    }
}
