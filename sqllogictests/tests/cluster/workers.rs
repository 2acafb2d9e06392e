//! Workers that come and go by themselves, and queries that are cancelled.

use std::time::{Duration, Instant};

use dovetail_engine::EngineError;
use dovetail_server::cluster::Recovery;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query};
use super::losses::{signal_to, world};
use super::run::{Outcome, must_be_right, until_in_time, with_fault};

/// Times that a query is run to be looked at.
const TRIES_MAX: usize = 20;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("workers join while a query runs", joined),
        Trial::test("a query is cancelled", cancelled),
        Trial::test("workers and tasks can be seen", seen),
    ];
    for number in QUERIES {
        let name = format!("a worker leaves, query {number}");
        trials.push(Trial::test(name, move || left(number)));
    }
    trials
}

/// A worker that is told to leave ends by itself, and well, and the query goes on.
fn left(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    let (outcome, (mut cluster, _session)) = until_in_time(
        || world(3, Recovery::On),
        |(cluster, session)| {
            let process = cluster.worker(1).id();
            with_fault(session, &sql, 0.4, || signal_to(process, "-TERM"))
        },
    )?;
    must_be_right(&outcome, &sql)?;
    let start = Instant::now();
    loop {
        match cluster.worker(1).try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the worker has ended with {status}").into()),
            _ if start.elapsed() > Duration::from_secs(30) => return Err("the worker stays".into()),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What the system's tables tell while a query runs.
fn seen() -> Result<(), Failed> {
    let (_cluster, session) = world(3, Recovery::On)?;
    let told = |sql: &str| -> Result<String, String> {
        session.execute(sql).map(|result| super::data::text(&result)).map_err(|e| e.to_string())
    };
    let workers = told("SELECT count(*) AS n, sum(slots) AS slots FROM system.workers WHERE NOT is_leaving")?;
    if !workers.contains("| 3 | 3     |") {
        return Err(format!("three workers of one slot are shown as\n{workers}").into());
    }
    let sql = query(21);
    for _ in 0..TRIES_MAX {
        let (running, text) = (session.clone(), sql.clone());
        let query = std::thread::spawn(move || running.execute(&text).map(drop));
        let mut is_seen = false;
        while !query.is_finished() {
            // The statement that looks is planned, and so looks, before it runs itself.
            is_seen |= told("SELECT count(*) > 0 AS there FROM system.tasks")?.contains("true");
        }
        query.join().map_err(|_| "the query has panicked")?.map_err(|e| e.to_string())?;
        if is_seen {
            return Ok(());
        }
    }
    Err("no task was ever seen".into())
}

fn joined() -> Result<(), Failed> {
    let sql = query(9);
    let (outcome, (cluster, session)) = until_in_time(
        || world(1, Recovery::On),
        |(cluster, session)| {
            let mut added = Ok(());
            let outcome = with_fault(session, &sql, 0.2, || added = cluster.add(&[]));
            added.map_err(|e| e.to_string())?;
            outcome
        },
    )?;
    must_be_right(&outcome, &sql)?;
    cluster.wait_for_slots(2).map_err(|e| e.to_string())?;
    let result = session.execute(&sql).map_err(|e| e.to_string())?;
    must_be_right(&Outcome::Answered(super::data::text(&result)), &sql)?;
    Ok(())
}

fn cancelled() -> Result<(), Failed> {
    let sql = query(21);
    let (outcome, (_cluster, session)) = until_in_time(
        || world(2, Recovery::On),
        |(_, session)| with_fault(session, &sql, 0.3, || session.cancel_handle().cancel()),
    )?;
    match outcome {
        Outcome::Failed(EngineError::Cancelled) => {}
        other => return Err(format!("not cancelled: {other:?}").into()),
    }
    let result = session.execute(&sql).map_err(|e| e.to_string())?;
    must_be_right(&Outcome::Answered(super::data::text(&result)), &sql)?;
    let memory = session.memory();
    if (memory.used_bytes, memory.spill_files) != (0, 0) {
        return Err(format!("something is left: {memory:?}").into());
    }
    Ok(())
}
