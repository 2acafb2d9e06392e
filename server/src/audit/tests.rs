//! What the audit keeps, through the ends of its process.

use std::fs;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use dovetail_engine::{Session, SessionOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::files::SMALL_FILES_MAX;
use super::*;

fn open(folder: &Path) -> Audit {
    Audit::start(&StateDirectory::open(folder).unwrap()).unwrap()
}

/// A session whose statements are noted in a state directory.
fn session(folder: &Path) -> Session {
    let session = Session::new(SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    session.attach_audit(Arc::new(open(folder)));
    session
}

/// What a process leaves that is killed now.
fn killed(folder: &Path) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    for part in ["audit", "queries"] {
        fs::create_dir(left.path().join(part)).unwrap();
        for file in fs::read_dir(folder.join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), left.path().join(part).join(file.file_name())).unwrap();
        }
    }
    fs::copy(folder.join("identity"), left.path().join("identity")).unwrap();
    left
}

/// Statements and their outcomes, in their order.
fn told(session: &Session) -> Vec<(String, String)> {
    let result = session.execute("SELECT sql, outcome FROM system.audit ORDER BY statement_id").unwrap();
    let text = |column: &Arc<dyn Array>, row: usize| column.as_string_view().value(row).to_owned();
    let rows = result.batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
    rows.map(|(b, row)| (text(b.column(0), row), text(b.column(1), row))).collect()
}

fn files(folder: &Path, extension: &str) -> usize {
    let all = fs::read_dir(folder.join("audit")).unwrap();
    all.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == extension)).count()
}

fn pair(sql: &str, outcome: &str) -> (String, String) {
    (sql.to_owned(), outcome.to_owned())
}

const READ: &str = "SELECT sql, outcome FROM system.audit ORDER BY statement_id";

#[test]
fn what_has_ended_is_there_at_once_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let session_1 = session(folder.path());
    session_1.execute("SELECT 1").unwrap();
    session_1.execute("SELECT 1 / (v - v) FROM (VALUES (1)) t(v)").unwrap_err();
    let both = [pair("SELECT 1", "succeeded"), pair("SELECT 1 / (v - v) FROM (VALUES (1)) t(v)", "failed")];
    assert_eq!(told(&session_1), both);
    let statement = session_1.prepare("SELECT 2").unwrap();
    let running = session_1.run_statement(statement, &Default::default()).unwrap();
    session_1.execute("SELECT 3").unwrap();
    let left = killed(folder.path());
    drop(running);
    drop(session_1);
    let rest = [pair(READ, "succeeded"), pair("SELECT 2", "interrupted"), pair("SELECT 3", "succeeded")];
    let expected = [&both[..], &rest].concat();
    // However often it is killed.
    let session_2 = session(left.path());
    assert_eq!(told(&session_2), expected);
    let left = killed(left.path());
    drop(session_2);
    let session_3 = session(left.path());
    assert_eq!(told(&session_3), [&expected[..], &[pair(READ, "succeeded")]].concat());
}

#[test]
fn a_clean_end_leaves_no_journal_but_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = session(folder.path());
    first.execute("SELECT 1").unwrap();
    drop(first);
    assert_eq!((files(folder.path(), "journal"), files(folder.path(), "parquet")), (1, 1));
    let again = session(folder.path());
    assert_eq!(told(&again), [pair("SELECT 1", "succeeded")]);
}

#[test]
fn a_journal_that_is_torn_counts_up_to_there() {
    let folder = tempfile::tempdir().unwrap();
    let first = session(folder.path());
    for n in 1..=3 {
        first.execute(&format!("SELECT {n}")).unwrap();
    }
    let left = killed(folder.path());
    drop(first);
    let journal = fs::read_dir(left.path().join("audit")).unwrap().next().unwrap().unwrap().path();
    let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    let again = session(left.path());
    let expected =
        [pair("SELECT 1", "succeeded"), pair("SELECT 2", "succeeded"), pair("SELECT 3", "interrupted")];
    assert_eq!(told(&again), expected);
}

#[test]
fn files_stay_few_and_no_record_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let first = session(folder.path());
    let read = || {
        let result =
            first.execute("SELECT count(*), count(DISTINCT statement_id) FROM system.audit").unwrap();
        let column = |c: usize| result.batches[0].column(c).as_primitive::<Int64Type>().value(0);
        (column(0), column(1))
    };
    // Each look writes a file.
    for n in 0..2 * SMALL_FILES_MAX as i64 + 5 {
        assert_eq!(read(), (n, n));
    }
    let left = killed(folder.path());
    drop(session(left.path()));
    assert!(files(left.path(), "parquet") <= SMALL_FILES_MAX + 1, "what was merged goes at the next start");
    let again = session(left.path());
    let rows = again.execute("SELECT * FROM system.audit").unwrap().rows();
    assert_eq!(rows, 2 * SMALL_FILES_MAX as u64 + 5);
}

#[test]
fn old_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let first = session(folder.path());
    first.execute("SELECT 1").unwrap();
    drop(first);
    let audit = folder.path().join("audit");
    let name = |f: fs::DirEntry| f.file_name().into_string().unwrap();
    let parquet = fs::read_dir(&audit).unwrap().map(|f| name(f.unwrap())).find(|n| n.ends_with("parquet"));
    let parquet = parquet.unwrap();
    fs::rename(audit.join(&parquet), audit.join(format!("2020-02-29.{}", &parquet[11..]))).unwrap();
    let again = session(folder.path());
    again.execute("SELECT 2").unwrap();
    assert_eq!(told(&again), [pair("SELECT 2", "succeeded")]);
}

#[test]
fn files_of_a_later_version_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path()).execute("SELECT 1").unwrap();
    let audit = folder.path().join("audit");
    let mut found = fs::read_dir(&audit).unwrap().map(|f| f.unwrap().path());
    let file = found.find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
    let write = |version: Option<&str>| {
        let tell = |version: &str| vec![KeyValue::new("dovetail.audit.version".into(), version.to_owned())];
        let properties = WriterProperties::builder().set_key_value_metadata(version.map(tell)).build();
        let rows = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&file).unwrap()).unwrap();
        let told = rows.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let rows: Vec<_> = rows.build().unwrap().map(Result::unwrap).collect();
        let new = fs::File::create(&file).unwrap();
        let mut writer = ArrowWriter::try_new(new, rows[0].schema(), Some(properties)).unwrap();
        rows.iter().for_each(|rows| writer.write(rows).unwrap());
        writer.close().unwrap();
        told.into_iter().find(|pair| pair.key == "dovetail.audit.version").and_then(|pair| pair.value)
    };
    assert_eq!(write(Some("2")).as_deref(), Some("1"), "what is written tells its version");
    let start = || Audit::start(&StateDirectory::open(folder.path()).unwrap());
    let refused = start().err().expect("the version is later").to_string();
    for words in ["of version 2, this program knows 1 at most", "--state-dir", &*file.to_string_lossy()] {
        assert!(refused.contains(words), "{refused}");
    }
    assert!(file.exists());
    // Those that tell nothing are of the first.
    write(None);
    assert_eq!(told(&session(folder.path())), [pair("SELECT 1", "succeeded")]);
}

#[test]
fn what_cannot_be_written_now_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let first = session(folder.path());
    let audit = folder.path().join("audit");
    first.execute("SELECT 1").unwrap();
    fs::rename(&audit, folder.path().join("elsewhere")).unwrap();
    fs::write(&audit, "in the way").unwrap();
    let error = first.execute("SELECT * FROM system.audit").unwrap_err().to_string();
    assert!(error.contains("the audit cannot be brought up to date"), "{error}");
    fs::remove_file(&audit).unwrap();
    fs::rename(folder.path().join("elsewhere"), &audit).unwrap();
    assert_eq!(told(&first), [pair("SELECT 1", "succeeded")]);
}

#[test]
fn without_a_place_there_is_no_audit() {
    let session = Session::new(SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let error = session.execute("SELECT * FROM system.audit").unwrap_err().to_string();
    assert!(error.contains("--state-dir"), "{error}");
}
