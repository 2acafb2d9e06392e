//! What our rules make of subqueries, set operations and types, as EXPLAIN shows it.

use insta::assert_snapshot;

use crate::physical_planner::tests::plan;

#[test]
fn in_and_exists_are_joins_in_a_condition() {
    assert_snapshot!(plan("SELECT a FROM t WHERE a IN (SELECT a FROM u)"), @r"
    HashJoin: probe semi on a = a  ~500 rows
      Scan t: a  ~1000 rows
      Scan u: a  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE b = 1 OR a IN (SELECT a FROM u)"), @r"
    Project: a  ~503 rows
      Filter: b = 1 OR mark  ~503 rows
        HashJoin: probe mark on a = a  ~1000 rows
          Scan t: a, b  ~1000 rows
          Scan u: a  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.x > t.b)"), @r"
    HashJoin: probe anti on a = a if CAST(x AS Int64) > b  ~834 rows
      Scan t: a, b  ~1000 rows
      Scan u: a, x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE a = ANY (SELECT x FROM u)"), @r"
    HashJoin: probe semi on a = x  ~500 rows
      Scan t: a  ~1000 rows
      Scan u: x  ~100 rows
    ");
}

/// As a conjunct a null-aware join; beside OR, nulls and emptiness are asked for; correlated, per outer row.
#[test]
fn not_in_minds_nulls() {
    assert_snapshot!(plan("SELECT a FROM t WHERE a NOT IN (SELECT a FROM u)"), @r"
    HashJoin: probe anti on a = a (null-aware)  ~500 rows
      Scan t: a  ~1000 rows
      Scan u: a  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE b = 1 OR a NOT IN (SELECT a FROM u)"), @r"
    Project: a  ~503 rows
      Filter: b = 1 OR NOT mark AND (a IS NOT NULL AND $0 = 0 OR $1 = 0)  ~503 rows
        HashJoin: probe mark on a = a  ~1000 rows
          Scan t: a, b where b = 1 OR a IS NOT NULL AND $0 = 0 OR $1 = 0  ~1000 rows
          Scan u: a  ~100 rows
    Subquery $0:
      Aggregate: count(1)  ~1 rows
        Limit: first 1  ~1 rows
          Scan u where a IS NULL first 1  ~1 rows
    Subquery $1:
      Aggregate: count(1)  ~1 rows
        Limit: first 1  ~1 rows
          Scan u first 1  ~1 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE a NOT IN (SELECT a FROM u WHERE u.x = t.b)"), @r"
    HashJoin: probe anti on b = CAST(x AS Int64) if (a#0 = a#2) IS NOT FALSE  ~834 rows
      Scan t: a, b  ~1000 rows
      Scan u: a, x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE NULL NOT IN (SELECT a FROM u)"), @r"
    Scan t: a where $0 = 0 AND $1 = 0  ~1000 rows
    Subquery $0:
      Aggregate: count(1)  ~1 rows
        Values: 0 rows  ~0 rows
    Subquery $1:
      Aggregate: count(1)  ~1 rows
        Limit: first 1  ~1 rows
          Scan u first 1  ~1 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE (a, b) NOT IN (SELECT a, x FROM u)"), @r"
    NestedLoopJoin: probe anti on (__c0 = a AND CAST(__c1 AS Int64) = b) IS NOT FALSE  ~10 rows
      Scan t: a, b  ~1000 rows
      Scan u: a, x  ~100 rows
    ");
}

#[test]
fn comparisons_with_all_are_anti_joins() {
    assert_snapshot!(plan("SELECT a FROM t WHERE a > ALL (SELECT x FROM u)"), @r"
    NestedLoopJoin: probe anti on (a > x) IS NOT TRUE  ~10 rows
      Scan t: a  ~1000 rows
      Scan u: x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE NOT (a > ANY (SELECT x FROM u))"), @r"
    NestedLoopJoin: probe anti on (a <= x) IS NOT TRUE  ~10 rows
      Scan t: a  ~1000 rows
      Scan u: x  ~100 rows
    ");
}

#[test]
fn uncorrelated_exists_is_asked_once() {
    assert_snapshot!(plan("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)"), @r"
    Scan t: a where $0 > 0  ~334 rows
    Subquery $0:
      Aggregate: count(1)  ~1 rows
        Limit: first 1  ~1 rows
          Scan u first 1  ~1 rows
    ");
}

#[test]
fn predicates_in_the_select_list_are_counted() {
    assert_snapshot!(plan("SELECT a, EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AS found FROM t"), @r"
    Project: a#0 AS a, CASE WHEN __always_true IS NULL THEN 0 ELSE count(Int64(1)) END > 0 AS found  ~1000 rows
      HashJoin: probe outer on a = a  ~1000 rows
        Scan t: a  ~1000 rows
        Project: a, true AS __always_true, count(Int64(1))  ~64 rows
          Aggregate: by a -> count(1)  ~64 rows
            Scan u: a  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a, a IN (SELECT x FROM u) AS found FROM t"), @r"
    Project: a, CASE WHEN __always_true#1 IS NULL THEN 0 ELSE count(Int64(1))#2 END > 0 OR (a IS NULL OR $0 > 0) AND CASE WHEN __always_true#4 IS NULL THEN 0 ELSE count(Int64(1))#5 END <= 0 AND $1 <> 0 AND NULL AS found  ~1000 rows
      HashJoin: probe outer on a = x  ~1000 rows
        HashJoin: probe outer on a = x  ~1000 rows
          Scan t: a  ~1000 rows
          Shared 0  ~64 rows
        Shared 0  ~64 rows
    Subquery $0:
      Aggregate: count(1)  ~1 rows
        Values: 0 rows  ~0 rows
    Subquery $1:
      Aggregate: count(1)  ~1 rows
        Limit: first 1  ~1 rows
          Scan u first 1  ~1 rows
    Shared 0:
      Project: x, true AS __always_true, count(Int64(1))  ~64 rows
        Aggregate: by x -> count(1)  ~64 rows
          Scan u: x  ~100 rows
    ");
}

#[test]
fn correlated_scalars_beyond_equality() {
    assert_snapshot!(plan("SELECT a, (SELECT max(x) FROM u WHERE u.a = t.a AND u.x > t.b) AS m FROM t"), @r"
    HashJoin: probe outer on a IS NOT DISTINCT FROM __value_3_of_0 AND b IS NOT DISTINCT FROM __value_3_of_1  ~1000 rows
      Scan t: a, b  ~1000 rows
      Aggregate: by __binding_2_0, __binding_2_1 -> max(x)  ~98 rows
        HashJoin: inner on __binding_2_0 = a if CAST(x AS Int64) > __binding_2_1  ~106 rows
          Aggregate: by __binding_2_0, __binding_2_1  ~633 rows
            Scan t: a, b  ~1000 rows
          Scan u: a, x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a, (SELECT x FROM u WHERE u.a = t.a) AS x FROM t"), @r"
    Project: a, CASE WHEN __rows_4 > 1 THEN CASE WHEN CAST(concat('a scalar subquery gave more than one row: ', CAST(__rows_4 AS Utf8)) AS Int64) > 0 THEN __value_3 END ELSE __value_3 END AS x  ~1000 rows
      HashJoin: probe outer on a IS NOT DISTINCT FROM __value_3_of_0  ~1000 rows
        Scan t: a  ~1000 rows
        Aggregate: by __binding_2_0 -> count(1), first_value(x)  ~87 rows
          HashJoin: inner on __binding_2_0 = a  ~199 rows
            Aggregate: by __binding_2_0  ~199 rows
              Scan t: a  ~1000 rows
            Scan u: a, x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a, (SELECT x FROM u WHERE u.a = t.a ORDER BY \"UserID\" DESC LIMIT 1) AS x FROM t"), @r"
    HashJoin: probe outer on a IS NOT DISTINCT FROM __value_4_of_0  ~1055 rows
      Scan t: a  ~1000 rows
      Project: __binding_2_0 AS __value_4_of_0, x AS __value_4  ~67 rows
        Filter: __row_3 <= 1  ~67 rows
          Project: __binding_2_0, x, __row_3  ~199 rows
            Window: partition by __binding_2_0 order by UserID desc -> row_number() ROWS start..end  ~199 rows
              HashJoin: inner on __binding_2_0 = a  ~199 rows
                Aggregate: by __binding_2_0  ~199 rows
                  Scan t: a  ~1000 rows
                Scan u: a, x, UserID  ~100 rows
    ");
}

#[test]
fn correlated_scalars_by_equality() {
    assert_snapshot!(plan("SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) AS n FROM t"), @r"
    Project: a#0 AS a, CASE WHEN __always_true IS NULL THEN 0 ELSE count(*) END AS n  ~1000 rows
      HashJoin: probe outer on a = a  ~1000 rows
        Scan t: a  ~1000 rows
        Project: count(Int64(1)) AS count(*), a, true AS __always_true  ~64 rows
          Aggregate: by a -> count(1)  ~64 rows
            Scan u: a  ~100 rows
    ");
}

#[test]
fn conditions_do_not_cross_what_they_would_change() {
    assert_snapshot!(plan("SELECT a FROM t WHERE b IN (SELECT rank() OVER (ORDER BY x) FROM u WHERE u.a = t.a)"), @r"
    HashJoin: probe semi on b IS NOT DISTINCT FROM __mark_3_of_0 AND a IS NOT DISTINCT FROM __mark_3_of_1  ~2 rows
      Scan t: a, b  ~1000 rows
      Project: __binding_2_0 AS __mark_3_of_0, __binding_2_1 AS __mark_3_of_1  ~2 rows
        Filter: CAST(rank() ORDER BY [u.x ASC NULLS LAST] RAN…#2 AS Int64) = __binding_2_0  ~2 rows
          Project: __binding_2_0, __binding_2_1, rank() ORDER BY [u.x ASC NULLS LAST] RAN…#3  ~317 rows
            Window: partition by __binding_2_0, __binding_2_1 order by x -> rank() RANGE start..current  ~317 rows
              HashJoin: inner on __binding_2_1 = a  ~317 rows
                Aggregate: by __binding_2_0, __binding_2_1  ~633 rows
                  Scan t: b, a  ~1000 rows
                Scan u: a, x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a OFFSET 3)"), @r"
    HashJoin: probe semi on a IS NOT DISTINCT FROM __mark_4_of_0  ~277 rows
      Scan t: a  ~1000 rows
      Project: __binding_2_0 AS __mark_4_of_0  ~67 rows
        Filter: __row_3 > 3  ~67 rows
          Window: partition by __binding_2_0 -> row_number() ROWS start..end  ~199 rows
            HashJoin: inner on __binding_2_0 = a  ~199 rows
              Aggregate: by __binding_2_0  ~199 rows
                Scan t: a  ~1000 rows
              Scan u: a  ~100 rows
    ");
}

#[test]
fn distinct_on_takes_whole_rows() {
    assert_snapshot!(plan("SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC"), @r"
    Sort: a, b desc  ~40 rows
      Project: a, b  ~40 rows
        Filter: __distinct_on = 1  ~40 rows
          Window: partition by a order by a, b desc -> row_number() ROWS start..end  ~1000 rows
            Scan t: a, b  ~1000 rows
    ");
}

#[test]
fn floats_win_over_decimals() {
    assert_snapshot!(plan("SELECT f < 0.5, f > d, coalesce(f, 0.5), CASE WHEN a = 1 THEN f ELSE 0.5 END FROM t"), @r"
    Project: f < 0.5, f > CAST(d AS Float64) AS f > d, CASE WHEN f IS NOT NULL THEN f ELSE 0.5 END AS coalesce(f, 0.5), CASE WHEN a = 1 THEN f ELSE 0.5 END  ~1000 rows
      Scan t: a, d, f  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT f FROM t UNION ALL SELECT d FROM t"), @r"
    Union  ~2000 rows
      Scan t: f  ~1000 rows
      Project: CAST(d AS Float64) AS f  ~1000 rows
        Scan t: d  ~1000 rows
    ");
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    assert_snapshot!(plan("SELECT a FROM t WHERE a = DATE '2024-01-01'"), @r"
    error: Date32 cannot be compared with Int32; cast one of them
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE e > 5"), @r"
    error: Date32 cannot be compared with Int64; cast one of them
    ");
}

#[test]
fn dates_keep_hours() {
    assert_snapshot!(plan("SELECT DATE '2024-01-01' + INTERVAL '36 hours' AS x, DATE '2024-01-01' + INTERVAL '1 month' AS y, CAST(2.5 AS INTEGER) AS z"), @r"
    Project: 1704196800000000000 AS x, '2024-02-01' AS y, 3 AS z  ~1 rows
      Values: ()  ~1 rows
    ");
}

#[test]
fn ranks_are_signed() {
    assert_snapshot!(plan("SELECT * FROM (SELECT a, row_number() OVER (ORDER BY b) AS n FROM t) x JOIN u ON x.n - 1 = u.x"), @r"
    HashJoin: inner on n - 1 = CAST(x AS Int64)  ~500 rows
      Project: a, CAST(row_number() ORDER BY [t.b ASC NULLS LAS…#2 AS Int64) AS n  ~1000 rows
        Window: order by b -> row_number() RANGE start..current  ~1000 rows
          Scan t: a, b  ~1000 rows
      Scan u: a, x, UserID, s  ~100 rows
    ");
}

/// What all alternatives of an OR demand is demanded once; the join finds its key there.
#[test]
fn common_conjuncts_leave_alternatives() {
    assert_snapshot!(plan("SELECT t.b FROM t, u WHERE (t.a = u.a AND t.b = 1 AND u.x > 3) OR (t.a = u.a AND t.b = 2 AND u.x < 2)"), @r"
    HashJoin: inner on a = a if b = 1 AND x > 3 OR b = 2 AND x < 2 [filter 0 from a]  ~2 rows
      Scan u: a, x where x > 3 OR x < 2 [a by filter 0]  ~67 rows
      Scan t: a, b where b = 1 OR b = 2  ~10 rows
    ");
}
