//! What a killed process leaves, and who may write.

use super::*;

#[test]
fn a_table_is_put_back_that_was_being_replaced() {
    let folder = tempfile::TempDir::new().unwrap();
    let own = folder.path().join(OWN);
    for (place, content) in [
        (own.join("replaced/t"), "former"),
        (own.join("replaced/u"), "former"),
        (folder.path().join("u"), "new"),
        (own.join("writing/x"), "half"),
    ] {
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("part.parquet"), content).unwrap();
    }
    let warehouse = Warehouse::open(folder.path()).unwrap();
    let read = |table: &str| fs::read_to_string(folder.path().join(table).join("part.parquet")).unwrap();
    assert_eq!((read("t").as_str(), read("u").as_str()), ("former", "new"));
    assert!(!own.join("replaced").exists() && !own.join("writing").exists());
    drop(warehouse);
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
