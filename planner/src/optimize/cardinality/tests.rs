//! Estimates of small plans whose true sizes are known: TPC-H at scale factor 1.

use datafusion_expr::LogicalPlan;

use super::{Estimate, estimate};
use crate::catalog::CatalogSnapshot;
use crate::optimize::join_order::fixture::{parse, plan, tpcds, tpch, without_distinct};

/// The estimate for a query's rows, before the aggregate that DataFusion would otherwise fold.
fn rows_in(sql: &str, catalog: &CatalogSnapshot) -> f64 {
    of(sql, catalog).rows
}

fn of(sql: &str, catalog: &CatalogSnapshot) -> Estimate {
    estimate(&plan(sql, catalog), catalog)
}

fn rows(sql: &str) -> f64 {
    rows_in(sql, &tpch())
}

/// Within a factor of `by` of the true count.
#[track_caller]
fn near(sql: &str, truth: f64, by: f64) {
    let rows = rows(sql);
    assert!(rows <= truth * by && rows >= truth / by, "{rows} for {truth}: {sql}");
}

#[test]
fn ranges_are_interpolated() {
    near("select * from orders where o_orderdate < date '1995-03-15'", 727_305.0, 1.05);
    // Both ends of a range make one interval, not two independent predicates.
    near(
        "select * from orders where o_orderdate >= date '1993-07-01' and o_orderdate < date '1993-10-01'",
        57_218.0,
        1.05,
    );
    near("select * from lineitem where l_quantity between 1 and 10", 1_200_000.0, 1.2);
    near("select * from lineitem where l_discount > 0.05", 2_700_000.0, 1.2);
    assert!(rows("select * from orders where o_orderdate > date '2020-01-01'") < 10.0);
}

#[test]
fn equality_keeps_one_value_of_many() {
    near("select * from customer where c_mktsegment = 'BUILDING'", 30_142.0, 1.05);
    near("select * from part where p_size in (1, 2, 3)", 12_000.0, 1.05);
    near("select * from part where p_size = 1 or p_size = 2", 8_000.0, 1.05);
    near("select * from part where p_size <> 1", 196_000.0, 1.05);
    near("select * from part where p_size not in (1, 2)", 192_000.0, 1.05);
    near("select * from part where not (p_size = 7)", 196_000.0, 1.05);
    near("select * from orders where o_orderkey = 7", 1.0, 1.05);
    assert!(rows("select * from part where p_size = 77") <= 1.0);
}

#[test]
fn patterns_and_functions() {
    near("select * from part where p_name like '%green%'", 10_664.0, 1.5);
    near("select * from part where p_type like '%BRASS'", 40_000.0, 2.0);
    near("select * from orders where extract(year from o_orderdate) = 1995", 228_637.0, 1.2);
    near("select * from orders where extract(month from o_orderdate) = 3", 125_000.0, 1.2);
}

#[test]
fn conjuncts_on_several_columns_back_off() {
    let both = rows("select * from part where p_brand = 'Brand#23' and p_container = 'MED BOX'");
    let independent = 200_000.0 / 25.0 / 40.0;
    assert!(both > independent && both < 200_000.0 / 40.0, "{both}");
}

#[test]
fn alternatives_of_two_columns_narrow_each() {
    // What is left of n_name is two values, so the second condition keeps a half, not two of 25.
    let sql = "select * from (select n_name, n_regionkey from nation
               where (n_name = 'FRANCE' and n_regionkey = 3) or (n_name = 'GERMANY' and n_regionkey = 3)) n
               where n_name = 'FRANCE'";
    assert!(rows(sql) > 0.2, "{}", rows(sql));
}

#[test]
fn keys_are_contained() {
    near("select * from orders, customer where o_custkey = c_custkey", 1_500_000.0, 1.05);
    // A filter on the primary key's side reduces the foreign key's side in proportion.
    near(
        "select * from orders, customer where o_custkey = c_custkey and c_mktsegment = 'BUILDING'",
        303_959.0,
        1.05,
    );
    // Filters on both sides multiply.
    near(
        "select * from lineitem, orders where l_orderkey = o_orderkey
         and o_orderdate < date '1993-01-01' and l_quantity <= 10",
        183_000.0,
        1.2,
    );
}

#[test]
fn keys_of_two_columns_have_no_more_values_than_rows() {
    near(
        "select * from lineitem, partsupp where l_partkey = ps_partkey and l_suppkey = ps_suppkey",
        6_001_215.0,
        1.05,
    );
}

#[test]
fn a_calendar_of_two_centuries_against_sales_of_five_years() {
    let sql = "select * from store_sales, date_dim where ss_sold_date_sk = d_date_sk and d_year = 2000";
    let (estimate, truth) = (rows_in(sql, &tpcds()), 548_000.0);
    assert!(estimate > truth / 2.0 && estimate < truth * 2.0, "{estimate}");
}

#[test]
fn semi_and_anti_joins_keep_a_share() {
    near("select * from customer where c_custkey in (select o_custkey from orders)", 99_996.0, 1.05);
    near("select * from customer where c_custkey not in (select o_custkey from orders)", 50_004.0, 1.05);
    near(
        "select * from orders where exists (select * from lineitem where l_orderkey = o_orderkey
         and l_commitdate < l_receiptdate)",
        1_375_365.0,
        1.1,
    );
}

#[test]
fn outer_joins_add_nulls() {
    let sql = "select * from customer left join orders on c_custkey = o_custkey where o_orderkey is null";
    near(sql, 50_004.0, 1.1);
}

#[test]
fn groups_are_combinations_up_to_the_rows() {
    near("select l_returnflag, l_linestatus, count(*) from lineitem group by 1, 2", 4.0, 1.6);
    near("select o_custkey, count(*) from orders group by 1", 99_996.0, 1.05);
    // What depends on a table's key adds no groups.
    near("select c_custkey, c_name, c_acctbal, count(*) from customer group by 1, 2, 3", 150_000.0, 1.6);
    near("select count(*) from lineitem", 1.0, 1.0);
    assert!(rows("select distinct o_orderpriority from orders") <= 6.0);
}

#[test]
fn sums_and_counts_are_bell_shaped() {
    let sql = "select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > ";
    let (common, rare) = (rows(&format!("{sql} 100")), rows(&format!("{sql} 300")));
    assert!(common > 500_000.0 && rare < 5_000.0, "{common} {rare}");
    let many = rows("select o_custkey from orders group by o_custkey having count(*) > 10");
    assert!(many > 30_000.0 && many < 100_000.0, "{many}");
}

#[test]
fn limits_and_unions() {
    assert_eq!(rows("select * from orders limit 10"), 10.0);
    assert_eq!(rows("select o_orderkey from orders order by o_totalprice limit 5"), 5.0);
    assert_eq!(rows("select r_name from region union all select n_name from nation"), 30.0);
}

#[test]
fn columns_are_traced_to_their_tables() {
    let catalog = tpch();
    let sql = "select k, n from (select o_custkey as k, count(*) as n from orders o group by o_custkey) x
               join customer on k = c_custkey";
    let estimate = of(sql, &catalog);
    let origin = estimate.columns[0].origin.clone().unwrap();
    assert_eq!((&*origin.table, origin.column), ("orders", 1));
    assert_eq!(estimate.columns[1].origin, None);
}

#[test]
fn footers_alone_tell_keys_from_categories() {
    let catalog = without_distinct(tpch());
    let keys = rows_in("select * from orders, lineitem where l_orderkey = o_orderkey", &catalog);
    assert!((5e6..7e6).contains(&keys), "{keys}");
    let flag = rows_in("select * from lineitem where l_returnflag = 'R'", &catalog);
    assert!((1e5..3e6).contains(&flag), "{flag}");
    let one = rows_in("select * from orders where o_orderkey = 7", &catalog);
    assert!(one <= 2.0, "{one}");
}

#[test]
fn counts_that_are_a_little_off_are_put_right() {
    let mut catalog = tpch();
    for table in catalog.tables.values_mut() {
        for column in &mut std::sync::Arc::make_mut(table).statistics.columns {
            column.distinct = column.distinct.map(|n| (n * 3).div_ceil(4));
        }
    }
    // Keys have as many values as rows, and a range of five has five values.
    let nations = rows_in("select * from customer, nation where c_nationkey = n_nationkey", &catalog);
    assert!((149_000.0..151_000.0).contains(&nations), "{nations}");
    let region = rows_in("select * from nation where n_regionkey = 2", &catalog);
    assert_eq!(region, 5.0);
}

#[test]
fn nothing_known_is_no_error() {
    let mut catalog = parse("table|t|0\na|BIGINT|||0|0\nb|VARCHAR|||0|0");
    for table in catalog.tables.values_mut() {
        std::sync::Arc::make_mut(table).statistics = Default::default();
    }
    let known: LogicalPlan =
        plan("select b, count(*) from t where a > 7 and b like 'x%' group by b", &catalog);
    assert!(estimate(&known, &catalog).rows >= 1.0);
    // A table that the catalog does not have.
    assert!(estimate(&known, &CatalogSnapshot::default()).rows >= 1.0);
}
