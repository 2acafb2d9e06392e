//! Files that are not what they should be, and queries that are cut off: one paragraph on stderr, exit
//! code 1, nothing on stdout that looks like an answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with TPC-H at a tiny scale, which goes away with the value.
struct Data(PathBuf);

impl Data {
    fn new(name: &str) -> Data {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{name}-{}", std::process::id()));
        let written = Command::new(env!("CARGO_BIN_EXE_dovetail"))
            .args(["demo", "--data-only", "--scale-factor", "0.001"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        Data(dir)
    }

    fn query(&self, sql: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dovetail"))
            .arg(&self.0)
            .args(["--format", "csv", "-c", sql])
            .output()
            .unwrap()
    }

    /// The one paragraph that a query fails with.
    fn error(&self, sql: &str) -> String {
        let output = self.query(sql);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{sql}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{sql}");
        assert!(stderr.starts_with("error: ") && !stderr.trim_end().contains("\n\n"), "{sql}: {stderr}");
        assert!(!stderr.contains("panicked"), "{sql}: {stderr}");
        stderr
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // A folder that stays behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_that_are_truncated_or_no_parquet_are_named_and_harm_no_other_table() {
    let data = Data::new("truncated");
    let orders = data.0.join("orders/part-002.parquet");
    let whole = fs::read(&orders).unwrap();
    for length in [0, 3, 11, 12, whole.len() / 2, whole.len() - 1] {
        fs::write(&orders, &whole[..length]).unwrap();
        let error = data.error("SELECT count(*) FROM orders");
        assert!(error.contains("orders/part-002.parquet") && error.contains("truncated"), "{error}");
        assert!(data.query("SELECT count(*) FROM nation").status.success());
    }
    fs::write(&orders, "o_orderkey,o_custkey\n1,2\n").unwrap();
    assert!(data.error("SELECT * FROM orders").contains("not a Parquet file"));
}

#[test]
fn bytes_that_changed_are_an_error_that_names_the_column() {
    let data = Data::new("changed");
    let part = data.0.join("part.parquet");
    let mut bytes = fs::read(&part).unwrap();
    let third = bytes.len() / 3;
    bytes[third..third + 2000].iter_mut().for_each(|b| *b ^= 0x5a);
    fs::write(&part, bytes).unwrap();
    let error = data.error("SELECT min(p_name), min(p_type), min(p_container), min(p_comment) FROM part");
    assert!(error.contains("part.parquet") && error.contains("damaged"), "{error}");
}

#[test]
fn files_of_one_table_whose_schemas_disagree_are_both_named() {
    let data = Data::new("siblings");
    fs::copy(data.0.join("region.parquet"), data.0.join("orders/part-009.parquet")).unwrap();
    let error = data.error("SELECT count(*) FROM orders");
    assert!(error.contains("part-009.parquet") && error.contains("part-001.parquet"), "{error}");
    assert!(error.contains("o_orderkey"), "{error}");
}

#[test]
fn a_query_that_is_interrupted_says_so_and_prints_nothing() {
    let data = Data::new("interrupted");
    let sql = "SELECT count(*) FROM lineitem a, lineitem b, lineitem c WHERE a.l_comment < b.l_comment \
               AND b.l_comment < c.l_comment";
    let child = Command::new(env!("CARGO_BIN_EXE_dovetail"))
        .arg(&data.0)
        .args(["--format", "csv", "-c", "SELECT 1 AS x", "-c", sql, "-c", "SELECT 2 AS y"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // By then the first answer is out and the second would take hours.
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "cancelled after {:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n1\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: the query was cancelled\n");
}
