//! Plans and task graphs as text, one operator a line, inputs indented below.
//!
//! Column positions are shown as the names that the input's schema gives them, with the position behind a
//! name that is not unique: `l_orderkey`, `n_name#3`. Filters and computed columns read like SQL.

mod expr;
mod graph;

use std::fmt::Write;

use arrow::datatypes::SchemaRef;

use self::expr::{Detail, Names};
pub use self::graph::graph;
use crate::expr::Expr;
use crate::physical::{
    Aggregate, AggregateCall, FrameBound, FrameUnits, HashJoin, JoinKind, Operator, PhysicalPlan, Query,
    Scan, SortKey, WindowCall,
};

/// A query: its plan, then its subqueries and shared plans. `note` may say more of an operator, by its
/// number: what it did when it ran.
pub fn query(query: &Query, note: &dyn Fn(u32) -> Option<String>) -> String {
    let mut text = String::new();
    plan_into(&mut text, &query.root, 0, note);
    for (id, plan) in &query.subqueries {
        let _ = writeln!(text, "Subquery ${id}:");
        plan_into(&mut text, plan, 1, note);
    }
    for (id, plan) in &query.shared {
        let _ = writeln!(text, "Shared {id}:");
        plan_into(&mut text, plan, 1, note);
    }
    text
}

/// What an operator does, on one line: `Filter: l_quantity < 24`.
pub fn operator(plan: &PhysicalPlan) -> String {
    line(plan, Detail::Full)
}

/// A query's plan without its constants and estimates: the same text for the same work, whatever the values are.
pub fn shape(query: &Query) -> String {
    fn add(text: &mut String, plan: &PhysicalPlan, depth: usize) {
        let _ = writeln!(text, "{depth} {}", line(plan, Detail::Shape));
        plan.inputs.iter().for_each(|input| add(text, input, depth + 1));
    }
    let mut text = String::new();
    let others = query.subqueries.iter().chain(&query.shared).map(|(_, plan)| plan);
    std::iter::once(&query.root).chain(others).for_each(|plan| add(&mut text, plan, 0));
    text
}

fn line(plan: &PhysicalPlan, detail: Detail) -> String {
    let inputs: Vec<&SchemaRef> = plan.inputs.iter().map(|p| &p.schema).collect();
    detailed(&plan.operator, &inputs, &plan.schema, detail)
}

fn plan_into(text: &mut String, plan: &PhysicalPlan, depth: usize, note: &dyn Fn(u32) -> Option<String>) {
    let rows = plan.rows_estimate.map(|n| format!("  ~{} rows", short(n))).unwrap_or_default();
    let note_text = note(plan.id).map(|n| format!("  [{n}]")).unwrap_or_default();
    let _ = writeln!(text, "{}{}{rows}{note_text}", "  ".repeat(depth), operator(plan));
    for input in &plan.inputs {
        plan_into(text, input, depth + 1, note);
    }
}

fn short(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{}k", n / 1000),
        _ => format!("{}M", n / 1_000_000),
    }
}

fn operator_line(operator: &Operator, inputs: &[&SchemaRef], schema: &SchemaRef) -> String {
    detailed(operator, inputs, schema, Detail::Full)
}

fn detailed(operator: &Operator, inputs: &[&SchemaRef], schema: &SchemaRef, detail: Detail) -> String {
    let own = Names::with(inputs, detail);
    let name = operator.name();
    match operator {
        Operator::Values(_) | Operator::Limit(_) if detail == Detail::Shape => name.to_string(),
        Operator::Scan(scan) => scan_line(scan, detail),
        Operator::Values(values) => match values.rows.as_slice() {
            [row] => format!("{name}: ({})", own.list(row)),
            rows => format!("{name}: {} rows", rows.len()),
        },
        Operator::Shared { id } => format!("{name} {id}"),
        Operator::WorkTable { id } => format!("{name} {id}"),
        Operator::Filter { predicate } => format!("{name}: {}", own.show(predicate)),
        Operator::Project { exprs } => format!("{name}: {}", projected(&own, exprs, schema)),
        Operator::Expand { projections } => {
            let sets: Vec<String> = projections.iter().map(|p| format!("({})", own.list(p))).collect();
            format!("{name}: {}", sets.join(", "))
        }
        Operator::Aggregate(aggregate) => format!("{name}: {}", aggregate_text(aggregate, &own)),
        Operator::HashJoin(join) => format!("{name}: {}", hash_join(join, inputs, &own)),
        Operator::NestedLoopJoin(join) => {
            let on = join.condition.as_ref().map(|c| format!(" on {}", own.show(c))).unwrap_or_default();
            format!("{name}: {}{on}", kind(join.kind))
        }
        Operator::Sort(sort) => {
            let fetch = sort.fetch.filter(|_| detail == Detail::Full);
            let fetch = fetch.map(|n| format!(", first {n}")).unwrap_or_default();
            format!("{name}: {}{fetch}", sort_keys(&sort.keys, &own))
        }
        Operator::Limit(limit) => {
            let skip = if limit.skip > 0 { format!(" skip {}", limit.skip) } else { String::new() };
            let fetch = limit.fetch.map(|n| format!(" first {n}")).unwrap_or_default();
            format!("{name}:{skip}{fetch}")
        }
        Operator::Union => name.to_string(),
        Operator::Window(window) => {
            let mut text = format!("{name}:");
            if !window.partition_by.is_empty() {
                let _ = write!(text, " partition by {}", own.list(&window.partition_by));
            }
            if !window.order_by.is_empty() {
                let _ = write!(text, " order by {}", sort_keys(&window.order_by, &own));
            }
            let calls: Vec<String> = window.calls.iter().map(|c| window_call(c, &own)).collect();
            format!("{text} -> {}", calls.join(", "))
        }
        Operator::Unnest(unnest) => {
            let lists: Vec<String> = unnest.lists.iter().map(|(c, _)| own.name(*c)).collect();
            format!("{name}: {}", lists.join(", "))
        }
        Operator::Recursive(recursive) => {
            format!("{name} {}{}", recursive.id, if recursive.distinct { " distinct" } else { "" })
        }
    }
}

fn scan_line(scan: &Scan, detail: Detail) -> String {
    let columns = scan.columns.iter().map(|c| scan.table_schema.field(*c).name()).collect();
    let names = Names { columns, detail };
    let output: Vec<String> = scan.output.iter().map(|c| names.name(*c)).collect();
    let mut text = format!("Scan {}", scan.table);
    if !output.is_empty() {
        let _ = write!(text, ": {}", output.join(", "));
    }
    if !scan.filters.is_empty() {
        let one = scan.filters.len() == 1;
        let text_of = |f| if one { names.show(f) } else { names.conjunct(f) };
        let filters: Vec<String> = scan.filters.iter().map(text_of).collect();
        let _ = write!(text, " where {}", filters.join(" AND "));
    }
    for filter in &scan.runtime_filters {
        let _ = write!(text, " [{} by filter {}]", names.name(filter.column), filter.id);
    }
    if let Some(limit) = scan.limit.filter(|_| detail == Detail::Full) {
        let _ = write!(text, " first {limit}");
    }
    text
}

fn projected(names: &Names, exprs: &[Expr], schema: &SchemaRef) -> String {
    let columns = exprs.iter().enumerate().map(|(i, e)| {
        let text = names.show(e);
        match schema.fields().get(i).filter(|_| names.detail == Detail::Full) {
            Some(f) if *f.name() != text && f.name().chars().count() <= expr::NAME_CHARS_MAX => {
                format!("{text} AS {}", f.name())
            }
            _ => text,
        }
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn aggregate_text(aggregate: &Aggregate, names: &Names) -> String {
    let calls: Vec<String> = aggregate.calls.iter().map(|c| aggregate_call(c, names)).collect();
    match (aggregate.group_by.is_empty(), calls.is_empty()) {
        (true, _) => calls.join(", "),
        (false, true) => format!("by {}", names.list(&aggregate.group_by)),
        (false, false) => format!("by {} -> {}", names.list(&aggregate.group_by), calls.join(", ")),
    }
}

fn aggregate_call(call: &AggregateCall, names: &Names) -> String {
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let order = match call.order_by.as_slice() {
        [] => String::new(),
        keys => format!(" ORDER BY {}", sort_keys(keys, names)),
    };
    let mut text = format!("{}({distinct}{}{order})", call.function, names.list(&call.args));
    if call.ignore_nulls {
        text.push_str(" IGNORE NULLS");
    }
    if let Some(filter) = &call.filter {
        let _ = write!(text, " FILTER ({})", names.show(filter));
    }
    text
}

fn window_call(call: &WindowCall, names: &Names) -> String {
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let mut text = format!("{}({distinct}{})", call.function, names.list(&call.args));
    if call.ignore_nulls {
        text.push_str(" IGNORE NULLS");
    }
    if let Some(filter) = &call.filter {
        let _ = write!(text, " FILTER ({})", names.show(filter));
    }
    let units = match call.frame.units {
        FrameUnits::Rows => "ROWS",
        FrameUnits::Range => "RANGE",
        FrameUnits::Groups => "GROUPS",
    };
    let bound = |bound: &FrameBound| match bound {
        FrameBound::UnboundedPreceding => "start".to_string(),
        FrameBound::Preceding(_) if names.detail == Detail::Shape => "-?".to_string(),
        FrameBound::Following(_) if names.detail == Detail::Shape => "+?".to_string(),
        FrameBound::Preceding(n) => format!("-{}", n.0),
        FrameBound::CurrentRow => "current".to_string(),
        FrameBound::Following(n) => format!("+{}", n.0),
        FrameBound::UnboundedFollowing => "end".to_string(),
    };
    let _ = write!(text, " {units} {}..{}", bound(&call.frame.start), bound(&call.frame.end));
    text
}

fn hash_join(join: &HashJoin, inputs: &[&SchemaRef], both: &Names) -> String {
    let probe = Names::with(&inputs[..inputs.len().min(1)], both.detail);
    let build = Names::with(inputs.get(1..).unwrap_or_default(), both.detail);
    let equal = if join.null_equal { "IS NOT DISTINCT FROM" } else { "=" };
    let keys: Vec<String> =
        join.keys.iter().map(|(p, b)| format!("{} {equal} {}", probe.show(p), build.show(b))).collect();
    let mut text = format!("{} on {}", kind(join.kind), keys.join(" AND "));
    if join.null_aware {
        text.push_str(" (null-aware)");
    }
    if let Some(residual) = &join.residual {
        let _ = write!(text, " if {}", both.show(residual));
    }
    for (id, pair) in &join.runtime_filters {
        let key = join.keys.get(*pair).map(|(_, b)| build.show(b)).unwrap_or_default();
        let _ = write!(text, " [filter {id} from {key}]");
    }
    text
}

fn kind(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner",
        JoinKind::ProbeOuter => "probe outer",
        JoinKind::BuildOuter => "build outer",
        JoinKind::Full => "full",
        JoinKind::ProbeSemi => "probe semi",
        JoinKind::ProbeAnti => "probe anti",
        JoinKind::BuildSemi => "build semi",
        JoinKind::BuildAnti => "build anti",
        JoinKind::ProbeMark => "probe mark",
    }
}

fn sort_keys(keys: &[SortKey], names: &Names) -> String {
    let keys = keys.iter().map(|k| {
        let descending = if k.descending { " desc" } else { "" };
        let nulls = if k.nulls_first { " nulls first" } else { "" };
        format!("{}{descending}{nulls}", names.show(&k.expr))
    });
    keys.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::shape;
    use crate::testing;

    #[test]
    fn a_shape_is_the_same_for_other_constants_and_not_for_other_work() {
        let catalog = testing::small();
        let of = |sql: &str| shape(&testing::query(sql, &catalog).unwrap());
        let first = of("SELECT a + 1, sum(b) FROM t WHERE c = 'x' AND a IN (1, 2, 3) GROUP BY a + 1 LIMIT 5");
        let other = of("SELECT a + 2, sum(b) FROM t WHERE c = 'y' AND a IN (4, 5, 6) GROUP BY a + 2 LIMIT 9");
        assert_eq!(first, other);
        assert!(!first.contains('1') || !first.contains("'x'"), "{first}");
        for sql in [
            "SELECT a + 1, sum(b) FROM t WHERE c = 'x' GROUP BY a + 1 LIMIT 5",
            "SELECT a + 1, min(b) FROM t WHERE c = 'x' AND a IN (1, 2, 3) GROUP BY a + 1 LIMIT 5",
        ] {
            assert_ne!(first, of(sql), "{sql}");
        }
    }
}
