//! Refuses clauses that the parser takes and `datafusion-sql` would silently ignore.
//!
//! A query whose meaning we would change is worse than an error. What `datafusion-sql` refuses by itself
//! is not repeated here; the structs are taken apart field by field, so that a new field of a later
//! `sqlparser` is a compile error and not an ignored clause.

use std::ops::ControlFlow;

use datafusion_sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{
    Cte, Expr, Function, FunctionArguments, GroupByExpr, Interval, Join, JoinConstraint, JoinOperator,
    NamedWindowExpr, OrderBy, OrderByKind, Query, Select, SetExpr, TableAlias, TableFactor, Visit, Visitor,
    WindowType,
};

use crate::error::{PlanError, Result};
use crate::functions::functions;

/// An error if the statement has a clause that would not take effect.
pub(super) fn check(statement: &Statement) -> Result<()> {
    let flow = match statement {
        Statement::Statement(s) => s.visit(&mut Checker),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(q) => q.visit(&mut Checker),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(e) => return check(&e.statement),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Checker;

/// Stops with an error that names the clause and the way out.
fn refused(feature: &str, hint: &str) -> ControlFlow<PlanError> {
    ControlFlow::Break(PlanError::unsupported(feature, hint))
}

/// Stops with an error that names the clause and the way out, if the condition holds.
macro_rules! refuse {
    ($condition:expr, $feature:expr, $hint:expr) => {
        if $condition {
            return ControlFlow::Break(PlanError::unsupported($feature, $hint));
        }
    };
}

impl Visitor for Checker {
    type Break = PlanError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<PlanError> {
        let Query {
            with,
            body,
            order_by,
            limit_clause: _,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        refuse!(fetch.is_some(), "FETCH … WITH TIES, PERCENT or beside LIMIT", "Use rank() and QUALIFY.");
        refuse!(!locks.is_empty(), "FOR UPDATE / FOR SHARE", "Queries read a snapshot; leave it out.");
        refuse!(for_clause.is_some(), "FOR XML / FOR JSON", "Choose the output format in the client.");
        refuse!(settings.is_some(), "SETTINGS", "Use SET name = value.");
        refuse!(format_clause.is_some(), "FORMAT", "Choose the output format in the client.");
        refuse!(!pipe_operators.is_empty(), "The pipe operator |>", "Write the query with subqueries.");
        for Cte { alias, query: _, from, materialized: _, closing_paren_token: _ } in
            with.iter().flat_map(|w| &w.cte_tables)
        {
            table_alias(alias)?;
            refuse!(from.is_some(), "FROM after a WITH query", "Leave it out.");
        }
        if let Some(OrderBy { kind, interpolate: _ }) = order_by {
            match kind {
                OrderByKind::All(_) => refuse!(
                    !matches!(body.as_ref(), SetExpr::Select(_)),
                    "ORDER BY ALL after UNION, INTERSECT or EXCEPT",
                    "Name the columns."
                ),
                OrderByKind::Expressions(keys) => {
                    let fill = keys.iter().any(|k| k.with_fill.is_some());
                    refuse!(fill, "WITH FILL", "Join with generate_series instead.");
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<PlanError> {
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct: _,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection: _,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having: _,
            named_window,
            qualify: _,
            window_before_qualify: _,
            value_table_mode,
            flavor: _,
        } = select;
        refuse!(select_modifiers.is_some(), "A modifier after SELECT", "Leave it out.");
        refuse!(top.is_some(), "TOP", "Use LIMIT.");
        refuse!(exclude.is_some(), "EXCLUDE after the select list", "Write it directly after the star.");
        refuse!(into.is_some(), "SELECT INTO", "Use CREATE TABLE name AS SELECT.");
        refuse!(!lateral_views.is_empty(), "LATERAL VIEW", "Use UNNEST.");
        refuse!(prewhere.is_some(), "PREWHERE", "Use WHERE; filters are ordered by cost.");
        refuse!(!connect_by.is_empty(), "CONNECT BY", "Use WITH RECURSIVE.");
        refuse!(!cluster_by.is_empty(), "CLUSTER BY", "Use ORDER BY.");
        refuse!(!distribute_by.is_empty(), "DISTRIBUTE BY", "Leave it out.");
        refuse!(!sort_by.is_empty(), "SORT BY", "Use ORDER BY.");
        refuse!(value_table_mode.is_some(), "SELECT AS STRUCT / AS VALUE", "Use struct(…).");
        let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
        refuse!(
            !modifiers.is_empty(),
            "GROUP BY … WITH",
            "Use GROUP BY ROLLUP(…), CUBE(…) or GROUPING SETS."
        );
        for window in named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &window.1 {
                refuse!(
                    spec.window_name.is_some(),
                    "A window that extends another one",
                    "Repeat its PARTITION BY and ORDER BY."
                );
            }
        }
        for join in from.iter().flat_map(|f| &f.joins) {
            self.join(join)?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<PlanError> {
        match factor {
            TableFactor::Table {
                name: _,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                alias.as_ref().map_or(ControlFlow::Continue(()), table_alias)?;
                let settings = args.as_ref().is_some_and(|a| a.settings.is_some());
                refuse!(settings, "SETTINGS of a table function", "Leave it out.");
                refuse!(!with_hints.is_empty(), "A table hint", "Leave it out.");
                refuse!(version.is_some(), "Reading an earlier version of a table", "Leave it out.");
                refuse!(*with_ordinality, "WITH ORDINALITY", "Use row_number() OVER ().");
                refuse!(!partitions.is_empty(), "PARTITION after a table", "Use WHERE on its columns.");
                refuse!(json_path.is_some(), "A path after a table", "Use field access in SELECT.");
                refuse!(sample.is_some(), "TABLESAMPLE", "Use WHERE random() < fraction.");
                refuse!(!index_hints.is_empty(), "An index hint", "Leave it out.");
            }
            TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
                alias.as_ref().map_or(ControlFlow::Continue(()), table_alias)?;
                refuse!(sample.is_some(), "TABLESAMPLE", "Use WHERE random() < fraction.");
            }
            TableFactor::Function { with_ordinality, alias, .. } => {
                alias.as_ref().map_or(ControlFlow::Continue(()), table_alias)?;
                refuse!(*with_ordinality, "WITH ORDINALITY", "Use row_number() OVER ().");
            }
            TableFactor::UNNEST { alias, .. } => {
                alias.as_ref().map_or(ControlFlow::Continue(()), table_alias)?;
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                alias.as_ref().map_or(ControlFlow::Continue(()), table_alias)?;
                for join in &table_with_joins.joins {
                    self.join(join)?;
                }
            }
            TableFactor::Pivot { .. } => {
                return refused(
                    "PIVOT",
                    "Write a column for each value, with GROUP BY: sum(x) FILTER (WHERE key = 'value') AS value.",
                );
            }
            TableFactor::Unpivot { .. } => {
                return refused(
                    "UNPIVOT",
                    "Write a branch for each column: SELECT 'a' AS name, a AS value FROM t UNION ALL SELECT 'b', b FROM t.",
                );
            }
            TableFactor::MatchRecognize { .. } => {
                return refused(
                    "MATCH_RECOGNIZE",
                    "Use window functions: lag, lead, sum(…) OVER (ORDER BY …).",
                );
            }
            TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::XmlTable { .. } => {
                return refused("A table from JSON or XML text", "Write it to a file and query the file.");
            }
            TableFactor::TableFunction { .. } => {
                return refused("TABLE(…)", "Query a table, a view or a file by its name.");
            }
            // datafusion-sql refuses the others.
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<PlanError> {
        match expr {
            Expr::Function(f) => function(f),
            Expr::Collate { .. } => ControlFlow::Break(PlanError::unsupported(
                "COLLATE",
                "Text is compared byte by byte; compare lower(x) to ignore case.",
            )),
            // `INTERVAL '1' PARSEC` is an interval without a unit, and an alias.
            Expr::Interval(Interval { value, leading_field: None, .. }) => {
                let text = match value.as_ref() {
                    Expr::Value(v) => v.value.clone().into_string(),
                    _ => None,
                };
                if text.is_some_and(|t| t.trim().parse::<f64>().is_ok()) {
                    return ControlFlow::Break(PlanError::invalid(format!(
                        "INTERVAL {value} has no unit: write INTERVAL '1' DAY or INTERVAL '1 day'"
                    )));
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Checker {
    fn join(&self, join: &Join) -> ControlFlow<PlanError> {
        let Join { relation, global, join_operator } = join;
        refuse!(*global, "GLOBAL JOIN", "Leave GLOBAL out.");
        use JoinOperator as J;
        match join_operator {
            J::CrossApply | J::OuterApply => {
                return refused(
                    "CROSS APPLY / OUTER APPLY",
                    "Write CROSS JOIN LATERAL (…), or LEFT JOIN LATERAL (…) ON true.",
                );
            }
            J::AsOf { .. } => {
                return refused(
                    "ASOF JOIN",
                    "Join LATERAL (SELECT … WHERE u.time <= t.time ORDER BY u.time DESC LIMIT 1).",
                );
            }
            J::LeftSemi(c) | J::RightSemi(c) | J::LeftAnti(c) | J::RightAnti(c)
                if !matches!(c, JoinConstraint::On(_) | JoinConstraint::Using(_)) =>
            {
                return refused(
                    "SEMI JOIN or ANTI JOIN without ON or USING",
                    "Add the condition; for a natural one, list the columns in USING (…).",
                );
            }
            J::StraightJoin(_) => {
                return refused("STRAIGHT_JOIN", "Write JOIN; the order is chosen by cost.");
            }
            _ => {}
        }
        // An unnested or lateral side may do without a condition.
        let lateral = matches!(relation, TableFactor::UNNEST { .. })
            || matches!(
                relation,
                TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. }
            );
        let (JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)) = join_operator
        else {
            return ControlFlow::Continue(());
        };
        refuse!(
            matches!(constraint, JoinConstraint::None) && !lateral,
            "JOIN without ON or USING",
            "Add the condition, or write CROSS JOIN."
        );
        ControlFlow::Continue(())
    }
}

fn table_alias(alias: &TableAlias) -> ControlFlow<PlanError> {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    let typed = columns.iter().any(|c| c.data_type.is_some());
    refuse!(typed, "Types in a table alias", "Use CAST in the select list.");
    refuse!(at.is_some(), "AT after a table alias", "Use row_number() OVER ().");
    ControlFlow::Continue(())
}

fn function(f: &Function) -> ControlFlow<PlanError> {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
        f;
    refuse!(
        *parameters != FunctionArguments::None,
        format!("{name} with two argument lists"),
        "Pass all arguments in one list."
    );
    refuse!(
        matches!(args, FunctionArguments::Subquery(_)),
        format!("A subquery as the argument list of {name}"),
        "Use array_agg in a scalar subquery: (SELECT array_agg(x) FROM …)."
    );
    if let Some(WindowType::WindowSpec(spec)) = over {
        refuse!(
            spec.window_name.is_some(),
            "A window that extends another one",
            "Repeat its PARTITION BY and ORDER BY."
        );
    }
    let called = name.to_string().to_lowercase();
    let clauses = match args {
        FunctionArguments::List(list) => list.duplicate_treatment.is_some() || !list.clauses.is_empty(),
        FunctionArguments::None | FunctionArguments::Subquery(_) => false,
    };
    let decorated =
        clauses || filter.is_some() || null_treatment.is_some() || over.is_some() || !within_group.is_empty();
    // Nothing but a plain call makes sense for a scalar function; the clauses would be dropped.
    let scalar = functions().scalar(&called).is_some() || functions().higher_order.contains_key(&called);
    if decorated && scalar {
        return ControlFlow::Break(PlanError::Invalid {
            message: format!(
                "{name} is a scalar function: DISTINCT, ORDER BY, FILTER, OVER and the like do not apply to it"
            ),
            hint: None,
        });
    }
    ControlFlow::Continue(())
}
