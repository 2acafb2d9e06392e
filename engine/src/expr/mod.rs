//! Evaluates scalar expressions over batches.
//!
//! ```text
//! planner::expr::Expr ─ compile ─▶ CompiledExpr ─ evaluate(batch) ─▶ one value per row
//!                       Predicate::compile ─▶ Predicate ─ select(batch) ─▶ row numbers
//! ```
//!
//! Compiling resolves functions, folds constants and chooses kernels, once per operator; evaluating
//! runs whole-column kernels, never row by row through dynamic dispatch.
//!
//! What always holds:
//! - Three-valued logic. Integer and decimal overflow and division by zero are errors; floats follow
//!   IEEE 754, except that they compare in total order with -0 equal to 0.
//! - A branch of CASE, and a later operand of AND and OR, is evaluated only on rows that reach it, if it
//!   can fail. A predicate never runs a conjunct that can fail before one that cannot.
//! - Kernels take columns in any physical form of their logical type (see [`crate::batch`]) and may
//!   return another form of theirs: products of Decimal64 stay Decimal64 while they fit, a function of
//!   one dictionary column is evaluated once per dictionary value. Dictionaries that leave here hold
//!   distinct values.

mod arithmetic;
mod bitwise;
mod boolean;
mod call;
mod case;
mod cast;
mod compare;
mod compile;
mod date_part;
mod decimal;
mod dictionary;
mod fallible;
mod filter;
mod in_list;
mod like;
mod like_pattern;
mod mask;
mod node;
mod predicate;
mod range;
mod scatter;
mod temporal;
mod text;
mod text_set;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::datatypes::DataType;
use dovetail_planner::expr::Expr;

use crate::batch::{Batch, Column};
use crate::error::{EngineError, Result};
use compile::Compiler;
use node::Node;

pub(crate) use fallible::{can_fail, is_volatile};
pub use predicate::Predicate;

/// An expression, ready to be evaluated over batches. Clones share everything.
#[derive(Clone)]
pub struct CompiledExpr {
    node: Arc<Node>,
    /// Positions in the batch of the columns that `node` knows as 0, 1, ...
    columns: Arc<[usize]>,
}

/// Compiles an expression. Parameters must have been bound.
pub fn compile(expr: &Expr) -> Result<CompiledExpr> {
    Compiler::new().detached(expr)
}

impl CompiledExpr {
    /// The logical type of the values.
    pub fn data_type(&self) -> &DataType {
        &self.node.data_type
    }

    /// One value per row, in a physical form of [`CompiledExpr::data_type`]. A bare column is handed on as
    /// it is, not gathered.
    pub fn evaluate(&self, batch: &Batch) -> Result<Column> {
        if batch.rows == 0 {
            return Ok(Column::new(new_empty_array(self.data_type())));
        }
        if let Some(local) = self.node.column() {
            return Ok(self.input(batch)?.columns.swap_remove(local));
        }
        Ok(Column::new(self.node.evaluate(&self.input(batch)?)?))
    }

    /// As [`CompiledExpr::evaluate`], gathered.
    pub fn evaluate_array(&self, batch: &Batch) -> Result<ArrayRef> {
        self.evaluate(batch)?.values()
    }

    /// The values of some rows only; nothing is computed for the others.
    pub(crate) fn evaluate_rows(&self, batch: &Batch, rows: &Arc<UInt32Array>) -> Result<ArrayRef> {
        if rows.is_empty() {
            return Ok(new_empty_array(self.data_type()));
        }
        self.node.evaluate(&self.input(batch)?.select(rows))
    }

    fn input(&self, batch: &Batch) -> Result<Batch> {
        pick(batch, &self.columns)
    }
}

impl std::fmt::Debug for CompiledExpr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CompiledExpr({} over {:?})", self.data_type(), self.columns)
    }
}

/// The batch's columns at some positions.
fn pick(batch: &Batch, columns: &[usize]) -> Result<Batch> {
    let columns = columns
        .iter()
        .map(|&i| {
            batch.columns.get(i).cloned().ok_or_else(|| {
                EngineError::internal(format!(
                    "an expression reads column {i} of a batch with {}",
                    batch.columns.len()
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Batch { columns, rows: batch.rows })
}
