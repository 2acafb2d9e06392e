//! Disks that are full, by a quota and in earnest: another directory is used, or another worker, or the query fails
//! with an error that names directory and bytes; nothing is left of it, and others do not notice.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dovetail_engine::Session;
use dovetail_server::cluster::Recovery;
use dovetail_server::security::SecurityFiles;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{query, session, text};
use super::run::{Outcome, must_be_right};
use super::spilling::{SPILLS, files, must_be_gone, while_watching};

/// Far less than what a worker spills of query 9, far more than one file of [`SMALL`].
const QUOTA: &str = "400KB";

/// Less than what one of three workers spills of it.
const LITTLE: &str = "64KB";

/// Spills a little, where everything is spilled.
const SMALL: &str =
    "SELECT n_regionkey, count(*), max(n_comment) FROM nation GROUP BY n_regionkey ORDER BY 1";

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a directory is full, another is not", another_directory),
        Trial::test("all directories are full", all_full),
        Trial::test("one worker's directory is full", one_full),
        Trial::test("one worker's disk is full", disk_full),
    ]
}

fn another_directory() -> Result<(), Failed> {
    let sql = query(9);
    let (small, large) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let session = session();
    let (first, second) = (with_quota(small.path(), QUOTA), large.path().to_string_lossy());
    // Without recovery: nothing fails.
    let words = [SPILLS, "--temp-dir", &first, "--temp-dir", &second];
    let _cluster = Cluster::with_recovery(&session, 2, &words, Recovery::Off)?;
    let (result, is_used) = while_watching(large.path(), || execute(&session, &sql));
    must_be_right(&Outcome::Answered(result?), &sql)?;
    if !is_used {
        return Err("the second directory was not used: the first was not full".into());
    }
    must_be_gone(small.path())?;
    Ok(must_be_gone(large.path())?)
}

/// The query fails, another at the same time does not; and however often that happens, nothing is left.
fn all_full() -> Result<(), Failed> {
    let sql = query(9);
    let folder = tempfile::tempdir()?;
    let session = session();
    let quota = with_quota(folder.path(), QUOTA);
    let _cluster = Cluster::start(&session, 2, &[SPILLS, "--temp-dir", &quota])?;
    for _ in 0..2 {
        let (failed, other) = std::thread::scope(|scope| {
            let failing = scope.spawn(|| execute(&session, &sql));
            let mut other = Ok(());
            while !failing.is_finished() {
                // The disk may be too full for this one as well, at the moment: then it says so.
                other = other.and_then(|()| small_or_full(&session, folder.path()));
            }
            (failing.join().expect("a query does not panic"), other)
        });
        must_say_full(failed, folder.path())?;
        other?;
        must_be_gone(folder.path())?;
        // All of the quota is there again.
        must_be_right(&Outcome::Answered(execute(&session, SMALL)?), SMALL)?;
    }
    Ok(())
}

fn small_or_full(session: &Arc<Session>, folder: &Path) -> Result<(), String> {
    match execute(session, SMALL) {
        Ok(rows) => must_be_right(&Outcome::Answered(rows), SMALL),
        full => must_say_full(full, folder),
    }
}

/// Its tasks run elsewhere; without recovery they do not.
fn one_full() -> Result<(), Failed> {
    let (folder, others) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let small = with_quota(folder.path(), LITTLE);
    for recovery in [Recovery::Off, Recovery::On] {
        let session = session();
        let mut cluster = Cluster::without_workers(&session, SecurityFiles::default(), recovery)?;
        cluster.add(&[SPILLS, "--temp-dir", &small])?;
        two_others(&mut cluster, others.path())?;
        runs_elsewhere(&session, recovery, folder.path())?;
        must_be_gone(folder.path())?;
        must_be_gone(others.path())?;
    }
    Ok(())
}

/// The same with a file system that is full, where this machine lets a process mount one for itself.
fn disk_full() -> Result<(), Failed> {
    let may_mount =
        Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !may_mount.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("no file system can be mounted here: full disks are tried with quotas only");
        return Ok(());
    }
    let (folder, others) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let disk = folder.path().to_string_lossy();
    for recovery in [Recovery::Off, Recovery::On] {
        let session = session();
        let mut cluster = Cluster::without_workers(&session, SecurityFiles::default(), recovery)?;
        let worker = cluster.command(cluster.url(), &[SPILLS, "--temp-dir", &disk])?;
        cluster.add_started(&mut on_small_disk(&worker, &disk))?;
        two_others(&mut cluster, others.path())?;
        runs_elsewhere(&session, recovery, folder.path())?;
        // Only the worker sees its disk.
        let seen = format!("/proc/{}/root{disk}", cluster.worker(0).id());
        if std::fs::read_dir(&seen)?.count() == 0 {
            return Err("the worker has not used the disk".into());
        }
        must_be_gone(seen.as_ref())?;
        if !files(folder.path()).is_empty() {
            return Err("the worker has written beside its disk".into());
        }
    }
    Ok(())
}

/// The worker's command, with a file system of a few pages in place of a directory.
fn on_small_disk(worker: &Command, disk: &str) -> Command {
    let mut command = Command::new("unshare");
    let mount = r#"mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@""#;
    command.args(["--mount", "sh", "-c", mount, disk]).arg(worker.get_program()).args(worker.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn two_others(cluster: &mut Cluster, folder: &Path) -> anyhow::Result<()> {
    for _ in 0..2 {
        cluster.add(&[SPILLS, "--temp-dir", &folder.to_string_lossy()])?;
    }
    cluster.wait_for_slots(3)
}

fn runs_elsewhere(session: &Arc<Session>, recovery: Recovery, full: &Path) -> Result<(), String> {
    let sql = query(9);
    match recovery {
        Recovery::Off => must_say_full(execute(session, &sql), full),
        Recovery::On => must_be_right(&Outcome::Answered(execute(session, &sql)?), &sql),
    }
}

fn execute(session: &Arc<Session>, sql: &str) -> Result<String, String> {
    session.execute(sql).map(|result| text(&result)).map_err(|e| e.to_string())
}

/// The error names the directory and the bytes.
fn must_say_full(outcome: Result<String, String>, folder: &Path) -> Result<(), String> {
    let Err(error) = outcome else { return Err("the disk was not full".into()) };
    let is_told = error.contains("the disk is full: none of the spill directories can take")
        && error.contains(&*folder.to_string_lossy())
        && error.contains("bytes")
        && error.contains("--temp-dir");
    is_told.then_some(()).ok_or(format!("the error does not say what is the matter: {error}"))
}

fn with_quota(folder: &Path, quota: &str) -> String {
    format!("{}={quota}", folder.display())
}
