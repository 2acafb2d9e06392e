//! What is noted of statements, by a sink that keeps the records in memory.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parking_lot::Mutex;

use super::*;
use crate::{Cancellation, IfExists, IngestOptions, Session, SessionOptions, ValueRows};

#[derive(Default)]
struct Kept {
    begun: Mutex<u64>,
    records: Mutex<Vec<AuditRecord>>,
    is_full: Mutex<bool>,
}

impl AuditSink for Kept {
    fn begin(&self, record: &mut AuditRecord) -> Result<()> {
        if *self.is_full.lock() {
            return Err(EngineError::Resources("the audit is full".into()));
        }
        let mut begun = self.begun.lock();
        *begun += 1;
        record.statement_id = *begun;
        Ok(())
    }

    fn end(&self, record: AuditRecord) {
        self.records.lock().push(record);
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        Ok(vec![])
    }
}

/// A session with a warehouse, in which `t` has the numbers below 50,000 in one file and those below 100,000 in
/// another.
fn audited() -> (Session, Arc<Kept>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SessionOptions { threads: 2, warehouse: Some(folder.path().into()), ..SessionOptions::default() };
    let session = Session::new(options).unwrap();
    ingest(&session, "t", 0..50_000).unwrap();
    ingest(&session, "t", 50_000..100_000).unwrap();
    let kept = Arc::new(Kept::default());
    session.attach_audit(kept.clone());
    (session, kept, folder)
}

fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    RecordBatch::try_from_iter([("a", column)]).unwrap()
}

fn ingest(session: &Session, table: &str, numbers: std::ops::Range<i64>) -> Result<u64> {
    let batch = rows(numbers);
    let options =
        IngestOptions { table: table.into(), create: true, if_exists: IfExists::Append, temporary: false };
    let mut ingest = session.ingest_for("ina", &options, &batch.schema())?;
    ingest.write(&batch)?;
    ingest.commit()
}

/// The record of the one statement that has ended since the last call.
fn last(kept: &Kept) -> AuditRecord {
    let mut records = kept.records.lock();
    assert_eq!(records.len(), 1, "{records:?}");
    records.pop().unwrap()
}

#[test]
fn a_query_is_noted_with_what_it_has_read() {
    let (session, kept, _folder) = audited();
    let cancellation = Cancellation::default();
    cancellation.for_user("anna");
    let statement = session.prepare("SELECT a FROM t WHERE a >= 60000").unwrap();
    let result = session.run_statement(statement, &cancellation).unwrap();
    assert!(kept.records.lock().is_empty(), "it has not ended");
    assert_eq!(result.map(|b| b.unwrap().num_rows()).sum::<usize>(), 40_000);
    let record = last(&kept);
    assert_eq!(
        (&*record.user_name, record.kind, record.outcome),
        ("anna", StatementClass::Query, Outcome::Succeeded)
    );
    assert_eq!(record.sql, "SELECT a FROM t WHERE a >= 60000");
    assert_eq!((record.rows_out, record.bytes_out), (40_000, 320_000));
    assert!(record.ended.unwrap() >= record.started && record.settings.contains("threads=2"));
    assert_eq!(record.plan_fingerprint.as_ref().map(String::len), Some(16));
    // The statistics of the first file have excluded it.
    let [first, second] = &record.inputs[..] else { panic!("{:?}", record.inputs) };
    assert_eq!((first.rows_total, first.rows_read, first.bytes_read), (Some(50_000), 0, 0));
    assert_eq!((&*second.table_name, second.rows_total), ("t", Some(50_000)));
    assert!(second.url.starts_with("file:///") && second.etag.is_some() && second.size_bytes > Some(0));
    assert!(second.rows_read > 0 && second.bytes_read > 0);
    assert_eq!((record.rows_read, record.bytes_read), (second.rows_read, second.bytes_read));
    assert!(record.workers.is_empty() && record.outputs.is_empty() && record.error.is_none());
    // Another constant is the same plan, another column is not.
    session.execute("SELECT a FROM t WHERE a >= 70000").unwrap();
    assert_eq!(last(&kept).plan_fingerprint, record.plan_fingerprint);
    session.execute("SELECT a + 1 FROM t WHERE a >= 60000").unwrap();
    assert_ne!(last(&kept).plan_fingerprint, record.plan_fingerprint);
}

#[test]
fn a_file_that_is_read_twice_is_noted_once() {
    let (session, kept, _folder) = audited();
    session.execute("SELECT count(*) FROM t x JOIN t y ON x.a = y.a + 1").unwrap();
    let record = last(&kept);
    assert_eq!((record.inputs.len(), record.inputs_total), (2, 2));
    assert_eq!(record.inputs.iter().map(|i| i.rows_read).sum::<u64>(), record.rows_read);
    assert!(record.rows_read > 100_000, "{}", record.rows_read);
}

#[test]
fn commands_are_noted_with_what_they_have_written() {
    let (session, kept, folder) = audited();
    session.execute("CREATE TABLE m AS SELECT a FROM t WHERE a < 10").unwrap();
    let record = last(&kept);
    assert_eq!((record.kind, record.rows_out), (StatementClass::Command, 10));
    let memory = Output { table_name: "m".into(), url: "memory:m".into(), rows: 10 };
    assert_eq!((&record.outputs[..], record.inputs.len()), (&[memory][..], 2));
    session.execute("INSERT INTO t SELECT a FROM m").unwrap();
    let record = last(&kept);
    assert_eq!((&*record.inputs[0].url, record.inputs[0].rows_read), ("memory:m", 10));
    assert_eq!(record.outputs[0].rows, 10);
    assert!(
        record.outputs[0].url.ends_with(&format!("{}/t", folder.path().display())),
        "{:?}",
        record.outputs
    );
    let values = ValueRows::of(&rows(0..3)).unwrap();
    session.run_each("INSERT INTO m VALUES (?)", values, &Cancellation::default()).unwrap();
    assert_eq!((last(&kept).outputs[0].rows, session.execute("SELECT * FROM m").unwrap().rows()), (3, 13));
    assert_eq!(last(&kept).rows_out, 13);
    ingest(&session, "u", 0..7).unwrap();
    let record = last(&kept);
    assert_eq!((&*record.user_name, record.kind, &*record.sql), ("ina", StatementClass::Ingest, ""));
    assert_eq!((&*record.outputs[0].table_name, record.outputs[0].rows, record.rows_out), ("u", 7, 7));
}

#[test]
fn every_end_is_noted() {
    let (session, kept, _folder) = audited();
    session.execute("SELECT a / (a - a) FROM t").unwrap_err();
    let record = last(&kept);
    assert_eq!((record.outcome, record.error_class.as_deref()), (Outcome::Failed, Some("execution")));
    assert_eq!(record.error.as_deref(), Some("division by zero"));
    let statement = session.prepare("SELECT * FROM t").unwrap();
    drop(session.run_statement(statement, &Cancellation::default()).unwrap());
    assert_eq!(last(&kept).outcome, Outcome::Cancelled);
    let cancellation = Cancellation::default();
    let statement = session.prepare("SELECT * FROM t").unwrap();
    let mut running = session.run_statement(statement, &cancellation).unwrap();
    cancellation.cancel();
    assert!(running.any(|batch| batch.is_err()));
    assert_eq!(last(&kept).outcome, Outcome::Cancelled);
    session.execute("CREATE TABLE t AS SELECT 1 AS a").unwrap_err();
    assert_eq!((last(&kept).outcome, session.execute("SHOW TABLES").unwrap().rows()), (Outcome::Failed, 1));
    assert_eq!(last(&kept).outcome, Outcome::Succeeded);
    session.refused("anna", "SELEC 1", session.prepare("SELEC 1").err().unwrap());
    let record = last(&kept);
    assert_eq!((record.kind, record.error_class.as_deref()), (StatementClass::Unknown, Some("plan")));
    drop(session.ingest(
        &IngestOptions { table: "v".into(), create: true, if_exists: IfExists::Fail, temporary: true },
        &rows(0..1).schema(),
    ));
    let record = last(&kept);
    assert_eq!((record.outcome, record.outputs[0].rows), (Outcome::Cancelled, 0));
}

#[test]
fn what_cannot_be_noted_does_not_run() {
    let (session, kept, _folder) = audited();
    *kept.is_full.lock() = true;
    for sql in ["SELECT 1", "CREATE TABLE m AS SELECT 1 AS a", "DROP TABLE t"] {
        assert_eq!(session.execute(sql).unwrap_err().to_string(), "the audit is full");
    }
    ingest(&session, "t", 0..1).unwrap_err();
    assert!(kept.records.lock().is_empty());
    *kept.is_full.lock() = false;
    assert_eq!(session.execute("SELECT * FROM t").unwrap().rows(), 100_000);
}

#[test]
fn long_statements_are_cut_and_credentials_are_not_noted() {
    let (session, kept, _folder) = audited();
    let sql = format!("SELECT '{}' AS a, 's3://me:secret@b/c' AS b", "ä".repeat(SQL_BYTES_MAX));
    session.execute(&sql).unwrap();
    let record = last(&kept);
    assert!(record.is_sql_cut && record.sql.len() <= SQL_BYTES_MAX && record.sql.ends_with('ä'));
    session.execute("SELECT 's3://me:secret@b/c' AS b").unwrap();
    assert_eq!(last(&kept).sql, "SELECT 's3://***@b/c' AS b");
}

#[test]
fn records_become_rows() {
    let (session, kept, _folder) = audited();
    session.execute("CREATE TABLE m AS SELECT a FROM t").unwrap();
    let mut record = last(&kept);
    record.workers.push(Worker { name: "w".into(), version: "1".into(), tasks: 3 });
    let batch = super::rows::batch(&[record.clone(), AuditRecord { ended: None, ..record.clone() }]).unwrap();
    assert_eq!((batch.num_rows(), batch.schema()), (2, super::rows::schema()));
    let text = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&batch)).unwrap().to_string();
    for part in ["succeeded", "command", "memory:m", "{name: w, version: 1, tasks: 3}", "100000"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(batch.column_by_name("ended").unwrap().null_count(), 1);
    assert_eq!(super::rows::batch(&[]).unwrap().num_rows(), 0);
}
