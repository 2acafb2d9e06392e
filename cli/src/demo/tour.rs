//! A few queries that show what the engine does, with the time each takes.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use dovetail_engine::Session;

use crate::format::{Format, Layout, write_result};

/// What a query shows, and the query.
const STOPS: &[(&str, &str)] = &[
    (
        "A full scan into few groups: what was ordered, shipped and returned (TPC-H query 1)",
        "SELECT l_returnflag, l_linestatus,
       sum(l_quantity) AS quantity,
       sum(l_extendedprice) AS price,
       sum(l_extendedprice * (1 - l_discount)) AS discounted,
       round(avg(l_discount), 4) AS mean_discount,
       count(*) AS items
FROM lineitem
WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL '90' DAY
GROUP BY l_returnflag, l_linestatus
ORDER BY l_returnflag, l_linestatus",
    ),
    (
        "A narrow filter over the largest table: revenue of small discounts (TPC-H query 6)",
        "SELECT sum(l_extendedprice * l_discount) AS revenue
FROM lineitem
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'
  AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24",
    ),
    (
        "Six tables joined: revenue within Asia, by nation (TPC-H query 5)",
        "SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM customer
JOIN orders ON o_custkey = c_custkey
JOIN lineitem ON l_orderkey = o_orderkey
JOIN supplier ON s_suppkey = l_suppkey AND s_nationkey = c_nationkey
JOIN nation ON n_nationkey = s_nationkey
JOIN region ON r_regionkey = n_regionkey
WHERE r_name = 'ASIA' AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1995-01-01'
GROUP BY n_name
ORDER BY revenue DESC",
    ),
    (
        "Many groups, of which few are wanted: the largest orders",
        "SELECT o_orderkey, c_name, o_orderdate, sum(l_quantity) AS quantity, o_totalprice
FROM orders
JOIN customer ON c_custkey = o_custkey
JOIN lineitem ON l_orderkey = o_orderkey
GROUP BY o_orderkey, c_name, o_orderdate, o_totalprice
ORDER BY quantity DESC, o_totalprice DESC, o_orderkey
LIMIT 5",
    ),
    (
        "A window over groups: each year's best month",
        "SELECT year, month, revenue
FROM (
  SELECT year, month, revenue, rank() OVER (PARTITION BY year ORDER BY revenue DESC) AS place
  FROM (
    SELECT extract(year FROM o_orderdate) AS year, extract(month FROM o_orderdate) AS month,
           sum(o_totalprice) AS revenue
    FROM orders
    GROUP BY 1, 2
  ) AS months
) AS ranked
WHERE place = 1
ORDER BY year",
    ),
];

/// Runs the queries in order, printing each with its result and its time.
pub fn run(out: &mut impl Write, session: &Session) -> Result<()> {
    let layout = Layout::of_stdout();
    for (title, sql) in STOPS {
        writeln!(out, "\n-- {title}\n{sql};")?;
        out.flush()?;
        let start = Instant::now();
        let result = session.stream(sql)?;
        write_result(out, result, Format::Table, &layout, Some(start.elapsed()))?;
    }
    Ok(writeln!(out)?)
}
