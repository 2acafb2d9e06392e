//! The group table: from the key columns of a batch to a group number per row.
//!
//! Every key column becomes a small integer, and the integers of a row are packed into words:
//! - fixed-width values (see `ints`) are `value - base`, in as many bits as the values seen so far need;
//! - everything else (see `bytes`) is a code of an interner, which for dictionary-coded columns costs one
//!   look-up per distinct value;
//! - columns that a join took from the same row of its build side (see `composite`) are one code together.
//!
//! The widths are learnt from the data: when a batch does not fit, the layout grows and the groups there
//! are get packed anew, which happens a logarithmic number of times. So few-valued keys, whatever their
//! types, end as a direct index without hashing, as do dense integers; most others fit one or two words.
//!
//! What always holds: group numbers count the groups from 0 in the order in which their first rows came;
//! nulls are one group; -0.0 is 0.0 and NaN is NaN.

mod bytes;
mod composite;
mod hashing;
mod interner;
mod ints;
mod layout;
mod packed;

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;

use self::bytes::BytesKey;
use self::composite::{Composite, is_one_table};
use self::interner::Interner;
use self::ints::{IntVisitor, KeyNative};
use self::layout::{Field, Layout, Span};
use self::packed::Packed;
use crate::batch::Column;
use crate::error::Result;

/// Distinct keys and their numbers.
pub(super) struct GroupTable {
    /// Logical types of the keys.
    types: Vec<DataType>,
    columns: Vec<KeyColumn>,
    layout: Layout,
    store: Store,
    /// The layout was made for data; false while there are no groups.
    learnt: bool,
    /// Packed keys of the current batch.
    packed: Vec<u64>,
    /// What the key columns of the last batch were seen through, if anything.
    last_bases: Vec<Option<ArrayRef>>,
}

/// One or more keys that are packed as one integer.
struct KeyColumn {
    /// Positions of the keys.
    keys: Vec<usize>,
    kind: Kind,
    /// What the layout must have room for.
    span: Span,
}

enum Kind {
    /// Held as `value - base`; the array is the current batch's.
    Int {
        form: DataType,
        array: Option<ArrayRef>,
    },
    Bytes(Box<BytesKey>),
    Composite(Box<Composite>),
}

/// The packed keys by how many words they have.
enum Store {
    One(Packed<1>),
    Two(Packed<2>),
    Four(Packed<4>),
    /// Any number of words, as byte strings.
    Many(Interner),
}

/// What a table does when its groups have been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterTake {
    /// Keeps layout and memory: keys like the last ones come next.
    KeepLayout,
    /// Starts with no idea: the next keys may lie elsewhere, and close together.
    LearnAnew,
}

impl KeyColumn {
    /// A column for one key.
    fn new(key: usize, logical: &DataType) -> Result<Self> {
        let value_type = match logical {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let kind = match ints::integer_form(value_type) {
            Some(form) => Kind::Int { form, array: None },
            None => Kind::Bytes(Box::new(BytesKey::new(value_type.clone())?)),
        };
        Ok(KeyColumn { keys: vec![key], kind, span: Span::default() })
    }
}

impl Store {
    /// Removes all groups; the slots stay allocated, and so do the keys that were taken out.
    fn clear(&mut self, keys: Vec<u64>) {
        match self {
            Store::One(p) => p.clear(keys),
            Store::Two(p) => p.clear(keys),
            Store::Four(p) => p.clear(keys),
            // Taking its values has emptied it.
            Store::Many(_) => {}
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Store::One(p) => p.memory_bytes(),
            Store::Two(p) => p.memory_bytes(),
            Store::Four(p) => p.memory_bytes(),
            Store::Many(i) => i.memory_bytes(),
        }
    }

    fn empty() -> Self {
        Store::One(Packed::new(vec![], Some(1)))
    }
}

impl GroupTable {
    /// An empty table for keys of the logical types, of which there is at least one.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let columns =
            types.iter().enumerate().map(|(i, t)| KeyColumn::new(i, t)).collect::<Result<Vec<_>>>()?;
        Ok(GroupTable {
            types: types.to_vec(),
            columns,
            layout: Layout::new(&[]),
            store: Store::empty(),
            learnt: false,
            packed: vec![],
            last_bases: vec![],
        })
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        match &self.store {
            Store::One(p) => p.keys.len(),
            Store::Two(p) => p.keys.len(),
            Store::Four(p) => p.keys.len(),
            Store::Many(i) => i.len(),
        }
    }

    /// Memory that the table holds, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let store = self.store.memory_bytes();
        let columns = self.columns.iter().map(|c| match &c.kind {
            Kind::Int { .. } => 0,
            Kind::Bytes(b) => b.memory_bytes(),
            Kind::Composite(c) => c.memory_bytes(),
        });
        store + columns.sum::<usize>()
    }

    /// The part of the memory that is read for every row, at random: what should fit the cache.
    pub(super) fn hot_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|c| match &c.kind {
            Kind::Int { .. } => 0,
            Kind::Bytes(b) => b.hot_bytes(),
            Kind::Composite(c) => c.hot_bytes(),
        });
        self.store.memory_bytes() + columns.sum::<usize>()
    }

    /// Replaces `ids` by the group of each of the `rows` rows; keys not seen before become groups.
    pub(super) fn assign(&mut self, keys: &[Column], rows: usize, ids: &mut Vec<u32>) -> Result<()> {
        ids.clear();
        if rows == 0 {
            return Ok(());
        }
        self.notice_tables(keys)?;
        for column in &mut self.columns {
            let key = &keys[column.keys[0]];
            match &mut column.kind {
                Kind::Int { form, array } => *array = Some(ints::to_integer_form(&key.values()?, form)?),
                Kind::Bytes(b) => {
                    b.encode(key)?;
                    column.span.cover(0, b.distinct() as i64);
                }
                Kind::Composite(c) => {
                    c.encode(&column.keys.iter().map(|i| &keys[*i]).collect::<Vec<_>>(), rows)?;
                    column.span.cover(0, c.distinct() as i64);
                }
            }
        }
        let grown = self.columns.iter().zip(&self.layout.columns).any(|(c, l)| !l.holds(&c.span));
        if grown || !self.learnt || !self.pack(rows)? {
            self.learn()?;
            self.change_layout(rows);
            let fits = self.pack(rows)?;
            debug_assert!(fits, "a layout made for a batch holds it");
        }
        for column in &mut self.columns {
            if let Kind::Int { array, .. } = &mut column.kind {
                *array = None;
            }
        }
        match &mut self.store {
            Store::One(p) => p.assign(self.packed.as_chunks().0, ids),
            Store::Two(p) => p.assign(self.packed.as_chunks().0, ids),
            Store::Four(p) => p.assign(self.packed.as_chunks().0, ids),
            Store::Many(interner) => {
                let mut bytes = vec![];
                ids.extend(self.packed.chunks(self.layout.words).map(|key| {
                    bytes.clear();
                    bytes.extend(key.iter().flat_map(|word| word.to_le_bytes()));
                    interner.code(&bytes) - 1
                }));
            }
        }
        Ok(())
    }

    /// Packs the current batch; false if a value does not fit the layout.
    fn pack(&mut self, rows: usize) -> Result<bool> {
        let words = self.layout.words;
        self.packed.clear();
        self.packed.resize(rows * words, 0);
        for (column, place) in self.columns.iter().zip(&self.layout.columns) {
            let fits = match &column.kind {
                Kind::Int { array, .. } => {
                    let array = array.as_ref().expect("invariant: set for the current batch");
                    let base = place.base;
                    ints::visit_ints(
                        array,
                        Pack { out: &mut self.packed, words, base, value: place.value, null: place.null },
                    )?
                }
                Kind::Bytes(b) => pack_codes(&mut self.packed, words, place.value, &b.codes),
                Kind::Composite(c) => pack_codes(&mut self.packed, words, place.value, &c.codes),
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Extends what is known of each integer column's values by the current batch.
    fn learn(&mut self) -> Result<()> {
        for column in &mut self.columns {
            if let Kind::Int { array: Some(array), .. } = &column.kind {
                let (range, has_null) = ints::visit_ints(array, Range)?;
                if let Some((low, high)) = range {
                    column.span.cover(low, high);
                } else if column.span.is_empty() {
                    column.span.cover(0, 0);
                }
                column.span.nullable |= has_null;
            }
        }
        Ok(())
    }

    /// A layout for the spans there are now; the groups move into it.
    fn change_layout(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|c| c.span.settle());
        let spans: Vec<Span> = self.columns.iter().map(|c| c.span).collect();
        self.learnt = true;
        let new = Layout::new(&spans);
        let groups = self.len();
        let mut keys = vec![0u64; groups * new.words];
        let old_keys = self.take_packed();
        for (old, new_place) in self.layout.columns.iter().zip(&new.columns) {
            old.repack(&old_keys, self.layout.words, new_place, &mut keys, new.words);
        }
        // The codes of an interner leave no gaps.
        let dense =
            matches!(self.columns.as_slice(), [KeyColumn { kind: Kind::Bytes(_) | Kind::Composite(_), .. }]);
        let direct = (new.words == 1).then_some(new.bits).filter(|bits| {
            *bits <= 16 || dense && *bits <= 28 || *bits <= 22 && 1usize << bits <= 8 * (groups + rows)
        });
        self.store = match new.words {
            1 => Store::One(Packed::new(keys.as_chunks().0.to_vec(), direct)),
            2 => Store::Two(Packed::new(keys.as_chunks().0.to_vec(), None)),
            4 => Store::Four(Packed::new(keys.as_chunks().0.to_vec(), None)),
            words => {
                let mut interner = Interner::new();
                for key in keys.chunks(words) {
                    interner.code(&key.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
                }
                Store::Many(interner)
            }
        };
        self.layout = new;
    }

    /// The packed keys of all groups; they are gone from the store.
    fn take_packed(&mut self) -> Vec<u64> {
        match &mut self.store {
            Store::One(p) => std::mem::take(&mut p.keys).into_flattened(),
            Store::Two(p) => std::mem::take(&mut p.keys).into_flattened(),
            Store::Four(p) => std::mem::take(&mut p.keys).into_flattened(),
            Store::Many(interner) => {
                let rows = interner.take();
                let bytes = rows.iter().flatten();
                bytes.flat_map(|b| b.as_chunks::<8>().0).map(|w| u64::from_le_bytes(*w)).collect()
            }
        }
    }

    /// The keys of all groups, by group number, each column in a physical form of its type. The table is
    /// empty then.
    pub(super) fn take_keys(&mut self, then: AfterTake) -> Result<Vec<ArrayRef>> {
        if !self.learnt {
            return Ok(self.types.iter().map(new_empty_array).collect());
        }
        let groups = self.len();
        let words = self.layout.words;
        let packed = self.take_packed();
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; self.types.len()];
        for (column, place) in self.columns.iter_mut().zip(&self.layout.columns) {
            let codes = packed.chunks_exact(words).map(|key| place.value.get(key));
            let taken = match &mut column.kind {
                Kind::Int { form, .. } => {
                    let nulls = place.null.map(|null| {
                        NullBuffer::new(BooleanBuffer::collect_bool(groups, |i| {
                            null.get(&packed[i * words..]) == 0
                        }))
                    });
                    let values = codes.map(|code| place.base.wrapping_add(code as i64));
                    vec![ints::from_keys(form, values, nulls.filter(|n| n.null_count() > 0))?]
                }
                Kind::Bytes(b) => vec![b.take(codes.map(|code| code as u32).collect())?],
                Kind::Composite(c) => c.take(codes.map(|code| code as u32).collect(), then)?,
            };
            for (key, array) in column.keys.iter().zip(taken) {
                arrays[*key] = Some(match &self.types[*key] {
                    logical @ DataType::Dictionary(_, _) => arrow::compute::cast(&array, logical)?,
                    _ => array,
                });
            }
        }
        match then {
            AfterTake::KeepLayout => self.store.clear(packed),
            AfterTake::LearnAnew => {
                self.columns.iter_mut().for_each(|c| c.span = Span::default());
                self.layout = Layout::new(&[]);
                self.store = Store::empty();
                self.learnt = false;
            }
        }
        Ok(arrays.into_iter().map(|a| a.expect("invariant: every key is in one column")).collect())
    }

    /// Makes one column of keys that are rows of one table, once they are so in two batches on end. The
    /// groups keep their numbers.
    fn notice_tables(&mut self, keys: &[Column]) -> Result<()> {
        if keys.len() < 2 || self.columns.len() < keys.len() {
            return Ok(());
        }
        let bases: Vec<Option<ArrayRef>> =
            keys.iter().map(|k| k.indices().map(|_| k.base().clone())).collect();
        let again = |i: &usize| match (&bases[*i], self.last_bases.get(*i)) {
            (Some(base), Some(Some(last))) => Arc::ptr_eq(base, last),
            _ => false,
        };
        let mut rest: Vec<usize> = (0..keys.len()).filter(again).collect();
        self.last_bases = bases;
        let mut sets: Vec<Vec<usize>> = vec![];
        while let Some(first) = rest.first().copied() {
            let (set, others) = rest.iter().partition(|i| is_one_table(&[&keys[first], &keys[**i]]));
            let set: Vec<usize> = set;
            rest = others;
            rest.retain(|i| *i != first);
            if set.len() > 1 {
                sets.push(set);
            }
        }
        if sets.is_empty() {
            return Ok(());
        }
        let groups = self.len();
        let old = self.take_keys(AfterTake::LearnAnew)?;
        self.columns.retain(|c| !sets.iter().flatten().any(|key| c.keys.contains(key)));
        for set in sets {
            let types: Vec<DataType> = set.iter().map(|i| self.types[*i].clone()).collect();
            let kind = Kind::Composite(Box::new(Composite::new(&types)?));
            self.columns.push(KeyColumn { keys: set, kind, span: Span::default() });
        }
        let old: Vec<Column> = old.into_iter().map(Column::new).collect();
        self.assign(&old, groups, &mut vec![])
    }
}

/// Adds codes to packed keys.
fn pack_codes(packed: &mut [u64], words: usize, field: Field, codes: &[u32]) -> bool {
    let Field { word, shift, .. } = field;
    if words == 1 {
        packed.iter_mut().zip(codes).for_each(|(key, code)| *key |= u64::from(*code) << shift);
    } else {
        let keys = packed.chunks_exact_mut(words);
        keys.zip(codes).for_each(|(key, code)| key[word] |= u64::from(*code) << shift);
    }
    true
}

/// Adds a column to packed keys. The answer is whether all values fit.
struct Pack<'a> {
    out: &'a mut [u64],
    words: usize,
    base: i64,
    value: Field,
    null: Option<Field>,
}

impl IntVisitor for Pack<'_> {
    type Out = bool;

    fn visit<T: KeyNative>(self, values: &[T], nulls: Option<&arrow::buffer::NullBuffer>) -> bool {
        let Pack { out, words, base, value: Field { word, shift, bits }, null } = self;
        let mut spread = 0u64;
        match nulls {
            None if words == 1 => {
                for (key, value) in out.iter_mut().zip(values) {
                    let code = value.to_key().wrapping_sub(base) as u64;
                    spread |= code;
                    *key |= code << shift;
                }
            }
            None => {
                for (key, value) in out.chunks_exact_mut(words).zip(values) {
                    let code = value.to_key().wrapping_sub(base) as u64;
                    spread |= code;
                    key[word] |= code << shift;
                }
            }
            Some(nulls) => {
                let Some(null) = null else { return false };
                for ((key, value), valid) in out.chunks_exact_mut(words).zip(values).zip(nulls) {
                    let code = if valid { value.to_key().wrapping_sub(base) as u64 } else { 0 };
                    spread |= code;
                    key[word] |= code << shift;
                    key[null.word] |= u64::from(!valid) << null.shift;
                }
            }
        }
        bits == 64 || spread >> bits == 0
    }
}

/// The least and the greatest value, and whether there is a null.
struct Range;

impl IntVisitor for Range {
    type Out = (Option<(i64, i64)>, bool);

    fn visit<T: KeyNative>(self, values: &[T], nulls: Option<&arrow::buffer::NullBuffer>) -> Self::Out {
        let mut low = i64::MAX;
        let mut high = i64::MIN;
        match nulls {
            None => {
                for value in values {
                    low = low.min(value.to_key());
                    high = high.max(value.to_key());
                }
            }
            Some(nulls) => {
                for row in nulls.valid_indices() {
                    low = low.min(values[row].to_key());
                    high = high.max(values[row].to_key());
                }
            }
        }
        ((low <= high).then_some((low, high)), nulls.is_some())
    }
}
