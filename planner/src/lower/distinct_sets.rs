//! Aggregates with DISTINCT calls that no logical rule has taken apart (several arguments, a FILTER, other calls beside
//! them), so that their groups need not meet in one task.
//!
//! ```text
//! before:  GROUP BY k: count(*), count(DISTINCT a), sum(DISTINCT b) FILTER (WHERE f)
//! after:   rows ─▶ each row once for every set: (k, 0, -, -, ...) (k, 1, a, -, ...) (k, 2 if f, -, b, ...)
//!               ─▶ GROUP BY k, set, a, b: count(*) FILTER (WHERE set = 0)
//!               ─▶ GROUP BY k: max(...) FILTER (WHERE set = 0), count(a) FILTER (WHERE set = 1), ...
//! ```
//!
//! Both groupings are mergeable, so a key that half the rows have is worked on by all tasks, each with some of its
//! values. The price is that rows are repeated, which is why tasks of one process aggregate in one step instead.
//! (DataFusion's `SingleDistinctToGroupBy` does the same for one argument beside sum, min and max.)
//!
//! What always holds: the groups with set 0 are one for each key, and hold the results of the calls without DISTINCT;
//! those of another set are one for each key and distinct argument.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::ScalarValue;

use crate::expr::{BinaryOp, Expr, IsTest};
use crate::physical::{Aggregate, AggregateCall, Operator, PhysicalPlan};
use crate::pipeline::NO_OPERATOR;

/// The set of the calls without DISTINCT.
const PLAIN: i32 = 0;

/// Aggregates that are zero over no rows.
const ZERO_OF_NOTHING: &[&str] = &["count", "regr_count", "approx_distinct"];

/// Aggregates that are null over no rows.
const NULL_OF_NOTHING: &[&str] = &[
    "sum",
    "avg",
    "mean",
    "min",
    "max",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "covar_samp",
    "covar_pop",
    "corr",
];

/// The aggregate in two steps. None if it has no DISTINCT call, or one that cannot be taken apart like this.
pub(super) fn spread(plan: &PhysicalPlan) -> Option<PhysicalPlan> {
    let Operator::Aggregate(aggregate) = &plan.operator else { return None };
    if !can_spread(aggregate) {
        return None;
    }
    let keys = aggregate.group_by.len();
    let mut below = Below { exprs: aggregate.group_by.clone(), keys };
    let uses: Vec<Use> = aggregate.calls.iter().map(|call| below.call(call)).collect();
    let mut sets: Vec<&Use> = vec![];
    for (_, one) in distinct(aggregate, &uses) {
        if !sets.contains(&one) {
            sets.push(one);
        }
    }
    let mut values: Vec<usize> = sets.iter().flat_map(|one| one.columns()).collect();
    values.sort_unstable();
    values.dedup();
    let types: Vec<DataType> = below.exprs.iter().map(Expr::data_type).collect();
    if values.iter().any(|c| types[*c].is_nested()) {
        return None;
    }
    let has_plain = aggregate.calls.iter().any(|call| !call.distinct);
    let mut projections = vec![];
    if has_plain {
        let plain = || aggregate.calls.iter().zip(&uses).filter(|(call, _)| !call.distinct);
        let is_read =
            |c: usize| plain().any(|(_, one)| one.filter == Some(c) || one.columns().any(|a| a == c));
        projections.push(row(&types, keys, set_number(PLAIN), is_read)?);
    }
    for (number, one) in (PLAIN + 1..).zip(&sets) {
        let number = match one.filter {
            None => set_number(number),
            Some(filter) => Expr::Case {
                branches: vec![(Expr::column(filter, DataType::Boolean), set_number(number))],
                otherwise: None,
                data_type: DataType::Int32,
            },
        };
        projections.push(row(&types, keys, number, |c| one.columns().any(|a| a == c))?);
    }
    let mut expanded = types.clone();
    expanded.insert(keys, DataType::Int32);

    let input = plan.inputs[0].clone();
    let input = node(Operator::Project { exprs: below.exprs }, input, fields(&types));
    let input = node(Operator::Expand { projections }, input, fields(&expanded));
    let by_value = |c: usize| Expr::column(c + 1, types[c].clone());
    let group_by: Vec<Expr> = (0..=keys)
        .map(|c| Expr::column(c, expanded[c].clone()))
        .chain(values.iter().map(|c| by_value(*c)))
        .collect();
    let mut inner: Vec<FieldRef> = fields(&group_by.iter().map(Expr::data_type).collect::<Vec<_>>());
    let mut calls = vec![];
    let mut outer = vec![];
    for (call, one) in aggregate.calls.iter().zip(&uses) {
        let of_set = |number| is_set(keys, number);
        if call.distinct {
            let number = PLAIN + 1 + sets.iter().position(|set| *set == one)? as i32;
            let place = |c: &usize| values.iter().position(|v| v == c).map(|at| keys + 1 + at);
            let mut args = vec![];
            for (arg, column) in call.args.iter().zip(&one.args) {
                args.push(match column {
                    Some(c) => Expr::column(place(c)?, types[*c].clone()),
                    None => arg.clone(),
                });
            }
            outer.push(AggregateCall { args, distinct: false, filter: Some(of_set(number)), ..call.clone() });
            continue;
        }
        let args = call.args.iter().zip(&one.args).map(|(arg, c)| c.map_or_else(|| arg.clone(), by_value));
        let filter = match one.filter {
            None => of_set(PLAIN),
            Some(filter) => Expr::Binary {
                op: BinaryOp::And,
                left: Box::new(of_set(PLAIN)),
                right: Box::new(by_value(filter)),
                data_type: DataType::Boolean,
            },
        };
        let result = Expr::column(inner.len(), call.output.data_type().clone());
        inner.push(call.output.clone());
        calls.push(AggregateCall { args: args.collect(), filter: Some(filter), ..call.clone() });
        outer.push(AggregateCall {
            function: the_only(call.output.data_type())?.into(),
            args: vec![result],
            distinct: false,
            filter: Some(of_set(PLAIN)),
            order_by: vec![],
            ignore_nulls: false,
            output: call.output.clone(),
        });
    }
    let grouped = node(Operator::Aggregate(Aggregate { group_by, calls }), input, inner);
    let group_by = (0..keys).map(|c| Expr::column(c, types[c].clone())).collect();
    let aggregated = PhysicalPlan {
        operator: Operator::Aggregate(Aggregate { group_by, calls: outer }),
        inputs: vec![grouped],
        ..plan.clone()
    };
    Some(if keys == 0 { with_zeros(aggregated, aggregate) } else { aggregated })
}

fn can_spread(aggregate: &Aggregate) -> bool {
    let calls = &aggregate.calls;
    let fits = |call: &AggregateCall| match call.distinct {
        true => call.args.iter().any(|a| !matches!(a, Expr::Literal(_))),
        false => {
            let function = call.function.as_str();
            let is_known = ZERO_OF_NOTHING.contains(&function) || NULL_OF_NOTHING.contains(&function);
            the_only(call.output.data_type()).is_some() && (is_known || !aggregate.group_by.is_empty())
        }
    };
    calls.iter().any(|call| call.distinct) && calls.iter().all(|call| call.order_by.is_empty() && fits(call))
}

/// The function that gives back the only value there is of a type.
fn the_only(data_type: &DataType) -> Option<&'static str> {
    use DataType as T;
    match data_type {
        T::Boolean => Some("bool_and"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Date32 | T::Date64 | T::Timestamp(_, _) => Some("max"),
        other => other.is_numeric().then_some("max"),
    }
}

/// What is computed once for all sets: the keys, then what the calls read.
struct Below {
    exprs: Vec<Expr>,
    keys: usize,
}

/// Where a call finds what it reads.
#[derive(Debug, PartialEq)]
struct Use {
    /// By argument; none for a constant, which the function may want to see as such.
    args: Vec<Option<usize>>,
    filter: Option<usize>,
}

impl Use {
    fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.args.iter().flatten().copied()
    }
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

    fn call(&mut self, call: &AggregateCall) -> Use {
        let args = call.args.iter().map(|arg| match (arg, &call.filter) {
            (Expr::Literal(_), _) => None,
            (arg, None) => Some(self.add(arg.clone())),
            // What the filter drops is not computed: it may fail.
            (arg, Some(filter)) => Some(self.add(Expr::Case {
                branches: vec![(filter.clone(), arg.clone())],
                otherwise: None,
                data_type: arg.data_type(),
            })),
        });
        let args = args.collect();
        Use { args, filter: call.filter.clone().map(|f| self.add(f)) }
    }
}

fn distinct<'a>(
    aggregate: &'a Aggregate,
    uses: &'a [Use],
) -> impl Iterator<Item = (&'a AggregateCall, &'a Use)> {
    aggregate.calls.iter().zip(uses).filter(|(call, _)| call.distinct)
}

/// The row of a set: the keys, its number, and of the rest what the set reads.
fn row(types: &[DataType], keys: usize, number: Expr, is_read: impl Fn(usize) -> bool) -> Option<Vec<Expr>> {
    let mut row: Vec<Expr> = (0..keys).map(|c| Expr::column(c, types[c].clone())).collect();
    row.push(number);
    for (c, data_type) in types.iter().enumerate().skip(keys) {
        row.push(match is_read(c) {
            true => Expr::column(c, data_type.clone()),
            false => Expr::literal(ScalarValue::try_from(data_type).ok()?),
        });
    }
    Some(row)
}

fn set_number(number: i32) -> Expr {
    Expr::literal(ScalarValue::Int32(Some(number)))
}

fn is_set(keys: usize, number: i32) -> Expr {
    Expr::Binary {
        op: BinaryOp::Eq,
        left: Box::new(Expr::column(keys, DataType::Int32)),
        right: Box::new(set_number(number)),
        data_type: DataType::Boolean,
    }
}

/// Without keys there is a row even if there was none below: counts in it are zero.
fn with_zeros(plan: PhysicalPlan, aggregate: &Aggregate) -> PhysicalPlan {
    let exprs = aggregate.calls.iter().enumerate().map(|(c, call)| {
        let column = Expr::column(c, call.output.data_type().clone());
        if call.distinct || !ZERO_OF_NOTHING.contains(&call.function.as_str()) {
            return column;
        }
        let zero = ScalarValue::new_zero(call.output.data_type()).ok();
        let is_there = Expr::Is { test: IsTest::NotNull, expr: Box::new(column.clone()) };
        Expr::Case {
            branches: vec![(is_there, column)],
            otherwise: zero.map(|zero| Box::new(Expr::literal(zero))),
            data_type: call.output.data_type().clone(),
        }
    });
    let operator = Operator::Project { exprs: exprs.collect() };
    let (schema, rows_estimate) = (plan.schema.clone(), plan.rows_estimate);
    PhysicalPlan { operator, inputs: vec![plan], schema, id: NO_OPERATOR, rows_estimate }
}

fn node(operator: Operator, input: PhysicalPlan, fields: Vec<FieldRef>) -> PhysicalPlan {
    let rows_estimate = input.rows_estimate;
    let schema = Arc::new(Schema::new(fields));
    PhysicalPlan { operator, inputs: vec![input], schema, id: NO_OPERATOR, rows_estimate }
}

fn fields(types: &[DataType]) -> Vec<FieldRef> {
    let field = |(i, t): (usize, &DataType)| Arc::new(Field::new(format!("c{i}"), t.clone(), true));
    types.iter().enumerate().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Parallelism, Sharing, lower};
    use crate::pipeline::Source;
    use crate::testing;

    /// Whether some group's rows all have to meet in one task.
    fn must_meet(sql: &str, sharing: Sharing) -> bool {
        let query = testing::query(sql, &testing::small()).unwrap();
        let graph = lower(&query, Parallelism { tasks: 4, partitions: 8, sharing }).unwrap().graph;
        let mut branches = graph.stages.iter().flat_map(|s| &s.work.branches);
        branches.any(|b| matches!(b.source, Source::AggregateSingle { .. }))
    }

    #[test]
    fn groups_are_spread_where_tasks_share_nothing() {
        for sql in [
            "SELECT a, count(*), count(DISTINCT b) FROM t GROUP BY a",
            "SELECT count(*), count(DISTINCT b) FROM t",
            "SELECT a, count(DISTINCT b), count(DISTINCT c), avg(f), max(c), bool_or(b > 1) FROM t GROUP BY a",
            "SELECT sum(DISTINCT d) FILTER (WHERE e > DATE '2000-01-01'), count(c) FILTER (WHERE a > 1) FROM t",
            "SELECT a, c, count(DISTINCT b), avg(DISTINCT d) FROM t GROUP BY ROLLUP (a, c)",
        ] {
            assert!(!must_meet(sql, Sharing::Nothing), "{sql}");
            assert!(must_meet(sql, Sharing::Process), "{sql}");
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        for sql in [
            "SELECT a, count(DISTINCT b), string_agg(c, ',' ORDER BY c) FROM t GROUP BY a",
            "SELECT a, count(DISTINCT b), array_agg(c) FROM t GROUP BY a",
            "SELECT a, count(DISTINCT b), count(DISTINCT l) FROM t GROUP BY a",
        ] {
            assert!(must_meet(sql, Sharing::Nothing), "{sql}");
        }
    }
}
