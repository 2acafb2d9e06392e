//! `dovetail demo`: writes once, answers, refuses folders that are not its own.

use std::path::Path;
use std::process::{Command, Output};

fn demo(dir: &Path, scale_factor: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dovetail"))
        .args(["demo", "--scale-factor", scale_factor])
        .arg(dir)
        .output()
        .unwrap()
}

#[test]
fn the_tour_runs_and_the_data_is_kept() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{}", std::process::id()));
    let dir = scratch.join("tpch");
    let first = demo(&dir, "0.01");
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success(), "{text}{}", String::from_utf8_lossy(&first.stderr));
    assert!(text.starts_with("Writing TPC-H at scale factor 0.01"), "{text}");
    for part in [
        "SELECT l_returnflag",
        "│ A            │ F            │",
        "revenue",
        "JAPAN",
        "5 rows, 5 columns",
        " s\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let lineitem = std::fs::read_dir(dir.join("lineitem")).unwrap().count();
    assert_eq!(lineitem, 4);
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1, "nothing temporary is left");

    let written = std::fs::metadata(dir.join("nation.parquet")).unwrap().modified().unwrap();
    let second = demo(&dir, "0.01");
    assert!(second.status.success());
    assert!(String::from_utf8(second.stdout).unwrap().contains("already"));
    assert_eq!(std::fs::metadata(dir.join("nation.parquet")).unwrap().modified().unwrap(), written);

    let other = demo(&dir, "0.02");
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr).unwrap().starts_with("error: "));
    std::fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let output = demo(Path::new("/proc/no/such/place"), "0.01");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "));
}
