//! Two of DataFusion's rules, kept from joins for which two nulls are equal.
//!
//! `IS NOT DISTINCT FROM` makes such a join, and so do correlated subqueries. A join has one setting for all
//! of its keys. The rule that makes keys of equalities adds them to the join's keys, and the rule that takes
//! cross joins apart puts the keys of several joins together; either would compare nulls in the wrong way.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{JoinType, NullEquality, Result};
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::optimizer::ApplyOrder;
use datafusion_optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

/// DataFusion's optimizer, with the two rules replaced.
pub(super) fn optimizer() -> Optimizer {
    let rules = Optimizer::new().rules.into_iter().map(|rule| match rule.name() {
        "extract_equijoin_predicate" => Arc::new(EqualityKeys::default()) as Arc<_>,
        "eliminate_cross_join" => Arc::new(CrossJoins::default()) as Arc<_>,
        _ => rule,
    });
    Optimizer::with_rules(rules.collect())
}

/// Equalities as keys, of joins whose keys are equalities.
#[derive(Debug, Default)]
struct EqualityKeys(ExtractEquijoinPredicate);

impl OptimizerRule for EqualityKeys {
    fn name(&self) -> &str {
        "extract_equijoin_predicate"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if !join.on.is_empty() && is_null_safe(join.null_equality) => {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Cross joins taken apart, in plans where all inner joins compare alike.
#[derive(Debug, Default)]
struct CrossJoins(EliminateCrossJoin);

impl OptimizerRule for CrossJoins {
    fn name(&self) -> &str {
        "eliminate_cross_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let null_safe = plan.exists(|node| {
            Ok(matches!(node, LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && is_null_safe(join.null_equality)))
        })?;
        if null_safe {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

fn is_null_safe(equality: NullEquality) -> bool {
    equality == NullEquality::NullEqualsNull
}
