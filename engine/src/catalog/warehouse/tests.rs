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
