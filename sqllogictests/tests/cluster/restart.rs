//! The scheduler dies in the middle of a query, and is started again on the same address with the same state directory:
//! the client gets the rows that a single process gives, and what had been finished is not run again.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_engine::{EngineError, QueryResult};
use dovetail_server::remote::RemoteSession;
use dovetail_server::security::Security;
use sqllogictest::harness::{Failed, Trial};

use super::data::{self, QUERIES, query};
use super::run::{Outcome, must_be_right, must_fail, until_in_time};
use super::server::{Processes, Task, whole_stages};

/// Parts of the tasks that have ended when the scheduler dies.
const PHASES: [f64; 3] = [0.15, 0.3, 0.5];

const WORKERS: usize = 3;

/// A query that takes longer hangs.
const HANGS: Duration = Duration::from_secs(180);

/// From the end of a task until the scheduler has surely written it down.
const REPORTED: Duration = Duration::from_millis(30);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("the scheduler is killed twice", killed_twice),
        Trial::test("the scheduler is told to end, and started again", told_to_end),
        Trial::test("the scheduler is killed, and a worker with it", killed_with_a_worker),
        Trial::test("the scheduler is killed, and its log is torn", || harmed(tear)),
        Trial::test("the scheduler is killed, and its log is damaged", || harmed(flip)),
        Trial::test("the scheduler is killed, and its log is gone", gone),
    ];
    for number in QUERIES {
        for phase in PHASES {
            let name = format!("the scheduler is killed, query {number}, {phase} done");
            trials.push(Trial::test(name, move || killed(number, phase)));
        }
        let name = format!("the scheduler is killed without a state directory, query {number}");
        trials.push(Trial::test(name, move || forgotten(number)));
    }
    trials
}

/// A query on its way.
pub struct Asked {
    answer: Receiver<Result<QueryResult, EngineError>>,
    /// What the person at the client has been told meanwhile.
    told: Arc<Mutex<Vec<String>>>,
}

/// Asks a server, from a thread of its own.
pub fn ask(processes: &Processes, sql: &str) -> Result<Asked, String> {
    let address = processes.url().parse().map_err(|e| format!("{e}"))?;
    let session = RemoteSession::connect(&address, &Security::default()).map_err(|e| e.to_string())?;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = told.clone();
    let session = session.with_notice(move |text| lines.lock().unwrap().push(text.to_owned()));
    let (sender, answer) = std::sync::mpsc::channel();
    let sql = sql.to_owned();
    std::thread::spawn(move || {
        let result = session.stream(&sql).and_then(|stream| {
            let (schema, kind) = (stream.schema.clone(), stream.kind.clone());
            Ok(QueryResult { schema, kind, batches: stream.collect::<Result<_, _>>()? })
        });
        // Nobody listens any more when the query has hung.
        let _ = sender.send(result);
    });
    Ok(Asked { answer, told })
}

pub fn outcome(asked: &Asked) -> Result<Outcome, String> {
    match asked.answer.recv_timeout(HANGS) {
        Ok(Ok(result)) => Ok(Outcome::Answered(data::text(&result))),
        Ok(Err(error)) => Ok(Outcome::Failed(error)),
        Err(_) => Err("the query hangs".into()),
    }
}

/// The tasks that a query has at the workers.
fn all_tasks(sql: &str) -> Result<BTreeSet<Task>, String> {
    let processes = Processes::start(WORKERS, false)?;
    must_be_right(&outcome(&ask(&processes, sql)?)?, sql)?;
    Ok(processes.ended().into_keys().collect())
}

/// Waits until so many tasks have ended. Says whether that came before the query's end.
fn wait_for_tasks(processes: &Processes, asked: &Asked, tasks: usize) -> Result<bool, String> {
    let start = Instant::now();
    while processes.ended().values().sum::<usize>() < tasks {
        match asked.answer.try_recv() {
            Ok(_) | Err(TryRecvError::Disconnected) => return Ok(false),
            Err(TryRecvError::Empty) if start.elapsed() > HANGS => return Err("the query hangs".into()),
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(true)
}

/// A query, and the scheduler that dies when so much of it is done and comes back after `harm` was done.
fn struck(
    sql: &str,
    all: &BTreeSet<Task>,
    phase: f64,
    with_state: bool,
    harm: impl Fn(&mut Processes) -> Result<(), String>,
) -> Result<(Outcome, Processes, BTreeSet<Task>), String> {
    let tasks = ((all.len() as f64 * phase) as usize).max(1);
    let start = || Ok((Processes::start(WORKERS, with_state)?, BTreeSet::new()));
    let once = |(processes, before): &mut (Processes, BTreeSet<Task>)| {
        let asked = ask(processes, sql)?;
        if !wait_for_tasks(processes, &asked, tasks)? {
            return Ok(Outcome::TooEarly);
        }
        let recorded = processes.ended();
        // Nothing ends while what has ended is told.
        processes.signal_workers("-STOP");
        std::thread::sleep(REPORTED);
        processes.kill_server();
        processes.signal_workers("-CONT");
        if !with_state {
            // The client does not wait.
            return Ok(match outcome(&asked)? {
                Outcome::Answered(_) => Outcome::TooEarly,
                failed => failed,
            });
        }
        // Nothing is left to go on with once the last task at a worker has ended.
        if processes.ended().len() >= all.len()
            || !matches!(asked.answer.try_recv(), Err(TryRecvError::Empty))
        {
            return Ok(Outcome::TooEarly);
        }
        let whole = whole_stages(&recorded, all);
        *before = recorded.into_keys().filter(|(stage, _)| whole.contains(stage)).collect();
        harm(processes)?;
        processes.start_server()?;
        let outcome = outcome(&asked)?;
        match &asked.told.lock().unwrap()[..] {
            [line] if line.contains("was lost; waiting") => Ok(outcome),
            lines => Err(format!("the client should have told once that it waits: {lines:?}")),
        }
    };
    let (outcome, (processes, before)) = until_in_time(start, once)?;
    Ok((outcome, processes, before))
}

fn killed(number: usize, phase: f64) -> Result<(), Failed> {
    let sql = query(number);
    let all = all_tasks(&sql)?;
    let (outcome, processes, before) = struck(&sql, &all, phase, true, |_| Ok(()))?;
    must_be_right(&outcome, &sql)?;
    processes.wait_for("a query goes on", 1)?;
    if phase >= 0.5 && before.is_empty() {
        return Err("no stage was finished: this shows nothing".into());
    }
    let ended = processes.ended();
    let again: Vec<_> = before.iter().filter(|task| ended[*task] > 1).collect();
    if !again.is_empty() {
        return Err(format!("tasks of stages that were finished have run again: {again:?}").into());
    }
    let runs: usize = ended.values().sum();
    if runs >= 2 * all.len() {
        return Err(format!("{runs} attempts have run for {} tasks: nothing was kept", all.len()).into());
    }
    is_clean(&processes)?;
    Ok(())
}

/// The log goes with the query.
fn is_clean(processes: &Processes) -> Result<(), String> {
    let start = Instant::now();
    while !processes.query_logs().is_empty() {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("logs are left: {:?}", processes.query_logs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What is survived above is a fault: without the state directory the query fails, and the client is told why.
fn forgotten(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    let (outcome, _, _) = struck(&sql, &all_tasks(&sql)?, 0.5, false, |_| Ok(()))?;
    must_fail(&outcome)?;
    match outcome {
        Outcome::Failed(error) if error.to_string().contains("the connection was lost") => Ok(()),
        other => Err(format!("the error does not say what is the matter: {other:?}").into()),
    }
}

fn killed_twice() -> Result<(), Failed> {
    let sql = query(21);
    let all = all_tasks(&sql)?;
    let (outcome, processes, _) = struck(&sql, &all, 0.3, true, |processes| {
        processes.start_server()?;
        processes.wait_for("a query goes on", 1)?;
        processes.kill_server();
        Ok(())
    })?;
    must_be_right(&outcome, &sql)?;
    is_clean(&processes)?;
    Ok(())
}

/// An orderly end is as little a reason to lose a query.
fn told_to_end() -> Result<(), Failed> {
    let sql = query(21);
    let tasks = all_tasks(&sql)?.len() / 3;
    let start = || Processes::start(WORKERS, true);
    let once = |processes: &mut Processes| {
        let asked = ask(processes, &sql)?;
        if !wait_for_tasks(processes, &asked, tasks)? {
            return Ok(Outcome::TooEarly);
        }
        // The query must not end in the time that the server gives it.
        processes.signal_workers("-STOP");
        processes.end_server();
        processes.signal_workers("-CONT");
        if !matches!(asked.answer.try_recv(), Err(TryRecvError::Empty)) {
            return Ok(Outcome::TooEarly);
        }
        processes.start_server()?;
        outcome(&asked)
    };
    let (outcome, processes) = until_in_time(start, once)?;
    must_be_right(&outcome, &sql)?;
    processes.wait_for("a query goes on", 1)?;
    Ok(is_clean(&processes)?)
}

fn killed_with_a_worker() -> Result<(), Failed> {
    for number in QUERIES {
        let sql = query(number);
        let (outcome, processes, _) = struck(&sql, &all_tasks(&sql)?, 0.5, true, |processes| {
            processes.kill_worker(1);
            Ok(())
        })?;
        must_be_right(&outcome, &sql)?;
        processes.wait_for("a worker has not come back", 1)?;
    }
    Ok(())
}

fn tear(log: &Path, _: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(log)?;
    file.set_len(file.metadata()?.len() - 3)
}

/// Flips a bit, at one of many places in turn.
fn flip(log: &Path, turn: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(log)?;
    let at = file.metadata()?.len() * (turn + 1) / 7;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 16])
}

/// The right rows, or an error that says what to do; never others.
fn harmed(harm: fn(&Path, u64) -> std::io::Result<()>) -> Result<(), Failed> {
    let sql = query(5);
    let all = all_tasks(&sql)?;
    for turn in 0..6 {
        let (outcome, processes, _) = struck(&sql, &all, 0.5, true, |processes| {
            let [log] = &processes.query_logs()[..] else { return Err("there is no one log".into()) };
            harm(log, turn).map_err(|e| e.to_string())
        })?;
        match &outcome {
            Outcome::Failed(error) if error.to_string().contains("run it again") => {}
            Outcome::Failed(error) if error.to_string().contains("the connection was lost") => {}
            outcome => must_be_right(outcome, &sql)?,
        }
        let log = processes.server_log();
        if !log.contains("a query's log is not whole") {
            return Err(format!("the harm was not noticed:\n{log}").into());
        }
    }
    Ok(())
}

fn gone() -> Result<(), Failed> {
    let sql = query(5);
    let (outcome, _, _) = struck(&sql, &all_tasks(&sql)?, 0.5, true, |processes| {
        let logs = processes.query_logs();
        logs.iter().try_for_each(std::fs::remove_file).map_err(|e| e.to_string())
    })?;
    Ok(must_fail(&outcome)?)
}
