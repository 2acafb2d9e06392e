//! Which table rows go to, and that they are there whole or not at all.

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Int32Type, UnionMode};
use tempfile::TempDir;

use super::*;
use crate::{MemoryLimit, SessionOptions};

fn session(folder: &TempDir) -> Session {
    let warehouse = Some(folder.path().to_path_buf());
    Session::new(SessionOptions { threads: 1, warehouse, ..SessionOptions::default() }).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn ids(from: i64, to: i64) -> RecordBatch {
    batch(vec![("id", Arc::new(Int64Array::from_iter_values(from..to)))])
}

fn options(table: &str, create: bool, if_exists: IfExists) -> IngestOptions {
    IngestOptions { table: table.into(), create, if_exists, temporary: false }
}

fn ingest(session: &Session, options: &IngestOptions, batches: &[RecordBatch]) -> Result<u64> {
    let mut ingest = session.ingest(options, &batches[0].schema())?;
    for batch in batches {
        ingest.write(batch)?;
    }
    ingest.commit()
}

fn rows(session: &Session, table: &str) -> u64 {
    session.execute(&format!("SELECT * FROM {table}")).unwrap().rows()
}

/// Files below a folder, without the lock.
fn files(folder: &TempDir) -> usize {
    fn count(path: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { count(&p) } else { usize::from(!p.ends_with("lock")) }).sum()
    }
    count(folder.path())
}

#[test]
fn create_append_replace_and_drop() {
    use IfExists::{Append, Fail, Replace};
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let missing = ingest(&session, &options("t", false, Append), &[ids(0, 1)]).unwrap_err();
    assert!(missing.to_string().contains("no table 't'"), "{missing}");
    assert_eq!(ingest(&session, &options("T", true, Fail), &[ids(0, 10), ids(10, 30)]).unwrap(), 30);
    assert_eq!(rows(&session, "t"), 30);
    let twice = ingest(&session, &options("t", true, Fail), &[ids(0, 1)]).unwrap_err();
    assert!(twice.to_string().contains("exists already"), "{twice}");
    ingest(&session, &options("t", false, Append), &[ids(30, 40)]).unwrap();
    ingest(&session, &options("t", true, Append), &[RecordBatch::new_empty(ids(0, 0).schema())]).unwrap();
    assert_eq!((rows(&session, "t"), files(&folder)), (40, 2));
    session.execute("INSERT INTO t VALUES (40), (41)").unwrap();
    assert_eq!(rows(&session, "t"), 42);
    let other = batch(vec![("name", Arc::new(StringArray::from(vec!["x"])))]);
    ingest(&session, &options("t", true, Replace), &[other]).unwrap();
    assert_eq!((rows(&session, "t WHERE name = 'x'"), files(&folder)), (1, 1));
    session.execute("DROP TABLE t").unwrap();
    assert_eq!(files(&folder), 0);
    // A table without rows is one.
    let none = RecordBatch::new_empty(ids(0, 0).schema());
    ingest(&session, &options("t", true, Replace), &[none]).unwrap();
    assert_eq!((rows(&session, "t"), session.tables().unwrap().len()), (0, 1));
}

#[test]
fn tables_are_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    ingest(&session(&folder), &options("t", true, IfExists::Fail), &[ids(0, 5)]).unwrap();
    assert_eq!(rows(&session(&folder), "t"), 5);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let mut ingest = session.ingest(&options("t", true, IfExists::Fail), &ids(0, 1).schema()).unwrap();
    ingest.write(&ids(0, 100_000)).unwrap();
    assert!(session.tables().unwrap().is_empty());
    drop(ingest);
    assert_eq!(files(&folder), 0);
    // Two that make the same table: one of them does.
    let mut both =
        [0, 1].map(|_| session.ingest(&options("t", true, IfExists::Fail), &ids(0, 1).schema()).unwrap());
    both.iter_mut().for_each(|i| i.write(&ids(0, 7)).unwrap());
    let outcomes = both.map(Ingest::commit);
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert_eq!((rows(&session, "t"), files(&folder)), (7, 1));
}

#[test]
fn rows_for_a_table_that_was_replaced_meanwhile_are_refused() {
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let pair = |a: &str, b: &str| {
        let numbers = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        batch(vec![(a, numbers(1)), (b, numbers(2))])
    };
    let replace = |rows: RecordBatch| ingest(&session, &options("t", true, IfExists::Replace), &[rows]);
    for other in [ids(0, 3), pair("b", "a")] {
        replace(pair("a", "b")).unwrap();
        let mut late =
            session.ingest(&options("t", false, IfExists::Append), &pair("a", "b").schema()).unwrap();
        late.write(&pair("a", "b")).unwrap();
        let planned = session.catalog.table("t").unwrap().unwrap();
        replace(other.clone()).unwrap();
        let inserted = session.catalog.insert(&planned, vec![pair("a", "b").into()], &session.memory);
        for outcome in [late.commit(), inserted] {
            let e = outcome.unwrap_err().to_string();
            assert!(e.contains("'t' was replaced") && e.contains("again"), "{e}");
        }
        assert_eq!((rows(&session, "t"), files(&folder)), (other.num_rows() as u64, 1));
    }
}

#[test]
fn columns_are_found_by_name_and_converted_or_refused() {
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
    let first = batch(vec![("a", Arc::new(Int32Array::from(vec![1]))), ("b", text("x"))]);
    ingest(&session, &options("t", true, IfExists::Fail), &[first]).unwrap();
    let append = |rows: RecordBatch| ingest(&session, &options("t", false, IfExists::Append), &[rows]);
    let dictionary: DictionaryArray<Int32Type> = vec!["d"].into_iter().collect();
    let number = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
    append(batch(vec![("B", Arc::new(dictionary)), ("a", number(2))])).unwrap();
    append(batch(vec![("b", Arc::new(StringViewArray::from(vec!["v"]))), ("A", number(3))])).unwrap();
    assert_eq!(rows(&session, "t WHERE (a, b) IN (SELECT 2, 'd' UNION ALL SELECT 3, 'v')"), 2);
    for (rows, words) in [
        (batch(vec![("a", number(1))]), "no column 'b'"),
        (batch(vec![("a", number(1)), ("b", text("x")), ("c", text("x"))]), "has no column 'c'"),
        (batch(vec![("a", number(i64::MAX)), ("b", text("x"))]), "column 'a'"),
        (batch(vec![("a", text("many")), ("b", text("x"))]), "column 'a'"),
    ] {
        let e = append(rows).unwrap_err().to_string();
        assert!(e.contains(words), "{words}: {e}");
    }
    assert_eq!(rows(&session, "t"), 3);
}

#[test]
fn columns_that_differ_in_case_alone_are_each_filled_from_their_own() {
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let number = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
    let both = batch(vec![("a", number(1)), ("A", number(2))]);
    ingest(&session, &options("t", true, IfExists::Fail), std::slice::from_ref(&both)).unwrap();
    let append = |rows: RecordBatch| ingest(&session, &options("t", false, IfExists::Append), &[rows]);
    append(batch(vec![("A", number(2)), ("a", number(1))])).unwrap();
    assert_eq!(rows(&session, "t WHERE a = 1 AND \"A\" = 2"), 2);
    assert!(append(batch(vec![("a", number(1))])).unwrap_err().to_string().contains("no column 'A'"));
    ingest(&session, &options("u", true, IfExists::Fail), &[ids(0, 1)]).unwrap();
    let twice = batch(vec![("id", number(1)), ("ID", number(2))]);
    let e = ingest(&session, &options("u", false, IfExists::Append), &[twice]).unwrap_err().to_string();
    assert!(e.contains("has no column 'ID'"), "{e}");
    let halves = batch(vec![("id", Arc::new(arrow::array::Float64Array::from(vec![1.5])))]);
    let e = ingest(&session, &options("u", false, IfExists::Append), &[halves]).unwrap_err().to_string();
    assert!(e.contains("column 'id'") && e.contains("1.5"), "{e}");
    assert_eq!(rows(&session, "u"), 1);
}

#[test]
fn names_that_are_no_folders_are_refused() {
    let folder = TempDir::new().unwrap();
    let session = session(&folder);
    let long = "x".repeat(1000);
    for name in ["", ".", "..", ".hidden", "_hidden", "a/b", "../up", "a\\b", "a\0b", "k=v", &long] {
        for if_exists in [IfExists::Fail, IfExists::Replace] {
            let e = ingest(&session, &options(name, true, if_exists), &[ids(0, 1)]).unwrap_err().to_string();
            assert!(e.contains("cannot be the name") && e.len() < 500, "{name}: {e}");
        }
    }
    assert_eq!(files(&folder), 0);
    ingest(&session, &options("Ünusual näme.v2", true, IfExists::Fail), &[ids(0, 1)]).unwrap();
    assert_eq!(rows(&session, "\"ünusual näme.v2\""), 1);
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    assert!(ingest(&session, &options("t", true, IfExists::Fail), &[nothing]).is_err());
    let fields = [(0, Arc::new(Field::new("i", DataType::Int32, true)))].into_iter().collect();
    let union = DataType::Union(fields, UnionMode::Sparse);
    let odd = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("odd", union, true)])));
    let e = ingest(&session, &options("t", true, IfExists::Fail), &[odd]).unwrap_err().to_string();
    assert!(e.contains("'odd'") && e.contains("Cast"), "{e}");
}

#[test]
fn without_a_warehouse_only_temporary_tables_are_made() {
    let session = Session::new(SessionOptions::default()).unwrap();
    let e = ingest(&session, &options("t", true, IfExists::Fail), &[ids(0, 1)]).unwrap_err().to_string();
    assert!(e.contains("--warehouse"), "{e}");
    let temporary = IngestOptions { temporary: true, ..options("t", true, IfExists::Fail) };
    assert_eq!(ingest(&session, &temporary, &[ids(0, 5)]).unwrap(), 5);
    assert!(session.memory().used_bytes > 0);
    // Where the table is, the rows go.
    ingest(&session, &options("t", false, IfExists::Append), &[ids(0, 5)]).unwrap();
    assert_eq!(rows(&session, "t"), 10);
    session.execute("DROP TABLE t").unwrap();
    assert_eq!(session.memory().used_bytes, 0);
}

#[test]
fn a_temporary_table_keeps_to_the_memory_limit() {
    let memory_limit = Some(MemoryLimit::Bytes(32 << 20));
    let session = Session::new(SessionOptions { memory_limit, ..SessionOptions::default() }).unwrap();
    let temporary = IngestOptions { temporary: true, ..options("t", true, IfExists::Fail) };
    let many: Vec<RecordBatch> = (0..60).map(|i| ids(i * 100_000, (i + 1) * 100_000)).collect();
    let e = ingest(&session, &temporary, &many).unwrap_err();
    assert!(matches!(&e, EngineError::Resources(m) if m.contains("Ingest")), "{e}");
    assert_eq!(session.memory().used_bytes, 0);
    assert!(session.tables().unwrap().is_empty());
}

#[test]
fn few_rows_of_long_messages_count_with_the_messages() {
    let memory_limit = Some(MemoryLimit::Bytes(32 << 20));
    let session = Session::new(SessionOptions { memory_limit, ..SessionOptions::default() }).unwrap();
    let temporary = IngestOptions { temporary: true, ..options("t", true, IfExists::Fail) };
    let first_of_many = |_| ids(0, 1 << 20).slice(0, 1);
    let many: Vec<RecordBatch> = (0..8).map(first_of_many).collect();
    let e = ingest(&session, &temporary, &many).unwrap_err();
    assert!(matches!(&e, EngineError::Resources(m) if m.contains("Ingest")), "{e}");
}

#[test]
fn a_large_table_is_written_in_little_memory() {
    let folder = TempDir::new().unwrap();
    let options_of_session = SessionOptions {
        memory_limit: Some(MemoryLimit::Bytes(64 << 20)),
        warehouse: Some(folder.path().to_path_buf()),
        ..SessionOptions::default()
    };
    let session = Session::new(options_of_session).unwrap();
    let mut ingest = session.ingest(&options("t", true, IfExists::Fail), &ids(0, 1).schema()).unwrap();
    for i in 0..20 {
        ingest.write(&ids(i * 1_000_000, (i + 1) * 1_000_000)).unwrap();
    }
    assert_eq!(ingest.commit().unwrap(), 20_000_000);
    assert!(session.memory().peak_bytes < 32 << 20, "{:?}", session.memory());
    let sum = session.execute("SELECT count(*) AS n, sum(id) AS s FROM t WHERE id % 2 = 0").unwrap();
    assert_eq!(sum.rows(), 1);
    assert_eq!(rows(&session, "t WHERE id = 19999999"), 1);
}
