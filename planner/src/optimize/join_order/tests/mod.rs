//! Join trees of TPC-H as snapshots, and what must hold of every reordered plan.

mod interpreter;
mod random;

use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, InvariantLevel, LogicalPlan, Operator};
use insta::assert_snapshot;

use super::dphyp::dphyp;
use super::fixture::{plan, tpcds, tpcds_query, tpch, tpch_query, without_distinct};
use super::graph::Graph;
use super::greedy::greedy;
use super::region::Region;
use super::relation_set::RelationSet;
use super::search::Search;
use super::sets::Sets;
use super::{STEPS_MAX, reorder_joins, starts_region};
use crate::catalog::CatalogSnapshot;
use crate::optimize::cardinality::estimate;

/// The join tree of a TPC-H query.
fn tree(number: usize) -> String {
    let catalog = tpch();
    draw(&reorder_joins(plan(&tpch_query(number), &catalog), &catalog).unwrap())
}

/// A plan's joins with what they join, probe side first.
fn draw(plan: &LogicalPlan) -> String {
    let mut out = String::new();
    draw_into(plan, 0, &mut out);
    out
}

fn draw_into(plan: &LogicalPlan, depth: usize, out: &mut String) {
    let mut line = |text: String| out.push_str(&format!("{}{text}\n", "  ".repeat(depth)));
    let mut deeper = depth + 1;
    match plan {
        LogicalPlan::Join(join) => {
            let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            let filter = join.filter.as_ref().map(|_| " if …").unwrap_or_default();
            let on = if on.is_empty() { "cross".into() } else { on.join(", ") };
            line(format!("{} {on}{filter}", join.join_type));
        }
        LogicalPlan::TableScan(scan) => {
            line(format!("{}{}", scan.table_name, if scan.filters.is_empty() { "" } else { " filtered" }));
        }
        LogicalPlan::Aggregate(_) => line("group by".into()),
        LogicalPlan::Filter(_) => line("filter".into()),
        LogicalPlan::Union(_) => line("union".into()),
        _ => deeper = depth,
    }
    for input in plan.inputs() {
        draw_into(input, deeper, out);
    }
}

#[test]
fn q2_joins_the_filtered_part_first_and_probes_the_subquery() {
    assert_snapshot!(tree(2), @r"
    Inner supplier.s_nationkey = nation.n_nationkey
      Inner supplier.s_suppkey = partsupp.ps_suppkey
        supplier
        RightSemi __scalar_sq_1.ps_partkey = part.p_partkey, __scalar_sq_1.min(ps_supplycost) = partsupp.ps_supplycost
          group by
            Inner partsupp.ps_suppkey = supplier.s_suppkey
              partsupp
              Inner supplier.s_nationkey = nation.n_nationkey
                supplier
                Inner nation.n_regionkey = region.r_regionkey
                  nation
                  region filtered
          Inner partsupp.ps_partkey = part.p_partkey
            partsupp
            part filtered
      Inner nation.n_regionkey = region.r_regionkey
        nation
        region filtered
    ");
}

#[test]
fn q3_probes_with_lineitem() {
    assert_snapshot!(tree(3), @r"
    group by
      Inner lineitem.l_orderkey = orders.o_orderkey
        lineitem filtered
        Inner orders.o_custkey = customer.c_custkey
          orders filtered
          customer filtered
    ");
}

#[test]
fn q4_builds_from_the_filtered_orders() {
    assert_snapshot!(tree(4), @r"
    group by
      RightSemi __correlated_sq_1.l_orderkey = orders.o_orderkey
        lineitem filtered
        orders filtered
    ");
}

#[test]
fn q5_starts_from_the_region() {
    assert_snapshot!(tree(5), @r"
    group by
      Inner lineitem.l_suppkey = supplier.s_suppkey, customer.c_nationkey = supplier.s_nationkey
        Inner lineitem.l_orderkey = orders.o_orderkey
          lineitem
          Inner orders.o_custkey = customer.c_custkey
            orders filtered
            Inner customer.c_nationkey = nation.n_nationkey
              customer
              Inner nation.n_regionkey = region.r_regionkey
                nation
                region filtered
        supplier
    ");
}

#[test]
fn q7_filters_both_sides_by_nation() {
    assert_snapshot!(tree(7), @r"
    group by
      Inner lineitem.l_orderkey = orders.o_orderkey if …
        Inner lineitem.l_suppkey = supplier.s_suppkey
          lineitem filtered
          Inner supplier.s_nationkey = n1.n_nationkey
            supplier
            nation filtered
        Inner orders.o_custkey = customer.c_custkey
          orders
          Inner customer.c_nationkey = n2.n_nationkey
            customer
            nation filtered
    ");
}

#[test]
fn q8_reduces_lineitem_by_part_first() {
    assert_snapshot!(tree(8), @r"
    group by
      Inner supplier.s_nationkey = n2.n_nationkey
        Inner supplier.s_suppkey = lineitem.l_suppkey
          supplier
          Inner customer.c_nationkey = n1.n_nationkey
            Inner customer.c_custkey = orders.o_custkey
              customer
              Inner orders.o_orderkey = lineitem.l_orderkey
                orders filtered
                Inner lineitem.l_partkey = part.p_partkey
                  lineitem
                  part filtered
            Inner n1.n_regionkey = region.r_regionkey
              nation
              region filtered
        nation
    ");
}

#[test]
fn q9_probes_once_with_lineitem() {
    assert_snapshot!(tree(9), @r"
    group by
      Inner orders.o_orderkey = lineitem.l_orderkey
        orders
        Inner lineitem.l_suppkey = partsupp.ps_suppkey, lineitem.l_partkey = partsupp.ps_partkey
          lineitem
          Inner partsupp.ps_suppkey = supplier.s_suppkey
            Inner partsupp.ps_partkey = part.p_partkey
              partsupp
              part filtered
            Inner supplier.s_nationkey = nation.n_nationkey
              supplier
              nation
    ");
}

#[test]
fn q10_probes_with_lineitem_last() {
    assert_snapshot!(tree(10), @r"
    group by
      Inner lineitem.l_orderkey = orders.o_orderkey
        lineitem filtered
        Inner customer.c_nationkey = nation.n_nationkey
          Inner customer.c_custkey = orders.o_custkey
            customer
            orders filtered
          nation
    ");
}

#[test]
fn q17_builds_from_the_few_parts_and_probes_with_the_averages() {
    assert_snapshot!(tree(17), @r"
    group by
      RightSemi __scalar_sq_1.l_partkey = part.p_partkey if …
        group by
          lineitem
        Inner lineitem.l_partkey = part.p_partkey
          lineitem
          part filtered
    ");
}

#[test]
fn q18_applies_the_semi_join_to_orders_first() {
    assert_snapshot!(tree(18), @r"
    group by
      Inner lineitem.l_orderkey = orders.o_orderkey
        lineitem
        Inner customer.c_custkey = orders.o_custkey
          customer
          LeftSemi orders.o_orderkey = __correlated_sq_1.l_orderkey
            orders
            filter
              group by
                lineitem
    ");
}

#[test]
fn q20_builds_from_the_few_parts_and_probes_with_the_sums() {
    assert_snapshot!(tree(20), @r"
    RightSemi __correlated_sq_2.ps_suppkey = supplier.s_suppkey
      RightSemi __scalar_sq_3.l_partkey = partsupp.ps_partkey, __scalar_sq_3.l_suppkey = partsupp.ps_suppkey if …
        group by
          lineitem filtered
        LeftSemi partsupp.ps_partkey = __correlated_sq_1.p_partkey
          partsupp
          part filtered
      Inner supplier.s_nationkey = nation.n_nationkey
        supplier
        nation filtered
    ");
}

#[test]
fn q21_reduces_lineitem_before_the_semi_and_anti_joins() {
    assert_snapshot!(tree(21), @r"
    group by
      RightSemi __correlated_sq_1.l_orderkey = l1.l_orderkey if …
        lineitem
        RightAnti __correlated_sq_2.l_orderkey = l1.l_orderkey if …
          lineitem filtered
          Inner orders.o_orderkey = l1.l_orderkey
            orders filtered
            Inner l1.l_suppkey = supplier.s_suppkey
              lineitem filtered
              Inner supplier.s_nationkey = nation.n_nationkey
                supplier
                nation filtered
    ");
}

#[test]
fn a_left_join_whose_nulls_are_rejected_is_an_inner_join() {
    let catalog = tpch();
    let sql = "select c_name from customer left join orders on c_custkey = o_custkey, nation
               where o_orderkey = n_nationkey";
    let tree = draw(&reorder_joins(plan(sql, &catalog), &catalog).unwrap());
    assert_snapshot!(tree, @r"
    Inner customer.c_custkey = orders.o_custkey
      customer
      Inner orders.o_orderkey = nation.n_nationkey
        orders
        nation
    ");
}

#[test]
fn unconnected_relations_meet_in_a_cross_product_at_the_end() {
    let catalog = tpch();
    let sql = "select count(*) from orders, region, customer, nation
               where o_custkey = c_custkey and n_regionkey = r_regionkey";
    let tree = draw(&reorder_joins(plan(sql, &catalog), &catalog).unwrap());
    assert_snapshot!(tree, @r"
    group by
      Inner cross
        Inner orders.o_custkey = customer.c_custkey
          orders
          customer
        Inner nation.n_regionkey = region.r_regionkey
          nation
          region
    ");
}

#[test]
fn a_semi_join_moves_to_an_equal_key() {
    // The condition names o_custkey; customer is the smaller place to test it.
    let catalog = tpch();
    let sql = "select o_orderkey from orders, customer where o_custkey = c_custkey
               and o_custkey in (select s_suppkey from supplier where s_acctbal < 0)";
    let tree = draw(&reorder_joins(plan(sql, &catalog), &catalog).unwrap());
    assert_snapshot!(tree, @r"
    Inner orders.o_custkey = customer.c_custkey
      orders
      LeftSemi customer.c_custkey = __correlated_sq_1.s_suppkey
        customer
        supplier filtered
    ");
}

#[test]
fn plans_do_not_depend_on_distinct_counts() {
    for number in [3, 5, 17, 18, 20] {
        let catalog = without_distinct(tpch());
        let without = draw(&reorder_joins(plan(&tpch_query(number), &catalog), &catalog).unwrap());
        assert_eq!(without, tree(number), "q{number}");
    }
}

#[test]
fn all_of_tpch() {
    let catalog = tpch();
    for number in 1..=22 {
        let before = plan(&tpch_query(number), &catalog);
        let after = check(&before, &catalog);
        // No equality of these queries follows from others, so none may be lost or doubled.
        assert_eq!(conjuncts(&before), conjuncts(&after), "q{number}");
        walk(&after, &mut |p| check_estimate(p, &catalog));
        for region in regions(&before) {
            costs(&region, &catalog);
        }
    }
}

#[test]
fn all_of_tpcds() {
    let (catalog, mut compared) = (tpcds(), 0);
    let footers = without_distinct(tpcds());
    for number in 1..=99 {
        let before = plan(&tpcds_query(number), &catalog);
        check(&before, &footers);
        let after = check(&before, &catalog);
        walk(&after, &mut |p| check_estimate(p, &catalog));
        for region in regions(&before) {
            compared += usize::from(costs(&region, &catalog).is_some());
        }
    }
    assert!(compared > 300, "{compared}");
}

/// Reorders, and checks what can be checked of any plan.
fn check(before: &LogicalPlan, catalog: &CatalogSnapshot) -> LogicalPlan {
    let after = reorder_joins(before.clone(), catalog).unwrap();
    after.check_invariants(InvariantLevel::Executable).unwrap();
    assert_eq!(before.schema().columns(), after.schema().columns());
    for (a, b) in before.schema().fields().iter().zip(after.schema().fields()) {
        assert_eq!((a.data_type(), a.is_nullable()), (b.data_type(), b.is_nullable()));
    }
    after
}

/// Conditions of filters and joins: everything but equalities as text, equalities by their number.
fn conjuncts(plan: &LogicalPlan) -> (Vec<String>, usize) {
    let (mut others, mut equalities) = (vec![], 0);
    let mut add = |e: &Expr| match e {
        Expr::BinaryExpr(b) if b.op == Operator::Eq => equalities += 1,
        e => others.push(e.to_string()),
    };
    walk(plan, &mut |plan| match plan {
        LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate).into_iter().for_each(&mut add),
        LogicalPlan::Join(join) => {
            join.on.iter().for_each(|(l, r)| add(&l.clone().eq(r.clone())));
            join.filter.iter().flat_map(split_conjunction).for_each(&mut add);
        }
        _ => {}
    });
    others.sort();
    (others, equalities)
}

/// Calls `f` on a plan and everything below it, subqueries included.
fn walk(plan: &LogicalPlan, f: &mut dyn FnMut(&LogicalPlan)) {
    plan.apply_with_subqueries(|p| {
        f(p);
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
}

/// Every region of the plan, not reordered.
fn regions(plan: &LogicalPlan) -> Vec<LogicalPlan> {
    let mut found = vec![];
    walk(plan, &mut |p| {
        if starts_region(p) {
            found.push(p.clone());
        }
    });
    found
}

/// The cost of the best tree for a region by dphyp, which is that by trying every split of every set.
fn costs(region: &LogicalPlan, catalog: &CatalogSnapshot) -> Option<f64> {
    let (mut region, _) = Region::take_apart(region, catalog).unwrap().unwrap();
    let graph = Graph::new(&mut region);
    if graph.relations > 7 {
        return None;
    }
    let all = RelationSet::up_to(graph.relations - 1);
    let new = || Search::new(&graph, Sets::new(&region, &graph, catalog));
    let (mut exact, mut every, mut quick) = (new(), new(), new());
    assert!(dphyp(&mut exact, STEPS_MAX));
    for set in all.subsets().filter(|s| s.len() > 1) {
        for part in set.subsets().filter(|p| *p != set && p.has(set.first())) {
            if graph.connected(part, set.minus(part)) {
                every.offer(part, set.minus(part));
            }
        }
    }
    assert!(greedy(&mut quick));
    let [exact, every, quick] = [exact, every, quick].map(|search| search.best[&all].cost);
    assert!((exact - every).abs() <= 1e-9 * every, "{exact} instead of {every}: {region:?}");
    assert!(quick >= exact * (1.0 - 1e-9), "{quick} is less than {exact}: {region:?}");
    Some(exact)
}

fn check_estimate(plan: &LogicalPlan, catalog: &CatalogSnapshot) {
    let estimate = estimate(plan, catalog);
    assert!(estimate.rows.is_finite() && estimate.rows >= 0.0, "{}", plan.display());
    assert_eq!(estimate.columns.len(), plan.schema().fields().len());
    for column in &estimate.columns {
        assert!(column.distinct >= 1.0 && column.distinct <= column.domain * (1.0 + 1e-9), "{column:?}");
        assert!((0.0..=1.0).contains(&column.null_fraction), "{column:?}");
    }
}
