//! Sorts and limits. The optimizer tells a sort below a limit how many rows are wanted.

use datafusion_common::DFSchema;
use datafusion_expr::SortExpr;
use datafusion_expr::logical_plan::{FetchType, Limit as LogicalLimit, SkipType, Sort as LogicalSort};

use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::physical::{Limit, Operator, PhysicalPlan, Sort, SortKey};

impl Lowering<'_> {
    pub(super) fn sort(&mut self, sort: &LogicalSort) -> Result<PhysicalPlan> {
        let input = self.plan(&sort.input)?;
        let keys = self.sort_keys(&sort.expr, sort.input.schema())?;
        let schema = input.schema.clone();
        let fetch = sort.fetch.map(|n| n as u64);
        Ok(node(Operator::Sort(Sort { keys, fetch }), vec![input], &schema))
    }

    pub(super) fn sort_keys(&mut self, keys: &[SortExpr], schema: &DFSchema) -> Result<Vec<SortKey>> {
        keys.iter()
            .map(|k| {
                let expr = self.expr(&k.expr, schema)?;
                Ok(SortKey { expr, descending: !k.asc, nulls_first: k.nulls_first })
            })
            .collect()
    }

    pub(super) fn limit(&mut self, limit: &LogicalLimit) -> Result<PhysicalPlan> {
        let input = self.plan(&limit.input)?;
        let SkipType::Literal(skip) = limit.get_skip_type()? else {
            return Err(not_constant("OFFSET"));
        };
        let FetchType::Literal(fetch) = limit.get_fetch_type()? else {
            return Err(not_constant("LIMIT"));
        };
        let (skip, fetch) = (skip as u64, fetch.map(|n| n as u64));
        // A top-k that hands on no more rows than wanted needs no limit above it.
        if let (Operator::Sort(Sort { fetch: Some(k), .. }), 0, Some(wanted)) = (&input.operator, skip, fetch)
            && *k <= wanted
        {
            return Ok(input);
        }
        let schema = input.schema.clone();
        Ok(node(Operator::Limit(Limit { skip, fetch }), vec![input], &schema))
    }
}

fn not_constant(clause: &str) -> PlanError {
    PlanError::unsupported(format!("{clause} with anything but a number"), "Write the number itself.")
}
