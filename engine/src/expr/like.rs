//! `[NOT] [I]LIKE`. Constant patterns are parsed once and searched for; patterns that differ by row, and
//! those that ignore case, go through Arrow's kernels, rewritten if ESCAPE is not the backslash.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, AsArray, BooleanArray, Scalar, StringArrayType, StringViewArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::comparison::{ilike, like as arrow_like};
use arrow::compute::not;
use arrow::datatypes::DataType;

use super::cast;
use super::like_pattern::{Pattern, matches_pieces, matches_tokens, tokens, with_backslashes};
use super::node::{Kernel, Node, Value};
use crate::batch::Batch;
use crate::error::Result;

const BACKSLASH: char = '\\';

/// `text [NOT] [I]LIKE pattern [ESCAPE escape]`.
pub(super) fn like(
    text: Node,
    pattern: Node,
    negated: bool,
    case_insensitive: bool,
    escape: Option<char>,
) -> Result<Node> {
    let text = string(text)?;
    let pattern = string(pattern)?;
    let escape = escape.unwrap_or(BACKSLASH);
    let constant = pattern.as_constant().and_then(|c| c.scalar.try_as_str());
    let search = match constant {
        Some(None) => Search::Null,
        Some(Some(p)) if !case_insensitive => Search::Pattern(Pattern::new(p, escape)),
        Some(Some(p)) => Search::IgnoreCase(with_backslashes(&tokens(p, escape))),
        None => Search::ByRow { pattern, case_insensitive, escape },
    };
    Ok(Node::kernel(Like { text, search, negated }, DataType::Boolean))
}

/// The node as one of the string types.
fn string(node: Node) -> Result<Node> {
    match node.data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(node),
        _ => cast::cast(node, &DataType::Utf8View, false),
    }
}

enum Search {
    Null,
    Pattern(Pattern),
    /// Escaped by backslashes.
    IgnoreCase(String),
    ByRow {
        pattern: Node,
        case_insensitive: bool,
        escape: char,
    },
}

struct Like {
    text: Node,
    search: Search,
    negated: bool,
}

impl Kernel for Like {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let text = self.text.evaluate_logical(batch)?;
        let matched = match &self.search {
            Search::Null => BooleanArray::new_null(batch.rows),
            Search::Pattern(pattern) => match text.data_type() {
                DataType::Utf8 => search(text.as_string::<i32>(), pattern),
                DataType::LargeUtf8 => search(text.as_string::<i64>(), pattern),
                _ => search(text.as_string_view(), pattern),
            },
            Search::IgnoreCase(pattern) => {
                let one: ArrayRef = Arc::new(StringViewArray::from(vec![pattern.as_str()]));
                let one = arrow::compute::cast(&one, text.data_type())?;
                ilike(&text, &Scalar::new(one))?
            }
            Search::ByRow { pattern, case_insensitive, escape } => {
                let patterns = rewritten(pattern.logical_value(batch)?, *escape)?;
                let patterns = patterns.map(|p| Ok(arrow::compute::cast(p, text.data_type())?))?;
                if *case_insensitive { ilike(&text, &patterns)? } else { arrow_like(&text, &patterns)? }
            }
        };
        Ok(Arc::new(if self.negated { not(&matched)? } else { matched }))
    }
}

/// Patterns as Arrow's kernels read them.
fn rewritten(patterns: Value, escape: char) -> Result<Value> {
    if escape == BACKSLASH {
        return Ok(patterns);
    }
    patterns.map(|p| {
        let p = arrow::compute::cast(p, &DataType::Utf8View)?;
        let texts = p.as_string_view().iter().map(|p| p.map(|p| with_backslashes(&tokens(p, escape))));
        Ok(Arc::new(texts.collect::<StringViewArray>()) as ArrayRef)
    })
}

fn search<'a, S>(texts: S, pattern: &Pattern) -> BooleanArray
where
    S: StringArrayType<'a>,
{
    match pattern {
        Pattern::Exact(p) => each(texts, |t| t.as_bytes() == p),
        Pattern::Prefix(p) => each(texts, |t| t.as_bytes().starts_with(p)),
        Pattern::Suffix(p) => each(texts, |t| t.as_bytes().ends_with(p)),
        Pattern::Contains(finder) => each(texts, |t| finder.find(t.as_bytes()).is_some()),
        Pattern::Pieces { prefix, middles, suffix } => {
            each(texts, |t| matches_pieces(t.as_bytes(), prefix, middles, suffix))
        }
        Pattern::General(tokens) => each(texts, |t| matches_tokens(t, tokens)),
    }
}

#[inline(always)]
fn each<'a, S>(texts: S, test: impl Fn(&'a str) -> bool) -> BooleanArray
where
    S: ArrayAccessor<Item = &'a str>,
{
    let values = BooleanBuffer::collect_bool(texts.len(), |i| test(texts.value(i)));
    BooleanArray::new(values, texts.nulls().cloned())
}
