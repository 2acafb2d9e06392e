//! One query on a cluster, and a fault while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_engine::{EngineError, Session};
use dovetail_sqllogictests::cluster::Cluster;

use super::data;

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// With these rows.
    Answered(String),
    Failed(EngineError),
    /// Before the fault came: it shows nothing.
    TooEarly,
}

/// Times that a run is repeated whose query was faster than its fault.
const TRIES_MAX: usize = 40;

/// A query that takes longer hangs.
const HANGS: Duration = Duration::from_secs(120);

/// Runs a query, and `fault` when so much of it is done: `done` of its tasks, from 0 to 1.
pub fn with_fault(
    session: &Arc<Session>,
    sql: &str,
    done: f64,
    fault: impl FnOnce(),
) -> Result<Outcome, String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (running, text) = (session.clone(), sql.to_owned());
    std::thread::spawn(move || {
        // Nobody listens any more when the query has hung.
        let _ = sender.send(running.execute(&text));
    });
    let start = Instant::now();
    let mut has_begun = false;
    loop {
        let progress = session.progress();
        has_begun |= progress.is_some();
        match progress {
            Some(p) if p.tasks > 0 && p.tasks_done as f64 >= done * p.tasks as f64 => break,
            Some(_) => {}
            None if has_begun => return Ok(Outcome::TooEarly),
            None if start.elapsed() > HANGS => return Err("the query has not begun".into()),
            None => {}
        }
        std::thread::yield_now();
    }
    fault();
    let is_late = session.progress().is_none();
    match receiver.recv_timeout(HANGS) {
        Ok(Ok(result)) if is_late => {
            drop(result);
            Ok(Outcome::TooEarly)
        }
        Ok(Ok(result)) => Ok(Outcome::Answered(data::text(&result))),
        Ok(Err(error)) => Ok(Outcome::Failed(error)),
        Err(_) => Err(format!("the query hangs: {:?}", session.progress())),
    }
}

/// Runs until the fault comes in time. Each try has a cluster of its own, which `start` makes.
pub fn until_in_time<T>(
    mut start: impl FnMut() -> Result<T, String>,
    mut once: impl FnMut(&mut T) -> Result<Outcome, String>,
) -> Result<(Outcome, T), String> {
    for _ in 0..TRIES_MAX {
        let mut world = start()?;
        match once(&mut world)? {
            Outcome::TooEarly => {}
            outcome => return Ok((outcome, world)),
        }
    }
    Err(format!("the query was faster than its fault {TRIES_MAX} times"))
}

/// The outcome must be the answer of a single process.
pub fn must_be_right(outcome: &Outcome, sql: &str) -> Result<(), String> {
    match outcome {
        Outcome::Answered(text) if *text == data::expected(sql) => Ok(()),
        Outcome::Answered(text) => Err(format!("wrong rows:\n{text}\ninstead of\n{}", data::expected(sql))),
        Outcome::Failed(error) => Err(format!("the query has failed: {error}")),
        Outcome::TooEarly => Err("the fault has not come".into()),
    }
}

/// The outcome must be a failure: what was done is a fault.
pub fn must_fail(outcome: &Outcome) -> Result<(), String> {
    match outcome {
        Outcome::Failed(_) => Ok(()),
        _ => Err("without recovery the run does not fail: the fault is none".into()),
    }
}

/// Waits until the scheduler knows of so many slots; how long that took.
pub fn seconds_until_slots(cluster: &Cluster, slots: u32) -> Result<f64, String> {
    let start = Instant::now();
    cluster.wait_for_slots(slots).map_err(|e| e.to_string())?;
    Ok(start.elapsed().as_secs_f64())
}
