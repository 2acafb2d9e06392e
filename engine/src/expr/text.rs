//! `||` and the regular expression operators, through Arrow's string kernels.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::compute::kernels::comparison::{regexp_is_match, regexp_is_match_scalar};
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::compute::not;
use arrow::datatypes::DataType;
use dovetail_planner::expr::BinaryOp;

use super::cast;
use super::node::{Kernel, Node};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// `left || right`; null if either is.
pub(super) fn concat(left: Node, right: Node, data_type: &DataType) -> Result<Node> {
    let left = cast::cast(left, data_type, false)?;
    let right = cast::cast(right, data_type, false)?;
    Ok(Node::kernel(Concat { left, right }, data_type.clone()))
}

/// `left ~ right` and its relatives.
pub(super) fn regex(op: BinaryOp, left: Node, right: Node) -> Result<Node> {
    let (negated, case_insensitive) = match op {
        BinaryOp::RegexMatch => (false, false),
        BinaryOp::RegexIMatch => (false, true),
        BinaryOp::RegexNotMatch => (true, false),
        BinaryOp::RegexNotIMatch => (true, true),
        other => return Err(EngineError::internal(format!("{other:?} is no regular expression operator"))),
    };
    let left = string(left)?;
    let right = string(right)?;
    Ok(Node::kernel(Regex { left, right, negated, case_insensitive }, DataType::Boolean))
}

/// The node as one of Arrow's plain string types.
fn string(node: Node) -> Result<Node> {
    match node.data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(node),
        _ => cast::cast(node, &DataType::Utf8View, false),
    }
}

struct Concat {
    left: Node,
    right: Node,
}

impl Kernel for Concat {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        Ok(concat_elements_dyn(&self.left.evaluate_logical(batch)?, &self.right.evaluate_logical(batch)?)?)
    }
}

struct Regex {
    left: Node,
    right: Node,
    negated: bool,
    case_insensitive: bool,
}

impl Kernel for Regex {
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let texts = self.left.evaluate_logical(batch)?;
        let flag = self.case_insensitive.then_some("i");
        let matched = if let Some(pattern) = self.right.as_constant() {
            match (pattern.scalar.try_as_str().flatten(), texts.data_type()) {
                (None, _) => BooleanArray::new_null(texts.len()),
                (Some(p), DataType::Utf8) => regexp_is_match_scalar(texts.as_string::<i32>(), p, flag)?,
                (Some(p), DataType::LargeUtf8) => regexp_is_match_scalar(texts.as_string::<i64>(), p, flag)?,
                (Some(p), _) => regexp_is_match_scalar(texts.as_string_view(), p, flag)?,
            }
        } else {
            let patterns = arrow::compute::cast(&self.right.evaluate_logical(batch)?, texts.data_type())?;
            let flags = flag.map(|f| StringViewArray::from(vec![f; texts.len()]));
            by_row(&texts, &patterns, flags)?
        };
        Ok(Arc::new(if self.negated { not(&matched)? } else { matched }))
    }
}

/// A pattern per text, of the same type.
fn by_row(texts: &ArrayRef, patterns: &ArrayRef, flags: Option<StringViewArray>) -> Result<BooleanArray> {
    let flags = flags.as_ref();
    Ok(match texts.data_type() {
        DataType::Utf8 => regexp_is_match(texts.as_string::<i32>(), patterns.as_string::<i32>(), flags),
        DataType::LargeUtf8 => regexp_is_match(texts.as_string::<i64>(), patterns.as_string::<i64>(), flags),
        _ => regexp_is_match(texts.as_string_view(), patterns.as_string_view(), flags),
    }?)
}
