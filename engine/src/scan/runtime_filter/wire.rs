//! Runtime filters as bytes, for scans in other processes.
//!
//! One byte for the kind; for integer keys the least and the greatest; then the bits, little-endian. What
//! always holds: any bytes may be given to [`RuntimeFilter::decode`], and a filter that it gives back tests keys
//! without reading beyond its bits.

use super::{Keys, RuntimeFilter};
use crate::scan::bloom::Bloom;

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const BITMAP: u8 = 2;
const INTEGERS: u8 = 3;
const HASHES: u8 = 4;

impl RuntimeFilter {
    /// The filter as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![];
        match &self.keys {
            Keys::Unknown => bytes.push(UNKNOWN),
            Keys::None => bytes.push(NONE),
            Keys::Bitmap { min, max, words } => {
                bytes.push(BITMAP);
                bytes.extend(min.to_le_bytes());
                bytes.extend(max.to_le_bytes());
                words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            }
            Keys::Integers { min, max, bloom } => {
                bytes.push(INTEGERS);
                bytes.extend(min.to_le_bytes());
                bytes.extend(max.to_le_bytes());
                bytes.extend(bloom.to_bytes());
            }
            Keys::Hashes(bloom) => {
                bytes.push(HASHES);
                bytes.extend(bloom.to_bytes());
            }
        }
        bytes
    }

    /// The filter of some bytes; none if they are not one.
    pub fn decode(bytes: &[u8]) -> Option<RuntimeFilter> {
        let (kind, rest) = bytes.split_first()?;
        let keys = match (*kind, rest) {
            (UNKNOWN, []) => Keys::Unknown,
            (NONE, []) => Keys::None,
            (BITMAP, rest) => {
                let (min, max, bits) = range(rest)?;
                let (words, []) = bits.as_chunks::<8>() else { return None };
                let span = max.wrapping_sub(min) as u64;
                if words.len() as u64 != span / 64 + 1 {
                    return None;
                }
                Keys::Bitmap { min, max, words: words.iter().map(|w| u64::from_le_bytes(*w)).collect() }
            }
            (INTEGERS, rest) => {
                let (min, max, bits) = range(rest)?;
                Keys::Integers { min, max, bloom: Bloom::from_bytes(bits)? }
            }
            (HASHES, bits) => Keys::Hashes(Bloom::from_bytes(bits)?),
            _ => return None,
        };
        Some(RuntimeFilter { keys })
    }
}

/// The least key, the greatest, and what follows.
fn range(bytes: &[u8]) -> Option<(i64, i64, &[u8])> {
    let (min, rest) = bytes.split_first_chunk()?;
    let (max, rest) = rest.split_first_chunk()?;
    let (min, max) = (i64::from_le_bytes(*min), i64::from_le_bytes(*max));
    (min <= max).then_some((min, max, rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn filters_survive_the_wire() {
        let ints =
            |step: i64| Arc::new(Int64Array::from_iter_values((-50..50).map(|i| i * step))) as ArrayRef;
        let arrays: [ArrayRef; 4] = [
            ints(3),
            ints(1 << 50),
            Arc::new(StringViewArray::from(vec!["a", "a longer string than twelve"])),
            Arc::new(Float64Array::from(vec![1.0])),
        ];
        for array in &arrays {
            let filter = RuntimeFilter::build(std::slice::from_ref(array));
            let again = RuntimeFilter::decode(&filter.encode()).unwrap();
            for probe in &arrays {
                let selected = |f: &RuntimeFilter| f.select(probe).map(|s| s.values().to_vec());
                if probe.data_type() == array.data_type() {
                    assert_eq!(selected(&filter), selected(&again));
                }
            }
        }
        assert!(RuntimeFilter::decode(&RuntimeFilter::build(&[]).encode()).unwrap().passes_none());
    }

    #[test]
    fn other_bytes_are_no_filter() {
        let good =
            RuntimeFilter::build(&[Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef]).encode();
        for length in 0..good.len() {
            assert!(RuntimeFilter::decode(&good[..length]).is_none(), "{length}");
        }
        for bytes in [&[9][..], &[HASHES], &[HASHES, 1, 2, 3], &[NONE, 0]] {
            assert!(RuntimeFilter::decode(bytes).is_none(), "{bytes:?}");
        }
    }
}
