//! Sessions with little memory: the same answers, shown by the counters to have been spilled, nothing left,
//! and errors where the disk is full or an operator cannot spill. Over TPC-H at scale factor 0.01.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use dovetail_engine::{MemoryLimit, Session, SessionOptions, SpillDirectory, SpillPolicy};

const SCALE_FACTOR: f64 = 0.01;

/// Too small for the groups and rows of the queries here, which have some megabytes.
const LIMIT: MemoryLimit = MemoryLimit::Bytes(1 << 20);

/// What groups, deduplicates, joins, sorts or numbers rows, and can spill.
const QUERIES: [&str; 15] = [
    "SELECT sum(n), count(*), max(k) FROM (SELECT l_orderkey k, l_partkey, count(*) n FROM lineitem GROUP BY ALL)",
    "SELECT count(*), sum(length(c)) FROM (SELECT DISTINCT l_comment c, l_orderkey FROM lineitem)",
    "SELECT count(*), sum(a), sum(b) FROM (SELECT l_orderkey, count(DISTINCT l_suppkey) a, \
     count(DISTINCT l_partkey) b FROM lineitem GROUP BY l_orderkey)",
    "SELECT count(*), sum(length(t)) FROM (SELECT l_orderkey, string_agg(l_comment, '' ORDER BY l_partkey) t \
     FROM lineitem GROUP BY l_orderkey)",
    "SELECT count(*), min(m), max(m) FROM (SELECT l_orderkey, l_linenumber, max(l_comment) m FROM lineitem \
     GROUP BY l_orderkey, l_linenumber)",
    "SELECT count(*), sum(m) FROM (SELECT l_partkey, l_suppkey, l_shipdate, median(l_quantity) m FROM lineitem \
     GROUP BY l_partkey, l_suppkey, l_shipdate)",
    "SELECT count(DISTINCT l_comment) FROM lineitem",
    "SELECT count(*), sum(k), min(c), max(c) FROM (SELECT l_orderkey k, l_comment c FROM lineitem \
     ORDER BY l_comment DESC, l_orderkey, l_linenumber LIMIT 20 OFFSET 50000)",
    "SELECT sum(k), sum(n) FROM (SELECT l_orderkey k, l_linenumber n FROM lineitem \
     ORDER BY l_shipdate, l_extendedprice DESC, l_orderkey, l_linenumber LIMIT 30000)",
    "SELECT sum(r * l_linenumber), sum(s) FROM (SELECT l_linenumber, rank() OVER w r, sum(l_quantity) OVER w s \
     FROM lineitem WINDOW w AS (PARTITION BY l_suppkey ORDER BY l_shipdate))",
    "SELECT count(*), sum(l), max(t) FROM (SELECT lead(l_orderkey) OVER w l, max(l_comment) OVER w t FROM lineitem \
     WINDOW w AS (PARTITION BY l_orderkey ORDER BY l_linenumber))",
    "SELECT sum(r * l_orderkey), max(d) FROM (SELECT l_orderkey, row_number() OVER w r, dense_rank() OVER w d FROM \
     lineitem WINDOW w AS (ORDER BY l_comment, l_orderkey, l_linenumber))",
    "SELECT count(*), sum(a.l_quantity * b.l_tax), max(b.l_comment) FROM lineitem a JOIN lineitem b \
     ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber",
    "SELECT count(*), count(a.l_orderkey), sum(b.l_partkey) FROM (SELECT * FROM lineitem WHERE l_linenumber < 3) a \
     FULL JOIN lineitem b ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber AND a.l_tax > 0.04",
    "SELECT count(*), sum(length(l_comment)) FROM lineitem a WHERE EXISTS (SELECT 1 FROM lineitem b \
     WHERE a.l_comment = b.l_comment AND a.l_orderkey <> b.l_orderkey)",
];

fn data() -> &'static str {
    static DATA: OnceLock<String> = OnceLock::new();
    DATA.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tpch-sf{SCALE_FACTOR}"));
        dovetail_cli::demo::data::write(&folder, SCALE_FACTOR, 2, &|| false).unwrap();
        folder.to_string_lossy().into()
    })
}

/// A session of four threads that spills to `directory`.
fn session(directory: &Path, limit: Option<MemoryLimit>, quota_bytes: Option<u64>) -> Session {
    let spill_directories = vec![SpillDirectory { path: directory.to_path_buf(), quota_bytes }];
    let options =
        SessionOptions { threads: 4, memory_limit: limit, spill_directories, ..SessionOptions::default() };
    Session::open(data(), options).unwrap()
}

/// Nothing is reserved, and there is no file in the spill directory.
fn assert_nothing_left(session: &Session, directory: &Path) {
    let memory = session.memory();
    assert_eq!((memory.used_bytes, memory.spill_files), (0, 0));
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_empty = path.is_file() || fs::read_dir(&path).unwrap().next().is_none();
        assert!(is_empty, "{} is not empty", path.display());
    }
}

fn text(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).unwrap().to_string()
}

#[test]
fn answers_are_the_same_at_a_small_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (plenty, little) =
        (session(directory.path(), None, None), session(directory.path(), Some(LIMIT), None));
    for query in QUERIES {
        let expected = plenty.execute(query).unwrap();
        let before = little.memory().spilled_bytes;
        let found = little.execute(query).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert_eq!(text(&found.batches), text(&expected.batches), "{query}");
        assert!(little.memory().spilled_bytes > before, "nothing was spilled: {query}");
        assert_nothing_left(&little, directory.path());
    }
    assert_eq!(plenty.memory().spilled_bytes, 0);
}

#[test]
fn sorted_results_are_the_same_at_a_small_limit() {
    let directory = tempfile::tempdir().unwrap();
    let little = session(directory.path(), Some(LIMIT), None);
    let plenty = session(directory.path(), None, None);
    for query in [
        "SELECT l_orderkey, l_comment, l_linenumber FROM lineitem ORDER BY l_comment, l_orderkey, l_linenumber",
        "SELECT l_orderkey FROM lineitem ORDER BY l_shipinstruct DESC, l_extendedprice * l_tax, l_comment, l_orderkey",
        "SELECT l_orderkey, l_linenumber FROM lineitem ORDER BY l_comment DESC, l_orderkey, l_linenumber \
         LIMIT 30000 OFFSET 25000",
    ] {
        let expected = plenty.execute(query).unwrap();
        let before = little.memory().spilled_bytes;
        let found = little.execute(query).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert!(text(&found.batches) == text(&expected.batches), "{query}");
        assert!(little.memory().spilled_bytes > before, "nothing was spilled: {query}");
        drop((found, expected));
        assert_nothing_left(&little, directory.path());
    }
}

#[test]
fn explain_analyze_tells_who_spilled() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path(), Some(LIMIT), None);
    for (query, operator) in [(QUERIES[0], "Aggregate"), (QUERIES[7], "TopK"), (QUERIES[9], "Window")] {
        let result = session.execute(&format!("EXPLAIN ANALYZE {query}")).unwrap();
        let lines: Vec<String> = result
            .batches
            .iter()
            .flat_map(|b| {
                b.column(0).as_string_view().iter().flatten().map(str::to_string).collect::<Vec<_>>()
            })
            .collect();
        let spilled: Vec<_> = lines.iter().filter(|l| l.contains("MB spilled")).collect();
        assert!(spilled.iter().any(|l| l.contains(operator)), "{}", lines.join("\n"));
        assert!(!spilled.iter().any(|l| l.contains("Scan")), "{}", lines.join("\n"));
    }
}

#[test]
fn a_full_directory_fails_the_query_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path(), Some(LIMIT), Some(100_000));
    for query in QUERIES[..4].iter().chain(&QUERIES[7..12]) {
        let error = session.execute(query).unwrap_err().to_string();
        assert!(error.starts_with("the disk is full: none of the spill directories can take"), "{error}");
        assert!(error.contains("--temp-dir"), "{error}");
        assert_nothing_left(&session, directory.path());
    }
    session.execute("SELECT count(*) FROM lineitem").unwrap();
}

#[test]
fn what_cannot_spill_fails_with_the_setting() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path(), Some(LIMIT), None);
    let queries = [
        (
            "the inner side of a join without equal keys",
            "SELECT count(*) FROM lineitem a, lineitem b WHERE a.l_comment < b.l_comment",
        ),
        (
            "aggregation with DISTINCT or ORDER BY",
            "SELECT string_agg(l_comment, '' ORDER BY l_tax) FROM lineitem",
        ),
        (
            "a window function",
            "SELECT sum(r) FROM (SELECT percent_rank() OVER (ORDER BY l_comment) r FROM lineitem)",
        ),
    ];
    for (operator, query) in queries {
        let error = session.execute(query).unwrap_err().to_string();
        let text = format!("{operator} needs ");
        assert!(error.starts_with(&text) && error.ends_with("Raise --memory-limit"), "{query}: {error}");
        assert_nothing_left(&session, directory.path());
    }
}

#[test]
fn a_cancelled_query_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path(), Some(LIMIT), None);
    for delay in [1, 20, 60] {
        let cancel = session.cancel_handle();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(delay));
                cancel.cancel();
            });
            for query in QUERIES {
                // It may have ended before.
                let _ = session.execute(query);
                assert_nothing_left(&session, directory.path());
            }
        });
    }
}

#[test]
fn an_unusable_directory_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    fs::write(&file, "x").unwrap();
    // Nobody, not even root, may create files in the second.
    let unusable = [file, PathBuf::from("/proc/self")];
    for path in unusable.into_iter().filter(|path| path.exists()) {
        let spill_directories = vec![SpillDirectory { path, quota_bytes: None }];
        let options = SessionOptions { spill_directories, ..SessionOptions::default() };
        let error = Session::new(options).err().unwrap().to_string();
        assert!(error.starts_with("the spill directory '") && error.contains("cannot be used"), "{error}");
    }
}

#[test]
fn everything_spills_when_it_is_told_to() {
    let options = SessionOptions { threads: 2, spill: SpillPolicy::Always, ..SessionOptions::default() };
    let session = Session::new(options).unwrap();
    session.execute("CREATE TABLE t AS VALUES (1, 2), (2, 3), (1, 4), (3, 5), (1, 2)").unwrap();
    for query in [
        "SELECT column1, sum(column2) FROM t GROUP BY column1",
        "SELECT column1, count(DISTINCT column2), sum(DISTINCT column2 + 1) FROM t GROUP BY column1",
        "SELECT DISTINCT column1 FROM t",
        "SELECT row_number() OVER (PARTITION BY column1) FROM t",
        "SELECT row_number() OVER (ORDER BY column1) FROM t",
        "SELECT * FROM t ORDER BY column2 DESC, column1",
        "SELECT * FROM t ORDER BY column2 LIMIT 2",
    ] {
        let before = session.memory().spilled_bytes;
        session.execute(query).unwrap();
        assert!(session.memory().spilled_bytes > before, "nothing was spilled: {query}");
        assert_eq!((session.memory().used_bytes, session.memory().spill_files), (0, 0));
    }
}
