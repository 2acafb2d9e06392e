//! What a killed process leaves, and who may write.

use arrow::datatypes::{DataType, Field, Schema};

use super::*;

#[test]
fn a_table_is_put_back_that_was_being_replaced() {
    let folder = tempfile::TempDir::new().unwrap();
    let own = folder.path().join(OWN);
    for (place, content) in [
        (own.join("replaced/t"), "former"),
        (own.join("replaced/3=u"), "former"),
        (own.join("replaced/0=w"), "former"),
        (folder.path().join("u"), "new"),
        (folder.path().join("v"), "new"),
        (own.join("writing/x"), "half"),
    ] {
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("part.parquet"), content).unwrap();
    }
    // A table of a single file, which was replaced by a folder.
    fs::write(own.join("replaced/V.parquet"), "former").unwrap();
    let warehouse = Warehouse::open(folder.path()).unwrap();
    assert!(!folder.path().join("V.parquet").exists());
    let read = |table: &str| fs::read_to_string(folder.path().join(table).join("part.parquet")).unwrap();
    assert_eq!([read("t"), read("u"), read("w")], ["former", "new", "former"]);
    assert!(!own.join("replaced").exists() && !own.join("writing").exists());
    drop(warehouse);
}

#[test]
fn what_could_not_be_deleted_is_in_nobodys_way() {
    let folder = tempfile::TempDir::new().unwrap();
    let warehouse = Warehouse::open(folder.path()).unwrap();
    let own = folder.path().join(OWN);
    for left in ["replaced/t", "replaced/0=t", "writing/t", "writing/0=t"] {
        fs::create_dir_all(own.join(left)).unwrap();
        fs::write(own.join(left).join("part.parquet"), "left").unwrap();
    }
    let schema = table_schema(&Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let written = || {
        let memory = crate::memory::Governor::unlimited().reserve("Insert");
        warehouse.write(schema.clone(), memory).unwrap().finish().unwrap()
    };
    warehouse.create("t", written()).unwrap();
    for _ in 0..2 {
        warehouse.replace("t", written()).unwrap();
    }
    assert_eq!(entries(&own.join("replaced")).unwrap().len(), 2);
    assert!(warehouse.drop_table("t").unwrap());
    assert!(!warehouse.drop_table("t").unwrap());
    assert_eq!(entries(&own.join("writing")).unwrap().len(), 2);
}

#[test]
fn one_process_writes() {
    let folder = tempfile::TempDir::new().unwrap();
    let place = folder.path().join("made/here");
    let first = Warehouse::open(&place).unwrap();
    let e = Warehouse::open(&place).err().unwrap().to_string();
    assert!(e.contains("another server"), "{e}");
    drop(first);
    Warehouse::open(&place).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Warehouse::open(&file).is_err());
}
