//! Workers that spill whatever can be, and the files that they leave, which are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query, session};
use super::run::{Outcome, must_be_right};

/// As if there were no memory: whatever can be spilled is.
pub const SPILLS: &str = "--spill-always";

/// What a query has written goes with it, which workers are told in the same moment.
const GONE_AFTER_MAX: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let trial = |number| Trial::test(format!("workers that spill, query {number}"), move || spilling(number));
    QUERIES.into_iter().map(trial).collect()
}

fn spilling(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    let session = session();
    let folder = tempfile::tempdir()?;
    let folder_name = folder.path().to_string_lossy();
    let words = [SPILLS, "--temp-dir", &folder_name];
    let _cluster = Cluster::start(&session, 2, &words).map_err(|e| format!("{e:#}"))?;
    let (result, has_spilled) = while_watching(folder.path(), || session.execute(&sql));
    let result = result.map_err(|e| e.to_string())?;
    must_be_right(&Outcome::Answered(super::data::text(&result)), &sql)?;
    if !has_spilled {
        return Err("nothing was spilled".into());
    }
    Ok(must_be_gone(folder.path())?)
}

/// Does something, and says whether there was a spill file in the folder meanwhile.
pub fn while_watching<T>(folder: &Path, act: impl FnOnce() -> T) -> (T, bool) {
    let (is_over, has_spilled) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                has_spilled.fetch_or(!files(folder).is_empty(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        done
    });
    (done, has_spilled.into_inner())
}

/// Waits until no spill file is left.
pub fn must_be_gone(folder: &Path) -> Result<(), String> {
    let start = Instant::now();
    while !files(folder).is_empty() {
        if start.elapsed() > GONE_AFTER_MAX {
            return Err(format!("files are left: {:?}", files(folder)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Files that queries have spilled; a lock file is none.
pub fn files(folder: &Path) -> Vec<PathBuf> {
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
