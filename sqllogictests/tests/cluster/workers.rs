//! Workers that come and go by themselves, that have little memory, and whose disks fail.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dovetail_engine::EngineError;
use dovetail_server::cluster::Recovery;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query, session};
use super::losses::{signal_to, world};
use super::run::{Outcome, must_be_right, until_in_time, with_fault};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("workers join while a query runs", joined),
        Trial::test("a query is cancelled", cancelled),
        Trial::test("a segment is cut", || damaged(cut)),
        Trial::test("a segment is gone", || damaged(remove)),
    ];
    for number in QUERIES {
        let name = format!("a worker leaves, query {number}");
        trials.push(Trial::test(name, move || left(number)));
        let name = format!("workers that spill, query {number}");
        trials.push(Trial::test(name, move || spilling(number)));
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

/// As if there were no memory: whatever can be spilled is.
const SPILLS: &str = "--spill-always";

fn spilling(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    let session = session();
    let folder = tempfile::tempdir()?;
    let folder_name = folder.path().to_string_lossy();
    let words = [SPILLS, "--temp-dir", &folder_name];
    let cluster = Cluster::start(&session, 2, &words).map_err(|e| format!("{e:#}"))?;
    let (is_over, has_spilled) = (AtomicBool::new(false), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                has_spilled.fetch_or(!files(folder.path()).is_empty(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let result = session.execute(&sql);
        is_over.store(true, Ordering::Relaxed);
        result
    });
    let result = result.map_err(|e| e.to_string())?;
    must_be_right(&Outcome::Answered(super::data::text(&result)), &sql)?;
    if !has_spilled.load(Ordering::Relaxed) {
        return Err("nothing was spilled".into());
    }
    // What workers have written goes with the query, which they are told in the same moment.
    let start = Instant::now();
    while !files(folder.path()).is_empty() {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("files are left: {:?}", files(folder.path())).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(cluster);
    Ok(())
}

fn cut(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

fn remove(path: &Path) -> std::io::Result<()> {
    fs::remove_file(path)
}

/// Files that queries have spilled; a lock file is none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none() {
            found.push(path);
        }
    }
    found
}

/// Harms spill files of one worker for as long as the queries run: each is right, or an error.
fn damaged(harm: fn(&Path) -> std::io::Result<()>) -> Result<(), Failed> {
    let session = session();
    let folder = tempfile::tempdir()?;
    let folder_name = folder.path().to_string_lossy();
    let words = [SPILLS, "--temp-dir", &folder_name];
    let _cluster = Cluster::start(&session, 2, &words).map_err(|e| format!("{e:#}"))?;
    let (is_over, harmed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // One file now and then: a disk that loses everything is a lost worker.
                if let Some(path) = files(folder.path()).first()
                    && harm(path).is_ok()
                {
                    harmed.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let mut outcome = Ok(());
        for number in QUERIES.iter().cycle().take(3 * QUERIES.len()) {
            let sql = query(*number);
            if let Ok(result) = session.execute(&sql) {
                outcome = must_be_right(&Outcome::Answered(super::data::text(&result)), &sql);
                if outcome.is_err() {
                    break;
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    outcome?;
    match harmed.load(Ordering::Relaxed) {
        0 => Err("no file was harmed".into()),
        _ => Ok(()),
    }
}
