//! `expr [NOT] IN (list)`.
//!
//! A list of constants becomes a set: bits where integers lie close together, a few comparisons where they are
//! few, else a hash set. Any other list is compared one by one. Null if `expr` is null, and if nothing
//! matches while the list holds a null.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::boolean::{not, or_kleene};
use arrow::datatypes::*;
use hashbrown::HashSet;

use super::cast;
use super::compare::{Op, compare};
use super::dictionary::is_dictionary_candidate;
use super::mask::Mask;
use super::node::{Kernel, Node, Value};
use super::range::{digits, with_integers};
use super::text_set::TextSet;
use crate::batch::{Batch, to_logical};
use crate::error::{EngineError, Result};

/// `expr [NOT] IN (list)`.
pub(super) fn in_list(expr: Node, list: Vec<Node>, negated: bool) -> Result<Node> {
    let kernel = match Set::of(&expr, &list) {
        Some(set) => {
            let null = list.iter().any(|n| n.as_constant().is_some_and(|c| c.scalar.is_null()));
            Node::kernel(Member { expr, set, null, negated }, DataType::Boolean)
        }
        None => {
            let list = list
                .into_iter()
                .map(|n| if n.data_type.is_nested() { Ok(n) } else { cast::cast(n, &expr.data_type, false) })
                .collect::<Result<_>>()?;
            Node::kernel(OneByOne { expr, list, negated }, DataType::Boolean)
        }
    };
    Ok(kernel)
}

enum Set {
    Integers(IntegerSet),
    Texts(TextSet),
}

impl Set {
    /// None if the list is not of constants, or of a type without sets.
    fn of(expr: &Node, list: &[Node]) -> Option<Set> {
        let constants = list.iter().map(|n| n.as_constant()).collect::<Option<Vec<_>>>()?;
        let present = || constants.iter().filter(|c| !c.scalar.is_null());
        if is_dictionary_candidate(&expr.data_type) {
            return TextSet::new(present().map(|c| &c.array)).map(Set::Texts);
        }
        if present().any(|c| c.array.data_type() != &expr.data_type) {
            return None;
        }
        let all = present().map(|c| digits(&c.scalar)).collect::<Option<Vec<_>>>()?;
        // A constant beyond 64 bits is no element of a column that fits in them, but of others it is.
        let wide = all.iter().any(|v| i64::try_from(*v).is_err());
        if wide && !expr.data_type.is_unsigned_integer() {
            return None;
        }
        let known = expr.data_type.is_primitive() && !expr.data_type.is_floating();
        (known && !all.is_empty())
            .then(|| Set::Integers(IntegerSet::new(all.iter().map(|v| *v as i64).collect())))
    }
}

/// A set of integers of up to 64 bits; unsigned ones by their bit pattern.
enum IntegerSet {
    Few(Vec<i64>),
    /// Bit `v - min` for each `v`.
    Bits {
        min: i64,
        words: Vec<u64>,
    },
    Hashed(HashSet<i64, ahash::RandomState>),
}

/// Integers that are compared one by one.
const FEW: usize = 4;
/// Bits of a set that stays in the first-level cache.
const SPAN_MAX: u64 = 1 << 16;

impl IntegerSet {
    fn new(mut all: Vec<i64>) -> Self {
        all.sort_unstable();
        all.dedup();
        let (min, max) = (all[0], all[all.len() - 1]);
        let span = max.wrapping_sub(min) as u64;
        if all.len() <= FEW {
            IntegerSet::Few(all)
        } else if span < SPAN_MAX {
            let mut words = vec![0; span as usize / 64 + 1];
            for v in all {
                let bit = v.wrapping_sub(min) as usize;
                words[bit / 64] |= 1 << (bit % 64);
            }
            IntegerSet::Bits { min, words }
        } else {
            IntegerSet::Hashed(all.into_iter().collect())
        }
    }

    /// The positions of a slice whose values are in the set.
    fn mask<T: Copy>(&self, values: &[T], as_i64: impl Fn(T) -> Option<i64>) -> BooleanBuffer {
        let at = |i: usize| as_i64(values[i]);
        match self {
            IntegerSet::Few(few) => BooleanBuffer::collect_bool(values.len(), |i| {
                at(i).is_some_and(|v| few.iter().fold(false, |hit, f| hit | (*f == v)))
            }),
            IntegerSet::Bits { min, words } => BooleanBuffer::collect_bool(values.len(), |i| {
                at(i).is_some_and(|v| {
                    let bit = v.wrapping_sub(*min) as u64;
                    words.get((bit / 64) as usize).is_some_and(|w| w >> (bit % 64) & 1 == 1)
                })
            }),
            IntegerSet::Hashed(set) => {
                BooleanBuffer::collect_bool(values.len(), |i| at(i).is_some_and(|v| set.contains(&v)))
            }
        }
    }
}

/// An integer as the 64 bits that [`IntegerSet`] compares.
trait Bits64: Copy {
    fn bits(self) -> Option<i64>;
}

macro_rules! bits64 {
    ($($t:ty),*) => {$(
        impl Bits64 for $t {
            #[inline(always)]
            fn bits(self) -> Option<i64> {
                Some(self as i64)
            }
        }
    )*};
}
bits64!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Bits64 for i128 {
    #[inline(always)]
    fn bits(self) -> Option<i64> {
        i64::try_from(self).ok()
    }
}

struct Member {
    expr: Node,
    set: Set,
    /// The list holds a null.
    null: bool,
    negated: bool,
}

impl Kernel for Member {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let array = self.expr.evaluate(batch)?;
        let found = match &self.set {
            Set::Integers(set) => with_integers!(
                array,
                values => set.mask(values, Bits64::bits),
                else return Err(EngineError::internal(format!("IN over {}", array.data_type())))
            ),
            Set::Texts(set) => set.mask(&to_logical(&array, &self.expr.data_type)?)?,
        };
        let mut known = array.logical_nulls();
        if self.null {
            // Not found among the others may be found among the unknown.
            let found_valid = BooleanArray::new(found.clone(), known);
            let hits = Mask::from_boolean(&found_valid);
            known = Some(BooleanBuffer::collect_bool(array.len(), |i| hits.get(i)).into());
        }
        let values = if self.negated { !&found } else { found };
        Ok(Arc::new(BooleanArray::new(values, known)))
    }
}

struct OneByOne {
    expr: Node,
    list: Vec<Node>,
    negated: bool,
}

impl Kernel for OneByOne {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let value = Value::Array(self.expr.evaluate(batch)?);
        let mut found = BooleanArray::new(BooleanBuffer::new_unset(batch.rows), None);
        for item in &self.list {
            let equal = compare(Op::Eq, &value, &self.expr.data_type, &item.value(batch)?, &item.data_type)?;
            found = or_kleene(&found, &equal)?;
        }
        Ok(Arc::new(if self.negated { not(&found)? } else { found }))
    }
}
