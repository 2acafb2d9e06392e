//! Row numbers in key order.
//!
//! All keys of a row are packed into one word, key after key, each in just the bits that its values
//! need here: value minus smallest value, one more code for null, strings without their common prefix.
//! Most sorts so become one sort of `(word, row number)` pairs, by radix where the word is short for the
//! number of rows. What does not fit into 128 bits (long strings, many wide keys) is packed as far as it
//! goes, and rows whose words are equal are compared by their values.
//!
//! The row number is part of what is compared, so rows with equal keys keep their order.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, DynComparator, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, take};

use super::keys::{Codes, Key, codes, lengths_behind, prefixes, shape};
use crate::error::{EngineError, Result};

/// The rows `0..rows` in the order of the keys ([`Key::flat`]), or the first `limit` of them.
pub fn sort_rows(keys: &[Key], rows: usize, limit: Option<usize>) -> Result<Vec<u32>> {
    debug_assert!(keys.iter().all(|k| k.array.len() == rows));
    let limit = limit.unwrap_or(rows).min(rows);
    if limit == 0 {
        return Ok(vec![]);
    }
    let mut packed = Packed { fields: vec![], bits: 0 };
    let mut covered = 0;
    for key in keys {
        if !packed.add(key) {
            break;
        }
        covered += 1;
    }
    let ties = keys[covered..].iter().map(comparator).collect::<Result<Vec<_>>>()?;
    let bits = packed.bits;
    Ok(match bits {
        0 if ties.is_empty() => (0..limit as u32).collect(),
        0..=32 if ties.is_empty() => {
            let words: Vec<u64> = packed.words(rows);
            let pairs = words.into_iter().zip(0u64..).map(|(word, row)| word << 32 | row).collect();
            order(pairs, limit, bits, |&pair| pair >> 32, |pair| pair as u32)
        }
        0..=96 if ties.is_empty() => {
            let words: Vec<u128> = packed.words(rows);
            let pairs = words.into_iter().zip(0u128..).map(|(word, row)| word << 32 | row).collect();
            order(pairs, limit, bits, |&pair| (pair >> 32) as u64, |pair| pair as u32)
        }
        _ if ties.is_empty() => {
            let pairs: Vec<(u128, u32)> = packed.words::<u128>(rows).into_iter().zip(0..).collect();
            order(pairs, limit, bits, |_| 0, |pair| pair.1)
        }
        0..=64 => order_with_ties(packed.words::<u64>(rows), limit, &ties),
        _ => order_with_ties(packed.words::<u128>(rows), limit, &ties),
    })
}

/// Sorts pairs whose words are complete keys of `bits` bits.
fn order<P: Ord + Copy>(
    mut pairs: Vec<P>,
    limit: usize,
    bits: u32,
    word: impl Fn(&P) -> u64,
    row: impl Fn(P) -> u32,
) -> Vec<u32> {
    if pairs.is_sorted() {
        pairs.truncate(limit);
    } else if limit < pairs.len() {
        pairs.select_nth_unstable(limit - 1);
        pairs.truncate(limit);
        pairs.sort_unstable();
    } else if bits <= 64 && radix_pays(pairs.len(), bits) {
        pairs = radix_sort(pairs, bits, word);
    } else {
        pairs.sort_unstable();
    }
    // Collected in place, the numbers would keep the pairs' memory.
    let mut rows: Vec<u32> = pairs.into_iter().map(row).collect();
    rows.shrink_to_fit();
    rows
}

/// A pass of a radix sort costs about as much as two and a half rounds of comparisons.
fn radix_pays(rows: usize, bits: u32) -> bool {
    rows >= 256 && 5 * bits.div_ceil(8) <= 2 * rows.ilog2()
}

/// Sorts by the low `bits` bits of the words, a byte at a time, lowest first; stable, so that the rows of
/// one word stay in order.
fn radix_sort<P: Copy>(mut pairs: Vec<P>, bits: u32, word: impl Fn(&P) -> u64) -> Vec<P> {
    let passes = bits.div_ceil(8) as usize;
    let mut counts = vec![[0u32; 256]; passes];
    for pair in &pairs {
        let word = word(pair);
        for (pass, counts) in counts.iter_mut().enumerate() {
            counts[(word >> (8 * pass)) as u8 as usize] += 1;
        }
    }
    let mut sorted = pairs.clone();
    for (pass, counts) in counts.iter_mut().enumerate() {
        if counts.iter().any(|&count| count as usize == pairs.len()) {
            continue; // all rows agree in this byte
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for &pair in &pairs {
            let place = &mut counts[(word(&pair) >> (8 * pass)) as u8 as usize];
            sorted[*place as usize] = pair;
            *place += 1;
        }
        std::mem::swap(&mut pairs, &mut sorted);
    }
    pairs
}

/// Sorts by words that leave ties, which comparators of the remaining keys settle.
fn order_with_ties<W: Ord + Copy>(words: Vec<W>, limit: usize, ties: &[DynComparator]) -> Vec<u32> {
    let mut pairs: Vec<(W, u32)> = words.into_iter().zip(0..).collect();
    let compare = |a: &(W, u32), b: &(W, u32)| {
        a.0.cmp(&b.0).then_with(|| {
            let (left, right) = (a.1 as usize, b.1 as usize);
            ties.iter()
                .map(|tie| tie(left, right))
                .find(|o| *o != Ordering::Equal)
                .unwrap_or_else(|| left.cmp(&right))
        })
    };
    if limit < pairs.len() {
        pairs.select_nth_unstable_by(limit - 1, compare);
        pairs.truncate(limit);
    }
    pairs.sort_unstable_by(compare);
    pairs.into_iter().map(|pair| pair.1).collect()
}

fn comparator(key: &Key) -> Result<DynComparator> {
    let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
    make_comparator(&key.array, &key.array, options).map_err(|_| unsortable(key))
}

/// The error for a key type without an order.
pub(super) fn unsortable(key: &Key) -> EngineError {
    EngineError::Unsupported(
        format!("sorting by a value of type {}", key.array.data_type()),
        "Sort by one of its parts, or cast it to VARCHAR".into(),
    )
}

/// Keys as numbers of few bits, to be put one behind the other.
struct Packed {
    fields: Vec<Field>,
    bits: u32,
}

/// One number a row, below `2^bits`.
struct Field {
    values: Values,
    bits: u32,
}

enum Values {
    Narrow(Vec<u64>),
    Wide(Vec<u128>),
}

impl Packed {
    /// Adds a key; false if it went in only in part, or not at all.
    fn add(&mut self, key: &Key) -> bool {
        match codes(&key.array) {
            Codes::Narrow(codes) => self.add_numbers(key, codes),
            Codes::Wide(codes) => self.add_numbers(key, codes),
            Codes::Bytes => self.add_bytes(key),
            // Nothing but nulls of a type without codes: all rows are equal.
            Codes::None => key.nulls().is_some_and(|nulls| nulls.null_count() == nulls.len()),
        }
    }

    fn add_numbers<W: Word>(&mut self, key: &Key, mut codes: Vec<W>) -> bool {
        let nulls = key.nulls();
        let bounds = match &nulls {
            None => codes.iter().min().copied().zip(codes.iter().max().copied()),
            Some(nulls) => {
                let valid = || nulls.valid_indices().map(|row| codes[row]);
                valid().min().zip(valid().max())
            }
        };
        let Some((least, most)) = bounds else {
            return self.push(Values::Narrow(vec![]), 0); // nothing but nulls: all rows are equal
        };
        let span = most.minus(least);
        let Some(last) = span.checked_add(W::from(nulls.is_some())) else {
            return self.add_halves(key, codes, least, span);
        };
        if key.descending {
            codes.iter_mut().for_each(|code| *code = most.minus(*code));
        } else {
            codes.iter_mut().for_each(|code| *code = code.minus(least));
        }
        if let Some(nulls) = &nulls {
            if key.nulls_first {
                codes.iter_mut().for_each(|code| *code = code.plus_one());
            }
            let null = if key.nulls_first { W::from(false) } else { last };
            (0..codes.len()).filter(|&row| nulls.is_null(row)).for_each(|row| codes[row] = null);
        }
        self.push(W::values(codes), last.bits())
    }

    /// Adds codes of which every one is taken, with nulls: the null flag first, then the code.
    fn add_halves<W: Word>(&mut self, key: &Key, mut codes: Vec<W>, least: W, span: W) -> bool {
        let nulls = key.nulls().expect("invariant: without nulls the codes fit");
        let flags = (0..codes.len()).map(|row| u64::from(nulls.is_null(row) != key.nulls_first)).collect();
        for (row, code) in codes.iter_mut().enumerate() {
            *code = match (nulls.is_null(row), key.descending) {
                (true, _) => W::from(false),
                (false, false) => code.minus(least),
                (false, true) => span.minus(code.minus(least)),
            };
        }
        self.push(Values::Narrow(flags), 1) && self.push(W::values(codes), span.bits())
    }

    /// Adds byte strings: whole, with their length behind them, if they are short; else their beginnings.
    fn add_bytes(&mut self, key: &Key) -> bool {
        let shape = shape(&key.array);
        let nulls = key.nulls();
        let null_bits = u32::from(nulls.is_some());
        let left = 128 - self.bits - null_bits.min(128 - self.bits);
        let length_bits = usize::BITS - shape.longest.leading_zeros();
        let whole = shape.longest <= 15 && 8 * shape.longest as u32 + length_bits <= left;
        let count = if whole {
            shape.longest
        } else {
            // As many as one word of 64 bits takes, if these are enough to tell strings apart; else two.
            let short = (64u32.saturating_sub(self.bits + null_bits) / 8) as usize;
            if short >= 4 && tell_apart(&key.array, shape.common, short) { short } else { left as usize / 8 }
        };
        if count == 0 && !whole {
            return false;
        }
        if let Some(nulls) = &nulls {
            let flags = (0..nulls.len()).map(|row| u64::from(nulls.is_null(row) != key.nulls_first));
            self.push(Values::Narrow(flags.collect()), 1);
        }
        let mut parts = vec![];
        let mut from = 0;
        while from < count {
            let size = (count - from).min(8);
            parts.push((prefixes(&key.array, shape.common + from, size), 8 * size as u32));
            from += size;
        }
        if whole && length_bits > 0 {
            parts.push((lengths_behind(&key.array, shape.common), length_bits));
        }
        for (mut values, bits) in parts {
            let mask = u64::MAX >> (64 - bits);
            if key.descending {
                values.iter_mut().for_each(|v| *v = mask - (*v & mask));
            }
            if let Some(nulls) = &nulls {
                (0..values.len()).filter(|&row| nulls.is_null(row)).for_each(|row| values[row] = 0);
            }
            self.push(Values::Narrow(values), bits);
        }
        whole
    }

    /// Adds numbers of `bits` bits, or of as many high bits as there is room for; true if all went in.
    fn push(&mut self, mut values: Values, mut bits: u32) -> bool {
        if bits == 0 {
            return true;
        }
        let cut = (self.bits + bits).saturating_sub(128);
        if cut >= bits {
            return false;
        }
        if cut > 0 {
            match &mut values {
                Values::Narrow(values) => values.iter_mut().for_each(|v| *v >>= cut),
                Values::Wide(values) => values.iter_mut().for_each(|v| *v >>= cut),
            }
            bits -= cut;
        }
        self.bits += bits;
        self.fields.push(Field { values, bits });
        cut == 0
    }

    /// The packed words of `rows` rows; all zero without a field.
    fn words<W: Word>(self, rows: usize) -> Vec<W> {
        let mut fields = self.fields.into_iter();
        let Some(first) = fields.next() else { return vec![W::from(false); rows] };
        let mut words: Vec<W> = match first.values {
            Values::Narrow(values) => W::from_narrow(values),
            Values::Wide(values) => values.into_iter().map(W::truncate).collect(),
        };
        for Field { values, bits } in fields {
            match values {
                Values::Narrow(values) => {
                    words.iter_mut().zip(values).for_each(|(w, v)| *w = w.append(bits, W::widen(v)));
                }
                Values::Wide(values) => {
                    words.iter_mut().zip(values).for_each(|(w, v)| *w = w.append(bits, W::truncate(v)));
                }
            }
        }
        words
    }
}

/// Whether the `count` bytes behind position `skip` tell most strings apart: seven of eight in a sample. What
/// they do not is compared string by string, which costs many times as much as a second word.
fn tell_apart(array: &ArrayRef, skip: usize, count: usize) -> bool {
    const SAMPLE_ROWS: usize = 512;
    let step = array.len().div_ceil(SAMPLE_ROWS).max(1);
    let rows = (0..array.len() as u32).step_by(step);
    let Ok(sample) = take(array, &UInt32Array::from_iter_values(rows), None) else { return true };
    let mut prefixes = prefixes(&sample, skip, count);
    prefixes.sort_unstable();
    prefixes.dedup();
    8 * prefixes.len() >= 7 * sample.len()
}

/// 64 or 128 bits.
trait Word: Ord + Copy + From<bool> {
    fn minus(self, other: Self) -> Self;
    fn plus_one(self) -> Self;
    fn checked_add(self, other: Self) -> Option<Self>;
    /// Bits of the number.
    fn bits(self) -> u32;
    /// The word with `bits` bits of another behind it.
    fn append(self, bits: u32, low: Self) -> Self;
    fn widen(v: u64) -> Self;
    fn truncate(v: u128) -> Self;
    fn from_narrow(values: Vec<u64>) -> Vec<Self>;
    fn values(words: Vec<Self>) -> Values;
}

macro_rules! word {
    ($type:ty, $variant:ident, $from_narrow:expr) => {
        impl Word for $type {
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn plus_one(self) -> Self {
                self.wrapping_add(1)
            }
            fn checked_add(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
            fn bits(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }
            fn append(self, bits: u32, low: Self) -> Self {
                self.checked_shl(bits).unwrap_or(0) | low
            }
            fn widen(v: u64) -> Self {
                v as $type
            }
            fn truncate(v: u128) -> Self {
                v as $type
            }
            fn from_narrow(values: Vec<u64>) -> Vec<Self> {
                $from_narrow(values)
            }
            fn values(words: Vec<Self>) -> Values {
                Values::$variant(words)
            }
        }
    };
}

word!(u64, Narrow, |values| values);
word!(u128, Wide, |values: Vec<u64>| values.into_iter().map(u128::from).collect());
