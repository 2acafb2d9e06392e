//! Aggregation the slow way: a map from key to row numbers, and one accumulator of the library per group.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::types::Float64Type;
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::function::AccumulatorArgs;
use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_physical_expr::{PhysicalExpr, PhysicalSortExpr};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Aggregate, AggregateCall};

use super::Row;
use crate::batch::{Batch, concat_arrays};
use crate::functions as library;

/// The rows of the aggregate over batches; its expressions are columns and constants.
pub(super) fn reference(aggregate: &Aggregate, schema: &SchemaRef, batches: &[Batch]) -> Vec<Row> {
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let pieces: Vec<_> =
                batches.iter().map(|b| b.columns[i].to_logical(field.data_type()).unwrap()).collect();
            concat_arrays(&pieces, field.data_type()).unwrap()
        })
        .collect();
    let rows = batches.iter().map(|b| b.rows).sum::<usize>();
    let mut groups: BTreeMap<String, (Row, Vec<u32>)> = BTreeMap::new();
    if aggregate.group_by.is_empty() {
        groups.insert("[]".into(), (vec![], vec![]));
    }
    let keys: Vec<ArrayRef> = aggregate.group_by.iter().map(|e| value(e, &columns, rows)).collect();
    for row in 0..rows {
        let key: Row = keys.iter().map(|k| normal(ScalarValue::try_from_array(k, row).unwrap())).collect();
        groups.entry(format!("{key:?}")).or_insert((key, vec![])).1.push(row as u32);
    }
    groups
        .into_values()
        .map(|(mut row, members)| {
            row.extend(aggregate.calls.iter().map(|c| evaluate(c, &columns, rows, &members)));
            row
        })
        .collect()
}

/// -0.0 is 0.0 and every NaN the same.
fn normal(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(v)) if v.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(v + 0.0)),
        ScalarValue::Float16(Some(v)) if v.to_f32() == 0.0 => ScalarValue::Float16(Some(Default::default())),
        other => other,
    }
}

fn value(expr: &Expr, columns: &[ArrayRef], rows: usize) -> ArrayRef {
    match expr {
        Expr::Column { index, .. } => columns[*index].clone(),
        Expr::Literal(value) => value.0.to_array_of_size(rows).unwrap(),
        other => panic!("the reference evaluates no {other:?}"),
    }
}

fn evaluate(call: &AggregateCall, columns: &[ArrayRef], rows: usize, members: &[u32]) -> ScalarValue {
    let args: Vec<ArrayRef> = call.args.iter().map(|a| value(a, columns, rows)).collect();
    let mut members = members.to_vec();
    if let Some(filter) = &call.filter {
        let filter = value(filter, columns, rows);
        let passes = |row: &u32| {
            ScalarValue::try_from_array(&filter, *row as usize).unwrap() == ScalarValue::Boolean(Some(true))
        };
        members.retain(passes);
    }
    for key in call.order_by.iter().rev() {
        let array = value(&key.expr, columns, rows);
        let scalar = |row: &u32| ScalarValue::try_from_array(&array, *row as usize).unwrap();
        members.sort_by(|a, b| {
            let (a, b) = (scalar(a), scalar(b));
            match (a.is_null(), b.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) => {
                    if key.nulls_first {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                (false, true) => {
                    if key.nulls_first {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                _ if key.descending => b.partial_cmp(&a).unwrap(),
                _ => a.partial_cmp(&b).unwrap(),
            }
        });
    }
    if call.distinct {
        let mut seen = std::collections::HashSet::new();
        members.retain(|row| {
            let scalar = |a: &ArrayRef| normal(ScalarValue::try_from_array(a, *row as usize).unwrap());
            seen.insert(args.iter().map(scalar).collect::<Vec<_>>())
        });
    }
    let members = UInt32Array::from(members);
    let args: Vec<ArrayRef> = args.iter().map(|a| take(a, &members, None).unwrap()).collect();
    accumulate(call, &args.iter().map(one_nan).collect::<Vec<_>>())
}

/// The library orders a NaN with a sign before all numbers; in SQL there is one NaN, after all.
fn one_nan(array: &ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<Float64Type>() {
        Some(floats) => Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v })),
        None => array.clone(),
    }
}

fn accumulate(call: &AggregateCall, args: &[ArrayRef]) -> ScalarValue {
    let function = library::aggregate(&call.function).unwrap();
    let plain = |t: DataType| if let DataType::Dictionary(_, v) = t { *v } else { t };
    let fields: Vec<_> = call
        .args
        .iter()
        .enumerate()
        .map(|(i, a)| Arc::new(Field::new(format!("a{i}"), plain(a.data_type()), true)))
        .collect();
    let exprs: Vec<Arc<dyn PhysicalExpr>> = call
        .args
        .iter()
        .enumerate()
        .map(|(i, a)| match a {
            Expr::Literal(v) => Arc::new(Literal::new(v.0.clone())) as Arc<dyn PhysicalExpr>,
            _ => Arc::new(Column::new(&format!("a{i}"), i)),
        })
        .collect();
    let order: Vec<PhysicalSortExpr> = if function.supports_within_group_clause() {
        let options = |descending| SortOptions { descending, nulls_first: false };
        call.order_by.iter().map(|k| PhysicalSortExpr::new(exprs[0].clone(), options(k.descending))).collect()
    } else {
        vec![]
    };
    let mut accumulator = function
        .accumulator(AccumulatorArgs {
            return_field: call.output.clone(),
            schema: &Schema::new(fields.clone()),
            ignore_nulls: call.ignore_nulls,
            order_bys: &order,
            is_reversed: false,
            name: "reference",
            is_distinct: false,
            exprs: &exprs,
            expr_fields: &fields,
        })
        .unwrap();
    if args.first().is_none_or(|a| !a.is_empty()) {
        accumulator.update_batch(args).unwrap();
    }
    accumulator.evaluate().unwrap()
}
