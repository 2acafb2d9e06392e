//! A subplan that several places of a plan read, and that must give all of them the same rows.
//!
//! Unnesting a subquery reads its outer rows twice. Where a second run might give other rows (random(),
//! LIMIT without an order, sums of floats in another order), or costs too much, they stand below this node.
//! No rule looks below it from above, so that its copies stay alike; the physical planner runs the first.

use std::fmt;
use std::sync::Arc;

use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{DFSchemaRef, Result, internal_err};
use datafusion_expr::logical_plan::Extension;
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};

/// One of the places that read a subplan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) struct Once {
    /// The subplan's number, the same in all places.
    pub number: usize,
    pub input: LogicalPlan,
}

impl Once {
    /// The plan, to be cloned, if it should not run twice; otherwise as it was.
    pub(super) fn unless_repeatable(plan: LogicalPlan, number: usize) -> Result<LogicalPlan> {
        if is_repeatable(&plan)? {
            return Ok(plan);
        }
        Ok(Once { number, input: plan }.into_plan())
    }

    pub(super) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

/// The node, if it is of this kind.
pub(crate) fn once(node: &dyn UserDefinedLogicalNode) -> Option<&Once> {
    node.as_any().downcast_ref()
}

/// Does a second run give the same rows, for little more than reading tables?
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let mut repeatable = true;
    plan.apply_with_subqueries(|node| {
        repeatable &= match node {
            LogicalPlan::Limit(_) | LogicalPlan::Window(_) => false,
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => false,
            LogicalPlan::Extension(_) => return Ok(TreeNodeRecursion::Jump),
            other => !other.expressions().iter().any(Expr::is_volatile),
        };
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(repeatable)
}

impl UserDefinedLogicalNodeCore for Once {
    fn name(&self) -> &str {
        "Once"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Once: {}", self.number)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match (inputs.pop(), inputs.is_empty()) {
            (Some(input), true) => Ok(Once { number: self.number, input }),
            _ => internal_err!("a subplan that runs once has one input"),
        }
    }
}
