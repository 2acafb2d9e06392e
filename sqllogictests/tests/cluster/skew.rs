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

/// The joins: those that answer for each probe row by itself, and one that answers for its build side.
fn queries() -> Vec<(&'static str, String, bool)> {
    let there = skewed(7);
    let nowhere = skewed(8);
    vec![
        (
            "inner",
            format!(
                "SELECT count(*), sum(l_quantity * o_custkey), {WIDE} FROM {there} JOIN {ORDERS} ON k = o_orderkey"
            ),
            true,
        ),
        (
            "left",
            format!(
                "SELECT count(*), count(o_orderkey), sum(l_quantity), {WIDE} FROM {nowhere} LEFT JOIN {ORDERS} \
                 ON k = o_orderkey AND o_custkey % 3 > 0"
            ),
            true,
        ),
        (
            "full",
            format!(
                "SELECT count(*), count(k), count(o_orderkey), sum(l_quantity), {WIDE} FROM {nowhere} FULL JOIN {ORDERS} \
                 ON k = o_orderkey"
            ),
            false,
        ),
    ]
}

pub fn trials() -> Vec<Trial> {
    let trial = |(name, sql, is_shared): (&str, String, bool)| {
        Trial::test(format!("half of the rows have one key, {name} join"), move || joined(&sql, is_shared))
    };
    queries().into_iter().map(trial).collect()
}

fn joined(sql: &str, is_shared: bool) -> Result<(), Failed> {
    let processes = Processes::start_with(WORKERS, false, &MEMORY)?;
    let mut seen = BTreeSet::new();
    for _ in 0..TIMES {
        must_be_right(&outcome(&ask(&processes, sql)?)?, sql)?;
        let Some((stage, hot)) = last_shared(&processes.server_log()) else { continue };
        let took_part =
            |worker: &usize| processes.ended_at(*worker).any(|(s, task)| s == stage && hot.contains(&task));
        seen.extend((0..WORKERS).filter(took_part));
        if seen.len() == WORKERS {
            break;
        }
    }
    match (is_shared, seen.len()) {
        (true, WORKERS) | (false, 0) => Ok(()),
        _ => {
            Err(format!("workers {seen:?} took part in a hot partition:\n{}", processes.server_log()).into())
        }
    }
}

/// The stage that has a hot partition, and the tasks that share it, as the log says last.
fn last_shared(log: &str) -> Option<(u32, BTreeSet<u32>)> {
    let line = log.lines().rfind(|line| line.contains("a hot partition is shared"))?;
    let field = |name: &str| Some(line.split_once(name)?.1.split(' ').next()?.trim_matches('"'));
    let hot = field(" hot=")?.split(',').filter_map(|task| task.parse().ok()).collect();
    Some((field(" stage=")?.parse().ok()?, hot))
}
