//! MIN and MAX of strings and binaries.

use std::cmp::Ordering;

use arrow::array::types::{ByteViewType, UInt32Type};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, GenericByteViewArray, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::Arc;

use super::{Accumulator, Rows, nulled};
use crate::batch::to_logical;
use crate::error::Result;

const INLINE_BYTES: usize = 12;
/// Bytes of values that are no longer the best, above which they are removed once they are the majority.
const DEAD_BYTES_MIN: usize = 1 << 20;

/// The least or greatest string by group; a state is the string.
pub(in super::super) struct MinMaxText {
    max: bool,
    text: bool,
    best: Vec<Held>,
    /// Bytes of the longer values.
    arena: Vec<u8>,
    dead_bytes: usize,
}

/// A group's value: short ones here, longer ones in the arena.
#[derive(Clone, Copy)]
enum Held {
    None,
    Short { length: u8, bytes: [u8; INLINE_BYTES] },
    Long { length: u32, offset: usize },
}

impl MinMaxText {
    /// For strings, or else binaries.
    pub(in super::super) fn new(max: bool, text: bool) -> Self {
        MinMaxText { max, text, best: vec![], arena: vec![], dead_bytes: 0 }
    }

    fn view_type(&self) -> DataType {
        if self.text { DataType::Utf8View } else { DataType::BinaryView }
    }

    fn offer(&mut self, group: usize, value: &[u8]) {
        let current = match &self.best[group] {
            Held::None => None,
            Held::Short { length, bytes } => Some(&bytes[..*length as usize]),
            Held::Long { length, offset } => Some(&self.arena[*offset..*offset + *length as usize]),
        };
        let wanted = if self.max { Ordering::Greater } else { Ordering::Less };
        if current.is_some_and(|current| value.cmp(current) != wanted) {
            return;
        }
        if let Held::Long { length, .. } = self.best[group] {
            self.dead_bytes += length as usize;
        }
        self.best[group] = if value.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..value.len()].copy_from_slice(value);
            Held::Short { length: value.len() as u8, bytes }
        } else {
            let offset = self.arena.len();
            self.arena.extend_from_slice(value);
            Held::Long { length: value.len() as u32, offset }
        };
        if self.dead_bytes > DEAD_BYTES_MIN && self.dead_bytes * 2 > self.arena.len() {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.dead_bytes);
        for held in &mut self.best {
            if let Held::Long { length, offset } = held {
                let start = arena.len();
                arena.extend_from_slice(&self.arena[*offset..*offset + *length as usize]);
                *offset = start;
            }
        }
        self.arena = arena;
        self.dead_bytes = 0;
    }

    fn update_views<T: ByteViewType>(
        &mut self,
        rows: &Rows,
        values: &GenericByteViewArray<T>,
        position: impl Fn(usize) -> Option<usize>,
    ) {
        for row in 0..rows.rows {
            if let Some(position) = position(row)
                && values.is_valid(position)
            {
                let group = rows.ids.map_or(0, |ids| ids[row] as usize);
                let bytes: &[u8] = values.value(position).as_ref();
                self.offer(group, bytes);
            }
        }
    }
}

impl Accumulator for MinMaxText {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        if self.best.len() < rows.groups {
            self.best.resize(rows.groups, Held::None);
        }
        let mut values = args[0].clone();
        let mut keys = None;
        if let Some(dictionary) = args[0].as_dictionary_opt::<UInt32Type>() {
            keys = Some(dictionary.keys().clone());
            values = dictionary.values().clone();
        }
        if values.data_type() != &self.view_type() {
            values = cast(&values, &self.view_type())?;
        }
        let position = |row: usize| match &keys {
            None => Some(row),
            Some(keys) => keys.is_valid(row).then(|| keys.value(row) as usize),
        };
        if self.text {
            self.update_views(rows, values.as_string_view(), position);
        } else {
            self.update_views(rows, values.as_binary_view(), position);
        }
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.update(rows, states)
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let mut best = std::mem::take(&mut self.best);
        best.resize(groups, Held::None);
        let arena = std::mem::take(&mut self.arena);
        self.dead_bytes = 0;
        let values = best.iter().map(|held| match held {
            Held::None => None,
            Held::Short { length, bytes } => Some(&bytes[..*length as usize]),
            Held::Long { length, offset } => Some(&arena[*offset..*offset + *length as usize]),
        });
        let array: ArrayRef = if self.text {
            let mut builder = StringViewBuilder::with_capacity(groups);
            for value in values {
                let text = value.map(|v| std::str::from_utf8(v).expect("invariant: only strings came in"));
                builder.append_option(text);
            }
            Arc::new(builder.finish())
        } else {
            let mut builder = BinaryViewBuilder::with_capacity(groups);
            values.for_each(|value| builder.append_option(value));
            Arc::new(builder.finish())
        };
        Ok(vec![array])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        _rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        let plain = match args[0].data_type() {
            DataType::Dictionary(_, value) => to_logical(&args[0], value)?,
            _ => args[0].clone(),
        };
        Ok(Some(vec![nulled(&cast(&plain, &self.view_type())?, filter)?]))
    }

    fn memory_bytes(&self) -> usize {
        self.best.capacity() * size_of::<Held>() + self.arena.capacity()
    }
}
