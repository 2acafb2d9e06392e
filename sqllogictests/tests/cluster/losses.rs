//! Workers that die or hang in the middle of a query, at every phase of it.

use std::process::Command;
use std::sync::Arc;

use dovetail_engine::Session;
use dovetail_server::cluster::Recovery;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query, session};
use super::run::{Outcome, must_be_right, must_fail, seconds_until_slots, until_in_time, with_fault};

/// Parts of the tasks that are done when the fault comes: while the first scans run, in the shuffles, near the end.
const PHASES: [f64; 4] = [0.0, 0.3, 0.6, 0.9];

/// When a worker is stopped, one after the other: as long as others can do what it does, its loss is not noticed.
const PHASES_OF_A_STOP: [f64; 5] = [0.4, 0.7, 0.2, 0.9, 0.5];

const WORKERS: usize = 3;

/// What is done to a worker.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Stopped,
}

impl Fault {
    /// The longest that the scheduler may take to notice.
    fn noticed_within_seconds(self) -> f64 {
        match self {
            Fault::Killed => 2.0,
            Fault::Stopped => 10.0,
        }
    }

    fn strike(self, process: u32) {
        let signal = match self {
            Fault::Killed => "-KILL",
            Fault::Stopped => "-STOP",
        };
        signal_to(process, signal);
    }
}

/// Sends a signal.
pub fn signal_to(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "{signal} cannot be sent to {process}");
}

/// A cluster with its session.
pub type World = (Cluster, Arc<Session>);

pub fn world(workers: usize, recovery: Recovery) -> Result<World, String> {
    let session = session();
    let cluster = Cluster::with_recovery(&session, workers, &[], recovery);
    Ok((cluster.map_err(|e| format!("{e:#}"))?, session))
}

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![];
    for number in QUERIES {
        for phase in PHASES {
            let name = format!("a worker is killed, query {number}, {phase} done");
            trials.push(Trial::test(name, move || struck(Fault::Killed, number, &[phase])));
        }
        let name = format!("a worker is stopped, query {number}");
        trials.push(Trial::test(name, move || struck(Fault::Stopped, number, &PHASES_OF_A_STOP)));
    }
    trials.push(Trial::test("all workers are killed", all_killed));
    trials
}

fn struck(fault: Fault, number: usize, phases: &[f64]) -> Result<(), Failed> {
    let sql = query(number);
    for recovery in [Recovery::Off, Recovery::On] {
        let mut phases = phases.iter().cycle();
        let victim = (phases.clone().next().unwrap_or(&0.0) * 10.0) as usize % WORKERS;
        let (outcome, (cluster, _session)) = until_in_time(
            || world(WORKERS, recovery),
            |(cluster, session)| {
                let process = cluster.worker(victim).id();
                let phase = phases.next().unwrap_or(&0.0);
                let outcome = with_fault(session, &sql, *phase, || fault.strike(process))?;
                // A query that ended before the loss was noticed did not need the worker any more; without recovery
                // one that ended well did not either, or a second attempt was started in time elsewhere.
                let is_noticed = cluster.slots() < WORKERS as u32;
                let is_well = matches!(outcome, Outcome::Answered(_));
                let has_struck = is_noticed && !(is_well && recovery == Recovery::Off);
                Ok(if has_struck { outcome } else { Outcome::TooEarly })
            },
        )?;
        match recovery {
            Recovery::Off => must_fail(&outcome)?,
            Recovery::On => must_be_right(&outcome, &sql)?,
        }
        // Most of it has passed while the query ran.
        let seconds = seconds_until_slots(&cluster, WORKERS as u32 - 1)?;
        if seconds > fault.noticed_within_seconds() {
            return Err(format!("{fault:?}: noticed after {seconds} s").into());
        }
    }
    Ok(())
}

/// A bounded wait, an error that says so, and a cluster that works again with new workers.
fn all_killed() -> Result<(), Failed> {
    let sql = query(9);
    let (outcome, (mut cluster, session)) = until_in_time(
        || world(WORKERS, Recovery::On),
        |(cluster, session)| {
            let processes: Vec<u32> = (0..WORKERS).map(|w| cluster.worker(w).id()).collect();
            with_fault(session, &sql, 0.3, || processes.iter().for_each(|p| Fault::Killed.strike(*p)))
        },
    )?;
    let Outcome::Failed(error) = outcome else {
        return Err("there was nobody to answer".into());
    };
    if !error.to_string().contains("all workers are gone") {
        return Err(format!("the error does not say what is the matter: {error}").into());
    }
    cluster.add(&[]).map_err(|e| e.to_string())?;
    cluster.wait_for_slots(1).map_err(|e| e.to_string())?;
    let result = session.execute(&sql).map_err(|e| e.to_string())?;
    must_be_right(&Outcome::Answered(super::data::text(&result)), &sql)?;
    Ok(())
}
