//! From `Expr` to nodes: folds constants, lifts what depends on one string column alone to the column's
//! dictionary, and hands each operator to the file that has its kernels.
//!
//! Folding never fails a query: a constant that cannot be computed (`1 / 0`) stays an expression, and
//! raises its error when a row reaches it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr};

use super::node::{Node, NodeKind};
use super::{
    CompiledExpr, arithmetic, bitwise, boolean, call, case, cast, compare, dictionary, fallible, in_list,
    like, text,
};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

/// Compiles expressions.
#[derive(Clone, Copy)]
pub(super) struct Compiler {
    /// String columns are never dictionaries here: this is already evaluated over dictionary values.
    pub plain: bool,
}

impl Compiler {
    pub fn new() -> Self {
        Compiler { plain: false }
    }

    /// An expression with its own list of columns, so that it touches no others when rows are selected.
    pub fn detached(&self, expr: &Expr) -> Result<CompiledExpr> {
        let columns = expr.columns();
        let mut local = expr.clone();
        local.remap(&|i| columns.binary_search(&i).expect("invariant: columns() lists every column"));
        Ok(CompiledExpr { node: Arc::new(self.node(&local)?), columns: columns.into() })
    }

    /// An expression as a node over the columns of the same batch.
    pub fn node(&self, expr: &Expr) -> Result<Node> {
        match expr {
            Expr::Literal(l) => return Node::constant(l.0.clone()),
            Expr::Column { index, data_type } => {
                return Ok(Node { kind: NodeKind::Column(*index), data_type: data_type.clone() });
            }
            Expr::Parameter { id, .. } => {
                return Err(EngineError::internal(format!("parameter {id} has no value yet")));
            }
            _ => {}
        }
        if let Some(column) = self.liftable(expr) {
            return dictionary::lift(expr, column);
        }
        let node = self.operator(expr)?;
        if expr.columns().is_empty() && !fallible::is_volatile(expr) {
            return Ok(fold(&node).unwrap_or(node));
        }
        Ok(node)
    }

    /// The column, if the expression is a function of one string column and nothing else.
    pub fn liftable(&self, expr: &Expr) -> Option<usize> {
        if self.plain || matches!(expr, Expr::Column { .. }) {
            return None;
        }
        let [column] = expr.columns()[..] else { return None };
        let mut text = true;
        expr.visit(&mut |e| {
            if let Expr::Column { data_type, .. } = e {
                text &= dictionary::is_dictionary_candidate(data_type);
            }
        });
        (text && !fallible::is_volatile(expr)).then_some(column)
    }

    fn operator(&self, expr: &Expr) -> Result<Node> {
        match expr {
            Expr::Column { .. } | Expr::Literal(_) | Expr::Parameter { .. } => self.node(expr),
            Expr::Binary { op, left, right, data_type } => self.binary(expr, *op, left, right, data_type),
            Expr::Not(e) => boolean::not(self.node(e)?),
            Expr::Negate(e) => arithmetic::negate(self.node(e)?),
            Expr::Is { test, expr } => boolean::is(*test, self.node(expr)?),
            Expr::Cast { expr, to, safe } => cast::cast(self.node(expr)?, to, *safe),
            Expr::Case { branches, otherwise, data_type } => {
                case::case(self, branches, otherwise.as_deref(), data_type)
            }
            Expr::InList { expr, list, negated } => {
                let list = list.iter().map(|e| self.node(e)).collect::<Result<Vec<_>>>()?;
                in_list::in_list(self.node(expr)?, list, *negated)
            }
            Expr::Like { expr, pattern, negated, case_insensitive, escape } => {
                like::like(self.node(expr)?, self.node(pattern)?, *negated, *case_insensitive, *escape)
            }
            Expr::Call { function, args, return_field } => call::call(self, function, args, return_field),
        }
    }

    fn binary(
        &self,
        expr: &Expr,
        op: BinaryOp,
        left: &Expr,
        right: &Expr,
        data_type: &DataType,
    ) -> Result<Node> {
        use BinaryOp::*;
        match op {
            And | Or => boolean::connective(self, expr, op),
            Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
                compare::comparison(op, self.node(left)?, self.node(right)?)
            }
            Add | Subtract | Multiply | Divide | Modulo => {
                arithmetic::arithmetic(op, self.node(left)?, self.node(right)?, data_type)
            }
            BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => {
                bitwise::bitwise(op, self.node(left)?, self.node(right)?, data_type)
            }
            Concat => text::concat(self.node(left)?, self.node(right)?, data_type),
            RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => {
                text::regex(op, self.node(left)?, self.node(right)?)
            }
        }
    }
}

/// The node's value as a constant; none if computing it fails.
fn fold(node: &Node) -> Option<Node> {
    let one_row = Batch { columns: vec![], rows: 1 };
    let array = node.evaluate_logical(&one_row).ok()?;
    let scalar = ScalarValue::try_from_array(&array, 0).ok()?;
    let folded = Node::constant(scalar).ok()?;
    (folded.data_type == node.data_type).then_some(folded)
}
