//! GROUPING SETS, ROLLUP and CUBE: every input row is repeated once per set, with the keys that the set
//! leaves out as nulls, and a number that says which set it is for; then rows are grouped by all keys and
//! that number.
//!
//! The number (`__grouping_id`) is DataFusion's: bit `i` from the right is set if the `i`-th key from the
//! right is left out; bits above the keys count earlier occurrences of the same set.
//!
//! The empty set is a grand total, which has a row even if the input has none. So that its group exists, a
//! row of nulls is put beside the input. Aggregates that pass over nulls do not see it; the others get a
//! FILTER that keeps it out.

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::{Expr as LogicalExpr, GroupingSet};
use std::sync::Arc;

use super::project::project;
use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::expr::{Expr, IsTest};
use crate::physical::{Aggregate, AggregateCall, Operator, PhysicalPlan, Values};

/// Aggregates whose result a row of null arguments does not change.
const PASS_OVER_NULLS: &[&str] = &[
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "median",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "string_agg",
    "approx_distinct",
    "approx_median",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

impl Lowering<'_> {
    pub(super) fn grouping_sets(
        &mut self,
        sets: &GroupingSet,
        calls: Vec<AggregateCall>,
        input: PhysicalPlan,
        input_schema: &DFSchema,
        schema: &SchemaRef,
    ) -> Result<PhysicalPlan> {
        let distinct = sets.distinct_expr();
        let keys = distinct.iter().map(|e| self.expr(e, input_schema)).collect::<Result<Vec<_>>>()?;
        let members = members(sets, &distinct)?;
        let id_type = schema.field(keys.len()).data_type().clone();
        let grand_total = members.iter().any(Vec::is_empty);

        // Below: keys, then whatever the calls read, computed once instead of once per set.
        let mut below = Below { exprs: keys.clone(), keys: keys.len() };
        let marker = grand_total.then(|| below.add(Expr::literal(ScalarValue::Boolean(Some(true)))));
        let calls: Vec<AggregateCall> =
            calls.into_iter().map(|call| below.call(call, marker.map(|m| m + 1))).collect();
        let types: Vec<DataType> = below.exprs.iter().map(Expr::data_type).collect();
        let below_schema = columns_schema("c", &types, true);
        let input = project(input, below.exprs, &below_schema);

        // Repeated: keys or nulls, the set's number, the rest.
        let mut projections = vec![];
        let mut totals = vec![];
        let mut earlier: Vec<(u64, u64)> = vec![];
        for set in &members {
            let mask = (0..keys.len())
                .filter(|k| !set.contains(k))
                .fold(0u64, |mask, k| mask | 1 << (keys.len() - 1 - k));
            let ordinal = match earlier.iter_mut().find(|(m, _)| *m == mask) {
                Some((_, n)) => {
                    *n += 1;
                    *n
                }
                None => {
                    earlier.push((mask, 0));
                    0
                }
            };
            let id =
                Expr::literal(ScalarValue::UInt64(Some(ordinal << keys.len() | mask)).cast_to(&id_type)?);
            let mut row = vec![];
            for (k, data_type) in types.iter().enumerate().take(keys.len()) {
                row.push(match set.contains(&k) {
                    true => Expr::column(k, data_type.clone()),
                    false => null(data_type)?,
                });
            }
            row.push(id.clone());
            row.extend((keys.len()..types.len()).map(|c| Expr::column(c, types[c].clone())));
            projections.push(row);
            if set.is_empty() {
                let mut row = vec![];
                for (c, data_type) in types.iter().enumerate() {
                    if c == keys.len() {
                        row.push(id.clone());
                    }
                    row.push(null(data_type)?);
                }
                totals.push(row);
            }
        }
        let mut expanded: Vec<DataType> = types.clone();
        expanded.insert(keys.len(), id_type);
        let expanded_schema = columns_schema("c", &expanded, true);
        let mut plan = node(Operator::Expand { projections }, vec![input], &expanded_schema);
        if grand_total {
            let rows = node(Operator::Values(Values { rows: totals }), vec![], &expanded_schema);
            plan = node(Operator::Union, vec![plan, rows], &expanded_schema);
        }
        let group_by = (0..=keys.len()).map(|c| Expr::column(c, expanded[c].clone())).collect();
        Ok(node(Operator::Aggregate(Aggregate { group_by, calls }), vec![plan], schema))
    }
}

/// The expressions that are computed below the repetition. In the repeated rows they stand one place
/// further on, behind the set's number.
struct Below {
    exprs: Vec<Expr>,
    /// The first so many are group keys, which the repetition nulls; what an aggregate reads it must not.
    keys: usize,
}

impl Below {
    fn add(&mut self, expr: Expr) -> usize {
        match self.exprs[self.keys..].iter().position(|e| *e == expr) {
            Some(at) => self.keys + at,
            None => {
                self.exprs.push(expr);
                self.exprs.len() - 1
            }
        }
    }

    fn call(&mut self, mut call: AggregateCall, marker: Option<usize>) -> AggregateCall {
        let marker = marker.map(|m| Expr::column(m, DataType::Boolean));
        let constant = call.args.iter().all(|a| matches!(a, Expr::Literal(_)));
        for arg in call.args.iter_mut().chain(call.order_by.iter_mut().map(|k| &mut k.expr)) {
            // A constant may be one that the function wants to see as such, e.g. a percentile.
            if !matches!(arg, Expr::Literal(_)) {
                let data_type = arg.data_type();
                *arg = Expr::column(self.add(arg.clone()) + 1, data_type);
            }
        }
        if let Some(filter) = &mut call.filter {
            *filter = Expr::column(self.add(filter.clone()) + 1, DataType::Boolean);
            return call;
        }
        if let Some(marker) = marker {
            if constant && call.function == "count" && !call.distinct {
                call.args = vec![marker];
            } else if constant || !PASS_OVER_NULLS.contains(&call.function.as_str()) {
                call.filter = Some(Expr::Is { test: IsTest::NotNull, expr: Box::new(marker) });
            }
        }
        call
    }
}

/// For each set, the positions of its keys among all.
fn members(sets: &GroupingSet, distinct: &[&LogicalExpr]) -> Result<Vec<Vec<usize>>> {
    let position = |e: &LogicalExpr| {
        distinct
            .iter()
            .position(|d| *d == e)
            .ok_or_else(|| PlanError::internal("a grouping set with an unknown key"))
    };
    match sets {
        GroupingSet::Rollup(exprs) => {
            let all = exprs.iter().map(position).collect::<Result<Vec<_>>>()?;
            Ok((0..=all.len()).rev().map(|n| all[..n].to_vec()).collect())
        }
        GroupingSet::Cube(exprs) => {
            let all = exprs.iter().map(position).collect::<Result<Vec<_>>>()?;
            let n = all.len();
            if n > 12 {
                return Err(PlanError::unsupported("CUBE of more than 12 keys", "Use GROUPING SETS."));
            }
            let set = |bits: u32| (0..n).filter(|i| bits & (1 << (n - 1 - i)) != 0).map(|i| all[i]).collect();
            Ok((0..1u32 << n).rev().map(set).collect())
        }
        GroupingSet::GroupingSets(sets) => {
            sets.iter().map(|set| set.iter().map(position).collect()).collect()
        }
    }
}

fn null(data_type: &DataType) -> Result<Expr> {
    Ok(Expr::literal(ScalarValue::try_from(data_type)?))
}

fn columns_schema(prefix: &str, types: &[DataType], nullable: bool) -> SchemaRef {
    let fields: Fields = types
        .iter()
        .enumerate()
        .map(|(i, t)| Field::new(format!("{prefix}{i}"), t.clone(), nullable))
        .collect();
    Arc::new(Schema::new(fields))
}
