//! Spilled bytes that go bad: what was made is made again, and no wrong row comes of it.
//!
//! A file of a worker's disk is harmed while a query runs: cut, removed, or one of its bits is flipped, in the middle
//! of a block's rows, in a block's header, or in the index at the end. Others read the rows through that worker; what
//! a task has written for itself it reads itself, and is run again elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dovetail_engine::Session;
use dovetail_server::cluster::Recovery;
use dovetail_server::security::SecurityFiles;
use dovetail_shuffle::block::HEADER_BYTES;
use dovetail_shuffle::segment::Segment;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query, session, text};
use super::run::{Outcome, must_be_right, until_in_time, with_fault};
use super::spilling::{SPILLS, files, must_be_gone};

/// Where a bit is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Rows,
    Header,
    /// Only another process would read it: who has written a file knows its index.
    Index,
}

/// Parts of the tasks that are done when bits are flipped, one after the other.
const PHASES: [f64; 3] = [0.3, 0.5, 0.7];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("a segment is cut", || damaged(cut)),
        Trial::test("a segment is gone", || damaged(|path| fs::remove_file(path))),
        Trial::test("a disk flips a bit of every file", || damaged(|path| flip(path, Place::Rows))),
    ];
    for number in QUERIES {
        let name = format!("bits of segments are flipped, query {number}");
        trials.push(Trial::test(name, move || flipped(number)));
    }
    trials
}

/// One worker with a disk of its own, which is the one that goes bad, and two others.
struct BadDisk {
    folder: tempfile::TempDir,
    session: Arc<Session>,
    _others: tempfile::TempDir,
    _cluster: Cluster,
}

impl BadDisk {
    fn start(recovery: Recovery) -> Result<BadDisk, String> {
        let start = || -> anyhow::Result<BadDisk> {
            let (folder, others) = (tempfile::tempdir()?, tempfile::tempdir()?);
            let session = session();
            let mut cluster = Cluster::without_workers(&session, SecurityFiles::default(), recovery)?;
            for folder in [&folder, &others, &others] {
                cluster.add(&[SPILLS, "--temp-dir", &folder.path().to_string_lossy()])?;
            }
            cluster.wait_for_slots(3)?;
            Ok(BadDisk { folder, session, _others: others, _cluster: cluster })
        };
        start().map_err(|e| format!("{e:#}"))
    }

    /// Runs a query, and flips a bit of each file that the one worker has at that moment.
    fn run(&self, sql: &str, place: Place, phase: f64) -> Result<Outcome, String> {
        let mut harmed = 0;
        let outcome = with_fault(&self.session, sql, phase, || {
            harmed = files(self.folder.path()).iter().filter(|path| flip(path, place).is_ok()).count();
        })?;
        Ok(if harmed > 0 { outcome } else { Outcome::TooEarly })
    }
}

fn flipped(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    let (frail, sound) = (BadDisk::start(Recovery::Off)?, BadDisk::start(Recovery::On)?);
    for place in [Place::Rows, Place::Header] {
        // The fault is one: somebody has read what was harmed.
        let mut phases = PHASES.into_iter().cycle();
        let once = |phase: &mut f64| -> Result<Outcome, String> {
            let outcome = frail.run(&sql, place, *phase)?;
            if matches!(outcome, Outcome::Answered(_)) {
                must_be_right(&outcome, &sql)?;
                return Ok(Outcome::TooEarly);
            }
            Ok(outcome)
        };
        let (outcome, phase) = until_in_time(|| Ok(phases.next().unwrap_or_default()), once)?;
        match outcome {
            Outcome::Failed(error) if error.to_string().contains("is damaged at byte") => {}
            other => return Err(format!("{place:?}: not what a damaged file leads to: {other:?}").into()),
        }
        let (outcome, _) = until_in_time(|| Ok(()), |()| sound.run(&sql, place, phase))?;
        must_be_right(&outcome, &sql)?;
    }
    let (outcome, _) = until_in_time(|| Ok(()), |()| frail.run(&sql, Place::Index, 0.5))?;
    must_be_right(&outcome, &sql)?;
    must_be_gone(frail.folder.path())?;
    Ok(must_be_gone(sound.folder.path())?)
}

/// Flips one bit of a file that is complete.
fn flip(path: &Path, place: Place) -> std::io::Result<()> {
    // Opening checks its index: a file that still grows is not one.
    let segment = Segment::open(path).map_err(std::io::Error::other)?;
    let blocks = (0..segment.partitions()).rev().find_map(|p| segment.blocks(p).first());
    let block = blocks.ok_or_else(|| std::io::Error::other("no rows are in it"))?;
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let header_bytes = HEADER_BYTES as u64;
    let offset = match place {
        Place::Rows => block.offset + header_bytes + (block.bytes - header_bytes) / 2,
        Place::Header => block.offset + header_bytes / 4,
        Place::Index => file.metadata()?.len() - header_bytes / 2,
    };
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&[byte[0] ^ 4])?;
    if place == Place::Index && Segment::open(path).is_ok() {
        return Err(std::io::Error::other("the index is not damaged"));
    }
    Ok(())
}

fn cut(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

/// Harms spill files of both workers for as long as the queries run: each is right, or an error that names the file.
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
        let outcome = QUERIES.iter().cycle().take(2 * QUERIES.len()).try_for_each(|number| {
            let sql = query(*number);
            match session.execute(&sql) {
                Ok(result) => must_be_right(&Outcome::Answered(text(&result)), &sql),
                Err(error) if error.to_string().contains("shuffle file") => Ok(()),
                Err(error) => Err(format!("the error does not say what is the matter: {error}")),
            }
        });
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    outcome?;
    match harmed.load(Ordering::Relaxed) {
        0 => Err("no file was harmed".into()),
        _ => Ok(()),
    }
}
