//! Runs `slt/**/*.slt` under every configuration; a test's name is the file and the configuration.
//!
//! `cargo test -p dovetail-sqllogictests --test suite -- joins` runs the files whose path has `joins` in it.
//! Files below `slt/tpch` see the tables of TPC-H at scale factor 0.01, which are written once into
//! `target/tmp` and kept.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use dovetail_sqllogictests::cluster::became_a_process;
use dovetail_sqllogictests::database::CONFIGURATIONS;
use dovetail_sqllogictests::file;
use sqllogictest::harness::{Arguments, Failed, Trial, glob, run};

const SCALE_FACTOR: f64 = 0.01;

fn main() -> ExitCode {
    if let Some(code) = became_a_process() {
        return code;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let tpch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tpch-sf{SCALE_FACTOR}"));
    if let Err(e) = dovetail_cli::demo::data::write(&tpch, SCALE_FACTOR, 2, &|| false) {
        eprintln!("error: {e:#}");
        return ExitCode::FAILURE;
    }
    let pattern = root.join("**/*.slt");
    let paths: Vec<PathBuf> = glob(&pattern.to_string_lossy())
        .expect("invariant: the pattern is well formed")
        .map(|path| path.expect("the suite's folder can be read"))
        .collect();
    assert!(!paths.is_empty(), "no files match {}", pattern.display());
    let tpch: Arc<str> = tpch.to_string_lossy().into();
    let mut trials = vec![];
    for path in paths {
        let name = path.strip_prefix(&root).expect("invariant: found below the root").to_owned();
        for configuration in CONFIGURATIONS {
            let folder = name.starts_with("tpch").then(|| tpch.clone());
            let path = path.clone();
            trials.push(Trial::test(format!("{} [{configuration}]", name.display()), move || {
                file::run(&path, configuration, folder.as_deref()).map_err(Failed::from)
            }));
        }
    }
    run(&Arguments::from_args(), trials).exit_code()
}
