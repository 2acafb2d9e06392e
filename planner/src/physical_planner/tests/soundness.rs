//! What every plan must be, whatever it does.

use arrow::datatypes::{DataType, SchemaRef};

use crate::explain;
use crate::expr::Expr;
use crate::physical::{Operator, PhysicalPlan, Query};

/// Positions and types fit, numbers refer to what exists.
pub(crate) fn check(query: &Query) {
    let mut ids = vec![];
    let mut published = vec![];
    let mut used = vec![];
    for (position, (_, plan)) in query.shared.iter().enumerate() {
        plan.visit(&mut |p| {
            if let Operator::Shared { id } = p.operator {
                let at = query.shared.iter().position(|(shared, _)| *shared == id).unwrap();
                assert!(at < position, "shared plan {position} reads {id}, which is not before it");
            }
        });
    }
    let plans = std::iter::once(&query.root)
        .chain(query.subqueries.iter().map(|(_, p)| p))
        .chain(query.shared.iter().map(|(_, p)| p));
    for plan in plans {
        plan.visit(&mut |p| {
            ids.push(p.id);
            check_operator(p, query);
            match &p.operator {
                Operator::HashJoin(join) => published.extend(join.runtime_filters.iter().map(|f| f.0)),
                Operator::Scan(scan) => used.extend(scan.runtime_filters.iter().map(|f| f.id)),
                _ => {}
            }
        });
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operator numbers repeat");
    used.sort_unstable();
    used.dedup();
    published.sort_unstable();
    assert_eq!(used, published, "each runtime filter is published once and used somewhere");
    for (_, subquery) in &query.subqueries {
        assert_eq!(subquery.schema.fields().len(), 1);
    }
}

fn check_operator(plan: &PhysicalPlan, query: &Query) {
    let line = explain::operator(plan);
    let inputs: Vec<DataType> = plan.inputs.iter().flat_map(|i| types(&i.schema)).collect();
    let own = types(&plan.schema);
    let expr = |e: &Expr, columns: &[DataType]| {
        e.visit(&mut |e| match e {
            Expr::Column { index, data_type } => {
                assert_eq!(columns.get(*index), Some(data_type), "column {index} of {line}");
            }
            Expr::Parameter { id, .. } => {
                assert!(query.subqueries.iter().any(|(known, _)| known == id), "parameter {id} of {line}");
            }
            _ => {}
        });
        e.data_type()
    };
    match &plan.operator {
        Operator::Scan(scan) => {
            let read: Vec<DataType> =
                scan.columns.iter().map(|c| scan.table_schema.field(*c).data_type().clone()).collect();
            for filter in &scan.filters {
                assert_eq!(expr(filter, &read), DataType::Boolean);
            }
            let output: Vec<DataType> = scan.output.iter().map(|c| read[*c].clone()).collect();
            assert_eq!(output, own, "{line}");
        }
        Operator::Values(values) => {
            for row in &values.rows {
                assert_eq!(row.iter().map(|e| expr(e, &[])).collect::<Vec<_>>(), own, "{line}");
            }
        }
        Operator::Shared { id } => {
            let (_, shared) = query.shared.iter().find(|(known, _)| known == id).unwrap();
            assert_eq!(types(&shared.schema), own, "{line}");
        }
        Operator::Filter { predicate } => {
            assert_eq!(expr(predicate, &inputs), DataType::Boolean, "{line}");
            assert_eq!(inputs, own, "{line}");
        }
        Operator::Project { exprs } => {
            assert_eq!(exprs.iter().map(|e| expr(e, &inputs)).collect::<Vec<_>>(), own, "{line}");
        }
        Operator::Expand { projections } => {
            for row in projections {
                assert_eq!(row.iter().map(|e| expr(e, &inputs)).collect::<Vec<_>>(), own, "{line}");
            }
        }
        Operator::Aggregate(aggregate) => {
            let mut output: Vec<DataType> = aggregate.group_by.iter().map(|e| expr(e, &inputs)).collect();
            for call in &aggregate.calls {
                call.args.iter().for_each(|a| drop(expr(a, &inputs)));
                call.filter.iter().for_each(|f| assert_eq!(expr(f, &inputs), DataType::Boolean));
                output.push(call.output.data_type().clone());
            }
            assert_eq!(output, own, "{line}");
        }
        Operator::HashJoin(join) => {
            let (probe, build) = (types(&plan.inputs[0].schema), types(&plan.inputs[1].schema));
            assert!(!join.keys.is_empty(), "{line}");
            for (p, b) in &join.keys {
                assert_eq!(expr(p, &probe), expr(b, &build), "{line}");
            }
            join.residual.iter().for_each(|r| assert_eq!(expr(r, &inputs), DataType::Boolean));
            check_join_output(join.kind, &join.output, plan);
        }
        Operator::NestedLoopJoin(join) => {
            join.condition.iter().for_each(|c| assert_eq!(expr(c, &inputs), DataType::Boolean));
            check_join_output(join.kind, &join.output, plan);
        }
        Operator::Sort(sort) => {
            sort.keys.iter().for_each(|k| drop(expr(&k.expr, &inputs)));
            assert_eq!(inputs, own, "{line}");
        }
        Operator::Limit(_) => assert_eq!(inputs, own, "{line}"),
        Operator::Union => {
            for input in &plan.inputs {
                assert_eq!(types(&input.schema), own, "{line}");
            }
        }
        Operator::Window(window) => {
            window.partition_by.iter().for_each(|e| drop(expr(e, &inputs)));
            window.calls.iter().flat_map(|c| &c.args).for_each(|e| drop(expr(e, &inputs)));
            let calls = window.calls.iter().map(|c| c.output.data_type().clone());
            assert_eq!(inputs.iter().cloned().chain(calls).collect::<Vec<_>>(), own, "{line}");
        }
        Operator::Unnest(unnest) => assert_eq!(unnest.output.len(), own.len(), "{line}"),
        Operator::Recursive(_) => {
            assert_eq!(types(&plan.inputs[0].schema), own, "{line}");
            assert_eq!(types(&plan.inputs[1].schema), own, "{line}");
        }
        Operator::WorkTable { .. } => {}
    }
}

fn check_join_output(kind: crate::physical::JoinKind, output: &[usize], plan: &PhysicalPlan) {
    use crate::physical::JoinKind;
    let (probe, build) = (types(&plan.inputs[0].schema), types(&plan.inputs[1].schema));
    let full: Vec<DataType> = match kind {
        _ if kind.emits_both() => probe.into_iter().chain(build).collect(),
        JoinKind::ProbeMark => probe.into_iter().chain([DataType::Boolean]).collect(),
        JoinKind::BuildSemi | JoinKind::BuildAnti => build,
        _ => probe,
    };
    let output: Vec<DataType> = output.iter().map(|i| full[*i].clone()).collect();
    assert_eq!(output, types(&plan.schema), "{}", explain::operator(plan));
}

fn types(schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().map(|f| f.data_type().clone()).collect()
}
