//! Folders as tables, tables in memory, and what is wrong with files.

use std::fs::File;
use std::path::Path;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion_common::ScalarValue;
use dovetail_planner::catalog::TableData;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn ids(from: i64, to: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(from..to))
}

fn open(folder: &TempDir) -> (Runtime, Result<Catalog>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let catalog = Catalog::open(folder.path().to_str().unwrap(), runtime.handle().clone());
    (runtime, catalog)
}

#[test]
fn files_and_folders_are_tables() {
    let folder = TempDir::new().unwrap();
    let names: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "x"]));
    write(&folder.path().join("Orders.parquet"), vec![("id", ids(1, 4)), ("name", names)]);
    write(&folder.path().join("events/a.parquet"), vec![("id", ids(0, 10))]);
    write(&folder.path().join("events/deeper/b.parquet"), vec![("id", ids(100, 105))]);
    write(&folder.path().join("_tmp/c.parquet"), vec![("id", ids(0, 1))]);
    let (_runtime, catalog) = open(&folder);
    let snapshot = catalog.unwrap().snapshot().unwrap();
    assert_eq!(snapshot.tables.keys().collect::<Vec<_>>(), ["events", "orders"]);
    let orders = &snapshot.tables["orders"];
    assert_eq!(*orders.schema.field(1).data_type(), arrow::datatypes::DataType::Utf8View);
    assert_eq!(orders.statistics.columns[1].distinct, Some(2));
    let events = &snapshot.tables["events"];
    assert_eq!(events.statistics.rows, Some(15));
    assert_eq!(events.statistics.columns[0].max.as_ref().unwrap().0, ScalarValue::Int64(Some(104)));
    assert_eq!(events.statistics.columns[0].nulls, Some(0));
    assert!(matches!(&events.data, TableData::Parquet(files) if files.len() == 2 && files[0].rows == 10));
}

#[test]
fn a_changed_file_is_read_anew_and_a_plan_of_the_old_one_fails() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    write(&path, vec![("id", ids(0, 3))]);
    let (_runtime, catalog) = open(&folder);
    let catalog = catalog.unwrap();
    let before = catalog.snapshot().unwrap().tables["t"].clone();
    write(&path, vec![("id", ids(0, 5))]);
    let after = catalog.snapshot().unwrap().tables["t"].clone();
    assert_eq!(after.statistics.rows, Some(5));
    let TableData::Parquet(files) = &before.data else { panic!() };
    let error = catalog.file(&files[0]).unwrap_err().to_string();
    assert!(error.contains("changed since"), "{error}");
}

#[test]
fn files_that_are_gone_are_forgotten() {
    let folder = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    write(&folder.path().join("kept.parquet"), vec![("id", ids(0, 3))]);
    for version in 0..5 {
        write(&folder.path().join("t").join(format!("{version}.parquet")), vec![("id", ids(0, 3))]);
    }
    let (_runtime, catalog) = open(&folder);
    let catalog = catalog.unwrap();
    catalog.snapshot().unwrap();
    assert_eq!((catalog.files.lock().len(), catalog.tables.lock().len()), (6, 2));
    std::fs::remove_file(folder.path().join("t/0.parquet")).unwrap();
    catalog.snapshot().unwrap();
    assert_eq!(catalog.files.lock().len(), 5);
    std::fs::remove_dir_all(folder.path().join("t")).unwrap();
    catalog.snapshot().unwrap();
    assert_eq!((catalog.files.lock().len(), catalog.tables.lock().len()), (1, 1));
    for i in 0..1100 {
        let path = outside.path().join(format!("{i}.parquet"));
        write(&path, vec![("id", ids(0, 1))]);
        catalog.table_at(path.to_str().unwrap()).unwrap();
    }
    assert!(catalog.files.lock().len() < 1050);
    assert!(catalog.files.lock().keys().any(|url| url.ends_with("kept.parquet")));
}

#[test]
fn siblings_must_agree() {
    let folder = TempDir::new().unwrap();
    write(&folder.path().join("t/a.parquet"), vec![("id", ids(0, 3))]);
    write(&folder.path().join("t/b.parquet"), vec![("id", Arc::new(Int32Array::from(vec![1])))]);
    write(&folder.path().join("good.parquet"), vec![("id", ids(0, 3))]);
    let (_runtime, catalog) = open(&folder);
    let catalog = catalog.unwrap();
    assert_eq!(catalog.snapshot().unwrap().tables.keys().collect::<Vec<_>>(), ["good"]);
    let error = catalog.table("t").unwrap_err().to_string();
    assert!(error.contains("a.parquet") && error.contains("b.parquet") && error.contains("'id'"), "{error}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = TempDir::new().unwrap();
    let error = open(&folder).1.err().unwrap().to_string();
    assert!(error.contains("no Parquet file"), "{error}");
    let error = Catalog::open("/no/such/place", open(&folder).0.handle().clone()).err().unwrap().to_string();
    assert!(error.contains("/no/such/place") && error.contains("no such file or folder"), "{error}");

    let path = folder.path().join("t.parquet");
    write(&path, vec![("id", ids(0, 3000))]);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("empty.parquet"), b"").unwrap();
    write(&folder.path().join("h/year=2026/x.parquet"), vec![("id", ids(0, 3))]);
    let (_runtime, catalog) = open(&folder);
    let catalog = catalog.unwrap();
    for (table, says) in [("t", "truncated"), ("empty", "too few"), ("h", "key=value")] {
        let error = catalog.table(table).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_damaged_footer_is_an_error_or_harmless() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    let names: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "x"]));
    write(&path, vec![("id", ids(0, 3)), ("name", names)]);
    let whole = std::fs::read(&path).unwrap();
    let (_runtime, catalog) = open(&folder);
    let catalog = catalog.unwrap();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize + 8;
    for at in whole.len() - footer..whole.len() {
        for bit in [0, 6] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let listed =
                listing::files_at(&catalog.stores, &Location::parse(path.to_str().unwrap()).unwrap());
            // Whatever comes of it, it is no panic and no endless allocation.
            let _ = table::describe(&catalog, "t", &listed.unwrap());
        }
    }
}

#[test]
fn a_store_of_objects_is_a_folder() {
    let folder = TempDir::new().unwrap();
    write(&folder.path().join("db/orders.parquet"), vec![("id", ids(0, 3))]);
    write(&folder.path().join("db/events/a.parquet"), vec![("id", ids(0, 10))]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let (store, handle) = (Arc::new(store), runtime.handle().clone());
    let catalog = Catalog::with_store("s3://bucket", store, "s3://bucket/db/", handle).unwrap();
    let snapshot = catalog.snapshot().unwrap();
    assert_eq!(snapshot.tables.keys().collect::<Vec<_>>(), ["events", "orders"]);
    assert_eq!(snapshot.tables["events"].statistics.rows, Some(10));
    let one = catalog.table_at("s3://bucket/db/*.parquet").unwrap();
    assert_eq!(one.statistics.rows, Some(3));
    assert_eq!(catalog.table_at("s3://bucket/db").unwrap().statistics.rows, Some(13));
}

#[test]
fn tables_in_memory_keep_their_versions() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let catalog = Catalog::in_memory(runtime.handle().clone());
    let batch = RecordBatch::try_from_iter([("id", ids(0, 3))]).unwrap();
    catalog.create_table("t", batch.schema(), vec![batch.clone().into()], false).unwrap();
    assert!(catalog.create_table("t", batch.schema(), vec![], false).is_err());
    let planned = catalog.snapshot().unwrap().tables["t"].clone();
    assert_eq!(
        catalog
            .insert(&planned, vec![batch.clone().into(), batch.clone().into()], &Governor::unlimited())
            .unwrap(),
        6
    );
    let now = catalog.table("t").unwrap().unwrap();
    assert_eq!(now.statistics.rows, Some(9));
    let rows = |t: &Table| {
        let TableData::Memory { id, version } = t.data else { panic!() };
        catalog.memory(id, version).map(|d| d.batches.iter().map(|b| b.rows).sum::<usize>())
    };
    assert_eq!((rows(&planned).unwrap(), rows(&now).unwrap()), (3, 9));
    catalog.create_view("v", "SELECT 1", false).unwrap();
    assert_eq!(catalog.snapshot().unwrap().views["v"], "SELECT 1");
    assert!(catalog.create_view("t", "SELECT 1", true).is_err());
    assert!(catalog.drop_table("t").unwrap() && !catalog.drop_table("t").unwrap());
    assert!(rows(&planned).is_err());
    // Neither what is dropped takes rows, nor what came in its place.
    let insert = || catalog.insert(&planned, vec![batch.clone().into()], &Governor::unlimited());
    assert!(insert().unwrap_err().to_string().contains("replaced or dropped"));
    catalog.create_table("t", batch.schema(), vec![], false).unwrap();
    assert!(insert().unwrap_err().to_string().contains("replaced or dropped"));
}
