//! Joins on a key that half of the rows have, with build sides that do not fit: the rows are those of a single process,
//! and all workers take part in the hot partition.

use std::collections::BTreeSet;

use sqllogictest::harness::{Failed, Trial};

use super::restart::{ask, outcome};
use super::run::must_be_right;
use super::server::Processes;

const WORKERS: usize = 2;

/// Of a worker: too little for the build side below.
const MEMORY: [&str; 2] = ["--memory-limit", "32MiB"];

/// The build side, and what is asked of it so that it is wide.
const ORDERS: &str = "(SELECT * FROM orders UNION ALL \
     SELECT * REPLACE (o_orderkey + 10000000 AS o_orderkey) FROM orders) AS o";
const WIDE: &str = "max(o_comment), max(o_clerk), max(o_orderpriority)";

/// Times that a query is asked until all workers have taken part: a task goes to whoever is free.
const TIMES: usize = 5;

/// More than half of lineitem has one key of orders, or one that no order has.
fn skewed(key: u32) -> String {
    format!(
        "(SELECT CASE WHEN l_linenumber <= 3 THEN {key} ELSE l_orderkey END AS k, l_quantity, l_comment \
         FROM lineitem) AS l"
    )
}

/// The joins: those that answer for each probe row by itself, and those that answer for their build side, with and
/// without a condition on columns that are not keys.
fn queries() -> Vec<(&'static str, String)> {
    let there = skewed(7);
    let nowhere = skewed(8);
    vec![
        (
            "inner",
            format!(
                "SELECT count(*), sum(l_quantity * o_custkey), {WIDE} FROM {there} JOIN {ORDERS} ON k = o_orderkey"
            ),
        ),
        (
            "left",
            format!(
                "SELECT count(*), count(o_orderkey), sum(l_quantity), {WIDE} FROM {nowhere} LEFT JOIN {ORDERS} \
                 ON k = o_orderkey AND o_custkey % 3 > 0"
            ),
        ),
        (
            "full",
            format!(
                "SELECT count(*), count(k), count(o_orderkey), sum(l_quantity), {WIDE} FROM {nowhere} FULL JOIN {ORDERS} \
                 ON k = o_orderkey"
            ),
        ),
        (
            "conditional full",
            format!(
                "SELECT count(*), count(k), count(o_orderkey), sum(o_custkey), sum(l_quantity), {WIDE} FROM {there} \
                 FULL JOIN {ORDERS} ON k = o_orderkey AND l_quantity % 5 > o_custkey % 5"
            ),
        ),
        (
            "right",
            format!(
                "SELECT count(*), count(k), sum(o_custkey), sum(l_quantity), max(l_comment), {WIDE} FROM {there} \
                 RIGHT JOIN {ORDERS} ON k = o_orderkey AND l_quantity % 7 > o_custkey % 7"
            ),
        ),
        (
            "semi",
            format!(
                "SELECT count(*), sum(o_custkey), {WIDE} FROM {ORDERS} WHERE EXISTS \
                 (SELECT * FROM {there} WHERE k = o_orderkey AND l_quantity % 7 > o_custkey % 7)"
            ),
        ),
        (
            "anti",
            format!(
                "SELECT count(*), sum(o_custkey), {WIDE} FROM {ORDERS} WHERE NOT EXISTS \
                 (SELECT * FROM {there} WHERE k = o_orderkey)"
            ),
        ),
    ]
}

pub fn trials() -> Vec<Trial> {
    let trial = |(name, sql): (&str, String)| {
        Trial::test(format!("half of the rows have one key, {name} join"), move || joined(&sql))
    };
    queries().into_iter().map(trial).collect()
}

fn joined(sql: &str) -> Result<(), Failed> {
    let processes = Processes::start_with(WORKERS, false, &MEMORY)?;
    let mut seen = BTreeSet::new();
    for _ in 0..TIMES {
        must_be_right(&outcome(&ask(&processes, sql)?)?, sql)?;
        let Some((stage, hot)) = last_shared(&processes.server_log()) else { continue };
        let took_part =
            |worker: &usize| processes.ended_at(*worker).any(|(s, task)| s == stage && hot.contains(&task));
        seen.extend((0..WORKERS).filter(took_part));
        if seen.len() == WORKERS {
            return Ok(());
        }
    }
    Err(format!("workers {seen:?} took part in a hot partition:\n{}", processes.server_log()).into())
}

/// The last stage of the log that has a hot partition, and the tasks that share it.
fn last_shared(log: &str) -> Option<(u32, BTreeSet<u32>)> {
    let line = log.lines().rfind(|line| line.contains("a hot partition is shared"))?;
    let field = |name: &str| Some(line.split_once(name)?.1.split(' ').next()?.trim_matches('"'));
    let hot = field(" hot=")?.split(',').filter_map(|task| task.parse().ok()).collect();
    Some((field(" stage=")?.parse().ok()?, hot))
}
