//! The standard benchmarks plan, and a few plans look as they should.

use std::path::{Path, PathBuf};

use crate::explain;
use crate::optimize::join_order::fixture::{tpcds, tpch};
use crate::testing::query;

fn texts(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benchmarks/queries").join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some())
        .collect();
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

fn plan_all(folder: &str, expected: usize, catalog: &crate::catalog::CatalogSnapshot) {
    let mut failures = vec![];
    let texts = texts(folder);
    assert_eq!(texts.len(), expected);
    for (path, sql) in texts {
        if let Err(e) = query(&sql, catalog) {
            failures.push(format!("{}: {e}", path.file_name().unwrap().to_string_lossy()));
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

#[test]
fn show() {
    let which = std::env::var("SHOW").unwrap_or_default();
    for (folder, catalog) in [("tpch", tpch()), ("tpcds", tpcds())] {
        for (path, sql) in texts(folder) {
            let name = format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy());
            if which.split(',').any(|w| w == name) {
                println!("== {name}\n{}", explain::query(&query(&sql, &catalog).unwrap(), &|_| None));
            }
        }
    }
}
