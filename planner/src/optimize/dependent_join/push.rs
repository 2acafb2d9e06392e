//! A dependent join with the bindings D, pushed down a subquery.
//!
//! Each operator gets D's columns in front of its own: a filter and a projection hand them on, an aggregate
//! and a window function work per binding, LIMIT counts per binding, a join with D on both sides compares
//! them. Where nothing below refers to the outer row, D stands beside it as a cross product.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, JoinType, NullEquality, Result, internal_err, not_impl_err};
use datafusion_expr::expr::{GroupingSet, Sort as SortKey, WindowFunction};
use datafusion_expr::logical_plan::{
    Aggregate, Distinct, FetchType, Filter, Join, Limit, Projection, SkipType, Sort, SubqueryAlias, Union,
    Unnest, Values, Window,
};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, lit, when,
};
use datafusion_functions_window::row_number::row_number_udwf;

use super::super::once::{Once, once};
use super::bindings::Bindings;
use super::{Pass, join_bound, projected};

/// One subquery's way down.
pub(super) struct Push<'a> {
    pass: &'a mut Pass,
    bindings: &'a Bindings,
    /// The aggregate at the top need not have a row for bindings without rows: null is as good.
    null_for_none: bool,
}

impl<'a> Push<'a> {
    pub fn new(pass: &'a mut Pass, bindings: &'a Bindings) -> Self {
        Push { pass, bindings, null_for_none: false }
    }

    /// [`Push::push`] for the right side of an outer join that takes one value of it: where the value of no rows
    /// is null, there need be no row.
    pub fn push_value(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.null_for_none = is_null_for_no_rows(plan);
        self.push(plan)
    }

    /// The plan's rows for every binding: D's columns, then the plan's, under the plan's names.
    pub fn push(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        // Without columns there is one binding, and nothing to replace.
        if self.bindings.outer.is_empty() || !self.bindings.bind(plan) {
            return self.bindings.cross(plan);
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.push(&projection.input)?;
                let own = self.named(projection.expr.iter().cloned(), plan, 0)?;
                projected(input, [self.bindings.columns(), own].concat())
            }
            LogicalPlan::Filter(filter) => {
                let input = self.push(&filter.input)?;
                let predicate = self.bindings.inside(filter.predicate.clone())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => {
                let bound = self.push(input)?;
                let columns = input.schema().columns().into_iter().map(Expr::Column);
                let own = self.named(columns, plan, 0)?;
                projected(bound, [self.bindings.columns(), own].concat())
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, plan),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union, plan),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.push(input)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            // Without LIMIT above, the order of a subquery's rows is nobody's affair.
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.push(&sort.input),
                Some(n) => self.first_rows(&sort.input, &sort.expr, 0, Some(n as i64)),
            },
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.window(window, plan),
            LogicalPlan::Unnest(unnest) => {
                let input = Arc::new(self.push(&unnest.input)?);
                let columns = unnest.exec_columns.clone();
                Ok(LogicalPlan::Unnest(Unnest::try_new(input, columns, unnest.options.clone())?))
            }
            LogicalPlan::Values(values) => self.values(values, plan),
            LogicalPlan::Repartition(repartition) => self.push(&repartition.input),
            LogicalPlan::Subquery(subquery) => self.push(&subquery.subquery),
            LogicalPlan::RecursiveQuery(_) => {
                not_impl_err!("A recursive query that refers to a row outside of it")
            }
            LogicalPlan::Extension(extension) => match once(extension.node.as_ref()) {
                // All of its places are below the same bindings.
                Some(once) => {
                    let input = self.push(&once.input)?;
                    Ok(Once { number: once.number, input }.into_plan())
                }
                None => internal_err!("an outer reference below {}", plan.display()),
            },
            other => internal_err!("an outer reference below {}", other.display()),
        }
    }

    /// Expressions over D's columns, under the names of the plan's columns from `first` on.
    fn named(
        &self,
        exprs: impl Iterator<Item = Expr>,
        plan: &LogicalPlan,
        first: usize,
    ) -> Result<Vec<Expr>> {
        let schema = plan.schema();
        exprs
            .enumerate()
            .map(|(i, e)| {
                let (qualifier, field) = schema.qualified_field(first + i);
                self.bindings.named(e, qualifier, field.name())
            })
            .collect()
    }

    fn aggregate(&mut self, aggregate: &Aggregate, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
        let null_for_none = std::mem::take(&mut self.null_for_none);
        let input = Arc::new(self.push(input)?);
        let groups = schema.fields().len() - aggr_expr.len();
        let aggregates = self.named(aggr_expr.iter().cloned(), plan, groups)?;
        let bindings = self.bindings.columns();
        let (group, empty_sets) = match group_expr.as_slice() {
            [Expr::GroupingSet(set)] => {
                let sets = grouping_sets(set);
                let empty_sets = sets.iter().filter(|s| s.is_empty()).count();
                let bound = sets.into_iter().map(|set| {
                    let own = set.into_iter().map(|e| self.bindings.inside(e));
                    bindings.iter().cloned().map(Ok).chain(own).collect()
                });
                let sets = GroupingSet::GroupingSets(bound.collect::<Result<_>>()?);
                (vec![Expr::GroupingSet(sets)], empty_sets)
            }
            group => {
                let own = self.named(group.iter().cloned(), plan, 0)?;
                ([bindings, own].concat(), usize::from(group.is_empty()))
            }
        };
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(input, group, aggregates)?);
        // Two empty sets have two rows.
        if empty_sets > 1 {
            return not_impl_err!(
                "The empty grouping set twice in a subquery that refers to a row outside of it"
            );
        }
        if empty_sets == 0 || null_for_none {
            return Ok(grouped);
        }
        // An aggregate without groups has a row also where there is nothing to aggregate.
        let found = self.pass.name("found");
        let mut columns = self.bindings.renamed(&found.name);
        columns.push(lit(true).alias(&found.name));
        columns.extend(plan.schema().columns().into_iter().map(Expr::Column));
        let right = projected(grouped, columns)?;
        let right_keys = self.bindings.outside_names(&found.name);
        let d = self.bindings.plan.clone();
        let joined = join_bound(d, right, &self.bindings.inner, &right_keys, JoinType::Left, None)?;
        let mut columns = self.bindings.columns();
        let missing = Expr::Column(found).is_null();
        for i in 0..groups {
            let (qualifier, field) = schema.qualified_field(i);
            let column = Expr::Column(Column::from((qualifier, field)));
            columns.push(match field.name() == Aggregate::INTERNAL_GROUPING_ID {
                // A bit for each column that is not grouped by.
                true => {
                    when(missing.clone(), lit((1u64 << (groups - 1)) - 1).cast_to(field.data_type(), schema)?)
                        .otherwise(column)?
                        .alias_qualified(qualifier.cloned(), field.name())
                }
                false => column,
            });
        }
        for (i, aggregate) in aggr_expr.iter().enumerate() {
            let (qualifier, field) = schema.qualified_field(groups + i);
            let column = Expr::Column(Column::from((qualifier, field)));
            let default = match aggregate.clone().unalias() {
                Expr::AggregateFunction(f) => f.func.default_value(field.data_type())?,
                other => return internal_err!("{other} where an aggregate is expected"),
            };
            columns.push(match default.is_null() {
                true => column,
                false => when(missing.clone(), lit(default))
                    .otherwise(column)?
                    .alias_qualified(qualifier.cloned(), field.name()),
            });
        }
        projected(joined, columns)
    }

    fn join(&mut self, join: &Join) -> Result<LogicalPlan> {
        let on = join
            .on
            .iter()
            .map(|(l, r)| Ok((self.bindings.inside(l.clone())?, self.bindings.inside(r.clone())?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let filter = join.filter.clone().map(|f| self.bindings.inside(f)).transpose()?;
        let (in_left, in_right) = (self.bindings.bind(&join.left), self.bindings.bind(&join.right));
        use JoinType::*;
        let (push_left, push_right) = match join.join_type {
            Inner if in_left || !in_right => (true, in_right),
            Inner => (false, true),
            Left | LeftSemi | LeftAnti | LeftMark => (true, in_right),
            Right | RightSemi | RightAnti | RightMark => (in_left, true),
            Full => (true, true),
        };
        let left = match push_left {
            true => self.push(&join.left)?,
            false => join.left.as_ref().clone(),
        };
        let right = match push_right {
            true => self.push(&join.right)?,
            false => join.right.as_ref().clone(),
        };
        let own: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
        if !(push_left && push_right) {
            let joined = Join::try_new(
                Arc::new(left),
                Arc::new(right),
                on,
                filter,
                join.join_type,
                join.join_constraint,
                join.null_equality,
                join.null_aware,
            )?;
            return projected(LogicalPlan::Join(joined), [self.bindings.columns(), own].concat());
        }

        if join.null_aware {
            return not_impl_err!("NOT IN in a subquery that refers to a row outside of it");
        }
        // D on both sides: the side whose rows may be missing gets other names.
        let other = self.pass.name("other").name;
        let others = self.bindings.outside_names(&other);
        let rename = |plan: LogicalPlan, own: &LogicalPlan| {
            let own = own.schema().columns().into_iter().map(Expr::Column);
            projected(plan, self.bindings.renamed(&other).into_iter().chain(own).collect())
        };
        let keeps_right = matches!(join.join_type, Right | RightSemi | RightAnti | RightMark);
        let inner = &self.bindings.inner;
        let (left, right, left_keys, right_keys) = match keeps_right {
            true => (rename(left, &join.left)?, right, &others, inner),
            false => (left, rename(right, &join.right)?, inner, &others),
        };
        let joined = match join.null_equality {
            NullEquality::NullEqualsNull => {
                let keys = left_keys.iter().zip(right_keys);
                let keys = keys.map(|(l, r)| (Expr::Column(l.clone()), Expr::Column(r.clone())));
                LogicalPlan::Join(Join::try_new(
                    Arc::new(left),
                    Arc::new(right),
                    keys.chain(on).collect(),
                    filter,
                    join.join_type,
                    join.join_constraint,
                    NullEquality::NullEqualsNull,
                    false,
                )?)
            }
            NullEquality::NullEqualsNothing => {
                let filter = conjunction(on.into_iter().map(|(l, r)| l.eq(r)).chain(filter));
                join_bound(left, right, left_keys, right_keys, join.join_type, filter)?
            }
        };
        let bindings = match join.join_type {
            Full => {
                let either = inner.iter().zip(&others).map(|(i, o)| {
                    let both = vec![Expr::Column(i.clone()), Expr::Column(o.clone())];
                    datafusion_functions::core::expr_fn::coalesce(both).alias(&i.name)
                });
                either.collect()
            }
            _ => self.bindings.columns(),
        };
        projected(joined, [bindings, own].concat())
    }

    fn union(&mut self, union: &Union, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let mut inputs = vec![];
        for input in &union.inputs {
            let bound = self.push(input)?;
            // By position: the columns of a union are those of its first input.
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            let own = self.named(columns, plan, 0)?;
            inputs.push(Arc::new(projected(bound, [self.bindings.columns(), own].concat())?));
        }
        let union = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let positions = union.schema().columns().into_iter().skip(self.bindings.inner.len());
        let own = self.named(positions.map(Expr::Column), plan, 0)?;
        projected(union, [self.bindings.columns(), own].concat())
    }

    fn window(&mut self, window: &Window, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let first = window.input.schema().fields().len();
        let input = self.push(&window.input)?;
        let per_binding = window.window_expr.iter().map(|expr| {
            let expr = expr.clone().transform_up(|e| match e {
                Expr::WindowFunction(mut function) => {
                    function.params.partition_by.extend(self.bindings.columns());
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(expr.data)
        });
        let exprs = per_binding.collect::<Result<Vec<_>>>()?;
        let exprs = self.named(exprs.into_iter(), plan, first)?;
        Ok(LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?))
    }

    fn limit(&mut self, limit: &Limit) -> Result<LogicalPlan> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return not_impl_err!("LIMIT by an expression in a subquery that refers to a row outside of it");
        };
        let (skip, fetch) = (skip as i64, fetch.map(|n| n as i64));
        // The order stands directly below, or below a projection that takes its keys away.
        match limit.input.as_ref() {
            LogicalPlan::Sort(Sort { expr, input, fetch: None }) => self.first_rows(input, expr, skip, fetch),
            plan @ LogicalPlan::Projection(Projection { expr, input, .. }) => match input.as_ref() {
                LogicalPlan::Sort(Sort { expr: keys, input, fetch: None }) => {
                    let rows = self.first_rows(input, keys, skip, fetch)?;
                    let own = self.named(expr.iter().cloned(), plan, 0)?;
                    projected(rows, [self.bindings.columns(), own].concat())
                }
                _ => self.first_rows(plan, &[], skip, fetch),
            },
            plan => self.first_rows(plan, &[], skip, fetch),
        }
    }

    /// For each binding the rows after the first `skip` ones, at most `fetch`.
    fn first_rows(
        &mut self,
        input: &LogicalPlan,
        order: &[SortKey],
        skip: i64,
        fetch: Option<i64>,
    ) -> Result<LogicalPlan> {
        let bound = self.push(input)?;
        let columns: Vec<Expr> = bound.schema().columns().into_iter().map(Expr::Column).collect();
        let mut number =
            WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::<Expr>::new());
        number.params.partition_by = self.bindings.columns();
        number.params.order_by = order
            .iter()
            .map(|key| Ok(SortKey { expr: self.bindings.inside(key.expr.clone())?, ..*key }))
            .collect::<Result<_>>()?;
        let name = self.pass.name("row");
        let number = Expr::WindowFunction(Box::new(number)).alias(&name.name);
        let numbered = LogicalPlanBuilder::from(bound).window(vec![number])?.build()?;
        let number = Expr::Column(name);
        let after = (skip > 0).then(|| number.clone().gt(lit(skip as u64)));
        let before = fetch.map(|n| number.lt_eq(lit(skip.saturating_add(n) as u64)));
        let kept = conjunction(after.into_iter().chain(before)).unwrap_or_else(|| lit(true));
        projected(LogicalPlan::Filter(Filter::try_new(kept, Arc::new(numbered))?), columns)
    }

    /// A row of expressions is a projection of D.
    fn values(&mut self, values: &Values, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let mut rows = vec![];
        for row in &values.values {
            let own = row.iter().zip(plan.schema().fields()).map(|(e, field)| {
                self.bindings.inside(e.clone())?.cast_to(field.data_type(), self.bindings.plan.schema())
            });
            let own = own.collect::<Result<Vec<_>>>()?;
            let own = self.named(own.into_iter(), plan, 0)?;
            let columns = [self.bindings.columns(), own].concat();
            rows.push(Arc::new(projected(self.bindings.plan.clone(), columns)?));
        }
        if let [one] = rows.as_slice() {
            return Ok(one.as_ref().clone());
        }
        let union = LogicalPlan::Union(Union::try_new_with_loose_types(rows)?);
        let positions = union.schema().columns().into_iter().skip(self.bindings.inner.len());
        let own = self.named(positions.map(Expr::Column), plan, 0)?;
        projected(union, [self.bindings.columns(), own].concat())
    }
}

/// The sets that are grouped by, one after the other.
fn grouping_sets(set: &GroupingSet) -> Vec<Vec<Expr>> {
    match set {
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).map(|n| exprs[..n].to_vec()).collect(),
        GroupingSet::Cube(exprs) => exprs.iter().fold(vec![vec![]], |sets: Vec<Vec<Expr>>, e| {
            let with = sets.iter().map(|s| [s.as_slice(), std::slice::from_ref(e)].concat());
            let with: Vec<_> = with.collect();
            [sets, with].concat()
        }),
        GroupingSet::GroupingSets(sets) => sets.clone(),
    }
}

/// Aggregates without groups that are null for no rows, with nothing but choices of columns above them.
fn is_null_for_no_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => {
            let column = |e: &Expr| matches!(e.clone().unalias(), Expr::Column(_));
            p.expr.iter().all(column) && is_null_for_no_rows(&p.input)
        }
        LogicalPlan::Aggregate(a) => {
            a.group_expr.is_empty()
                && a.aggr_expr.iter().zip(a.schema.fields()).all(|(e, field)| match e.clone().unalias() {
                    Expr::AggregateFunction(f) => {
                        f.func.default_value(field.data_type()).is_ok_and(|v| v.is_null())
                    }
                    _ => false,
                })
        }
        _ => false,
    }
}
