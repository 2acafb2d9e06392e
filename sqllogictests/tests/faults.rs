//! Spill files that go bad while a query runs: the right answer or an error, never a wrong row, a hang or a
//! file that stays. Over TPC-H at scale factor 0.01, with a megabyte of memory.
//!
//! The files are found in the spill directory and harmed there, again and again, from another thread, as a
//! failing disk or a careless clean-up would. What becomes of a harmed file in detail is tested in the shuffle
//! crate; here it is what the user sees.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::util::pretty::pretty_format_batches;
use dovetail_engine::{EngineError, MemoryLimit, Session, SessionOptions, SpillDirectory};

const QUERIES: [&str; 5] = [
    "SELECT count(*), sum(n), sum(k) FROM (SELECT l_orderkey k, l_partkey, count(*) n FROM lineitem GROUP BY ALL)",
    "SELECT count(*), sum(a.l_quantity * b.l_tax), max(b.l_comment) FROM lineitem a JOIN lineitem b \
     ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber",
    "SELECT l_orderkey, l_linenumber FROM lineitem ORDER BY l_comment, l_orderkey, l_linenumber",
    "SELECT count(DISTINCT l_comment) FROM lineitem",
    "SELECT sum(r * l_linenumber) FROM (SELECT l_linenumber, rank() OVER (PARTITION BY l_suppkey \
     ORDER BY l_shipdate, l_comment) r FROM lineitem)",
];

/// What is done to a file.
type Fault = fn(&Path) -> std::io::Result<()>;

fn flip_a_bit(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length < 64 {
        return Ok(());
    }
    let mut byte = [0];
    file.seek(SeekFrom::Start(length / 2))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(length / 2))?;
    file.write_all(&[byte[0] ^ 4])
}

fn cut_in_half(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

fn remove(path: &Path) -> std::io::Result<()> {
    fs::remove_file(path)
}

/// Files below a folder that queries have spilled; a lock file is none.
fn spill_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            spill_files(&path, found);
        } else if path.extension().is_none() {
            found.push(path);
        }
    }
}

/// Runs the queries while files are harmed; how many were, and the errors.
fn run_with(fault: Fault) -> (usize, Vec<String>) {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-tpch-sf0.01");
    dovetail_cli::demo::data::write(&data, 0.01, 2, &|| false).unwrap();
    let data = data.to_string_lossy();
    let directory = tempfile::tempdir().unwrap();
    let session = |limit| {
        let spill_directories =
            vec![SpillDirectory { path: directory.path().to_path_buf(), quota_bytes: None }];
        let options = SessionOptions {
            threads: 2,
            memory_limit: limit,
            spill_directories,
            ..SessionOptions::default()
        };
        Session::open(&data, options).unwrap()
    };
    let (plenty, little) = (session(None), session(Some(MemoryLimit::Bytes(1 << 20))));
    let text = |session: &Session, query: &str| -> Result<String, EngineError> {
        let result = session.execute(query)?;
        Ok(pretty_format_batches(&result.batches).unwrap().to_string())
    };
    let (done, harmed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut errors = vec![];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut files = vec![];
                spill_files(directory.path(), &mut files);
                for file in files {
                    if fault(&file).is_ok() {
                        harmed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::yield_now();
            }
        });
        for query in QUERIES {
            let expected = text(&plenty, query).unwrap();
            for _ in 0..3 {
                match text(&little, query) {
                    Ok(found) => assert!(found == expected, "a wrong answer: {query}"),
                    Err(error) => errors.push(error.to_string()),
                }
                assert_eq!((little.memory().used_bytes, little.memory().spill_files), (0, 0), "{query}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut left = vec![];
    spill_files(directory.path(), &mut left);
    assert!(left.is_empty(), "{left:?}");
    (harmed.into_inner(), errors)
}

#[test]
fn flipped_bits_are_noticed() {
    let (harmed, errors) = run_with(flip_a_bit);
    assert!(harmed > 0 && !errors.is_empty(), "{harmed} files harmed, {} errors", errors.len());
    for error in errors {
        assert!(error.contains("shuffle file") && error.contains("is damaged at byte"), "{error}");
    }
}

#[test]
fn truncated_files_are_noticed() {
    let (harmed, errors) = run_with(cut_in_half);
    assert!(harmed > 0 && !errors.is_empty(), "{harmed} files harmed, {} errors", errors.len());
}

#[test]
fn removed_files_do_no_harm_or_are_noticed() {
    // What is open can still be read: on most systems nothing is lost.
    let (harmed, _) = run_with(remove);
    assert!(harmed > 0);
}
