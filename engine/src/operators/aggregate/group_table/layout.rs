//! Where each key column stands in the packed words.

/// The values of a column that a layout must have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    low: i64,
    high: i64,
    pub(super) nullable: bool,
}

impl Default for Span {
    /// No values.
    fn default() -> Self {
        Span { low: i64::MAX, high: i64::MIN, nullable: false }
    }
}

impl Span {
    pub(super) fn is_empty(&self) -> bool {
        self.low > self.high
    }

    /// Makes room for values between two; if there were others, for as many more in that direction, so
    /// that a column that keeps rising asks seldom.
    pub(super) fn cover(&mut self, low: i64, high: i64) {
        if self.is_empty() {
            (self.low, self.high) = (low, high);
            return;
        }
        let (old_low, old_high) = (self.low, self.high);
        let width = old_high.max(high).saturating_sub(old_low.min(low));
        if low < old_low {
            self.low = low.saturating_sub(width);
        }
        if high > old_high {
            self.high = high.saturating_add(width);
        }
    }

    /// Extends the span to all values that its bits can tell apart.
    pub(super) fn settle(&mut self) {
        if self.is_empty() {
            return;
        }
        match self.bits() {
            64 => (self.low, self.high) = (i64::MIN, i64::MAX),
            bits => self.high = self.low.saturating_add(((1u64 << bits) - 1) as i64),
        }
    }

    fn bits(&self) -> u32 {
        if self.is_empty() {
            return 1;
        }
        (64 - (self.high.wrapping_sub(self.low) as u64).leading_zeros()).max(1)
    }
}

/// Some bits of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) word: usize,
    pub(super) shift: u32,
    pub(super) bits: u32,
}

impl Field {
    /// The field's bits of a packed key.
    #[inline(always)]
    pub(super) fn get(&self, key: &[u64]) -> u64 {
        (key[self.word] >> self.shift) & (u64::MAX >> (64 - self.bits))
    }
}

/// A column's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Holds `value - base`, or 0 for null.
    pub(super) value: Field,
    /// One bit, set for null; none as long as no null was seen.
    pub(super) null: Option<Field>,
    pub(super) base: i64,
    high: i64,
}

impl Place {
    /// Room for all values of a span.
    pub(super) fn holds(&self, span: &Span) -> bool {
        span.is_empty()
            || span.low >= self.base && span.high <= self.high && (!span.nullable || self.null.is_some())
    }

    /// Copies this column of packed keys into keys of a layout that has room for at least the same.
    pub(super) fn repack(&self, from: &[u64], from_words: usize, to: &Place, keys: &mut [u64], words: usize) {
        let shift = self.base.wrapping_sub(to.base) as u64;
        for (from, key) in from.chunks_exact(from_words).zip(keys.chunks_exact_mut(words)) {
            if self.null.is_some_and(|null| null.get(from) == 1) {
                let null = to.null.expect("invariant: once nullable, always nullable");
                key[null.word] |= 1 << null.shift;
            } else {
                key[to.value.word] |= self.value.get(from).wrapping_add(shift) << to.value.shift;
            }
        }
    }
}

/// Where all columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) columns: Vec<Place>,
    /// 1, 2, 4, or any number above.
    pub(super) words: usize,
    /// Bits in use, if there is one word.
    pub(super) bits: u32,
}

impl Layout {
    /// Places the columns, each where there is room first.
    pub(super) fn new(spans: &[Span]) -> Self {
        let mut used: Vec<u32> = vec![];
        let mut field = |bits: u32| {
            let word = used.iter().position(|u| u + bits <= 64).unwrap_or_else(|| {
                used.push(0);
                used.len() - 1
            });
            let shift = used[word];
            used[word] += bits;
            Field { word, shift, bits }
        };
        let columns = spans
            .iter()
            .map(|span| {
                let value = field(span.bits());
                let null = span.nullable.then(|| field(1));
                let (base, high) = if span.is_empty() { (0, 0) } else { (span.low, span.high) };
                Place { value, null, base, high }
            })
            .collect();
        let bits = used.first().copied().unwrap_or(1);
        let words = match used.len() {
            0 => 1,
            3 => 4,
            n => n,
        };
        Layout { columns, words, bits }
    }
}
