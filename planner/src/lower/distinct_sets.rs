//! Aggregates with DISTINCT calls that no logical rule has taken apart (several arguments, a FILTER, calls beside them
//! other than sum, min and max), where tasks share nothing: so that the rows of a group need not meet in one task.
//!
//! ```text
//! GROUP BY k: count(*), count(DISTINCT a), sum(DISTINCT b)
//!
//! rows, kept ─┬─ GROUP BY k: count(*) ────────────────────────┐
//!             ├─ GROUP BY k, a ── GROUP BY k: count(a) ───────┼─ UNION ALL ── GROUP BY k: the only value of each
//!             └─ GROUP BY k, b ── GROUP BY k: sum(b) ─────────┘
//! ```
//!
//! Each grouping is mergeable: a key that half of the rows have is worked on by all tasks, and what goes between
//! workers is groups instead of rows. (DataFusion's `SingleDistinctToGroupBy` does the same for one argument. Repeating
//! each row for each argument, as in Spark, took four times as long.)
//!
//! What always holds: every branch of the union has a row for every key, and each result is in one branch.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::ScalarValue;

use super::{Lowering, Open, Sharing, push_edge};
use crate::Result;
use crate::expr::Expr;
use crate::graph::{Edge, EdgeKind};
use crate::physical::{Aggregate, AggregateCall, PhysicalPlan};
use crate::pipeline::{Branch, NO_OPERATOR, Sink, Source, Transform};

/// Aggregates to which a null is as good as no row.
const PASS_OVER_NULLS: &[&str] = &["count", "sum", "avg", "min", "max"];

impl Lowering<'_> {
    /// The stages of an aggregate that is taken apart. None if it is not.
    pub(super) fn distinct_sets(
        &mut self,
        plan: &PhysicalPlan,
        aggregate: &Aggregate,
    ) -> Result<Option<Open>> {
        if self.parallelism.sharing != Sharing::Nothing || !can_be_apart(aggregate) {
            return Ok(None);
        }
        let keys = aggregate.group_by.len();
        let (below, uses) = Below::of(aggregate);
        let types: Vec<DataType> = below.iter().map(Expr::data_type).collect();
        let is_nested = |one: &Use| one.args.iter().flatten().any(|c| types[*c].is_nested());
        let distinct =
            || aggregate.calls.iter().zip(&uses).filter(|(call, _)| call.distinct).map(|(_, one)| one);
        let nulls = aggregate.calls.iter().map(|call| ScalarValue::try_from(call.output.data_type()));
        let nulls = nulls.collect::<datafusion_common::Result<Vec<_>>>()?;
        if distinct().any(is_nested) {
            return Ok(None);
        }
        let below_schema = schema(fields(&types));
        let mut open = self.plan(&plan.inputs[0])?;
        self.need_parameters(&mut open, &below)?;
        open.push(Transform::Project { exprs: below }, &below_schema, NO_OPERATOR);
        let kept = self.collect(open, NO_OPERATOR)?;
        // Each reads whole outputs.
        let tasks = self.parallelism.tasks.min(self.stages[kept.0 as usize].tasks);

        let mut sets: Vec<Option<&Use>> = vec![];
        if aggregate.calls.iter().any(|call| !call.distinct) {
            sets.push(None);
        }
        for one in distinct() {
            if !sets.contains(&Some(one)) {
                sets.push(Some(one));
            }
        }
        let column = |c: usize| Expr::column(c, types[c].clone());
        let key_columns = || (0..keys).map(column).collect::<Vec<_>>();
        let results = aggregate.calls.iter().map(|call| call.output.clone());
        let union_schema = schema(fields(&types[..keys]).into_iter().chain(results).collect());
        let mut union = Open { branches: vec![], edges: vec![], schema: union_schema.clone() };
        for set in sets {
            let mut open = self.collected(kept, below_schema.clone(), NO_OPERATOR, tasks);
            let mut places: Vec<usize> = (0..types.len()).collect();
            if let Some(one) = set {
                let values: Vec<usize> = one.args.iter().flatten().copied().collect();
                let group_by: Vec<Expr> =
                    key_columns().into_iter().chain(values.iter().map(|c| column(*c))).collect();
                let grouped = schema(fields(&group_by.iter().map(Expr::data_type).collect::<Vec<_>>()));
                open = self.grouped(open, Aggregate { group_by, calls: vec![] }, grouped, NO_OPERATOR);
                values.into_iter().enumerate().for_each(|(at, c)| places[c] = keys + at);
            }
            let place = |c: usize| Expr::column(places[c], types[c].clone());
            let (mut calls, mut exprs) = (vec![], key_columns());
            for ((call, one), null) in aggregate.calls.iter().zip(&uses).zip(&nulls) {
                if call.distinct != set.is_some() || set.is_some_and(|set| set != one) {
                    exprs.push(Expr::literal(null.clone()));
                    continue;
                }
                exprs.push(Expr::column(keys + calls.len(), call.output.data_type().clone()));
                let args =
                    call.args.iter().zip(&one.args).map(|(arg, c)| c.map_or_else(|| arg.clone(), place));
                // What the filter of a DISTINCT call drops is null by now.
                let filter = one.filter.filter(|_| !call.distinct).map(place);
                calls.push(AggregateCall { args: args.collect(), distinct: false, filter, ..call.clone() });
            }
            let results = calls.iter().map(|call| call.output.clone());
            let aggregated = schema(fields(&types[..keys]).into_iter().chain(results).collect());
            let mut open =
                self.grouped(open, Aggregate { group_by: key_columns(), calls }, aggregated, NO_OPERATOR);
            open.push(Transform::Project { exprs }, &union_schema, NO_OPERATOR);
            open.edges.iter().for_each(|e| push_edge(&mut union.edges, e.from, e.kind));
            union.branches.extend(open.branches);
        }
        let only = |(at, call): (usize, &AggregateCall)| AggregateCall {
            function: the_only(call.output.data_type()).unwrap_or("max").into(),
            args: vec![Expr::column(keys + at, call.output.data_type().clone())],
            distinct: false,
            filter: None,
            order_by: vec![],
            ignore_nulls: false,
            output: call.output.clone(),
        };
        let calls = aggregate.calls.iter().enumerate().map(only).collect();
        let last = Aggregate { group_by: key_columns(), calls };
        Ok(Some(self.grouped(union, last, plan.schema.clone(), plan.id)))
    }

    /// The two stages of a mergeable aggregate that needs no parameters.
    fn grouped(&mut self, input: Open, aggregate: Aggregate, schema: SchemaRef, operator: u32) -> Open {
        let input_schema = input.schema.clone();
        let partitions = if aggregate.group_by.is_empty() { 1 } else { self.parallelism.partitions };
        let stage = self.close(input, Sink::Aggregate { aggregate: aggregate.clone(), partitions }, operator);
        let branch = Branch {
            tasks: partitions,
            source: Source::AggregateFinal { stage, aggregate, input_schema },
            source_schema: schema.clone(),
            source_operator: operator,
            steps: vec![],
        };
        Open { branches: vec![branch], edges: vec![Edge { from: stage, kind: EdgeKind::Hash }], schema }
    }
}

fn can_be_apart(aggregate: &Aggregate) -> bool {
    let fits = |call: &AggregateCall| {
        let is_filtered = call.filter.is_some() && !PASS_OVER_NULLS.contains(&call.function.as_str());
        let is_constant = call.args.iter().all(|a| matches!(a, Expr::Literal(_)));
        call.order_by.is_empty()
            && the_only(call.output.data_type()).is_some()
            && !(call.distinct && (is_filtered || is_constant))
    };
    aggregate.calls.iter().any(|call| call.distinct) && aggregate.calls.iter().all(fits)
}

/// The function that gives back the only value of a type that is not null.
fn the_only(data_type: &DataType) -> Option<&'static str> {
    use DataType as T;
    match data_type {
        T::Boolean => Some("bool_and"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Date32 | T::Date64 | T::Timestamp(_, _) => Some("max"),
        other => other.is_numeric().then_some("max"),
    }
}

/// Where a call finds what it reads.
#[derive(Debug, PartialEq)]
struct Use {
    /// By argument; none for a constant, which the function may want to see as such.
    args: Vec<Option<usize>>,
    filter: Option<usize>,
}

/// What is computed once for all groupings: the keys, then what the calls read.
struct Below {
    exprs: Vec<Expr>,
    keys: usize,
}

impl Below {
    fn of(aggregate: &Aggregate) -> (Vec<Expr>, Vec<Use>) {
        let mut below = Below { exprs: aggregate.group_by.clone(), keys: aggregate.group_by.len() };
        let uses = aggregate.calls.iter().map(|call| below.call(call)).collect();
        (below.exprs, uses)
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

    fn add(&mut self, expr: Expr) -> usize {
        match self.exprs[self.keys..].iter().position(|e| *e == expr) {
            Some(at) => self.keys + at,
            None => {
                self.exprs.push(expr);
                self.exprs.len() - 1
            }
        }
    }
}

fn schema(fields: Vec<FieldRef>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// Columns by type, which may be null.
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
    fn groups_are_apart_where_tasks_share_nothing() {
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
