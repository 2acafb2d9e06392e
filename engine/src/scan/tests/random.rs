//! Random tables, written in random ways, read under random filters.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::{BinaryOp, Expr, IsTest};
use dovetail_planner::physical::RuntimeFilterUse;

use super::data::{self, Random};
use super::*;
use crate::batch::to_logical;
use crate::task::SourceFactory;

#[test]
fn files_hold_what_was_written() {
    for seed in 0..12 {
        check(seed, 4000);
    }
}

fn check(seed: u64, rows: usize) {
    let mut random = Random(seed);
    let batch = data::table(&mut random, rows);
    let database = Database::new();
    let properties = data::properties(&mut random, &batch);
    write(&database.path("t.parquet"), &batch, properties);
    let catalog = database.catalog();
    let table = catalog.table("t").unwrap().unwrap();
    let expected = in_memory(&catalog, &table.schema, &batch);
    for round in 0..8 {
        let (ask, published) = question(&mut random, &table.schema, &batch);
        let found = run(&catalog, &table, &ask, Published(published.0.clone()));
        let wanted = run(&catalog, &expected, &ask, published);
        let (found, wanted) = (found.unwrap(), wanted.unwrap());
        let columns = found.schema();
        for (i, (f, w)) in found.columns().iter().zip(wanted.columns()).enumerate() {
            assert_eq!(f.len(), w.len(), "rows, seed {seed}, round {round}, {ask:?}");
            // Compared as text where NaN would not equal itself.
            let same = f.to_data() == w.to_data() || format!("{f:?}") == format!("{w:?}");
            assert!(same, "column {}, seed {seed}, round {round}, {ask:?}", columns.field(i).name());
        }
    }
}

fn question(random: &mut Random, schema: &SchemaRef, batch: &RecordBatch) -> (Ask, Published) {
    let mut ask = Ask::default();
    let mut published = Published::default();
    for _ in 0..random.below(4) {
        ask.filters.push(conjunct(random, schema, batch));
    }
    for id in 0..random.below(3) as u32 {
        let column = random.below(schema.fields().len() as u64) as usize;
        ask.runtime_filters.push(RuntimeFilterUse { id, column });
        if random.below(4) > 0 {
            // A false positive of a bloom filter would be dropped by the join: both scans see it.
            let some = random.below(200) as usize;
            let keys =
                batch.column(column).slice(random.below((batch.num_rows() - some) as u64) as usize, some);
            let keys = to_logical(&keys, schema.field(column).data_type()).unwrap();
            published.0.insert(id, Arc::new(RuntimeFilter::build(&[keys])));
        }
    }
    let count = random.below(schema.fields().len() as u64 + 1);
    ask.output = match random.below(3) {
        0 => (0..schema.fields().len()).collect(),
        _ => (0..count).map(|_| random.below(schema.fields().len() as u64) as usize).collect(),
    };
    if ask.output.is_empty() {
        ask.output.push(0);
    }
    (ask, published)
}

fn conjunct(random: &mut Random, schema: &SchemaRef, batch: &RecordBatch) -> Expr {
    let index = random.below(schema.fields().len() as u64 - 1) as usize;
    let data_type = schema.field(index).data_type().clone();
    let column = Expr::column(index, data_type.clone());
    let value = |random: &mut Random| literal(random, batch, index, &data_type);
    let binary = |op, left: Expr, right: Expr| Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
        data_type: DataType::Boolean,
    };
    use BinaryOp::*;
    match random.below(8) {
        0 => {
            let test = *random.pick(&[IsTest::Null, IsTest::NotNull]);
            Expr::Is { test, expr: Box::new(column) }
        }
        1 => {
            let list = (0..1 + random.below(5)).map(|_| value(random)).collect();
            Expr::InList { expr: Box::new(column), list, negated: random.flip() }
        }
        2 => {
            let (low, high) = (value(random), value(random));
            let low = binary(GtEq, column.clone(), low);
            binary(And, low, binary(LtEq, column, high))
        }
        3 => binary(Or, binary(Eq, column.clone(), value(random)), binary(Lt, column, value(random))),
        4 => {
            let same: Vec<usize> =
                (0..schema.fields().len()).filter(|i| *schema.field(*i).data_type() == data_type).collect();
            let other = Expr::column(*random.pick(&same), data_type.clone());
            binary(*random.pick(&[Lt, Eq, NotEq, GtEq]), column, other)
        }
        _ => {
            let op = *random.pick(&[Eq, NotEq, Lt, LtEq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom]);
            binary(op, column, value(random))
        }
    }
}

/// Some row's value, or one a little beside it.
fn literal(random: &mut Random, batch: &RecordBatch, column: usize, t: &DataType) -> Expr {
    let array = to_logical(batch.column(column), t).unwrap();
    let row = random.below(array.len() as u64) as usize;
    let value = match array.data_type() {
        DataType::Utf8View if random.flip() && array.is_valid(row) => {
            ScalarValue::Utf8View(Some(format!("{}a", array.as_string_view().value(row))))
        }
        _ => ScalarValue::try_from_array(&array, row).unwrap(),
    };
    Expr::literal(value)
}

#[test]
fn a_limit_stops_early() {
    let mut random = Random(77);
    let batch = data::table(&mut random, 30_000);
    let database = Database::new();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000))
        .build();
    write(&database.path("t.parquet"), &batch, properties);
    let catalog = database.catalog();
    let table = catalog.table("t").unwrap().unwrap();
    let ask = Ask { output: vec![0, 1], limit: Some(1500), ..Default::default() };
    let rows = run(&catalog, &table, &ask, Published::default()).unwrap().num_rows();
    assert!((1500..=2000).contains(&rows), "{rows}");
}

/// A scan without runtime filters.
fn open(scan: &Scan, catalog: &Catalog) -> Arc<dyn SourceFactory> {
    let (published, experience) = (Arc::new(Published::default()), Arc::new(Experience::of(scan)));
    scan_factory(scan, catalog, catalog, published, experience, 0).unwrap()
}

#[test]
fn no_columns_still_count() {
    let mut random = Random(78);
    let batch = data::table(&mut random, 5000);
    let database = Database::new();
    write(&database.path("t.parquet"), &batch, Default::default());
    let catalog = database.catalog();
    let table = catalog.table("t").unwrap().unwrap();
    let mut scan = plan(&table, &Ask::default());
    scan.columns = vec![];
    let factory = open(&scan, &catalog);
    let query = Arc::new(QueryContext::new(1));
    let mut source = factory.open(&TaskContext::new(0, 1, query)).unwrap();
    let mut rows = 0;
    while let Some(batch) = source.next().unwrap() {
        assert!(batch.columns.is_empty());
        rows += batch.rows;
    }
    assert_eq!(rows, 5000);
}

#[test]
fn tasks_share_the_work() {
    let mut random = Random(79);
    let batch = data::table(&mut random, 20_000);
    let database = Database::new();
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(700)).build();
    write(&database.path("t.parquet"), &batch, properties);
    let catalog = database.catalog();
    let table = catalog.table("t").unwrap().unwrap();
    let ask = Ask { output: vec![4], ..Default::default() };
    let factory = open(&plan(&table, &ask), &catalog);
    let query = Arc::new(QueryContext::new(1));
    let rows: usize = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..3)
            .map(|partition| {
                let task = TaskContext::new(partition, 3, query.clone());
                let factory = factory.clone();
                scope.spawn(move || {
                    let mut source = factory.open(&task).unwrap();
                    std::iter::from_fn(|| source.next().unwrap()).map(|b| b.rows).sum::<usize>()
                })
            })
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(rows, 20_000);
    query.cancel();
    let error = factory.open(&TaskContext::new(0, 1, query)).unwrap().next().err().unwrap();
    assert!(matches!(error, crate::EngineError::Cancelled));
}

#[test]
fn remote_files_give_the_same_rows() {
    let mut random = Random(80);
    let batch = data::table(&mut random, 5000);
    let database = Database::new();
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(700)).build();
    write(&database.path("t.parquet"), &batch, properties);
    let local = database.catalog();
    let store = object_store::local::LocalFileSystem::new_with_prefix(database.folder.path()).unwrap();
    let handle = database.runtime.handle().clone();
    let remote = Catalog::with_store("s3://b", Arc::new(store), "s3://b", handle).unwrap();
    let table = local.table("t").unwrap().unwrap();
    for _ in 0..10 {
        let (ask, published) = question(&mut random, &table.schema, &batch);
        let near = run(&local, &table, &ask, Published(published.0.clone())).unwrap();
        let far = run(&remote, &remote.table("t").unwrap().unwrap(), &ask, published).unwrap();
        assert_eq!(format!("{near:?}"), format!("{far:?}"));
    }
}

#[test]
fn our_own_decoders_read_all_but_lists() {
    let mut random = Random(81);
    let batch = data::table(&mut random, 2000);
    let database = Database::new();
    for seed in 0..8 {
        let properties = data::properties(&mut Random(seed), &batch);
        write(&database.path("t.parquet"), &batch, properties);
        let catalog = database.catalog();
        let table = catalog.table("t").unwrap().unwrap();
        let dovetail_planner::catalog::TableData::Parquet(files) = &table.data else { panic!() };
        let scan = plan(&table, &Ask { output: (0..batch.num_columns()).collect(), ..Default::default() });
        let (published, experience) = (Arc::new(Published::default()), Arc::new(Experience::of(&scan)));
        let steps = crate::scan::conjunct::Steps::compile(&scan, published, experience).unwrap();
        let scan = crate::scan::parquet_scan::ParquetScan::new(&scan, files, &catalog, steps, 0).unwrap();
        let mut group = crate::scan::group::GroupReader::new(scan.shared(), 0, 0, Arc::default()).unwrap();
        for (i, field) in batch.schema().fields().iter().enumerate() {
            let theirs = matches!(group.column(i).unwrap(), crate::scan::column::Column::Reader(_));
            assert_eq!(theirs, field.name() == "list", "{} {seed}", field.name());
        }
    }
}
