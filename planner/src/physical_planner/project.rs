//! Projections and filters.
//!
//! A projection of plain columns costs nothing where the operator below can pick its output columns
//! itself (scans, joins), so it is folded into that; one above another projection picks from it.

use datafusion_expr::{Filter, Projection};

use super::{Lowering, node};
use crate::error::Result;
use crate::expr::{BinaryOp, Expr};
use crate::functions::functions;
use crate::physical::{Operator, PhysicalPlan};

impl Lowering<'_> {
    pub(super) fn projection(&mut self, projection: &Projection) -> Result<PhysicalPlan> {
        let input = self.plan(&projection.input)?;
        let schema = projection.schema.inner();
        let exprs = projection
            .expr
            .iter()
            .map(|e| self.expr(e, projection.input.schema()))
            .collect::<Result<Vec<_>>>()?;
        Ok(project(input, exprs, schema))
    }

    pub(super) fn filter(&mut self, filter: &Filter) -> Result<PhysicalPlan> {
        let input = self.plan(&filter.input)?;
        let predicate = self.expr(&filter.predicate, filter.input.schema())?;
        Ok(filtered(input, predicate))
    }
}

/// Expressions over an input, folded into it where it picks columns anyway.
pub(super) fn project(
    mut input: PhysicalPlan,
    exprs: Vec<Expr>,
    schema: &arrow::datatypes::SchemaRef,
) -> PhysicalPlan {
    let picked: Option<Vec<usize>> = exprs
        .iter()
        .map(|e| match e {
            Expr::Column { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    let Some(picked) = picked else {
        return node(Operator::Project { exprs }, vec![input], schema);
    };
    let identity = picked.iter().copied().eq(0..input.schema.fields().len());
    let output = match &mut input.operator {
        _ if identity => return input.renamed(schema),
        Operator::Scan(scan) => &mut scan.output,
        Operator::HashJoin(join) => &mut join.output,
        Operator::NestedLoopJoin(join) => &mut join.output,
        Operator::Project { exprs: below } => {
            let exprs = picked.iter().map(|i| below[*i].clone()).collect();
            let below = input.inputs.pop().expect("invariant: a projection has an input");
            return project(below, exprs, schema);
        }
        _ => return node(Operator::Project { exprs }, vec![input], schema),
    };
    *output = picked.iter().map(|i| output[*i]).collect();
    input.renamed(schema)
}

/// The rows of an input for which a predicate holds. A scan applies it itself.
pub(super) fn filtered(mut input: PhysicalPlan, mut predicate: Expr) -> PhysicalPlan {
    let schema = input.schema.clone();
    match &mut input.operator {
        // A volatile predicate is asked once a row, not once a dictionary entry.
        Operator::Scan(scan) if scan.limit.is_none() && !is_volatile(&predicate) => {
            let output = scan.output.clone();
            predicate.remap(&|i| output[i]);
            split_and(predicate, &mut scan.filters);
            input
        }
        Operator::Filter { predicate: below } if !is_volatile(below) => {
            let both = and(below.clone(), predicate);
            let below = input.inputs.pop().expect("invariant: a filter has an input");
            node(Operator::Filter { predicate: both }, vec![below], &schema)
        }
        _ => node(Operator::Filter { predicate }, vec![input], &schema),
    }
}

/// Both.
pub(super) fn and(left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op: BinaryOp::And,
        left: Box::new(left),
        right: Box::new(right),
        data_type: arrow::datatypes::DataType::Boolean,
    }
}

fn split_and(predicate: Expr, into: &mut Vec<Expr>) {
    match predicate {
        Expr::Binary { op: BinaryOp::And, left, right, .. } => {
            split_and(*left, into);
            split_and(*right, into);
        }
        other => into.push(other),
    }
}

/// Whether the expression may give another value for the same input.
pub(super) fn is_volatile(expr: &Expr) -> bool {
    let mut volatile = false;
    expr.visit(&mut |e| {
        if let Expr::Call { function, .. } = e {
            volatile |= functions().is_volatile(function);
        }
    });
    volatile
}
