//! Equality with constant strings: one, or a set of them.
//!
//! A view of up to twelve bytes holds the whole string and its length in 128 bits, so equality with a
//! short constant is one integer comparison per row, without a look at the bytes.

use arrow::array::builder::make_view;
use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, StringViewArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use hashbrown::HashSet;

use crate::error::{EngineError, Result};

/// Bytes that a view holds itself.
const INLINE_MAX: usize = 12;
/// Short constants that are compared one by one.
const FEW: usize = 8;

/// The rows that equal a short constant; none if the constant is longer. Null rows answer anything.
pub(super) fn equal_short(texts: &StringViewArray, constant: &str) -> Option<BooleanBuffer> {
    let short = inline_view(constant.as_bytes())?;
    let views = texts.views();
    Some(BooleanBuffer::collect_bool(views.len(), |i| views[i] == short))
}

fn inline_view(bytes: &[u8]) -> Option<u128> {
    (bytes.len() <= INLINE_MAX).then(|| make_view(bytes, 0, 0))
}

/// A set of constant strings.
pub(super) struct TextSet {
    /// All of them as views, if they are few and short.
    short: Option<Vec<u128>>,
    all: HashSet<Box<[u8]>, ahash::RandomState>,
}

impl TextSet {
    /// The set of the strings or byte strings at row 0 of each array.
    pub fn new<'a>(constants: impl IntoIterator<Item = &'a ArrayRef>) -> Option<Self> {
        let all: HashSet<Box<[u8]>, _> =
            constants.into_iter().map(|a| Some(bytes(a)?.into())).collect::<Option<_>>()?;
        let short = match all.len() <= FEW {
            true => all.iter().map(|b| inline_view(b)).collect(),
            false => None,
        };
        Some(TextSet { short, all })
    }

    /// The rows whose strings are in the set. Null rows answer anything.
    pub fn mask(&self, texts: &ArrayRef) -> Result<BooleanBuffer> {
        Ok(match texts.data_type() {
            DataType::Utf8 => self.each(texts.as_string::<i32>()),
            DataType::LargeUtf8 => self.each(texts.as_string::<i64>()),
            DataType::Utf8View => match &self.short {
                Some(short) => {
                    let views = texts.as_string_view().views();
                    BooleanBuffer::collect_bool(views.len(), |i| {
                        short.iter().fold(false, |hit, s| hit | (*s == views[i]))
                    })
                }
                None => self.each(texts.as_string_view()),
            },
            DataType::Binary => self.each(texts.as_binary::<i32>()),
            DataType::LargeBinary => self.each(texts.as_binary::<i64>()),
            DataType::BinaryView => self.each(texts.as_binary_view()),
            other => return Err(EngineError::internal(format!("a set of strings over {other}"))),
        })
    }

    fn each<A>(&self, texts: A) -> BooleanBuffer
    where
        A: ArrayAccessor,
        A::Item: AsRef<[u8]>,
    {
        BooleanBuffer::collect_bool(texts.len(), |i| self.all.contains(texts.value(i).as_ref()))
    }
}

fn bytes(one: &ArrayRef) -> Option<&[u8]> {
    Some(match one.data_type() {
        DataType::Utf8 => one.as_string::<i32>().value(0).as_bytes(),
        DataType::LargeUtf8 => one.as_string::<i64>().value(0).as_bytes(),
        DataType::Utf8View => one.as_string_view().value(0).as_bytes(),
        DataType::Binary => one.as_binary::<i32>().value(0),
        DataType::LargeBinary => one.as_binary::<i64>().value(0),
        DataType::BinaryView => one.as_binary_view().value(0),
        _ => return None,
    })
}
