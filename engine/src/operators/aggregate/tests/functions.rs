//! Every aggregate function of the library.

use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Aggregate, AggregateCall};

use super::data::{batches, column, schema};
use super::reference::reference;
use super::*;

fn literal(value: impl Into<ScalarValue>) -> Expr {
    Expr::literal(value.into())
}

/// Calls whose result does not depend on the order of the rows.
fn unordered() -> Vec<AggregateCall> {
    let float = || column("v_float");
    let mut calls = vec![
        call("count", vec![literal(1i64)]),
        call("count", vec![column("v_text")]),
        call("count", vec![column("v_int"), column("v_text")]),
        call("sum", vec![column("v_int")]),
        call("sum", vec![column("v_unsigned")]),
        call("sum", vec![float()]),
        call("sum", vec![column("v_decimal")]),
        call("sum", vec![column("v_wide_decimal")]),
        call("avg", vec![float()]),
        call("avg", vec![column("v_decimal")]),
        call("median", vec![float()]),
        call("median", vec![column("v_decimal")]),
        call("bit_and", vec![column("v_int")]),
        call("bit_or", vec![column("v_int")]),
        call("bit_xor", vec![column("v_unsigned")]),
        call("bool_and", vec![column("v_bool")]),
        call("bool_or", vec![column("v_bool")]),
        call("approx_distinct", vec![column("v_int")]),
        call("approx_distinct", vec![column("v_text")]),
        call("percentile_cont", vec![float(), literal(0.3)]),
    ];
    for name in ["min", "max"] {
        for arg in [
            "v_int",
            "v_unsigned",
            "v_float",
            "v_decimal",
            "v_wide_decimal",
            "v_text",
            "v_time",
            "v_bool",
            "binary",
            "date",
            "float",
        ] {
            calls.push(call(name, vec![column(arg)]));
        }
    }
    for name in ["var_samp", "var_pop", "stddev", "stddev_pop"] {
        calls.push(call(name, vec![float()]));
    }
    let other = || Expr::column(column("v_float").columns()[0], float().data_type());
    for name in [
        "covar_samp",
        "covar_pop",
        "corr",
        "regr_slope",
        "regr_intercept",
        "regr_count",
        "regr_r2",
        "regr_avgx",
        "regr_avgy",
        "regr_sxx",
        "regr_syy",
        "regr_sxy",
    ] {
        calls.push(call(name, vec![float(), other()]));
    }
    calls
}

/// Calls that need their rows in one order, or that only approximate.
fn ordered() -> Vec<AggregateCall> {
    ["first_value", "last_value", "any_value", "array_agg"]
        .map(|name| call(name, vec![column("v_text")]))
        .into_iter()
        .chain([
            call("array_agg", vec![column("v_int")]),
            call("string_agg", vec![column("v_text"), literal(", ")]),
            call("nth_value", vec![column("v_int"), literal(3i64)]),
        ])
        .collect()
}

#[test]
fn all_functions_are_tested() {
    let approximate = ["approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];
    let tested: Vec<String> = unordered().into_iter().chain(ordered()).map(|c| c.function).collect();
    for function in library::all_aggregate() {
        let name = function.name();
        let known = tested.iter().any(|t| library::aggregate(t).unwrap().name() == name);
        // The planner computes grouping() from the grouping sets.
        assert!(known || approximate.contains(&name) || name == "grouping", "{name} is not tested");
    }
}

#[test]
fn unordered_functions() {
    for (group_by, nulls, distinct) in
        [(vec![], 10, 5), (vec!["int"], 0, 5), (vec!["int"], 15, 40), (vec!["text", "bool"], 15, 10)]
    {
        let batches = batches(11, 6, 200, nulls, distinct);
        let group_by: Vec<Expr> = group_by.into_iter().map(column).collect();
        let aggregate = Aggregate { group_by, calls: unordered() };
        let keys = aggregate.group_by.len();
        let expected = reference(&aggregate, &schema(), &batches);
        assert_same(single(&aggregate, &schema(), &batches).unwrap(), expected.clone(), keys, "single");
        for limits in [PartialLimits::default(), tight(10, 9.0), tight(4, 0.01)] {
            let found = two_phases(&aggregate, &schema(), &batches, 3, 3, limits).unwrap();
            assert_same(found, expected.clone(), keys, &format!("{limits:?}"));
        }
    }
}

/// Each alone, so that those that can pass rows through do.
#[test]
fn single_rows_have_states() {
    let batches = batches(12, 6, 200, 15, 40);
    for call in unordered() {
        for filter in [None, Some(column("v_bool"))] {
            let calls = vec![AggregateCall { filter, ..call.clone() }];
            let aggregate = Aggregate { group_by: vec![column("int")], calls };
            let expected = reference(&aggregate, &schema(), &batches);
            let found = two_phases(&aggregate, &schema(), &batches, 2, 3, tight(4, 0.01)).unwrap();
            assert_same(found, expected, 1, &format!("{} of {:?}", call.function, call.args));
        }
    }
}

#[test]
fn ordered_functions_in_the_order_of_arrival() {
    for group_by in [vec![], vec![column("int")]] {
        let batches = batches(13, 4, 150, 10, 12);
        let mut calls = ordered();
        for name in ["first_value", "last_value"] {
            calls.push(AggregateCall { ignore_nulls: true, ..call(name, vec![column("v_int")]) });
        }
        let aggregate = Aggregate { group_by, calls };
        let expected = reference(&aggregate, &schema(), &batches);
        let found = single(&aggregate, &schema(), &batches).unwrap();
        assert_same(found, expected, aggregate.group_by.len(), "single");
    }
}

#[test]
fn ordered_filtered_and_distinct_calls() {
    for group_by in [vec![], vec![column("text")], vec![column("int"), column("bool")]] {
        let batches = batches(14, 5, 150, 10, 8);
        let mut calls = vec![];
        for base in unordered().into_iter().chain(ordered()) {
            let filtered = AggregateCall { filter: Some(column("v_bool")), ..base.clone() };
            let distinct = AggregateCall { distinct: true, ..base.clone() };
            let both = AggregateCall { filter: Some(column("v_bool")), ..distinct.clone() };
            calls.extend([base, filtered, distinct, both]);
        }
        let descending =
            |name: &str| SortKey { descending: true, nulls_first: true, ..ascending(column(name)) };
        for base in ordered() {
            let order_by =
                vec![descending("v_int"), ascending(column("v_unsigned")), ascending(column("v_time"))];
            let sorted = AggregateCall { order_by, ..base.clone() };
            calls.push(AggregateCall { filter: Some(column("v_bool")), ..sorted.clone() });
            calls.push(sorted);
            let by_itself = vec![ascending(base.args[0].clone())];
            calls.push(AggregateCall { order_by: by_itself, distinct: true, ..base });
        }
        let percentile = call("percentile_cont", vec![column("v_float"), literal(0.2)]);
        calls.push(AggregateCall { order_by: vec![descending("v_float")], ..percentile });
        let aggregate = Aggregate { group_by, calls };
        let expected = reference(&aggregate, &schema(), &batches);
        let found = single(&aggregate, &schema(), &batches).unwrap();
        assert_same(found, expected, aggregate.group_by.len(), "single");
    }
}

#[test]
fn approximations_are_near() {
    let batches = batches(15, 6, 500, 5, 3);
    let float = column("v_float");
    let calls = vec![
        call("approx_median", vec![float.clone()]),
        call("approx_percentile_cont", vec![float.clone(), literal(0.5)]),
        call("approx_percentile_cont_with_weight", vec![float.clone(), literal(1.0), literal(0.5)]),
        call("median", vec![float]),
    ];
    let aggregate = Aggregate { group_by: vec![column("int")], calls };
    let value = |v: &ScalarValue| if let ScalarValue::Float64(Some(v)) = v { *v } else { f64::NAN };
    // How near depends on the order of merging.
    for task in [context(), spilling()] {
        let limits = PartialLimits::default();
        for row in two_phases_in(&task, &aggregate, &schema(), &batches, 2, 2, limits).unwrap() {
            let exact = value(&row[4]);
            for approximate in &row[1..4] {
                assert!((value(approximate) - exact).abs() < 8.0, "{row:?}");
            }
        }
    }
}
