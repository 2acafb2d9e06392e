//! The standard benchmarks plan soundly, and a few plans look as they should.

mod operators;
pub(crate) mod soundness;

use std::path::{Path, PathBuf};

use self::soundness::check;
use crate::catalog::CatalogSnapshot;
use crate::explain;
use crate::optimize::join_order::fixture::{tpcds, tpch};
use crate::testing::{query, small};

/// A query's plan as text, once it has proved sound; or the error.
pub(crate) fn plan(sql: &str) -> String {
    match query(sql, &small()) {
        Ok(query) => {
            check(&query);
            explain::query(&query, &|_| None)
        }
        Err(e) => format!("error: {e}"),
    }
}

fn texts(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benchmarks/queries").join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
        .collect();
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

fn plan_all(folder: &str, expected: usize, catalog: &CatalogSnapshot) {
    let mut failures = vec![];
    let texts = texts(folder);
    assert_eq!(texts.len(), expected);
    for (path, sql) in texts {
        match query(&sql, catalog) {
            Ok(query) => check(&query),
            Err(e) => failures.push(format!("{}: {e}", path.file_name().unwrap().to_string_lossy())),
        }
    }
    assert!(failures.is_empty(), "{} of {expected}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn tpch_plans() {
    plan_all("tpch", 22, &tpch());
}

#[test]
fn tpcds_plans() {
    plan_all("tpcds", 99, &tpcds());
}
