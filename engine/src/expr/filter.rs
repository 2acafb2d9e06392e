//! Conditions as filters: which rows are true, without an array of Booleans where none is needed.
//!
//! A filter is asked either about all rows of a batch, and answers with a mask, or about listed rows,
//! and strikes out what is not true. Null counts as not true, so NOT is pushed down to the leaves. Leaves are
//! ranges of integers, tables over dictionary codes, and any other expression, evaluated.

use std::sync::Arc;

use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr};

use super::CompiledExpr;
use super::boolean::{boolean, flatten};
use super::compile::Compiler;
use super::dictionary::CodeTable;
use super::fallible::{can_fail, is_volatile};
use super::mask::Mask;
use super::range::Range;
use crate::batch::Batch;
use crate::error::Result;

/// A condition over the rows of a batch.
pub(super) trait Filter: Send + Sync {
    /// The rows for which the condition is true.
    fn mask(&self, batch: &Batch) -> Result<Mask>;

    /// Strikes out the listed rows (ascending) for which the condition is not true.
    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()>;

    /// Can the condition raise an error on some row?
    fn fails(&self) -> bool;

    /// A guess at the cost of a row, in units of comparing an integer.
    fn cost(&self) -> u32;
}

/// Compiles a condition.
pub(super) fn filter(compiler: &Compiler, expr: &Expr) -> Result<Box<dyn Filter>> {
    if let Some(column) = compiler.liftable(expr) {
        return Ok(Box::new(CodeTable::new(expr, column)?));
    }
    if let Some(range) = Range::of(expr) {
        return Ok(Box::new(range));
    }
    match expr {
        Expr::Literal(l) => return Ok(Box::new(Always(l.0 == ScalarValue::Boolean(Some(true))))),
        Expr::Binary { op: BinaryOp::And, .. } => {
            return Ok(Box::new(AllOf(conjuncts(compiler, expr)?)));
        }
        Expr::Binary { op: BinaryOp::Or, .. } => {
            let mut operands = vec![];
            flatten(expr, BinaryOp::Or, &mut operands);
            let mut filters =
                operands.into_iter().map(|e| filter(compiler, e)).collect::<Result<Vec<_>>>()?;
            filters.sort_by_key(|f| (f.fails(), f.cost()));
            return Ok(Box::new(AnyOf(filters)));
        }
        Expr::Not(e) => {
            if let Some(pushed) = negation(e) {
                return filter(compiler, &pushed);
            }
        }
        _ => {}
    }
    Ok(Box::new(Computed {
        expr: compiler.detached(expr)?,
        fails: can_fail(expr) || is_volatile(expr),
        cost: computed_cost(expr),
    }))
}

/// The filters whose conjunction the condition is: what cannot fail first, then cheap before costly, else as written.
pub(super) fn conjuncts(compiler: &Compiler, expr: &Expr) -> Result<Vec<Box<dyn Filter>>> {
    let mut operands = vec![];
    flatten(expr, BinaryOp::And, &mut operands);
    let mut ranges: Vec<Range> = vec![];
    let mut filters: Vec<Box<dyn Filter>> = vec![];
    for operand in operands {
        let Some(range) = Range::of(operand) else {
            match operand {
                // Pushing NOT down may uncover a conjunction.
                Expr::Not(e) if compiler.liftable(operand).is_none() => match negation(e) {
                    Some(pushed) => filters.extend(conjuncts(compiler, &pushed)?),
                    None => filters.push(filter(compiler, operand)?),
                },
                _ => filters.push(filter(compiler, operand)?),
            }
            continue;
        };
        match ranges.iter_mut().find_map(|r| r.and(&range).map(|both| (r, both))) {
            Some((r, both)) => *r = both,
            None => ranges.push(range),
        }
    }
    filters.extend(ranges.into_iter().map(|r| Box::new(r) as Box<dyn Filter>));
    // Among those that can fail, the order of the text is the guard.
    filters.sort_by_key(|f| (f.fails(), if f.fails() { 0 } else { f.cost() }));
    Ok(filters)
}

/// An expression that is true exactly where `expr` is false.
fn negation(expr: &Expr) -> Option<Expr> {
    let not = |e: &Expr| Expr::Not(Box::new(e.clone()));
    Some(match expr {
        Expr::Not(e) => (**e).clone(),
        Expr::Binary { op, left, right, data_type } => {
            let (op, left, right) = match op {
                BinaryOp::And => (BinaryOp::Or, not(left), not(right)),
                BinaryOp::Or => (BinaryOp::And, not(left), not(right)),
                comparison => (opposite(*comparison)?, (**left).clone(), (**right).clone()),
            };
            Expr::Binary { op, left: Box::new(left), right: Box::new(right), data_type: data_type.clone() }
        }
        Expr::InList { expr, list, negated } => {
            Expr::InList { expr: expr.clone(), list: list.clone(), negated: !negated }
        }
        Expr::Like { expr, pattern, negated, case_insensitive, escape } => Expr::Like {
            expr: expr.clone(),
            pattern: pattern.clone(),
            negated: !negated,
            case_insensitive: *case_insensitive,
            escape: *escape,
        },
        _ => return None,
    })
}

fn opposite(op: BinaryOp) -> Option<BinaryOp> {
    use BinaryOp::*;
    Some(match op {
        Eq => NotEq,
        NotEq => Eq,
        Lt => GtEq,
        GtEq => Lt,
        Gt => LtEq,
        LtEq => Gt,
        IsDistinctFrom => IsNotDistinctFrom,
        IsNotDistinctFrom => IsDistinctFrom,
        _ => return None,
    })
}

fn computed_cost(expr: &Expr) -> u32 {
    let mut cost = 0;
    expr.visit(&mut |e| {
        cost += match e {
            Expr::Column { data_type, .. } if data_type.is_primitive() => 1,
            Expr::Column { .. } => 4,
            Expr::Literal(_) => 0,
            Expr::Like { .. } => 20,
            Expr::Call { .. } => 10,
            _ => 2,
        }
    });
    cost
}

/// The cost of comparing two columns of numbers.
const CHEAP: u32 = 4;

/// What is left of a batch's rows while one filter after the other looks at them.
pub(super) enum Candidates {
    All,
    Dense(Mask),
    Sparse(Vec<u32>),
}

impl Candidates {
    /// Number of rows.
    pub fn count(&self, batch: &Batch) -> usize {
        match self {
            Candidates::All => batch.rows,
            Candidates::Dense(mask) => mask.count(),
            Candidates::Sparse(rows) => rows.len(),
        }
    }

    /// Keeps the rows for which the filter is true. A filter that can fail sees no other rows.
    pub fn apply(&mut self, filter: &dyn Filter, batch: &Batch) -> Result<()> {
        *self = match std::mem::replace(self, Candidates::All) {
            Candidates::All => Candidates::Dense(filter.mask(batch)?),
            Candidates::Dense(mut mask) => {
                let count = mask.count();
                // Looking at all rows in order is cheaper than picking some, up to a point.
                let enough = if filter.cost() <= CHEAP { batch.rows / 4 } else { batch.rows / 8 * 7 };
                let worth = count > enough;
                if count == batch.rows || (worth && !filter.fails()) {
                    mask.and(&filter.mask(batch)?);
                    Candidates::Dense(mask)
                } else {
                    let mut rows = mask.into_rows();
                    if !rows.is_empty() {
                        filter.retain(batch, &mut rows)?;
                    }
                    Candidates::Sparse(rows)
                }
            }
            Candidates::Sparse(mut rows) => {
                if !rows.is_empty() {
                    filter.retain(batch, &mut rows)?;
                }
                Candidates::Sparse(rows)
            }
        };
        Ok(())
    }

    fn into_mask(self, rows: usize) -> Mask {
        match self {
            Candidates::All => Mask::all(rows),
            Candidates::Dense(mask) => mask,
            Candidates::Sparse(listed) => Mask::from_rows(&listed, rows),
        }
    }
}

struct Always(bool);

impl Filter for Always {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        Ok(if self.0 { Mask::all(batch.rows) } else { Mask::none(batch.rows) })
    }

    fn retain(&self, _: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        if !self.0 {
            rows.clear();
        }
        Ok(())
    }

    fn fails(&self) -> bool {
        false
    }

    fn cost(&self) -> u32 {
        0
    }
}

/// All filters hold.
struct AllOf(Vec<Box<dyn Filter>>);

impl Filter for AllOf {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        let mut left = Candidates::All;
        for filter in &self.0 {
            left.apply(filter.as_ref(), batch)?;
        }
        Ok(left.into_mask(batch.rows))
    }

    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        for filter in &self.0 {
            if rows.is_empty() {
                break;
            }
            filter.retain(batch, rows)?;
        }
        Ok(())
    }

    fn fails(&self) -> bool {
        self.0.iter().any(|f| f.fails())
    }

    fn cost(&self) -> u32 {
        self.0.iter().map(|f| f.cost()).sum()
    }
}

/// Some filter holds.
struct AnyOf(Vec<Box<dyn Filter>>);

impl Filter for AnyOf {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        let mut found = Mask::none(batch.rows);
        for (i, filter) in self.0.iter().enumerate() {
            let open = batch.rows - found.count();
            if open == 0 {
                break;
            }
            if i > 0 && open < batch.rows && (filter.fails() || open < batch.rows / 4) {
                let mut rest = found.clone();
                rest.invert();
                let mut rows = rest.into_rows();
                filter.retain(batch, &mut rows)?;
                found.or(&Mask::from_rows(&rows, batch.rows));
            } else {
                found.or(&filter.mask(batch)?);
            }
        }
        Ok(found)
    }

    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        let mut found = Mask::none(batch.rows);
        let mut open = rows.clone();
        for filter in &self.0 {
            if open.is_empty() {
                break;
            }
            let mut hits = open.clone();
            filter.retain(batch, &mut hits)?;
            found.or(&Mask::from_rows(&hits, batch.rows));
            open.retain(|&r| !found.get(r as usize));
        }
        rows.retain(|&r| found.get(r as usize));
        Ok(())
    }

    fn fails(&self) -> bool {
        self.0.iter().any(|f| f.fails())
    }

    fn cost(&self) -> u32 {
        self.0.iter().map(|f| f.cost()).sum()
    }
}

/// Any expression, evaluated.
struct Computed {
    expr: CompiledExpr,
    fails: bool,
    cost: u32,
}

impl Filter for Computed {
    fn mask(&self, batch: &Batch) -> Result<Mask> {
        Ok(Mask::from_boolean(&boolean(self.expr.evaluate_array(batch)?)?))
    }

    fn retain(&self, batch: &Batch, rows: &mut Vec<u32>) -> Result<()> {
        let listed = Arc::new(std::mem::take(rows).into());
        let hits = Mask::from_boolean(&boolean(self.expr.evaluate_rows(batch, &listed)?)?);
        *rows = hits.into_rows().into_iter().map(|i| listed.value(i as usize)).collect();
        Ok(())
    }

    fn fails(&self) -> bool {
        self.fails
    }

    fn cost(&self) -> u32 {
        self.cost
    }
}
