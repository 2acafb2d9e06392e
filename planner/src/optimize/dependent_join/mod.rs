//! Correlated subqueries of every kind, as joins.
//!
//! A correlated subquery is a dependent join: for each outer row the subquery runs anew, with the row's
//! columns in place of the outer references. After Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW
//! 2015), it runs once instead, for all distinct bindings D of the columns that it refers to. `push` moves
//! the join with D down the subquery, through every operator, until nothing below refers to the outer row;
//! there it is a cross product. What is left is an ordinary join of the outer rows with the result, on equal
//! bindings (a null binding is one of them).
//!
//! ```text
//! SELECT id, (SELECT max(w) FROM u WHERE u.w > t.n) FROM t
//!
//! Projection id, max
//!   Left join on n IS NOT DISTINCT FROM d
//!     t
//!     Aggregate by d -> max(w)
//!       Inner join on w > d
//!         Distinct n AS d of t
//!         u
//! ```
//!
//! The walk goes from the innermost subquery outwards: what an inner one has left of outer references stands
//! in a join of the next one by then. Shapes in `simple` are left to DataFusion, which joins them without D.
//!
//! What always holds: after this pass no outer reference is left but in `simple` subqueries, and these refer
//! to the row directly outside alone.

mod bindings;
mod push;
mod simple;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{
    Column, DataFusionError, ExprSchema, JoinConstraint, JoinType, NullEquality, Result, TableReference,
    not_impl_err,
};
use datafusion_expr::expr::{AggregateFunction, Exists, InSubquery};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Aggregate, Filter, Join, Projection, Sort, SubqueryAlias};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, binary_expr, cast, lit, when};
use datafusion_functions_aggregate::expr_fn::count;
use datafusion_functions_aggregate::first_last::first_value_udaf;

use self::bindings::Bindings;
use self::push::Push;
use super::once::Once;
use super::subquery_predicates;
use crate::error::PlanError;

/// The plan without correlated subqueries, but for those that DataFusion does well.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut pass = Pass { next: 0, relations: relations(&plan)? };
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let node = subquery_predicates::rewrite_node(node)?;
        // Predicates may have become conditions of a filter above the node.
        node.transform_data(|node| match node {
            LogicalPlan::Filter(Filter { predicate, input, .. })
                if matches!(*input, LogicalPlan::Join(_)) =>
            {
                let input = pass.node(Arc::unwrap_or_clone(input))?.data;
                pass.node(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
            }
            node => pass.node(node),
        })
    })?;
    Ok(rewritten.data)
}

struct Pass {
    /// Numbers the columns that are made up here.
    next: usize,
    /// How often a table or alias of a name stands in the plan.
    relations: HashMap<TableReference, usize>,
}

/// The outer rows of a node's subqueries.
struct Rows {
    /// Where bindings come from: the rows as they were.
    source: LogicalPlan,
    /// The rows with the values of subqueries beside them, or without those that match none.
    plan: LogicalPlan,
}

impl Rows {
    fn join(self, right: LogicalPlan, on: &[Column], right_on: &[Column], kind: JoinType) -> Result<Rows> {
        Ok(Rows { plan: join_bound(self.plan, right, on, right_on, kind, None)?, source: self.source })
    }
}

impl Pass {
    fn name(&mut self, what: &str) -> Column {
        self.next += 1;
        Column::from_name(format!("__{what}_{}", self.next))
    }

    fn node(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = node {
            return self.join(join);
        }
        if let LogicalPlan::Aggregate(aggregate) = &node {
            check_own_aggregates(aggregate)?;
        }
        let node = with_fresh_references(node)?.data;
        let [input] = node.inputs()[..] else {
            return Ok(Transformed::no(node));
        };
        let ours = subqueries(&node)?;
        if ours.is_empty() {
            return Ok(Transformed::no(node));
        }
        if let LogicalPlan::Sort(sort) = &node
            && let LogicalPlan::Projection(projection) = input
            && !ours.iter().all(|s| refers_to(s, input))
        {
            return self.sort_keys(sort, projection).map(Transformed::yes);
        }
        let outer: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let input = input.clone();
        if let LogicalPlan::Filter(Filter { predicate, .. }) = node {
            // What filters without a subquery of ours goes first: it leaves fewer bindings.
            let conjuncts = split_conjunction_owned(predicate).into_iter();
            let (first, conjuncts): (Vec<_>, Vec<_>) = conjuncts.partition(|c| !has_one_of(c, &ours));
            let input = match conjunction(first) {
                Some(first) => LogicalPlan::Filter(Filter::try_new(first, Arc::new(input))?),
                None => input,
            };
            let mut rows = self.rows(input)?;
            let mut rest = vec![];
            for conjunct in conjuncts {
                match exists_of(&conjunct, &ours, &rows.source)? {
                    Some((plan, negated)) => rows = self.matching(rows, &plan, negated)?,
                    None => rest.push(conjunct),
                }
            }
            let Some(predicate) = conjunction(rest) else {
                return Ok(Transformed::yes(rows.plan));
            };
            let filter = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(rows.plan.clone()))?);
            if subqueries(&filter)?.is_empty() {
                return Ok(Transformed::yes(filter));
            }
            let (rows, exprs) = self.values(&filter, rows)?;
            let filtered = filter.with_new_exprs(exprs, vec![rows.plan])?;
            return Ok(Transformed::yes(projected(filtered, outer)?));
        }

        let keeps_columns = !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
        let schema = node.schema().clone();
        let rows = self.rows(input)?;
        let (rows, exprs) = self.values(&node, rows)?;
        let rewritten = node.with_new_exprs(exprs, vec![rows.plan])?;
        if !keeps_columns {
            return Ok(Transformed::yes(rewritten));
        }
        // What the node added to its input's columns comes after them, and after ours.
        let added = schema.columns().into_iter().skip(outer.len()).map(Expr::Column);
        Ok(Transformed::yes(projected(rewritten, outer.into_iter().chain(added).collect())?))
    }

    /// ORDER BY a subquery that refers to columns which the select list has taken away: it is computed there.
    fn sort_keys(&mut self, sort: &Sort, projection: &Projection) -> Result<LogicalPlan> {
        let output: Vec<Expr> = projection.schema.columns().into_iter().map(Expr::Column).collect();
        let mut selected = projection.expr.clone();
        let mut keys = sort.expr.clone();
        for key in &mut keys {
            let computed = std::mem::take(&mut key.expr).transform_down(|e| match subquery_plan(&e) {
                Some(_) => {
                    let name = self.name("key");
                    selected.push(e.alias(&name.name));
                    Ok(Transformed::new(Expr::Column(name), true, TreeNodeRecursion::Jump))
                }
                None => Ok(Transformed::no(e)),
            })?;
            key.expr = computed.data;
        }
        let input = Projection::try_new(selected, projection.input.clone())?;
        let input = self.node(LogicalPlan::Projection(input))?.data;
        let sort = Sort { expr: keys, input: Arc::new(input), fetch: sort.fetch };
        projected(LogicalPlan::Sort(sort), output)
    }

    /// The rows with the values of the node's subqueries beside them, and the node's expressions over these.
    fn values(&mut self, node: &LogicalPlan, mut rows: Rows) -> Result<(Rows, Vec<Expr>)> {
        let mut values = vec![];
        for subquery in subqueries(node)? {
            let (extended, value) = self.value(rows, &subquery)?;
            rows = extended;
            values.push((subquery, value));
        }
        let names = NamePreserver::new(node);
        let exprs = node.expressions().into_iter().map(|expr| {
            let name = names.save(&expr);
            let expr = with_values(expr, &values)?;
            Ok(if expr.transformed { name.restore(expr.data) } else { expr.data })
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        Ok((rows, exprs))
    }

    /// The rows with a subquery's value beside them, and the expression of that value.
    fn value(&mut self, rows: Rows, subquery: &Expr) -> Result<(Rows, Expr)> {
        match subquery {
            Expr::ScalarSubquery(subquery) => self.scalar(rows, &subquery.subquery),
            _ => match exists_of(subquery, std::slice::from_ref(subquery), &rows.source)? {
                Some((plan, negated)) => self.mark(rows, &plan, negated),
                None => not_impl_err!("A subquery in this place"),
            },
        }
    }

    fn scalar(&mut self, rows: Rows, plan: &LogicalPlan) -> Result<(Rows, Expr)> {
        let bindings = self.bindings(&rows, plan)?;
        let bound = Push::new(self, &bindings).push_value(plan)?;
        let inner = Expr::Column(Column::from(plan.schema().qualified_field(0)));
        let value = self.name("value");
        let mut columns = bindings.renamed(&value.name);
        let outside = bindings.outside_names(&value.name);
        if at_most_one_row(plan) {
            columns.push(inner.alias(&value.name));
            let result = projected(bound, columns)?;
            let rows = rows.join(result, &bindings.outer, &outside, JoinType::Left)?;
            return Ok((rows, Expr::Column(value)));
        }
        let number = self.name("rows");
        let first = AggregateFunction::new_udf(first_value_udaf(), vec![inner], false, None, vec![], None);
        let aggregates =
            vec![count(lit(1i64)).alias(&number.name), Expr::AggregateFunction(first).alias(&value.name)];
        let result = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(bound), columns, aggregates)?);
        let rows = rows.join(result, &bindings.outer, &outside, JoinType::Left)?;
        // The cast fails, and says why; it is reached by bindings with two rows alone.
        let (number, value) = (Expr::Column(number), Expr::Column(value));
        let text = datafusion_functions::string::expr_fn::concat(vec![
            lit("a scalar subquery gave more than one row: "),
            cast(number.clone(), DataType::Utf8),
        ]);
        let refusal = when(cast(text, DataType::Int64).gt(lit(0i64)), value.clone()).end()?;
        let value = when(number.gt(lit(1i64)), refusal).otherwise(value)?;
        Ok((rows, value))
    }

    /// The rows for which the subquery has a row, or has none.
    fn matching(&mut self, rows: Rows, plan: &LogicalPlan, negated: bool) -> Result<Rows> {
        let columns: Vec<Expr> = rows.plan.schema().columns().into_iter().map(Expr::Column).collect();
        let bindings = self.bindings(&rows, plan)?;
        if bindings.outer.is_empty() {
            let (Rows { source, plan }, found) = self.mark(rows, plan, negated)?;
            let plan = LogicalPlan::Filter(Filter::try_new(found, Arc::new(plan))?);
            return Ok(Rows { source, plan: projected(plan, columns)? });
        }
        let bound = Push::new(self, &bindings).push(plan)?;
        let mark = self.name("mark").name;
        let result = projected(bound, bindings.renamed(&mark))?;
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        rows.join(result, &bindings.outer, &bindings.outside_names(&mark), kind)
    }

    /// The rows, and whether the subquery has a row for each of them, or has none.
    fn mark(&mut self, rows: Rows, plan: &LogicalPlan, negated: bool) -> Result<(Rows, Expr)> {
        let bindings = self.bindings(&rows, plan)?;
        let bound = Push::new(self, &bindings).push(plan)?;
        let mark = self.name("mark");
        let mut columns = bindings.renamed(&mark.name);
        columns.push(lit(true).alias(&mark.name));
        let result = LogicalPlanBuilder::from(projected(bound, columns)?).distinct()?.build()?;
        let outside = bindings.outside_names(&mark.name);
        let rows = rows.join(result, &bindings.outer, &outside, JoinType::Left)?;
        let mark = Expr::Column(mark);
        Ok((rows, if negated { mark.is_null() } else { mark.is_not_null() }))
    }

    /// The distinct bindings of what the plan refers to of the rows.
    fn bindings(&mut self, rows: &Rows, plan: &LogicalPlan) -> Result<Bindings> {
        let prefix = self.name("binding").name;
        Bindings::of(&rows.source, plan, &prefix)
    }

    fn rows(&mut self, plan: LogicalPlan) -> Result<Rows> {
        self.next += 1;
        let plan = Once::unless_repeatable(plan, self.next)?;
        Ok(Rows { source: plan.clone(), plan })
    }

    fn join(&mut self, mut join: Join) -> Result<Transformed<LogicalPlan>> {
        if let Some(lateral) = self.lateral_side(&join) {
            if simple::is_lateral(&join, &lateral) {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            }
            return self.lateral(join, lateral).map(Transformed::yes);
        }
        let node = with_fresh_references(LogicalPlan::Join(join))?.data;
        let ours = subqueries(&node)?;
        let LogicalPlan::Join(own) = node else {
            return Ok(Transformed::no(node));
        };
        join = own;
        if ours.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        if join.join_type == JoinType::Inner {
            // The condition of an inner join is a filter above it.
            let on = join.on.drain(..).map(|(l, r)| l.eq(r));
            let predicate = conjunction(on.chain(join.filter.take()));
            let input = Arc::new(LogicalPlan::Join(join));
            let predicate = predicate.unwrap_or_else(|| lit(true));
            return self.node(LogicalPlan::Filter(Filter::try_new(predicate, input)?));
        }
        let output: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
        let mut values = vec![];
        for subquery in ours {
            let references = subquery_plan(&subquery).map(|p| p.all_out_ref_exprs()).unwrap_or_default();
            let of =
                |side: &LogicalPlan| references.iter().any(|r| bindings::is_reference_to(r, side.schema()));
            let side = match (of(&join.left), of(&join.right)) {
                (true, true) => {
                    return not_impl_err!("A subquery in ON of an outer join that refers to both sides");
                }
                (true, false) => &mut join.left,
                (false, _) => &mut join.right,
            };
            let rows = self.rows(side.as_ref().clone())?;
            let (extended, value) = self.value(rows, &subquery)?;
            *side = Arc::new(extended.plan);
            values.push((subquery, value));
        }
        let replaced = |e: Expr| with_values(e, &values).map(|t| t.data);
        let on = join.on.into_iter().map(|(l, r)| Ok((replaced(l)?, replaced(r)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let filter = join.filter.map(replaced).transpose()?;
        let rewritten = Join::try_new(
            join.left,
            join.right,
            on,
            filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        Ok(Transformed::yes(projected(LogicalPlan::Join(rewritten), output)?))
    }

    /// The right side of a lateral join. The binder marks it; but not if all that refers to the left side are
    /// subqueries of subqueries.
    fn lateral_side(&self, join: &Join) -> Option<LogicalPlan> {
        let marked = marked_lateral(&join.right);
        if marked.is_some() {
            return marked;
        }
        // A name that is used twice may be one further outside.
        let refers = |e: &Expr| match e {
            Expr::OuterReferenceColumn(_, Column { relation: Some(relation), .. }) => {
                bindings::is_reference_to(e, join.left.schema()) && self.relations.get(relation) == Some(&1)
            }
            _ => false,
        };
        join.right.all_out_ref_exprs().iter().any(refers).then(|| join.right.as_ref().clone())
    }

    /// A join whose right side refers to the rows of its left side.
    fn lateral(&mut self, join: Join, right: LogicalPlan) -> Result<LogicalPlan> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return not_impl_err!("A {} JOIN LATERAL", join.join_type);
        }
        let output = join.schema.columns().into_iter().map(Expr::Column).collect();
        let rows = self.rows(Arc::unwrap_or_clone(join.left))?;
        let bindings = self.bindings(&rows, &right)?;
        let bound = Push::new(self, &bindings).push(&right)?;
        let prefix = self.name("lateral").name;
        let mut columns = bindings.renamed(&prefix);
        columns.extend(right.schema().columns().into_iter().map(Expr::Column));
        let result = projected(bound, columns)?;
        let on = join.on.into_iter().map(|(l, r)| l.eq(r));
        let filter = conjunction(on.chain(join.filter));
        let outside = bindings.outside_names(&prefix);
        let joined = join_bound(rows.plan, result, &bindings.outer, &outside, join.join_type, filter)?;
        projected(joined, output)
    }
}

/// An error for `(SELECT sum(t.n) FROM u)` over t: by the standard that sum is the outer query's, which makes
/// one row of all of its rows. The binder takes it for the subquery's.
fn check_own_aggregates(aggregate: &Aggregate) -> Result<()> {
    for expr in &aggregate.aggr_expr {
        if let Expr::AggregateFunction(f) = expr.clone().unalias()
            && f.params.args.iter().any(Expr::contains_outer)
            && !f.params.args.iter().any(Expr::any_column_refs)
        {
            let own = PlanError::unsupported(
                format!("{} of the outer query's columns alone", f.func.name()),
                "It belongs to the outer query: compute it there, under a name, in a subquery in FROM, and refer \
                 to that name.",
            );
            return Err(DataFusionError::External(Box::new(own)));
        }
    }
    Ok(())
}

/// The names of the plan's tables and aliases.
fn relations(plan: &LogicalPlan) -> Result<HashMap<TableReference, usize>> {
    let mut relations = HashMap::new();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::SubqueryAlias(alias) => *relations.entry(alias.alias.clone()).or_default() += 1,
            LogicalPlan::TableScan(scan) => *relations.entry(scan.table_name.clone()).or_default() += 1,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(relations)
}

/// The subqueries of the node's expressions that are not left to DataFusion, each once.
fn subqueries(node: &LogicalPlan) -> Result<Vec<Expr>> {
    let mut found: Vec<Expr> = vec![];
    for expr in node.expressions() {
        expr.apply(|e| {
            if let Some(plan) = subquery_plan(e)
                && !plan.all_out_ref_exprs().is_empty()
                && !simple::is_simple(node, e)
                && !found.contains(e)
            {
                found.push(e.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
}

/// The expression with values in place of subqueries.
fn with_values(expr: Expr, values: &[(Expr, Expr)]) -> Result<Transformed<Expr>> {
    expr.transform_down(|e| match values.iter().find(|(s, _)| *s == e) {
        Some((_, value)) => Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(e)),
    })
}

fn has_one_of(expr: &Expr, subqueries: &[Expr]) -> bool {
    expr.exists(|e| Ok(subqueries.contains(e))).unwrap_or(true)
}

/// Does the input have every column that the subquery refers to?
fn refers_to(subquery: &Expr, input: &LogicalPlan) -> bool {
    let references = subquery_plan(subquery).map(|p| p.all_out_ref_exprs()).unwrap_or_default();
    references.iter().all(|r| bindings::is_reference_to(r, input.schema()))
}

fn subquery_plan(expr: &Expr) -> Option<&LogicalPlan> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. }) => Some(&subquery.subquery),
        _ => None,
    }
}

/// The node with its subqueries knowing which outer columns they refer to by now.
fn with_fresh_references(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let fresh = |subquery: Subquery| {
        let outer_ref_columns = subquery.subquery.all_out_ref_exprs();
        Subquery { outer_ref_columns, ..subquery }
    };
    node.map_expressions(|expr| {
        expr.transform_up(|e| match e {
            Expr::ScalarSubquery(s) => Ok(Transformed::yes(Expr::ScalarSubquery(fresh(s)))),
            Expr::Exists(Exists { subquery, negated }) => {
                Ok(Transformed::yes(Expr::Exists(Exists { subquery: fresh(subquery), negated })))
            }
            Expr::InSubquery(i) => {
                let subquery = fresh(i.subquery);
                Ok(Transformed::yes(Expr::InSubquery(InSubquery { subquery, ..i })))
            }
            e => Ok(Transformed::no(e)),
        })
    })
}

/// If the condition is one of these subqueries: the plan that must have a row, or must have none.
fn exists_of(condition: &Expr, ours: &[Expr], rows: &LogicalPlan) -> Result<Option<(LogicalPlan, bool)>> {
    if !ours.contains(condition) {
        return Ok(None);
    }
    match condition {
        Expr::Exists(Exists { subquery, negated }) => {
            Ok(Some((subquery.subquery.as_ref().clone(), *negated)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let plan = subquery.subquery.as_ref().clone();
            let value = bindings::as_references(expr.as_ref().clone(), rows.schema())?;
            let first = Expr::Column(Column::from(plan.schema().qualified_field(0)));
            let equal = binary_expr(value, datafusion_expr::Operator::Eq, first);
            Ok(Some((LogicalPlanBuilder::from(plan).filter(equal)?.build()?, *negated)))
        }
        _ => Ok(None),
    }
}

fn marked_lateral(right: &LogicalPlan) -> Option<LogicalPlan> {
    match right {
        LogicalPlan::Subquery(subquery) => Some(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let inner = marked_lateral(input)?;
            let alias = SubqueryAlias::try_new(Arc::new(inner), alias.clone()).ok()?;
            Some(LogicalPlan::SubqueryAlias(alias))
        }
        _ => None,
    }
}

/// For one binding, is there never a second row?
fn at_most_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_) => plan.inputs().into_iter().all(at_most_one_row),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            plan.inputs().into_iter().all(at_most_one_row)
        }
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => at_most_one_row(&limit.input) || plan.max_rows().is_some_and(|n| n <= 1),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

fn projected(plan: LogicalPlan, columns: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// A join on equal bindings, for which two nulls are equal.
fn join_bound(
    left: LogicalPlan,
    right: LogicalPlan,
    left_keys: &[Column],
    right_keys: &[Column],
    kind: JoinType,
    filter: Option<Expr>,
) -> Result<LogicalPlan> {
    let on: Vec<(Expr, Expr)> = left_keys
        .iter()
        .zip(right_keys)
        .map(|(l, r)| (Expr::Column(l.clone()), Expr::Column(r.clone())))
        .collect();
    let filter = match on.is_empty() {
        true => Some(filter.unwrap_or_else(|| lit(true))),
        false => filter,
    };
    let nullable = |plan: &LogicalPlan, keys: &[Column]| {
        keys.iter().any(|k| plan.schema().field_from_column(k).map_or(true, |f| f.is_nullable()))
    };
    let null_equality = match nullable(&left, left_keys) && nullable(&right, right_keys) {
        true => NullEquality::NullEqualsNull,
        false => NullEquality::NullEqualsNothing,
    };
    let (left, right) = (Arc::new(left), Arc::new(right));
    let constraint = JoinConstraint::On;
    let join = Join::try_new(left, right, on, filter, kind, constraint, null_equality, false)?;
    Ok(LogicalPlan::Join(join))
}
