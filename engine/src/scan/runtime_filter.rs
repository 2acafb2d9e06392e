//! What a finished join build tells the scans: which keys can match at all.
//!
//! A [`RuntimeFilter`] holds the keys of one column of the build: exactly, as a bitmap over their range,
//! when the range is not much larger than their number; else as a [`Bloom`] filter, which lets about one
//! foreign key in a hundred through.
//!
//! What always holds: a key of the build passes; a null never does (it equals nothing). The physical form
//! of a column does not matter: Decimal64 and Decimal128, dictionary and plain strings agree.

mod wire;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::UInt32Type;

use crate::scan::bloom::{Bloom, hash_integer};
use crate::scan::key_values::{
    Integers, KeyForm, ToKey, each_width, for_each_hash, for_each_integer, integers, key_form,
};
use crate::scan::mask::Mask;

/// Largest range of an exact bitmap: 16 MiB.
const BITMAP_SPAN_MAX: u64 = 1 << 27;

/// A bitmap of this range is always worth it.
const BITMAP_SPAN_CHEAP: u64 = 1 << 20;

/// A bitmap may have this many bits per key before a bloom filter is the smaller one.
const BITMAP_BITS_PER_KEY: u64 = 64;

/// The published filters of a query, by number.
pub trait RuntimeFilters: Send + Sync {
    /// The filter, if its build has finished.
    fn get(&self, id: u32) -> Option<Arc<RuntimeFilter>>;
}

/// The keys of a build.
#[derive(Debug)]
pub struct RuntimeFilter {
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// Keys of a type without a test: everything passes.
    Unknown,
    /// The build has no key: nothing passes.
    None,
    Bitmap {
        min: i64,
        max: i64,
        words: Vec<u64>,
    },
    Integers {
        min: i64,
        max: i64,
        bloom: Bloom,
    },
    Hashes(Bloom),
}

impl RuntimeFilter {
    /// A filter of all keys in `arrays`, which are of one logical type in any physical form.
    pub fn build(arrays: &[ArrayRef]) -> RuntimeFilter {
        let keys = match arrays.first().map(|a| key_form(a.data_type())) {
            None => Keys::None,
            Some(KeyForm::Integer) => build_integers(arrays),
            Some(KeyForm::Bytes) => build_hashes(arrays),
            Some(KeyForm::Other) => Keys::Unknown,
        };
        RuntimeFilter { keys }
    }

    /// The least and the greatest key, for integer-like keys.
    pub fn range(&self) -> Option<(i64, i64)> {
        match &self.keys {
            Keys::Bitmap { min, max, .. } | Keys::Integers { min, max, .. } => Some((*min, *max)),
            Keys::Unknown | Keys::None | Keys::Hashes(_) => None,
        }
    }

    /// Everything passes; a test is wasted.
    pub fn passes_all(&self) -> bool {
        matches!(self.keys, Keys::Unknown)
    }

    /// Nothing passes.
    pub fn passes_none(&self) -> bool {
        matches!(self.keys, Keys::None)
    }

    /// False if no key lies in `low..=high`. For signed integer-like columns only.
    pub fn may_contain_range(&self, low: i128, high: i128) -> bool {
        match &self.keys {
            Keys::Unknown | Keys::Hashes(_) => true,
            Keys::None => false,
            Keys::Integers { min, max, .. } => high >= *min as i128 && low <= *max as i128,
            Keys::Bitmap { min, max, words } => {
                let (low, high) = (low.max(*min as i128), high.min(*max as i128));
                low <= high && any_bit(words, (low - *min as i128) as usize, (high - *min as i128) as usize)
            }
        }
    }

    /// The positions in `keys` of what may match; none if all may.
    pub fn select(&self, keys: &ArrayRef) -> Option<UInt32Array> {
        let mask = self.test(keys)?;
        (mask.count() < keys.len()).then(|| mask.indices())
    }

    /// Which of `keys` may match; none if the filter cannot tell.
    pub fn test(&self, keys: &dyn Array) -> Option<Mask> {
        let mut mask = Mask::none(keys.len());
        if let Some(dictionary) = keys.as_any_dictionary_opt() {
            let entries = self.test(dictionary.values())?;
            let codes = dictionary.keys().as_primitive_opt::<UInt32Type>()?;
            // The code of a null may be anything.
            fill(&mut mask, codes.values(), |c| (c as usize) < entries.len() && entries.contains(c as usize));
        } else {
            match &self.keys {
                Keys::Unknown => return None,
                Keys::None => return Some(mask),
                Keys::Bitmap { min, max, words } => {
                    let (min, span) = (*min, max.wrapping_sub(*min) as u64);
                    let passes = |v: i64| {
                        let at = v.wrapping_sub(min) as u64;
                        let inside = at <= span;
                        let at = if inside { at as usize } else { 0 };
                        inside & (words[at >> 6] >> (at & 63) & 1 == 1)
                    };
                    each_width!(integers(keys)?, values => {
                        fill(&mut mask, values, |v| v.to_key().is_some_and(passes))
                    });
                }
                Keys::Integers { min, max, bloom } => {
                    let passes = |v: i64| v >= *min && v <= *max && bloom.contains(hash_integer(v as u64));
                    each_width!(integers(keys)?, values => {
                        fill(&mut mask, values, |v| v.to_key().is_some_and(passes))
                    });
                }
                Keys::Hashes(bloom) => {
                    let mut row = 0;
                    let known = for_each_hash(keys, |hash| {
                        if hash.is_some_and(|h| bloom.contains(h)) {
                            mask.insert(row);
                        }
                        row += 1;
                    });
                    if !known {
                        return None;
                    }
                }
            }
        }
        if let Some(nulls) = keys.logical_nulls() {
            mask.and_valid(&nulls);
        }
        Some(mask)
    }
}

fn build_integers(arrays: &[ArrayRef]) -> Keys {
    let (mut min, mut max, mut count) = (i64::MAX, i64::MIN, 0u64);
    for array in arrays {
        let read = for_each_integer(array, |v| {
            min = min.min(v);
            max = max.max(v);
            count += 1;
        });
        if !read {
            return Keys::Unknown;
        }
    }
    if count == 0 {
        return Keys::None;
    }
    let span = max.wrapping_sub(min) as u64;
    if span < BITMAP_SPAN_CHEAP.max(count.saturating_mul(BITMAP_BITS_PER_KEY)).min(BITMAP_SPAN_MAX) {
        let mut words = vec![0u64; (span / 64 + 1) as usize];
        for array in arrays {
            for_each_integer(array, |v| {
                let at = v.wrapping_sub(min) as u64;
                words[(at >> 6) as usize] |= 1 << (at & 63);
            });
        }
        return Keys::Bitmap { min, max, words };
    }
    let mut bloom = Bloom::new(count);
    for array in arrays {
        for_each_integer(array, |v| bloom.insert(hash_integer(v as u64)));
    }
    Keys::Integers { min, max, bloom }
}

fn build_hashes(arrays: &[ArrayRef]) -> Keys {
    let mut hashes = vec![];
    for array in arrays {
        // An entry of a dictionary that no row uses is one foreign key more that may pass; fewer rows
        // are hashed in turn.
        let array = array.as_any_dictionary_opt().map_or(array, |d| d.values());
        if !for_each_hash(array, |h| hashes.extend(h)) {
            return Keys::Unknown;
        }
    }
    if hashes.is_empty() {
        return Keys::None;
    }
    let mut bloom = Bloom::new(hashes.len() as u64);
    hashes.into_iter().for_each(|h| bloom.insert(h));
    Keys::Hashes(bloom)
}

/// Sets the bit of each value that passes.
#[inline]
fn fill<T: Copy>(mask: &mut Mask, values: &[T], passes: impl Fn(T) -> bool) {
    for (word, chunk) in mask.words_mut().iter_mut().zip(values.chunks(64)) {
        let mut bits = 0u64;
        for (i, &v) in chunk.iter().enumerate() {
            bits |= (passes(v) as u64) << i;
        }
        *word = bits;
    }
}

fn any_bit(words: &[u64], from: usize, to: usize) -> bool {
    let (first, last) = (from >> 6, to >> 6);
    let head = u64::MAX << (from & 63);
    let tail = u64::MAX >> (63 - (to & 63));
    if first == last {
        return words[first] & head & tail != 0;
    }
    words[first] & head != 0 || words[last] & tail != 0 || words[first + 1..last].iter().any(|w| *w != 0)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal64Array, Decimal128Array, DictionaryArray, Int64Array, StringViewArray};

    use super::*;

    fn kept(filter: &RuntimeFilter, keys: ArrayRef) -> Vec<u32> {
        filter.select(&keys).map_or((0..keys.len() as u32).collect(), |s| s.values().to_vec())
    }

    fn ints(v: impl IntoIterator<Item = i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(v))
    }

    #[test]
    fn a_bitmap_is_exact() {
        let filter = RuntimeFilter::build(&[ints([5, 900, i64::from(1 << 19)]), ints([-7])]);
        let probe: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(4), Some(5), None, Some(900), Some(i64::MIN)]));
        assert_eq!(kept(&filter, probe), [1, 3]);
        assert_eq!(filter.range(), Some((-7, 1 << 19)));
        assert!(filter.may_contain_range(6, 900) && !filter.may_contain_range(6, 899));
        assert!(!filter.may_contain_range(-100, -8) && filter.may_contain_range(-100, -7));
    }

    #[test]
    fn a_bloom_filter_keeps_all_of_its_own_and_few_others() {
        let own = (0..10_000i64).map(|i| i * 1_000_003);
        let filter = RuntimeFilter::build(&[ints(own.clone())]);
        assert_eq!(kept(&filter, ints(own)).len(), 10_000);
        let foreign = kept(&filter, ints((0..10_000i64).map(|i| i * 1_000_003 + 1))).len();
        assert!(foreign < 300, "{foreign}");
    }

    #[test]
    fn physical_forms_agree() {
        let narrow: ArrayRef =
            Arc::new(Decimal64Array::from(vec![100, 205]).with_precision_and_scale(12, 2).unwrap());
        let wide: ArrayRef =
            Arc::new(Decimal128Array::from(vec![205, 206]).with_precision_and_scale(12, 2).unwrap());
        assert_eq!(kept(&RuntimeFilter::build(std::slice::from_ref(&narrow)), wide.clone()), [0]);
        assert_eq!(kept(&RuntimeFilter::build(&[wide]), narrow), [1]);

        let plain: ArrayRef = Arc::new(StringViewArray::from(vec!["a long string beyond twelve", "b"]));
        let codes: DictionaryArray<UInt32Type> = vec!["x", "b", "y", "b"].into_iter().collect();
        let codes: ArrayRef = Arc::new(codes);
        assert_eq!(kept(&RuntimeFilter::build(std::slice::from_ref(&plain)), codes.clone()), [1, 3]);
        assert_eq!(kept(&RuntimeFilter::build(&[codes]), plain), [1]);
    }

    #[test]
    fn no_keys_and_unknown_keys() {
        assert!(RuntimeFilter::build(&[]).passes_none());
        assert!(kept(&RuntimeFilter::build(&[ints([])]), ints([1])).is_empty());
        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0]));
        assert!(RuntimeFilter::build(std::slice::from_ref(&floats)).passes_all());
        assert_eq!(kept(&RuntimeFilter::build(&[floats]), ints([1])), [0]);
    }

    #[test]
    fn the_whole_range_of_i64() {
        let filter = RuntimeFilter::build(&[ints([i64::MIN, 0, i64::MAX])]);
        assert_eq!(kept(&filter, ints([i64::MIN, i64::MAX, 0])), [0, 1, 2]);
    }
}
