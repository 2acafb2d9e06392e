//! Operators as EXPLAIN shows them, one kind after the other.

use insta::assert_snapshot;

use super::plan;

#[test]
fn scans_filter_and_pick_columns() {
    assert_snapshot!(plan("SELECT b FROM t WHERE a > 1 AND c LIKE 'x%' ORDER BY b LIMIT 3"), @r"
    TopK: b, first 3  ~3 rows
      Scan t: b where a > 1 AND c LIKE 'x%'  ~44 rows
    ");
    assert_snapshot!(plan("SELECT b AS y, a AS x FROM t WHERE random() < 0.5"), @r"
    Project: b AS y, a AS x  ~334 rows
      Filter: random() < 0.5  ~334 rows
        Scan t: a, b  ~1000 rows
    ");
}

#[test]
fn the_smaller_side_is_built_and_filters_the_other() {
    assert_snapshot!(plan("SELECT t.b, u.x FROM t JOIN u ON t.a = u.a WHERE u.x = 3"), @r"
    HashJoin: inner on a = a [filter 0 from a]  ~5 rows
      Scan t: a, b [a by filter 0]  ~1000 rows
      Scan u: a, x where x = 3  ~1 rows
    ");
    assert_snapshot!(plan("SELECT u.x, t.b FROM u LEFT JOIN t ON t.a = u.a AND t.b > u.x"), @r"
    HashJoin: build outer on a = a if b > CAST(x AS Int64)  ~180 rows
      Scan t: a, b  ~1000 rows
      Scan u: a, x  ~100 rows
    ");
}

#[test]
fn joins_without_equality_loop() {
    assert_snapshot!(plan("SELECT t.b FROM t JOIN u ON t.b > u.x"), @r"
    NestedLoopJoin: inner on b > CAST(x AS Int64)  ~33k rows
      Scan t: b  ~1000 rows
      Scan u: x  ~100 rows
    ");
    assert_snapshot!(plan("SELECT t.b FROM t CROSS JOIN u"), @r"
    NestedLoopJoin: inner  ~100k rows
      Scan t: b  ~1000 rows
      Scan u  ~100 rows
    ");
}

/// INTERSECT and EXCEPT match nulls, so their joins publish no filter.
#[test]
fn set_operations_match_nulls() {
    assert_snapshot!(plan("SELECT a FROM t INTERSECT SELECT a FROM u WHERE x = 1"), @r"
    HashJoin: probe semi on a IS NOT DISTINCT FROM a  ~2 rows
      Aggregate: by a  ~199 rows
        Scan t: a  ~1000 rows
      Scan u: a where x = 1  ~1 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t EXCEPT ALL SELECT a FROM u"), @r"
    HashJoin: probe anti on a IS NOT DISTINCT FROM a AND __left_copy IS NOT DISTINCT FROM __right_copy  ~975 rows
      Project: a, CAST(__left_copy AS Int64) AS __left_copy  ~1000 rows
        Window: partition by a -> row_number() ROWS start..end  ~1000 rows
          Scan t: a  ~1000 rows
      Project: a, CAST(__right_copy AS Int64) AS __right_copy  ~100 rows
        Window: partition by a -> row_number() ROWS start..end  ~100 rows
          Scan u: a  ~100 rows
    ");
}

/// The filter from `u` passes the group key, and crosses the inner join to the column that is equal there; it
/// stops at the limit.
#[test]
fn runtime_filters_reach_scans_below_groups_and_sides() {
    assert_snapshot!(plan("SELECT g.n FROM (SELECT t.a, count(*) AS n FROM t JOIN t t2 ON t.a = t2.a GROUP BY t.a) g JOIN u ON g.a = u.a WHERE u.x = 3"), @r"
    HashJoin: inner on a = a [filter 0 from a]  ~2 rows
      Aggregate: by a -> count(1)  ~200 rows
        HashJoin: inner on a = a [filter 1 from a]  ~5000 rows
          Scan t: a [a by filter 0] [a by filter 1]  ~1000 rows
          Scan t: a [a by filter 0]  ~1000 rows
      Scan u: a where x = 3  ~1 rows
    ");
    assert_snapshot!(plan("SELECT g.b FROM (SELECT a, b FROM t LIMIT 10) g JOIN u ON g.a = u.a WHERE u.x = 3"), @r"
    HashJoin: inner on a = a  ~1 rows
      Limit: first 10  ~10 rows
        Scan t: a, b first 10  ~10 rows
      Scan u: a where x = 3  ~1 rows
    ");
}

#[test]
fn grouping_sets_have_a_grand_total_without_rows() {
    assert_snapshot!(plan("SELECT c, a, grouping(a), sum(b), count(*), array_agg(a) FROM t GROUP BY ROLLUP (c, a)"), @r"
    Project: c, a, CAST(__grouping_id & 1 AS Int32) AS grouping(a), sum(t.b) AS sum(b), count(Int64(1)) AS count(*), array_agg(t.a) AS array_agg(a)  ~665 rows
      Aggregate: by c0, c1, c2 -> sum(c4), count(c3), array_agg(c5) FILTER (c3 IS NOT NULL)  ~665 rows
        Union  ~1000 rows
          Expand: (c0, c1, 0, c2, c3, c4), (c0, NULL, 1, c2, c3, c4), (NULL, NULL, 3, c2, c3, c4)  ~1000 rows
            Project: c AS c0, a AS c1, true AS c2, b AS c3, a AS c4  ~1000 rows
              Scan t: a, b, c  ~1000 rows
          Values: (NULL, NULL, 3, NULL, NULL, NULL)
    ");
    assert_snapshot!(plan("SELECT c, sum(b) FROM t GROUP BY GROUPING SETS ((c), (c))"), @r"
    Project: c, sum(t.b) AS sum(b)  ~64 rows
      Aggregate: by c0, c1 -> sum(c2)  ~64 rows
        Expand: (c0, 0, c1), (c0, 2, c1)  ~1000 rows
          Scan t: c, b  ~1000 rows
    ");
}

#[test]
fn one_operator_for_each_window() {
    assert_snapshot!(plan("SELECT sum(b) OVER (PARTITION BY c ORDER BY e ROWS 2 PRECEDING) AS s, rank() OVER (ORDER BY b) - 1 AS r FROM t"), @r"
    Project: sum(t.b) PARTITION BY [t.c] ORDER BY [t.…#4 AS s, rank() ORDER BY [t.b ASC NULLS LAST] RAN…#3 - 1 AS r  ~1000 rows
      Window: partition by c order by e -> sum(b) ROWS -2..current  ~1000 rows
        Project: b, c, e, CAST(rank() ORDER BY [t.b ASC NULLS LAST] RAN…#3 AS Int64)  ~1000 rows
          Window: order by b -> rank() RANGE start..current  ~1000 rows
            Scan t: b, c, e  ~1000 rows
    ");
}

#[test]
fn aggregates_keep_their_clauses() {
    assert_snapshot!(plan("SELECT count(DISTINCT a), sum(b) FILTER (WHERE a > 1), array_agg(a ORDER BY b DESC NULLS LAST) FROM t"), @r"
    Aggregate: count(DISTINCT a), sum(b) FILTER (a > 1), array_agg(a ORDER BY b desc)  ~1 rows
      Scan t: a, b  ~1000 rows
    ");
}

#[test]
fn lists_become_rows() {
    assert_snapshot!(plan("SELECT a, unnest(l) FROM t"), @r"
    Unnest: __unnest_placeholder(t.l)  ~4000 rows
      Scan t: a, l  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT a, y FROM t LEFT JOIN unnest(t.l) AS v(y) ON true"), @r"
    Unnest: __unnest_placeholder(outer_ref(t.l))  ~4000 rows
      Scan t: a, l  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT * FROM unnest([1, 2]) AS v(x)"), @r"
    Unnest: __unnest_placeholder(make_array(Int64(1)…#0  ~4 rows
      Project: [1, 2]  ~1 rows
        Values: ()  ~1 rows
    ");
}

#[test]
fn recursion_reads_its_last_round() {
    assert_snapshot!(plan("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT * FROM r"), @r"
    Recursive 0  ~133k rows
      Project: 1 AS n  ~1 rows
        Values: ()  ~1 rows
      Project: n + 1 AS r.n + Int64(1)  ~33k rows
        Filter: n < 10  ~33k rows
          Project: n  ~100k rows
            WorkTable 0
    ");
}

#[test]
fn equal_subplans_run_once() {
    assert_snapshot!(plan("WITH g AS (SELECT a, sum(b) AS s FROM t GROUP BY a) SELECT x.a FROM g x JOIN g y ON x.s = y.s"), @r"
    HashJoin: inner on s = s  ~199 rows
      Shared 0  ~199 rows
      Project: sum(t.b) AS s  ~199 rows
        Shared 0  ~199 rows
    Shared 0:
      Aggregate: by a -> sum(b)  ~199 rows
        Scan t: a, b  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE b > (SELECT avg(b) FROM t) OR f > (SELECT avg(b) FROM t)"), @r"
    Project: a  ~556 rows
      Filter: CAST(b AS Float64) > __common_expr_3 OR f > __common_expr_3  ~556 rows
        Project: $0 AS __common_expr_3, a, b, f  ~1000 rows
          Scan t: a, b, f  ~1000 rows
    Subquery $0:
      Aggregate: avg(CAST(b AS Float64))  ~1 rows
        Scan t: b  ~1000 rows
    ");
}

#[test]
fn volatile_subplans_run_each_time() {
    assert_snapshot!(plan("WITH g AS (SELECT a, sum(b * random()) AS s FROM t GROUP BY a) SELECT x.a FROM g x JOIN g y ON x.s = y.s"), @r"
    HashJoin: inner on s = s  ~199 rows
      Aggregate: by a -> sum(CAST(b AS Float64) * random())  ~199 rows
        Scan t: a, b  ~1000 rows
      Project: sum(t.b * random()) AS s  ~199 rows
        Aggregate: by a -> sum(CAST(b AS Float64) * random())  ~199 rows
          Scan t: a, b  ~1000 rows
    ");
}

#[test]
fn expressions_are_written_one_way() {
    assert_snapshot!(plan("SELECT CASE a WHEN 1 THEN 'x' ELSE c END, a BETWEEN 1 AND 3, b NOT BETWEEN 1 AND 3, c ILIKE 'a%' FROM t"), @r"
    Project: CASE WHEN CAST(a AS Int64) = 1 THEN 'x' ELSE c END AS CASE a WHEN 1 THEN 'x' ELSE c END, a >= 1 AND a <= 3 AS a BETWEEN 1 AND 3, b < 1 OR b > 3 AS b NOT BETWEEN 1 AND 3, c ILIKE 'a%'  ~1000 rows
      Scan t: a, b, c  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t WHERE a = 1 OR a = 2 OR b = 3 OR b IS NULL"), @r"
    Scan t: a where a = 1 OR a = 2 OR b = 3 OR b IS NULL  ~16 rows
    ");
}

#[test]
fn limits_are_numbers() {
    assert_snapshot!(plan("SELECT a FROM t ORDER BY a LIMIT 5 OFFSET 2"), @r"
    Limit: skip 2 first 5  ~5 rows
      TopK: a, first 7  ~7 rows
        Scan t: a  ~1000 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t LIMIT 0"), @r"
    Values: 0 rows  ~0 rows
    ");
    assert_snapshot!(plan("SELECT a FROM t LIMIT 2 + 3"), @r"
    Limit: first 5  ~5 rows
      Scan t: a first 5  ~5 rows
    ");
}
